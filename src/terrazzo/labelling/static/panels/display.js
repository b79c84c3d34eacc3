// How the image and the label are looked at. None of it is saved with the label.

import { el } from "../elements.js";
import { changeView, state, watch } from "../state.js";

export function displayPanel() {
  const sliders = [
    slider("opacity", "Opacity of the label", 0, 100, " %"), slider("brightness", "Brightness", -100, 100, ""), slider("contrast", "Contrast", -100, 100, ""),
  ];
  const modes = el("div.segmented", { role: "radiogroup", "aria-label": "Draw the label as" }, [["fill", "Fill"], ["outline", "Outline"], ["both", "Both"]].map(([value, says]) => el("label", {},
    el("input", { type: "radio", name: "mode", value, onchange: () => changeView({ mode: value }) }), el("span", {}, says))));
  const equalise = check("equalise", "Equalise the histogram");
  const smoothing = check("smoothing", "Smooth the image (below 200 %)");
  const reset = el("button", { type: "button", onclick: () => changeView({ opacity: 60, mode: "fill", brightness: 0, contrast: 0, equalise: false, smoothing: true, hidden: new Set() }) }, "As at first");
  const element = el("div.panel.display", {}, sliders[0].element, modes, sliders[1].element, sliders[2].element, equalise, smoothing, el("div", {}, reset),
    el("p.soft.small", {}, "How it looks here is nobody else's, and never saved with a label."));
  const close = watch(["view"], () => {
    for (const one of sliders) one.show();
    for (const input of modes.querySelectorAll("input")) input.checked = input.value === state.view.mode;
    for (const input of element.querySelectorAll("input[type=checkbox]")) input.checked = state.view[input.name];
  });
  return { element, close };
}

function slider(name, label, min, max, unit) {
  const input = el("input", { type: "range", min, max, step: 1, "aria-label": label, oninput: () => changeView({ [name]: Number(input.value) }) });
  const figure = el("output.tabular.soft");
  return {
    element: el("label.slide", {}, el("span", {}, label), figure, input),
    show: () => { input.value = state.view[name]; figure.textContent = `${state.view[name]}${unit}`; },
  };
}

function check(name, label) {
  return el("label.check", {}, el("input", { type: "checkbox", name, onchange: (event) => changeView({ [name]: event.target.checked }) }), label);
}
