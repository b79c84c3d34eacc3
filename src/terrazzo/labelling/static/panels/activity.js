// What was decided in a project, when and by whom: the audit log, a sentence each.

import * as api from "../api.js";
import { ago, el, tell } from "../elements.js";

export function activityPanel(project) {
  const list = el("ul.deeds", { "aria-label": "Activity" });
  const details = el("details.card", {}, el("summary", { class: "body" }, el("b", {}, "Activity")), list);
  details.addEventListener("toggle", () => { if (details.open) load().catch(tell); });
  const load = async () => {
    const told = await api.get(api.at(project, "audit"));
    const deeds = told.items;
    list.replaceChildren(...deeds.slice(0, 300).map((one) => el("li", {},
      el("span", {}, sentence(one)),
      el("span.soft.small", { title: one.at }, [one.author, ago(one.at)].filter(Boolean).join(" · ")))));
    if (deeds.length === 0) list.append(el("li.soft", {}, "Nothing yet."));
  };
  return { element: details, refresh: () => { if (details.open) load().catch(tell); }, close() {} };
}

function sentence({ action, sample, detail = {} }) {
  const subject = sample ? `${sample}: ` : "";
  if (action === "status") return `${subject}${detail.old} → ${detail.new}${detail.reason ? ` (${detail.reason})` : ""}`;
  const told = Object.entries(detail).filter(([, value]) => ["string", "number"].includes(typeof value)).slice(0, 4).map(([key, value]) => `${key} ${value}`);
  return `${subject}${action}${told.length ? `: ${told.join(", ")}` : ""}`;
}
