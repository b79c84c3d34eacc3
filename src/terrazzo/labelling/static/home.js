// The first screen: the projects of this server, how far each is, and a new one.

import * as api from "./api.js";
import { ask, field } from "./dialogs.js";
import { STATUSES, el, icon, number, plural } from "./elements.js";
import { masthead } from "./masthead.js";
import { go, hrefOf } from "./routes.js";
import { change } from "./state.js";

export const name = "home";
const DONE = ["labelled", "reviewed"];
const ALONG = ["reviewed", "labelled", "in_progress", "prelabelled", "rejected", "skipped"]; // as work goes on, from its end

export async function open(root) {
  const told = await api.get("/");
  change({ person: { name: told.user, role: told.role, isSingleUser: told.is_single_user }, project: null });
  document.title = "Projects · terrazzo";
  const mayCreate = told.role === "admin";
  const button = el("button.primary", { type: "button", onclick: create }, icon("plus"), "New project");
  root.replaceChildren(masthead(), el("main.page", { id: "main" },
    told.projects.length === 0
      ? welcome(mayCreate ? button : null)
      : [el("div.head", {}, el("div.title", {}, el("h1", {}, "Projects")), mayCreate ? button : null),
        el("ul.projects", {}, told.projects.map(card))]));
  return { close() {} };
}

function welcome(button) {
  return el("section.card.hero", {},
    el("img", { src: "/static/icon.svg", alt: "", width: 64, height: 64 }),
    el("h1", {}, "Label your first images"),
    el("p.soft", {}, "A project is one file in this folder. It holds what is drawn, with all its history, and the releases that models are "
      + "trained on; the images stay where they are."),
    button);
}

function card(one) {
  if (one.problem) return el("li.card", {}, el("div.body.stack", {}, el("h2", {}, one.name), el("p.bad", {}, one.problem)));
  const done = DONE.reduce((sum, status) => sum + (one.counts[status] ?? 0), 0);
  return el("li.card", {}, el("a", { href: hrefOf(one.name) },
    el("h2", {}, one.name),
    parts(one.counts, one.samples),
    el("div.facts", {},
      el("span", {}, one.samples ? `${number(done)} of ${plural(one.samples, "image")} done` : "no images yet"),
      el("span", {}, plural(one.categories, "class", "classes")),
      el("span", {}, plural(one.releases, "release")))));
}

// How far a project is, as one bar.
export function parts(counts, total) {
  const there = ALONG.filter((status) => counts[status] > 0);
  const says = there.map((status) => `${STATUSES[status]} ${counts[status]}`).join(", ") || "nothing done yet";
  const left = total - there.reduce((sum, status) => sum + counts[status], 0);
  return el("div.parts", { role: "img", "aria-label": `Of ${plural(total, "image")}: ${says}` },
    there.map((status) => el("i", { "data-status": status, style: { "--share": counts[status] } })),
    left > 0 || total === 0 ? el("i", { style: { "--share": Math.max(left, 1), "--status": "transparent" } }) : null);
}

async function create() {
  const input = el("input", { required: true, maxlength: 80, autocomplete: "off", spellcheck: "false", placeholder: "street" });
  const made = await ask({
    title: "New project",
    fields: [field("Name", input, "It becomes a file of this name in the server's folder, such as street.db.")],
    confirm: "Create",
    read: () => api.send("POST", "/projects", { name: input.value.trim() }),
  });
  if (made) go(made.name);
}
