// Mouse, pen and finger on the stage: what they do becomes calls of the tool, in pixels of the image; panning and zooming
// are done here. The wheel never scrolls the page.

import { change, state } from "./state.js";

export class Pointer {
  constructor(editor) {
    Object.assign(this, { editor, stage: editor.stage, panning: null, drawing: null, isPan: false, isErase: false, fingers: new Map(), last: null });
    this.ends = new AbortController();
    const on = (name, handler, options = {}) => this.stage.addEventListener(name, handler.bind(this), { signal: this.ends.signal, ...options });
    on("pointerdown", this.down);
    on("pointermove", this.move);
    on("pointerup", this.up);
    on("pointercancel", this.lost);
    on("pointerleave", this.leave);
    on("wheel", this.wheel, { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    on("dblclick", (event) => this.editor.active.double?.(this.editor, this.told(event)));
    this.stage.style.touchAction = "none";
  }

  // An event as tools get it.
  told(event) {
    const { editor } = this, box = this.stage.getBoundingClientRect();
    const at = (one) => [one.clientX - box.left, one.clientY - box.top];
    const [sx, sy] = at(event), [x, y] = editor.view.toImage(sx, sy);
    const coalesced = event.type === "pointermove" ? event.getCoalescedEvents?.() ?? [] : [];
    const points = coalesced.length ? coalesced.map((one) => editor.view.toImage(...at(one))) : [[x, y]];
    return {
      x, y, ix: Math.floor(x), iy: Math.floor(y), sx, sy, points, button: event.button, buttons: event.buttons, shift: event.shiftKey,
      ctrl: event.ctrlKey || event.metaKey, alt: event.altKey, erase: this.isErase, pressure: event.pointerType === "pen" ? event.pressure : 0,
      at: event.timeStamp,
    };
  }

  down(event) {
    if (event.target.closest("button, input, a, dialog")) return;
    this.stage.focus({ preventScroll: true });
    if (event.pointerType === "touch") {
      this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.fingers.size === 2) {
        this.stop();
        return;
      }
    }
    if (this.drawing !== null || this.panning !== null) return;
    this.stage.setPointerCapture(event.pointerId);
    if (event.button === 1 || this.isPan || (event.button === 0 && (event.ctrlKey || event.metaKey) && !this.editor.active.usesCtrl)) {
      event.preventDefault();
      this.panning = [event.clientX, event.clientY];
      this.cursor();
      return;
    }
    const e = this.told(event);
    if (event.altKey && event.button === 0) {
      this.editor.pick(e.ix, e.iy);
      return;
    }
    this.drawing = event.pointerId;
    this.editor.active.down?.(this.editor, e);
  }

  move(event) {
    if (this.fingers.has(event.pointerId) && this.fingers.size === 2) {
      this.pinch(event);
      return;
    }
    if (this.panning) {
      this.editor.view.pan(event.clientX - this.panning[0], event.clientY - this.panning[1]);
      this.panning = [event.clientX, event.clientY];
      return;
    }
    const e = this.told(event);
    this.last = e;
    if (this.drawing === event.pointerId) this.editor.active.move?.(this.editor, e);
    else this.editor.active.hover?.(this.editor, e);
    this.tellCursor(e);
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.panning) {
      this.panning = null;
      this.cursor();
    }
    if (this.drawing !== event.pointerId) return;
    this.drawing = null;
    this.editor.active.up?.(this.editor, this.told(event));
  }

  // The system took the pointer away: what was open is not meant.
  lost(event) {
    this.fingers.delete(event.pointerId);
    this.panning = null;
    if (this.drawing === event.pointerId) this.stop();
  }

  stop() {
    this.drawing = null;
    this.editor.active.cancel?.(this.editor);
  }

  leave() {
    if (this.drawing === null) change({ cursor: null });
  }

  wheel(event) {
    event.preventDefault();
    const box = this.stage.getBoundingClientRect(), turn = -Math.sign(event.deltaY || event.deltaX);
    const { editor } = this;
    if (turn === 0) return;
    if (editor.active.wheel && !event.ctrlKey && !event.metaKey) {
      editor.active.wheelTurn(editor, { ...this.told(event), turn });
      return;
    }
    const pixels = event.deltaMode === 1 ? 33 * event.deltaY : event.deltaY; // a pinch tells small steps, a wheel 100
    editor.view.zoomAt(event.clientX - box.left, event.clientY - box.top, Math.exp(-Math.max(-120, Math.min(120, pixels)) * (event.ctrlKey && Math.abs(pixels) < 40 ? 0.01 : 0.0022)));
    this.again();
  }

  pinch(event) {
    const [a, b] = [...this.fingers.values()];
    const before = { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, apart: Math.hypot(a[0] - b[0], a[1] - b[1]) };
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const [c, d] = [...this.fingers.values()];
    const x = (c[0] + d[0]) / 2, y = (c[1] + d[1]) / 2, box = this.stage.getBoundingClientRect();
    this.editor.view.pan(x - before.x, y - before.y);
    this.editor.view.zoomAt(x - box.left, y - box.top, Math.hypot(c[0] - d[0], c[1] - d[1]) / Math.max(1, before.apart));
  }

  // The view moved under a pointer that did not: what it points at is another place.
  again() {
    if (!this.last) return;
    const [x, y] = this.editor.view.toImage(this.last.sx, this.last.sy);
    this.last = { ...this.last, x, y, ix: Math.floor(x), iy: Math.floor(y), points: [[x, y]] };
    this.editor.active.hover?.(this.editor, this.last);
    this.tellCursor(this.last);
  }

  setErase(isDown) {
    this.isErase = isDown;
    if (this.last) this.last = { ...this.last, erase: isDown };
    if (this.last && this.drawing === null) this.editor.active.hover?.(this.editor, this.last);
  }

  setPan(isDown) {
    this.isPan = isDown;
    this.cursor();
  }

  cursor() {
    this.stage.style.cursor = this.panning ? "grabbing" : this.isPan ? "grab" : this.editor.active.cursor ?? "crosshair";
  }

  tellCursor(e) {
    const { label } = this.editor;
    if (e.ix < 0 || e.iy < 0 || e.ix >= label.width || e.iy >= label.height) {
      if (state.cursor !== null) change({ cursor: null });
      return;
    }
    const i = e.iy * label.width + e.ix, id = label.ids[i];
    const confidence = state.offer ? state.offer.confidence[i] / 255 : null;
    change({ cursor: { x: e.ix, y: e.iy, id, category: label.category[id], confidence } });
  }

  close() {
    this.ends.abort();
  }
}
