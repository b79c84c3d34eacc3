// The images of a project: dropped, chosen or named by folder; listed, filtered and opened.

import * as api from "../api.js";
import { ask, field, menuButton } from "../dialogs.js";
import { STATUSES, el, icon, iconButton, number, plural, statusChip, tell, toast } from "../elements.js";
import { bringIn } from "../importing.js";
import { Listing, filterOf, keepFilter } from "../listing.js";
import { hrefOf } from "../routes.js";
import { may, mayDraw, state, watch } from "../state.js";
import { Upload, dropped } from "../uploading.js";
import { VirtualList } from "../virtual.js";

const ORDERS = {
  name: "By name", uncertainty: "Most uncertain first", rare: "Rare classes first", disagreement: "Model disagrees first",
  diversity: "Most different first", random: "Random", priority: "By priority",
};
const ROW = 59;

export function imagesPanel(project) {
  const filter = filterOf(project);
  let listing = null;
  const host = el("div.samples", { role: "list", "aria-label": "Images", tabindex: -1 });
  const count = el("span.soft.small.tabular", { role: "status" });
  const list = new VirtualList(host, { size: ROW, render: (index) => row(project, listing.items[index]), onRange: (_, last) => listing?.need(last + 50).catch(tell) });

  const reload = () => {
    listing?.close();
    let known = 0;
    listing = new Listing(project, filter, () => {
      if (listing.total !== list.count || known === 0) list.set(listing.total);
      else for (let index = known; index < listing.items.length; index += 1) list.update(index);
      known = listing.items.length;
      count.textContent = plural(listing.total, "image");
      empty.hidden = listing.total > 0;
      bar.hidden = host.hidden = listing.total === 0 && !isFiltered(filter); // nothing to look through yet
      empty.textContent = isFiltered(filter) ? "No image fits this filter." : "No images yet.";
    });
    return listing.need(1).catch(tell);
  };
  const reloadSoon = settled(reload, 300);
  const apply = (patch) => {
    Object.assign(filter, patch);
    keepFilter(project, filter);
    host.scrollTop = 0;
    for (const [key, control] of Object.entries(controls)) control.value = filter[key];
    for (const tellFilter of heard) tellFilter(filter);
    return reload();
  };

  const more = menuButton(iconButton("more", "More on images"), () => [
    { says: isFiltered(filter) ? "The images that this filter shows" : "All images" },
    ...["train", "val", "test", null].map((split) => ({
      label: split ? `are for ${split}` : "are for no split", icon: "flag", disabled: !mayDraw() || listing.total === 0, run: () => divide(project, listing, split, reload).catch(tell),
    })),
    null,
    { label: "Bring labels in …", icon: "upload", disabled: !may("admin"), run: () => bringIn(project, reload) },
  ]);
  const controls = filters(filter, apply);
  const bar = el("div.filters", { role: "search", "aria-label": "Filter images" }, controls.search, controls.status, controls.category, controls.order);
  const empty = el("p.empty", { hidden: true });
  const adding = adder(project, reloadSoon);
  const element = el("section.card", { "aria-labelledby": "images-title" },
    el("header", {}, el("h2", { id: "images-title" }, "Images"), count, more),
    adding.element,
    bar, empty, host);
  const heard = [];
  reload();
  const unwatch = watch(["categories"], () => fillCategories(controls.category, filter));
  return {
    element,
    filter: (patch) => apply(patch),
    onFilter: (handler) => { heard.push(handler); handler(filter); },
    reload: reloadSoon,
    // Somebody changed these samples: ask for those that are known here.
    async refresh(ids) {
      for (const id of ids) {
        if (listing.indexOf(id) < 0) continue;
        const index = listing.update(await api.get(api.at(project, "samples", id)));
        if (index >= 0) list.update(index);
      }
    },
    close() {
      unwatch();
      reloadSoon.cancel();
      listing.close();
      list.close();
      adding.close();
    },
  };
}

export function isFiltered({ status, category, search }) {
  return Boolean(status || category || search);
}

// Calls of the returned function run `run` once, when they have been quiet for a while.
function settled(run, milliseconds) {
  let timer = 0;
  return Object.assign(() => {
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds);
  }, { cancel: () => clearTimeout(timer) });
}

function filters(filter, apply) {
  const search = el("input", { type: "search", placeholder: "Search names", "aria-label": "Search images by name", value: filter.search, autocomplete: "off", spellcheck: "false" });
  search.addEventListener("input", settled(() => apply({ search: search.value.trim() }), 180));
  const status = select("Status", { "": "Every status", ...STATUSES }, filter.status, (value) => apply({ status: value }));
  const category = select("Class", { "": "Every class" }, filter.category, (value) => apply({ category: value }));
  const order = select("Order", ORDERS, filter.order, (value) => apply({ order: value }));
  return { search, status, category, order };
}

function select(label, options, value, run) {
  return el("select", { "aria-label": label, value, onchange: (event) => run(event.target.value) },
    Object.entries(options).map(([key, says]) => el("option", { value: key, ...(key === value ? { selected: true } : {}) }, says)));
}

function fillCategories(control, filter) {
  control.replaceChildren(el("option", { value: "" }, "Every class"), ...state.categories.map((one) => el("option", { value: String(one.id) }, `With ${one.name}`)));
  control.value = filter.category;
}

