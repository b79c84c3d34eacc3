// The pins of open issues, over the stage; they stay on their pixels however the view moves.

import { el, icon } from "./elements.js";

export class Pins {
  constructor(host, onChoose) {
    Object.assign(this, { host, onChoose, pins: [], view: null });
  }

  // Follow an editor's view; null: none is open. also(): what else moves with it.
  follow(view, also = () => {}) {
    this.view = view;
    if (!view) return;
    const { changed } = view;
    view.changed = () => {
      changed();
      this.place();
      also();
    };
    this.place();
  }

  set(issues) {
    this.host.replaceChildren();
    this.pins = issues.map((one) => {
      const button = el("button.pin", { type: "button", "aria-label": `Issue at ${one.x}, ${one.y}: ${one.comments[0]?.text ?? ""}`, title: one.comments[0]?.text ?? "", onclick: () => this.onChoose(one) }, icon("chat", 14));
      this.host.append(button);
      return { one, button };
    });
    this.place();
  }

  place() {
    if (!this.view) return;
    for (const { one, button } of this.pins) {
      const [x, y] = this.view.toScreen(one.x + 0.5, one.y + 0.5);
      button.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
    }
  }
}
