// Superpixels: the wheel makes cells coarser or finer, a click paints one in the current class, a drag all it touches, and
// a click on a painted one takes it back. Another level is another table, so what is painted stays, and may be taken back
// in finer pieces than it was painted in.

import { newestSaid } from "../cellmodel.js";
import { loadCells } from "../cells.js";
import { tell, toast } from "../elements.js";
import { Mosaic, rgbaOf } from "../mosaic.js";
import { Note } from "../note.js";
import { watch } from "../state.js";

const NAME = "superpixel";
const MIDDLE = 4; // the level to begin with, of 7
const MOST_IN_BOX = 1_000_000; // pixels that the server looks at in full resolution
const KEPT = 3; // images whose cells are kept
const SOON = 400; // ms after an image was opened: its cells are made ready

const mosaic = new Mosaic();
const note = new Note();
const known = new Map(); // "project/sample" -> {layers, painted, model, loading}

let at = null; // the pointer
let drag = null; // what is drawn just now: {id, isErasing, isPending, seen, x, y}
let ends = [];

const superpixel = {
  name: NAME, code: "KeyS", title: "Superpixels", icon: "superpixel", wheel: true, cursor: "crosshair",
  options: [
    { name: "level", kind: "range", label: "Granularity", min: 1, max: 7, step: 1, value: MIDDLE },
    { name: "lines", kind: "toggle", label: "Boundaries", value: true },
    { name: "sharp", kind: "toggle", label: "Sharpen here", value: false },
    { name: "model", kind: "toggle", label: "Colours of the model", value: false },
    { name: "paints", kind: "choice", label: "Paints", choices: [{ value: "class", label: "The class" }, { value: "model", label: "What the model says" }], value: "class" },
  ],

  // An image was opened: let the server make its cells, so that they are there when somebody wants them.
  opened(editor) {
    setTimeout(() => { if (editor.state.editor === editor) ready(editor).catch(() => {}); }, SOON);
  },

  activate(editor) {
    const one = known.get(nameOf(editor));
    if (one) one.model = null; // a newer one may have looked meanwhile
    ends = [watch(["options"], () => follow(editor), { now: false })];
    ready(editor).then(() => follow(editor), tell);
    follow(editor);
  },

  deactivate(editor) {
    this.cancel(editor);
    for (const end of ends) end();
    at = null;
    note.close();
  },

  down(editor, e) {
    if (e.button !== 0 || drag) return;
    const here = cellAt(editor, e);
    if (!here) return;
    drag = { seen: new Set(), x: e.x, y: e.y, here, id: null, isErasing: e.erase, isPending: false };
    if (!e.erase && isPainted(editor, here)) drag.isPending = true; // a click takes it back, a drag goes on painting
    else if (begin(editor)) paint(editor, here);
  },

  move(editor, e) {
    at = e;
    if (drag) for (const [x, y] of e.points) sweep(editor, x, y);
    editor.painter.moved();
  },

  up(editor, e) {
    if (!drag) return;
    this.move(editor, e);
    const { isPending, here } = drag;
    drag = null;
    if (!isPending) {
      editor.commit();
    } else if (editor.begin(NAME, { erase: true }) !== null) {
      takeBack(editor, here);
      editor.commit();
    }
    editor.painter.moved();
  },

  hover(editor, e) {
    at = e;
    editor.painter.moved();
  },

  wheelTurn(editor, e) {
    at = e;
    turnLevel(editor, e.turn);
  },

  key(editor, e) {
    if (e.code === "Enter" && at && !drag) { // as a click where the pointer is
      this.down(editor, { ...at, button: 0 });
      this.up(editor, { ...at, points: [] });
      return true;
    }
    if (e.code !== "BracketLeft" && e.code !== "BracketRight") return false;
    turnLevel(editor, e.code === "BracketRight" ? 1 : -1);
    return true;
  },

  cancel(editor) {
    if (!drag) return false;
    const isOpen = !drag.isPending;
    drag = null;
    if (isOpen) editor.abort();
    return true;
  },

  draw(editor, context) {
    const one = known.get(nameOf(editor)), level = levelOf(editor);
    if (!one?.layers.length) return;
    const { categories } = editor.state;
    const isColoured = editor.option(NAME, "model") && one.model !== null;
    if (isColoured || editor.option(NAME, "lines")) {
      mosaic.draw(context, editor.view, one.layers, level, {
        key: isColoured ? `${one.turn} ${categories.map(({ color }) => color)}` : "",
        colourOf: isColoured ? (cells, cell, own) => colourOf(one, cells, cell, own, categories) : null,
      });
    }
    if (at) fillHovered(editor, context, at.erase);
  },

  // For those who look from outside: the cells of the open image, and how many there are at the level.
  cells(editor) {
    return known.get(nameOf(editor))?.layers[0] ?? null;
  },
  count(editor) {
    const cells = this.cells(editor);
    return cells ? cells.counts[cells.level(levelOf(editor))] : 0;
  },
  has(editor) {
    const one = known.get(nameOf(editor));
    return { layers: one?.layers.length ?? 0, model: Boolean(one?.model) };
  },
  get took() {
    return mosaic.took;
  },
  get picture() {
    return mosaic.canvas;
  },
};

