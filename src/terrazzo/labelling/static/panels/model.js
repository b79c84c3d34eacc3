// Models on the project's page: which are attached, what their classes are here, what they predict; training on what is
// labelled; and what more labels would be worth, in scores.js.

import * as api from "../api.js";
import { ask, field, menuButton } from "../dialogs.js";
import { ago, el, icon, iconButton, number, percent, plural, swatch, tell, toast } from "../elements.js";
import { may, state, watch } from "../state.js";
import { scoresPanel } from "./scores.js";

const RUNNING = ["waiting", "running"];

export function modelPanel(project, refresh) {
  const list = el("ul.models", { "aria-label": "Models" });
  const work = el("div.work", { "aria-label": "What models do now", role: "group" });
  const attach = el("button", { type: "button", onclick: () => attachModel(project, refresh).catch(tell) }, icon("plus", 16), "Attach");
  const train = el("button", { type: "button", onclick: () => trainModel(project, follow).catch(tell) }, icon("play", 16), "Train on this");
  const scores = scoresPanel(project);
  const element = el("section.card", { "aria-labelledby": "models-title" },
    el("header", {}, el("h2", { id: "models-title" }, "Models"), attach, train), work, list, scores.element);
  const jobs = new Map(); // id -> its line
  const stands = new Map(); // id -> what a training told last

  const follow = (job) => {
    if (!["predict", "train", "score"].includes(job.kind)) return;
    let line = jobs.get(job.id);
    if (!line && !RUNNING.includes(job.state)) return;
    if (!line) {
      line = jobLine(job);
      jobs.set(job.id, line);
      work.append(line.element);
    }
    line.show(job, stands.get(job.id));
    if (RUNNING.includes(job.state)) return;
    jobs.delete(job.id);
    line.element.remove();
    ended(project, job);
    refresh();
    scores.refresh();
  };

  const look = async () => {
    const { items } = await api.get(api.at(project, "jobs"));
    for (const job of items) if (RUNNING.includes(job.state) || jobs.has(job.id)) follow(job);
  };

  const unwatch = watch(["project"], () => {
    attach.hidden = train.hidden = !may("admin");
    const models = state.project?.models ?? [];
    list.replaceChildren(...models.map((one, index) => row(project, one, index === 0, { refresh, look })));
    if (models.length === 0) {
      list.append(el("li.empty", {}, "A model labels in advance what nobody has drawn, and says which image to draw next. Attach a run, or train one on what is labelled."));
    }
  });
  look().catch(() => {});
  scores.refresh();
  return {
    element,
    tell(event) {
      if (event.kind === "training") stands.set(event.job, event);
      if (event.kind === "job") follow(event.job);
      if (event.kind === "reconnected") look().catch(() => {});
      if (event.kind === "model") scores.refresh();
    },
    close: () => { unwatch(); scores.close(); },
  };
}

function row(project, one, isNewest, { refresh, look }) {
  const total = Object.values(state.project.counts).reduce((sum, count) => sum + count, 0);
  const missing = one.classes.filter((each) => each.category_id === null);
  const run = async (body) => {
    await api.send("POST", api.at(project, "predict"), { model: one.hash, ...body });
    await look();
  };
  const more = menuButton(iconButton("more", `More on ${one.name}`), () => [
    { label: "Classes …", icon: "tags", run: () => showClasses(project, one, refresh).catch(tell) },
    { label: "Predict all again", icon: "prelabel", disabled: !may("reviewer"), run: () => run({ again: true }).catch(tell) },
    { label: "Compare with the labels anew", icon: "swap", disabled: !may("labeller"), run: () => api.send("POST", api.at(project, "scores"), { model: one.hash }).then(look, tell) },
    null,
    { label: "Detach", icon: "trash", danger: true, disabled: !may("admin"), run: () => api.send("DELETE", api.at(project, "models", one.hash)).then(refresh, tell) },
  ]);
  const left = total - one.predicted;
  const predict = left > 0 && may("reviewer")
    ? el("button", { type: "button", onclick: () => run({}).catch(tell) }, icon("prelabel", 16), `Predict ${plural(left, "image")}`) : null;
  return el("li", { "data-model": one.hash },
    el("div.row", {}, el("b", {}, one.name), isNewest ? el("span.badge", {}, "orders the queue") : null,
      el("span.mono.soft", { title: "the beginning of a sha256 over its weights" }, one.hash.slice(0, 8)), el("span.grow"), predict, more),
    el("span.soft.small", {}, [
      one.miou === null ? "no validation of its own" : `${(100 * one.miou).toFixed(1)} mIoU on its validation`,
      `saw ${number(one.predicted)} of ${plural(total, "image")}`, `attached ${ago(one.at)}`,
    ].join(" · ")),
    missing.length ? el("button.link.small", { type: "button", onclick: () => showClasses(project, one, refresh).catch(tell) },
      `${plural(missing.length, "class", "classes")} without a category: left out`) : null);
}

