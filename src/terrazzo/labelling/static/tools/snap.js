// Edges for the polygon: while Shift is held, the way from its last corner to the pointer follows edges of the image. The
// server finds it (intelligent scissors) in what is seen; the polygon asks for one way at a time, here 30 a second at most.

import * as api from "../api.js";

const EVERY = 34; // ms
const GRID = 64; // pixels: views that are nearly the same are one, so that the server need not look anew

let asked = 0;

export const snapper = {
  async to(editor, from, to) {
    if (!editor.state.project?.tools?.scissors?.ready) return null;
    const wait = asked + EVERY - performance.now();
    if (wait > 0) await new Promise((resolve) => { setTimeout(resolve, wait); });
    asked = performance.now();
    const view = viewOf(editor, from, to), inside = ([x, y]) => [
      Math.max(view[0], Math.min(view[2] - 0.5, x)), Math.max(view[1], Math.min(view[3] - 0.5, y)),
    ];
    const path = api.at(editor.project, "samples", editor.sample.id, "assist", "scissors");
    const { points } = await api.send("POST", path, { view, anchor: inside(from), target: inside(to) });
    return simplified(points.slice(1));
  },
};

// What is seen, and both ends, on whole steps of a grid.
function viewOf({ view, label }, ...ends) {
  const { x0, y0, x1, y1 } = view.seen, xs = [x0, x1, ...ends.map(([x]) => x)], ys = [y0, y1, ...ends.map(([, y]) => y)];
  const low = (values, most) => Math.max(0, Math.min(most - 1, Math.floor(Math.min(...values) / GRID) * GRID));
  const high = (values, most) => Math.max(1, Math.min(most, Math.ceil((Math.max(...values) + 1) / GRID) * GRID));
  return [low(xs, label.width), low(ys, label.height), high(xs, label.width), high(ys, label.height)];
}

// Without the points between two others on one straight line.
export function simplified(points) {
  return points.filter(([x, y], i) => {
    if (i === 0 || i === points.length - 1) return true;
    const [ax, ay] = points[i - 1], [bx, by] = points[i + 1];
    return (x - ax) * (by - y) !== (y - ay) * (bx - x);
  });
}
