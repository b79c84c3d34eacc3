// The lease on an image: while this tab holds it, nobody else draws there. It lasts a minute and is renewed; a tab that
// dies lets go by doing nothing.

import * as api from "./api.js";

const HEARTBEAT = 20_000;
let line = Promise.resolve(); // of this page's requests: a renewal after the release would hold an image for nobody

export class Lease {
  // onChange(lease) hears when it is gained or lost.
  constructor(project, sample, client, onChange) {
    Object.assign(this, { client, onChange, sample });
    this.path = api.at(project, "samples", sample, "lease");
    this.isMine = false;
    this.isRefused = false; // another page has it
    this.holder = null; // whose page that is, where it is known
    this.timer = 0;
    this.isClosed = false;
    this.isAsking = false;
    this.leave = () => this.giveBack({ keepalive: true }); // a page that goes waits for nothing
    addEventListener("pagehide", this.leave);
  }

  // Ask for it; true where it is ours. takeOver: whoever has it becomes a reader.
  take({ takeOver = false } = {}) {
    return next(async () => {
      if (this.isClosed) return false;
      this.isAsking = true;
      try {
        await api.send("POST", this.path, { client_id: this.client, take_over: takeOver });
      } catch (error) {
        if (error.status !== 409) throw error;
        this.lost(error.problem.author ?? null);
        return false;
      } finally {
        this.isAsking = false;
      }
      Object.assign(this, { isMine: true, isRefused: false, holder: null });
      if (this.isClosed) return false; // `close` gives it back, next in line
      clearInterval(this.timer);
      this.timer = setInterval(() => this.renew(), HEARTBEAT);
      this.onChange(this);
      return true;
    });
  }

  renew() {
    return next(async () => {
      if (!this.isMine || this.isClosed) return;
      try {
        await api.send("PUT", this.path, { client_id: this.client });
      } catch (error) {
        if (error.status === 409) this.lost(error.problem.author ?? null);
        // any other failure, such as a server that is away: the lease may lapse, and the next operation finds out
      }
    });
  }

  lost(holder) {
    clearInterval(this.timer);
    Object.assign(this, { isMine: false, isRefused: true, holder });
    if (!this.isClosed) this.onChange(this);
  }

  close() {
    this.isClosed = true;
    clearInterval(this.timer);
    return next(() => this.giveBack()).finally(() => removeEventListener("pagehide", this.leave));
  }

  giveBack({ keepalive = false } = {}) {
    clearInterval(this.timer);
    if (!this.isMine && !this.isAsking) return Promise.resolve();
    this.isMine = false;
    return api.send("DELETE", `${this.path}?client_id=${encodeURIComponent(this.client)}`, undefined, { keepalive }).catch(() => {}); // it lapses by itself
  }
}

// Do it once all that was asked for before is answered.
function next(work) {
  const done = line.then(work);
  line = done.catch(() => {});
  return done;
}
