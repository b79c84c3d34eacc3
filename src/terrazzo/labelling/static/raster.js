// Labels as they are seen: for every device pixel the nearest pixel of the label, through a table of colours. The cost is
// that of the pixels on the screen which are drawn anew, whatever the size of the image.

export class Raster {
  constructor() {
    this.resize(1, 1);
  }

  resize(width, height) {
    this.picture = new ImageData(width, height);
    this.out = new Uint32Array(this.picture.data.buffer);
    this.columns = new Int32Array(width); // of the label, for each device pixel; -1 outside
    this.rows = new Int32Array(height);
  }

  // Say which pixel of the label lies under each device pixel. scale: device pixels for one of the label.
  place(scale, left, top, label) {
    [this.first, this.last] = fill(this.columns, scale, left, label.width);
    fill(this.rows, scale, top, label.height);
  }

  // The device pixels {x0, y0, x1, y1} that show some of `bounds` of the label, and what borders on it; null: none.
  shown(bounds, scale, left, top) {
    const { width, height } = this.picture;
    const x0 = Math.max(0, Math.floor(bounds.x0 * scale + left) - 2), x1 = Math.min(width, Math.ceil(bounds.x1 * scale + left) + 2);
    const y0 = Math.max(0, Math.floor(bounds.y0 * scale + top) - 2), y1 = Math.min(height, Math.ceil(bounds.y1 * scale + top) + 2);
    return x0 < x1 && y0 < y1 ? { x0, y0, x1, y1 } : null;
  }

  // Draw anew. look: {fill, edge: colour of an object's pixels, and of those at its border (null: as `fill`); hatch: null,
  // or 1 for objects of which every other stripe is `edge`}.
  draw({ x0, y0, x1, y1 }, label, look) {
    const { out, rows, columns } = this, { width } = this.picture, { ids } = label;
    const a = Math.max(x0, this.first), b = Math.min(x1, this.last);
    let kind = -1;
    for (let y = y0; y < y1; y += 1) {
      const row = rows[y], at = y * width;
      if (row < 0 || a >= b) {
        out.fill(0, at + x0, at + x1);
        kind = -1;
        continue;
      }
      const above = y > 0 && rows[y - 1] >= 0 ? rows[y - 1] : row, below = y + 1 < rows.length && rows[y + 1] >= 0 ? rows[y + 1] : row;
      const same = look.edge === null ? row : (row * 2 + (above === row ? 1 : 0)) * 2 + (below === row ? 1 : 0);
      if (same === kind && look.hatch === null && (look.edge === null || (above === row && below === row))) {
        out.copyWithin(at + x0, at - width + x0, at - width + x1);
        continue;
      }
      kind = same;
      if (a > x0) out.fill(0, at + x0, at + a);
      if (b < x1) out.fill(0, at + b, at + x1);
      const base = row * label.width;
      if (look.edge === null && look.hatch === null) plain(out, at, a, b, ids, base, columns, look.fill);
      else edged(out, at, a, b, y, ids, base, above * label.width, below * label.width, columns, this.first, this.last, look);
    }
  }
}

function plain(out, at, a, b, ids, base, columns, colours) {
  for (let x = a; x < b; x += 1) out[at + x] = colours[ids[base + columns[x]]];
}

function edged(out, at, a, b, y, ids, base, above, below, columns, first, last, { fill: colours, edge, hatch }) {
  let left = ids[base + columns[Math.max(first, a - 1)]], id = ids[base + columns[a]];
  for (let x = a; x < b; x += 1) {
    const right = x + 1 < last ? ids[base + columns[x + 1]] : id, column = columns[x];
    const isEdge = edge !== null && (id !== left || id !== right || id !== ids[above + column] || id !== ids[below + column]);
    const isStripe = hatch !== null && hatch[id] === 1 && ((x + y) & 7) < 2;
    out[at + x] = isEdge ? edge[id] : isStripe ? hatch.colour : colours[id];
    left = id;
    id = right;
  }
}

// Fill `places` with the label's pixel under each device pixel; returns [first, last) of those inside.
function fill(places, scale, corner, size) {
  let first = places.length, last = 0;
  for (let i = 0; i < places.length; i += 1) {
    const at = Math.floor((i + 0.5 - corner) / scale);
    const isInside = at >= 0 && at < size;
    places[i] = isInside ? at : -1;
    if (isInside) {
      if (i < first) first = i;
      last = i + 1;
    }
  }
  return [first, last];
}
