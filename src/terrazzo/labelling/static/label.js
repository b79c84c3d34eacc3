// A label while it is drawn on: one id of an object for every pixel, what the objects are, and the one rule that says
// which pixels may be written. The truth is `ids`; nothing is ever read back from a canvas.
//
// begin(…), then set / run / blit / swap, then end() -> change or null. The first write to a tile of 512 pixels keeps it
// as it was; the end compares, and what differs is the change: runs of pixels, small, that undo applies backwards.

import { apply, difference } from "./changes.js";

export const TILE = 512;
export const MAX_ID = 65535;

export class Label {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.columns = Math.ceil(width / TILE);
    this.rows = Math.ceil(height / TILE);
    this.ids = new Uint16Array(width * height); // 0: nobody drew
    this.annotations = new Map(); // id -> {id, category_id, source, attributes}
    this.category = new Uint16Array(MAX_ID + 1); // object -> category
    this.counts = new Uint32Array(MAX_ID + 1); // object -> pixels
    this.counts[0] = width * height;
    this.rules = { protect: false, locked: new Set(), category: 0 }; // category: the one that is drawn just now
    this.things = new Set(); // categories whose objects are many
    this.current = 0; // the object that a category of many goes on with; 0: the next one is new
    this.open = null; // what is being drawn
  }

  // Whether a pixel of object `old` may become `id`: the only place that knows of protection and locks. Under
  // protection painting reaches unlabelled pixels alone, and erasing those of the category that is drawn.
  may(old, id) {
    const category = this.category[old];
    if (old !== 0 && this.rules.locked.has(category)) return false;
    if (!this.rules.protect || old === 0) return true;
    return id === 0 && category === this.rules.category;
  }

  // Begin a change. isFree: protection and locks do not hold (an object was chosen and is to go).
  begin(tool, { isFree = false } = {}) {
    if (this.open) throw new Error(`${this.open.tool} is still drawing`);
    const paints = new Uint8Array(MAX_ID + 1).fill(1), erases = new Uint8Array(MAX_ID + 1).fill(1);
    if (!isFree) {
      for (const id of [0, ...this.annotations.keys()]) {
        paints[id] = this.may(id, MAX_ID) ? 1 : 0;
        erases[id] = this.may(id, 0) ? 1 : 0;
      }
    }
    this.open = { tool, began: performance.now(), paints, erases, before: new Map(), rows: new Map(), bounds: null, current: this.current };
  }

  // The object that pixels of a category get: the one of a category that is one, the current or a new one of others.
  objectFor(category, source = "manual", { fresh = false } = {}) {
    if (!this.things.has(category)) {
      for (const one of this.annotations.values()) if (one.category_id === category) return one.id;
    } else if (!fresh && this.annotations.get(this.current)?.category_id === category) {
      return this.current;
    }
    const id = this.freeId();
    this.write({ id, category_id: category, source, attributes: {} });
    if (this.things.has(category)) this.current = id;
    return id;
  }

  freeId() {
    let last = 0;
    for (const id of this.annotations.keys()) if (id > last) last = id;
    if (last < MAX_ID) return last + 1;
    for (let id = 1; id <= MAX_ID; id += 1) if (!this.annotations.has(id)) return id;
    throw new Error(`This label has ${MAX_ID} objects; it can have no more.`);
  }

  // Set what an object is, within the open change.
  write(annotation) {
    this.note(annotation.id);
    this.place(annotation.id, annotation);
  }

  set(x, y, id) {
    this.run(y, x, x + 1, id);
  }

  // Write `id` on row y from x0 up to, not including, x1.
  run(y, x0, x1, id) {
    if (y < 0 || y >= this.height) return;
    const from = Math.max(0, x0), to = Math.min(this.width, x1);
    if (from >= to) return;
    this.touch(from, y, to);
    const { ids } = this, may = id === 0 ? this.open.erases : this.open.paints;
    for (let i = y * this.width + from, end = y * this.width + to; i < end; i += 1) {
      if (may[ids[i]]) ids[i] = id;
    }
  }

  // Write `id` wherever `mask` (w x h, row by row) is not 0; its corner lies at (x, y).
  blit(x, y, w, h, mask, id) {
    for (let row = 0; row < h; row += 1) {
      const end = (row + 1) * w;
      for (let i = row * w; i < end;) {
        if (mask[i] === 0) { i += 1; continue; }
        const start = i;
        while (i < end && mask[i] !== 0) i += 1;
        this.run(y + row, x + start - row * w, x + i - row * w, id);
      }
    }
  }

  // Let every pixel of object `from` be of `to`.
  swap(from, to) {
    const { ids, width } = this;
    for (let i = ids.indexOf(from); i !== -1; i = ids.indexOf(from, i)) {
      const y = Math.floor(i / width), rowEnd = (y + 1) * width;
      let end = i + 1;
      while (end < rowEnd && ids[end] === from) end += 1;
      this.run(y, i - y * width, end - y * width, to);
      i = end;
    }
  }

  // End what was begun: the change, or null where nothing differs. Objects that lost their last pixel are gone with it.
  end() {
    const { tool, began, before, rows, bounds } = this.open;
    const tiles = [];
    for (const [index, pixels] of before) {
      const runs = difference(this, index, pixels);
      if (runs) tiles.push(runs);
    }
    this.open.before = new Map();
    for (const { changes } of tiles) {
      for (let i = 0; i < changes.length; i += 2) {
        for (const id of [changes[i], changes[i + 1]]) this.letGo(id);
      }
    }
    for (const id of [...rows.keys()]) this.letGo(id);
    this.open = null;
    const changed = [...rows].map(([id, old]) => ({ id, before: old, after: this.annotations.get(id) ?? null }))
      .filter(({ before: old, after }) => old !== after);
    if (!this.annotations.has(this.current)) this.current = 0;
    if (tiles.length === 0 && changed.length === 0) return null;
    const ms = Math.round(performance.now() - began);
    const bytes = tiles.reduce((sum, one) => sum + one.runs.byteLength + one.changes.byteLength, 200);
    return { tool, ms, tiles, annotations: changed.length ? changed : null, bounds, bytes };
  }

  // Forget what was begun, as if it had never been.
  cancel() {
    if (!this.open) return null;
    const { before, rows, bounds, current } = this.open;
    for (const [index, pixels] of before) this.putTile(index, pixels);
    for (const [id, old] of rows) this.place(id, old);
    this.current = current;
    this.open = null;
    return bounds;
  }

  // Apply a change backwards or forwards. Pixels that are no longer what the change made of them stay as they are:
  // somebody else drew there. Returns {tiles, annotations: whether one changed}.
  apply(change, isBack) {
    const tiles = change.tiles.filter((one) => apply(this, one, isBack)).map((one) => one.index);
    let annotations = false;
    for (const { id, before, after } of change.annotations ?? []) {
      const wanted = isBack ? before : after;
      if (wanted === null && this.counts[id] > 0) continue;
      annotations ||= this.annotations.get(id) !== wanted;
      this.place(id, wanted);
    }
    if (!this.annotations.has(this.current)) this.current = 0;
    return { tiles, annotations };
  }

  // All objects, by id, as the server keeps them.
  listed() {
    return [...this.annotations.values()].sort((a, b) => a.id - b.id);
  }

  setAnnotations(listed) {
    this.annotations = new Map(listed.map((one) => [one.id, one]));
    this.category.fill(0);
    for (const one of listed) this.category[one.id] = one.category_id;
    if (!this.annotations.has(this.current)) this.current = 0;
  }

  // {x, y, width, height} of a tile.
  box(index) {
    const x = (index % this.columns) * TILE, y = Math.floor(index / this.columns) * TILE;
    return { x, y, width: Math.min(TILE, this.width - x), height: Math.min(TILE, this.height - y) };
  }

  // A copy of a tile's pixels.
  tile(index) {
    const { x, y, width, height } = this.box(index);
    const pixels = new Uint16Array(width * height);
    for (let row = 0, at = y * this.width + x; row < height; row += 1, at += this.width) {
      pixels.set(this.ids.subarray(at, at + width), row * width);
    }
    return pixels;
  }

  // Let a tile's pixels be these, whatever they were; `counts` follow.
  putTile(index, pixels) {
    const { x, y, width, height } = this.box(index), { counts, ids } = this;
    for (let row = 0, at = y * this.width + x; row < height; row += 1, at += this.width) {
      if (!this.open) tally(counts, ids, at, at + width, -1);
      ids.set(pixels.subarray(row * width, (row + 1) * width), at);
    }
    if (!this.open) tally(counts, pixels, 0, pixels.length, 1);
  }

  // -- within an open change --------------------------------------------------------------------------------------------

  touch(x0, y, x1) {
    const { before, bounds } = this.open;
    const row = Math.floor(y / TILE) * this.columns;
    for (let column = Math.floor(x0 / TILE); column * TILE < x1; column += 1) {
      if (!before.has(row + column)) before.set(row + column, this.tile(row + column));
    }
    if (bounds === null) {
      this.open.bounds = { x0, y0: y, x1, y1: y + 1 };
      return;
    }
    if (x0 < bounds.x0) bounds.x0 = x0;
    if (x1 > bounds.x1) bounds.x1 = x1;
    if (y < bounds.y0) bounds.y0 = y;
    if (y >= bounds.y1) bounds.y1 = y + 1;
  }

  note(id) {
    if (!this.open.rows.has(id)) this.open.rows.set(id, this.annotations.get(id) ?? null);
  }

  place(id, annotation) {
    if (annotation === null) this.annotations.delete(id);
    else this.annotations.set(id, annotation);
    this.category[id] = annotation?.category_id ?? 0;
  }

  letGo(id) {
    if (id === 0 || this.counts[id] > 0 || !this.annotations.has(id)) return;
    this.note(id);
    this.place(id, null);
  }
}

// Count the objects of ids[from] up to ids[to], run by run.
function tally(counts, ids, from, to, sign) {
  for (let i = from; i < to;) {
    const id = ids[i], start = i;
    do { i += 1; } while (i < to && ids[i] === id);
    counts[id] += sign * (i - start);
  }
}
