// Releases: the project as it stands under a name, for ever; made, compared, downloaded, withdrawn.

import * as api from "../api.js";
import { ask, field, menuButton } from "../dialogs.js";
import { ago, el, icon, iconButton, number, plural, tell, toast } from "../elements.js";
import { may, state, watch } from "../state.js";

const FORMATS = {
  table: ["Parquet table (Hugging Face)", "images and masks in one table, ready to train on"],
  folder: ["Folders of images and masks", "PNG class maps and classes.json"],
  segments: ["Segments.ai", "release JSON and bitmaps"],
  "coco-panoptic": ["COCO panoptic", "panoptic.json and RGB id maps"],
};

export function releasesPanel(project, refresh) {
  const list = el("ul.releases", { "aria-label": "Releases" });
  const making = el("div.upload", { hidden: true, role: "status" });
  const create = el("button", { type: "button", onclick: () => make(project, making, refresh) }, icon("plus", 16), "Create");
  const element = el("section.card", { "aria-labelledby": "releases-title" },
    el("header", {}, el("h2", { id: "releases-title" }, "Releases"), create), making, list);
  const unwatch = watch(["project"], () => {
    create.hidden = !may("reviewer");
    const releases = [...(state.project?.releases ?? [])].reverse(); // the newest first
    list.replaceChildren(...releases.map((one) => row(project, one, refresh)));
    if (releases.length === 0) list.append(el("p.empty", {}, "A release is what models are trained on: every label as it is now, under a name, and never changed again."));
  });
  return { element, close: unwatch };
}

function row(project, one, refresh) {
  const isWithdrawn = Boolean(one.withdrawn_at);
  const more = menuButton(iconButton("more", `More on ${one.name}`), () => [
    { label: "Compare …", icon: "swap", run: () => compare(project, one) },
    null,
    { says: "Download as" },
    ...formats().map((format) => ({
      label: FORMATS[format]?.[0] ?? format, icon: "download", disabled: isWithdrawn, run: () => download(project, one.name, format),
    })),
    null,
    { label: "Withdraw …", icon: "trash", danger: true, disabled: isWithdrawn || !may("admin"), run: () => withdraw(project, one, refresh) },
  ]);
  return el("li", { class: isWithdrawn ? "is-withdrawn" : "", "data-release": one.name },
    el("div.row", {}, el("b", {}, one.name), isWithdrawn ? el("span.badge", { title: one.withdrawn_for ?? "" }, "withdrawn") : null,
      el("span.mono.soft", { title: `sha256 ${one.id}` }, String(one.id).slice(0, 12))),
    more,
    el("span.soft.small", {}, [plural(one.samples ?? 0, "image"), ago(one.created_at), isWithdrawn && one.withdrawn_for ? `withdrawn: ${one.withdrawn_for}` : one.description].filter(Boolean).join(" · ")));
}

export function formats() {
  return state.project?.formats ?? Object.keys(FORMATS);
}

async function make(project, making, refresh) {
  const releases = state.project.releases ?? [];
  const name = el("input", { required: true, pattern: "[A-Za-z0-9._\\-]+", maxlength: 100, value: `v${releases.length + 1}`, autocomplete: "off", spellcheck: "false" });
  const description = el("textarea", { maxlength: 2000, rows: 3 });
  const counts = state.project.counts;
  const finished = (counts.labelled ?? 0) + (counts.reviewed ?? 0);
  const all = Object.values(counts).reduce((sum, one) => sum + one, 0);
  await ask({
    title: "Create a release",
    fields: [
      field("Name", name, "Letters, digits, “.”, “_” and “-”. It cannot be changed later."),
      field("Description", description),
      el("p", { class: finished === all ? "soft" : "warn" }, finished === all
        ? `All ${plural(all, "image")} are labelled.`
        : `${number(finished)} of ${plural(all, "image")} are labelled; the others are in the release with their status, and no training uses them.`),
    ],
    confirm: "Create",
    read: async () => {
      making.hidden = false;
      making.replaceChildren(el("span", {}, `Making ${name.value} …`), el("progress", { "aria-label": "The release is made" }));
      try {
        let told = await api.send("POST", api.at(project, "releases"), { name: name.value.trim(), description: description.value.trim() });
        if (told.job) told = await api.finished(told.job, { onProgress: ({ progress, says }) => progressing(making, progress, says) });
        toast(`Release ${name.value} is made.`);
        return true;
      } finally {
        making.hidden = true;
        refresh();
      }
    },
  });
}

