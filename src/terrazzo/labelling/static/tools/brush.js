// The brush, and the eraser: a disc or a square along the pointer's path.

import { sweepDisc, sweepSquare } from "../shapes.js";

const LARGEST = 1000;

export const brush = makeBrush({ name: "brush", code: "KeyB", title: "Brush", icon: "brush" });
export const eraser = makeBrush({ name: "eraser", code: "Shift+KeyE", title: "Eraser", icon: "eraser", isEraser: true });

function makeBrush({ name, code, title, icon, isEraser = false }) {
  let last = null; // where the last stroke ended, for a straight line from there
  let at = null; // the pointer
  let path = null; // of the stroke that is open: {x, y, id, size}

  const option = (editor, which) => editor.option(name, which);

  function sweep(editor, ax, ay, bx, by) {
    const { label } = editor, { id, size } = path;
    const bounds = { x0: Infinity, y0: Infinity, x1: -Infinity, y1: -Infinity };
    const run = (y, x0, x1) => {
      label.run(y, x0, x1, id);
      if (x0 < bounds.x0) bounds.x0 = x0;
      if (x1 > bounds.x1) bounds.x1 = x1;
      if (y < bounds.y0) bounds.y0 = y;
      if (y >= bounds.y1) bounds.y1 = y + 1;
    };
    (option(editor, "shape") === "square" ? sweepSquare : sweepDisc)(ax, ay, bx, by, size, run);
    if (bounds.x0 < bounds.x1) editor.painter.dirty(bounds);
  }

  const sizeFor = (editor, e) => {
    const size = option(editor, "size");
    return option(editor, "pressure") && e.pressure > 0 ? Math.max(1, size * e.pressure) : size;
  };

  function resize(editor, turn) {
    const size = option(editor, "size");
    const step = Math.max(1, Math.round(size * 0.12));
    editor.setOption(name, "size", Math.max(1, Math.min(LARGEST, size + turn * step)));
    editor.painter.moved();
  }

  return {
    name, code, title, icon, wheel: true, cursor: "none",
    options: [
      { name: "size", kind: "range", label: "Size", min: 1, max: 400, step: 1, value: 24 },
      { name: "shape", kind: "choice", label: "Shape", choices: [{ value: "circle", label: "Circle" }, { value: "square", label: "Square" }], value: "circle" },
      { name: "pressure", kind: "toggle", label: "Pen pressure", value: false },
    ],
    activate() { at = null; },
    deactivate(editor) { this.cancel(editor); at = null; },
    down(editor, e) {
      if (e.button !== 0) return;
      const id = editor.begin(name, { erase: isEraser || e.erase });
      if (id === null) return;
      path = { x: e.x, y: e.y, id, size: sizeFor(editor, e) };
      const from = e.shift && last && last.label === editor.label ? last : e;
      sweep(editor, from.x, from.y, e.x, e.y);
    },
    move(editor, e) {
      at = e;
      editor.painter.moved();
      if (!path) return;
      path.size = sizeFor(editor, e);
      for (const [x, y] of e.points) {
        sweep(editor, path.x, path.y, x, y);
        [path.x, path.y] = [x, y];
      }
    },
    up(editor, e) {
      if (!path) return;
      this.move(editor, e);
      last = { x: path.x, y: path.y, label: editor.label };
      path = null;
      editor.commit();
    },
    hover(editor, e) {
      at = e;
      editor.painter.moved();
    },
    wheelTurn(editor, e) { resize(editor, e.turn); },
    cancel(editor) {
      if (!path) return false;
      path = null;
      editor.abort();
      return true;
    },
    draw(editor, context) {
      if (!at) return;
      const r = (option(editor, "size") / 2) * editor.view.scale, [sx, sy] = editor.view.toScreen(at.x, at.y);
      const isErasing = isEraser || at.erase;
      const outline = () => {
        context.beginPath();
        if (option(editor, "shape") === "square") context.rect(sx - r, sy - r, 2 * r, 2 * r);
        else context.arc(sx, sy, r, 0, 2 * Math.PI);
      };
      const stroke = (colour, width) => {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.stroke();
      };
      outline(); // white in black is seen on every image
      stroke("rgba(0, 0, 0, 0.7)", 3.5);
      context.setLineDash(isErasing ? [4, 4] : []);
      stroke("#ffffff", 1.5);
      context.setLineDash([]);
      context.beginPath();
      context.arc(sx, sy, 3, 0, 2 * Math.PI);
      stroke("rgba(255, 255, 255, 0.9)", 2);
      context.fillStyle = isErasing ? "#ffffff" : editor.colour; // what it draws
      context.fill();
    },
  };
}
