// The page to try a model: one state, and what changes it. Nothing is kept, here or on the server.

import * as api from "./api.js";
import { Pane } from "./pane.js";
import { readLayers, shownSize } from "./pixels.js";

const SHOWN_AT_FIRST = 2; // models side by side
const $ = (id) => document.getElementById(id);

const state = {
  models: [],
  chosen: new Set(), // names of models
  file: null,
  fileName: "photo",
  panes: [],
  at: 0.5, // of the slider
  look: { view: "overlay", strength: 0.55 },
  asking: null, // AbortController of what is under way
};

start();

async function start() {
  listen();
  try {
    state.models = await api.models();
    state.models.slice(0, SHOWN_AT_FIRST).forEach(({ name }) => state.chosen.add(name));
    const names = state.models.map(({ name, classes }) => `${name}, ${classes.length} classes`);
    $("tagline").textContent = names.join(" · ");
    offerModels();
    offerExamples(await api.examples());
  } catch (error) {
    tell(error);
  }
}

function offerModels() {
  if (state.models.length < 2) return;
  $("models").replaceChildren(...state.models.map(({ name }) => {
    const [label, input, span] = ["label", "input", "span"].map((tag) => document.createElement(tag));
    input.type = "checkbox";
    input.checked = state.chosen.has(name);
    span.textContent = name;
    input.addEventListener("change", () => {
      if (input.checked) state.chosen.add(name);
      else state.chosen.delete(name);
      if (state.chosen.size === 0) {
        state.chosen.add(name);
        input.checked = true;
      }
      if (state.file) look(state.file, state.fileName);
    });
    label.append(input, span);
    return label;
  }));
}

function offerExamples(listed) {
  $("examples").replaceChildren(...listed.map(({ name, url }) => {
    const [button, image] = ["button", "img"].map((tag) => document.createElement(tag));
    button.type = "button";
    button.setAttribute("aria-label", `Example ${name}`);
    image.src = url;
    image.alt = "";
    button.append(image);
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(url);
        await look(await response.blob(), `example-${name}`);
      } catch (error) {
        tell(error);
      }
    });
    return button;
  }));
}

// Show a photo and what every chosen model says of it.
async function look(file, name) {
  state.asking?.abort();
  const asking = state.asking = new AbortController();
  state.file = file;
  state.fileName = name.replace(/\.[^.]*$/, "") || "photo";
  tell(null);
  say("Looking …");
  const bitmap = await createImageBitmap(file).catch(() => null); // TIFF, say: the server reads more than a browser
  if (asking.signal.aborted) return;
  const size = bitmap ? shownSize(bitmap.width, bitmap.height) : { width: 960, height: 540 };
  const models = state.models.filter(({ name: model }) => state.chosen.has(model));
  if (state.panes.map(({ model }) => model.name).join("\n") !== models.map((model) => model.name).join("\n")) {
    state.panes = models.map((model) => new Pane(model, { onSlide: slide, onSave: save }));
    $("panes").replaceChildren(...state.panes.map(({ element }) => element));
    $("panes").classList.toggle("is-single", models.length === 1);
  }
  document.body.classList.add("has-result");
  $("result").hidden = false;
  state.panes.forEach((pane) => pane.begin(bitmap, size));
  slide(state.at);
  const said = await Promise.all(state.panes.map(async (pane) => {
    try {
      const onWait = (seconds) => say(`The server is busy; again in ${seconds} s …`);
      const { blob, milliseconds } = await api.predict(pane.model, file, "layers", { signal: asking.signal, onWait });
      const layers = await readLayers(blob);
      if (asking.signal.aborted) return null;
      return `${pane.model.name}: ${pane.end(layers, milliseconds, state.look)}`;
    } catch (error) {
      pane.fail();
      if (!asking.signal.aborted) tell(error);
      return null;
    }
  }));
  if (!asking.signal.aborted) say(said.filter(Boolean).join(". "), { isSeen: false }); // the legends show it
}

async function save(model, as) {
  try {
    say("Preparing the file …");
    const { blob } = await api.predict(model, state.file, as);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${state.fileName}-${model.name}-${as}.${as === "polygons" ? "geojson" : "png"}`.replace(/[^\w.-]+/g, "-");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Saved ${link.download}`);
  } catch (error) {
    tell(error);
  }
}

function slide(at) {
  state.at = Math.min(1, Math.max(0, at));
  state.panes.forEach((pane) => pane.slide(state.at));
}

function redraw() {
  state.panes.forEach((pane) => pane.draw(state.look));
}

function say(text, { isSeen = true } = {}) {
  $("status").textContent = text;
  $("status").classList.toggle("unseen", !isSeen || text === "");
}

function tell(error) {
  $("problem").hidden = error === null;
  $("problem").textContent = error === null ? "" : error.message;
  if (error !== null) say("");
}

// -- events -----------------------------------------------------------------------------------------------------------

function listen() {
  for (const id of ["file", "capture"]) {
    $(id).addEventListener("change", () => {
      const [file] = $(id).files;
      if (file) look(file, file.name);
      $(id).value = ""; // the same file may be chosen again
    });
  }
  const label = document.querySelector("label[for=file]");
  $("file").addEventListener("focus", () => label.classList.toggle("has-focus", $("file").matches(":focus-visible")));
  $("file").addEventListener("blur", () => label.classList.remove("has-focus"));
  $("camera").addEventListener("click", openCamera);
  $("shoot").addEventListener("click", shoot);
  $("close-camera").addEventListener("click", closeCamera);
  $("strength").addEventListener("input", () => { state.look.strength = $("strength").value / 100; redraw(); });
  document.querySelectorAll("input[name=view]").forEach((input) => {
    input.addEventListener("change", () => { state.look.view = input.value; redraw(); });
  });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("is-over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("is-over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("is-over");
    const [file] = event.dataTransfer.files;
    if (file) look(file, file.name);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) look(file, file.name || "pasted");
  });
  addEventListener("keydown", key);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([name=view])")) return;
  const views = ["overlay", "classes", "confidence"];
  if (event.key === "o" || event.key === "O") $("file").click();
  if (!state.file || $("result").hidden) return;
  if (event.key === "ArrowLeft" && !event.target.matches("input")) slide(state.at - 0.05);
  if (event.key === "ArrowRight" && !event.target.matches("input")) slide(state.at + 0.05);
  if (event.key === "s" || event.key === "S") save(state.panes[0].model, "overlay");
  const view = views[Number(event.key) - 1];
  if (view) document.querySelector(`input[name=view][value=${view}]`).click();
}

async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    $("capture").click(); // a page without https may not see the camera itself; a phone's own camera may
    return;
  }
  try {
    const video = { facingMode: "environment", width: { ideal: 1920 } };
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video });
    await $("video").play();
    $("viewfinder").hidden = false;
    $("shoot").focus();
  } catch (error) {
    tell(new Error(`The camera cannot be used: ${error.message}`));
  }
}

async function shoot() {
  const video = $("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  closeCamera();
  await look(blob, "camera");
}

function closeCamera() {
  for (const track of $("video").srcObject?.getTracks() ?? []) track.stop();
  $("video").srcObject = null;
  $("viewfinder").hidden = true;
  $("camera").focus();
}