export default superpixel;

// -- cells of the open image ------------------------------------------------------------------------------------------

function nameOf(editor) {
  return `${editor.project}/${editor.sample.id}/${editor.sample.sha256}`;
}

// What is known of the open image, its cells there.
export async function ready(editor) {
  const name = nameOf(editor);
  let one = known.get(name);
  if (!one) {
    one = { layers: [], painted: null, model: null, loading: null, turn: 0 };
    known.set(name, one);
    while (known.size > KEPT) known.delete(known.keys().next().value);
  }
  one.loading ??= loadCells(editor.project, editor.sample.id, {
    onProgress: (job) => { if (editor.active === superpixel) note.say(editor, `Superpixels: ${job.says || "waiting"} …`); },
  }).then((cells) => {
    one.layers = [cells];
    one.painted = new Uint8Array(Math.ceil((editor.label.width * editor.label.height) / 8));
  }, (error) => {
    one.loading = null;
    throw error;
  });
  await one.loading;
  return one;
}

// The chosen level as an index, 0 the finest; people count from 1.
export function levelOf(editor, tool = NAME) {
  return editor.option(tool, "level") - 1;
}

// Turn the wheel of `tool`: coarser or finer, as far as there are levels.
export function turnLevel(editor, turn, tool = NAME) {
  const most = superpixel.cells(editor)?.counts.length ?? 7;
  editor.setOption(tool, "level", Math.max(1, Math.min(most, Math.min(most, editor.option(tool, "level")) + turn)));
}

// The cell at a place in the image: {cells, level, cell}, or null.
export function cellAt(editor, { ix, iy }, level = levelOf(editor)) {
  const one = known.get(nameOf(editor));
  const cells = one?.layers.findLast((layer) => layer.holds(ix, iy));
  if (!cells) return null;
  const own = cells.level(level);
  return { cells, level: own, cell: cells.at(own, ix, iy) };
}

// The options changed: what they ask for is fetched, and said.
function follow(editor) {
  const one = known.get(nameOf(editor));
  editor.painter.moved();
  if (!one?.layers.length) return;
  sharpen(editor, one);
  if (editor.option(NAME, "model") || editor.option(NAME, "paints") === "model") colour(editor, one);
  const cells = one.layers[0], level = cells.level(levelOf(editor));
  note.say(editor, `${cells.counts[level].toLocaleString("en")} cells, level ${level + 1} of ${cells.counts.length}`);
}

// "Sharpen here": the part that is seen, cut anew in full resolution, lies over the rest until it is switched off.
async function sharpen(editor, one) {
  if (!editor.option(NAME, "sharp")) {
    one.layers.length = 1;
    one.sharpening = null;
    return;
  }
  if (one.layers.length > 1 || one.sharpening) return;
  const box = around(editor.view.seen);
  one.sharpening = loadCells(editor.project, editor.sample.id, { box });
  try {
    const cells = await one.sharpening;
    if (one.sharpening && editor.option(NAME, "sharp")) one.layers = [one.layers[0], cells];
  } catch (error) {
    tell(error);
    editor.setOption(NAME, "sharp", false);
  }
  one.sharpening = null;
  editor.painter.moved();
}

