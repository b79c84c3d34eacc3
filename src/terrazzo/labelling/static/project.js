// One project: its images, categories, progress, releases and models, and the way into the editor.

import * as api from "./api.js";
import { el } from "./elements.js";
import { change } from "./state.js";

export const name = "project";

export async function open(root, project) {
  const told = await api.get(api.at(project));
  const samples = await api.get(api.at(project, "samples"));
  change({ project: told, categories: told.categories });
  document.title = `${project} · terrazzo`;
  root.replaceChildren(el("main.project", { id: "main" },
    el("h1", {}, project),
    el("ul", {}, samples.items.map((one) => el("li", {}, el("a", { href: `#/${encodeURIComponent(project)}/${one.id}` }, one.name))))));
  return { close() {} };
}
