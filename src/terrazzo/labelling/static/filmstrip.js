// The images around the one that is open, as small pictures with the dot of their status.

import * as api from "./api.js";
import { STATUSES, el } from "./elements.js";
import { hrefOf } from "./routes.js";
import { state, watch } from "./state.js";
import { VirtualList } from "./virtual.js";

const STEP = 98;

export function filmstrip(project, listing) {
  const host = el("div.film", { role: "list", "aria-label": "Images" });
  const strip = new VirtualList(host, { size: STEP, axis: "x", over: 4, render: (index) => frame(project, listing.items[index]), onRange: (_, last) => { listing.need(last + 20).catch(() => {}); } });
  let current = -1;
  const show = () => {
    if (strip.count !== listing.total) strip.set(listing.total);
    const index = state.sample ? listing.indexOf(state.sample.id) : -1;
    if (index === current) return;
    for (const one of [current, index]) strip.update(one);
    current = index;
    if (index >= 0) {
      strip.active = index;
      strip.show(index, { centre: true });
    }
  };
  host.addEventListener("wheel", (event) => {
    if (event.deltaX !== 0 || event.ctrlKey) return;
    event.preventDefault();
    host.scrollLeft += event.deltaY; // a plain wheel goes along the strip
  }, { passive: false });
  const unwatch = watch(["sample"], show, { now: false });
  return {
    element: host,
    show,
    refresh: () => { strip.set(listing.total); current = -2; show(); },
    update: (index) => strip.update(index),
    close: () => { unwatch(); strip.close(); },
  };
}

function frame(project, one) {
  if (!one) return el("div.shot", {}, el("span.thumb"));
  const isHere = state.sample?.id === one.id;
  return el("a.shot", {
    href: hrefOf(project, one.id), "data-status": one.status, "aria-current": isHere ? "true" : null, title: `${one.name}: ${STATUSES[one.status]}`,
    "aria-label": `${one.name}, ${STATUSES[one.status]}`,
  },
  el("img.thumb", { src: api.address(api.at(project, "samples", one.id, "thumb")), alt: "", loading: "lazy", decoding: "async", width: 92, height: 62 }),
  el("i.dot", { "aria-hidden": "true" }));
}