function row(project, one) {
  if (!one) return el("div.sample.is-blank", {}, el("span.thumb"), el("span", {}, "…"));
  const marks = [];
  if (one.issues) marks.push(el("span", { title: plural(one.issues, "open issue") }, icon("chat", 14), number(one.issues), el("span.unseen", {}, one.issues === 1 ? "open issue" : "open issues")));
  if (one.lease) marks.push(el("span", { title: `Open at ${one.lease.author ?? "somebody"}` }, icon("user", 14), one.lease.author ?? "open"));
  const says = one.why ?? one.reason ?? `${one.width} × ${one.height}`;
  return el("a.sample", { href: hrefOf(project, one.id) },
    el("img.thumb", { src: api.address(api.at(project, "samples", one.id, "thumb")), alt: "", loading: "lazy", decoding: "async", width: 72, height: 48 }),
    el("span.what", {}, el("b.cut", { title: one.name }, one.name), el("span.soft.small.cut", { title: says }, says)),
    statusChip(one.status),
    el("span.end", {}, el("span.marks", {}, marks), el("span.cut", {}, [one.split, one.author].filter(Boolean).join(" · "))));
}

// -- adding -----------------------------------------------------------------------------------------------------------

function adder(project, onAdded) {
  const input = el("input", { type: "file", multiple: true, accept: "image/*,.tif,.tiff", hidden: true, "aria-label": "Choose images" });
  const zone = el("div.drop");
  const report = el("div.upload", { hidden: true });
  const upload = new Upload(project, () => {
    draw(report, upload);
    onAdded();
  });
  const take = (files) => {
    if (files.length) upload.add(files);
    else toast("There are no images in what was dropped.", "warn", { seconds: 6 });
  };
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    zone.classList.add("is-over");
  };
  const leave = (event) => { if (!event.relatedTarget) zone.classList.remove("is-over"); };
  const drop = async (event) => {
    event.preventDefault();
    zone.classList.remove("is-over");
    if (event.dataTransfer) take(await dropped(event.dataTransfer));
  };
  const listeners = Object.entries({ dragover: over, dragleave: leave, drop });
  for (const [kind, listener] of listeners) addEventListener(kind, listener);
  const unwatch = watch(["project"], () => {
    const hasImages = total(state.project) > 0;
    zone.classList.toggle("is-slim", hasImages);
    zone.hidden = !mayDraw();
    if (zone.contains(document.activeElement) && zone.children.length) return; // the focus must not be lost
    zone.replaceChildren(...[
      el("strong", {}, hasImages ? "Drop images to add them" : "Drop images here"),
      hasImages ? null : el("span", {}, "JPEG, PNG, WebP, BMP or TIFF; whole folders too. They are copied next to the project."),
      el("div.row", {},
        el("button", { type: "button", onclick: () => input.click() }, icon("image"), "Choose images"),
        may("admin") ? el("button", { type: "button", onclick: () => folder(project, onAdded) }, icon("folder"), "Name a folder") : null),
    ].filter(Boolean));
  });
  return {
    element: el("div", {}, zone, input, report),
    close() {
      unwatch();
      for (const [kind, listener] of listeners) removeEventListener(kind, listener);
    },
  };
}

function total(project) {
  return Object.values(project?.counts ?? {}).reduce((sum, one) => sum + one, 0);
}

function draw(report, upload) {
  report.hidden = upload.total === 0 && upload.problems.length === 0;
  const over = upload.done + upload.problems.length;
  const says = upload.isBusy ? `Adding ${number(Math.min(over + 1, upload.total))} of ${plural(upload.total, "image")}` : `${plural(upload.done - upload.known, "image")} added`;
  report.replaceChildren(
    el("div.row", {}, el("span.grow", { role: "status" }, says,
      upload.known ? `, ${number(upload.known)} there already` : "", upload.problems.length ? `, ${number(upload.problems.length)} refused` : ""),
      upload.isBusy
        ? el("button", { type: "button", onclick: () => upload.cancel() }, "Stop")
        : iconButton("close", "Close this report", () => { report.hidden = true; })),
    upload.isBusy ? el("progress", { max: upload.total, value: over, "aria-label": "Images added" }) : "",
    upload.problems.length ? el("ul", { "aria-label": "Images that were refused" }, upload.problems.map(({ name, says: why }) => el("li", {}, el("b.cut", { title: name }, name), el("span.bad", {}, why)))) : "");
}

// Say for which split the listed images are; null: that is decided when a release is opened.
async function divide(project, listing, split, reload) {
  await listing.need(listing.total);
  const told = await api.send("POST", api.at(project, "samples", "split"), { ids: listing.items.map((one) => one.id), split });
  toast(`${plural(told.samples, "image")} ${told.samples === 1 ? "is" : "are"} for ${split ?? "no split"}.`);
  await reload();
}

async function folder(project, onAdded) {
  const input = el("input", { required: true, autocomplete: "off", spellcheck: "false", placeholder: "photos/2026" });
  const told = await ask({
    title: "Add a folder of images",
    fields: [field("Folder", input, `On the server, below the project's folder ${state.project.root}. Its images are added where they are; nothing is copied.`)],
    confirm: "Add",
    read: () => api.send("POST", api.at(project, "folders"), { path: input.value.trim() }),
  });
  if (!told) return;
  toast(told.added.length ? `${plural(told.added.length, "image")} added.` : "Nothing new in there.");
  onAdded();
}
