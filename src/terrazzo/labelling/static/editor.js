// The editor of one image: its label, what is seen of it, the tools, and the way back. Tools write through `begin` /
// `commit`, or `stroke` in one; everything that was committed can be undone and is on its way to the server.

import { lookAhead, taken } from "./ahead.js";
import * as api from "./api.js";
import { inflateIds } from "./codec.js";
import { toast } from "./elements.js";
import { bind, first } from "./keys.js";
import { Label } from "./label.js";
import { describe, fill, place } from "./loading.js";
import { Painter } from "./painter.js";
import { Pointer } from "./pointer.js";
import { Pyramid } from "./pyramid.js";
import { change, changeOption, pick, state, watch } from "./state.js";
import { syncOf } from "./sync.js";
import { TOOLS } from "./tools.js";
import { historyOf } from "./undo.js";
import { View } from "./view.js";

const PAUSE = 60_000; // ms without a stroke that count as work at most

export async function openEditor(stage, { project, sample, client }) {
  const [told, about] = await Promise.all([
    sample.levels ? sample : api.get(place(project, sample.id)),
    state.project?.name === project ? state.project : api.get(api.at(project)),
  ]);
  const editor = new Editor(stage, project, told, await syncOf(about, client));
  try {
    await editor.open();
  } catch (error) {
    editor.close();
    throw error;
  }
  return editor;
}

class Editor {
  constructor(stage, project, sample, sync) {
    Object.assign(this, { stage, project, sample, sync, state, tools: TOOLS, active: TOOLS.find(({ name }) => name === "brush"), held: null, worked: performance.now() });
    this.lane = sync.lane(sample.id);
    this.label = new Label(sample.width, sample.height);
    this.view = new View(sample.width, sample.height);
    this.pyramid = new Pyramid(project, sample, () => this.painter.redraw());
    this.painter = new Painter(stage, this.label, this.view, this.pyramid);
    this.painter.above = (context) => this.active.draw?.(this, context);
    this.undo = historyOf(project, sample.id);
    this.undo.owner = this;
    this.undo.run = (step, isBack) => this.goBack(step, isBack);
    this.marks = { opened: performance.now(), whole: 0 }; // when it began, and when the whole image was there
    this.waiters = [];
    this.ends = [];
  }

  // -- opening and closing ----------------------------------------------------------------------------------------------

  async open() {
    this.sync.noticed = (text) => toast(text, "warn");
    this.follow();
    const ahead = await taken(this.project, this.sample.id);
    await Promise.all([this.pyramid.open(ahead?.preview), this.load(ahead)]);
    this.lane.host = this;
    this.pointer = new Pointer(this);
    this.hearKeys();
    this.select(TOOLS.some(({ name }) => name === state.tool) ? state.tool : "brush");
    this.told();
    for (const tool of TOOLS) tool.opened?.(this); // what a tool likes to have ready
    this.pyramid.complete().then(() => { this.marks.whole = performance.now(); }, (error) => toast(error.message, "warn"));
  }

  // Take the label from the server, and on top of it what the server does not take just now.
  async load(ahead = null) {
    await Promise.race([this.sent(), new Promise((resolve) => { setTimeout(resolve, 3000); })]);
    await this.lane.pause();
    try {
      const told = await describe(this.project, this.sample.id);
      if (told.problem) throw new api.ApiError(423, told.problem);
      await fill(this.label, this.project, this.sample.id, told, told.tree_hash === ahead?.hash ? ahead.tiles : null);
      this.lane.revision = told.revision;
      this.setReadOnly(told.is_read_only ? "this project can only be read" : null);
      await this.putLeft(told);
    } catch (error) {
      if (error.status === 0 || error.status === 401) throw error;
      this.isDamaged = true;
      this.painter.overlay.style.display = "none";
      this.setReadOnly(`the label cannot be read: ${error.problem?.found ?? error.message}`);
      toast(error.message, "bad");
    } finally {
      this.lane.goOn();
    }
    this.painter.isFilled = true;
    this.colourAll();
  }

  // Until what waits of this image was sent, or something is in the way.
  async sent() {
    while (this.lane.waiting > 0) {
      await this.lane.pump();
      if (!["saving", "saved", "conflict"].includes(this.lane.state)) return;
      await new Promise((resolve) => { setTimeout(resolve, 10); });
    }
  }

  async putLeft(told) {
    const left = this.lane.queue;
    if (left.length === 0) return;
    if (left[0].base !== told.revision && left[0].base !== null) {
      this.setReadOnly("what was drawn here before is not at the server yet");
      return;
    }
    for (const one of left) {
      for (const { index, data } of one.tiles) {
        const { width, height } = this.label.box(index);
        this.label.putTile(index, await inflateIds(data, width * height));
      }
      if (one.annotations) this.label.setAnnotations(one.annotations);
    }
  }

