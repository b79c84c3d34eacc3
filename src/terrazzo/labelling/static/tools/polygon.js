// The polygon: clicks are its corners, a drag draws freehand. Double click, Enter or a click on the first corner closes it;
// Backspace takes back the last corner, or all of the last drag. While E is held it erases what it surrounds.

import { fillPolygon } from "../shapes.js";

const APART = 3; // screen pixels between points of a freehand line
const CLOSE = 9; // screen pixels around the first corner that close
const DASH = [5, 4];

let groups = []; // of points [[x, y], …]: one for each click or drag
let at = null; // the pointer
let dragged = null; // the group that is drawn freehand just now
let isErasing = false;
let ahead = null; // what Shift offers from the last corner to the pointer: points, or null

const polygon = {
  name: "polygon", code: "KeyG", title: "Polygon", icon: "polygon", wheel: false, cursor: "crosshair",
  options: [],
  snapper: null, // {to(editor, from, to) -> promise of [[x, y], …] along edges}; who has one sets it

  activate() { forget(); },
  deactivate(editor) { this.cancel(editor); },

  down(editor, e) {
    if (e.button !== 0) return;
    const first = groups[0]?.[0];
    if (first && points().length >= 3 && near(editor, first, e)) {
      if (e.shift && ahead) groups.push(ahead); // the last side follows the edge too
      this.close(editor, e.erase);
      return;
    }
    isErasing = e.erase;
    const snapped = e.shift && ahead ? ahead : [[e.x, e.y]];
    groups.push(snapped);
    dragged = [];
    ahead = null;
    editor.painter.moved();
  },

  move(editor, e) {
    at = e;
    if (dragged) {
      for (const [x, y] of e.points) {
        const last = dragged.at(-1) ?? groups.at(-1)?.at(-1);
        if (last && Math.hypot(x - last[0], y - last[1]) * editor.view.scale >= APART) dragged.push([x, y]);
      }
    }
    editor.painter.moved();
  },

  up(editor, e) {
    if (!dragged) return;
    const [ix, iy] = groups.at(-1).at(-1);
    const isFreehand = dragged.length > 2 || Math.hypot(e.x - ix, e.y - iy) * editor.view.scale > 2 * APART;
    if (isFreehand && dragged.length) groups.push(dragged);
    dragged = null;
    at = e;
    editor.painter.moved();
  },

  hover(editor, e) {
    at = e;
    if (e.shift && groups.length && this.snapper) this.offer(editor, e);
    else ahead = null;
    editor.painter.moved();
  },

  // Ask for the way along edges; the newest question counts.
  offer(editor, e) {
    if (this.asking) {
      this.next = e;
      return;
    }
    const from = points().at(-1), label = editor.label;
    this.asking = this.snapper.to(editor, from, [e.x, e.y]).then((found) => {
      if (editor.label === label && at?.shift && points().at(-1) === from) ahead = found;
      editor.painter.moved();
    }, () => { ahead = null; }).finally(() => {
      this.asking = null;
      const next = this.next;
      this.next = null;
      if (next && at?.shift && groups.length) this.offer(editor, next);
    });
  },

  double(editor, e) { this.close(editor, e.erase); },

  key(editor, e) {
    if (!groups.length) return false;
    if (e.code === "Enter") this.close(editor, editor.pointer.isErase);
    else if (e.code === "Backspace") {
      groups.pop();
      ahead = null;
      editor.painter.moved();
    } else if (e.code === "Escape") this.cancel(editor);
    else return false;
    return true;
  },

  close(editor, erase) {
    const corners = points();
    const isErase = erase || isErasing;
    forget();
    editor.painter.moved();
    if (corners.length < 3) return;
    editor.stroke("polygon", (label, id) => fillPolygon(corners, (y, x0, x1) => label.run(y, x0, x1, id)), {
      erase: isErase, fresh: editor.state.selection === 0,
    });
  },

  cancel(editor) {
    const wasOpen = groups.length > 0;
    forget();
    editor.painter.moved();
    return wasOpen;
  },

  draw(editor, context) {
    if (!groups.length) return;
    const { view } = editor, corners = [...points(), ...(dragged ?? [])];
    const tail = dragged || !at ? [] : ahead ?? [[at.x, at.y]];
    const line = (places, isClosed) => {
      context.beginPath();
      for (const [x, y] of places) context.lineTo(...view.toScreen(x, y));
      if (isClosed) context.closePath();
    };
    line([...corners, ...tail], true);
    context.globalAlpha = 0.25;
    context.fillStyle = isErasing || at?.erase ? "#ffffff" : editor.colour;
    context.fill("evenodd");
    context.globalAlpha = 1;
    for (const [colour, width] of [["rgba(0, 0, 0, 0.7)", 3.5], ["#ffffff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.setLineDash([]);
      line(corners, false);
      context.stroke();
      if (tail.length) {
        context.setLineDash(DASH);
        line([corners.at(-1), ...tail], false);
        context.stroke();
      }
    }
    context.setLineDash([]);
    const closes = at && corners.length >= 3 && near(editor, corners[0], at);
    for (const [index, group] of groups.entries()) {
      const [sx, sy] = view.toScreen(...group[0]), r = index === 0 ? (closes ? 6 : 4.5) : 3;
      context.beginPath();
      context.arc(sx, sy, r, 0, 2 * Math.PI);
      context.fillStyle = index === 0 && closes ? editor.colour : "#ffffff";
      context.strokeStyle = "rgba(0, 0, 0, 0.8)";
      context.fill();
      context.stroke();
    }
  },
};

export default polygon;

function points() {
  return groups.flat();
}

function near(editor, [x, y], e) {
  return Math.hypot(x - e.x, y - e.y) * editor.view.scale <= CLOSE;
}

function forget() {
  groups = [];
  dragged = null;
  ahead = null;
  isErasing = false;
}
