// From objects to colours: the two tables that Raster draws with.

// The look of a label: {fill, edge, hatch}, uint32 ABGR for each object id. With `look` and `ids`, only theirs are told anew.
export function coloursOf(label, settings, categories, selection, look = null, ids = null) {
  const known = new Map(categories.map((one) => [one.id, one]));
  const told = look ?? { fill: new Uint32Array(65536), edge: settings.mode === "fill" ? null : new Uint32Array(65536), hatch: null };
  const alpha = settings.held === "label" ? 255 : Math.round(2.55 * settings.opacity);
  for (const id of ids ?? label.annotations.keys()) {
    const category = known.get(label.category[id]);
    const isHidden = !category || settings.hidden.has(category.id) || (settings.hideSelection && id === selection);
    const [r, g, b] = category ? channels(category.color) : [0, 0, 0];
    const isSelected = id === selection;
    const strength = settings.mode === "outline" ? (isSelected ? 60 : 0) : isSelected ? Math.min(255, alpha + 60) : alpha;
    told.fill[id] = isHidden ? 0 : packed(r, g, b, strength);
    if (told.edge) told.edge[id] = isHidden ? 0 : isSelected ? packed(255, 255, 255, 255) : packed(r, g, b, 255);
    if (category?.is_ignore) {
      told.hatch ??= Object.assign(new Uint8Array(65536), { colour: 0 });
      told.hatch[id] = isHidden ? 0 : 1;
      told.hatch.colour = packed(20, 20, 20, Math.max(60, alpha));
    } else if (told.hatch) {
      told.hatch[id] = 0;
    }
  }
  if (selection && told.edge === null) { // a selected object has an outline, whatever the mode
    told.edge = told.fill.slice();
    told.edge[selection] = packed(255, 255, 255, 255);
  } else if (told.edge && settings.mode === "fill") {
    for (const id of ids ?? []) told.edge[id] = id === selection ? packed(255, 255, 255, 255) : told.fill[id];
  }
  return told;
}

export function channels(color) {
  const value = parseInt(color.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function packed(r, g, b, alpha) {
  return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
}
