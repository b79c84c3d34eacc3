"""From a mask of category ids to objects: what stays what it was, keeps its object."""

from collections.abc import Mapping, Sequence

import numpy as np

from terrazzo.errors import MaskValueError
from terrazzo.project.categories import Category
from terrazzo.project.tiles import MAX_ID, ObjectMap
from terrazzo.project.trees import Annotation

SHOWN = 8  # how many ids an error lists


def as_objects(
    mask: ObjectMap,
    before: ObjectMap,
    annotations: Sequence[Annotation],
    living: Mapping[int, Category],
    *,
    source: str,
    where: str,
) -> tuple[ObjectMap, tuple[Annotation, ...]]:
    """Return (object map, annotations) of a mask (H, W) of category ids, 0 where nobody drew.

    before, annotations: the label that it replaces; a pixel that keeps its category keeps its object. The other pixels
    of a category become one object: the one there is, where the category has no instances, else a new one. Objects
    without pixels are left out. Raises MaskValueError naming `where` for ids of no living category.
    """
    counts = np.bincount(mask.ravel())  # no sorting: 12 megapixels in 20 ms instead of 300
    ids = np.flatnonzero(counts)
    strange = [f"{n} ({counts[n]:,} pixels)" for n in ids.tolist() if n and n not in living]
    if strange:
        raise MaskValueError(
            f"The mask for {where} has ids that are no category of this project.",
            found=", ".join(strange[:SHOWN])
            + (f", … ({len(strange)} in all)" if len(strange) > SHOWN else ""),
            expected="0 (nobody drew), "
            + ", ".join(f"{n} ({one.name})" for n, one in list(living.items())[:SHOWN]),
        )
    table = np.zeros(1 << 16, dtype=np.uint16)
    for one in annotations:
        table[one.id] = one.category_id
    stays = table[before] == mask
    stays &= mask != 0
    object_map = np.where(stays, before, 0).astype(np.uint16)
    kept = {one.id: one for one in annotations if one.category_id in living}
    by_category = {one.category_id: one for one in kept.values()}
    free = iter(n for n in range(1, MAX_ID + 1) if n not in kept)
    for number in ids.tolist():
        is_new = (mask == number) & ~stays
        if not number or not is_new.any():
            continue
        owner = None if living[number].has_instances else by_category.get(number)
        if owner is None:
            owner = Annotation(next(free), number, source)
            kept[owner.id] = owner
        object_map[is_new] = owner.id
    used = set(np.flatnonzero(np.bincount(object_map.ravel())).tolist())
    return object_map, tuple(kept[n] for n in sorted(kept) if n in used)