  follow() {
    const resize = () => {
      const { clientWidth, clientHeight } = this.stage;
      this.painter.resize(clientWidth, clientHeight, devicePixelRatio || 1);
    };
    const watcher = new ResizeObserver(resize);
    watcher.observe(this.stage);
    resize();
    const old = this.view.changed;
    this.view.changed = () => {
      old();
      if (this.view.scale !== state.zoom) change({ zoom: this.view.scale });
    };
    this.ends.push(
      () => watcher.disconnect(),
      watch(["view", "categories", "selection"], () => this.colourAll()),
      watch(["categories"], () => { this.label.things = new Set(state.categories.filter((one) => one.has_instances).map((one) => one.id)); }),
      watch(["category"], () => { if (this.categoryOf(this.label.current) !== state.category) this.label.current = 0; }),
      watch(["protect", "locked", "category"], () => {
        this.label.rules = { protect: state.protect, locked: new Set(state.locked), category: state.category };
        this.painter.moved();
      }),
      watch(["selection"], () => { if (this.label.things.has(this.categoryOf(state.selection))) this.label.current = state.selection; }),
    );
  }

  // Fetch what is likely looked at next.
  lookAhead(ids) {
    this.nearby = ids;
    lookAhead(this.project, ids);
    this.active.ahead?.(this);
  }

  hearKeys() {
    this.ends.push(
      first((event) => this.active.key?.(this, event) ?? false),
      bind("hold.erase", { code: "KeyE", title: "Hold to erase", group: "Drawing", hold: true, run: (isDown) => this.pointer.setErase(isDown) }),
      bind("object.new", { code: "Enter", title: "The next stroke is a new object", group: "Drawing", run: () => this.leaveObject() }),
      bind("size.smaller", { code: "BracketLeft", title: "Smaller, or finer", group: "Drawing", repeat: true, run: () => this.turn(-1) }),
      bind("size.larger", { code: "BracketRight", title: "Larger, or coarser", group: "Drawing", repeat: true, run: () => this.turn(1) }),
      bind("hold.pan", { code: "Space", title: "Hold to pan", group: "View", hold: true, run: (isDown) => this.pointer.setPan(isDown) }),
    );
  }

  // What the wheel does, by a key.
  turn(turn) {
    const { width, height } = this.view, middle = { sx: width / 2, sy: height / 2, x: 0, y: 0, ix: 0, iy: 0, points: [] };
    if (this.active.wheel) this.active.wheelTurn(this, { ...(this.pointer.last ?? middle), turn });
  }

  // Begin another object of the category with the next stroke.
  leaveObject() {
    if (!this.label.things.has(state.category)) return;
    this.label.current = 0;
    change({ selection: 0 });
    toast(`The next stroke is a new ${state.categories.find((one) => one.id === state.category).name}.`);
  }

  async close() {
    this.active.cancel?.(this);
    this.active.deactivate?.(this);
    if (this.lane.host === this) this.lane.leave();
    if (this.undo.owner === this) this.undo.leave();
    for (const end of this.ends) end();
    this.pointer?.close();
    this.painter.close();
    this.pyramid.close();
    change({ cursor: null, selection: 0 });
  }

  // -- drawing ----------------------------------------------------------------------------------------------------------

  // The object id to draw with, and the change is open; null where one may not draw, with a word why. erase: the id is 0.
  begin(tool, { erase = false, source = "manual", fresh = false, isFree = false } = {}) {
    const why = this.refusal(erase || isFree);
    if (why) {
      toast(why, "warn", { seconds: 4 });
      return null;
    }
    this.label.begin(tool, { isFree });
    if (erase || isFree) return 0;
    const id = this.label.objectFor(state.category, source, { fresh });
    this.painter.colour([id], state.categories, state.selection);
    return id;
  }

  refusal(isWithoutCategory) {
    if (this.isDamaged || state.read_only) return `Read-only: ${state.read_only?.says ?? "the label cannot be read"}`;
    if (this.held) return this.held;
    if (this.label.open) return "Something else is being drawn.";
    if (isWithoutCategory) return null;
    const category = state.categories.find((one) => one.id === state.category);
    if (!category) return state.categories.length ? "Choose a class to draw first." : "This project has no classes yet: add one to draw.";
    return state.locked.has(category.id) ? `${category.name} is locked.` : null;
  }

  // End what `begin` began: it can be undone, and is on its way. Returns the change, or null where nothing differs.
  commit() {
    const made = this.label.end();
    this.rest();
    if (made === null) return null;
    this.undo.push(made);
    this.post(made.tiles.map(({ index }) => index), made.annotations !== null, made.tool);
    this.painter.dirty(made.bounds);
    return made;
  }

  // Forget what `begin` began.
  abort() {
    const bounds = this.label.cancel();
    this.rest();
    this.painter.dirty(bounds);
  }

  // One stroke in one go: fn(label, id) draws.
  stroke(tool, fn, options = {}) {
    const id = this.begin(tool, options);
    if (id === null) return null;
    try {
      fn(this.label, id);
    } catch (error) {
      this.abort();
      throw error;
    }
    return this.commit();
  }