// -- attaching ----------------------------------------------------------------------------------------------------------

async function attachModel(project, refresh) {
  const path = el("input", { required: true, maxlength: 1000, autocomplete: "off", spellcheck: "false", placeholder: "runs/street-v1" });
  const plan = await ask({
    title: "Attach a model",
    fields: [field("Run or model", path, "On the machine that serves this page, from the folder of the project on. It is read, never changed.")],
    confirm: "Look at it",
    read: async () => ({ ...(await api.send("POST", api.at(project, "models"), { path: path.value, dry_run: true })), path: path.value }),
  });
  if (plan && await mapClasses(plan, (body) => api.send("POST", api.at(project, "models"), { path: plan.path, ...body }))) {
    toast(`${plan.name} is attached.`);
    refresh();
  }
}

// Show which class is which category before it counts; what has none is added or left out, as one says.
function mapClasses(plan, send) {
  const rows = plan.classes.map((one) => {
    const choice = el("select", { "aria-label": `What ${one.name} is here` },
      el("option", { value: "" }, "left out"), one.category_id === null ? el("option", { value: "+" }, "add as a class") : null,
      state.categories.map((category) => el("option", { value: String(category.id) }, category.name)));
    choice.value = one.category_id === null ? (state.categories.length ? "" : "+") : String(one.category_id);
    const hint = one.similar ? el("span.warn.small", {}, `“${one.similar}” is written otherwise`) : null;
    return { one, choice, element: el("tr", {}, el("th", { scope: "row" }, one.name), el("td", {}, choice, hint)) };
  });
  return ask({
    title: `What the classes of ${plan.name} are here`,
    fields: [el("p.soft", {}, "By equal names alone; nothing is guessed. Pixels of what is left out stay unlabelled."),
      el("div.scroll", {}, el("table.plain", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Class of the model"), el("th", { scope: "col" }, "Class of the project"))), el("tbody", {}, rows.map((row) => row.element))))],
    confirm: "Attach",
    wide: true,
    read: () => send({
      add: rows.filter(({ choice }) => choice.value === "+").map(({ one }) => one.name),
      mapping: Object.fromEntries(rows.filter(({ choice }) => choice.value !== "+").map(({ one, choice }) => [one.name, choice.value ? Number(choice.value) : null])),
    }),
  });
}

async function showClasses(project, one, refresh) {
  await ask({
    title: `Classes of ${one.name}`,
    fields: [el("div.scroll", {}, el("table.plain", {}, el("tbody", {}, one.classes.map((each) => el("tr", {},
      el("td", {}, swatch(each.color), " ", each.name),
      el("td", {}, each.category_id === null ? el("span.warn", {}, "left out") : state.categories.find((category) => category.id === each.category_id)?.name ?? "?")))))),
    el("p.soft.small", {}, "To change this, attach the same model again.")],
    confirm: null, cancel: "Close",
  });
  refresh();
}

// -- training -----------------------------------------------------------------------------------------------------------

async function trainModel(project, follow) {
  const form = await api.get(api.at(project, "train"));
  const recipe = el("select", {}, form.recipes.map((name) => el("option", {}, name)));
  const start = el("select", {}, el("option", { value: "" }, "what the recipe says"), form.models.map((one) => el("option", { value: one.hash }, `the weights of ${one.name}`)));
  const minutes = el("input", { type: "number", min: 0.1, max: 1440, step: "any", placeholder: "as many as the steps take" });
  const overrides = el("textarea", { rows: 4, spellcheck: "false", class: "mono", value: form.overrides.join("\n") });
  const release = el("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", maxlength: 100, value: form.release, autocomplete: "off", spellcheck: "false" });
  const wanted = Math.max(1, Math.round(0.2 * form.finished));
  const says = form.finished < 2 ? "At least two finished labels are needed."
    : `${plural(form.finished, "finished label")}, ${number(form.touched)} drawn on by people. ${form.val >= wanted ? number(form.val) : `About ${number(wanted)}`} of those validate; what a model made never does.`;
  const job = await ask({
    title: "Train on what is labelled",
    fields: [el("p", { class: form.finished < 2 || form.touched === 0 ? "warn" : "soft" }, says),
      field("Release", release, "A new name makes a release of the labels as they are; an old one is trained on again."),
      field("Recipe", recipe), field("Begin with", start),
      field("Minutes", minutes, "Then steps and crops are chosen to fit, after measuring a few steps here."),
      el("details", {}, el("summary", {}, "Overrides, one a line"), field("key=value", overrides, "Such as train.steps=600; terrazzo recipes RECIPE tells them all."))],
    confirm: "Train",
    wide: true,
    read: async () => {
      const lines = overrides.value.split("\n").map((line) => line.trim()).filter(Boolean);
      const isTimed = minutes.value !== "";
      const { job: number_ } = await api.send("POST", api.at(project, "train"), {
        recipe: recipe.value, release: release.value.trim(), start: start.value || null, minutes: isTimed ? Number(minutes.value) : null,
        overrides: isTimed ? lines.filter((line) => !/^(train\.steps|eval\.every)=/.test(line)) : lines,
      });
      return api.get(`/jobs/${number_}`);
    },
  });
  if (job) follow(job);
}

// -- what runs ----------------------------------------------------------------------------------------------------------

const NAMES = { predict: "Predicting", train: "Training", score: "Comparing" };

function jobLine(first) {
  const bar = el("progress", { max: 1, "aria-label": NAMES[first.kind] });
  const says = el("span.small.soft", { role: "status" });
  const curve = el("canvas.curve", { width: 220, height: 44, "aria-hidden": "true", hidden: true });
  const cancel = iconButton("close", "Stop it", () => {
    cancel.disabled = true;
    api.send("DELETE", `/jobs/${first.id}`).catch(tell);
  });
  const losses = [];
  const element = el("div.job", { "data-job": first.id, "data-kind": first.kind }, el("div.row", {}, el("b", {}, NAMES[first.kind]), bar, cancel), says, curve);
  return {
    element,
    show(job, stand) {
      if (job.state === "running" && job.progress > 0) bar.value = job.progress;
      says.textContent = job.state === "waiting" ? "waits for what runs before it" : job.says;
      if (stand && stand.loss !== null && losses.at(-1)?.step !== stand.step) {
        losses.push({ step: stand.step, loss: stand.loss });
        draw(curve, losses, stand.steps);
      }
    },
  };
}

function draw(canvas, losses, steps) {
  if (losses.length < 2) return;
  canvas.hidden = false;
  const context = canvas.getContext("2d"), top = Math.max(...losses.map((one) => one.loss));
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5;
  context.beginPath();
  for (const { step, loss } of losses) context.lineTo((step / Math.max(1, steps)) * canvas.width, canvas.height - 2 - (loss / top) * (canvas.height - 4));
  context.stroke();
}

function ended(project, { kind, state: how, result, problem }) {
  if (how === "failed") {
    toast(problem?.detail ?? "It failed.", "bad");
  } else if (kind === "train") {
    if (how === "cancelled") toast(`Stopped at step ${number(result?.step ?? 0)}, saved as ${result?.run ?? "a run"}.`);
    else offerToPredict(project, result);
  } else if (kind === "predict") {
    toast(`${plural(result?.samples ?? 0, "image")} predicted, ${number(result?.prelabelled ?? 0)} of them prelabelled.`);
    if (result?.num_failed) toast(`${plural(result.num_failed, "image")} could not be read: ${result.failed[0].says}`, "warn");
  }
}

function offerToPredict(project, { run, miou, model }) {
  const message = toast(`${run} is trained${miou === null ? "" : `: ${percent(miou)} mIoU on its validation`}.`, "plain", { seconds: 0 });
  if (!model || !may("reviewer")) return;
  message.append(el("button", { type: "button", onclick: () => {
    message.remove();
    api.send("POST", api.at(project, "predict"), { model }).catch(tell);
  } }, "Predict all images"));
}
