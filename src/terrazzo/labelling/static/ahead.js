// Images that are likely next, fetched before anybody asks: their small picture and their label, unpacked while nobody
// draws. What the label is by then is asked again; the tiles are used if it is still the same.

import * as api from "./api.js";
import { describe, everyTile, place } from "./loading.js";
import { fetchBitmap, previewOf } from "./pyramid.js";

const MOST = 3; // images
const LARGE = 16e6; // pixels: the label of a larger image is not kept in memory for later
const found = new Map(); // "project/sample" -> {fetched: promise of {preview, hash, tiles}, isWanted: now, not when all is calm}

export function lookAhead(project, ids) {
  for (const id of ids) {
    const key = `${project}/${id}`;
    if (found.has(key)) continue;
    const one = { isWanted: false };
    one.fetched = fetchAhead(project, id, () => (one.isWanted ? null : calm()));
    one.fetched.catch(() => found.delete(key));
    found.set(key, one);
  }
  const wanted = new Set(ids.map((id) => `${project}/${id}`));
  for (const key of [...found.keys()]) if (found.size > MOST && !wanted.has(key)) forget(key);
}

// What was fetched of an image, or null; it is the caller's now.
export async function taken(project, id) {
  const key = `${project}/${id}`, one = found.get(key);
  found.delete(key);
  if (!one) return null;
  one.isWanted = true;
  return one.fetched.catch(() => null);
}

async function fetchAhead(project, id, before) {
  const sample = await api.get(place(project, id));
  const preview = await fetchBitmap(project, id, previewOf(sample));
  const told = await describe(project, id);
  if (told.problem || told.revision === 0 || told.width * told.height > LARGE) return { preview, hash: null, tiles: null };
  return { preview, hash: told.tree_hash, tiles: await everyTile(project, id, told, before) };
}

// Until the page has nothing better to do.
function calm() {
  return new Promise((resolve) => {
    if (globalThis.requestIdleCallback) requestIdleCallback(resolve, { timeout: 200 });
    else setTimeout(resolve, 50); // Safari
  });
}

function forget(key) {
  const { fetched } = found.get(key);
  found.delete(key);
  fetched.then(({ preview }) => preview.close(), () => {});
}
