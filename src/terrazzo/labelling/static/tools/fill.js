// The bucket: one click fills what hangs together, where nobody drew or of one object; or all holes that are small.

import { holes, regionAt } from "../regions.js";
import { toast } from "../elements.js";

export default {
  name: "fill", code: "KeyK", title: "Fill", icon: "fill", wheel: false, cursor: "crosshair",
  options: [
    { name: "what", kind: "choice", label: "Fill", choices: [{ value: "region", label: "The region clicked" }, { value: "holes", label: "All small holes" }], value: "region" },
    { name: "most", kind: "range", label: "Holes of fewer pixels than", min: 1, max: 5000, step: 1, value: 100 },
  ],
  down(editor, e) {
    if (e.button !== 0) return;
    if (editor.option("fill", "what") === "holes") fillHoles(editor);
    else fillRegion(editor, e);
  },
};

function fillRegion(editor, e) {
  const { label } = editor;
  if (e.ix < 0 || e.iy < 0 || e.ix >= label.width || e.iy >= label.height) return;
  const old = editor.at(e.ix, e.iy), { ids } = label;
  const runs = regionAt(e.ix, e.iy, label, (index) => ids[index] === old);
  editor.stroke("fill", (_, id) => {
    for (const [y, x0, x1] of runs) label.run(y, x0, x1, id);
  }, { erase: e.erase });
}

// Every hole becomes of the object around it.
function fillHoles(editor) {
  const { label } = editor;
  const found = holes(label, editor.option("fill", "most")).filter(({ around }) => around !== 0);
  if (found.length === 0) {
    toast("There is no such hole.");
    return;
  }
  if (editor.begin("fill", { isFree: true }) === null) return;
  for (const { runs, around } of found) for (const [y, x0, x1] of runs) label.run(y, x0, x1, around);
  editor.commit();
  toast(`Filled ${found.length === 1 ? "one hole" : `${found.length} holes`}.`);
}
