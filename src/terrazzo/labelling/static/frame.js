// The editor's frame: bars, rail, panels and filmstrip around the stage, where editor.js draws. It opens one image after
// another and says in the top bar how what was drawn is kept.
//
// What it asks of the editor: openEditor(stage, {project: name, sample, client}) -> editor (or a promise of it) with
//   tools      [Tool] in the order of the rail; bindings.js knows their keys
//   select(n)  use the tool called n (and state.tool is n)
//   label      Label: width, height, ids, annotations, category, counts
//   undo       {undo(), redo(), canUndo, canRedo}
//   sync       {flush() -> promise: everything is at the server}
//   view       {fit(), actual(), zoomAt(sx, sy, factor), zoomTo({x0, y0, x1, y1}), toScreen(x, y)}
//   reload()   take the label from the server anew: another page drew, or an old revision stands again
//   close()    let go; what is not at the server yet stays in the journal
// and of state: it sets tool, saved, read_only (a label that cannot be read), zoom, cursor, drawn, pixels; see state.js.

import * as api from "./api.js";
import { bindEditor, bindTools } from "./bindings.js";
import { bottombar, isFilmShown, keepFilm } from "./bottombar.js";
import { Crosshair } from "./crosshair.js";
import { Decisions } from "./deciding.js";
import { el, tell, toast } from "./elements.js";
import { filmstrip } from "./filmstrip.js";
import { isTyping } from "./keys.js";
import { Listing, filterOf, keepFilter } from "./listing.js";
import { objectActions } from "./objects.js";
import { classesPanel } from "./panels/classes.js";
import { displayPanel } from "./panels/display.js";
import { historyPanel } from "./panels/history.js";
import { issuesPanel } from "./panels/issues.js";
import { objectsPanel } from "./panels/objects.js";
import { offerPanel } from "./panels/offer.js";
import { openPicker } from "./picker.js";
import { Pins } from "./pins.js";
import { know } from "./project.js";
import { optionStrip, rail } from "./rail.js";
import { go } from "./routes.js";
import { Session } from "./session.js";
import { openSheet } from "./sheet.js";
import { sidebar } from "./sidebar.js";
import { change, state, watch } from "./state.js";
import { topbar } from "./topbar.js";

export const name = "frame";

export async function open(root, project, id) {
  know(await api.get(api.at(project)));
  if (!state.categories.some((one) => one.id === state.category)) change({ category: state.categories[0]?.id ?? 0, previous: 0 });
  const frame = new Frame(root, project);
  try {
    await frame.go(project, id);
  } catch (error) {
    await frame.close();
    throw error;
  }
  return frame;
}

class Frame {
  constructor(root, project) {
    this.project = project;
    this.session = null;
    this.turn = 0;
    this.closers = [];
    this.timers = new Map();
    this.listing = this.listed(filterOf(project));
    this.decisions = new Decisions(project, () => this.listing, {
      open: (id, why) => {
        go(project, id);
        if (why) toast(why);
      },
      changed: (id) => this.film.update(this.listing.indexOf(id)),
    });
    this.build(root);
    this.follow();
  }

  // -- what is seen --------------------------------------------------------------------------------------------------------

  build(root) {
    const actions = this.actions = this.makeActions();
    this.top = topbar(this.project, actions);
    this.stage = el("div.stage", { tabindex: 0, role: "application", "aria-label": "Image", "aria-roledescription": "drawing area" });
    this.pinHost = el("div.pins");
    this.notice = el("div.notice", { role: "status", hidden: true });
    this.centre = el("div.centre", {}, this.stage, this.pinHost, this.notice);
    this.crosshair = new Crosshair(this.centre, this.stage);
    this.pins = new Pins(this.pinHost, (one) => { this.side.choose("issues"); this.issues.focus(one.id); });
    this.issues = issuesPanel(this.project, { place: () => this.placeIssue(), show: ({ x, y }) => state.editor?.view.centre(x, y), pins: (issues) => this.pins.set(issues) });
    this.side = sidebar([
      { name: "classes", title: "Classes", icon: "tags", panel: classesPanel() },
      { name: "objects", title: "Objects", icon: "shapes", panel: objectsPanel(objectActions(actions)) },
      { name: "issues", title: "Issues", icon: "chat", panel: this.issues },
      { name: "history", title: "History", icon: "clock", panel: historyPanel(this.project, { restore: (revision) => this.restore(revision).catch(tell) }) },
      { name: "model", title: "Model", icon: "prelabel", panel: this.offers = offerPanel(this.project) },
      { name: "display", title: "Display", icon: "sliders", panel: displayPanel() },
    ]);
    actions.panels = this.side.names;
    actions.choose = (panel) => {
      this.side.choose(panel);
      document.getElementById(`tab-${panel}`)?.focus();
    };
    this.film = filmstrip(this.project, this.listing);
    this.bottom = bottombar({ view: { fit: () => state.editor?.view.fit() } }, { toggleFilm: () => this.showFilm(this.film.element.hidden) });
    this.rail = null;
    this.options = null;
    this.element = el("main.editor", { id: "main" }, this.top.element, el("div.options"), el("div.rail"), this.centre, this.side.element, this.film.element, this.bottom.element);
    this.showFilm(isFilmShown());
    root.replaceChildren(this.element);
    this.element.addEventListener("click", (event) => {
      // after the mouse, keys go to the drawing again, not to the button that was pressed
      if (event.detail > 0 && !isTyping(event.target) && !event.target.closest("input, select, dialog, .menu, summary")) this.stage.focus({ preventScroll: true });
    });
    this.closers.push(bindEditor(actions), watch(["sample", "read_only"], () => this.showNotice()),
      watch(["sample"], () => this.top.showPosition()),
      watch(["categories"], () => {
        if (state.categories.length && !state.categories.some((one) => one.id === state.category)) change({ category: state.categories[0].id, previous: 0 });
      }));
  }

