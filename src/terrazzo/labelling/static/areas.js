// Pixels that hang together: areas of one code, by their edges. Row after row as runs, joined with those above them; one
// walk over the image, which can pause so that the page goes on meanwhile.

const ROWS = 32; // between two looks at the clock
const SLICE = 8; // ms of work between two frames

// The areas of an image, largest first: [{code, size, weight, x0, y0, x1, y1, x, y, runs: [y, x0, x1, …]}]; (x, y) is the
// first pixel of the first row. code(i) is 0 for pixels of none; weight(i) is added up over an area.
export function areas(width, height, code, weight = null) {
  const walk = walking(width, height, code, weight);
  for (;;) {
    const { value, done } = walk.next();
    if (done) return value;
  }
}

// The same, a slice at a time; null when `signal` is aborted meanwhile.
export async function areasSoon(width, height, code, weight = null, signal = null) {
  const walk = walking(width, height, code, weight);
  let began = performance.now();
  for (;;) {
    const { value, done } = walk.next();
    if (done) return value;
    if (performance.now() - began < SLICE) continue;
    await new Promise((resolve) => { setTimeout(resolve); });
    if (signal?.aborted) return null;
    began = performance.now();
  }
}

function* walking(width, height, code, weight) {
  const runs = [], codes = [], parent = [], weights = [];
  const root = (one) => {
    let at = one;
    while (parent[at] !== at) { parent[at] = parent[parent[at]]; at = parent[at]; }
    return at;
  };
  let above = 0, aboveEnd = 0; // the runs of the row before
  for (let y = 0; y < height; y += 1) {
    const first = codes.length;
    for (let x = 0, i = y * width; x < width;) {
      const here = code(i);
      if (here === 0) { x += 1; i += 1; continue; }
      const x0 = x;
      let sum = 0;
      while (x < width && code(i) === here) {
        if (weight) sum += weight(i);
        x += 1;
        i += 1;
      }
      const one = codes.length;
      runs.push(y, x0, x);
      codes.push(here);
      parent.push(one);
      weights.push(weight ? sum : x - x0);
      while (above < aboveEnd && runs[3 * above + 2] <= x0) above += 1;
      for (let other = above; other < aboveEnd && runs[3 * other + 1] < x; other += 1) {
        if (codes[other] !== here) continue;
        const a = root(one), b = root(other);
        if (a < b) parent[b] = a;
        else parent[a] = b;
      }
    }
    above = first;
    aboveEnd = codes.length;
    if (y % ROWS === ROWS - 1) yield;
  }
  const found = new Map();
  for (let one = 0; one < codes.length; one += 1) {
    const y = runs[3 * one], x0 = runs[3 * one + 1], x1 = runs[3 * one + 2], at = root(one);
    let area = found.get(at);
    if (!area) {
      area = { code: codes[one], size: 0, weight: 0, x0, y0: y, x1, y1: y + 1, x: x0, y, runs: [] };
      found.set(at, area);
    }
    area.size += x1 - x0;
    area.weight += weights[one];
    area.x0 = Math.min(area.x0, x0);
    area.x1 = Math.max(area.x1, x1);
    area.y1 = y + 1;
    area.runs.push(y, x0, x1);
    if (one % 4096 === 4095) yield;
  }
  return [...found.values()].sort((a, b) => b.weight - a.weight || a.y0 - b.y0 || a.x0 - b.x0);
}
