// The keys of the editor. Tools bring their own; everything else is here, so that the sheet shows all of it.

import { list, bind } from "./keys.js";
import { change, changeView, pick, state } from "./state.js";
import { toggleLock } from "./panels/classes.js";

// Where each tool is on the keyboard; a tool that is not here names its own place as `code`. (Its `key` is what it does
// with keys that are pressed while it is used.)
const TOOL_KEYS = {
  select: "KeyV", brush: "KeyB", eraser: "Shift+KeyE", polygon: "KeyG", superpixel: "KeyS", box: "KeyA", hover: "KeyD", wand: "KeyW", fill: "KeyK",
  prelabel: "KeyM",
};

export function codeOf(tool) {
  return tool.code ?? TOOL_KEYS[tool.name] ?? null;
}

export function bindTools(editor) {
  return [...editor.tools].filter(codeOf).map((tool) => bindOnce(`tool.${tool.name}`, {
    code: codeOf(tool), title: tool.title, group: "Tools", also: tool.name === "select" ? ["Escape"] : [], run: () => state.editor?.select(tool.name),
  }));
}

// actions: what the frame can do; see frame.js.
export function bindEditor(actions) {
  const ends = [];
  const on = (id, code, title, group, run, more = {}) => ends.push(bindOnce(id, { code, title, group, run, ...more }));
  const editor = (run) => () => state.editor && run(state.editor);

  on("image.submit", "Ctrl+Enter", "Submit, and on to the next", "Images", actions.submit);
  on("image.skip", "Ctrl+Space", "Skip, and on to the next", "Images", actions.skip);
  on("image.next", "PageDown", "Next image", "Images", actions.next, { also: ["Ctrl+ArrowRight"] });
  on("image.previous", "PageUp", "Previous image", "Images", actions.previous, { also: ["Ctrl+ArrowLeft"] });
  on("image.accept", "Shift+Enter", "Review: accept", "Images", actions.accept);
  on("image.reject", "Shift+Backspace", "Review: reject, with a reason", "Images", actions.reject);
  on("image.save", "Ctrl+KeyS", "Have everything at the server now", "Images", actions.flush);

  on("class.pick", "KeyC", "Choose a class by its letters", "Classes", actions.pick);
  on("class.swap", "KeyX", "Back to the class before", "Classes", () => state.previous && pick(state.previous));
  for (let digit = 1; digit <= 10; digit += 1) {
    const key = digit % 10;
    on(`class.${key}`, `Digit${key}`, `Class ${digit}`, "Classes", () => {
      const one = state.categories[digit - 1];
      if (one) pick(one.id);
    }, { also: [`Numpad${key}`] });
  }
  on("protect", "KeyR", "Protect: paint over unlabelled pixels alone", "Classes", () => change({ protect: !state.protect }));
  on("lock", "Shift+KeyR", "Lock the class", "Classes", () => state.category && toggleLock(state.category));

  on("undo", "Ctrl+KeyZ", "Undo", "Drawing", actions.undo, { repeat: true });
  on("redo", "Ctrl+Shift+KeyZ", "Redo", "Drawing", actions.redo, { also: ["Ctrl+KeyY"], repeat: true });

  on("hold-image", "KeyI", "The image alone", "View", (isDown) => changeView({ held: isDown ? "image" : null }), { hold: true });
  on("hold-label", "KeyL", "The label alone", "View", (isDown) => changeView({ held: isDown ? "label" : null }), { hold: true });
  on("hide-selection", "KeyH", "Hide what is selected", "View", () => changeView({ hideSelection: !state.view.hideSelection }));
  on("view.fit", "KeyF", "Fit the image", "View", editor((one) => one.view.fit()));
  on("view.actual", "Ctrl+Digit0", "100 %", "View", editor((one) => one.view.actual()));
  on("view.in", "Equal", "Nearer", "View", editor((one) => one.view.zoomAt(one.view.width / 2, one.view.height / 2, 1.25)), { also: ["NumpadAdd"], repeat: true });
  on("view.out", "Minus", "Farther", "View", editor((one) => one.view.zoomAt(one.view.width / 2, one.view.height / 2, 0.8)), { also: ["NumpadSubtract"], repeat: true });
  on("view.object", "KeyT", "To the selected object", "View", actions.zoomTo);

  for (const [index, { name, title }] of actions.panels.entries()) on(`panel.${name}`, `Alt+Digit${index + 1}`, title, "Panels", () => actions.choose(name));
  on("keys", "Shift+Slash", "This sheet", "Panels", actions.help, { also: ["F1"] });
  return () => ends.forEach((end) => end());
}

// The editor's own modules may have bound an action of this name already; then theirs stands.
function bindOnce(id, options) {
  return list().some((one) => one.id === id) ? () => {} : bind(id, options);
}
