// What a model says, drawn over the image while somebody wants to see it: its classes in their colours, or its doubt.
// A canvas of the window's size between label and tools; the nearest pixel under each device pixel.

import { channels } from "./colours.js";
import { state } from "./state.js";

export class OfferLayer {
  constructor(editor) {
    this.editor = editor;
    this.mode = null; // null | "classes" | "doubt"
    this.wanted = null; // (i) -> whether a pixel is shown; null: all
    this.frame = 0;
    this.canvas = document.createElement("canvas");
    this.canvas.className = "layer offer";
    this.canvas.setAttribute("aria-hidden", "true");
    Object.assign(this.canvas.style, { position: "absolute", left: 0, top: 0, pointerEvents: "none" });
    editor.painter.top.before(this.canvas);
    const before = editor.view.changed;
    const changed = () => {
      before();
      this.redraw();
    };
    editor.view.changed = changed;
    this.isClosed = false;
    this.unchain = () => { if (editor.view.changed === changed) editor.view.changed = before; };
  }

  show(mode, wanted = null) {
    this.mode = mode;
    this.wanted = wanted;
    this.redraw();
  }

  redraw() {
    if (this.frame === 0 && !this.isClosed) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { canvas } = this, { top } = this.editor.painter, { offer } = state;
    const isShown = this.mode !== null && offer !== null;
    canvas.hidden = !isShown;
    if (!isShown) return;
    if (canvas.width !== top.width || canvas.height !== top.height) {
      Object.assign(canvas, { width: top.width, height: top.height });
      Object.assign(canvas.style, { width: top.style.width, height: top.style.height });
    }
    const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
    this.fill(new Uint32Array(picture.data.buffer), canvas.width, canvas.height, offer);
    context.putImageData(picture, 0, 0);
  }

  fill(out, width, height, offer) {
    const { label, view } = this.editor, scale = view.scale * view.ratio, left = view.x * view.ratio, top = view.y * view.ratio;
    const colours = this.mode === "doubt" ? null : classColours();
    for (let sy = 0; sy < height; sy += 1) {
      const y = Math.floor((sy + 0.5 - top) / scale);
      if (y < 0 || y >= label.height) continue;
      for (let sx = 0; sx < width; sx += 1) {
        const x = Math.floor((sx + 0.5 - left) / scale);
        if (x < 0 || x >= label.width) continue;
        const i = y * label.width + x;
        if (this.wanted && !this.wanted(i)) continue;
        out[sy * width + sx] = colours ? colours[offer.mask[i]] : DOUBT[offer.confidence[i]];
      }
    }
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.isClosed = true;
    this.unchain();
    this.canvas.remove();
    this.canvas.width = this.canvas.height = 0;
    this.mode = null;
  }
}

// From clear (certain) over yellow to red (no idea): ABGR for each confidence.
const DOUBT = Uint32Array.from({ length: 256 }, (_, confidence) => {
  const doubt = 1 - confidence / 255;
  return ((Math.round(220 * Math.min(1, 1.6 * doubt)) << 24) | (30 << 16) | (Math.round(220 * (1 - doubt)) << 8) | 255) >>> 0;
});

function classColours() {
  const table = new Uint32Array(65536);
  for (const { id, color } of state.categories) {
    const [r, g, b] = channels(color);
    table[id] = ((200 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  }
  return table;
}
