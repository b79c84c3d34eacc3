// Which key does what. Keys are places on the keyboard (KeyboardEvent.code), so that they stay where they are on any
// layout; two actions never have the same one: that is refused, not warned of. What is typed into a field is never a key.

import { keep, kept } from "./state.js";

export const PRESETS = {
  segments: {}, // the keys that the actions themselves name
  cvat: {
    "tool.brush": "KeyN", "tool.polygon": "KeyP", "tool.wand": "KeyI", "next-uncertain": "Period", "next-unlabelled": "Shift+Period",
    "hold-image": "KeyQ", "image.next": "KeyF", "image.previous": "KeyD", "tool.hover": "KeyU", "view.fit": "KeyJ",
    "pen.press": "Shift+KeyP",
  },
  labelme: {
    "tool.polygon": "Ctrl+KeyN", "image.next": "KeyD", "image.previous": "KeyA", "tool.hover": "KeyU", "tool.box": "KeyQ",
    "view.fit": "Ctrl+KeyF",
  },
};

const MODIFIERS = ["Ctrl", "Alt", "Shift"];
const actions = new Map(); // id -> {id, code, also, title, group, hold, run}
const held = new Map(); // code -> action whose key is down
let firsts = []; // asked before the actions, the last one first
let layout = null;

export const scheme = { preset: kept("keys.preset", "segments"), custom: kept("keys.custom", {}) };
if (!Object.hasOwn(PRESETS, scheme.preset)) scheme.preset = "segments";

// Let `run(event)` happen at a key: bind("tool.brush", {code: "KeyB", title: "Brush", group: "Tools", run}). code: "KeyB",
// "Shift+KeyR", "Ctrl+Enter"; also: more of them. hold: run(true) when it goes down, run(false) when it is let go.
// Returns what ends it. A key that another action has is refused.
export function bind(id, { code, also = [], title, group = "Page", hold = false, repeat = false, run }) {
  const action = { id, code, also, title, group, hold, repeat, run };
  const taken = [code, ...also].filter(Boolean).map((one) => [one, whoHas(one, id, (other) => other.code)]).find(([, other]) => other);
  if (taken) throw new Error(`The key ${taken[0]} of ${id} is already that of ${taken[1].id}.`);
  actions.set(id, action);
  return () => {
    if (actions.get(id) === action) actions.delete(id);
  };
}

// Ask `handler(event)` before all actions; true: it was his. For a tool's own keys, and dialogs.
export function first(handler) {
  firsts = [handler, ...firsts];
  return () => { firsts = firsts.filter((one) => one !== handler); };
}

// All actions with the chord that leads to each now: [{id, title, group, hold, chord, also}].
export function list() {
  return [...actions.values()].map((one) => ({ ...one, chord: chordOf(one) }));
}

export function chordOf({ id, code }) {
  return scheme.custom[id] ?? PRESETS[scheme.preset][id] ?? code;
}

// Give an action another key; throws with the name of the action that has it. null: back to the preset's.
export function rebind(id, chord) {
  if (chord !== null) {
    const other = whoHas(chord, id, chordOf);
    if (other) throw new Error(`${spoken(chord)} is already “${other.title}”.`);
  }
  scheme.custom = { ...scheme.custom };
  if (chord === null) delete scheme.custom[id];
  else scheme.custom[id] = chord;
  keep("keys.custom", scheme.custom);
}

// Use a preset; keys of one's own are dropped.
export function usePreset(name) {
  Object.assign(scheme, { preset: name, custom: {} });
  keep("keys.preset", name);
  keep("keys.custom", {});
}

export function chordFrom(event) {
  const down = { Ctrl: event.ctrlKey || event.metaKey, Alt: event.altKey, Shift: event.shiftKey };
  return [...MODIFIERS.filter((name) => down[name]), event.code].join("+");
}

// A chord as a person calls it, by the layout of the keyboard where the browser knows it.
export function spoken(chord) {
  if (chord === "Shift+Slash") return "?";
  return chord.split("+").map((part) => NAMES[part] ?? layout?.get(part)?.toUpperCase() ?? part.replace(/^Key|^Digit/, "").replace(/^Numpad/, "Num ")).join(" ");
}

const NAMES = {
  Ctrl: "Ctrl", Alt: "Alt", Shift: "⇧", Escape: "Esc", Enter: "↵", Backspace: "⌫", Delete: "Del", PageDown: "PgDn", PageUp: "PgUp",
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", BracketLeft: "[", BracketRight: "]", Slash: "/", Space: "Space",
  Period: ".", Comma: ",", Minus: "−", Equal: "+",
};

function whoHas(chord, id, codeOf) {
  return [...actions.values()].find((one) => one.id !== id && (codeOf(one) === chord || one.also.includes(chord)));
}

export function isTyping(target) {
  if (!(target instanceof Element)) return false;
  if (target.closest("textarea, select, [contenteditable='true']")) return true;
  const input = target.closest("input");
  return input !== null && !["checkbox", "radio", "range", "color", "button", "submit", "file"].includes(input.type);
}

// A key that the focused control itself needs: Space and Enter press a button, arrows move a slider or a list.
function isControls(event) {
  const target = event.target instanceof Element ? event.target : null;
  if (!target || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (["Enter", "Space"].includes(event.code) && !event.shiftKey && target.closest("button, a[href], summary, [role=option], input")) return true;
  const isArrow = event.code.startsWith("Arrow") || ["Home", "End"].includes(event.code);
  return isArrow && target.closest("input, select, [role=listbox], [role=tablist], [role=toolbar], [role=tree]") !== null;
}

function down(event) {
  if (event.isComposing || isTyping(event.target) || document.querySelector("dialog[open], [popover]:popover-open")) return;
  if (isControls(event)) return;
  if (firsts.some((handler) => handler(event))) {
    event.preventDefault();
    return;
  }
  const chord = event.key === "?" ? "Shift+Slash" : chordFrom(event); // wherever a layout has its question mark
  for (const action of actions.values()) {
    if (chordOf(action) !== chord && !action.also.includes(chord)) continue;
    event.preventDefault();
    if (action.hold) {
      if (!held.has(event.code)) {
        held.set(event.code, action);
        action.run(true, event);
      }
    } else if (!event.repeat || action.repeat) {
      action.run(event);
    }
    return;
  }
}

function up(event) {
  const action = held.get(event.code);
  if (!action) return;
  held.delete(event.code);
  action.run(false, event);
}

function letGo() {
  for (const [code, action] of [...held]) {
    held.delete(code);
    action.run(false, null);
  }
}

addEventListener("keydown", down);
addEventListener("keyup", up);
addEventListener("blur", letGo); // a key that is let go elsewhere is never heard of
navigator.keyboard?.getLayoutMap?.().then((map) => { layout = map; }, () => {});
