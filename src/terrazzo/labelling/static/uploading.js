// Images on their way to the server: a few at a time, each with an answer of its own. One that is refused stops no other.

import * as api from "./api.js";

const AT_ONCE = 3;
const PICTURE = /\.(jpe?g|png|webp|bmp|tiff?)$/i;

export class Upload {
  // onChange() hears of every step.
  constructor(project, onChange) {
    Object.assign(this, { project, onChange });
    this.waiting = [];
    this.total = 0;
    this.done = 0;
    this.known = 0; // of those done, how many the project had already
    this.running = 0;
    this.problems = []; // {name, says}
    this.abort = new AbortController();
  }

  get isBusy() {
    return this.running > 0 || this.waiting.length > 0;
  }

  add(files) {
    if (!this.isBusy) Object.assign(this, { total: 0, done: 0, known: 0, problems: [], abort: new AbortController() });
    this.total += files.length;
    this.waiting.push(...files);
    this.onChange();
    while (this.running < AT_ONCE && this.waiting.length > 0) this.work();
  }

  cancel() {
    this.total -= this.waiting.length;
    this.waiting = [];
    this.abort.abort();
    this.onChange();
  }

  async work() {
    this.running += 1;
    for (let file = this.waiting.shift(); file; file = this.waiting.shift()) {
      try {
        const told = await api.send("POST", `${api.at(this.project, "images")}?name=${encodeURIComponent(file.name)}`, file, { signal: this.abort.signal });
        this.done += 1;
        if (told.is_new === false) this.known += 1;
      } catch (error) {
        this.problems.push({ name: file.name, says: error.name === "AbortError" ? "was cancelled" : reason(error) });
      }
      this.onChange();
    }
    this.running -= 1;
    this.onChange();
  }
}

function reason(error) {
  const { title, found, hint } = error.problem ?? {};
  return [title ?? error.message, found && `Found: ${found}.`, hint].filter(Boolean).join(" ");
}

// The pictures among what was dropped, those in folders too; and how many files were something else.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = entries.length ? (await Promise.all(entries.map(filesIn))).flat() : [...transfer.files];
  const isFolder = entries.some((entry) => entry.isDirectory);
  // a file that was named is sent whatever it is, and the server says what is wrong; out of folders only pictures are
  return isFolder ? files.filter((file) => PICTURE.test(file.name)) : files;
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => { entry.file(resolve, reject); })];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (some.length === 0) break; // a reader gives a hundred at a time
    found.push(...some);
  }
  found.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  return (await Promise.all(found.filter((one) => !one.name.startsWith(".")).map(filesIn))).flat();
}
