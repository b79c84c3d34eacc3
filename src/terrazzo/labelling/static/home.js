// The first screen: the projects of this server, and a new one.

import * as api from "./api.js";
import { el, plural, tell } from "./elements.js";
import { change } from "./state.js";

export const name = "home";

export async function open(root) {
  const told = await api.get("/");
  change({ person: { name: told.user, role: told.role, isSingleUser: told.is_single_user }, project: null });
  document.title = "terrazzo label";
  const field = el("input", { id: "new-project", required: true, maxlength: 80, autocomplete: "off" });
  const form = el("form.row", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        const made = await api.send("POST", "/projects", { name: field.value.trim() });
        location.hash = `#/${encodeURIComponent(made.name)}`;
      } catch (error) {
        tell(error);
      }
    },
  }, el("label", { for: "new-project" }, "New project"), field, el("button.primary", { type: "submit" }, "Create"));
  root.replaceChildren(el("main.home", { id: "main" },
    el("h1", {}, "Projects"),
    el("ul.projects", {}, told.projects.map((one) => el("li", {},
      el("a", { href: `#/${encodeURIComponent(one.name)}` }, one.name), " ", plural(one.samples, "image")))),
    form));
  return { close() {} };
}
