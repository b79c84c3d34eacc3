// Elements in one line each, words only ever as text; icons; what is said to those who listen instead of look.

const SVG = "http://www.w3.org/2000/svg";

// el("button.primary", {type: "button", onclick: run, "aria-label": "Save"}, "Save", icon("check")). A property that is
// null or false is left out; `class` adds to the classes of the tag; on… are listeners.
export function el(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const one = document.createElement(name);
  if (classes.length) one.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) one.addEventListener(key.slice(2), value);
    else if (key === "class") one.classList.add(...value.split(" ").filter(Boolean));
    else if (key === "style") for (const [property, to] of Object.entries(value)) one.style.setProperty(property, to);
    else if (key === "value" || key === "checked" || key === "indeterminate") one[key] = value;
    else one.setAttribute(key, value === true ? "" : value);
  }
  one.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return one;
}

// An icon of index.html; it is decoration, so whoever holds it has a name of its own.
export function icon(name, size = 18) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("width", size);
  svg.setAttribute("height", size);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

// A button that is an icon: its name is heard, and seen as a tip.
export function iconButton(name, label, onclick, properties = {}) {
  return el("button.bare", { type: "button", "aria-label": label, title: label, onclick, ...properties }, icon(name));
}

// Say something at the foot of the page, for a while; kind "warn" and "bad" stay until they are closed.
export function toast(text, kind = "plain", { seconds = kind === "plain" ? 4 : 0 } = {}) {
  const shelf = document.getElementById("toasts");
  for (const old of [...shelf.children]) if (old.firstChild.textContent === text) old.remove(); // said again, not twice
  const one = el(`div.toast.${kind}`, { role: kind === "bad" ? "alert" : "status" }, el("span", {}, text));
  one.append(iconButton("close", "Close this message", () => one.remove()));
  shelf.append(one);
  while (shelf.children.length > 4) shelf.firstElementChild.remove();
  if (seconds) setTimeout(() => one.remove(), 1000 * seconds);
  return one;
}

// Tell an error where the user is; what they can do about it stands in its hint.
export function tell(error) {
  if (error?.name === "AbortError") return;
  toast(error?.message ?? String(error), "bad");
}

export function swatch(color) {
  return el("i.swatch", { style: { "--color": color }, "aria-hidden": "true" });
}

export function number(value) {
  return value.toLocaleString("en");
}

export function plural(count, noun, many = `${noun}s`) {
  return `${number(count)} ${count === 1 ? noun : many}`;
}

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
}

export function ago(iso) {
  const seconds = (Date.now() - new Date(iso).getTime()) / 1000;
  const steps = [[60, "s", 1], [3600, "min", 60], [86400, "h", 3600], [Infinity, "d", 86400]];
  const [, unit, size] = steps.find(([limit]) => seconds < limit);
  return seconds < 5 ? "just now" : `${Math.floor(seconds / size)} ${unit} ago`;
}

export const STATUSES = {
  todo: "To do", prelabelled: "Prelabelled", in_progress: "In progress", labelled: "Labelled", reviewed: "Reviewed",
  rejected: "Rejected", skipped: "Skipped",
};

export function statusChip(status) {
  return el("span.chip", { "data-status": status }, el("i", { "aria-hidden": "true" }), STATUSES[status] ?? status);
}
