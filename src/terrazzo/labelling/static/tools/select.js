// Select: click an object; Backspace or Delete removes it; a drag pans.

import { change, state } from "../state.js";

const APART = 4; // screen pixels that make a drag of a click
let pressed = null;

export default {
  name: "select", code: "KeyV", title: "Select", icon: "select", wheel: false, cursor: "default", options: [],

  down(editor, e) {
    if (e.button === 0) pressed = { sx: e.sx, sy: e.sy, isDrag: false };
  },
  move(editor, e) {
    if (!pressed) return;
    if (!pressed.isDrag && Math.hypot(e.sx - pressed.sx, e.sy - pressed.sy) < APART) return;
    pressed.isDrag = true;
    editor.view.pan(e.sx - pressed.sx, e.sy - pressed.sy);
    Object.assign(pressed, { sx: e.sx, sy: e.sy });
  },
  up(editor, e) {
    const isClick = pressed && !pressed.isDrag;
    pressed = null;
    if (isClick) change({ selection: editor.at(e.ix, e.iy) });
  },
  double(editor, e) {
    editor.pick(e.ix, e.iy);
  },
  key(editor, e) {
    if (state.selection === 0) return false;
    if (e.code === "Backspace" || e.code === "Delete") {
      if (e.shiftKey) return false;
      editor.remove(state.selection);
      return true;
    }
    if (e.code !== "Escape") return false;
    change({ selection: 0 });
    return true;
  },
  cancel() { pressed = null; return false; },
};
