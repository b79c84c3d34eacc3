// Superpixels as the page has them: a map of fine cells, and for every level a table from fine cell to cell. Another level
// is another table: nothing is asked, nothing moves. How they are packed and spread stands in superpixels.py.

import * as api from "./api.js";
import { blocks, inflate } from "./codec.js";

// The cells of a sample, or of a box [x0, y0, x1, y1] of it; while the server makes them, onProgress hears of it.
export async function loadCells(project, sample, { box = null, signal, onProgress = () => {} } = {}) {
  const path = api.at(project, "samples", sample, "superpixels") + (box ? `?box=${box.join(",")}` : "");
  for (let turn = 0; turn < 3; turn += 1) {
    const response = await api.bytes(path, { full: true, signal });
    if (response.status !== 202) return unpack(await response.arrayBuffer());
    await api.finished((await response.json()).job, { onProgress, signal });
  }
  throw new Error("The superpixels were made and are not there.");
}

export async function unpack(buffer) {
  const [told, packedMap, packedTables] = blocks(buffer);
  const head = JSON.parse(new TextDecoder().decode(told));
  const Numbers = head.bits === 16 ? Uint16Array : Uint32Array, [n] = head.counts;
  const numbers = async (packed, count) => new Numbers((await inflate(packed, (count * head.bits) / 8)).buffer);
  const fine = await numbers(packedMap, head.map_width * head.map_height);
  const all = await numbers(packedTables, n * head.counts.length);
  return new Cells(head, fine, head.counts.map((_, level) => all.subarray(level * n, (level + 1) * n)));
}

export class Cells {
  constructor({ box, map_width: width, map_height: height, counts }, fine, tables) {
    const [x0, y0, x1, y1] = box;
    Object.assign(this, { x0, y0, x1, y1, width, height, counts, fine, tables });
    this.columns = spread(x1 - x0, width); // pixel of the box -> column of the map
    this.rows = spread(y1 - y0, height);
    this.lefts = starts(this.columns, width); // column of the map -> its first pixel in the box
    this.tops = starts(this.rows, height);
    this.boxes = new Map(); // level -> the rectangles of its cells, in the map
  }

  // The level that is meant by a number that may be of an image with more of them.
  level(wanted) {
    return Math.max(0, Math.min(this.tables.length - 1, wanted));
  }

  holds(ix, iy) {
    return ix >= this.x0 && iy >= this.y0 && ix < this.x1 && iy < this.y1;
  }

  // The fine cell at a pixel of the image that the box holds.
  fineAt(ix, iy) {
    return this.fine[this.rows[iy - this.y0] * this.width + this.columns[ix - this.x0]];
  }

  at(level, ix, iy) {
    return this.tables[level][this.fineAt(ix, iy)];
  }

  // Call run(y, x0, x1) for the pixels of the image in a cell; isIn: of these, only fine cells for which it holds.
  eachRun(level, cell, run, isIn = null) {
    const table = this.tables[level], { fine, width, lefts, tops } = this;
    const [left, top, right, bottom] = this.rectangles(level).subarray(4 * cell, 4 * cell + 4);
    for (let row = top; row <= bottom; row += 1) {
      for (let column = left; column <= right;) {
        const at = row * width;
        const holds = (c) => table[fine[at + c]] === cell && (isIn === null || isIn(fine[at + c]));
        if (!holds(column)) { column += 1; continue; }
        const start = column;
        while (column <= right && holds(column)) column += 1;
        const x0 = this.x0 + lefts[start], x1 = this.x0 + lefts[column];
        if (x0 < x1) for (let y = tops[row]; y < tops[row + 1]; y += 1) run(this.y0 + y, x0, x1);
      }
    }
  }

  // left, top, right, bottom (all inclusive) of every cell of a level, one after the other, in the map.
  rectangles(level) {
    const known = this.boxes.get(level);
    if (known) return known;
    const found = new Int32Array(4 * this.counts[level]);
    for (let i = 0; i < found.length; i += 4) [found[i], found[i + 1], found[i + 2], found[i + 3]] = [1 << 30, 1 << 30, -1, -1];
    if (level > 0) {
      const finer = this.rectangles(0), table = this.tables[level];
      for (let cell = 0; cell < table.length; cell += 1) {
        const to = 4 * table[cell], from = 4 * cell;
        found[to] = Math.min(found[to], finer[from]);
        found[to + 1] = Math.min(found[to + 1], finer[from + 1]);
        found[to + 2] = Math.max(found[to + 2], finer[from + 2]);
        found[to + 3] = Math.max(found[to + 3], finer[from + 3]);
      }
    } else {
      const { fine, width, height } = this;
      for (let y = 0, i = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1, i += 1) {
          const at = 4 * fine[i];
          if (x < found[at]) found[at] = x;
          if (y < found[at + 1]) found[at + 1] = y;
          if (x > found[at + 2]) found[at + 2] = x;
          found[at + 3] = y;
        }
      }
    }
    this.boxes.set(level, found);
    return found;
  }
}

// Where the middle of each of `size` pixels lies among `cells` columns: whole numbers, as the server spreads them.
function spread(size, cells) {
  return Int32Array.from({ length: size }, (_, x) => Math.floor(((2 * x + 1) * cells) / (2 * size)));
}

function starts(places, cells) {
  const found = new Int32Array(cells + 1).fill(-1);
  places.forEach((place, x) => { if (found[place] < 0) found[place] = x; });
  found[cells] = places.length;
  for (let i = cells - 1; i >= 0; i -= 1) if (found[i] < 0) found[i] = found[i + 1]; // a column that no pixel sees
  return found;
}
