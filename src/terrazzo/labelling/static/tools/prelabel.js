// What a model says, accepted: a click takes an area, a class, or all of it; Enter takes all. One stroke, one undo. Only
// what the sliders let through: pixels of which the model is sure enough, and unlabelled ones alone unless one says more.
// Protection and locks hold as for any tool; pixels that are of that class already keep their object.

import { areas } from "../areas.js";
import { toast } from "../elements.js";
import { OfferLayer } from "../offerlayer.js";
import { state, watch } from "../state.js";

const NAME = "prelabel";
const SPECK = 16; // pixels: smaller areas of things are one object together
let layer = null;
let at = null;
let unwatch = null;

// Whether a pixel would be accepted now: (i) -> category or 0.
export function accepting(editor, { sure = editor.option(NAME, "sure"), isOnlyUnlabelled = editor.option(NAME, "unlabelled"), category = null } = {}) {
  const { offer } = state, { label } = editor, { ids } = label;
  if (!offer) return () => 0;
  const { mask, confidence } = offer;
  return (i) => {
    const wanted = mask[i];
    if (wanted === 0 || (category !== null && wanted !== category)) return 0;
    if (100 * confidence[i] < 255 * sure) return 0;
    if (isOnlyUnlabelled ? ids[i] !== 0 : label.category[ids[i]] === wanted) return 0;
    return wanted;
  };
}

// Accept what `take(i)` says, one stroke; a class of things gets an object for each area that is no speck. Returns how many pixels changed.
export function accept(editor, take) {
  const { offer } = state, { label } = editor;
  if (!offer) return 0;
  const found = areas(label.width, label.height, take);
  if (found.length === 0) return 0;
  const before = label.counts.slice(), { current } = label;
  if (editor.begin(NAME, { erase: true }) === null) return 0; // no category of one's own is asked for
  const source = `model:${offer.hash}`, shared = new Map();
  for (const { code, size, runs } of found) {
    if (state.locked.has(code)) continue;
    const isOwn = label.things.has(code) && size >= SPECK;
    let id = isOwn ? undefined : shared.get(code);
    if (id === undefined) {
      id = label.objectFor(code, source, { fresh: true });
      if (!isOwn) shared.set(code, id);
    }
    for (let i = 0; i < runs.length; i += 3) label.run(runs[i], runs[i + 1], runs[i + 2], id);
  }
  const made = editor.commit();
  label.current = label.annotations.has(current) ? current : 0;
  if (made?.annotations) editor.colourAll();
  return made ? changed(before, label.counts) : 0;
}

function changed(before, after) {
  let gained = 0;
  for (let id = 1; id < after.length; id += 1) gained += Math.max(0, after[id] - before[id]);
  return gained;
}

function told(editor, take, reach) {
  const { label } = editor;
  if (reach === "all" || !at || at.ix < 0 || at.iy < 0 || at.ix >= label.width || at.iy >= label.height) return take;
  const i = at.iy * label.width + at.ix, here = state.offer.mask[i];
  if (reach === "class") return (one) => (take(one) === here ? here : 0);
  return areaAt(label, (one) => (take(one) === here ? here : 0), at.ix, at.iy);
}

// As `take`, but of the one area in which (x, y) lies.
export function areaAt({ width, height }, take, x, y) {
  const area = areas(width, height, take).find(({ runs }) => {
    for (let n = 0; n < runs.length; n += 3) if (runs[n] === y && runs[n + 1] <= x && x < runs[n + 2]) return true;
    return false;
  });
  if (!area) return () => 0;
  const inside = new Uint8Array(width * height);
  for (let n = 0; n < area.runs.length; n += 3) inside.fill(1, area.runs[n] * width + area.runs[n + 1], area.runs[n] * width + area.runs[n + 2]);
  return (one) => (inside[one] ? take(one) : 0);
}

function run(editor, reach) {
  if (!state.offer) {
    toast(state.project?.models?.length ? "No model has looked at this image yet." : "No model is attached to this project.", "warn", { seconds: 5 });
    return;
  }
  const count = accept(editor, told(editor, accepting(editor), reach));
  const says = state.offer.name;
  toast(count ? `${count.toLocaleString("en")} pixels of ${says} accepted.` : "Nothing is left to accept here.");
}

export default {
  name: NAME, code: "KeyM", title: "Pre-label", icon: "prelabel", cursor: "pointer", wheel: false,
  options: [
    { name: "reach", kind: "choice", label: "A click takes", value: "class", choices: [
      { value: "area", label: "the area" }, { value: "class", label: "the class" }, { value: "all", label: "all" },
    ] },
    { name: "sure", kind: "range", label: "Confidence from", min: 0, max: 100, step: 1, value: 0 },
    { name: "unlabelled", kind: "toggle", label: "Only unlabelled pixels", value: true },
  ],
  activate(editor) {
    layer?.close();
    layer = new OfferLayer(editor);
    const show = () => {
      const take = accepting(editor);
      layer?.show("classes", (i) => take(i) !== 0);
    };
    unwatch = watch(["offer", "options", "drawn", "view", "categories"], show);
  },
  deactivate() {
    unwatch?.();
    layer?.close();
    layer = unwatch = at = null;
  },
  hover(editor, e) { at = e; },
  move(editor, e) { at = e; },
  down(editor, e) {
    if (e.button !== 0) return;
    at = e;
    run(editor, editor.option(NAME, "reach"));
  },
  key(editor, e) {
    if (e.code !== "Enter" || e.shiftKey || e.ctrlKey || e.metaKey) return false;
    run(editor, "all");
    return true;
  },
  cancel() { return false; },
};
