// What was drawn on one image, on its way: first into the journal, then to the server, one operation at a time, in order.
//
// `revision` is the one that the label on the screen stands on once the queue is empty. An operation's base is the revision
// its author saw; that of the next is the answer to the one before. Nothing leaves the journal unless the server has it.

import * as api from "./api.js";
import { deflateIds, toBase64 } from "./codec.js";
import { describe, place, someTiles } from "./loading.js";
import { joined, moved, othersTiles } from "./merging.js";
import { state } from "./state.js";

const WAITS = [250, 500, 1000, 2000, 4000, 5000]; // ms before it is tried again
const PATIENCE = 60_000; // ms for an answer

export class Lane {
  constructor(sync, sample) {
    Object.assign(this, { sync, sample, queue: [], drawn: 0, revision: null, host: null, state: "saved", says: "", at: 0 });
    this.writing = Promise.resolve(); // journal writes, one after the other
    this.isBusy = false;
    this.isPaused = false;
    this.failures = 0;
    this.timer = 0;
  }

  // Operations that the server does not have: in the queue, and on their way into the journal.
  get waiting() {
    return this.queue.length + this.drawn;
  }

  // Keep and send what was drawn; `operation`: {sample, image, tiles: [{index, row, col, ids}], annotations, tool, ms}.
  push(operation) {
    this.drawn += 1;
    this.tell(["saved", "conflict"].includes(this.state) ? "saving" : this.state);
    return this.write(async () => {
      try {
        const tiles = [];
        for (const { index, row, col, ids } of operation.tiles) tiles.push({ index, row, col, data: await deflateIds(ids) });
        const whole = { ...operation, where: this.sync.where, base: this.queue.length ? null : this.revision, tiles };
        this.queue.push(...(await this.sync.keep([whole])));
      } finally {
        this.drawn -= 1;
      }
      this.pump();
    });
  }

  write(work) {
    const done = this.writing.then(work);
    this.writing = done.catch((error) => {
      reportError(error);
      this.sync.noticed(`What was drawn could not be kept: ${error.message}. Draw nothing more, and reload the page.`);
    });
    return done;
  }

  // Send what waits; ends when all is sent or something is in the way.
  async pump() {
    if (this.isBusy || this.isPaused) return;
    this.isBusy = true;
    clearTimeout(this.timer);
    try {
      while (this.queue.length && !this.isPaused) {
        const operation = this.queue[0];
        let answer;
        try {
          answer = await this.send(operation);
        } catch (error) {
          if (!(error instanceof api.ApiError)) throw error;
          if (error.status !== 412) {
            if (await this.hindered(operation, error)) return;
            continue;
          }
          await this.conflict(operation, error.problem);
          continue;
        }
        this.failures = 0;
        if (!["saving", "conflict"].includes(this.state)) this.tell("saving");
        await this.accepted(operation, answer);
      }
      if (this.waiting === 0 && this.state !== "conflict") this.tell("saved");
    } catch (error) {
      this.later("unsynced", String(error.message ?? error));
      reportError(error);
    } finally {
      this.isBusy = false;
    }
  }

  // Send nothing until `pump` is allowed again; resolves when nothing is on its way.
  async pause() {
    this.isPaused = true;
    while (this.isBusy) await new Promise((resolve) => { setTimeout(resolve, 5); });
  }

  goOn() {
    this.isPaused = false;
    return this.pump();
  }

  async send(operation) {
    if (operation.isLeft) await this.refuseOther(operation);
    operation.base ??= this.revision ?? (await describe(this.sync.project, this.sample)).revision;
    const tiles = operation.tiles.map(({ row, col, data }) => ({ row, col, data: toBase64(data) }));
    const { client, seq, base, annotations, tool, ms } = operation;
    const body = { client_id: client, seq, base_revision: base, tiles, annotations, tool, ms };
    return api.send("POST", place(this.sync.project, this.sample, "ops"), body, { signal: AbortSignal.timeout(PATIENCE) });
  }

  // What a killed tab left is for the image that it was drawn on, not for another one that has its number today.
  async refuseOther(operation) {
    const told = await api.get(place(this.sync.project, this.sample));
    if (told.sha256 !== operation.image) throw new api.ApiError(422, { type: "urn:terrazzo:other-image", title: "It was drawn on another image." });
    operation.isLeft = false;
  }

  async accepted(operation, { revision, is_merged, is_replay }) {
    if (is_merged || (is_replay && revision !== operation.base + 1)) {
      await this.merged(operation, revision);
      return;
    }
    await this.write(async () => {
      await this.sync.journal.settle(operation, this.queue[1], revision);
      this.queue.shift();
      if (this.queue.length) this.queue[0].base ??= revision;
      this.revision = revision;
    });
    this.at = Date.now();
  }

