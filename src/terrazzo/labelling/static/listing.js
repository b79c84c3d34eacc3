// The samples of a project in one order and through one filter, fetched page by page as far as somebody looks.

import * as api from "./api.js";

const PAGE = 500;

export class Listing {
  // filter: {status, category, search, order}, each "" for none. onChange() hears that more is known.
  constructor(project, filter, onChange = () => {}) {
    Object.assign(this, { project, filter, onChange });
    this.items = [];
    this.total = 0;
    this.next = null;
    this.isBegun = false;
    this.wanted = 0;
    this.asking = null;
    this.abort = new AbortController();
  }

  // Know the items up to `count`; the first page is larger than a screen.
  need(count) {
    this.wanted = Math.max(this.wanted, count);
    this.asking ??= this.fetch().finally(() => { this.asking = null; });
    return this.asking;
  }

  async fetch() {
    while (!this.isBegun || (this.next !== null && this.items.length < this.wanted)) {
      const words = new URLSearchParams({ limit: this.isBegun ? PAGE : 100 });
      for (const [key, value] of Object.entries(this.filter)) if (value) words.set(key, value);
      if (this.next !== null) words.set("cursor", this.next);
      const page = await api.get(`${api.at(this.project, "samples")}?${words}`, { signal: this.abort.signal });
      this.items.push(...page.items);
      this.total = page.total;
      this.next = page.next;
      this.isBegun = true;
      this.onChange();
    }
  }

  indexOf(id) {
    return this.items.findIndex((one) => one.id === id);
  }

  // Take what is newly known of a sample; its place in the list stays.
  update(sample) {
    const index = this.indexOf(sample.id);
    if (index >= 0) this.items[index] = { ...this.items[index], ...sample };
    return index;
  }

  // The index of a sample, looked for page by page; -1 where the filter hides it.
  async find(id) {
    for (;;) {
      const index = this.indexOf(id);
      if (index >= 0 || (this.isBegun && this.next === null)) return index;
      await this.need(this.items.length + 1);
    }
  }

  close() {
    this.abort.abort();
  }
}

export const NO_FILTER = { status: "", category: "", search: "", order: "name" };

// The filter with which a project was looked at last in this tab; the editor goes on with it.
export function filterOf(project) {
  try {
    return { ...NO_FILTER, ...JSON.parse(sessionStorage.getItem(`terrazzo.filter.${project}`)) };
  } catch {
    return { ...NO_FILTER };
  }
}

export function keepFilter(project, filter) {
  try {
    sessionStorage.setItem(`terrazzo.filter.${project}`, JSON.stringify(filter));
  } catch {
    // then it lasts as long as the page
  }
}
