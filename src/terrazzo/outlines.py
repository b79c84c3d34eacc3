"""From a mask to the polygons of its areas: pure geometry, the way back from `regions.fill_polygon`.

Polygons follow the edges of pixels, so nothing is lost: filled again, outer rings less their holes, they give the mask
to the pixel. Every ring is walked with its area on the right (y goes down), which makes outer rings positive and holes
negative by the shoelace formula over (x, y). Where a straight run of edges begins and what follows it is seen in its
neighbours alone, so all corners are found at once; only the walk from each to the next is a loop.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]  # (N, 2) corners (x, y), from (0, 0) to (W, H); the first is not repeated


class Area(NamedTuple):
    """Pixels of one value that hang together by their edges."""

    value: int
    """What the mask holds there."""
    size: int
    """How many pixels."""
    rings: list[Ring]
    """The outer ring, then those of its holes."""


class Runs(NamedTuple):
    """Straight runs of edges, N of them; by sides, the upper edges of pixels first, then right, lower, left ones."""

    corners_N2: Ring
    """Where each begins, (x, y)."""
    pixels: NDArray[np.int64]
    """The pixel of the area at its first edge, y * W + x."""
    following: NDArray[np.int64]
    """The run that goes on where it ends."""
    first_of_side: list[int]
    """Where each side begins among them."""


def outlines(mask: NDArray[Any]) -> list[Area]:
    """Return the areas of `mask` (H, W) of whole numbers, by the first corner of their outer rings, row by row.

    Pixels that touch by corners alone are of two areas, so no ring crosses itself. One core, 1120x1920 with 174,000
    corners: 0.2 s (2026-11).
    """
    runs = _runs(mask)
    rings, ring_of = _walk(runs.following)
    corners = [runs.corners_N2[ring] for ring in rings]
    sizes = [_signed_area(ring) for ring in corners]
    outer_of = _outer_rings(mask, runs, rings, ring_of, sizes)
    parts: dict[int, list[int]] = {number: [number] for number, size in enumerate(sizes) if size > 0}
    for hole, outer in outer_of.items():
        parts[outer].append(hole)
    return [
        Area(
            int(mask.flat[runs.pixels[rings[outer][0]]]),
            sum(sizes[ring] for ring in members),
            [corners[ring] for ring in members],
        )
        for outer, members in parts.items()
    ]


def _runs(mask: NDArray[Any]) -> Runs:
    """Upper edges are found in the mask as it is, the others in the mask turned by quarters, where they are upper."""
    height, width = mask.shape
    numbers = np.arange(mask.size, dtype=np.int64).reshape(mask.shape)
    corners, firsts, nexts = [], [], []
    for side in range(4):
        seen, number = np.rot90(mask, side), np.rot90(numbers, side)
        (y, x), (end_y, end_x) = _upper_runs(seen)
        x_and_y = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[side]
        corners.append(np.stack(x_and_y, axis=1))
        firsts.append(side * mask.size + number[y, x])
        # the area ends: on along the next side of its last pixel; it goes on above: along the side before, there
        beyond = np.minimum(end_x + 1, seen.shape[1] - 1)
        ends = (beyond == end_x) | (seen[end_y, end_x] != seen[end_y, beyond])
        pixel = number[np.where(ends, end_y, end_y - 1), beyond * ~ends + end_x * ends]
        nexts.append(np.where(ends, (side + 1) % 4, (side - 1) % 4) * mask.size + pixel)
    first = np.concatenate(firsts)
    order = np.argsort(first)
    following = order[np.searchsorted(first, np.concatenate(nexts), sorter=order)]
    first_of_side = [0, *np.cumsum([len(one) for one in firsts]).tolist()]
    return Runs(np.concatenate(corners), first % mask.size, following, first_of_side)


def _upper_runs(mask: NDArray[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return (y, x) of the first and of the last pixels of straight runs of upper edges, both row by row."""
    is_edge, goes_on = np.ones(mask.shape, bool), np.zeros(mask.shape, bool)
    np.not_equal(mask[1:], mask[:-1], out=is_edge[1:])
    np.equal(mask[:, 1:], mask[:, :-1], out=goes_on[:, :-1])
    goes_on[:, :-1] &= is_edge[:, :-1] & is_edge[:, 1:]
    last = is_edge & ~goes_on
    first = is_edge
    first[:, 1:] &= ~goes_on[:, :-1]
    return np.nonzero(first), np.nonzero(last)


def _walk(following: NDArray[np.int64]) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Return the runs of each ring in order, and the ring of each run."""
    after, ring_of = following.tolist(), [-1] * len(following)
    rings: list[list[int]] = []
    for begin in range(len(after)):
        if ring_of[begin] >= 0:
            continue
        ring: list[int] = []
        at = begin
        while ring_of[at] < 0:
            ring_of[at] = len(rings)
            ring.append(at)
            at = after[at]
        rings.append(ring)
    return rings, np.asarray(ring_of, dtype=np.int64)


def _signed_area(ring: Ring) -> int:
    x, y = ring[:, 0], ring[:, 1]
    return int(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) // 2


def _outer_rings(
    mask: NDArray[Any], runs: Runs, rings: list[list[int]], ring_of: NDArray[np.int64], sizes: list[int]
) -> dict[int, int]:
    """Return the outer ring around each hole.

    From the left end of a hole one goes left through its area until that ends; the ring met there lies further left. It
    is the outer one, or another hole from whose left end one goes on.
    """
    holes = [number for number, size in enumerate(sizes) if size < 0]
    if not holes:
        return {}
    height, width = mask.shape
    begins = np.ones(mask.shape, bool)
    np.not_equal(mask[:, 1:], mask[:, :-1], out=begins[:, 1:])
    row_starts = np.flatnonzero(begins)  # pixels with a left edge
    lefts = np.arange(runs.first_of_side[3], runs.first_of_side[4])

    def upwards(pixel: Any) -> Any:  # column by column, from the lowest pixel up, as runs of left edges go
        return pixel % width * height + height - 1 - pixel // width

    order = np.argsort(upwards(runs.pixels[lefts]))
    lefts = lefts[order]
    places = upwards(runs.pixels[lefts])
    met: dict[int, int] = {}
    for hole in holes:
        falling = [run for run in rings[hole] if runs.first_of_side[1] <= run < runs.first_of_side[2]]
        leftmost = min(falling, key=lambda run: int(runs.corners_N2[run, 0]))
        start = row_starts[np.searchsorted(row_starts, runs.pixels[leftmost], side="right") - 1]
        met[hole] = int(ring_of[lefts[np.searchsorted(places, upwards(start), side="right") - 1]])
    outer_of = {}
    for hole in holes:
        outer = met[hole]
        while sizes[outer] < 0:
            outer = met[outer]
        outer_of[hole] = outer
    return outer_of