  // Others drew elsewhere since; what waits is put on top of both, or sent as a branch where it touches what they did.
  async merged(operation, revision) {
    const { project, journal } = this.sync;
    const [base, now] = await Promise.all([describe(project, this.sample, operation.base), describe(project, this.sample, revision)]);
    const others = othersTiles(base, now, operation.tiles.map(({ index }) => index));
    const tiles = this.host ? await someTiles(this.host.label, project, this.sample, now, others) : new Map();
    await this.still();
    const things = new Set(state.categories.filter((one) => one.has_instances).map((one) => one.id));
    const rest = this.queue.slice(1), on = moved(operation, rest, base, now, { others, things });
    if (on === null) {
      await this.squash(base);
      return;
    }
    const last = on.findLast((one) => one.annotations !== null);
    this.host?.adopt(tiles, last?.annotations ?? now.annotations);
    this.revision = revision;
    await this.write(async () => {
      if (on.length) on[0] = { ...on[0], base: revision };
      this.queue = [...(await journal.append(on, [operation, ...rest])), ...this.queue.slice(1 + rest.length)];
    });
  }

  // Others drew in the same place: theirs stands, mine is a branch of the history; all of mine in one.
  async conflict(operation, { branch, current }) {
    const { project, journal } = this.sync;
    this.host?.hold("Somebody else drew in the same place; their label is being fetched.");
    await this.still();
    if (this.queue.length > 1) {
      await this.squash(await describe(project, this.sample, operation.base));
      return;
    }
    await this.host?.reload();
    await this.write(() => journal.forget([operation]));
    this.queue = [];
    this.revision = this.host?.revision ?? current;
    this.branch = branch;
    this.host?.hold(null);
    this.tell("conflict", `Somebody else drew in the same place. Theirs stands; yours is kept as revision ${branch} in the history.`);
    this.sync.noticed(this.says);
  }

  // Let all that waits be one operation, on the revision that was seen when the first of it was drawn.
  async squash(base) {
    await this.write(async () => {
      const old = [...this.queue];
      this.queue = await this.sync.journal.append([joined(old, base)], old);
    });
  }

  // Until no stroke is open and all that was drawn is in the queue.
  async still() {
    do {
      await this.host?.idle();
      await this.writing;
    } while (this.drawn > 0 || this.host?.isDrawing);
  }

  // What an error other than a conflict means; true: wait, something is in the way.
  async hindered(operation, error) {
    const { status } = error;
    const isOurs = error.problem.type?.startsWith("urn:terrazzo:"); // not a proxy's word, nor that of a server that is another one
    if (isOurs && ([400, 413, 422].includes(status) || (status === 404 && operation.isLeft))) {
      await this.setAside(error);
      return false;
    }
    if (status === 507) this.later("read-only", "The server's disk is full. What you drew is kept in this browser.", 5000);
    else if (status === 423 || status === 409 || status === 403) this.later("read-only", error.title, 5000);
    else if (status === 401) this.later("unsynced", "Sign in again, and what you drew is sent.", 5000);
    else if (status === 0) this.later("offline", "The server does not answer. What you draw is kept in this browser, and sent when it does.");
    else this.later("unsynced", error.message);
    return true;
  }

  // The server will never take this: keep it in the browser, out of the way, with all that was drawn on top of it.
  async setAside(error) {
    this.host?.hold("The server refused what was drawn; the label is being fetched again.");
    await this.still();
    const refused = this.queue;
    await this.write(() => this.sync.journal.setAside(refused, error.message));
    this.queue = [];
    await this.host?.reload();
    this.revision = this.host?.revision ?? null;
    this.host?.hold(null);
    this.tell("conflict", `The server refused ${refused.length === 1 ? "a stroke" : `${refused.length} strokes`}: ${error.title} Kept aside in this browser.`);
    this.sync.noticed(this.says);
  }

  // Whoever drew has left the image, or was told: a conflict that is over is not shown for ever.
  leave() {
    this.host = null;
    if (this.state === "conflict" && this.waiting === 0) this.tell("saved");
  }

  later(state, says, wait = WAITS[Math.min(this.failures, WAITS.length - 1)]) {
    this.failures += 1;
    this.tell(state, says);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.pump(), wait);
  }

  // Somebody else wrote: let their tiles be seen, unless something of mine is on its way, which will tell.
  async refresh() {
    if (!this.host || this.waiting > 0 || this.isBusy || this.revision === null) return;
    const { project } = this.sync, from = this.revision;
    const now = await describe(project, this.sample);
    if (now.revision === from) return;
    const base = await describe(project, this.sample, from);
    const tiles = await someTiles(this.host.label, project, this.sample, now, othersTiles(base, now, []));
    await this.host?.idle();
    if (!this.host || this.waiting > 0 || this.revision !== from) return;
    this.host.adopt(tiles, now.annotations);
    this.revision = now.revision;
  }

  tell(state, says = "") {
    Object.assign(this, { state, says });
    this.host?.setReadOnly(state === "read-only" ? says : null);
    this.sync.told();
  }
}
