// One image in the editor: who may draw on it, its label on the stage, and its way out.

import * as api from "./api.js";
import { ask } from "./dialogs.js";
import { el, toast } from "./elements.js";
import { Lease } from "./lease.js";
import { change, mayDraw, state } from "./state.js";

export class Session {
  constructor(project, sample, stage) {
    Object.assign(this, { project, id: sample, stage, editor: null, isClosed: false });
    this.lease = new Lease(project, sample, state.client, () => this.know());
  }

  async open() {
    const { openEditor } = await import("./editor.js");
    const sample = await api.get(`${api.at(this.project, "samples", this.id)}?client=${encodeURIComponent(state.client)}`);
    if (this.isClosed) return;
    change({ sample, cursor: null, pixels: null, selection: 0, read_only: mayDraw() ? null : { says: "you may look", by: null, of: "role" } });
    const holding = mayDraw() ? this.lease.take() : Promise.resolve(false);
    const editor = await openEditor(this.stage, { project: this.project, sample, client: state.client });
    if (this.isClosed) {
      await editor.close();
      return;
    }
    this.editor = editor;
    await holding.catch((error) => toast(`The lease on this image was not given: ${error.message}`, "warn"));
    this.know();
    change({ editor });
  }

  // Say why nobody draws here, if so: the label cannot be read, which the editor says; one may only look; or another
  // page has the lease.
  know() {
    if (this.isClosed || state.read_only?.of === "label") return;
    const { holder, isRefused } = this.lease;
    if (!mayDraw()) change({ read_only: { says: state.project?.is_read_only ? "this project can only be read" : "you may look", by: null, of: "role" } });
    else if (isRefused) change({ read_only: { says: this.isOwn ? "open in another tab" : `held by ${holder ?? "another page"}`, by: holder, of: "lease" } });
    else change({ read_only: null });
  }

  get isOwn() {
    return state.person.isSingleUser && this.lease.holder === state.person.name;
  }

  // Ask, and then draw here; whoever had it becomes a reader.
  async takeOver() {
    if (!this.lease.isRefused) return;
    const { holder } = this.lease;
    const told = await ask({
      title: this.isOwn ? "Draw here instead?" : `Take over from ${holder ?? "another page"}?`,
      fields: [el("p.soft", {}, `${this.isOwn ? "Your other tab" : "Their page"} can then only look at this image. What was drawn there so far is kept; what is not at the server yet becomes a branch of the history if it touches the same place.`)],
      confirm: "Take over",
      read: () => this.lease.take({ takeOver: true }),
    });
    if (told) await this.editor?.reload();
  }

  // Another page said something about this image's lease.
  async heard({ client, author }) {
    if (client === state.client) return;
    if (client && this.lease.isMine) {
      this.lease.lost(author ?? null);
      toast(`${author === state.person.name ? "Another tab" : (author ?? "Another page")} took this image over; you can look on.`, "warn");
    } else if (!client && this.lease.isRefused && mayDraw()) {
      if (await this.lease.take()) {
        await this.editor?.reload();
        toast("The image is free again: you can draw.");
      }
    }
  }

  async close() {
    if (this.isClosed) return;
    this.isClosed = true;
    if (state.editor === this.editor) change({ editor: null });
    await this.editor?.close();
    this.lease.close(); // what comes next need not wait for it
  }
}
