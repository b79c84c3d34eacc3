// How far a label is, said by who looks at it: labelled, skipped, reviewed, rejected with a reason; and on to the next.

import * as api from "./api.js";
import { ask, field } from "./dialogs.js";
import { toast } from "./elements.js";
import { isFiltered } from "./panels/images.js";
import { mayReview } from "./topbar.js";
import { change, mayDraw, state } from "./state.js";

const OPEN = ["todo", "prelabelled", "in_progress", "rejected"]; // what wants somebody who labels
const TO_REVIEW = ["labelled"];

export class Decisions {
  // listing() -> Listing; open(id, why): show another sample; changed(id): its line in the list did.
  constructor(project, listing, { open, changed }) {
    Object.assign(this, { project, listing, open, changed, isBusy: false });
  }

  submit() {
    return this.once(async () => {
      if (!this.mayChange()) return;
      const told = await this.decide("labelled");
      const { warnings = [] } = told;
      if (warnings.length) toast(`${told.name} is submitted. Worth a look: ${warnings.join("; ")}.`, "warn", { seconds: 9 });
      await this.next(OPEN, "Every image of this list is done.");
    });
  }

  skip() {
    return this.once(async () => {
      if (!this.mayChange()) return;
      await this.decide("skipped");
      await this.next(OPEN, "Every image of this list is done.");
    });
  }

  accept() {
    return this.once(async () => {
      if (!this.mayJudge(TO_REVIEW)) return;
      await this.decide("reviewed");
      await this.next(TO_REVIEW, "Nothing is left to review in this list.");
    });
  }

  reject() {
    return this.once(async () => {
      if (!this.mayJudge(["labelled", "reviewed"])) return;
      const text = document.createElement("textarea");
      Object.assign(text, { required: true, maxLength: 2000 });
      const told = await ask({
        title: "Reject this label", fields: [field("What is to be mended?", text, "Whoever labelled it reads this.")], confirm: "Reject", danger: true,
        read: () => {
          if (!text.value.trim()) throw new Error("A rejection needs a reason.");
          return this.decide("rejected", text.value.trim());
        },
      });
      if (told) await this.next(TO_REVIEW, "Nothing is left to review in this list.");
    });
  }

  // Have everything at the server, then say it.
  async decide(status, reason) {
    await state.editor?.sync.flush();
    const { sample } = state;
    const told = await api.send("PATCH", api.at(this.project, "samples", sample.id), reason === undefined ? { status } : { status, reason });
    this.listing().update(told);
    this.changed(told.id);
    if (state.sample?.id === told.id) change({ sample: { ...state.sample, ...told } });
    return told;
  }

  // Show the next sample of these statuses, from here on and around; or say that there is none.
  async next(statuses, otherwise) {
    const { order } = this.listing().filter;
    if (statuses === OPEN && !isFiltered(this.listing().filter)) {
      const told = await api.get(`${api.at(this.project, "queue", "next")}?order=${encodeURIComponent(order)}&after=${state.sample.id}`);
      if (!told.sample) toast(otherwise);
      else this.open(told.sample.id, told.why);
      return;
    }
    const listing = this.listing();
    const here = await listing.find(state.sample.id);
    for (let step = 1; ; step += 1) {
      await listing.need(here + step + 1);
      if (step >= Math.max(1, listing.total)) break;
      const one = listing.items[(here + step) % listing.items.length];
      if (one && statuses.includes(one.status)) {
        this.open(one.id);
        return;
      }
    }
    toast(otherwise);
  }

  // Show the sample `step` further in the list, whatever its status.
  async walk(step) {
    const listing = this.listing();
    const here = await listing.find(state.sample?.id);
    const to = here < 0 ? 0 : here + step;
    await listing.need(to + 2);
    if (to < 0) toast("This is the first one.");
    else if (to >= listing.items.length) toast("This is the last one.");
    else this.open(listing.items[to].id);
  }

  mayChange() {
    if (!state.sample) return false;
    if (!mayDraw()) toast("You may look, and not change anything here.", "warn", { seconds: 5 });
    else if (state.read_only) toast(`Read-only: ${state.read_only.says}.`, "warn", { seconds: 5 });
    return mayDraw() && state.read_only === null;
  }

  mayJudge(statuses) {
    if (!state.sample) return false;
    if (!mayReview()) toast("Only reviewers accept and reject.", "warn", { seconds: 5 });
    else if (!statuses.includes(state.sample.status)) toast("There is nothing to review here: nobody has submitted it.", "warn", { seconds: 5 });
    return mayReview() && statuses.includes(state.sample.status);
  }

  async once(work) {
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      await work();
    } catch (error) {
      toast(error.message, "bad");
    } finally {
      this.isBusy = false;
    }
  }
}
