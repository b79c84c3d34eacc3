// What is worth a second look before a label is done: said, and never in the way.

const SPECK = 16; // pixels
const NEARLY = 0.0005; // of the image: less than this unlabelled is a matter of edges

// Sentences about a label: pixels that nobody drew, and areas too small to be meant.
export function looked(label) {
  const left = label.counts[0] / label.ids.length;
  const found = [];
  if (left === 1) found.push("nothing is labelled");
  else if (left > NEARLY) found.push(`${left < 0.01 ? (100 * left).toFixed(1) : Math.round(100 * left)} % is unlabelled`);
  const small = specks(label);
  if (small) found.push(`${small} ${small === 1 ? "area has" : "areas have"} fewer than ${SPECK} pixels`);
  return found;
}

// How many connected areas of one category have fewer than SPECK pixels, unlabelled ones not counted. Runs of each row
// are joined with those of the row above: one pass over the pixels, and memory for two rows.
export function specks(label, limit = SPECK) {
  const { ids, width, height, category } = label;
  const parents = [];
  const sizes = [];
  const root = (one) => {
    let at = one;
    while (parents[at] !== at) at = parents[at] = parents[parents[at]];
    return at;
  };
  let above = [];
  for (let y = 0; y < height; y += 1) {
    const row = [];
    let first = 0; // of the runs above, the first that may still touch
    const end = (y + 1) * width;
    for (let i = y * width; i < end;) {
      const start = i, kind = category[ids[i]];
      let id = ids[i];
      while (i < end && (ids[i] === id || category[ids[i]] === kind)) {
        id = ids[i];
        i += 1;
      }
      if (kind === 0) continue;
      const x0 = start - y * width, x1 = i - y * width;
      let area = parents.length;
      parents.push(area);
      sizes.push(x1 - x0);
      while (first < above.length && above[first].x1 <= x0) first += 1;
      for (let k = first; k < above.length && above[k].x0 < x1; k += 1) {
        if (above[k].kind !== kind) continue;
        const other = root(above[k].area), own = root(area);
        if (other !== own) {
          parents[own] = other;
          sizes[other] += sizes[own];
          area = other;
        }
      }
      row.push({ x0, x1, kind, area });
    }
    above = row;
  }
  let count = 0;
  for (let one = 0; one < parents.length; one += 1) if (parents[one] === one && sizes[one] < limit) count += 1;
  return count;
}