// The middle of what is seen, as much of it as the server takes.
function around({ x0, y0, x1, y1 }) {
  const shrink = Math.min(1, Math.sqrt(MOST_IN_BOX / ((x1 - x0) * (y1 - y0))));
  const width = Math.floor((x1 - x0) * shrink), height = Math.floor((y1 - y0) * shrink);
  const left = Math.floor((x0 + x1 - width) / 2), top = Math.floor((y0 + y1 - height) / 2);
  return [left, top, left + width, top + height];
}

// -- painting ---------------------------------------------------------------------------------------------------------

function begin(editor) {
  const isModel = editor.option(NAME, "paints") === "model" && !drag.isErasing;
  drag.id = editor.begin(NAME, { erase: drag.isErasing || isModel, source: NAME });
  drag.isModel = isModel;
  drag.isPending = false;
  if (drag.id === null) drag = null;
  return drag !== null;
}

// Everything on the way from where the pointer was.
function sweep(editor, x, y) {
  for (const [ix, iy] of crossed(drag.x, drag.y, x, y)) {
    const here = cellAt(editor, { ix, iy });
    if (!here || (here.cells === drag.here.cells && here.cell === drag.here.cell)) continue;
    if (drag.isPending && !begin(editor)) return;
    paint(editor, here);
    drag.here = here;
  }
  [drag.x, drag.y] = [x, y];
}

// The pixels that a straight line passes through, in order (Amanatides and Woo, 1987).
function* crossed(ax, ay, bx, by) {
  let ix = Math.floor(ax), iy = Math.floor(ay);
  const dx = bx - ax, dy = by - ay, sx = Math.sign(dx), sy = Math.sign(dy);
  let tx = dx === 0 ? Infinity : (ix + (sx > 0 ? 1 : 0) - ax) / dx, ty = dy === 0 ? Infinity : (iy + (sy > 0 ? 1 : 0) - ay) / dy;
  yield [ix, iy];
  while (Math.min(tx, ty) < 1) {
    if (tx < ty) {
      ix += sx;
      tx += Math.abs(1 / dx);
    } else {
      iy += sy;
      ty += Math.abs(1 / dy);
    }
    yield [ix, iy];
  }
}

function paint(editor, { cells, level, cell }) {
  const key = `${cells.x0},${cells.y0} ${level} ${cell}`;
  if (drag.seen.has(key)) return;
  drag.seen.add(key);
  const { label } = editor, { ids, width } = label, one = known.get(nameOf(editor));
  let { id } = drag;
  if (drag.isModel) {
    const category = modelSays(one, cells, level, cell);
    if (!category || editor.state.locked.has(category)) return;
    id = label.objectFor(category, NAME);
    editor.painter.colour([id], editor.state.categories, editor.state.selection);
  }
  const bounds = { x0: Infinity, y0: Infinity, x1: 0, y1: 0 };
  cells.eachRun(level, cell, (y, x0, x1) => {
    const from = y * width + x0, before = ids.slice(from, from + x1 - x0);
    label.run(y, x0, x1, id);
    for (let i = 0; i < before.length; i += 1) {
      if (before[i] === id || ids[from + i] !== id) continue;
      const bit = 1 << ((from + i) & 7);
      if (id === 0) one.painted[(from + i) >> 3] &= ~bit;
      else one.painted[(from + i) >> 3] |= bit;
    }
    widen(bounds, y, x0, x1);
  });
  editor.painter.dirty(bounds);
}

// Whether a click on a cell would paint nothing that is not there already, and this tool painted some of it.
function isPainted(editor, { cells, level, cell }) {
  const { label } = editor, { ids, width, category } = label, one = known.get(nameOf(editor));
  const wanted = editor.option(NAME, "paints") === "model" ? modelSays(one, cells, level, cell) : editor.state.category;
  const isThing = label.things.has(wanted);
  let own = 0, open = 0;
  cells.eachRun(level, cell, (y, x0, x1) => {
    for (let i = y * width + x0, end = y * width + x1; i < end; i += 1) {
      const old = ids[i], isThere = category[old] === wanted && old !== 0 && (!isThing || !label.current || old === label.current);
      if (!isThere && label.may(old, -1)) open += 1;
      else if (isThere && one.painted[i >> 3] & (1 << (i & 7))) own += 1;
    }
  });
  return open === 0 && own > 0;
}

