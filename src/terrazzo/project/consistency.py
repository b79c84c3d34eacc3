"""What every label keeps to: each pixel has an object, each object a living category, and the sky is one.

`settled` lets labels follow categories that were merged, those too that an open page still sends with the old ones.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from terrazzo.errors import DatasetFormatError, MaskValueError
from terrazzo.project.categories import Category, heirs
from terrazzo.project.tiles import Tiles, places, tile_hw
from terrazzo.project.trees import Annotation, Tree

SHOWN = 8  # how many problems an error lists


def settled(
    db: sqlite3.Connection, tiles: Tiles, tree: Tree, there: Sequence[Category], *, where: str
) -> Tree:
    """Return a state in which objects of merged categories are of their heirs; `tree` itself where there are none.

    Where objects of a category without instances come together so, they become one, under the lowest of their ids.
    """
    heir_of = heirs(there)
    is_moved = {one.id for one in tree.annotations if heir_of.get(one.category_id, one).id != one.category_id}
    moved = is_moved & {one.id for one in tree.annotations if one.category_id in heir_of}
    if not moved:
        return tree
    listed: list[Annotation] = []
    first: dict[int, int] = {}
    joined: dict[int, int] = {}
    for one in tree.annotations:
        heir = heir_of.get(one.category_id)
        listed.append(one if heir is None else replace(one, category_id=heir.id))
        if heir is not None and not heir.has_instances and first.setdefault(heir.id, one.id) != one.id:
            joined[one.id] = first[heir.id]
    if not joined:
        return replace(tree, annotations=tuple(listed))
    table = np.arange(1 << 16, dtype=np.uint16)
    table[list(joined)] = list(joined.values())
    names = []
    for place, name in zip(places(tree.size_hw), tree.tiles, strict=True):
        if joined.keys() & tiles.counts(db, [name]).keys():
            pixels = tiles.get(db, name, tile_hw(place, tree.size_hw), where=f"{where}, tile {place}")
            names.append(tiles.put(db, table[pixels]))
        else:
            names.append(name)
    return Tree(tree.size_hw, tuple(names), tuple(one for one in listed if one.id not in joined))


def refuse_loose(
    db: sqlite3.Connection, tiles: Tiles, tree: Tree, there: Sequence[Category], *, where: str
) -> None:
    """Raise MaskValueError for pixels of no object, DatasetFormatError for objects of no category, and twin skies."""
    named = {one.id for one in tree.annotations}
    loose = {n: pixels for n, pixels in tiles.counts(db, tree.tiles).items() if n and n not in named}
    if loose:
        raise MaskValueError(
            f"The label for {where} has pixels of objects that its annotations do not name.",
            found=_listed([f"{n} ({pixels:,} pixels)" for n, pixels in sorted(loose.items())]),
            expected=f"0, or one of the {len(named)} ids in the annotations",
        )
    by_id = {one.id: one for one in there}
    first: dict[int, int] = {}
    problems: list[str] = []
    for one in tree.annotations:
        category = by_id.get(one.category_id)
        if category is None:
            problems.append(f"object {one.id} of category {one.category_id}, which there is none of")
        elif category.is_deleted:
            problems.append(f"object {one.id} of {category.name!r}, which was deleted")
        elif not category.has_instances and first.setdefault(category.id, one.id) != one.id:
            problems.append(
                f"objects {first[category.id]} and {one.id} are both {category.name!r}, which has no instances"
            )
    if problems:
        raise DatasetFormatError(
            f"The annotations for {where} cannot be used.",
            found=_listed(problems),
            expected="objects of the project's categories, and one at most of a category without instances",
        )


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f", … ({len(items)} in all)" if len(items) > SHOWN else "")
