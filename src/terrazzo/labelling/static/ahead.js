// Images that are likely next, fetched before anybody asks: their small picture and their label, packed as it came. What
// the label is by then is asked again; the packed tiles are used if it is still the same.

import * as api from "./api.js";
import { describe, packedTiles, place } from "./loading.js";
import { fetchBitmap, previewOf } from "./pyramid.js";

const MOST = 3; // images
const found = new Map(); // "project/sample" -> promise of {preview, hash, packed}

export function lookAhead(project, ids) {
  for (const id of ids) {
    const key = `${project}/${id}`;
    if (found.has(key)) continue;
    const fetched = fetchAhead(project, id);
    fetched.catch(() => found.delete(key));
    found.set(key, fetched);
  }
  const wanted = new Set(ids.map((id) => `${project}/${id}`));
  for (const key of [...found.keys()]) if (found.size > MOST && !wanted.has(key)) forget(key);
}

// What was fetched of an image, or null; it is the caller's now.
export async function taken(project, id) {
  const key = `${project}/${id}`, fetched = found.get(key);
  found.delete(key);
  return (await fetched?.catch(() => null)) ?? null;
}

async function fetchAhead(project, id) {
  const sample = await api.get(place(project, id));
  const preview = await fetchBitmap(project, id, previewOf(sample));
  const told = await describe(project, id);
  if (told.problem) return { preview, hash: null, packed: null };
  return { preview, hash: told.tree_hash, packed: told.revision === 0 ? null : await packedTiles(project, id, told) };
}

function forget(key) {
  const fetched = found.get(key);
  found.delete(key);
  fetched.then(({ preview }) => preview.close(), () => {});
}
