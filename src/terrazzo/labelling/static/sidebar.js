// The tabs at the right of the stage: classes, objects, issues, history, display, and what models say.

import { el, icon } from "./elements.js";
import { change, keep, kept, state } from "./state.js";

// panels: [{name, title, icon, panel: {element, show?, close}}]
export function sidebar(panels) {
  const tabs = el("div.tabs", { role: "tablist", "aria-label": "Panels" });
  const body = el("div.tab-body");
  const buttons = panels.map(({ name, title, icon: picture, panel }) => {
    const button = el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, title, onclick: () => choose(name) }, icon(picture, 17), el("span", {}, title));
    Object.assign(panel.element, { id: `panel-${name}` });
    panel.element.setAttribute("role", "tabpanel");
    panel.element.setAttribute("aria-labelledby", `tab-${name}`);
    tabs.append(button);
    body.append(panel.element);
    return button;
  });
  const choose = (name) => {
    const index = Math.max(0, panels.findIndex((one) => one.name === name));
    panels.forEach(({ panel }, number) => { panel.element.hidden = number !== index; });
    buttons.forEach((button, number) => {
      button.setAttribute("aria-selected", String(number === index));
      button.tabIndex = number === index ? 0 : -1;
    });
    keep("panel", panels[index].name);
    change({ panels: { ...state.panels, right: panels[index].name } });
    panels[index].panel.show?.();
  };
  tabs.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(document.activeElement);
    const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (here < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const button = buttons[(to + buttons.length) % buttons.length];
    button.focus();
    button.click();
  });
  choose(kept("panel", "classes"));
  return { element: el("aside.side", { "aria-label": "Panels" }, tabs, body), choose, names: panels.map(({ name, title }) => ({ name, title })), close: () => panels.forEach(({ panel }) => panel.close?.()) };
}
