// What is in the label, object by object: found, looked at, given another class, removed.

import { el, number, swatch } from "../elements.js";
import { categoryOf, change, state, watch } from "../state.js";
import { VirtualList } from "../virtual.js";

export function objectsPanel(actions) {
  const search = el("input", { type: "search", placeholder: "Class, number or source", "aria-label": "Find objects", autocomplete: "off", spellcheck: "false" });
  const count = el("p.soft.small", { role: "status" });
  const host = el("div.object-list", { role: "list", "aria-label": "Objects" });
  const acts = el("div.row.acts", {},
    el("button", { type: "button", onclick: actions.zoomTo, title: "T" }, "Zoom to it"),
    el("button", { type: "button", onclick: actions.reclass, title: "C" }, "Class …"),
    el("button.danger", { type: "button", onclick: actions.remove, title: "Delete" }, "Remove"));
  let shown = [];
  const list = new VirtualList(host, { size: 34, render: (index) => row(shown[index]) });
  const draw = () => {
    const { editor, pixels } = state;
    const words = search.value.trim().toLowerCase();
    const all = editor ? [...editor.label.annotations.values()] : [];
    shown = all.map((one) => ({ ...one, category: categoryOf(one.category_id), pixels: pixels?.objects.get(one.id) ?? 0 }))
      .filter((one) => !words || String(one.id) === words.replace("#", "") || one.category?.name.toLowerCase().includes(words) || String(one.source).toLowerCase().includes(words))
      .sort((one, other) => (one.category_id - other.category_id) || (one.id - other.id));
    count.textContent = words ? `${number(shown.length)} of ${number(all.length)} objects` : `${number(all.length)} ${all.length === 1 ? "object" : "objects"}`;
    list.set(shown.length);
    showActs();
  };
  const showActs = () => {
    for (const button of acts.children) button.disabled = !state.selection || (state.read_only !== null && button !== acts.firstChild);
  };
  search.addEventListener("input", draw);
  const closers = [
    watch(["editor", "drawn", "pixels", "categories"], draw),
    watch(["selection", "read_only"], () => {
      list.refresh();
      showActs();
      const index = shown.findIndex((one) => one.id === state.selection);
      if (index >= 0) list.show(index);
    }),
  ];
  return { element: el("div.panel", {}, search, count, host, acts), close: () => { list.close(); closers.forEach((one) => one()); } };
}

function row(one) {
  const isChosen = one.id === state.selection;
  return el("button.object", {
    type: "button", "aria-current": isChosen ? "true" : null, "data-object": one.id, onclick: () => change({ selection: isChosen ? 0 : one.id }),
  }, swatch(one.category?.color ?? "#808080"), el("span.cut", {}, one.category?.name ?? `class ${one.category_id}`), el("span.soft.tabular", {}, `#${one.id}`),
  el("span.grow"), one.source && one.source !== "manual" ? el("span.badge.cut", { title: one.source }, one.source) : null, el("span.soft.small.tabular", {}, `${number(one.pixels)} px`));
}
