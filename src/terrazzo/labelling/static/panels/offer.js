// What models say of the open image: which one is listened to, what of it is shown, the way from one doubtful place to the
// next, where it contradicts the label, and who made that.

import * as api from "../api.js";
import { el, icon, number, percent, swatch, tell, toast } from "../elements.js";
import { bind } from "../keys.js";
import { dropOffer, loadOffer, offersOf } from "../offer.js";
import { OfferLayer } from "../offerlayer.js";
import { categoryOf, change, state, watch } from "../state.js";
import { accept, accepting, areaAt } from "../tools/prelabel.js";
import { toNext } from "../uncertain.js";

const CALM = 150; // ms

const KEYS = [
  ["next-uncertain", "KeyN", "Next uncertain place", "View", () => toNext("uncertain").catch(tell)],
  ["next-unlabelled", "Shift+KeyN", "Next unlabelled place", "View", () => toNext("unlabelled").catch(tell)],
  ["view.doubt", "Shift+KeyM", "What the model doubts", "View", () => change({ doubt: !state.doubt })],
];

export function offerPanel(project) {
  const models = el("select", { "aria-label": "Model", onchange: () => loadOffer(project, models.value).catch(tell) });
  const says = el("p.soft.small", { role: "status" });
  const doubt = el("button.switch", { type: "button", title: "Shift+M", onclick: () => change({ doubt: !state.doubt }) }, icon("eye", 16), "Show its doubt");
  const places = el("div.row", {}, el("button", { type: "button", onclick: KEYS[0][4] }, "Next uncertain", el("kbd", { "aria-hidden": "true" }, "N")),
    el("button", { type: "button", onclick: KEYS[1][4] }, "Next unlabelled", el("kbd", { "aria-hidden": "true" }, "⇧ N")));
  const take = el("button", { type: "button", onclick: () => acceptAll() }, icon("check", 16), "Accept all of it");
  const onlyFree = el("input", { type: "checkbox", checked: true });
  const origin = el("p.small", { role: "status" });
  const contradictions = el("ol.contradictions", { "aria-label": "Where the model contradicts the label" });
  const room = el("div.stack", {}, el("label.field", {}, el("span", {}, "Listen to"), models), el("div.row", {}, doubt), places,
    el("div.row", {}, take, el("label.check", {}, onlyFree, "only unlabelled pixels")), origin, el("h3", {}, "It contradicts the label"), contradictions);
  const element = el("div.panel.offer", {}, says, room);
  let layer = null;
  let turn = 0;

  const acceptAll = () => {
    if (!state.editor || !state.offer) return;
    const count = accept(state.editor, accepting(state.editor, { sure: 0, isOnlyUnlabelled: onlyFree.checked }));
    toast(count ? `${number(count)} pixels accepted.` : "Nothing is left to accept here.");
  };

  const load = async () => {
    const mine = (turn += 1), { editor, sample } = state;
    layer?.close();
    layer = null;
    dropOffer();
    contradictions.replaceChildren();
    if (!editor || !sample) return;
    if (state.project?.models?.length) await new Promise((resolve) => { setTimeout(resolve, CALM); }); // the image and the label come first
    if (mine !== turn) return;
    const offers = state.project?.models?.length ? await offersOf(project, sample.id) : [];
    if (mine !== turn) return;
    models.replaceChildren(...offers.map((one) => el("option", { value: one.labelset }, one.name)));
    room.hidden = offers.length === 0;
    says.hidden = offers.length > 0;
    says.textContent = state.project?.models?.length ? "No model has looked at this image yet." : "No model is attached. On the project's page you attach one, or train one on what is labelled.";
    if (offers.length === 0) return;
    await loadOffer(project);
    if (mine !== turn || state.editor !== editor) return;
    layer = new OfferLayer(editor);
    layer.show(state.doubt ? "doubt" : null);
    if (isSeen()) await details();
  };

  const isSeen = () => element.isConnected && !element.hidden;

  const details = async () => {
    const { sample, offer } = state;
    if (!sample || !offer) return;
    const [made, told] = await Promise.all([
      api.get(api.at(project, "samples", sample.id, "origin")),
      api.get(`${api.at(project, "disagreements")}?model=${encodeURIComponent(offer.hash)}&sample=${sample.id}`),
    ]);
    if (state.sample?.id !== sample.id) return;
    origin.textContent = made.changed === null ? "" : `${percent(made.changed)} of the pixels are no longer what a model wrote.`;
    contradictions.replaceChildren(...told.items.map((one) => contradiction(one)));
    if (told.items.length === 0) contradictions.append(el("li.soft.small", {}, "Nowhere that it is sure of, as far as they were compared."));
  };

  const contradiction = (one) => {
    const [label, predicted] = [categoryOf(one.label), categoryOf(one.predicted)];
    const decide = async (verdict) => {
      if (verdict === "model") acceptArea(one);
      await api.send("POST", api.at(project, "disagreements"), { model: state.offer.hash, sample: one.sample, x: one.x, y: one.y, verdict });
      row.remove();
    };
    const button = (verdict, text) => el("button", { type: "button", "data-verdict": verdict, onclick: () => decide(verdict).catch(tell) }, text);
    const row = el("li", { "data-place": `${one.x},${one.y}` },
      el("button.link", { type: "button", onclick: () => show(one) }, swatch(label?.color ?? "#888"), label?.name ?? "?", " → ", swatch(predicted?.color ?? "#888"), predicted?.name ?? "?"),
      el("span.soft.small", {}, `${number(one.pixels)} px, ${percent(one.confidence)} sure`),
      el("div.row", {}, button("label", "Label is right"), button("model", "Model is right"), button("neither", "Neither")));
    return row;
  };

  const show = ({ left, y, width, height }) => state.editor?.view.zoomTo({ x0: left - 8, y0: y - 8, x1: left + width + 8, y1: y + height + 8 });

  // The model is right there: its area, over what was drawn.
  const acceptArea = ({ x, y, label, predicted }) => {
    const { editor, offer } = state, { ids, category } = editor.label;
    const take = (i) => (offer.mask[i] === predicted && category[ids[i]] === label ? predicted : 0);
    accept(editor, areaAt(editor.label, take, x, y));
  };

  const closers = [
    watch(["editor"], () => load().catch(tell)),
    watch(["doubt"], () => {
      doubt.setAttribute("aria-pressed", String(Boolean(state.doubt)));
      layer?.show(state.doubt ? "doubt" : null);
    }),
    watch(["read_only", "offer"], () => { take.disabled = state.read_only !== null || state.offer === null; }),
    ...KEYS.map(([id, code, title, group, run]) => bind(id, { code, title, group, run })),
  ];
  return {
    element,
    show: () => details().catch(tell),
    heard(event) {
      if (event.kind === "samples" || event.kind === "model") load().catch(() => {});
    },
    close() {
      turn += 1;
      layer?.close();
      dropOffer();
      change({ doubt: false });
      for (const end of closers) end();
    },
  };
}
