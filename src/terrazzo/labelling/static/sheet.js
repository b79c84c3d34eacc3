// The sheet of keys, drawn from the keys themselves: which preset, what each does, and another key for it.

import { ask } from "./dialogs.js";
import { el } from "./elements.js";
import { PRESETS, chordFrom, list, rebind, scheme, spoken, usePreset } from "./keys.js";

const TITLES = { segments: "Segments.ai (default)", cvat: "CVAT", labelme: "labelme" };
const POINTER = [
  ["Wheel", "Size or granularity of the tool"], ["Ctrl wheel, pinch", "Zoom at the pointer"], ["Space, Ctrl drag, middle drag", "Pan"],
  ["⇧ click (brush)", "Straight line from the last point"], ["Alt click", "Take the class under the pointer"],
];

export function openSheet() {
  const preset = el("select", { "aria-label": "Preset of keys", onchange: () => { usePreset(preset.value); draw(); } },
    Object.keys(PRESETS).map((name) => el("option", { value: name, ...(name === scheme.preset ? { selected: true } : {}) }, TITLES[name])));
  const said = el("p.bad", { role: "alert" });
  const sheet = el("div.sheet");
  const draw = () => {
    sheet.replaceChildren(...[...grouped(list())].map(([group, actions]) => el("section", {}, el("h3", {}, group),
      el("dl", {}, together(actions).map((some) => (some.length > 1 ? row(some, said, draw) : line(some[0], said, draw)))))),
    el("section", {}, el("h3", {}, "Pointer"), el("dl", {}, POINTER.map(([key, says]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, says))))));
  };
  draw();
  const reset = el("button", { type: "button", onclick: () => { usePreset(scheme.preset); draw(); } }, "Reset my keys");
  return ask({
    title: "Keys",
    fields: [el("div.row", {}, el("label.row", {}, "Preset", preset), reset, el("span.soft.small.grow", {}, "Press a key here to give an action another one.")), said, el("div.scroll", { tabindex: 0, role: "region", "aria-label": "All keys" }, sheet)],
    confirm: null, cancel: "Close", wide: true,
  });
}

// Ten classes are one line, and so are four arrows.
const TOGETHER = [[/^class\.\d$/, "Class 1 to 10"], [/^pen\.(left|right|up|down)$/, "Move the crosshair; with ⇧ by one pixel"]];

function together(actions) {
  const lines = [];
  for (const one of actions) {
    const [pattern] = TOGETHER.find(([each]) => each.test(one.id)) ?? [];
    const before = pattern && lines.find((some) => pattern.test(some[0].id));
    if (before) before.push(one);
    else lines.push([one]);
  }
  return lines;
}

function row(actions, said, draw) {
  const [, says] = TOGETHER.find(([pattern]) => pattern.test(actions[0].id));
  return el("div.many", {}, el("dt", {}, actions.map((one) => keyButton(one, said, draw))), el("dd", {}, says));
}

function line(action, said, draw) {
  const also = action.also.filter((one) => !one.includes("Numpad")).map((one) => el("kbd", {}, spoken(one)));
  return el("div", {}, el("dt", {}, keyButton(action, said, draw), also), el("dd", {}, action.title));
}

function keyButton(action, said, draw) {
  const button = el("button.key", { type: "button", "aria-label": `${action.title}: ${spoken(action.chord)}. Give it another key`, "data-action": action.id },
    el("kbd", {}, `${action.hold ? "hold " : ""}${spoken(action.chord)}`));
  button.addEventListener("click", () => listenFor(action, button, said, draw));
  return button;
}

function listenFor(action, button, said, draw) {
  said.textContent = "";
  button.replaceChildren(el("kbd.asks", {}, "press a key …"));
  const hear = (event) => {
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return; // with what?
    event.preventDefault();
    event.stopPropagation();
    if (event.code !== "Escape") {
      try {
        rebind(action.id, chordFrom(event));
      } catch (error) {
        said.textContent = error.message;
      }
    }
    end();
    document.querySelector(`.sheet [data-action="${action.id}"]`)?.focus();
  };
  const end = () => {
    button.removeEventListener("keydown", hear, true);
    button.removeEventListener("blur", end);
    draw();
  };
  button.addEventListener("keydown", hear, true);
  button.addEventListener("blur", end);
}

const ORDER = ["Tools", "Classes", "Drawing", "Images", "View", "Panels", "Without a mouse"];

function grouped(actions) {
  const groups = new Map(ORDER.filter((group) => actions.some((one) => one.group === group)).map((group) => [group, []]));
  for (const one of actions) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
  return groups;
}
