// A label fetched from the server: what it is by /label, its pixels by /tiles. What cannot be read is an error, never an
// empty label.

import * as api from "./api.js";
import { blocks, inflateIds } from "./codec.js";

export function place(project, sample, ...parts) {
  return api.at(project, "samples", sample, ...parts);
}

// What a label is: {revision, tree_hash, tiles: hashes, annotations, is_read_only, problem, …}.
export function describe(project, sample, revision = null) {
  return api.get(place(project, sample, "label") + (revision === null ? "" : `?revision=${revision}`));
}

// All tiles of a revision, or an error: a label is never half of one. before(): waited for before each is unpacked.
export async function everyTile(project, sample, told, before = null) {
  const packed = blocks(await api.bytes(`${place(project, sample, "tiles")}?revision=${told.revision}`));
  if (packed.length !== told.tiles.length) throw new Error(`The label has ${packed.length} tiles instead of ${told.tiles.length}.`);
  const known = new Map(); // equal tiles are unpacked once; most of a label has nothing on it
  for (const [index, hash] of told.tiles.entries()) {
    if (known.has(hash)) continue;
    const x = index % told.columns, y = Math.floor(index / told.columns);
    const pixels = Math.min(told.tile, told.width - x * told.tile) * Math.min(told.tile, told.height - y * told.tile);
    if (before) await before();
    known.set(hash, inflateIds(packed[index], pixels));
  }
  return Promise.all(told.tiles.map((hash) => known.get(hash)));
}

// Fill `label` with a revision that `told` describes; tiles: its own, where they are here already.
export async function fill(label, project, sample, told, tiles = null) {
  if (told.width !== label.width || told.height !== label.height || told.tiles.length !== label.rows * label.columns) {
    throw new Error(`The label is ${told.width} x ${told.height} pixels, its image ${label.width} x ${label.height}.`);
  }
  if (told.revision === 0) {
    label.ids.fill(0);
    label.counts.fill(0);
    label.counts[0] = label.ids.length;
  } else {
    for (const [index, pixels] of (tiles ?? (await everyTile(project, sample, told))).entries()) label.putTile(index, pixels);
  }
  label.setAnnotations(told.annotations);
}

// The pixels of some tiles of a revision: Map(index -> pixels).
export async function someTiles(label, project, sample, told, indexes) {
  const found = await Promise.all(indexes.map(async (index) => {
    const { width, height } = label.box(index);
    const packed = new Uint8Array(await api.bytes(`${place(project, sample, "tiles", told.tiles[index])}?revision=${told.revision}`));
    return [index, await inflateIds(packed, width * height)];
  }));
  return new Map(found);
}
