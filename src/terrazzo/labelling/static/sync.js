// All that was drawn in a project and is not at the server yet. It goes on while one looks at other images; what a tab
// that was killed left in the journal is sent by the next page that opens the project.

import { openJournal } from "./journal.js";
import { Lane } from "./lane.js";
import { change, state } from "./state.js";

const open = new Map(); // project -> promise of Sync
const ORDER = ["saved", "saving", "unsynced", "offline", "read-only", "conflict"]; // the worst of all images is shown

// The one Sync of a project: {name, root} as GET /projects/P tells it.
export function syncOf(project, client) {
  if (!open.has(project.name)) {
    open.set(project.name, openJournal(client).then(async (journal) => {
      const sync = new Sync(journal, project);
      await sync.recover();
      return sync;
    }));
  }
  return open.get(project.name);
}

class Sync {
  constructor(journal, project) {
    this.journal = journal;
    this.project = project.name;
    this.where = `${project.root} ${project.name}`; // another project of this name, served here before, is another one
    this.lanes = new Map();
    this.noticed = () => {}; // (text): something a person should read
    this.isWarned = false;
    addEventListener("online", () => this.retry());
    addEventListener("beforeunload", (event) => {
      if (this.waiting > 0 && (this.isWarned || !journal.isKept)) event.preventDefault(); // nobody else has it
    });
  }

  // Tell, once, that this browser keeps nothing: a closed page then loses what is not at the server.
  warn() {
    if (this.journal.isKept || this.isWarned) return;
    this.isWarned = true;
    this.noticed("This browser keeps no journal (a private window?). What you draw is lost if the page closes before it is saved.");
  }

  lane(sample) {
    if (!this.lanes.has(sample)) this.lanes.set(sample, new Lane(this, sample));
    return this.lanes.get(sample);
  }

  get waiting() {
    return [...this.lanes.values()].reduce((sum, one) => sum + one.waiting, 0);
  }

  // Into the journal, or, where the disk is full, at least on its way.
  async keep(operations) {
    try {
      return await this.journal.append(operations);
    } catch (error) {
      if (!this.isWarned) this.noticed(`This browser cannot keep what is drawn until it is saved: ${error.message}`);
      this.isWarned = true;
      return operations.map((one) => ({ ...one, client: this.journal.client, seq: Date.now() * 1000, order: -1 }));
    }
  }

  // Take up what was left here, but for that of tabs which are still open.
  async recover() {
    const left = await this.journal.left(this.where);
    const living = new Set((await navigator.locks?.query())?.held.map(({ name }) => name) ?? []);
    for (const one of left) {
      if (one.client !== this.journal.client && living.has(`terrazzo ${one.client}`)) continue;
      this.lane(one.sample).queue.push({ ...one, isLeft: true });
    }
    this.retry();
  }

  retry() {
    for (const lane of this.lanes.values()) if (lane.queue.length) lane.pump();
  }

  // Resolves when everything is at the server; rejects where something is in the way.
  async flush() {
    for (const lane of this.lanes.values()) {
      while (lane.waiting > 0) {
        await lane.writing;
        if (lane.isBusy) await new Promise((resolve) => { setTimeout(resolve, 10); });
        else await lane.pump();
        if (lane.waiting > 0 && !lane.isBusy && !["saved", "saving"].includes(lane.state)) {
          throw new Error(lane.says || `${lane.waiting} strokes are not at the server yet.`);
        }
      }
    }
  }

  // Let the page know how things stand.
  told() {
    const worst = [...this.lanes.values()].reduce((a, b) => (ORDER.indexOf(b.state) > ORDER.indexOf(a.state) ? b : a));
    const at = Math.max(...[...this.lanes.values()].map((one) => one.at));
    const saved = { state: worst.state, unsynced: this.waiting, at, says: worst.says };
    if (JSON.stringify(saved) !== JSON.stringify(state.saved)) change({ saved });
  }
}
