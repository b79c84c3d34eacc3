// The page's screens, by the address after '#': the projects (#/), one project (#/P), one image of it in the editor (#/P/S).

import * as api from "./api.js";
import { clientId } from "./client.js";
import { el, tell } from "./elements.js";
import { change, state } from "./state.js";

const SCREENS = [
  [/^$/, () => import("./home.js")],
  [/^([^/]+)$/, () => import("./project.js")],
  [/^([^/]+)\/(\d+)$/, () => import("./frame.js")],
];
const root = document.getElementById("screen");
let open = null; // {key, screen: {close(), go?(…)}} that is shown
let turn = 0;

addEventListener("hashchange", show);
addEventListener("terrazzo-sign-in", signIn);
start();

async function start() {
  change({ client: await clientId() });
  await show();
}

async function show() {
  const mine = (turn += 1);
  const path = location.hash.replace(/^#?\/?/, "").replace(/\/$/, "");
  const found = SCREENS.map(([pattern, load]) => [path.match(pattern), load]).find(([match]) => match);
  if (!found) {
    location.hash = "#/";
    return;
  }
  const [match, load] = found;
  try {
    const parts = match.slice(1).map(decodeURIComponent);
    const screen = await load();
    if (mine !== turn) return;
    const key = `${screen.name} ${parts[0] ?? ""}`;
    if (open?.key === key && open.screen.go) {
      await open.screen.go(...parts); // the same screen with something else in it: the next image
      return;
    }
    await leave();
    if (mine !== turn) return;
    root.replaceChildren();
    const opened = await screen.open(root, ...parts);
    if (mine === turn) {
      open = { key, screen: opened };
      arrive();
    } else {
      opened.close();
    }
  } catch (error) {
    if (mine !== turn || error.status === 401) return;
    fail(error, path);
  }
}

// Whoever comes by key or ear begins at the new screen's content.
function arrive() {
  if (document.activeElement !== document.body && document.activeElement?.isConnected) return;
  const main = document.getElementById("main");
  main?.setAttribute("tabindex", "-1");
  main?.focus({ preventScroll: true });
}

async function leave() {
  const old = open;
  open = null;
  await old?.screen.close();
}

async function fail(error, path) {
  await leave();
  root.replaceChildren(el("main.failed", { id: "main" },
    el("h1", {}, "This cannot be shown"),
    el("p", { role: "alert" }, error.message),
    el("p", {}, el("button.primary", { type: "button", onclick: show }, "Try again"), path === "" ? null : el("a.button", { href: "#/" }, "All projects")),
  ));
  if (!(error instanceof api.ApiError)) reportError(error);
}

// Ask for the token that `terrazzo label` printed; the server makes a cookie of it that no script can read.
async function signIn() {
  turn += 1;
  await leave();
  const field = el("input", { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" });
  const said = el("p.bad", { role: "alert", hidden: true });
  const form = el("form.card", {
    onsubmit: async (event) => {
      event.preventDefault();
      said.hidden = true;
      try {
        const response = await fetch(`/?token=${encodeURIComponent(field.value.trim())}`, { credentials: "same-origin" });
        if (!response.ok) throw new Error(await refusal(response));
        await show();
      } catch (error) {
        said.textContent = error.message;
        said.hidden = false;
        field.select();
      }
    },
  },
  el("img", { src: "/static/icon.svg", alt: "", width: 44, height: 44 }),
  el("h1", {}, "Sign in"),
  el("p.soft", {}, "This server is shared. Enter the token that you were given; it is what ", el("code", {}, "terrazzo label"), " printed."),
  el("label", { for: "token" }, "Token"), field, said,
  el("button.primary", { type: "submit" }, "Sign in"));
  root.replaceChildren(el("main.signin", { id: "main" }, form));
  document.title = "Sign in · terrazzo";
  field.focus();
}

async function refusal(response) {
  if (response.status === 401) return "The server does not know this token.";
  const told = await response.json().catch(() => ({}));
  return told.detail ?? `The server answered ${response.status}.`;
}

addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof api.ApiError) {
    event.preventDefault();
    if (event.reason.status !== 401) tell(event.reason);
  }
});

window.terrazzo = { get state() { return state; }, get editor() { return state.editor; } }; // for tests to read
