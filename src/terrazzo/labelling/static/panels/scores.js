// What more labels might be worth, class by class; which classes labels and model take for one another, and the images
// behind each cell; and the places where the model is sure that the label is wrong.

import * as api from "../api.js";
import { el, number, percent, swatch, tell } from "../elements.js";
import { go } from "../routes.js";
import { categoryOf } from "../state.js";
import { visit } from "../visits.js";

const SHOWN = 12; // classes in the confusion table
const LISTED = 15; // labels that may be wrong

export function scoresPanel(project) {
  const worth = el("div");
  const matrix = el("div.scroll");
  const behind = el("div", { role: "status" });
  const found = el("ol.contradictions", { "aria-label": "Where the model is sure that the label is wrong" });
  const part = (title, ...children) => el("details", {}, el("summary", {}, el("b", {}, title)), el("div.body", {}, children));
  const parts = [part("What to label", worth), part("Which classes are confused", matrix, behind), part("Labels that may be wrong", found)];
  const element = el("div.scores", {}, parts);
  let asked = 0;
  for (const one of parts) one.addEventListener("toggle", () => { if (one.open) load().catch(tell); });

  async function load() {
    const mine = (asked += 1);
    if (!parts.some((one) => one.open)) return;
    const told = await api.get(api.at(project, "scores"));
    if (mine !== asked) return;
    element.hidden = false;
    worth.replaceChildren(...worths(project, told));
    matrix.replaceChildren(confusion(told, (label, predicted) => cell(label, predicted).catch(tell)));
    const list = told.model ? await api.get(`${api.at(project, "disagreements")}?limit=${LISTED}`) : { items: [] };
    if (mine !== asked) return;
    found.replaceChildren(...list.items.map((one) => el("li", {}, el("button.link", { type: "button", onclick: () => visit(project, one.sample, one) },
      pair(one.label, one.predicted), el("span.soft.small", {}, ` ${number(one.pixels)} px, ${percent(one.confidence)} sure · ${one.name}`)))));
    if (list.items.length === 0) found.append(el("li.soft.small", {}, "None that is known. Labels are compared when a model predicts, and when it is asked to compare anew."));
  }

  async function cell(label, predicted) {
    const told = await api.get(`${api.at(project, "confusion")}?label=${label}&predicted=${predicted}`);
    behind.replaceChildren(el("h3", {}, pair(label, predicted)), el("ol", {}, told.items.slice(0, 50).map((one) => el("li", {},
      el("button.link", { type: "button", onclick: () => go(project, one.sample) }, one.name), el("span.soft.small", {}, ` ${number(one.pixels)} px`)))));
  }

  return { element, refresh: () => load().catch(() => {}), close: () => { asked += 1; } };
}

function pair(label, predicted) {
  const named = (id) => [swatch(categoryOf(id)?.color ?? "#888"), categoryOf(id)?.name ?? `class ${id}`];
  return el("span", {}, "label ", ...named(label), ", model ", ...named(predicted));
}

function worths(project, { model, pixels, worths: rows, formula }) {
  const left = el("p", {}, `${number(pixels.unlabelled)} of ${number(pixels.pixels)} pixels are not labelled by people (${percent(pixels.pixels ? pixels.unlabelled / pixels.pixels : 0)}).`);
  if (!model) return [left, el("p.soft.small", {}, "Attach a model to see which class would gain most.")];
  const points = (gain) => (gain === null ? "–" : `+${(100 * gain).toFixed(2)}`);
  return [left,
    el("table.plain", {}, el("caption.unseen", {}, "What more labels of each class might add to mIoU"),
      el("thead", {}, el("tr", {}, ["Class", "IoU", "Labelled px", "Waiting px", "mIoU"].map((title, index) => el(index ? "th.right" : "th", { scope: "col" }, title)))),
      el("tbody", {}, rows.map((one) => el("tr", { "data-category": one.category_id },
        el("td", {}, one.best_id ? el("button.link", { type: "button", title: `Most of it waits in ${one.best}`, onclick: () => go(project, one.best_id) }, one.name) : one.name),
        el("td.right", {}, one.iou === null ? "–" : (100 * one.iou).toFixed(1)), el("td.right", {}, number(one.labelled)),
        el("td.right", {}, number(one.waiting)), el("td.right", {}, points(one.gain)))))),
    el("p.soft.small", {}, `An estimate of what the waiting pixels of a class might add: ${formula}. IoU of the model's validation, K classes, L labelled pixels, W waiting ones, each counted with the model's doubt.`)];
}

function confusion({ confusion: cells, images }, choose) {
  if (cells.length === 0) return el("p.soft.small", {}, "Nothing was compared yet: the model has to look at images that people labelled.");
  const rows = new Map();
  const totals = new Map();
  for (const [label, predicted, count] of cells) {
    rows.set(label, (rows.get(label) ?? 0) + count);
    totals.set(predicted, (totals.get(predicted) ?? 0) + count);
    totals.set(label, totals.get(label) ?? 0);
  }
  const classes = [...totals.keys()].sort((a, b) => (rows.get(b) ?? 0) - (rows.get(a) ?? 0)).slice(0, SHOWN).sort((a, b) => a - b);
  const at = new Map(cells.map(([label, predicted, count]) => [`${label},${predicted}`, count]));
  const head = (id) => el("span", { title: categoryOf(id)?.name ?? "" }, swatch(categoryOf(id)?.color ?? "#888"), el("span.cut", {}, categoryOf(id)?.name ?? id));
  return el("table.plain.confusion", {}, el("caption.small.soft", {}, `Of ${number(images)} labelled images: rows the label, columns the model, shares of a row. A cell leads to its images.`),
    el("thead", {}, el("tr", {}, el("td"), classes.map((id) => el("th", { scope: "col" }, head(id))))),
    el("tbody", {}, classes.map((label) => el("tr", {}, el("th", { scope: "row" }, head(label)), classes.map((predicted) => {
      const count = at.get(`${label},${predicted}`) ?? 0, share = count / Math.max(1, rows.get(label) ?? 0);
      if (!count) return el("td");
      const says = `label ${categoryOf(label)?.name}, model ${categoryOf(predicted)?.name}: ${number(count)} pixels`;
      return el("td", { style: { "--share": String(share) }, class: label === predicted ? "is-right" : "is-wrong" },
        el("button.bare.small", { type: "button", title: says, "aria-label": says, onclick: () => choose(label, predicted) }, `${Math.round(100 * share)}`));
    })))));
}
