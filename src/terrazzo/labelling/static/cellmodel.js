// What a model says of superpixels: the class that it gives to most of a cell's pixels. They are counted once, in the
// finest cells and one pixel of the image for each of the map's; coarser cells add up.

import * as api from "./api.js";
import { blocks, inflateIds } from "./codec.js";

// The newest prediction for an image, or null where no model has looked at it.
export async function newestSaid(project, sample, width, height) {
  const path = (...rest) => api.at(project, "samples", sample, "predictions", ...rest);
  const { items } = await api.get(path());
  if (!items.length) return null;
  const newest = items.reduce((a, b) => (b.at > a.at ? b : a));
  const [packed] = blocks(await api.bytes(path(newest.labelset)));
  return new CellModel(await inflateIds(packed, width * height), width);
}

export class CellModel {
  constructor(classes, width) {
    this.classes = classes; // a category for every pixel of the image
    this.width = width;
    this.ids = [...new Set(classes)]; // the categories there are
    this.counted = new Map(); // Cells -> Uint32Array: in every fine cell, pixels of each of them
    this.tables = new Map(); // Cells -> level -> category of every cell
  }

  // The category of a cell; 0: most of it has none.
  says(cells, level, cell) {
    if (!this.tables.has(cells)) this.tables.set(cells, []);
    const tables = this.tables.get(cells);
    tables[level] ??= this.majority(cells, level);
    return tables[level][cell];
  }

  majority(cells, level) {
    const { ids } = this, fine = this.countsOf(cells), table = cells.tables[level];
    const counts = new Uint32Array(cells.counts[level] * ids.length);
    for (let cell = 0; cell < table.length; cell += 1) {
      for (let k = 0; k < ids.length; k += 1) counts[table[cell] * ids.length + k] += fine[cell * ids.length + k];
    }
    return Uint16Array.from({ length: cells.counts[level] }, (_, cell) => {
      let best = 0;
      for (let k = 1; k < ids.length; k += 1) if (counts[cell * ids.length + k] > counts[cell * ids.length + best]) best = k;
      return ids[best];
    });
  }

  countsOf(cells) {
    const known = this.counted.get(cells);
    if (known) return known;
    const { ids, classes, width } = this, place = new Map(ids.map((id, k) => [id, k]));
    const index = new Uint16Array(65536), counts = new Uint32Array(cells.counts[0] * ids.length);
    for (const [id, k] of place) index[id] = k;
    const middle = (starts, i) => (starts[i] + starts[i + 1]) >> 1;
    for (let row = 0, i = 0; row < cells.height; row += 1) {
      const line = (cells.y0 + middle(cells.tops, row)) * width + cells.x0;
      for (let column = 0; column < cells.width; column += 1, i += 1) {
        counts[cells.fine[i] * ids.length + index[classes[line + middle(cells.lefts, column)]]] += 1;
      }
    }
    this.counted.set(cells, counts);
    return counts;
  }
}
