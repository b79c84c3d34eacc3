"""What the repair does to one mask: plain functions from ids (or colours) to ids.

Nothing here decides whether a mask needs it: `treatment.py` does.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT
from terrazzo.data.chart import Border, Color
from terrazzo.data.readings import SPECK, between
from terrazzo.kernels.specks import specks

_ROUNDS = 8  # of taking mixed ids off: what is left of a wide border is narrower each time


def first_channel(mask: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W) of a mask (H, W, 3) of equal channels; a mask of ids as it is."""
    return mask[..., 0] if mask.ndim == 3 else mask


def eight_bit(mask: NDArray[Any]) -> NDArray[np.uint8]:
    """Return ids below 256 as uint8, 65535 as 255."""
    return np.where(mask == IGNORE_16BIT, IGNORE_8BIT, mask).astype(np.uint8)


def moved_ids(mask: NDArray[Any], moves: Mapping[int, int]) -> NDArray[Any]:
    """Return a mask in which each id is written as `moves` says, all at once: {1: 2, 2: 1} swaps."""
    top = max([int(mask.max(initial=0)), *moves, *moves.values()])
    dtype = np.dtype(np.uint8 if top <= IGNORE_8BIT else np.uint16)
    table = np.arange(top + 1, dtype=dtype)
    for raw, new in moves.items():
        table[raw] = new
    return table[mask]


def unpacked(mask: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return the classes in packed ids: what is below `factor` is one already; 65535 stays."""
    ids = np.where((mask >= factor) & (mask != IGNORE_16BIT), mask // factor, mask)
    return ids.astype(np.uint8) if ids.max(initial=0) <= IGNORE_8BIT else ids


def ids_of_colors(mask: NDArray[Any], known: Mapping[Color, int], other: int) -> NDArray[Any]:
    """Return ids for a mask (H, W, 3) of colours; colours that are not known become `other`."""
    packed = {red << 16 | green << 8 | blue: raw for (red, green, blue), raw in known.items()}
    dtype = np.uint8 if max([other, *packed.values()]) <= IGNORE_8BIT else np.uint16
    red, green, blue = np.moveaxis(mask[..., :3].astype(np.int32), 2, 0)
    values, inverse = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    ids = np.array([packed.get(value, other) for value in values.tolist()], dtype=dtype)
    return ids[inverse.reshape(red.shape)]


def moved(mask: NDArray[Any], way: tuple[int, int], ignore: int) -> NDArray[Any]:
    """Return a mask moved by (down, right) pixels; the strip that comes free is `ignore`."""
    down, right = way
    height, width = mask.shape
    result = np.full_like(mask, ignore)
    kept = mask[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    result[max(down, 0) : height - max(-down, 0), max(right, 0) : width - max(-right, 0)] = kept
    return result


def unblended(mask: NDArray[Any], known: Collection[int]) -> NDArray[Any]:
    """Return a mask whose mixed ids have the id of the nearest pixel without; ids that are not known are mixed."""
    is_strange = ~np.isin(mask, list(known))
    mask = filled(mask, (is_strange | between(mask)) if not is_strange.all() else np.zeros_like(is_strange))
    for _ in range(_ROUNDS):
        mixed = between(mask)
        if not mixed.any():
            break
        mask = filled(mask, mixed)
    return mask


def without_specks(mask: NDArray[Any], classes: Collection[int]) -> NDArray[Any]:
    """Return a mask whose specks of these ids have the id of the nearest pixel outside any."""
    small = specks(mask, SPECK)
    return filled(mask, small & np.isin(mask, list(classes))) if not small.all() else mask


def without_frame(mask: NDArray[Any], frame: Border) -> NDArray[Any]:
    """Return a mask whose frame has the ids next to it."""
    height, width = mask.shape
    inner = mask[frame.top : height - frame.bottom, frame.left : width - frame.right]
    return np.pad(inner, ((frame.top, frame.bottom), (frame.left, frame.right)), mode="edge")


def filled(mask: NDArray[Any], holes: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a mask in which holes (H, W) have grown shut from their rims, a pixel at a time; all holes: as it is."""
    mask, open_ = mask.copy(), holes.copy()
    if open_.all():
        return mask
    while open_.any():
        closed, ids = ~open_, mask.copy()
        for to, of in _NEIGHBOURS:
            grown = open_[to] & closed[of]
            mask[to][grown] = ids[of][grown]
            open_[to] &= ~grown
    return mask


_ALL, _FROM, _UP_TO = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (
    ((_ALL, _FROM), (_ALL, _UP_TO)),
    ((_ALL, _UP_TO), (_ALL, _FROM)),
    ((_FROM, _ALL), (_UP_TO, _ALL)),
    ((_UP_TO, _ALL), (_FROM, _ALL)),
)