function progressing(making, progress, says) {
  making.querySelector("progress").value = progress;
  if (says) making.querySelector("span").textContent = says;
}

async function compare(project, one) {
  const others = (state.project.releases ?? []).filter((other) => other.name !== one.name);
  const choice = el("select", {}, el("option", { value: "" }, one.parent ? "the release before it" : "nothing"), others.map((other) => el("option", { value: other.name }, other.name)));
  const result = el("div.scroll.stack", { role: "status", tabindex: 0, "aria-label": "What is new" }, "…");
  const look = async () => {
    const from = choice.value ? `?from=${encodeURIComponent(choice.value)}` : "";
    const diff = await api.get(`${api.at(project, "releases", one.name, "diff")}${from}`);
    result.replaceChildren(...differences(diff));
  };
  choice.addEventListener("change", () => look().catch(tell));
  look().catch((error) => { result.textContent = error.message; });
  await ask({ title: `What is new in ${one.name}`, fields: [field("Compared with", choice), result], confirm: null, cancel: "Close", wide: true });
}

function differences(diff) {
  const names = (word, list) => (list.length ? el("details", { open: list.length <= 20 }, el("summary", {}, `${plural(list.length, "image")} ${word}`), el("ul", {}, list.slice(0, 500).map((name) => el("li", {}, name)))) : null);
  const pixels = Object.entries(diff.pixels ?? {});
  return [
    el("p.soft", {}, `${diff.old ?? "nothing"} → ${diff.new}`),
    names("added", diff.added), names("removed", diff.removed), names("changed", diff.changed),
    diff.categories?.length ? el("ul", {}, diff.categories.map((sentence) => el("li", {}, sentence))) : null,
    el("table.plain", {}, el("caption.unseen", {}, "Pixels of each class"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class"), el("th.right", { scope: "col" }, "Before"), el("th.right", { scope: "col" }, "After"), el("th.right", { scope: "col" }, "Difference"))),
      el("tbody", {}, pixels.map(([name, [before, after]]) => el("tr", {}, el("td", {}, name), el("td.right", {}, number(before)), el("td.right", {}, number(after)),
        el("td.right", {}, before === after ? "–" : `${after > before ? "+" : "−"}${number(Math.abs(after - before))}`))))),
  ].filter(Boolean);
}

// The browser saves it: the server sends a ZIP.
function download(project, name, format) {
  const link = el("a", { href: api.address(`${api.at(project, "releases", name, "export")}?format=${encodeURIComponent(format)}`), download: "" });
  document.body.append(link);
  link.click();
  link.remove();
  toast(`${name} comes as ${FORMATS[format]?.[0] ?? format}.`);
}

async function withdraw(project, one, refresh) {
  const reason = el("textarea", { maxlength: 2000 });
  const done = await ask({
    title: `Withdraw ${one.name}?`,
    fields: [
      el("p.soft", {}, "It is marked as not to be used, for whoever comes across it. What it says is not lost, and its name is never given again."),
      field("Why", reason),
    ],
    confirm: "Withdraw",
    danger: true,
    read: async () => {
      await api.send("POST", api.at(project, "releases", one.name, "withdraw"), { reason: reason.value.trim() });
      return true;
    },
  });
  if (done) toast(`${one.name} is withdrawn.`);
  refresh();
}
