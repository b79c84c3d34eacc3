// The editor's frame: bars, rail, panels and filmstrip around the stage, where editor.js draws. It opens one image after
// another, holds the lease on each, and says in the top bar how what was drawn is kept.
//
// What it asks of the editor: openEditor(stage, {project: name, sample, client}) -> editor (or a promise of it) with
//   tools      [Tool] in the order of the rail; Tool.key is a KeyboardEvent.code chord such as "KeyB"
//   select(n)  use the tool called n (and state.tool is n)
//   label      Label: width, height, ids, annotations, category
//   undo       {undo(), redo(), canUndo, canRedo}
//   sync       {flush() -> promise: everything is at the server}
//   view       {fit(), actual(), zoomTo(bounds), centre(x, y)}
//   reload()   take the label from the server anew: another page drew, or an old revision stands again
//   close()    let go; what is not at the server yet stays in the journal
// and of state: it sets tool, saved, read_only (damaged labels), zoom, cursor, drawn; see state.js.

import { el } from "./elements.js";
import * as api from "./api.js";
import { change, state } from "./state.js";

export const name = "frame";

export async function open(root, project, id) {
  const stage = el("div.stage", { tabindex: 0, role: "application", "aria-label": "Image" });
  root.replaceChildren(el("main.editor", { id: "main" }, stage));
  let editor = null;
  const goTo = async (_, number) => {
    await editor?.close();
    change({ editor: null });
    const sample = await api.get(api.at(project, "samples", number));
    change({ sample });
    const { openEditor } = await import("./editor.js");
    stage.replaceChildren();
    editor = await openEditor(stage, { project, sample, client: state.client });
    change({ editor });
  };
  const told = await api.get(api.at(project));
  change({ project: told, categories: told.categories });
  await goTo(project, id);
  return { go: goTo, close: async () => { await editor?.close(); change({ editor: null, sample: null }); } };
}
