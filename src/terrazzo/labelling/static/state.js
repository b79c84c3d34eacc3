// What the page knows just now: one object, read by all, changed by `change` alone, and told to who watches.
//
// How one looks at things (opacity, hidden classes, options of tools) is kept in this browser at most; it never reaches
// the server, and so never a label.

const PREFIX = "terrazzo.";

export const state = {
  person: { name: "", role: "labeller", isSingleUser: true }, // who asks; role: viewer | labeller | reviewer | admin
  client: "", // this tab, as leases and operations know it
  project: null, // GET /projects/P
  categories: [], // [{id, name, color: "#rrggbb", has_instances, is_ignore}]
  sample: null, // GET /projects/P/samples/S, of the editor
  editor: null, // what openEditor returned, while one is open
  tool: null, // name of the tool
  category: 0, // id of the category to draw; 0: none yet
  previous: 0, // the category before; X swaps
  selection: 0, // object id that is selected; 0: none
  options: kept("options", {}), // {tool: {option: value}}
  view: {
    opacity: 60, mode: "fill", brightness: 0, contrast: 0, equalise: false, smoothing: true, // smoothing: below 200 %
    ...kept("view", {}),
    hidden: new Set(), // category ids that are not shown
    held: null, // "image" | "label" while I or L is held
    hideSelection: false, // H
  },
  protect: false, // R: only unlabelled pixels are painted
  locked: new Set(), // category ids whose pixels are not painted over
  saved: { state: "saved", unsynced: 0, at: 0, says: "" }, // state: saved | saving | unsynced | offline | read-only | conflict; at: Date.now()
  read_only: null, // null, or why: {says: "held by ann", by: "ann" | null, of: "lease" | "label" | "role"}
  zoom: 1, // screen pixels of CSS for each image pixel
  offer: null, // what a model says of the image: {labelset, hash, name, mask: Uint16Array, confidence: Uint8Array}
  cursor: null, // {x, y, id: object id, category: category id, confidence: 0-1 | null} under the pointer; null outside
  drawn: 0, // counts up whenever pixels or objects of the label changed: stroke, undo, restore, live refresh
  pixels: null, // {of: Map(category id -> pixels), objects: Map(object id -> pixels), total}; counted when the page is idle
  panels: { right: "classes" },
};

const watchers = new Set();

// Set what `patch` names; who watches one of the changed keys is called at once.
export function change(patch) {
  const changed = Object.keys(patch).filter((key) => !Object.is(state[key], patch[key]));
  if (changed.length === 0) return;
  Object.assign(state, patch);
  for (const one of [...watchers]) {
    if (!one.keys.some((key) => changed.includes(key))) continue;
    try {
      one.tell(state);
    } catch (error) {
      reportError(error); // one broken panel must not silence the others
    }
  }
}

// Call `tell(state)` whenever one of `keys` changes, and now; returns what ends it.
export function watch(keys, tell, { now = true } = {}) {
  const one = { keys, tell };
  watchers.add(one);
  if (now) tell(state);
  return () => watchers.delete(one);
}

export function changeView(patch) {
  const view = { ...state.view, ...patch };
  const { opacity, mode, brightness, contrast, equalise, smoothing } = view;
  keep("view", { opacity, mode, brightness, contrast, equalise, smoothing });
  change({ view });
}

export function changeOption(tool, name, value) {
  const options = { ...state.options, [tool]: { ...state.options[tool], [name]: value } };
  keep("options", options);
  change({ options });
}

// Make a category the current one; the one before stays at hand.
export function pick(category) {
  if (category === state.category) return;
  change({ previous: state.category, category });
}

export function categoryOf(id) {
  return state.categories.find((one) => one.id === id) ?? null;
}

const ROLES = ["viewer", "labeller", "reviewer", "admin"]; // each may do what those before it may

export function may(role) {
  return ROLES.indexOf(state.person.role) >= ROLES.indexOf(role) && !state.project?.is_read_only;
}

export function mayDraw() {
  return may("labeller");
}

// -- what this browser keeps ------------------------------------------------------------------------------------------

export function kept(key, fallback) {
  try {
    const text = localStorage.getItem(PREFIX + key);
    return text === null ? fallback : JSON.parse(text);
  } catch {
    return fallback; // a private window, or somebody else's words
  }
}

export function keep(key, value) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // full or forbidden: the setting then lasts as long as the page
  }
}
