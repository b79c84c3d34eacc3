// What people say about a pixel of the image, answered and resolved.

import * as api from "../api.js";
import { ask, field } from "../dialogs.js";
import { ago, el, icon, tell } from "../elements.js";
import { mayDraw, state, watch } from "../state.js";

export function issuesPanel(project, actions) {
  const list = el("ul.issues", { "aria-label": "Issues" });
  const all = el("input", { type: "checkbox", onchange: () => draw() });
  const add = el("button", { type: "button", onclick: actions.place }, icon("plus", 16), "New issue at a pixel");
  let issues = [];
  const drafts = new Map(); // issue -> an answer that is not sent yet
  const load = async () => {
    const { sample } = state;
    if (!sample) return;
    const told = await api.get(api.at(project, "samples", sample.id, "issues"));
    if (state.sample?.id !== sample.id) return;
    issues = told.items;
    draw();
  };
  const draw = () => {
    const shown = issues.filter((one) => all.checked || !one.resolved_at);
    const typing = document.activeElement?.dataset?.answer; // others' words come while one is typing
    list.replaceChildren(...shown.map((one) => row(project, one, actions, load, drafts)));
    if (typing) list.querySelector(`[data-answer="${typing}"]`)?.focus();
    if (shown.length === 0) list.append(el("li.empty", {}, issues.length ? "All is resolved." : "Nobody has raised anything here."));
    actions.pins(issues.filter((one) => !one.resolved_at));
    add.hidden = !mayDraw();
  };
  let id = null;
  const close = watch(["sample", "person"], () => {
    if (state.sample?.id === id) return;
    id = state.sample?.id ?? null;
    issues = [];
    draw();
    load().catch(() => {});
  });
  return {
    element: el("div.panel", {}, el("div.row", {}, add, el("span.grow"), el("label.check.small", {}, all, "resolved too")), list),
    show: () => load().catch(tell), load, close,
    // Say something at a pixel.
    async raise(x, y) {
      const text = el("textarea", { required: true, maxlength: 2000 });
      const made = await ask({
        title: `Issue at ${x}, ${y}`, fields: [field("What is the matter?", text)], confirm: "Raise",
        read: () => api.send("POST", api.at(project, "samples", state.sample.id, "issues"), { x, y, text: text.value.trim() }),
      });
      if (made) await load();
    },
    focus(number) {
      list.querySelector(`[data-issue="${number}"]`)?.scrollIntoView({ block: "nearest" });
    },
  };
}

function row(project, one, actions, load, drafts) {
  const answer = el("input", { placeholder: "Answer", "aria-label": `Answer to issue ${one.id}`, maxlength: 2000, autocomplete: "off", value: drafts.get(one.id) ?? "", "data-answer": one.id });
  answer.addEventListener("input", () => drafts.set(one.id, answer.value));
  const run = (work) => work().then(load).catch(tell);
  const say = async (text) => {
    await api.send("POST", api.at(project, "issues", one.id, "comments"), { text });
    drafts.delete(one.id);
  };
  const reply = el("form.row", {
    onsubmit: (event) => {
      event.preventDefault();
      if (answer.value.trim()) run(() => say(answer.value.trim()));
    },
  }, answer);
  const settle = el("button", { type: "button", onclick: () => run(() => api.send("PATCH", api.at(project, "issues", one.id), { resolved: !one.resolved_at })) }, one.resolved_at ? "Open again" : "Resolve");
  return el("li", { "data-issue": one.id, class: one.resolved_at ? "is-resolved" : "" },
    el("div.row", {}, el("button.bare.tabular", { type: "button", title: "Show the pixel", onclick: () => actions.show(one) }, icon("chat", 15), `${one.x}, ${one.y}`),
      el("span.grow"), one.resolved_at ? el("span.soft.small", {}, `resolved by ${one.resolved_by ?? "somebody"}`) : null, mayDraw() ? settle : null),
    one.comments.map((comment) => el("p.comment", {}, comment.text, el("span.soft.small", {}, ` – ${[comment.author, ago(comment.at)].filter(Boolean).join(", ")}`))),
    mayDraw() && !one.resolved_at ? reply : null);
}
