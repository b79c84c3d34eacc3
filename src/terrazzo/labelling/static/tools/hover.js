// What lies under the pointer is offered before anybody clicks; a click paints it. With SAM: its mask of the point, asked
// for ten times a second at most, refined by right clicks (out) and clicks with Shift (in). Without: the superpixel there,
// coarser or finer by the wheel, and a right click takes a part of it out.

import { tell } from "../elements.js";
import { Note } from "../note.js";
import { Shown, accept, drawPoints, propose } from "../proposals.js";
import { hasSam, readNext, readOpen } from "../reading.js";
import { cellAt, fillCell, levelOf, ready, turnLevel } from "./superpixel.js";

const NAME = "hover";
const EVERY = 100; // ms between questions
const COARSE = 5; // the level to begin with, of 7

const note = new Note();
let at = null;
let points = { positive: [], negative: [] }; // that stay, beside the pointer's own
let shown = null;
let asked = 0; // when
let asking = null; // an AbortController
let timer = 0;
let isReading = false; // SAM reads the image
let without = new Set(); // fine cells that were taken out of the cell that is offered
let offered = ""; // that cell

const hover = {
  name: NAME, code: "KeyD", title: "Hover and click", icon: "hover", wheel: true, cursor: "crosshair",
  options: [{ name: "level", kind: "range", label: "Granularity", min: 1, max: 7, step: 1, value: COARSE }],

  activate(editor) {
    if (hasSam(editor)) read(editor);
    ready(editor).then(() => editor.painter.moved(), tell);
    say(editor);
  },

  ahead(editor) {
    if (isBySam(editor)) readNext(editor);
  },

  deactivate(editor) {
    this.cancel(editor);
    at = null;
    note.close();
  },

  hover(editor, e) {
    at = e;
    if (isBySam(editor)) look(editor);
    editor.painter.moved();
  },

  move(editor, e) { this.hover(editor, e); },

  down(editor, e) {
    at = e;
    if (!isInside(editor, e)) return;
    if (isBySam(editor)) {
      const kind = e.button === 2 ? "negative" : e.shift ? "positive" : null;
      if (e.button === 0 && !kind) this.accept(editor, e.erase);
      else if (kind) {
        points = { ...points, [kind]: [...points[kind], [e.x, e.y]] };
        look(editor, true);
      }
      return;
    }
    if (e.button === 0) this.accept(editor, e.erase);
    else if (e.button === 2) takeOut(editor, e);
    editor.painter.moved();
  },

  up() {},

  wheelTurn(editor, e) {
    at = e;
    turnLevel(editor, e.turn, NAME);
    without = new Set();
    editor.painter.moved();
  },

  key(editor, e) {
    if (e.code === "Enter") {
      this.accept(editor, editor.pointer.isErase);
      return true;
    }
    return e.code === "Escape" && this.cancel(editor);
  },

  // Paint what is offered.
  accept(editor, erase = false) {
    if (isBySam(editor)) {
      if (!shown?.proposal.width) return;
      const { proposal } = shown;
      forget();
      accept(editor, NAME, proposal, { erase });
      return;
    }
    const here = at && cellHere(editor);
    if (!here) return;
    const { cells, level, cell } = here, left = without;
    editor.stroke(NAME, (label, id) => cells.eachRun(level, cell, (y, x0, x1) => label.run(y, x0, x1, id), (fine) => !left.has(fine)), {
      erase, source: "superpixel", fresh: editor.state.selection === 0,
    });
    without = new Set();
  },

  cancel(editor) {
    const wasOpen = points.positive.length + points.negative.length + without.size > 0;
    forget();
    editor.painter.moved();
    return wasOpen;
  },

  draw(editor, context) {
    if (isBySam(editor)) {
      shown?.draw(editor, context);
      drawPoints(editor, context, points);
      return;
    }
    const here = at && cellHere(editor);
    if (!here) return;
    const left = without;
    fillCell(editor, context, here, at.erase ? "#ffffff" : editor.colour, { isIn: (fine) => !left.has(fine), mark: `${NAME} ${left.size}` });
  },
};

export default hover;

function isBySam(editor) {
  return hasSam(editor) && !isReading;
}

function isInside({ label }, { ix, iy }) {
  return ix >= 0 && iy >= 0 && ix < label.width && iy < label.height;
}

// -- SAM ----------------------------------------------------------------------------------------------------------------

// Have SAM read the image; until it has, superpixels are offered.
async function read(editor) {
  isReading = true;
  say(editor);
  try {
    await readOpen(editor);
    isReading = false;
  } catch (error) {
    tell(error);
    return;
  }
  if (editor.active !== hover) return;
  say(editor);
  readNext(editor);
}

// Ask for the mask of the pointer and the points that stay, the newest question last, ten times a second at most.
function look(editor, isNow = false) {
  clearTimeout(timer);
  const wait = isNow ? 0 : asked + EVERY - performance.now();
  if (wait > 0 || asking) {
    timer = setTimeout(() => { if (editor.active === hover && at) look(editor); }, Math.max(wait, 20));
    return;
  }
  if (!isInside(editor, at)) return;
  asked = performance.now();
  asking = new AbortController();
  const positive = points.positive.length ? points.positive : [[at.x, at.y]];
  propose(editor, { positive, negative: points.negative }, { signal: asking.signal }).then((found) => {
    asking = null;
    if (editor.active !== hover || !found.mask) return;
    shown = new Shown(found, editor.colour);
    note.say(editor, `${found.engine}, ${found.ms} ms. A click paints it; right click: not this`);
    editor.painter.moved();
  }, (error) => {
    asking = null;
    tell(error);
  });
}

// -- superpixels ----------------------------------------------------------------------------------------------------------

// The cell under the pointer; one that is new is whole.
function cellHere(editor) {
  const here = cellAt(editor, at, levelOf(editor, NAME));
  const mark = here ? `${here.cells.x0},${here.cells.y0} ${here.level} ${here.cell}` : "";
  if (mark !== offered) {
    offered = mark;
    without = new Set();
  }
  return here;
}

// Take out of the offered cell the part of it that a cell two levels finer is.
function takeOut(editor, e) {
  const here = cellHere(editor);
  if (!here || here.level === 0) return;
  const part = cellAt(editor, e, Math.max(0, here.level - 2)), table = part.cells.tables[part.level];
  without = new Set(without);
  for (let fine = 0; fine < table.length; fine += 1) if (table[fine] === part.cell) without.add(fine);
}

function forget() {
  asking?.abort();
  clearTimeout(timer);
  [points, shown, asking, without] = [{ positive: [], negative: [] }, null, null, new Set()];
}

function say(editor) {
  const sam = editor.state.project?.tools?.sam;
  if (!hasSam(editor)) note.say(editor, "Superpixels answer: the wheel makes them coarser, a click paints, a right click takes a part out");
  else note.say(editor, isReading ? `${sam.says} reads the image; superpixels answer until then` : `${sam.says} answers`);
}
