// Regions that hang together, side by side, found row by row: of a label, or of anything with rows.

// The runs [y, x0, x1] of the region around (x, y) in which isIn(index) holds. size: {width, height}.
export function regionAt(x, y, { width, height }, isIn) {
  const found = [];
  if (x < 0 || y < 0 || x >= width || y >= height || !isIn(y * width + x)) return found;
  const seen = new Uint8Array(width * height);
  const todo = [[x, y]];
  while (todo.length) {
    const [sx, sy] = todo.pop();
    const row = sy * width;
    if (seen[row + sx]) continue;
    let x0 = sx, x1 = sx + 1;
    while (x0 > 0 && isIn(row + x0 - 1)) x0 -= 1;
    while (x1 < width && isIn(row + x1)) x1 += 1;
    seen.fill(1, row + x0, row + x1);
    found.push([sy, x0, x1]);
    for (const ny of [sy - 1, sy + 1]) {
      if (ny < 0 || ny >= height) continue;
      const next = ny * width;
      for (let i = x0; i < x1; i += 1) {
        if (seen[next + i] || !isIn(next + i)) continue;
        todo.push([i, ny]);
        while (i + 1 < x1 && isIn(next + i + 1)) i += 1;
      }
    }
  }
  return found;
}

// All regions of a label in which nobody drew and which have fewer than `most` pixels: [{runs, around}], around: the
// object that most of their border touches; 0 where none does.
export function holes(label, most) {
  const { ids, width, height } = label, seen = new Uint8Array(ids.length), found = [];
  for (let start = ids.indexOf(0); start !== -1; start = ids.indexOf(0, start + 1)) {
    if (seen[start]) continue;
    const runs = [], touched = new Map(), todo = [start];
    let pixels = 0;
    while (todo.length) {
      const from = todo.pop();
      if (seen[from]) continue;
      const row = Math.floor(from / width) * width;
      let x0 = from, x1 = from + 1;
      while (x0 > row && ids[x0 - 1] === 0) x0 -= 1;
      while (x1 < row + width && ids[x1] === 0) x1 += 1;
      seen.fill(1, x0, x1);
      pixels += x1 - x0;
      if (pixels < most) {
        runs.push([row / width, x0 - row, x1 - row]);
        if (x0 > row) touch(touched, ids[x0 - 1]);
        if (x1 < row + width) touch(touched, ids[x1]);
      }
      for (const shift of [-width, width]) {
        if (row + shift < 0 || row + shift >= width * height) continue;
        for (let i = x0 + shift; i < x1 + shift; i += 1) {
          if (ids[i] !== 0) {
            if (pixels < most) touch(touched, ids[i]);
          } else if (!seen[i]) {
            todo.push(i);
            while (i + 1 < x1 + shift && ids[i + 1] === 0) i += 1;
          }
        }
      }
    }
    if (pixels < most) {
      const [around] = [...touched].sort((a, b) => b[1] - a[1])[0] ?? [0];
      found.push({ runs, around });
    }
    if (seen[start + 1]) { // on to the first pixel that nobody has looked at
      const row = Math.floor(start / width) * width;
      while (start + 1 < row + width && seen[start + 1]) start += 1;
    }
  }
  return found;
}

function touch(touched, id) {
  touched.set(id, (touched.get(id) ?? 0) + 1);
}
