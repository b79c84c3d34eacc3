// The bar at the head of the screens outside the editor: where one is, who one is, and the colours.

import { el, icon, iconButton } from "./elements.js";
import { hrefOf } from "./routes.js";
import { keep, kept, state } from "./state.js";

export function masthead(...crumbs) {
  const trail = crumbs.flatMap((crumb) => [el("span", { "aria-hidden": "true" }, "/"), el("span.here.cut", { "aria-current": "page" }, crumb)]);
  return el("header.masthead", {},
    el("nav", { "aria-label": "Where you are" },
      el("a.brand", { href: hrefOf() }, el("img", { src: "/static/icon.svg", alt: crumbs.length ? "All projects" : "", width: 24, height: 24 }), el("span", {}, "terrazzo")),
      trail),
    who(), themeButton());
}

function who() {
  const { name, role, isSingleUser } = state.person;
  if (!name) return null;
  const says = isSingleUser ? name : `${name} · ${role}`;
  return el("span.who", { title: isSingleUser ? `What you draw is signed ${name}` : `Signed in as ${name}, ${role}` }, icon("user", 16), el("span.cut", {}, says));
}

const THEMES = { system: ["half", "as the system"], light: ["sun", "light"], dark: ["moon", "dark"] };

export function themeButton() {
  const button = iconButton("half", "", () => {
    const names = Object.keys(THEMES);
    wear(names[(names.indexOf(kept("theme", "system")) + 1) % names.length]);
  });
  const wear = (theme) => {
    keep("theme", theme);
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const [name, says] = THEMES[theme];
    button.setAttribute("aria-label", `Colours: ${says}`);
    button.title = `Colours: ${says}`;
    button.replaceChildren(icon(name));
  };
  const theme = kept("theme", "system");
  wear(Object.hasOwn(THEMES, theme) ? theme : "system");
  return button;
}