  goBack(step, isBack) {
    if (this.refusal(true)) return false;
    const { tiles, annotations } = this.label.apply(step, isBack);
    if (tiles.length || annotations) this.post(tiles, annotations, isBack ? "undo" : "redo");
    if (annotations) this.colourAll();
    else this.painter.dirty(step.bounds);
    return true;
  }

  // Keep and send tiles as they are now.
  post(tiles, isAnnotated, tool) {
    const now = performance.now(), ms = Math.round(Math.min(PAUSE, now - this.worked)), { columns } = this.label;
    this.worked = now;
    this.lane.push({
      sample: this.sample.id, image: this.sample.sha256, tool, ms, annotations: isAnnotated ? this.label.listed() : null,
      tiles: tiles.map((index) => ({ index, row: Math.floor(index / columns), col: index % columns, ids: this.label.tile(index) })),
    });
    this.told();
  }

  // Let the page count anew.
  told() {
    const { label } = this, of = new Map(), objects = new Map();
    if (label.counts[0] > 0) of.set(0, label.counts[0]);
    for (const { id, category_id: category } of label.annotations.values()) {
      objects.set(id, label.counts[id]);
      of.set(category, (of.get(category) ?? 0) + label.counts[id]);
    }
    const isGone = state.selection !== 0 && !label.annotations.has(state.selection);
    change({ drawn: state.drawn + 1, pixels: { of, objects, total: label.ids.length }, ...(isGone ? { selection: 0 } : {}) });
  }

  // -- what Lane asks of whoever shows the label ----------------------------------------------------------------------------

  get isDrawing() {
    return this.label.open !== null;
  }

  // Resolves when no stroke is open.
  idle() {
    return this.isDrawing ? new Promise((resolve) => { this.waiters.push(resolve); }) : Promise.resolve();
  }

  rest() {
    for (const resolve of this.waiters.splice(0)) resolve();
  }

  // Others changed some tiles and objects.
  adopt(tiles, annotations) {
    for (const [index, pixels] of tiles) this.label.putTile(index, pixels);
    this.label.setAnnotations(annotations);
    this.colourAll();
    this.told();
  }

  // Nothing may be drawn until hold(null).
  hold(why) {
    this.held = why;
  }

  // The label as the server has it now; what waits to be sent is not lost by it, but may be shown later.
  async reload() {
    if (this.lane.waiting > 0 && !this.held) return;
    if (!this.held && !this.isDamaged) {
      await this.lane.refresh();
      return;
    }
    const told = await describe(this.project, this.sample.id);
    if (told.problem) throw new api.ApiError(423, told.problem);
    await fill(this.label, this.project, this.sample.id, told);
    this.lane.revision = told.revision;
    if (this.isDamaged) {
      this.isDamaged = false;
      this.painter.overlay.style.display = "";
      this.setReadOnly(null);
    }
    this.colourAll();
    this.told();
  }

  get revision() {
    return this.lane.revision;
  }

  // -- for tools --------------------------------------------------------------------------------------------------------------

  select(name) {
    const tool = TOOLS.find((one) => one.name === name);
    if (!tool) return;
    if (tool !== this.active) {
      this.active.cancel?.(this);
      this.active.deactivate?.(this);
    }
    this.active = tool;
    tool.activate?.(this);
    this.pointer?.cursor();
    change({ tool: name });
    this.painter.moved();
  }

  option(tool, name) {
    return state.options[tool]?.[name] ?? TOOLS.find((one) => one.name === tool)?.options.find((one) => one.name === name)?.value;
  }

  setOption(tool, name, value) {
    changeOption(tool, name, value);
  }

  // The colour that is drawn with.
  get colour() {
    return state.categories.find((one) => one.id === state.category)?.color ?? "#ffffff";
  }

  categoryOf(id) {
    return this.label.annotations.get(id)?.category_id ?? 0;
  }

  // The object at a pixel; 0: none.
  at(ix, iy) {
    const { label } = this;
    return ix < 0 || iy < 0 || ix >= label.width || iy >= label.height ? 0 : label.ids[iy * label.width + ix];
  }

  // Let an object go, with all its pixels; one of a locked class stays.
  remove(id) {
    if (state.locked.has(this.categoryOf(id))) {
      toast(`${state.categories.find((one) => one.id === this.categoryOf(id))?.name} is locked.`, "warn", { seconds: 4 });
      return null;
    }
    return this.stroke("select", () => this.label.swap(id, 0), { isFree: true });
  }

  // The eyedropper: what lies here is drawn next.
  pick(ix, iy) {
    const category = this.categoryOf(this.at(ix, iy));
    if (category) pick(category);
  }

  colourAll() {
    this.painter.setLook(state.view, state.categories, state.selection);
  }

  setReadOnly(says) {
    if (this.isDamaged && !says) return;
    if (says) change({ read_only: { says, by: null, of: "label" } });
    else if (state.read_only?.of === "label") change({ read_only: null });
  }
}
