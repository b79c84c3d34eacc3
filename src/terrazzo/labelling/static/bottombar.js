// The line at the foot: how near one is, where the pointer stands, what lies under it, and how much is left to label.

import { el, iconButton, percent, swatch } from "./elements.js";
import { categoryOf, keep, kept, state, watch } from "./state.js";

export function bottombar(editor, actions) {
  const zoom = el("button.bare.tabular", { type: "button", title: "Fit the image (F)", onclick: () => editor.view.fit() });
  const place = el("span.tabular.place");
  const under = el("span.under");
  const unlabelled = el("span.tabular");
  const sure = el("span.tabular");
  const element = el("footer.bottom", {}, zoom, place, under, el("span.grow"), sure, unlabelled,
    iconButton("film", "Filmstrip", actions.toggleFilm, { id: "film-toggle" }));
  let frame = 0;
  const later = () => { frame ||= requestAnimationFrame(() => { frame = 0; draw(); }); }; // a pointer moves more often than a screen
  const draw = () => {
    const { cursor } = state;
    place.textContent = cursor ? `${cursor.x}, ${cursor.y}` : state.sample ? `${state.sample.width} × ${state.sample.height}` : "";
    const one = cursor?.category ? categoryOf(cursor.category) : null;
    if (!cursor) under.replaceChildren();
    else if (one) under.replaceChildren(swatch(one.color), el("span.cut", {}, one.has_instances ? `${one.name} #${cursor.id}` : one.name));
    else under.replaceChildren(el("span.soft", {}, cursor.id ? `object #${cursor.id}` : "unlabelled"));
    sure.textContent = cursor && cursor.confidence !== null && cursor.confidence !== undefined ? `model ${percent(cursor.confidence)} sure` : "";
  };
  const closers = [
    watch(["zoom"], () => { zoom.textContent = `${Math.round(100 * state.zoom)} %`; zoom.setAttribute("aria-label", `Zoom ${Math.round(100 * state.zoom)} %: fit the image`); }),
    watch(["cursor", "sample", "categories"], later),
    watch(["pixels"], () => {
      const { pixels } = state;
      unlabelled.textContent = pixels ? `${percent((pixels.of.get(0) ?? 0) / pixels.total)} unlabelled` : "";
    }),
  ];
  return { element, close: () => { cancelAnimationFrame(frame); closers.forEach((one) => one()); } };
}

export function isFilmShown() {
  return kept("film", innerHeight > 620);
}

export function keepFilm(isShown) {
  keep("film", isShown);
}
