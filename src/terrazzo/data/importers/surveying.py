"""What a plan would bring in, counted before anything is copied.

Every mask is read, and of very many every n-th, evenly spread; of the images the header is. Ids are counted after the
table, as a training will see them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Classes, Remap
from terrazzo.data import label_space
from terrazzo.data.description import Description
from terrazzo.data.doctor import ClassCount
from terrazzo.data.importers.checking import open_pair, table_of
from terrazzo.data.importers.copying import in_threads
from terrazzo.data.importers.planning import Pair, Plan
from terrazzo.errors import DataError
from terrazzo.progress import track

MOST = 1000  # masks of a split that are read: shares are what counts, and the wait stays short

Member = tuple[str, Pair]  # split, pair


@dataclass(frozen=True)
class Survey:
    """What was counted."""

    classes: Classes
    """As the data set will have them when it is opened."""
    remap: Remap
    """From the ids in the files to these."""
    images: Mapping[str, int]
    """Split -> images."""
    masks: Mapping[str, int]
    """Split -> masks."""
    read: Mapping[str, int]
    """Split -> masks that were read and counted."""
    counts: tuple[ClassCount, ...]
    """By split, then class id, of the masks that were read."""
    ignored: Mapping[str, float]
    """Split -> share of its pixels that is ignored."""
    damaged: Mapping[str, DataError]
    """"split/name" -> what is wrong with a pair, of those that were opened."""
    notes: tuple[str, ...]
    """What somebody should hear: sentences."""
    shows: tuple[tuple[Member, NDArray[np.bool_]], ...]
    """Every pair that was counted, and whether each class (K,) is in it."""


def survey(plan: Plan, *, exif: bool = False, workers: int = -1) -> Survey:
    """Read the masks of `plan` and count them; damaged pairs are taken down, not raised. Words as in `carry_out`."""
    classes, remap, notes = _as_opened(plan.description)
    masked = {
        split: [pair for pair in members if pair.mask is not None] for split, members in plan.pairs.items()
    }
    chosen = [
        (split, pair)
        for split, members in masked.items()
        for pair in members[:: -(-len(members) // MOST) or 1]
    ]
    pixels = {split: np.zeros(len(classes) + 1, np.int64) for split in masked}
    damaged: dict[str, DataError] = {}
    shows: list[tuple[Member, NDArray[np.bool_]]] = []
    counted = in_threads(partial(_count, remap=remap, exif=exif), chosen, workers=workers, stop=plan.stop)
    for (split, pair), here in track(counted, total=len(chosen), what="count"):
        if isinstance(here, DataError):
            damaged[f"{split}/{pair.name}"] = here
            continue
        pixels[split] += here
        shows.append(((split, pair), here[:-1] > 0))
    read = {split: sum(of == split for (of, _), _ in shows) for split in masked}
    return Survey(
        classes,
        remap,
        images={split: len(members) for split, members in plan.pairs.items()},
        masks={split: len(members) for split, members in masked.items()},
        read=read,
        counts=_class_counts(classes, pixels, shows),
        ignored={s: float(n[-1]) / max(int(n.sum()), 1) for s, n in pixels.items() if read[s]},
        damaged=damaged,
        notes=(*plan.notes, *plan.seen(), *notes),
        shows=tuple(shows),
    )


def _as_opened(description: Description) -> tuple[Classes, Remap, tuple[str, ...]]:
    """Classes and table as `open_dataset` will have them: names such as "void" are ignored there, and it says so."""
    names, colors = description.classes.names, description.classes.colors
    table = table_of(description).to_class
    space = label_space.settle(names, colors, table, raw_names=description.raw_names)
    return space.classes, space.remap, space.notes


def _count(member: Member, *, remap: Remap, exif: bool) -> NDArray[np.int64] | DataError:
    """Pixels of each class, and last of ignore (K + 1,); or what is wrong."""
    try:
        ids = open_pair(member[1], remap, whole=False, exif=exif).ids
    except DataError as error:
        return error
    assert ids is not None
    return np.bincount(np.minimum(ids, remap.num_classes).ravel(), minlength=remap.num_classes + 1)


def _class_counts(
    classes: Classes, pixels: Mapping[str, NDArray[np.int64]], shows: list[tuple[Member, NDArray[np.bool_]]]
) -> tuple[ClassCount, ...]:
    counts: list[ClassCount] = []
    for split, sums in pixels.items():
        images = sum((present for (of, _), present in shows if of == split), np.zeros(len(classes), np.int64))
        labelled = max(int(sums[:-1].sum()), 1)
        if images.any() or sums.any():
            counts += [
                ClassCount(name, split, int(n), int(n) / labelled, int(i))
                for name, n, i in zip(classes.names, sums[:-1], images, strict=True)
            ]
    return tuple(counts)
