// Labels of others brought into a project: looked at first, then taken, all or none.

import * as api from "./api.js";
import { ask, field } from "./dialogs.js";
import { el, toast } from "./elements.js";
import { state } from "./state.js";

const FORMATS = {
  "data-set": "A data set (folders, tables)", segments: "Segments.ai", coco: "COCO", cvat: "CVAT", labelme: "labelme", "label-studio": "Label Studio",
};

export async function bringIn(project, refresh) {
  const format = el("select", {}, Object.entries(FORMATS).map(([value, says]) => el("option", { value }, says)));
  const path = el("input", { required: true, autocomplete: "off", spellcheck: "false", placeholder: "labels/2026" });
  const report = el("pre.scroll.small", { role: "status", tabindex: 0, "aria-label": "What is found", hidden: true });
  const say = (text) => {
    report.hidden = false;
    report.textContent = text;
  };
  const run = async (isDry) => {
    const { job } = await api.send("POST", api.at(project, "imports"), { format: format.value, path: path.value.trim(), dry_run: isDry });
    return api.finished(job, { onProgress: ({ says }) => { if (says) say(says); } });
  };
  const look = el("button", {
    type: "button",
    onclick: async () => {
      try {
        say((await run(true)).text);
      } catch (error) {
        say(error.message);
      }
    },
  }, "Look first");
  const told = await ask({
    title: "Bring labels in",
    fields: [
      field("Format", format), field("File or folder", path, `On the server, below the project's folder ${state.project.root}. It is only read; an image that has a label keeps it.`),
      el("div", {}, look), report,
    ],
    confirm: "Bring in", wide: true,
    read: () => run(false),
  });
  if (!told) return;
  toast(told.text);
  refresh();
}