  makeActions() {
    const { decisions } = this;
    return {
      submit: () => decisions.submit(), skip: () => decisions.skip(), accept: () => decisions.accept(), reject: () => decisions.reject(),
      next: () => decisions.walk(1).catch(tell), previous: () => decisions.walk(-1).catch(tell),
      undo: () => { if (!state.read_only) state.editor?.undo.undo(); }, redo: () => { if (!state.read_only) state.editor?.undo.redo(); },
      flush: () => state.editor?.sync.flush().then(() => toast("Everything is at the server."), tell),
      pick: () => openPicker(this.project, state.selection && !state.read_only ? { title: "Class of the selected object", onPick: (category) => objectActions(this.actions).become(category) } : {}),
      zoomTo: () => objectActions(this.actions).zoomTo(),
      help: () => openSheet(),
      badge: () => (state.read_only ? this.session?.takeOver().catch(tell) : this.actions.flush()),
      filter: (patch) => this.filter(patch),
      position: () => ({ index: state.sample ? this.listing.indexOf(state.sample.id) : -1, total: this.listing.total, filter: this.listing.filter }),
      panels: [], choose() {},
    };
  }

  showFilm(isShown) {
    this.film.element.hidden = !isShown;
    this.element.classList.toggle("has-film", isShown);
    document.getElementById("film-toggle")?.setAttribute("aria-pressed", String(isShown));
    keepFilm(isShown);
    if (isShown) this.film.refresh();
  }

  showNotice() {
    const { sample, read_only: why } = state;
    const says = [];
    if (why) says.push(`Read-only: ${why.says}.`);
    if (sample?.status === "rejected" && sample.reason) says.push(`Rejected: ${sample.reason}`);
    if (this.failure) says.push(this.failure);
    else if (sample?.image_state === "missing") says.push("The image's file is gone.");
    else if (sample?.image_state === "changed") says.push("The image's file has changed since it was added.");
    this.notice.hidden = says.length === 0;
    this.notice.replaceChildren(el("span", {}, says.join(" ")));
    if (this.session?.lease.isRefused) this.notice.append(el("button", { type: "button", onclick: () => this.session.takeOver().catch(tell) }, "Take over …"));
  }

  showTools(editor) {
    const names = [...editor.tools].map((tool) => tool.name).join();
    if (this.rail?.names === names) return;
    for (const one of [this.rail, this.options]) one?.close();
    this.unbindTools?.forEach((end) => end());
    this.unbindTools = bindTools(editor);
    this.rail = Object.assign(rail(editor), { names });
    this.options = optionStrip(editor);
    this.element.querySelector(".rail").replaceWith(this.rail.element);
    this.element.querySelector(".options").replaceWith(this.options.element);
  }

  // -- one image after another ---------------------------------------------------------------------------------------------

  async go(_, id) {
    const mine = (this.turn += 1);
    await this.session?.close();
    if (mine !== this.turn) return;
    const session = this.session = new Session(this.project, Number(id), this.stage);
    this.pins.follow(null);
    this.stage.setAttribute("aria-busy", "true");
    this.failure = null;
    try {
      await session.open();
    } catch (error) {
      if (error.status === 401 || state.sample?.id !== session.id) throw error;
      if (mine !== this.turn) return;
      this.failure = error.message; // of this image alone: the others are a key away
    }
    if (mine !== this.turn) return;
    this.stage.removeAttribute("aria-busy");
    await this.arrived(session, mine);
  }

  async arrived(session, mine) {
    this.stage.setAttribute("aria-label", `Image ${state.sample.name}`);
    document.title = `${state.sample.name} · ${this.project} · terrazzo`;
    if (session.editor) {
      this.showTools(session.editor);
      this.pins.follow(session.editor.view, () => this.crosshair.place());
    }
    this.showNotice();
    this.stage.focus({ preventScroll: true });
    const index = await this.listing.find(session.id);
    if (mine !== this.turn) return;
    session.editor?.lookAhead([index + 1, index - 1].map((at) => this.listing.items[at]?.id).filter(Boolean));
    this.film.show();
    this.top.showPosition();
  }

