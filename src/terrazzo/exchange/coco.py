"""COCO brought in: every object a thing of its own, the large ones painted first; crowds are ignored.

src: a folder as `data.importers.coco` reads it; panoptic segments are taken where there are no instances.
"""

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from terrazzo.data.importers import coco
from terrazzo.data.importers.coco_masks import BACKGROUND, Ids, Painted, Segments, as_shown
from terrazzo.data.importers.coco_masks import paint as paint_masks
from terrazzo.data.importers.planning import Pair
from terrazzo.errors import DatasetFormatError, UsageError
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, Kind
from terrazzo.project.tiles import MAX_ID
from terrazzo.region_ids import decode_region_ids

CROWD = "crowd"


def read(src: Path, root: Path) -> Arrivals:
    """Return what the JSON files at `src` bring, by split; images must be files, not members of a zip."""
    kind = "instances" if any((src / "annotations").glob("instances_*.json")) else "panoptic"
    stack = ExitStack()  # zips are refused below, so that nothing is left open
    with stack:
        pairs, ids = coco.find(src, stack, annotations=kind)
        samples = [_arrival(pair, ids, split) for split, members in pairs.items() for pair in members]
    has_crowds = kind == "instances"
    kinds = [Kind(name, has_instances=True) for raw, name in ids.categories.items() if name != BACKGROUND]
    kinds += [Kind(BACKGROUND)] if BACKGROUND in ids.categories.values() else []
    kinds += [Kind(CROWD, is_ignore=True)] if has_crowds else []
    notes = ("Crowds are of the category 'crowd', which is ignored.",) if has_crowds else ()
    return Arrivals(tuple(kinds), tuple(samples), notes)


def _arrival(pair: Pair, ids: Ids, split: str) -> Arrival:
    if not isinstance(pair.image, Path):
        raise UsageError(
            "Images in a zip cannot be referenced.", found=str(pair.image), hint="Unpack the images first."
        )
    assert isinstance(pair.mask, Painted | Segments)
    return Arrival(pair.image, partial(_draw, pair.mask, ids), "labelled", split, pair.name)


def _draw(mask: Painted | Segments, ids: Ids) -> Drawn:
    if isinstance(mask, Segments):
        from terrazzo.data.importers.downloads import read as read_origin

        segments = decode_region_ids(read_origin(mask.origin), where=str(mask.origin))
        kinds = {one: ids.categories[raw] for one, raw in mask.raw_of.items() if raw != ids.void}
        return Drawn(segments, kinds)
    if len(mask.objects) >= MAX_ID:
        raise DatasetFormatError(f"more than {MAX_ID - 1:,} objects on one image")
    numbered = [{**one, "category_id": number} for number, one in enumerate(mask.objects, start=1)]
    things = replace(
        ids, categories={MAX_ID - 1: ""}, background=0, void=MAX_ID
    )  # wide enough for all numbers
    painted = as_shown(paint_masks(numbered, mask.size_hw, things, where=str(mask.image)), mask.image)
    kinds = {number: ids.categories[one["category_id"]] for number, one in enumerate(mask.objects, start=1)}
    return Drawn(painted.astype(np.uint32), {**kinds, MAX_ID: CROWD})
