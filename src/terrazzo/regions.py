"""Regions as people store them, polygons and run lengths, to masks: pure geometry, no files and no classes.

A pixel belongs to a polygon when its centre does, by the even-odd rule; coordinates are continuous, so that the square
(2, 2) to (4, 4) is four pixels. pycocotools rounds edges on a grid five times as fine and so differs from this in some
pixels along slanted edges; upright rectangles at whole numbers are the same. Run lengths are COCO's: column by column,
zeros first. Malformed regions raise ValueError; the caller knows the file and names it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CROSSINGS = 1 << 24  # rows that a polygon's edges cross, together; the largest of COCO has some thousands


def fill_polygon(mask: NDArray[np.bool_], corners_N2: NDArray[np.float64]) -> None:
    """Set the pixels of `mask` (H, W) whose centre lies in the polygon with these corners, (x, y) each, N >= 3."""
    height, width = mask.shape
    x, y = corners_N2[:, 0], corners_N2[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.ceil(np.minimum(y, next_y).clip(0, height) - 0.5).astype(np.int64).clip(0, height)
    end = np.ceil(np.maximum(y, next_y).clip(0, height) - 0.5).astype(np.int64).clip(0, height)
    crossed = end - first  # rows whose centre line each edge crosses
    total = int(crossed.sum())
    if total > MAX_CROSSINGS:
        raise ValueError(f"a polygon whose edges cross {total:,} rows")
    if total == 0:
        return
    edge = np.repeat(np.arange(len(x)), crossed)
    rows = np.arange(total) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    share = (rows + 0.5 - y[edge]) / (next_y - y)[edge]
    columns = (
        np.ceil((x[edge] + share * (next_x - x)[edge]).clip(0, width) - 0.5).astype(np.int64).clip(0, width)
    )
    top, left = int(rows.min()), int(columns.min())
    high, wide = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    turns = np.bincount((rows - top) * wide + columns - left, minlength=high * wide).reshape(high, wide)
    inside = np.cumsum(turns, axis=1)[:, :-1] % 2 == 1
    mask[top : top + high, left : left + wide - 1] |= inside


def polygon_area(corners_N2: NDArray[np.float64]) -> float:
    """Return the area in pixels, by the shoelace formula."""
    x, y = corners_N2[:, 0], corners_N2[:, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def decode_runs(counts: Sequence[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (H, W) of run lengths, column by column, zeros first; they must make exactly H * W pixels."""
    height, width = size_hw
    total = sum(counts)
    if min(counts, default=0) < 0 or total != height * width:
        raise ValueError(f"run lengths for {total:,} of {height * width:,} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, np.asarray(counts, dtype=np.int64)).reshape(width, height).T


def unpack_runs(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed string.

    Each character, less 48, holds 6 bits: 5 of the number, lowest first, and 32 for "more follows"; 16 in the last
    one is the sign. From the fourth number on, what is stored is the difference to the number two before.
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"no compressed run lengths: {text[:20]!r}")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError("compressed run lengths that break off")
    return counts


def as_corners(numbers: Any) -> NDArray[np.float64]:
    """Return the corners (N, 2) of a flat list x, y, x, y, …; ValueError where it is none of at least three corners."""
    corners = np.asarray(numbers, dtype=np.float64)
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
        raise ValueError(f"a polygon of {corners.size} numbers")
    if not (np.abs(corners) <= 1e6).all():
        raise ValueError("a polygon with corners beyond any image")
    return corners.reshape(-1, 2)