  listed(filter) {
    return new Listing(this.project, filter, () => {
      this.film?.refresh();
      this.top?.showPosition();
    });
  }

  // Show other images: the one that is open stays, if it is among them.
  async filter(patch) {
    const filter = { ...this.listing.filter, ...patch };
    keepFilter(this.project, filter);
    await this.relist(filter);
    if (this.listing.total === 0) toast("No image fits this.", "warn", { seconds: 5 });
    else if ((await this.listing.find(state.sample?.id)) < 0) go(this.project, this.listing.items[0].id);
    this.film.refresh();
    this.top.showPosition();
  }

  // Fetch the list anew; whoever draws stays where they are.
  async relist(filter = this.listing.filter) {
    this.listing.close();
    this.listing = this.listed(filter);
    this.film.close();
    const film = filmstrip(this.project, this.listing);
    film.element.hidden = this.film.element.hidden;
    this.film.element.replaceWith(film.element);
    this.film = film;
    await this.listing.find(state.sample?.id);
    film.refresh();
    this.top.showPosition();
  }

  async restore(revision) {
    const { sample, editor } = state;
    await editor.sync.flush();
    const { revision: base } = await api.get(api.at(this.project, "samples", sample.id));
    await api.send("POST", api.at(this.project, "samples", sample.id, "restore"), { revision, base_revision: base });
    await editor.reload();
    toast(`Revision ${revision} stands again.`);
  }

  // The next click on the image says where; Enter takes the middle of what is seen.
  placeIssue() {
    const { editor } = state;
    if (!editor) return;
    const message = toast("Click the pixel; Enter takes the middle, Escape leaves it.", "plain", { seconds: 0 });
    this.centre.classList.add("is-placing");
    const end = () => {
      message.remove();
      this.centre.classList.remove("is-placing");
      this.centre.removeEventListener("pointerdown", choose, true);
      removeEventListener("keydown", key, true);
    };
    const at = (sx, sy) => {
      const [x, y] = editor.view.toImage(sx, sy).map(Math.floor);
      end();
      if (x >= 0 && y >= 0 && x < state.sample.width && y < state.sample.height) this.issues.raise(x, y).catch(tell);
    };
    const choose = (event) => {
      event.preventDefault();
      event.stopPropagation();
      const box = this.stage.getBoundingClientRect();
      at(event.clientX - box.left, event.clientY - box.top);
    };
    const key = (event) => {
      if (!["Escape", "Enter"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Enter") at(editor.view.width / 2, editor.view.height / 2);
      else end();
    };
    this.centre.addEventListener("pointerdown", choose, true);
    addEventListener("keydown", key, true);
    this.stage.focus({ preventScroll: true });
  }

  // -- what happens elsewhere ----------------------------------------------------------------------------------------------

  follow() {
    this.closers.push(api.listen(this.project, (event) => this.heard(event).catch(() => {})));
  }

  async heard(event) {
    const isHere = event.sample !== undefined && event.sample === state.sample?.id;
    if (["categories", "model", "release"].includes(event.kind) || event.kind === "reconnected") know(await api.get(api.at(this.project)));
    if (event.kind === "lease" && isHere) await this.session?.heard(event);
    if (event.kind === "issue" && isHere) await this.issues.load();
    if (event.kind === "samples") this.later("list", 500, () => this.relist());
    if (["samples", "model", "job"].includes(event.kind)) this.offers.heard(event);
    if (event.kind === "reconnected" && this.session?.lease.isMine) await this.session.lease.renew();
    if (["status", "revision", "lease", "issue"].includes(event.kind)) this.later(`sample ${event.sample}`, 150, () => this.look(event.sample));
    const isOthers = event.kind === "revision" && isHere && event.client !== state.client;
    if (isOthers || event.kind === "categories") await state.editor?.reload(); // merged classes change labels
  }

  // Do something soon, and once, however often it is asked for meanwhile.
  later(what, milliseconds, run) {
    clearTimeout(this.timers.get(what));
    this.timers.set(what, setTimeout(() => {
      this.timers.delete(what);
      Promise.resolve(run()).catch(() => {}); // a server that is away is told of by the badge
    }, milliseconds));
  }

  // Ask what is new of a sample, if it is shown.
  async look(id) {
    if (state.sample?.id !== id && this.listing.indexOf(id) < 0) return;
    const told = await api.get(`${api.at(this.project, "samples", id)}?client=${encodeURIComponent(state.client)}`);
    const index = this.listing.update(told);
    if (index >= 0) this.film.update(index);
    if (state.sample?.id === id) change({ sample: told });
  }

  async close() {
    this.turn += 1;
    for (const end of this.closers) end();
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.unbindTools?.forEach((end) => end());
    for (const part of [this.crosshair, this.top, this.side, this.film, this.bottom, this.rail, this.options]) part?.close();
    this.listing.close();
    await this.session?.close();
    change({ sample: null, editor: null, read_only: null });
  }
}
