// The class picker: type a few letters of a class and Enter takes it. With an object selected, it becomes of that class.

import * as api from "./api.js";
import { el, swatch, tell } from "./elements.js";
import { change, mayDraw, pick, state } from "./state.js";

export function openPicker(project, { onPick = pick, title = "Class to draw" } = {}) {
  const before = document.activeElement;
  const input = el("input", { type: "search", role: "combobox", "aria-expanded": "true", "aria-controls": "picker-list", "aria-autocomplete": "list", "aria-label": title, placeholder: `${title} …`, autocomplete: "off", spellcheck: "false" });
  const list = el("ul", { id: "picker-list", role: "listbox", "aria-label": "Classes" });
  const dialog = el("dialog.picker", { "aria-label": title }, input, list);
  let found = [];
  let at = 0;
  const draw = () => {
    const words = input.value.trim().toLowerCase();
    found = ranked(words);
    if (words && mayDraw() && !state.categories.some((one) => one.name.toLowerCase() === words)) found.push({ id: 0, name: input.value.trim(), isNew: true });
    at = Math.min(at, Math.max(0, found.length - 1));
    list.replaceChildren(...found.map((one, index) => el("li", {
      role: "option", id: `picker-${index}`, "aria-selected": String(index === at), onclick: () => take(one), onpointermove: () => move(index),
    }, one.isNew ? "" : swatch(one.color), el("span.grow.cut", {}, one.isNew ? `New class “${one.name}”` : one.name), digit(one))));
    if (found.length === 0) list.append(el("li.soft", {}, "No class has these letters."));
    input.setAttribute("aria-activedescendant", found.length ? `picker-${at}` : "");
  };
  const move = (index) => {
    if (index === at) return;
    list.children[at]?.setAttribute("aria-selected", "false");
    at = (index + found.length) % found.length;
    list.children[at]?.setAttribute("aria-selected", "true");
    list.children[at]?.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", `picker-${at}`);
  };
  const take = async (one) => {
    try {
      const chosen = one.isNew ? await create(project, one.name) : one;
      dialog.close();
      onPick(chosen.id);
    } catch (error) {
      tell(error);
    }
  };
  input.addEventListener("input", () => { at = 0; draw(); });
  input.addEventListener("keydown", (event) => {
    const to = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
    if (to !== undefined && found.length) {
      event.preventDefault();
      move((to + found.length) % found.length);
    }
    if (event.key === "Escape") {
      event.preventDefault(); // a search field would only be emptied
      dialog.close();
    }
    if (event.key === "Enter" && found[at]) {
      event.preventDefault();
      take(found[at]);
    }
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
  });
  document.body.append(dialog);
  dialog.showModal();
  draw();
  input.focus();
}

// Classes whose names begin with the words first, then those that have a word that does, then any that hold them.
export function ranked(words) {
  const rank = ({ name }) => {
    const low = name.toLowerCase();
    if (low.startsWith(words)) return 0;
    if (low.split(/[\s_-]+/).some((one) => one.startsWith(words))) return 1;
    return low.includes(words) ? 2 : 3;
  };
  return state.categories.map((one) => [rank(one), one]).filter(([value]) => value < 3).sort(([one], [other]) => one - other).map(([, one]) => one);
}

function digit(one) {
  const index = state.categories.findIndex((other) => other.id === one.id);
  return index >= 0 && index < 10 ? el("kbd", {}, String((index + 1) % 10)) : null;
}

async function create(project, name) {
  const made = await api.send("POST", api.at(project, "categories"), { name });
  if (!state.categories.some((one) => one.id === made.id)) change({ categories: [...state.categories, made] });
  return made;
}
