// Questions that stand in front of the page, and menus. Escape says no; the focus comes back where it was.

import { el, icon } from "./elements.js";

// Ask something: `fields` are elements of a form, `confirm` the word on the button. `read(form)` makes the answer; a
// refusal that it throws, or its promise, is shown in the dialog, which stays. Returns the answer, or null for no.
export function ask({ title, fields = [], confirm = "OK", cancel = "Cancel", danger = false, wide = false, read = () => true }) {
  const before = document.activeElement;
  const said = el("p.bad", { role: "alert", hidden: true });
  const yes = confirm === null ? null : el(danger ? "button.danger" : "button.primary", { type: "submit" }, confirm);
  const heading = el("h2", { id: `title-${(count += 1)}` }, title);
  const form = el("form", { method: "dialog" }, heading, fields, said,
    el("div.actions", {}, el("button", { type: "button", onclick: () => dialog.close() }, cancel), yes));
  const dialog = el("dialog", { class: wide ? "wide" : "", "aria-labelledby": heading.id }, form);
  let answer = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (yes) yes.disabled = true;
    said.hidden = true;
    try {
      answer = await read(form);
      dialog.close();
    } catch (error) {
      said.textContent = error.message;
      said.hidden = false;
    } finally {
      if (yes) yes.disabled = false;
    }
  });
  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector("[data-first]") ?? form.querySelector("input, select, textarea") ?? yes ?? form.querySelector("button")).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before instanceof HTMLElement && before.isConnected) before.focus({ preventScroll: true });
      resolve(answer);
    });
  });
}

export function field(label, control, says = null) {
  control.id ||= `field-${(count += 1)}`;
  const hint = says === null ? null : el("span.small.soft", { id: `${control.id}-says` }, says);
  if (hint) control.setAttribute("aria-describedby", hint.id);
  return el("div.field", {}, el("label", { for: control.id }, label), control, hint);
}

// A button that opens a menu; items() are made when it opens: {label, icon, run, danger, disabled}, {says}, or null for a line.
export function menuButton(button, items) {
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => open(button, items()));
  return button;
}

function open(button, items) {
  const entries = items.map((one) => {
    if (one === null) return el("hr", { role: "separator" });
    if (one.says !== undefined) return el("div.says", {}, one.says);
    return el("button", {
      type: "button", role: "menuitem", tabindex: -1, disabled: one.disabled, class: one.danger ? "danger" : "",
      onclick: () => { menu.hidePopover(); one.run(); },
    }, one.icon ? icon(one.icon, 16) : null, one.label);
  });
  const menu = el("div.menu", { role: "menu", popover: "auto", "aria-label": button.getAttribute("aria-label") ?? button.textContent }, entries);
  document.body.append(menu);
  menu.showPopover();
  button.setAttribute("aria-expanded", "true");
  const box = button.getBoundingClientRect();
  const [width, height] = [menu.offsetWidth, menu.offsetHeight];
  menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
  menu.style.top = `${box.bottom + 4 + height > innerHeight ? Math.max(8, box.top - height - 4) : box.bottom + 4}px`;
  const buttons = [...menu.querySelectorAll("button:not(:disabled)")];
  buttons[0]?.focus();
  menu.addEventListener("keydown", (event) => {
    const here = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (event.key === "Tab") menu.hidePopover();
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[(to + buttons.length) % buttons.length]?.focus();
  });
  menu.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    menu.remove();
    if (document.activeElement === document.body || document.activeElement === null) button.focus();
  });
}

let count = 0;
