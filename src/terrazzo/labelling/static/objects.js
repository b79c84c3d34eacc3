// What can be done with the object that is selected.

import { toast } from "./elements.js";
import { openPicker } from "./picker.js";
import { change, state } from "./state.js";

export function objectActions(actions) {
  return {
    zoomTo() {
      const bounds = state.editor && state.selection ? boundsOf(state.editor.label, state.selection) : null;
      if (bounds) state.editor.view.zoomTo(bounds);
      else toast("No object is selected.");
    },
    reclass: () => openPicker(state.project.name, { title: "Class of the selected object", onPick: (category) => objectActions(actions).become(category) }),
    // Let the object be of another class. A class that is one area has one object, so its pixels become that one's.
    become(category) {
      const { editor, selection } = state;
      const one = editor?.label.annotations.get(selection);
      if (!one || one.category_id === category || editor.begin("select", { isFree: true }) === null) return;
      const { label } = editor;
      const heir = label.things.has(category) ? null : [...label.annotations.values()].find((other) => other.category_id === category);
      if (heir) label.swap(one.id, heir.id);
      else label.write({ ...one, category_id: category });
      editor.commit();
      editor.colourAll();
      if (heir) change({ selection: heir.id });
    },
    remove() {
      const { editor, selection } = state;
      if (!editor || !selection || editor.begin("select", { isFree: true }) === null) return;
      editor.label.swap(selection, 0);
      editor.commit();
      editor.colourAll();
    },
  };
}

// {x0, y0, x1, y1} around an object's pixels; null where it has none.
export function boundsOf(label, id) {
  const { ids, width } = label;
  const first = ids.indexOf(id);
  if (first < 0) return null;
  const last = ids.lastIndexOf(id);
  const [y0, y1] = [Math.floor(first / width), Math.floor(last / width) + 1];
  let [x0, x1] = [width, 0];
  for (let y = y0; y < y1; y += 1) {
    const row = ids.subarray(y * width, (y + 1) * width);
    const left = row.indexOf(id);
    if (left < 0) continue;
    if (left < x0) x0 = left;
    const right = row.lastIndexOf(id) + 1;
    if (right > x1) x1 = right;
  }
  return { x0, y0, x1, y1 };
}