// Erase what this tool painted in a cell.
function takeBack(editor, { cells, level, cell }) {
  const { label } = editor, { ids, width, category } = label, { painted } = known.get(nameOf(editor));
  const bounds = { x0: Infinity, y0: Infinity, x1: 0, y1: 0 };
  const isOwn = (i) => painted[i >> 3] & (1 << (i & 7)) && category[ids[i]] !== 0;
  cells.eachRun(level, cell, (y, x0, x1) => {
    for (let i = y * width + x0, end = y * width + x1; i < end;) {
      if (!isOwn(i)) { i += 1; continue; }
      const start = i;
      while (i < end && isOwn(i)) i += 1;
      label.run(y, start - y * width, i - y * width, 0);
      for (let j = start; j < i; j += 1) if (ids[j] === 0) painted[j >> 3] &= ~(1 << (j & 7));
    }
    widen(bounds, y, x0, x1);
  });
  editor.painter.dirty(bounds);
}

function widen(bounds, y, x0, x1) {
  if (x0 < bounds.x0) bounds.x0 = x0;
  if (x1 > bounds.x1) bounds.x1 = x1;
  if (y < bounds.y0) bounds.y0 = y;
  if (y >= bounds.y1) bounds.y1 = y + 1;
}

// The cell under the pointer, filled with what a click would paint.
function fillHovered(editor, context, isErasing) {
  const here = cellAt(editor, at);
  if (!here) return;
  fillCell(editor, context, here, isErasing ? "#ffffff" : editor.colour);
}

let path = null; // of the cell that was filled last: {cells, level, cell, mark, shape}

// Fill a cell on the canvas; isIn: of it, only fine cells for which it holds, and mark tells one such choice from another.
export function fillCell(editor, context, { cells, level, cell }, colour, { isIn = null, mark = "" } = {}) {
  if (!path || path.cells !== cells || path.level !== level || path.cell !== cell || path.mark !== mark) {
    path = { cells, level, cell, mark, shape: shapeOf(cells, level, cell, isIn) };
  }
  context.save();
  context.translate(editor.view.x, editor.view.y);
  context.scale(editor.view.scale, editor.view.scale);
  context.globalAlpha = 0.4;
  context.fillStyle = colour;
  context.fill(path.shape);
  context.restore();
}

// A cell as a path in pixels of the image; rows that are alike are one rectangle.
function shapeOf(cells, level, cell, isIn) {
  const shape = new Path2D();
  let last = null;
  const flush = () => { if (last) shape.rect(last.x0, last.y0, last.x1 - last.x0, last.y1 - last.y0); };
  cells.eachRun(level, cell, (y, x0, x1) => {
    if (last && last.x0 === x0 && last.x1 === x1 && last.y1 === y) {
      last.y1 += 1;
      return;
    }
    flush();
    last = { x0, x1, y0: y, y1: y + 1 };
  }, isIn);
  flush();
  return shape;
}

// -- what the model says of cells ---------------------------------------------------------------------------------------

// Fetch the newest prediction; where there is none, that is said, and not asked for again.
async function colour(editor, one) {
  if (one.model || one.isAsking) return;
  one.isAsking = true;
  try {
    one.model = await newestSaid(editor.project, editor.sample.id, editor.label.width, editor.label.height);
    one.turn += 1;
    if (one.model === null) {
      toast("No model has looked at this image yet.", "warn", { seconds: 4 });
      editor.setOption(NAME, "model", false);
      editor.setOption(NAME, "paints", "class");
    }
  } catch (error) {
    tell(error);
    editor.setOption(NAME, "model", false);
    editor.setOption(NAME, "paints", "class");
  } finally {
    one.isAsking = false;
    editor.painter.moved();
  }
}

function modelSays(one, cells, level, cell) {
  return one.model?.says(cells, level, cell) ?? 0;
}

function colourOf(one, cells, cell, level, categories) {
  const id = modelSays(one, cells, level, cell), found = categories.find((category) => category.id === id);
  return found ? rgbaOf(found.color, 110) : 0;
}
