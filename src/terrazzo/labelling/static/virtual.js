// A long list of which only what is seen is in the page: ten thousand rows cost as much as twenty.
// Down (the samples) or sideways (the filmstrip); one stop for Tab, and arrows, Home and End within.

export class VirtualList {
  // host: the element that scrolls, a list. size: of one item along the axis, CSS pixels. render(index) -> the link or
  // button that is an item; it is wrapped in one of the list.
  constructor(host, { size, axis = "y", over = 6, render, onRange = () => {} }) {
    Object.assign(this, { host, size, axis, over, render, onRange });
    this.count = 0;
    this.active = 0;
    this.shown = new Map(); // index -> element
    this.canvas = document.createElement("div");
    this.canvas.className = "virtual";
    this.canvas.setAttribute("role", "presentation");
    host.append(this.canvas);
    host.addEventListener("scroll", () => this.later(), { passive: true });
    host.addEventListener("keydown", (event) => this.key(event));
    this.watcher = new ResizeObserver(() => this.later());
    this.watcher.observe(host);
  }

  set(count) {
    this.count = count;
    this.active = Math.max(0, Math.min(this.active, count - 1));
    this.canvas.style[this.axis === "y" ? "height" : "width"] = `${count * this.size}px`;
    this.refresh();
  }

  // Draw everything that is seen anew; the focus stays where it was.
  refresh() {
    const focused = [...this.shown].find(([, element]) => element.contains(document.activeElement))?.[0];
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.draw();
    if (focused !== undefined) this.shown.get(focused)?.firstElementChild.focus({ preventScroll: true });
  }

  // Draw one item anew, if it is seen.
  update(index) {
    const old = this.shown.get(index);
    if (!old) return;
    const hadFocus = old.contains(document.activeElement);
    const one = this.make(index);
    old.replaceWith(one);
    if (hadFocus) one.firstElementChild.focus({ preventScroll: true });
  }

  show(index, { centre = false } = {}) {
    const [from, room] = this.extent();
    const start = index * this.size;
    let to = from;
    if (centre) to = start - (room - this.size) / 2;
    else if (start < from) to = start;
    else if (start + this.size > from + room) to = start + this.size - room;
    if (to !== from) this.host[this.axis === "y" ? "scrollTop" : "scrollLeft"] = to;
    this.draw();
  }

  activate(index, { focus = true } = {}) {
    if (this.count === 0) return;
    const before = this.active;
    this.active = Math.max(0, Math.min(index, this.count - 1));
    this.show(this.active);
    this.shown.get(before)?.firstElementChild.setAttribute("tabindex", "-1");
    const one = this.shown.get(this.active)?.firstElementChild;
    one?.setAttribute("tabindex", "0");
    if (focus) one?.focus({ preventScroll: true });
  }

  close() {
    this.watcher.disconnect();
    cancelAnimationFrame(this.frame);
  }

  later() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  extent() {
    return this.axis === "y" ? [this.host.scrollTop, this.host.clientHeight] : [this.host.scrollLeft, this.host.clientWidth];
  }

  draw() {
    const [from, room] = this.extent();
    const first = Math.max(0, Math.floor(from / this.size) - this.over);
    const last = Math.min(this.count, Math.ceil((from + room) / this.size) + this.over);
    for (const [index, element] of this.shown) {
      if ((index < first || index >= last) && !element.contains(document.activeElement)) {
        element.remove();
        this.shown.delete(index);
      }
    }
    for (let index = first; index < last; index += 1) if (!this.shown.has(index)) this.canvas.append(this.make(index));
    if (!this.shown.has(this.active)) [...this.shown.values()][0]?.firstElementChild.setAttribute("tabindex", "0"); // Tab always finds one
    this.onRange(first, last);
  }

  make(index) {
    const one = this.render(index);
    one.setAttribute("tabindex", index === this.active ? "0" : "-1");
    one.addEventListener("focus", () => { this.active = index; });
    const item = document.createElement("div");
    item.className = "virtual-item";
    item.setAttribute("role", "listitem");
    item.setAttribute("aria-setsize", this.count);
    item.setAttribute("aria-posinset", index + 1);
    item.style[this.axis === "y" ? "top" : "left"] = `${index * this.size}px`;
    item.append(one);
    this.shown.set(index, item);
    return item;
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const [back, on] = this.axis === "y" ? ["ArrowUp", "ArrowDown"] : ["ArrowLeft", "ArrowRight"];
    const here = [...this.shown].find(([, item]) => item.firstElementChild === document.activeElement)?.[0];
    if (here === undefined) return;
    const to = { [back]: here - 1, [on]: here + 1, Home: 0, End: this.count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    this.activate(to);
  }
}
