// Superpixels on the screen: boundaries one pixel wide at every zoom, and colours of cells where somebody wants them. Drawn
// pixel by pixel into one picture of the stage's size, and again only when the view or the level changed. Screens with
// several device pixels for one of CSS get as many for each of the picture's: hairlines are hard to see, and slow.

const BOUNDARY = [255, 226, 64];
const FAINT = [70, 200]; // opacity of boundaries: of cells of a few screen pixels, and of large ones

export class Mosaic {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.shown = "";
    this.took = 0; // ms of the last time it was drawn anew
  }

  // layers: Cells, the later ones over the earlier; colourOf(layer, cell) -> what fills a cell, as rgba() gives it, or 0.
  // key: changes when colourOf does.
  draw(context, view, layers, level, { key = "", colourOf = null } = {}) {
    const coarse = Math.max(1, Math.floor(view.ratio)); // device pixels for one of the picture
    const width = Math.ceil(context.canvas.width / coarse), height = Math.ceil(context.canvas.height / coarse);
    const now = `${width} ${height} ${coarse} ${view.scale} ${view.x} ${view.y} ${level} ${key} ${layers.map((one) => `${one.x0},${one.y0},${one.x1},${one.y1}`)}`;
    if (now !== this.shown) {
      const began = performance.now();
      this.make(width, height, { x: view.x, y: view.y, scale: view.scale, step: coarse / view.ratio }, layers, level, colourOf);
      this.shown = now;
      this.took = performance.now() - began;
    }
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.canvas, 0, 0, width * coarse, height * coarse);
    context.restore();
  }

  make(width, height, view, layers, level, colourOf) {
    const { canvas } = this;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d"), picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer);
    let above = new Int32Array(width), here = new Int32Array(width), last = null;
    const seen = layers.map((cells, number) => prepared(cells, number, level, width, height, view, colourOf));
    const fills = seen.map((one) => one.fills), offsets = seen.map((one) => one.offset);
    const boundary = rgba(...BOUNDARY, opacityOf(layers.at(-1), level, view.scale));
    const fillOf = (id) => {
      for (let n = offsets.length - 1; n >= 0; n -= 1) if (id > offsets[n]) return fills[n]?.[id - offsets[n] - 1] ?? 0;
      return 0;
    };
    for (let y = 0; y < height; y += 1) {
      const rows = seen.map((one) => one.row(y)), told = rows.join();
      const isSame = told === last; // the same row of every map: nothing differs from the row above
      if (!isSame) {
        [above, here] = [here, above];
        here.fill(0);
        seen.forEach((one, number) => one.write(here, rows[number]));
        last = told;
      }
      for (let x = 0, i = y * width, before = here[0]; x < width; x += 1, i += 1) {
        const id = here[x];
        if (id !== before || (!isSame && y > 0 && id !== above[x])) pixels[i] = boundary;
        else if (colourOf !== null && id !== 0) pixels[i] = fillOf(id);
        before = id;
      }
    }
    context.putImageData(picture, 0, 0);
  }
}

// Where cells are small on the screen, their boundaries would hide the image.
function opacityOf(cells, level, scale) {
  const side = scale * Math.sqrt((cells.columns.length * cells.rows.length) / cells.counts[cells.level(level)]);
  return Math.round(Math.max(FAINT[0], Math.min(FAINT[1], 5 * side)));
}

// A colour as a pixel of ImageData, seen as Uint32 (little-endian, as every machine with a browser is).
export function rgba(r, g, b, a) {
  return ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

// "#rrggbb" with an opacity 0 to 255, the same way.
export function rgbaOf(color, alpha) {
  const value = Number.parseInt(color.slice(1), 16);
  return rgba(value >> 16, (value >> 8) & 255, value & 255, alpha);
}

// One map on the screen: row(y) is the row of the map under a row of the screen, -1 outside; write puts its cells there.
function prepared(cells, number, wanted, width, height, view, colourOf) {
  const level = cells.level(wanted), table = cells.tables[level], { step } = view, offset = number * (1 << 24);
  const columns = new Int32Array(width);
  let from = width, to = 0;
  for (let x = 0; x < width; x += 1) {
    const ix = Math.floor(((x + 0.5) * step - view.x) / view.scale) - cells.x0;
    if (ix < 0 || ix >= cells.columns.length) continue;
    columns[x] = cells.columns[ix];
    from = Math.min(from, x);
    to = x + 1;
  }
  return {
    offset,
    fills: colourOf && Uint32Array.from({ length: cells.counts[level] }, (_, cell) => colourOf(cells, cell, level)),
    row(y) {
      const iy = Math.floor(((y + 0.5) * step - view.y) / view.scale) - cells.y0;
      return iy < 0 || iy >= cells.rows.length ? -1 : cells.rows[iy];
    },
    write(line, row) {
      if (row < 0) return;
      const at = row * cells.width, { fine } = cells;
      for (let x = from; x < to; x += 1) line[x] = table[fine[at + columns[x]]] + 1 + offset;
    },
  };
}
