// One project: its images, classes, progress, releases and models, and the way into the editor.

import * as api from "./api.js";
import { STATUSES, el, icon, number, plural, tell, toast } from "./elements.js";
import { parts } from "./home.js";
import { filterOf } from "./listing.js";
import { masthead } from "./masthead.js";
import { activityPanel } from "./panels/activity.js";
import { categoriesPanel } from "./panels/categories.js";
import { imagesPanel } from "./panels/images.js";
import { modelPanel } from "./panels/model.js";
import { releasesPanel } from "./panels/releases.js";
import { go } from "./routes.js";
import { change, may, state, watch } from "./state.js";

export const name = "project";

export async function open(root, project) {
  const refresh = async () => know(await api.get(api.at(project)));
  await refresh();
  document.title = `${project} · terrazzo`;
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => refresh().catch(() => {}), 250); // a server that is away is told of elsewhere
  };
  const images = imagesPanel(project);
  const activity = may("reviewer") ? activityPanel(project) : null; // the log is for them
  const model = modelPanel(project, soon);
  const panels = [categoriesPanel(project, soon), releasesPanel(project, soon), model, activity].filter(Boolean);
  const live = []; // what ends the parts that follow the project
  const progress = progressBar(images);
  root.replaceChildren(masthead(project), el("main.page", { id: "main" },
    el("div.head", {}, el("div.title", {}, el("h1", {}, project), subtitle(live)), startButton(project, live)),
    progress.element,
    el("div.columns", {}, el("div.column", {}, images.element), el("div.column", {}, panels.map((one) => one.element)))));

  let changed = new Set();
  let asking = 0;
  const unlisten = api.listen(project, (event) => {
    soon();
    if (event.kind === "reconnected" || event.kind === "samples") images.reload();
    if (["revision", "status", "lease", "issue"].includes(event.kind) && event.sample) {
      changed.add(event.sample);
      clearTimeout(asking);
      asking = setTimeout(() => {
        images.refresh(changed).catch(() => {});
        changed = new Set();
      }, 200);
    }
    activity?.refresh();
    model?.tell?.(event);
  });
  return {
    close() {
      unlisten();
      clearTimeout(timer);
      clearTimeout(asking);
      progress.close();
      for (const end of live) end();
      images.close();
      for (const one of panels) one.close?.();
    },
  };
}

// Take what the server says of a project.
export function know(told) {
  change({
    project: told, categories: told.categories,
    person: { name: told.user, role: told.role, isSingleUser: told.is_single_user },
  });
}

function progressBar(images) {
  const bar = el("div");
  const legend = el("div.legend", { role: "group", "aria-label": "Show images of one status" });
  let chosen = "";
  const draw = () => {
    const { counts } = state.project;
    const total = Object.values(counts).reduce((sum, one) => sum + one, 0);
    bar.replaceChildren(parts(counts, total));
    const there = Object.keys(STATUSES).filter((status) => counts[status] > 0 || status === chosen);
    const focused = legend.contains(document.activeElement) ? document.activeElement.dataset.status : null;
    legend.replaceChildren(...there.map((status) => el("button.chip", {
      type: "button", "data-status": status, "aria-pressed": String(status === chosen), onclick: () => images.filter({ status: status === chosen ? "" : status }),
    }, el("i", { "aria-hidden": "true" }), STATUSES[status], el("b", {}, number(counts[status] ?? 0)))));
    if (focused) legend.querySelector(`[data-status="${focused}"]`)?.focus();
    element.hidden = total === 0;
  };
  const element = el("section", { "aria-label": "Progress" }, bar, legend);
  images.onFilter(({ status }) => {
    chosen = status;
    draw();
  });
  const close = watch(["project"], draw, { now: false });
  return { element, close };
}

function subtitle(live) {
  const line = el("p.soft");
  live.push(watch(["project"], () => {
    const { counts, root } = state.project;
    const total = Object.values(counts).reduce((sum, one) => sum + one, 0);
    const done = (counts.labelled ?? 0) + (counts.reviewed ?? 0);
    line.textContent = total ? `${number(done)} of ${plural(total, "image")} done, below ${root}/` : `Images lie below ${root}/`;
  }));
  return line;
}

function startButton(project, live) {
  const button = el("button.primary.big", { type: "button", onclick: () => start(project).catch(tell) }, icon("play", 16), "Start labelling");
  live.push(watch(["project"], () => { button.disabled = !Object.values(state.project?.counts ?? {}).some((one) => one > 0); }));
  return button;
}

// Open the image that wants somebody first.
async function start(project) {
  const { order } = filterOf(project);
  const { sample } = await api.get(`${api.at(project, "queue", "next")}?order=${encodeURIComponent(order)}`);
  if (sample) {
    go(project, sample.id);
    return;
  }
  toast("Nothing is left to do. The first image is opened.");
  const { items } = await api.get(`${api.at(project, "samples")}?limit=1`);
  if (items.length) go(project, items[0].id);
}
