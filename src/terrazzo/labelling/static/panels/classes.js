// The classes in the editor: which is drawn, which are seen, which are locked, and how much of the image each has.

import { el, iconButton, percent, swatch } from "../elements.js";
import { ranked } from "../picker.js";
import { change, changeView, pick, state, watch } from "../state.js";

export function classesPanel() {
  const search = el("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class", autocomplete: "off", spellcheck: "false" });
  const grid = el("div.class-grid", { role: "grid", "aria-label": "Classes" });
  const rows = new Map();
  const draw = () => {
    const words = search.value.trim().toLowerCase();
    const shown = words ? new Set(ranked(words).map((one) => one.id)) : null;
    const focused = document.activeElement?.closest?.(".class-grid [role=row]")?.dataset.category;
    const column = document.activeElement?.dataset?.column;
    rows.clear();
    grid.replaceChildren(...state.categories.map((one, index) => [one, index]).filter(([one]) => !shown || shown.has(one.id)).map(([one, index]) => {
      const made = row(one, index);
      rows.set(one.id, made);
      return made.element;
    }));
    if (rows.size === 0) grid.append(el("p.empty", {}, state.categories.length ? "No class has these letters." : "No classes yet. Press C and type the first one's name."));
    show();
    if (focused) grid.querySelector(`[data-category="${focused}"] [data-column="${column}"]`)?.focus();
  };
  const show = () => {
    const { pixels, category, view, locked } = state;
    for (const [id, { element, main, eye, lock, share }] of rows) {
      const isCurrent = id === category;
      element.setAttribute("aria-selected", String(isCurrent));
      main.setAttribute("aria-pressed", String(isCurrent));
      main.tabIndex = isCurrent || (!rows.has(category) && element === grid.firstElementChild) ? 0 : -1;
      toggle(eye, view.hidden.has(id), "eye", "eye-off");
      toggle(lock, locked.has(id), "unlock", "lock");
      share.textContent = pixels ? percent((pixels.of.get(id) ?? 0) / pixels.total) : "";
      share.classList.toggle("is-none", Boolean(pixels) && !pixels.of.get(id));
    }
  };
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (event) => {
    const first = rows.keys().next().value;
    if (event.key === "Enter" && first) pick(first);
    if (event.key === "Escape") {
      search.value = "";
      draw();
      search.blur();
    }
  });
  grid.addEventListener("keydown", (event) => move(event, grid));
  const closers = [watch(["categories"], draw), watch(["category", "view", "locked", "pixels"], show)];
  return { element: el("div.panel", {}, search, grid), close: () => closers.forEach((one) => one()) };
}

function row(one, index) {
  const key = index < 10 ? String((index + 1) % 10) : "";
  const share = el("span.share.tabular");
  const main = el("button.class-name", { type: "button", "data-column": "0", "aria-keyshortcuts": key || null, title: one.name, onclick: () => pick(one.id) },
    key ? el("kbd", { "aria-hidden": "true" }, key) : el("span"), swatch(one.color), el("span.grow.cut", {}, one.name),
    one.is_ignore ? el("span.badge", { title: "Neither trained on nor scored" }, "ignored") : null, share);
  const eye = iconButton("eye", `Hide ${one.name}`, () => toggleHidden(one.id), { tabindex: -1, "data-column": "1" });
  const lock = iconButton("unlock", `Lock ${one.name}`, () => toggleLock(one.id), { tabindex: -1, "data-column": "2" });
  const element = el("div.class-row", { role: "row", "data-category": one.id },
    [main, eye, lock].map((control) => el("span", { role: "gridcell", class: control === main ? "grow" : "" }, control)));
  return { element, main, eye, lock, share };
}

function toggle(button, isOn, off, on) {
  if (button.getAttribute("aria-pressed") === String(isOn)) return;
  button.setAttribute("aria-pressed", String(isOn));
  button.querySelector("use").setAttribute("href", `#icon-${isOn ? on : off}`);
}

export function toggleHidden(id) {
  const hidden = new Set(state.view.hidden);
  if (!hidden.delete(id)) hidden.add(id);
  changeView({ hidden });
}

export function toggleLock(id) {
  const locked = new Set(state.locked);
  if (!locked.delete(id)) locked.add(id);
  change({ locked });
}

// Arrows go from class to class, and along a row to its eye and its lock.
function move(event, grid) {
  const at = document.activeElement;
  const here = at?.closest("[role=row]");
  if (!here) return;
  const column = Number(at.dataset.column);
  const rows = [...grid.children];
  const index = rows.indexOf(here);
  const [row, to] = {
    ArrowDown: [rows[index + 1], column], ArrowUp: [rows[index - 1], column], ArrowRight: [here, column + 1], ArrowLeft: [here, column - 1],
    Home: [rows[0], column], End: [rows.at(-1), column],
  }[event.key] ?? [];
  if (row === undefined && to === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  row?.querySelector(`[data-column="${to}"]`)?.focus();
}
