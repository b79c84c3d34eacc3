// Every revision that there ever was of the label; any of them can stand again, and nothing is lost by it.

import * as api from "../api.js";
import { ago, el, icon, tell } from "../elements.js";
import { state, watch } from "../state.js";

const KINDS = { write: "drawn", branch: "kept aside: somebody else's stood", undo: "undone", redo: "done again", restore: "restored", migrate: "classes merged", import: "brought in" };

export function historyPanel(project, actions) {
  const list = el("ol.history", { "aria-label": "Revisions, the newest first" });
  const more = el("button", { type: "button", hidden: true, onclick: () => load(false).catch(tell) }, "Older ones");
  let next = null;
  let turn = 0;
  const load = async (isFresh) => {
    const { sample } = state;
    if (!sample) return;
    const mine = (turn += 1);
    const cursor = !isFresh && next !== null ? `?cursor=${encodeURIComponent(next)}` : "";
    const told = await api.get(`${api.at(project, "samples", sample.id, "history")}${cursor}`);
    if (mine !== turn) return;
    if (isFresh) list.replaceChildren();
    next = told.next;
    more.hidden = next === null;
    const first = isFresh ? told.items.find((one) => one.kind !== "branch")?.number : null;
    list.append(...told.items.map((one) => row(one, one.number === first, actions)));
    if (isFresh && told.items.length) list.append(row({ number: 0, kind: "start", at: null }, false, actions));
    if (!isFresh) list.append(...list.querySelectorAll("[data-revision='0']")); // the beginning stays last
    if (list.children.length === 0) list.append(el("li.empty", {}, "Nobody has drawn here yet."));
  };
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (list.isConnected && list.offsetParent !== null) load(true).catch(() => {}); }, 300);
  };
  const closers = [watch(["sample", "saved"], soon)];
  return { element: el("div.panel", {}, list, more), show: () => load(true).catch(tell), close: () => { clearTimeout(timer); closers.forEach((one) => one()); } };
}

function row(one, isCurrent, actions) {
  const isBranch = one.kind === "branch";
  const says = one.number === 0 ? "before anybody drew" : [KINDS[one.kind] ?? one.kind, one.tool && one.kind === "write" ? `with ${one.tool}` : ""].filter(Boolean).join(" ");
  return el("li", { class: isBranch ? "is-branch" : "", "data-revision": one.number },
    el("span.rev.tabular", {}, isBranch ? icon("branch", 15) : null, `${one.number}`),
    el("span.grow", {}, el("span", {}, says), el("span.soft.small", { title: one.at ?? "" }, [one.author, one.at && ago(one.at), one.ms ? `${(one.ms / 1000).toFixed(1)} s` : ""].filter(Boolean).join(" · "))),
    isCurrent ? el("span.badge", {}, "stands")
      : el("button", { type: "button", "aria-label": `Restore revision ${one.number}`, disabled: state.read_only !== null, onclick: () => actions.restore(one.number) }, "Restore"));
}
