// Masks that an engine at the server proposes: asked for, unpacked, shown over the image, painted when they are accepted.

import * as api from "./api.js";
import { fromBase64, inflate } from "./codec.js";

// Ask for the mask of a prompt {box, positive, negative}: {x, y, width, height, mask, engine, ms}. SAM is asked where it is
// ready; while it reads the image GrabCut answers boxes in its place, and `waits` (a promise) says when SAM can be asked.
export async function propose(editor, prompt, { signal } = {}) {
  const { project, sample, state } = editor, tools = state.project?.tools ?? {};
  const path = (engine) => api.at(project, "samples", sample.id, "assist", engine);
  if (tools.sam?.ready) {
    const told = await api.send("POST", path("sam"), prompt, { signal });
    if (!told.job) return unpacked(told);
    const waits = api.finished(told.job);
    waits.catch(() => {}); // whoever waits for it hears of it
    if (!prompt.box || !tools.grabcut?.ready) return { waits, engine: tools.sam.says };
    return { ...await unpacked(await api.send("POST", path("grabcut"), prompt, { signal })), waits };
  }
  return unpacked(await api.send("POST", path("grabcut"), prompt, { signal }));
}

async function unpacked(told) {
  const mask = told.width ? await inflate(fromBase64(told.data), told.width * told.height) : new Uint8Array(0);
  return { ...told, mask };
}

// A proposal on the canvas, in the colour of what would be drawn.
export class Shown {
  constructor(proposal, colour) {
    Object.assign(this, { proposal, colour });
    const { width, height, mask } = proposal;
    if (!width) return;
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [width, height];
    const context = this.canvas.getContext("2d"), picture = context.createImageData(width, height);
    const pixels = new Uint32Array(picture.data.buffer), value = Number.parseInt(colour.slice(1), 16);
    const blue = (value & 255) << 16, green = value & 0xff00, red = value >> 16;
    const inside = ((0x8c << 24) | blue | green | red) >>> 0, rim = 0xffffffff;
    for (let y = 0, i = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1, i += 1) {
        if (!mask[i]) continue;
        const isRim = x === 0 || y === 0 || x === width - 1 || y === height - 1
          || !mask[i - 1] || !mask[i + 1] || !mask[i - width] || !mask[i + width];
        pixels[i] = isRim ? rim : inside;
      }
    }
    context.putImageData(picture, 0, 0);
  }

  draw(editor, context) {
    if (!this.canvas) return;
    const { x, y, width, height } = this.proposal, [left, top] = editor.view.toScreen(x, y), { scale } = editor.view;
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(this.canvas, left, top, width * scale, height * scale);
  }
}

// Points in (a plus) and out (a minus).
export function drawPoints(editor, context, { positive, negative }) {
  for (const [points, isIn] of [[positive, true], [negative, false]]) {
    for (const [x, y] of points) {
      const [sx, sy] = editor.view.toScreen(x, y);
      context.beginPath();
      context.arc(sx, sy, 6, 0, 2 * Math.PI);
      context.fillStyle = isIn ? "#1f9d55" : "#d64545";
      context.fill();
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5;
      context.moveTo(sx - 3, sy);
      context.lineTo(sx + 3, sy);
      if (isIn) {
        context.moveTo(sx, sy - 3);
        context.lineTo(sx, sy + 3);
      }
      context.stroke();
    }
  }
}

// Paint what was accepted, as one stroke. Things of a class of many become a new one, unless one is selected.
export function accept(editor, tool, { x, y, width, height, mask, engine }, { erase = false } = {}) {
  const source = engine.startsWith("SAM") ? "sam" : "grabcut";
  return editor.stroke(tool, (label, id) => label.blit(x, y, width, height, mask, id), {
    erase, source, fresh: editor.state.selection === 0,
  });
}
