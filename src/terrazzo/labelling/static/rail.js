// The tools, one under the other, each with its key; and the strip of the chosen tool's options.

import { chordOf, list, spoken } from "./keys.js";
import { el, icon } from "./elements.js";
import { changeOption, change, state, watch } from "./state.js";

export function rail(editor) {
  const tools = [...editor.tools];
  const bar = el("div.rail", { role: "toolbar", "aria-label": "Tools", "aria-orientation": "vertical" });
  const buttons = new Map(tools.map((tool) => {
    const key = keyOf(`tool.${tool.name}`);
    const button = el("button.tool", {
      type: "button", "aria-pressed": "false", "aria-keyshortcuts": key || null, title: key ? `${tool.title} (${key})` : tool.title, "aria-label": tool.title, "data-tool": tool.name,
      onclick: () => editor.select(tool.name),
    }, icon(tool.icon ?? tool.name, 20), key ? el("kbd", { "aria-hidden": "true" }, key) : null);
    return [tool.name, button];
  }));
  bar.append(...buttons.values());
  roving(bar, "ArrowUp", "ArrowDown");
  const close = watch(["tool"], () => {
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === state.tool));
  });
  return { element: bar, close };
}

function keyOf(id) {
  const action = list().find((one) => one.id === id);
  return action ? spoken(chordOf(action)) : "";
}

// One stop for Tab in a toolbar; arrows within.
export function roving(bar, back, on) {
  const all = () => [...bar.querySelectorAll("button:not(:disabled)")];
  const only = (one) => { for (const each of bar.querySelectorAll("button")) each.tabIndex = each === one ? 0 : -1; };
  only(all()[0]);
  bar.addEventListener("focusin", (event) => { if (event.target.matches("button")) only(event.target); });
  bar.addEventListener("keydown", (event) => {
    const buttons = all();
    const here = buttons.indexOf(document.activeElement);
    const to = { [back]: here - 1, [on]: here + 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (here < 0 || to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[(to + buttons.length) % buttons.length].focus();
  });
}

// -- options ----------------------------------------------------------------------------------------------------------

export function optionStrip(editor) {
  const strip = el("div.options", { role: "group", "aria-label": "Options of the tool" });
  const protect = el("button.switch", { type: "button", title: "Paint over unlabelled pixels alone", onclick: () => change({ protect: !state.protect }) },
    icon("shield", 16), "Protect", el("kbd", { "aria-hidden": "true" }, keyOf("protect")));
  const chosen = el("span.tool-options");
  const name = el("b.tool-name");
  strip.append(name, chosen, el("span.grow"), protect);
  let controls = new Map(); // option -> what shows its value
  const closers = [
    watch(["tool"], () => {
      const tool = [...editor.tools].find((one) => one.name === state.tool);
      controls = new Map((tool?.options ?? []).map((option) => [option.name, control(tool, option)]));
      name.textContent = tool?.title ?? "";
      chosen.replaceChildren(...[...controls.values()].map((one) => one.element));
    }),
    watch(["options", "tool"], () => {
      for (const [option, one] of controls) one.show(state.options[state.tool]?.[option]);
    }),
    watch(["protect"], () => protect.setAttribute("aria-pressed", String(state.protect))),
  ];
  return { element: strip, close: () => closers.forEach((one) => one()) };
}

function control(tool, option) {
  const { name, kind, label } = option;
  const set = (value) => changeOption(tool.name, name, value);
  if (kind === "toggle") {
    const button = el("button.switch", { type: "button", "aria-pressed": "false", onclick: () => set(!(state.options[tool.name]?.[name] ?? option.value ?? false)) }, label);
    return { element: button, show: (value) => button.setAttribute("aria-pressed", String(Boolean(value ?? option.value))) };
  }
  if (kind === "choice") {
    const choices = option.choices ?? [];
    const select = el("select", { "aria-label": label, onchange: () => set(select.value) },
      choices.map((one) => (typeof one === "string" ? el("option", { value: one }, one) : el("option", { value: one.value }, one.label))));
    return { element: el("label.option", {}, el("span", {}, label), select), show: (value) => { select.value = value ?? option.value ?? select.options[0]?.value; } };
  }
  const { min = 0, max = 100, step = 1 } = option;
  const slider = el("input", { type: "range", min, max, step, "aria-label": label, oninput: () => set(Number(slider.value)) });
  const figure = el("input.figure", { type: "number", min, max, step, "aria-label": `${label}, as a number`, onchange: () => set(Math.min(max, Math.max(min, Number(figure.value) || min))) });
  return {
    element: el("span.option", {}, el("span", {}, label), slider, figure),
    show: (value) => {
      slider.value = value ?? option.value ?? min;
      if (document.activeElement !== figure) figure.value = slider.value;
    },
  };
}
