// The classes of a project: added, called and coloured otherwise, marked, merged and let go, with what that would touch.

import * as api from "../api.js";
import { ask, field, menuButton } from "../dialogs.js";
import { el, iconButton, number, percent, plural, tell, toast } from "../elements.js";
import { change, may, mayDraw, state, watch } from "../state.js";

export const COLOR = /^#[0-9a-f]{6}$/i;

// One change after the other, for a class is known to the server by what it was called before.
let before = Promise.resolve();

function turn(work) {
  before = before.then(work);
  return before;
}

export function categoriesPanel(project, refresh) {
  const list = el("ul.classes", { "aria-label": "Classes" });
  const count = el("span.soft.small.tabular");
  const adding = addForm(project, refresh);
  const element = el("section.card", { "aria-labelledby": "classes-title" },
    el("header", {}, el("h2", { id: "classes-title" }, "Classes"), count), list, adding);
  let isStale = false; // somebody's hands are on a row: it is drawn anew when they are gone
  const draw = () => {
    count.textContent = state.categories.length || "";
    adding.hidden = !mayDraw();
    const at = list.contains(document.activeElement) ? document.activeElement : null;
    isStale = at !== null && at.matches("input"); // what is selected in a field would be lost, too
    if (isStale) return;
    const focused = at?.closest("li").dataset.category;
    const place = at ? [...at.closest("li").querySelectorAll("input, button")].indexOf(at) : -1;
    const all = state.categories.reduce((sum, one) => sum + (one.pixels ?? 0), 0);
    list.replaceChildren(...state.categories.map((one, index) => row(project, one, index, all, refresh)));
    if (state.categories.length === 0) list.append(el("li.soft", { class: "small" }, "What may be in the images: road, sky, car …"));
    if (at) list.querySelector(`[data-category="${focused}"]`)?.querySelectorAll("input, button")[place]?.focus();
  };
  list.addEventListener("focusout", () => setTimeout(() => { if (isStale && list.isConnected) draw(); }));
  const unwatch = watch(["categories", "project"], draw);
  return { element, close: unwatch };
}

function row(project, one, index, all, refresh) {
  const isOpen = mayDraw();
  const patch = (body) => turn(async () => {
    try {
      const told = await api.send("PATCH", api.at(project, "categories", one.id), body);
      change({ categories: state.categories.map((other) => (other.id === one.id ? { ...other, ...told } : other)) });
    } catch (error) {
      tell(error);
      name.value = one.name;
    }
    refresh();
  });
  const name = el("input.name", { value: one.name, "aria-label": `Name of ${one.name}`, disabled: !isOpen, maxlength: 200, autocomplete: "off", spellcheck: "false" });
  name.addEventListener("change", () => {
    const wanted = name.value.trim();
    if (wanted && wanted !== one.name) patch({ name: wanted });
    else name.value = one.name;
  });
  name.addEventListener("keydown", (event) => {
    if (event.key === "Escape") name.value = one.name;
    if (event.key === "Escape" || event.key === "Enter") name.blur();
  });
  const color = el("input", { type: "color", value: COLOR.test(one.color) ? one.color : "#808080", "aria-label": `Colour of ${one.name}`, disabled: !isOpen });
  color.addEventListener("change", () => patch({ color: color.value }));
  const flags = el("span.flags", {},
    one.has_instances ? el("span.badge", { title: "Every object is one of its own" }, "objects") : null,
    one.is_ignore ? el("span.badge", { title: "Neither trained on nor scored" }, "ignored") : null);
  const more = menuButton(iconButton("more", `More on ${one.name}`, null, { disabled: !isOpen }), () => [
    { says: one.has_instances ? "Every object is one of its own." : "All of it is one area." },
    { label: one.is_ignore ? "Train on it again" : "Ignore in training and scores", icon: "flag", run: () => patch({ is_ignore: !one.is_ignore }) },
    { label: "Merge into another class …", icon: "merge", disabled: state.categories.length < 2 || !may("admin"), run: () => merge(project, one, refresh) },
    null,
    { label: "Delete …", icon: "trash", danger: true, disabled: !may("admin"), run: () => remove(project, one, refresh) },
  ]);
  const key = index < 10 ? el("kbd", { title: `Key ${(index + 1) % 10} draws it`, "aria-label": `Key ${(index + 1) % 10}` }, String((index + 1) % 10)) : el("span");
  return el("li", { "data-category": one.id }, key, color, name, flags,
    el("span.share.tabular", { title: one.pixels === undefined ? "" : plural(one.pixels, "pixel") }, all && one.pixels !== undefined ? percent(one.pixels / all) : ""), more);
}

function addForm(project, refresh) {
  const name = el("input.name", { required: true, maxlength: 200, placeholder: "New class", "aria-label": "Name of the new class", autocomplete: "off", spellcheck: "false" });
  const objects = el("input", { type: "checkbox", id: "new-class-objects" });
  return el("form.add", {
    onsubmit: async (event) => {
      event.preventDefault();
      const names = name.value.split(/[\n,;]/).map((one) => one.trim()).filter(Boolean);
      try {
        for (const one of names) await api.send("POST", api.at(project, "categories"), { name: one, has_instances: objects.checked });
        name.value = "";
      } catch (error) {
        tell(error);
      }
      name.focus();
      refresh();
    },
  }, name, el("label.tick", { for: "new-class-objects", title: "Such as cars: every object is one of its own" }, objects, "objects"), el("button", { type: "submit" }, "Add"));
}

async function merge(project, one, refresh) {
  const others = state.categories.filter((other) => other.id !== one.id);
  const choice = el("select", {}, others.map((other) => el("option", { value: String(other.id) }, other.name)));
  const plan = el("p.soft", { role: "status" }, "…");
  const look = async () => {
    plan.textContent = "Counting …";
    const told = await api.send("POST", api.at(project, "categories", one.id, "merge"), { into: Number(choice.value), dry_run: true });
    const into = others.find((other) => other.id === Number(choice.value));
    const count = told.samples;
    plan.textContent = count === 0
      ? `No label has “${one.name}”; it goes, and nothing else changes.`
      : `${plural(count, "label")} ${count === 1 ? "gets" : "get"} a new revision${told.pixels === undefined ? "" : `: ${plural(told.pixels, "pixel")}`} of “${one.name}” become “${into.name}”. Releases keep what they have; every label's history, too.`;
  };
  choice.addEventListener("change", () => look().catch(tell));
  look().catch((error) => { plan.textContent = error.message; });
  const told = await ask({
    title: `Merge “${one.name}”`,
    fields: [field("Into", choice), plan],
    confirm: "Merge",
    danger: true,
    read: () => api.send("POST", api.at(project, "categories", one.id, "merge"), { into: Number(choice.value), dry_run: false }),
  });
  if (told) toast(`“${one.name}” is merged.`);
  refresh();
}

async function remove(project, one, refresh) {
  const done = await ask({
    title: `Delete “${one.name}”?`,
    fields: [el("p.soft", {}, `A class that a label has is not deleted; merge it into another one instead.${one.pixels ? ` “${one.name}” has ${number(one.pixels)} pixels.` : ""}`)],
    confirm: "Delete",
    danger: true,
    read: async () => {
      await api.send("DELETE", api.at(project, "categories", one.id));
      return true;
    },
  });
  if (done) toast(`“${one.name}” is deleted.`);
  refresh();
}
