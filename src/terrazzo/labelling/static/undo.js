// The way back, stroke by stroke: at least 200 steps of an image, kept while one looks at others; the oldest go first
// when all images together hold more than 256 MB.

const STEPS = 1000;
const BYTES = 256 * 1024 * 1024;
const histories = new Map(); // "project/sample" -> Undo, the least recently used first

// The history of an image, as it was left.
export function historyOf(project, sample) {
  const key = `${project}/${sample}`;
  const found = histories.get(key) ?? new Undo();
  histories.delete(key);
  histories.set(key, found);
  return found;
}

export class Undo {
  constructor() {
    this.done = [];
    this.undone = [];
    this.leave();
  }

  // Belong to no editor: nothing can be undone until one takes it. run(change, isBack) is what it does with a step.
  leave() {
    this.owner = null;
    this.run = () => false;
  }

  get canUndo() { return this.done.length > 0; }

  get canRedo() { return this.undone.length > 0; }

  get bytes() { return [...this.done, ...this.undone].reduce((sum, one) => sum + one.bytes, 0); }

  push(change) {
    this.undone = [];
    this.done.push(change);
    if (this.done.length > STEPS) this.done.shift();
    makeRoom();
  }

  undo() {
    return this.step(this.done, this.undone, true);
  }

  redo() {
    return this.step(this.undone, this.done, false);
  }

  step(from, to, isBack) {
    const change = from.at(-1);
    if (!change || this.run(change, isBack) === false) return false;
    from.pop();
    to.push(change);
    return true;
  }
}

function makeRoom() {
  let bytes = 0;
  for (const one of histories.values()) bytes += one.bytes;
  for (const one of histories.values()) {
    while (bytes > BYTES && one.done.length > 1) bytes -= one.done.shift().bytes;
  }
}
