// A line at the foot of the stage in which a tool says what it does just now: an engine, a count, a progress. It is read
// out to those who do not look.

import { el } from "./elements.js";

export class Note {
  constructor() {
    this.element = el("output.tool-note", { role: "status", "aria-live": "polite" });
    Object.assign(this.element.style, {
      position: "absolute", left: "12px", bottom: "12px", zIndex: 3, padding: "4px 10px", borderRadius: "6px", pointerEvents: "none",
      background: "rgba(16, 18, 22, 0.82)", color: "#fff", font: "500 13px/1.4 system-ui, sans-serif",
    });
    this.element.hidden = true;
  }

  say(editor, text) {
    if (this.element.parentNode !== editor.stage) editor.stage.append(this.element);
    this.element.hidden = !text;
    if (this.element.textContent !== text) this.element.textContent = text;
  }

  close() {
    this.element.remove();
  }
}
