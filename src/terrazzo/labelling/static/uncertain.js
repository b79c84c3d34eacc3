// On to the next place in an image: where the model doubts most, or where nobody drew. Areas are found a slice at a time,
// the heaviest first, and each is shown once before any is shown again.

import { areasSoon } from "./areas.js";
import { toast } from "./elements.js";
import { threshold } from "./offer.js";
import { state } from "./state.js";

const LEAST = 16; // pixels of an area that one is led to
const MARGIN = 8; // pixels around it
const CELLS = 6; // along the longer side: doubt runs along all borders, so an area ends with its cell; 64 pixels at least

let asking = null;
let seen = { key: "", places: new Set() };

// Zoom to the next area: kind "uncertain" or "unlabelled". Returns it, or null where there is none.
export async function toNext(kind) {
  const { editor, offer, sample } = state;
  if (!editor) return null;
  if (kind === "uncertain" && !offer) {
    toast(state.project?.models?.length ? "No model has looked at this image yet." : "No model is attached to this project.", "warn", { seconds: 5 });
    return null;
  }
  asking?.abort();
  const mine = asking = new AbortController();
  const found = await (kind === "uncertain" ? doubted(editor, offer, mine.signal) : unlabelled(editor, mine.signal));
  if (found === null || state.editor !== editor) return null;
  const key = `${kind} ${sample.id} ${offer?.labelset ?? ""}`;
  if (seen.key !== key) seen = { key, places: new Set() };
  const large = found.filter((one) => one.size >= LEAST);
  if (large.length === 0) {
    toast(kind === "uncertain" ? "The model doubts nothing here that is left as it said." : "Nothing is unlabelled here.");
    return null;
  }
  let next = large.find((one) => !seen.places.has(`${one.x},${one.y}`));
  if (!next) {
    seen.places.clear();
    [next] = large;
    toast("That were all; from the first one again.");
  }
  seen.places.add(`${next.x},${next.y}`);
  const { x0, y0, x1, y1 } = next;
  editor.view.zoomTo({ x0: x0 - MARGIN, y0: y0 - MARGIN, x1: x1 + MARGIN, y1: y1 + MARGIN });
  const place = `${seen.places.size} of ${large.length}`;
  toast(kind === "uncertain"
    ? `Uncertain place ${place}: ${next.size.toLocaleString("en")} pixels, ${Math.round(100 - (100 * next.weight) / next.size)} % sure.`
    : `Unlabelled place ${place}: ${next.size.toLocaleString("en")} pixels.`);
  return next;
}

// Where the model is among its least certain tenth, and the label is still what it said, or nothing.
function doubted({ label }, { mask, confidence }, signal) {
  const { ids, category, width, height } = label, sure = threshold(confidence);
  const side = Math.max(64, Math.ceil(Math.max(width, height) / CELLS)), columns = Math.ceil(width / side);
  const code = (i) => {
    if (confidence[i] > sure || confidence[i] === 255 || (ids[i] !== 0 && category[ids[i]] !== mask[i])) return 0;
    const x = i % width;
    return 1 + Math.floor(x / side) + columns * Math.floor((i - x) / width / side);
  };
  return areasSoon(label.width, label.height, code, (i) => 1 - confidence[i] / 255, signal);
}

function unlabelled({ label }, signal) {
  const { ids } = label;
  return areasSoon(label.width, label.height, (i) => (ids[i] === 0 ? 1 : 0), null, signal);
}
