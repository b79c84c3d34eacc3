// A box around a thing becomes its mask: a drag draws the box, clicks add points that are in (right clicks, or E held: out),
// Enter or a click on Accept paints it. SAM answers where its weights are, else GrabCut; the note says which.

import { tell } from "../elements.js";
import { Note } from "../note.js";
import { Shown, accept, drawPoints, propose } from "../proposals.js";
import { hasSam, readNext, readOpen } from "../reading.js";

const NAME = "box";
const SMALLEST = 4; // pixels a side

const note = new Note();
let corner = null; // where the drag began
let prompt = null; // {box, positive, negative}
let shown = null; // the proposal on the canvas
let asking = null; // an AbortController while the server is asked
let at = null;

const box = {
  name: NAME, code: "KeyA", title: "Box to mask", icon: "box", wheel: false, cursor: "crosshair",
  options: [],

  activate(editor) {
    say(editor);
    if (hasSam(editor)) readOpen(editor).then(() => { if (editor.active === box) readNext(editor); }, tell);
  },

  deactivate(editor) {
    this.cancel(editor);
    note.close();
  },

  down(editor, e) {
    at = e;
    if (e.button === 2 || e.button === 0) corner = { x: e.x, y: e.y, button: e.button, isOut: e.button === 2 || e.erase };
  },

  move(editor, e) {
    at = e;
    editor.painter.moved();
  },

  hover(editor, e) {
    at = e;
  },

  up(editor, e) {
    const from = corner;
    corner = null;
    at = e;
    editor.painter.moved();
    if (!from) return;
    const drawn = boxOf(editor, from, e), isClick = Math.hypot(e.x - from.x, e.y - from.y) * editor.view.scale < SMALLEST;
    if (!isClick && from.button === 0) {
      if (!drawn) return;
      prompt = { box: drawn, positive: [], negative: [] };
    } else if (prompt && inside(editor, e)) {
      const kind = from.isOut ? "negative" : "positive";
      prompt = { ...prompt, [kind]: [...prompt[kind], [e.x, e.y]] };
    } else {
      return;
    }
    ask(editor);
  },

  key(editor, e) {
    if (!prompt) return false;
    if (e.code === "Enter") this.accept(editor, editor.pointer.isErase);
    else if (e.code === "Escape") this.cancel(editor);
    else if (e.code === "Backspace") {
      const kind = prompt.negative.length ? "negative" : "positive";
      if (!prompt[kind].length) {
        this.cancel(editor);
        return true;
      }
      prompt = { ...prompt, [kind]: prompt[kind].slice(0, -1) };
      ask(editor);
    } else return false;
    return true;
  },

  // Paint what is proposed; where nothing is yet, as soon as it is there.
  accept(editor, erase = false) {
    if (asking) {
      asking.accepts = { erase };
      return;
    }
    if (!shown?.proposal.width) return;
    const { proposal } = shown;
    forget();
    accept(editor, NAME, proposal, { erase });
    say(editor);
  },

  cancel(editor) {
    const wasOpen = prompt !== null || corner !== null;
    forget();
    say(editor);
    editor.painter.moved();
    return wasOpen;
  },

  draw(editor, context) {
    shown?.draw(editor, context);
    const open = corner && corner.button === 0 && at ? [corner.x, corner.y, at.x, at.y] : prompt?.box;
    if (open) {
      const [ax, ay] = editor.view.toScreen(open[0], open[1]), [bx, by] = editor.view.toScreen(open[2], open[3]);
      for (const [colour, width, dash] of [["rgba(0, 0, 0, 0.7)", 3, []], ["#fff", 1.5, [6, 4]]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.setLineDash(dash);
        context.strokeRect(Math.min(ax, bx), Math.min(ay, by), Math.abs(bx - ax), Math.abs(by - ay));
      }
      context.setLineDash([]);
    }
    if (prompt) drawPoints(editor, context, prompt);
  },
};

export default box;

async function ask(editor) {
  asking?.abort();
  const mine = new AbortController(), asked = prompt;
  asking = mine;
  say(editor, "looking …");
  try {
    const found = await propose(editor, asked, { signal: mine.signal });
    if (asking !== mine) return;
    asking = null;
    if (found.mask) shown = new Shown(found, editor.colour);
    say(editor, found.waits ? `${found.engine} (SAM reads the image)` : `${found.engine}, ${found.ms} ms`, shown);
    found.waits?.then(() => { if (prompt === asked && !asking) ask(editor); }, tell);
    if (mine.accepts && found.mask) box.accept(editor, mine.accepts.erase);
  } catch (error) {
    if (asking !== mine) return;
    asking = null;
    say(editor);
    tell(error);
  }
  editor.painter.moved();
}

// The box of a drag, whole pixels in the image; null where it is smaller than anything can be in.
function boxOf({ label }, a, b) {
  const cut = (value, most) => Math.max(0, Math.min(most, value));
  const found = [
    Math.floor(cut(Math.min(a.x, b.x), label.width)), Math.floor(cut(Math.min(a.y, b.y), label.height)),
    Math.ceil(cut(Math.max(a.x, b.x), label.width)), Math.ceil(cut(Math.max(a.y, b.y), label.height)),
  ];
  return found[2] - found[0] >= SMALLEST && found[3] - found[1] >= SMALLEST ? found : null;
}

function inside({ label }, { x, y }) {
  return x >= 0 && y >= 0 && x < label.width && y < label.height;
}

function forget() {
  asking?.abort();
  [corner, prompt, shown, asking] = [null, null, null, null];
}

function say(editor, engine = "", found = null) {
  const { tools } = editor.state.project ?? {};
  if (!engine) note.say(editor, `Drag a box. ${tools?.sam?.ready ? tools.sam.says : tools?.grabcut?.ready ? "GrabCut" : tools?.grabcut?.says ?? ""} answers.`);
  else if (found && !found.proposal.width) note.say(editor, `${engine}: nothing found; click on what you mean`);
  else note.say(editor, found ? `${engine}. Enter paints it, clicks refine it, Esc drops it` : engine);
}
