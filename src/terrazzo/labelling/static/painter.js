// The stage: three canvases of the window's size, one over the other. The image, drawn when the view changes; the label,
// of which only what changed is drawn anew; and above them what tools show. All once a frame.

import { coloursOf } from "./colours.js";
import { Raster } from "./raster.js";

export class Painter {
  constructor(stage, label, view, pyramid) {
    Object.assign(this, { stage, label, view, pyramid });
    [this.image, this.overlay, this.top] = ["image", "label", "above"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `layer ${name}`;
      canvas.setAttribute("aria-hidden", "true");
      Object.assign(canvas.style, { position: "absolute", left: 0, top: 0, pointerEvents: "none" });
      stage.append(canvas);
      return canvas;
    });
    this.raster = new Raster();
    this.isFilled = false; // whether the label has come from the server
    this.above = null; // (context, view): what the tool shows
    this.after = null; // (now): called when a frame is drawn, for those who measure
    this.look = null;
    this.settings = null;
    this.pending = { image: true, label: "all", top: true };
    this.frame = 0;
    this.shown = { image: 0, label: 0 }; // when each was first seen: performance.now()
    view.changed = () => this.redraw();
  }

  // Colours and switches: state.view, categories, and the object that is selected.
  setLook(settings, categories, selection) {
    this.settings = settings;
    this.look = coloursOf(this.label, settings, categories, selection);
    this.overlay.style.visibility = settings.held === "image" ? "hidden" : "";
    this.image.style.visibility = settings.held === "label" ? "hidden" : "";
    this.redraw();
  }

  resize(width, height, ratio) {
    const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    for (const canvas of [this.image, this.overlay, this.top]) {
      canvas.width = w;
      canvas.height = h;
      canvas.style.width = `${w / ratio}px`;
      canvas.style.height = `${h / ratio}px`;
    }
    this.raster.resize(w, h);
    this.view.resize(width, height, ratio);
  }

  // Everything, in the next frame.
  redraw() {
    this.pending = { image: true, label: "all", top: true };
    this.wake();
  }

  // What changed of the label: {x0, y0, x1, y1} in its pixels.
  dirty(bounds) {
    if (!bounds || this.pending.label === "all") return;
    const old = this.pending.label;
    this.pending.label = old === null ? { ...bounds } : {
      x0: Math.min(old.x0, bounds.x0), y0: Math.min(old.y0, bounds.y0), x1: Math.max(old.x1, bounds.x1), y1: Math.max(old.y1, bounds.y1),
    };
    this.wake();
  }

  // What tools show, in the next frame.
  moved() {
    this.pending.top = true;
    this.wake();
  }

  wake() {
    if (this.frame === 0) this.frame = requestAnimationFrame(() => this.draw());
  }

  // Draw what is pending now, without waiting for the frame.
  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { image, label, top } = this.pending;
    this.pending = { image: false, label: null, top: false };
    if (this.look === null) return;
    if (image) this.drawImage();
    if (label) this.drawLabel(label);
    if (top) this.drawTop();
    const now = performance.now();
    if (image && this.shown.image === 0 && this.pyramid.bitmaps.size) this.shown.image = now;
    if (label && this.shown.label === 0 && this.isFilled) this.shown.label = now;
    this.after?.(now, label);
  }

  drawImage() {
    const { view, image } = this, context = image.getContext("2d", { alpha: false });
    const ratio = view.ratio, scale = view.scale * ratio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(this.stage).backgroundColor;
    context.fillRect(0, 0, image.width, image.height);
    const level = this.pyramid.best(scale);
    if (!level) return;
    const { brightness = 0, contrast = 0, smoothing = true } = this.settings;
    context.filter = [
      this.settings.equalise ? this.pyramid.equaliser() : "", brightness ? `brightness(${1 + brightness / 100})` : "",
      contrast ? `contrast(${1 + contrast / 100})` : "",
    ].join(" ").trim() || "none";
    context.imageSmoothingEnabled = smoothing && scale < 2;
    const { x0, y0, x1, y1 } = view.seen;
    const fx = level.bitmap.width / view.imageWidth, fy = level.bitmap.height / view.imageHeight;
    context.drawImage(level.bitmap, x0 * fx, y0 * fy, (x1 - x0) * fx, (y1 - y0) * fy,
      (x0 * view.scale + view.x) * ratio, (y0 * view.scale + view.y) * ratio, (x1 - x0) * scale, (y1 - y0) * scale);
    context.filter = "none";
  }

  drawLabel(bounds) {
    const { view, raster, overlay } = this, context = overlay.getContext("2d");
    const scale = view.scale * view.ratio, left = view.x * view.ratio, top = view.y * view.ratio;
    let part = { x0: 0, y0: 0, x1: overlay.width, y1: overlay.height };
    if (bounds === "all") raster.place(scale, left, top, this.label);
    else part = raster.shown(bounds, scale, left, top);
    if (part === null) return;
    raster.draw(part, this.label, this.look);
    context.putImageData(raster.picture, 0, 0, part.x0, part.y0, part.x1 - part.x0, part.y1 - part.y0);
  }

  drawTop() {
    const { top, view } = this, context = top.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, top.width, top.height);
    context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
    this.above?.(context, view);
  }

  // Colours may have new objects to tell; cheaper than setLook.
  colour(ids, categories, selection) {
    coloursOf(this.label, this.settings, categories, selection, this.look, ids);
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.look = null; // a frame that comes yet draws nothing
    for (const canvas of [this.image, this.overlay, this.top]) {
      canvas.remove();
      canvas.width = canvas.height = 0; // let the memory go now
    }
    this.raster.resize(1, 1);
  }
}
