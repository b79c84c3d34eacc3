"""What a tool covers along the pointer's path, pixel by pixel, by NumPy: the truth of tests that draw."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]


def covered(
    points: Sequence[Point], size: int, hw: tuple[int, int], *, square: bool = False
) -> NDArray[np.bool_]:
    """What a brush covers; of one pixel: those under the pointer and between, without a gap."""
    if size > 1:
        return swept(points, size, hw, square=square)
    found = np.zeros(hw, bool)
    cells = [(int(np.floor(x)), int(np.floor(y))) for x, y in points]
    for (x, y), (to_x, to_y) in zip(cells[:1] + cells[:-1], cells, strict=True):
        for ix, iy in bresenham(x, y, to_x, to_y):
            if 0 <= iy < hw[0] and 0 <= ix < hw[1]:
                found[iy, ix] = True
    return found


def bresenham(x: int, y: int, to_x: int, to_y: int) -> Iterator[tuple[int, int]]:
    """The pixels of a line, one beside the next (Bresenham 1965)."""
    dx, dy = abs(to_x - x), -abs(to_y - y)
    sx, sy = (1 if x < to_x else -1), (1 if y < to_y else -1)
    error = dx + dy
    while True:
        yield x, y
        if (x, y) == (to_x, to_y):
            return
        twice = 2 * error
        if twice >= dy:
            error, x = error + dy, x + sx
        if twice <= dx:
            error, y = error + dx, y + sy


def swept(
    points: Sequence[Point], size: float, hw: tuple[int, int], *, square: bool = False
) -> NDArray[np.bool_]:
    """The pixels whose centre lies within size / 2 of a path (H, W): what a brush covers, by its definition."""
    found, r = np.zeros(hw, bool), size / 2
    for a, b in zip([points[0], *points[:-1]], points, strict=True):
        xs, ys = sorted((a[0], b[0])), sorted((a[1], b[1]))
        left, top = max(0, math.floor(xs[0] - r - 1)), max(0, math.floor(ys[0] - r - 1))
        part = found[top : max(top, math.ceil(ys[1] + r + 1)), left : max(left, math.ceil(xs[1] + r + 1))]
        y, x = np.mgrid[0 : part.shape[0], 0 : part.shape[1]] + 0.5
        within = _swept_square if square else _swept_disc
        part |= within(x + left, y + top, a, b, r)
    return found


def _swept_disc(x: Any, y: Any, a: Point, b: Point, r: float) -> NDArray[np.bool_]:
    """Whether the nearest point of the path is within r."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = dx * dx + dy * dy
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / length2, 0, 1) if length2 else np.zeros(x.shape)
    found: NDArray[np.bool_] = (x - (a[0] + t * dx)) ** 2 + (y - (a[1] + t * dy)) ** 2 <= r * r
    return found


def _swept_square(x: Any, y: Any, a: Point, b: Point, r: float) -> NDArray[np.bool_]:
    """Whether some point of the path is within r in both x and y: the times at which each holds must overlap."""
    first, last = np.zeros(x.shape), np.ones(x.shape)
    for value, start, end in ((x, a[0], b[0]), (y, a[1], b[1])):
        if math.isclose(start, end, abs_tol=1e-12):
            last = np.where(np.abs(value - start) <= r, last, -1)
            continue
        near, far = (value - r - start) / (end - start), (value + r - start) / (end - start)
        first, last = np.maximum(first, np.minimum(near, far)), np.minimum(last, np.maximum(near, far))
    found: NDArray[np.bool_] = first <= last
    return found


def inside(points: Sequence[Point], hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose centre lies in a polygon (H, W), by the even-odd rule."""
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]] + 0.5
    found = np.zeros(hw, bool)
    for (ax, ay), (bx, by) in zip([points[-1], *points[:-1]], points, strict=True):
        if ay == by:
            continue
        crosses = (ay <= y) != (by <= y)
        found ^= crosses & (x >= ax + (y - ay) / (by - ay) * (bx - ax))
    return found
