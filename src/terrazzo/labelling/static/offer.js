// What a model says of the image that is open: `state.offer`, {labelset, hash, name, mask, confidence}, null where no
// model saw it. Read only: it becomes a label by a tool's stroke alone.

import * as api from "./api.js";
import { blocks, inflate, inflateIds } from "./codec.js";
import { change, state } from "./state.js";

let asking = null;

// The models that saw the sample, the newest first: [{labelset, hash, name, at}].
export async function offersOf(project, sample) {
  const { items } = await api.get(api.at(project, "samples", sample, "predictions"));
  const models = state.project?.models ?? [];
  const place = (one) => models.findIndex((other) => other.labelset === one.labelset);
  return items.filter((one) => place(one) >= 0).sort((a, b) => place(a) - place(b))
    .map((one) => ({ ...one, hash: one.model, name: models[place(one)].name }));
}

// Take what a model says of the sample in the editor: the model called so, or the newest that saw it. Returns the offer.
export async function loadOffer(project, labelset = null) {
  const { editor, sample } = state;
  if (!editor || !sample) return null;
  asking?.abort();
  const mine = asking = new AbortController();
  const offers = await offersOf(project, sample.id);
  const chosen = offers.find((one) => one.labelset === labelset) ?? offers[0];
  if (mine.signal.aborted || state.editor !== editor) return null;
  if (!chosen) {
    change({ offer: null });
    return null;
  }
  const body = await api.bytes(api.at(project, "samples", sample.id, "predictions", chosen.labelset), { signal: mine.signal });
  const [first, second] = blocks(body), pixels = sample.width * sample.height;
  const [mask, confidence] = await Promise.all([inflateIds(first, pixels), inflate(second, pixels)]);
  if (mine.signal.aborted || state.editor !== editor) return null;
  change({ offer: { ...chosen, mask, confidence } });
  return state.offer;
}

export function dropOffer() {
  asking?.abort();
  if (state.offer) change({ offer: null });
}

// The least confidence that counts as certain: below it lies the least certain tenth of the pixels.
export function threshold(confidence, share = 0.1) {
  const counts = new Float64Array(256);
  for (let i = 0; i < confidence.length; i += 1) counts[confidence[i]] += 1;
  let sum = 0, level = 0;
  while (level < 255 && sum + counts[level] <= share * confidence.length) sum += counts[level++];
  return level;
}
