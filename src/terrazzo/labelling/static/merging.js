// When others drew meanwhile: what they changed, and whether what waits to be sent can stand on it.

// The tiles that differ between two revisions, but for those in `own`.
export function othersTiles(base, now, own) {
  const mine = new Set(own);
  return base.tiles.map((hash, index) => index).filter((index) => base.tiles[index] !== now.tiles[index] && !mine.has(index));
}

// The operations `rest`, drawn after `sent` on `base`, as they are on top of `now`, into which the server merged `sent`.
// null where they touch what others changed. others: the tiles they changed; things: categories whose objects are many.
export function moved(sent, rest, base, now, { others, things }) {
  const theirs = new Set(others);
  if (rest.some((one) => one.tiles.some(({ index }) => theirs.has(index)))) return null;
  const was = byId(base.annotations), is = byId(now.annotations);
  const changed = new Set([...was.keys(), ...is.keys()].filter((id) => !same(was.get(id), is.get(id))));
  let before = byId(sent.annotations ?? base.annotations);
  for (const id of [...before.keys(), ...was.keys()]) if (!same(was.get(id), before.get(id)) && same(before.get(id), is.get(id))) changed.delete(id);
  const found = [];
  let standing = is;
  for (const one of rest) {
    if (one.annotations === null) {
      found.push(one);
      continue;
    }
    const after = byId(one.annotations), next = new Map(standing);
    for (const id of new Set([...before.keys(), ...after.keys()])) {
      if (same(before.get(id), after.get(id))) continue;
      if (changed.has(id)) return null;
      if (after.has(id)) next.set(id, after.get(id));
      else next.delete(id);
    }
    const single = [...next.values()].map((each) => each.category_id).filter((category) => !things.has(category));
    if (new Set(single).size < single.length) return null; // both made the one object of a category
    found.push({ ...one, annotations: [...next.values()].sort((a, b) => a.id - b.id) });
    [before, standing] = [after, next];
  }
  return found;
}

// All of `operations` as one, drawn on `base` (what /label tells of it).
export function joined(operations, base) {
  const tiles = new Map();
  for (const one of operations) for (const tile of one.tiles) tiles.set(tile.index, tile);
  const told = operations.findLast((one) => one.annotations !== null);
  return {
    ...operations.at(-1), base: base.revision, tiles: [...tiles.values()], annotations: told?.annotations ?? base.annotations,
    ms: operations.reduce((sum, one) => sum + one.ms, 0),
  };
}

function byId(annotations) {
  return new Map(annotations.map((one) => [one.id, one]));
}

function same(a, b) {
  return a === b || (a !== undefined && b !== undefined && canonical(a) === canonical(b));
}

function canonical({ id, category_id, source, attributes }) {
  return JSON.stringify([id, category_id, source ?? "manual", Object.entries(attributes ?? {}).sort(([a], [b]) => (a < b ? -1 : 1))]);
}
