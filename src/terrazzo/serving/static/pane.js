// One model's answer: photo and mask under a slider, the class under the cursor, legend, downloads.

import { paint, shares } from "./pixels.js";

const percent = (share) => (share >= 0.001 ? `${(100 * share).toFixed(1)}\u00a0%` : "<\u00a00.1\u00a0%");

export class Pane {
  constructor(model, { onSlide, onSave }) {
    this.model = model;
    this.colors = model.classes.map(({ color }) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));
    this.layers = null;
    this.only = null;
    this.element = document.getElementById("pane").content.firstElementChild.cloneNode(true);
    const find = (selector) => this.element.querySelector(selector);
    [this.stage, this.photo, this.mask, this.tag] = [".stage", ".photo", ".mask", ".tag"].map(find);
    [this.wait, this.slider, this.legend, this.facts] = [".wait", ".slider", ".legend", ".facts"].map(find);
    find("h2").textContent = model.name;
    this.slider.setAttribute("aria-label", `${model.name}: slider between photo and mask`);
    this.slider.addEventListener("input", () => onSlide(this.slider.value / 1000));
    this.stage.addEventListener("pointermove", (event) => this.point(event));
    this.stage.addEventListener("pointerdown", (event) => this.point(event));
    this.stage.addEventListener("pointerleave", () => { this.tag.hidden = true; });
    for (const button of this.element.querySelectorAll("[data-as]")) {
      button.addEventListener("click", () => onSave(this.model, button.dataset.as));
    }
  }

  // Show a photo before its mask is there; null where the browser cannot show the file.
  begin(bitmap, size) {
    this.layers = null;
    this.only = null;
    [this.photo.width, this.photo.height] = [size.width, size.height];
    this.stage.style.setProperty("--ratio", size.width / size.height);
    const context = this.photo.getContext("2d");
    context.fillStyle = "#8a8378";
    context.fillRect(0, 0, size.width, size.height);
    if (bitmap) context.drawImage(bitmap, 0, 0, size.width, size.height);
    this.mask.getContext("2d").clearRect(0, 0, this.mask.width, this.mask.height);
    this.photo.setAttribute("aria-label", "The photo");
    this.legend.replaceChildren();
    this.facts.textContent = "";
    this.wait.hidden = false;
  }

  end(layers, milliseconds, look) {
    this.layers = layers;
    this.wait.hidden = true;
    if (this.photo.width !== layers.width || this.photo.height !== layers.height) {
      const copy = new OffscreenCanvas(this.photo.width, this.photo.height);
      copy.getContext("2d").drawImage(this.photo, 0, 0);
      [this.photo.width, this.photo.height] = [layers.width, layers.height];
      this.stage.style.setProperty("--ratio", layers.width / layers.height);
      this.photo.getContext("2d").drawImage(copy, 0, 0, layers.width, layers.height);
    }
    const found = shares(layers);
    const mean = layers.confidence.reduce((sum, value) => sum + value, 0) / layers.confidence.length / 255;
    this.facts.textContent =
      `${layers.full.width} × ${layers.full.height} pixels · mean confidence ${percent(mean)} · ${Math.round(milliseconds.predict ?? 0)} ms in ${this.model.backend}`;
    this.photo.setAttribute("aria-label", `The photo and its mask by ${this.model.name}: ${this.words(found)}`);
    this.list(found, look);
    this.draw(look);
    return this.words(found);
  }

  fail() {
    this.wait.hidden = true;
  }

  words(found) {
    return found.slice(0, 4).map(({ id, share }) => `${this.name(id)} ${percent(share)}`).join(", ");
  }

  name(id) {
    return this.model.classes[id]?.name ?? `class ${id}`;
  }

  list(found, look) {
    const entries = found.map(({ id, share }) => {
      const [item, button, swatch, name, value, bar] = ["li", "button", "i", "span", "b", "em"].map((tag) => document.createElement(tag));
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.title = "Show this class alone";
      swatch.style.backgroundColor = this.model.classes[id]?.color ?? "#808080";
      name.textContent = this.name(id);
      value.textContent = percent(share);
      bar.style.setProperty("--share", `${100 * share}%`);
      bar.style.setProperty("--color", this.model.classes[id]?.color ?? "#808080");
      button.append(swatch, name, value, bar);
      button.addEventListener("click", () => {
        this.only = this.only === id ? null : id;
        for (const other of this.legend.querySelectorAll("button")) {
          other.setAttribute("aria-pressed", String(other === button && this.only === id));
        }
        this.draw(look);
      });
      item.append(button);
      return item;
    });
    this.legend.replaceChildren(...entries);
  }

  draw(look) {
    if (this.layers) paint(this.mask, this.layers, this.colors, { ...look, only: this.only });
  }

  slide(at) {
    this.stage.style.setProperty("--at", `${100 * at}%`);
    this.slider.value = Math.round(1000 * at);
    this.slider.setAttribute("aria-valuetext", `${Math.round(100 * at)} % photo`);
  }

  point(event) {
    if (!this.layers) return;
    const box = this.stage.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const { width, height, ids, confidence } = this.layers;
    if (x < 0 || y < 0 || x >= 1 || y >= 1) {
      this.tag.hidden = true;
      return;
    }
    const i = Math.floor(y * height) * width + Math.floor(x * width);
    const swatch = document.createElement("i");
    swatch.style.backgroundColor = this.model.classes[ids[i]]?.color ?? "#808080";
    const text = document.createElement("span");
    text.textContent = `${this.name(ids[i])} · ${Math.round((100 * confidence[i]) / 255)} % sure`;
    this.tag.replaceChildren(swatch, text);
    this.tag.hidden = false;
    const left = Math.min(x * box.width + 14, box.width - this.tag.offsetWidth - 4);
    const top = y * box.height > 44 ? y * box.height - 40 : y * box.height + 18;
    this.tag.style.transform = `translate(${Math.max(4, left)}px, ${top}px)`;
  }
}
