// The wand: press on a colour, drag to the right for more of it and to the left for less, let go. It looks at the image,
// at its largest size of at most four megapixels, and draws at that of the label.

import { channels } from "../colours.js";
import { regionAt } from "../regions.js";

const STEP = 4; // screen pixels of dragging for one step of tolerance

let picture = null; // ImageData the tool looks at
let pressed = null; // {x, y: in the picture, sx, erase, start: tolerance}
let found = null; // {runs, tolerance, canvas}
let turn = 0;

const wand = {
  name: "wand", code: "KeyW", title: "Magic wand", icon: "wand", wheel: true, cursor: "crosshair",
  options: [
    { name: "tolerance", kind: "range", label: "Tolerance", min: 0, max: 128, step: 1, value: 24 },
    { name: "contiguous", kind: "toggle", label: "Contiguous", value: true },
  ],

  activate(editor) { look(editor); },
  deactivate(editor) {
    this.cancel(editor);
    picture = null;
  },

  async down(editor, e) {
    if (e.button !== 0) return;
    const mine = (turn += 1);
    const start = editor.option("wand", "tolerance");
    pressed = { sx: e.sx, x: e.x, y: e.y, erase: e.erase, start, isUp: false };
    await look(editor);
    if (mine !== turn || !pressed) return;
    search(editor, start);
    if (pressed.isUp) this.end(editor);
  },

  move(editor, e) {
    if (!pressed || !found) return;
    const tolerance = Math.max(0, Math.min(128, pressed.start + Math.round((e.sx - pressed.sx) / STEP)));
    if (tolerance === found.tolerance) return;
    search(editor, tolerance);
  },

  up(editor, e) {
    if (!pressed) return;
    this.move(editor, e);
    if (found) this.end(editor);
    else pressed.isUp = true; // the image is still on its way
  },

  end(editor) {
    const { runs, tolerance } = found, { erase } = pressed, { label } = editor;
    const fx = label.width / picture.width, fy = label.height / picture.height;
    pressed = found = null;
    editor.setOption("wand", "tolerance", tolerance);
    editor.stroke("wand", (_, id) => {
      for (const [y, x0, x1] of runs) {
        for (let row = Math.ceil(y * fy); row < Math.ceil((y + 1) * fy); row += 1) label.run(row, Math.ceil(x0 * fx), Math.ceil(x1 * fx), id);
      }
    }, { erase });
    editor.painter.moved();
  },

  wheelTurn(editor, e) {
    const tolerance = Math.max(0, Math.min(128, editor.option("wand", "tolerance") + 2 * e.turn));
    editor.setOption("wand", "tolerance", tolerance);
    if (!pressed || !found) return;
    pressed.start = tolerance - Math.round((e.sx - pressed.sx) / STEP);
    search(editor, tolerance);
  },

  key(editor, e) {
    return e.code === "Escape" && this.cancel(editor);
  },

  cancel(editor) {
    if (!pressed) return false;
    pressed = found = null;
    turn += 1;
    editor.painter.moved();
    return true;
  },

  draw(editor, context) {
    if (!found || !pressed) return;
    const { view } = editor, { width, height } = editor.label;
    context.imageSmoothingEnabled = false;
    context.drawImage(found.canvas, view.x, view.y, width * view.scale, height * view.scale);
    context.font = "12px system-ui, sans-serif";
    const text = `tolerance ${found.tolerance}`, [sx, sy] = view.toScreen(pressed.x, pressed.y);
    context.fillStyle = "rgba(0, 0, 0, 0.75)";
    context.fillRect(sx + 12, sy - 26, context.measureText(text).width + 12, 20);
    context.fillStyle = "#ffffff";
    context.fillText(text, sx + 18, sy - 12);
  },
};

export default wand;

async function look(editor) {
  const seen = await editor.pyramid.pixels();
  if (editor.state.tool === "wand") picture = seen;
}

function search(editor, tolerance) {
  const { width, height, data } = picture, { label } = editor;
  const x = Math.floor((pressed.x * width) / label.width), y = Math.floor((pressed.y * height) / label.height);
  if (x < 0 || y < 0 || x >= width || y >= height) return;
  const at = 4 * (y * width + x), r = data[at], g = data[at + 1], b = data[at + 2];
  const isIn = (index) => {
    const i = 4 * index;
    return Math.abs(data[i] - r) <= tolerance && Math.abs(data[i + 1] - g) <= tolerance && Math.abs(data[i + 2] - b) <= tolerance;
  };
  const runs = editor.option("wand", "contiguous") ? regionAt(x, y, picture, isIn) : everywhere(picture, isIn);
  found = { runs, tolerance, canvas: shown(editor, runs, found?.canvas) };
  editor.painter.moved();
}

function everywhere({ width, height }, isIn) {
  const runs = [];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width;) {
      if (!isIn(y * width + x)) { x += 1; continue; }
      const start = x;
      while (x < width && isIn(y * width + x)) x += 1;
      runs.push([y, start, x]);
    }
  }
  return runs;
}

// What would be drawn, as a picture to lay over the image.
function shown(editor, runs, canvas = new OffscreenCanvas(picture.width, picture.height)) {
  const context = canvas.getContext("2d");
  const [r, g, b] = pressed.erase ? [255, 255, 255] : channels(editor.colour);
  const image = new ImageData(picture.width, picture.height), out = new Uint32Array(image.data.buffer);
  const colour = ((170 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  for (const [y, x0, x1] of runs) out.fill(colour, y * picture.width + x0, y * picture.width + x1);
  context.putImageData(image, 0, 0);
  return canvas;
}
