// What differs between two states of a tile, as runs of pixels, and how it is applied forwards and backwards.
//
// A run is (offset in the tile, length); all its pixels were of one object and became of another. A stroke is a few
// hundred of them, so that hundreds of undo steps fit into a few megabytes.

let runs = new Uint32Array(1 << 12), changes = new Uint16Array(1 << 12); // room to work in, twice as large when full

// The runs in which tile `index` of `label` differs from `before`: {index, runs, changes}, or null. The label's counts
// follow. runs: offset, length, …; changes: id before, id after, ….
export function difference(label, index, before) {
  const { x, y, width, height } = label.box(index), { ids, counts } = label;
  let size = 0;
  for (let row = 0; row < height; row += 1) {
    const at = (y + row) * label.width + x, offset = row * width;
    for (let i = 0; i < width;) {
      const old = before[offset + i], now = ids[at + i];
      if (old === now) { i += 1; continue; }
      const start = i;
      do { i += 1; } while (i < width && before[offset + i] === old && ids[at + i] === now);
      if (size === runs.length) grow();
      runs[size] = offset + start;
      runs[size + 1] = i - start;
      changes[size] = old;
      changes[size + 1] = now;
      size += 2;
      counts[old] -= i - start;
      counts[now] += i - start;
    }
  }
  return size === 0 ? null : { index, runs: runs.slice(0, size), changes: changes.slice(0, size) };
}

// Apply the runs of a tile; only to pixels that are still as they were left. Returns whether any changed.
export function apply(label, one, isBack) {
  const { x, y, width } = label.box(one.index), { ids, counts } = label;
  let isChanged = false;
  for (let at = 0; at < one.runs.length; at += 2) {
    const from = one.changes[isBack ? at + 1 : at], to = one.changes[isBack ? at : at + 1];
    const row = Math.floor(one.runs[at] / width);
    const start = (y + row) * label.width + x + one.runs[at] - row * width;
    let moved = 0;
    for (let i = start; i < start + one.runs[at + 1]; i += 1) {
      if (ids[i] === from) { ids[i] = to; moved += 1; }
    }
    counts[from] -= moved;
    counts[to] += moved;
    isChanged ||= moved > 0;
  }
  return isChanged;
}

function grow() {
  const more = new Uint32Array(2 * runs.length), moreChanges = new Uint16Array(2 * changes.length);
  more.set(runs);
  moreChanges.set(changes);
  [runs, changes] = [more, moreChanges];
}
