// The editor's head: which image, which of how many, how far its label is, whether it is safe, and done.

import { ask, field } from "./dialogs.js";
import { STATUSES, el, icon, iconButton, number, statusChip } from "./elements.js";
import { themeButton } from "./masthead.js";
import { hrefOf } from "./routes.js";
import { state, watch } from "./state.js";

// actions: {previous, next, submit, skip, accept, reject, help, undo, redo, takeOver, filter(patch), position() -> {index, total, filter}}
export function topbar(project, actions) {
  const image = el("span.here.cut", { "aria-current": "page" });
  const position = el("button.bare.position.tabular", { type: "button", "aria-label": "Which images" });
  const status = el("span.status", { role: "status", "aria-label": "Status" });
  const badge = el("button.badge.sync", { type: "button", "aria-live": "polite" });
  const submit = el("button.primary", { type: "button", onclick: actions.submit, title: "Labelled; on to the next (Ctrl Enter)" }, icon("check", 16), "Submit");
  const skip = el("button", { type: "button", onclick: actions.skip, title: "Nothing to label here; on to the next (Ctrl Space)" }, "Skip");
  const accept = el("button.good", { type: "button", onclick: actions.accept, title: "Reviewed; on to the next (⇧ Enter)" }, icon("check", 16), "Accept");
  const reject = el("button.danger", { type: "button", onclick: actions.reject, title: "Back to its author, with a reason (⇧ Backspace)" }, "Reject");
  const undo = iconButton("undo", "Undo (Ctrl Z)", actions.undo);
  const redo = iconButton("redo", "Redo (Ctrl ⇧ Z)", actions.redo);
  position.addEventListener("click", () => chooseFilter(actions));
  badge.addEventListener("click", () => actions.badge());

  const element = el("header.top", {},
    el("a.brand", { href: hrefOf(project), "aria-label": `Back to ${project}`, title: `Back to ${project}` }, el("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 })),
    el("nav.crumbs", { "aria-label": "Where you are" }, el("a.cut", { href: hrefOf(project) }, project), el("span.soft", { "aria-hidden": "true" }, "/"), image),
    el("div.row.walk", {}, iconButton("prev", "Previous image (Page Up)", actions.previous), position, iconButton("next", "Next image (Page Down)", actions.next)),
    status, badge, el("span.grow"),
    undo, redo, el("span.rule", { "aria-hidden": "true" }),
    reject, accept, skip, submit, el("span.rule", { "aria-hidden": "true" }),
    iconButton("keyboard", "Keys (?)", actions.help), themeButton());

  const showPosition = () => {
    const { index, total, filter } = actions.position();
    const says = index < 0 ? `– / ${number(total)}` : `${number(index + 1)} / ${number(total)}`;
    const word = [filter.status && STATUSES[filter.status], filter.category && state.categories.find((one) => String(one.id) === filter.category)?.name, filter.search && `“${filter.search}”`].filter(Boolean).join(", ");
    position.replaceChildren(says, word ? el("span.badge", {}, word) : "");
    position.title = `${says}${word ? ` of: ${word}` : ""}. Choose which images.`;
    position.setAttribute("aria-label", `Image ${says}${word ? `, ${word}` : ""}: choose which images`);
  };
  const tick = setInterval(() => showBadge(badge), 1000);
  const closers = [
    watch(["sample"], () => {
      const one = state.sample;
      image.textContent = one?.name ?? "";
      image.title = one?.name ?? "";
      status.replaceChildren(one ? statusChip(one.status) : "");
      const isReview = one && ["labelled", "reviewed"].includes(one.status) && mayReview();
      accept.hidden = !isReview || one.status === "reviewed";
      reject.hidden = !isReview;
      for (const button of [skip, submit]) button.hidden = Boolean(isReview);
    }),
    watch(["read_only", "sample", "person"], () => {
      const isViewer = state.person.role === "viewer";
      for (const button of [submit, skip]) button.disabled = isViewer || state.read_only !== null;
      for (const button of [accept, reject]) button.disabled = isViewer;
    }),
    watch(["drawn", "editor", "read_only"], () => {
      undo.disabled = !state.editor?.undo?.canUndo || state.read_only !== null;
      redo.disabled = !state.editor?.undo?.canRedo || state.read_only !== null;
    }),
    watch(["saved", "read_only"], () => showBadge(badge)),
  ];
  return { element, showPosition, close: () => { clearInterval(tick); closers.forEach((one) => one()); } };
}

export function mayReview() {
  return state.person.isSingleUser || ["reviewer", "admin"].includes(state.person.role);
}

const BADGES = {
  saved: ["check", "good"], saving: ["clock", ""], unsynced: ["clock", "warn"], offline: ["offline", "warn"], "read-only": ["lock", ""], conflict: ["branch", "bad"],
};

// What the badge says: in words, for colour alone tells nobody.
export function badgeWords({ saved, read_only: readOnly }, now = Date.now()) {
  if (readOnly) return ["read-only", `read-only: ${readOnly.says}`];
  const many = saved.unsynced ?? 0;
  if (saved.state === "saved") {
    const seconds = (now - saved.at) / 1000;
    if (!saved.at) return ["saved", "saved"];
    return ["saved", `saved ${seconds < 10 ? `${Math.max(0.1, seconds).toFixed(1)} s` : seconds < 60 ? `${Math.floor(seconds)} s` : `${Math.floor(seconds / 60)} min`} ago`];
  }
  if (saved.state === "saving") return ["saving", "saving …"];
  if (saved.state === "unsynced") return ["unsynced", `${many} unsynced`];
  if (saved.state === "offline") return ["offline", many ? `offline, ${many} kept here` : "offline"];
  if (saved.state === "conflict") return ["conflict", saved.says || "somebody else drew here"];
  return [saved.state, saved.says || saved.state];
}

let shown = "";

function showBadge(badge) {
  const [kind, words] = badgeWords(state);
  const [picture, tone] = BADGES[kind] ?? ["info", ""];
  if (badge.dataset.state !== kind || !badge.firstChild) {
    badge.dataset.state = kind;
    badge.className = `badge sync ${tone}`;
    badge.replaceChildren(icon(picture, 14), el("span"));
    badge.setAttribute("aria-live", "polite");
    shown = "";
  }
  if (words === shown) return;
  shown = words;
  badge.lastChild.textContent = words;
  badge.title = state.read_only ? "Take over …" : state.saved.says || words;
}

async function chooseFilter(actions) {
  const { filter } = actions.position();
  const option = (value, says, chosen) => el("option", { value, ...(value === chosen ? { selected: true } : {}) }, says);
  const status = el("select", {}, option("", "Every status", filter.status), Object.entries(STATUSES).map(([key, says]) => option(key, says, filter.status)));
  const category = el("select", {}, option("", "Every class", filter.category), state.categories.map((one) => option(String(one.id), one.name, filter.category)));
  const search = el("input", { type: "search", value: filter.search, autocomplete: "off", spellcheck: "false" });
  const told = await ask({
    title: "Which images",
    fields: [field("Status", status), field("With the class", category), field("Name has", search)],
    confirm: "Show these",
    read: () => ({ status: status.value, category: category.value, search: search.value.trim() }),
  });
  if (told) actions.filter(told);
}

