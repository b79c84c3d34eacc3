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
    const there = new Map(this.pins.map((pin) => [pin.one.id, pin]));
    this.pins = issues.map((one) => there.get(one.id) ?? { one, button: this.make(one) });
    const buttons = this.pins.map(({ button }) => button);
    if (buttons.length !== this.host.children.length || buttons.some((one, index) => one !== this.host.children[index])) this.host.replaceChildren(...buttons);
    this.place();
  }

  make(one) {
    const says = one.comments[0]?.text ?? "";
    return el("button.pin", { type: "button", "aria-label": `Issue at ${one.x}, ${one.y}: ${says}`, title: says, onclick: () => this.onChoose(one) }, icon("chat", 14));
  }

  place() {
    if (!this.view) return;
    for (const { one, button } of this.pins) {
      const [x, y] = this.view.toScreen(one.x + 0.5, one.y + 0.5);
      button.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
    }
  }
}
