// The image at the sizes the server gives: level 0 is whole, each further one half as large. A small one first, then what
// the view needs, then the whole one while nobody waits.

import * as api from "./api.js";

const PREVIEW = 1024; // pixels of the longer side
const LARGE = 16e6; // pixels: a level with more is loaded when it is looked at, and let go after
const READABLE = 4e6; // pixels: the largest level that tools read

export class Pyramid {
  constructor(project, sample, changed) {
    Object.assign(this, { project, sample, changed });
    this.levels = [...sample.levels].sort((a, b) => a.level - b.level);
    this.bitmaps = new Map();
    this.loading = new Map();
    this.isClosed = false;
    this.problem = null;
  }

  get previewLevel() {
    return previewOf(this.sample);
  }

  // Load the small one, or take the one that was fetched ahead.
  async open(preview = null) {
    if (preview && !this.isClosed) this.bitmaps.set(this.previewLevel, preview);
    else await this.load(this.previewLevel);
    this.changed();
  }

  async load(level) {
    if (this.bitmaps.has(level)) return;
    if (!this.loading.has(level)) {
      this.loading.set(level, fetchBitmap(this.project, this.sample.id, level).then((bitmap) => {
        if (this.isClosed) bitmap.close();
        else this.bitmaps.set(level, bitmap);
        this.changed();
      }).finally(() => this.loading.delete(level)));
    }
    await this.loading.get(level);
  }

  // Load all levels that are not large, from small to whole.
  async complete() {
    for (const { level, width, height } of [...this.levels].reverse()) {
      if (this.isClosed) return;
      if (level <= this.previewLevel && width * height <= LARGE) await this.load(level);
    }
  }

  // The bitmap to draw at `scale` device pixels for one of the image; the right one is loaded when it is missing.
  best(scale) {
    const wanted = this.levels.findLast((one) => one.width >= 0.8 * scale * this.sample.width) ?? this.levels[0];
    if (!this.bitmaps.has(wanted.level)) this.load(wanted.level).catch((error) => { this.problem = error; });
    for (const { level, width, height } of this.levels) {
      if (level < wanted.level && width * height > LARGE) this.drop(level);
    }
    const there = [...this.bitmaps.keys()].sort((a, b) => Math.abs(a - wanted.level) - Math.abs(b - wanted.level) || a - b);
    return there.length ? { level: there[0], bitmap: this.bitmaps.get(there[0]) } : null;
  }

  drop(level) {
    this.bitmaps.get(level)?.close();
    this.bitmaps.delete(level);
  }

  // The image's pixels for tools that look at them: ImageData of the largest level of at most `most` pixels.
  async pixels(most = READABLE) {
    const one = this.levels.find(({ width, height }) => width * height <= most) ?? this.levels.at(-1);
    if (this.readable?.level === one.level) return this.readable.picture;
    await this.load(one.level);
    const canvas = new OffscreenCanvas(one.width, one.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.bitmaps.get(one.level), 0, 0, one.width, one.height);
    this.readable = { level: one.level, picture: context.getImageData(0, 0, one.width, one.height) };
    return this.readable.picture;
  }

  // A filter that spreads the brightnesses evenly, as ctx.filter takes it.
  equaliser() {
    if (!this.filter) {
      const bitmap = this.bitmaps.get(this.previewLevel);
      if (!bitmap) return "";
      this.filter = equalising(bitmap);
      document.body.append(this.filter);
    }
    return `url(#${this.filter.firstChild.id})`;
  }

  close() {
    this.isClosed = true;
    this.filter?.remove();
    for (const level of [...this.bitmaps.keys()]) this.drop(level);
    this.readable = null;
  }
}

// The level that is shown first.
export function previewOf({ levels }) {
  const small = levels.filter((one) => Math.max(one.width, one.height) <= PREVIEW).map((one) => one.level);
  return small.length ? Math.min(...small) : Math.max(...levels.map((one) => one.level));
}

export async function fetchBitmap(project, id, level) {
  const response = await api.bytes(`${api.at(project, "samples", id, "image")}?level=${level}`, { full: true });
  return createImageBitmap(await response.blob());
}

let filters = 0;

function equalising(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const counts = new Float64Array(256);
  for (let i = 0; i < data.length; i += 4) counts[(data[i] * 77 + data[i + 1] * 150 + data[i + 2] * 29) >> 8] += 1;
  let sum = 0;
  const total = data.length / 4;
  const table = [...counts].map((count) => { sum += count; return ((sum - count / 2) / total).toFixed(4); }).join(" ");
  const make = (name, attributes, ...children) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    one.append(...children);
    return one;
  };
  const parts = ["R", "G", "B"].map((channel) => make(`feFunc${channel}`, { type: "table", tableValues: table }));
  const filter = make("filter", { id: `equalise-${filters += 1}`, "color-interpolation-filters": "sRGB" }, make("feComponentTransfer", {}, ...parts));
  const svg = make("svg", { width: 0, height: 0, "aria-hidden": "true" }, filter);
  svg.style.position = "absolute";
  return svg;
}
