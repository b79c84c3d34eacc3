// The pointer for those who use no mouse: arrows move a crosshair over the image, P presses the tool down there and lets
// it go again. Every tool works with it, because it hears the same things.

import { el } from "./elements.js";
import { bind } from "./keys.js";
import { state } from "./state.js";

const STEP = 10; // screen pixels; with Shift, one pixel of the image

export class Crosshair {
  constructor(host, stage) {
    Object.assign(this, { x: 0, y: 0, isDown: false, isShown: false, editor: null });
    this.element = el("div.crosshair", { "aria-hidden": "true", hidden: true });
    host.append(this.element);
    const move = (dx, dy) => (event) => this.move(dx, dy, event.shiftKey);
    const on = (id, code, title, run, more = {}) => bind(id, { code, title, group: "Without a mouse", run, ...more });
    this.ends = [
      on("pen.left", "ArrowLeft", "Crosshair left; with ⇧ by one pixel", move(-1, 0), { also: ["Shift+ArrowLeft"], repeat: true }),
      on("pen.right", "ArrowRight", "Crosshair right", move(1, 0), { also: ["Shift+ArrowRight"], repeat: true }),
      on("pen.up", "ArrowUp", "Crosshair up", move(0, -1), { also: ["Shift+ArrowUp"], repeat: true }),
      on("pen.down", "ArrowDown", "Crosshair down", move(0, 1), { also: ["Shift+ArrowDown"], repeat: true }),
      on("pen.press", "KeyP", "Press the tool at the crosshair, and let go", () => this.press()),
    ];
    const hide = (event) => { if (event.isTrusted) this.show(false); };
    stage.addEventListener("pointermove", hide);
    stage.addEventListener("pointerdown", hide);
  }

  move(dx, dy, isFine) {
    const { editor } = state;
    if (!editor) return;
    if (!this.isShown || this.editor !== editor) this.begin(editor);
    const step = isFine ? 1 : Math.max(1, Math.round(STEP / editor.view.scale));
    this.x = Math.max(0, Math.min(editor.label.width - 1, this.x + dx * step));
    this.y = Math.max(0, Math.min(editor.label.height - 1, this.y + dy * step));
    this.keepInView(editor);
    const e = this.event(editor);
    if (this.isDown) editor.active.move?.(editor, e);
    else editor.active.hover?.(editor, e);
    this.told(editor, e);
  }

  press() {
    const { editor } = state;
    if (!editor) return;
    if (!this.isShown || this.editor !== editor) this.begin(editor);
    const e = this.event(editor);
    this.isDown = !this.isDown;
    this.element.classList.toggle("is-down", this.isDown);
    if (this.isDown) editor.active.down?.(editor, e);
    else editor.active.up?.(editor, e);
    this.told(editor, e);
  }

  // From the middle of what is seen, when an image is new or the mouse was used.
  begin(editor) {
    const { x0, y0, x1, y1 } = editor.view.seen;
    Object.assign(this, { editor, x: Math.floor((x0 + x1) / 2), y: Math.floor((y0 + y1) / 2), isDown: false });
    this.element.classList.remove("is-down");
    this.show(true);
  }

  // What tools hear of a pointer in the middle of this pixel.
  event(editor) {
    const [x, y] = [this.x + 0.5, this.y + 0.5];
    const [sx, sy] = editor.view.toScreen(x, y);
    return {
      x, y, ix: this.x, iy: this.y, sx, sy, points: [[x, y]], button: 0, buttons: this.isDown ? 1 : 0, shift: false, ctrl: false, alt: false,
      erase: editor.pointer.isErase, pressure: 0, at: performance.now(),
    };
  }

  told(editor, e) {
    editor.pointer.tellCursor(e);
    this.place();
  }

  keepInView({ view }) {
    const [sx, sy] = view.toScreen(this.x + 0.5, this.y + 0.5);
    const out = (at, room) => (at < 20 ? 20 - at : at > room - 20 ? room - 20 - at : 0);
    const [dx, dy] = [out(sx, view.width), out(sy, view.height)];
    if ((dx || dy) && !view.isFitted) view.pan(dx, dy);
  }

  show(isShown) {
    if (this.isDown && !isShown) this.press(); // the mouse takes over: what was begun is done
    this.isShown = isShown;
    this.element.hidden = !isShown;
    this.place();
  }

  place() {
    if (!this.isShown || !this.editor) return;
    const [sx, sy] = this.editor.view.toScreen(this.x + 0.5, this.y + 0.5);
    this.element.style.transform = `translate(${Math.round(sx)}px, ${Math.round(sy)}px)`;
  }

  close() {
    for (const end of this.ends) end();
  }
}
