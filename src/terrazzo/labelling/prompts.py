"""What a person points at: a box, points that are in, points that are out; and the mask that an engine answers.

Everything is in pixels of the upright image. A page may send anything, so everything is checked here, once, before an
engine sees it.
"""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UsageError

MOST_POINTS = 64  # of either kind; people give a handful

Point = tuple[float, float]  # x, y: 0, 0 is the upper left corner of the upper left pixel
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, x1 and y1 exclusive


@dataclass(frozen=True)
class Prompt:
    """What is asked for."""

    box: Box | None
    """What it lies in; None where only points are given."""
    positive: tuple[Point, ...]
    """Points that belong to it."""
    negative: tuple[Point, ...]
    """Points that do not."""

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, those that belong first."""
        return self.positive + self.negative


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an engine answers: a mask of the smallest rectangle around it."""

    x: int
    """Of its upper left pixel."""
    y: int
    """Of its upper left pixel."""
    mask: NDArray[np.bool_]
    """(h, w); both 0 where nothing was found."""
    engine: str
    """Who answers, as the badge shows it."""

    @classmethod
    def of(cls, mask: NDArray[np.bool_], engine: str, *, x: int = 0, y: int = 0) -> "Proposal":
        """Return the proposal of a mask whose upper left pixel lies at (x, y), cut to what it holds."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return cls(x, y, np.zeros((0, 0), bool), engine)
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        return cls(x + int(left), y + int(top), mask[top:bottom, left:right], engine)

    def to_json(self) -> dict[str, Any]:
        """Return what a page is sent: {x, y, width, height, data: zlib of one byte per pixel, base64, engine}."""
        height, width = self.mask.shape
        data = zlib.compress(np.ascontiguousarray(self.mask, np.uint8).tobytes(), 6)
        told = {"x": self.x, "y": self.y, "width": width, "height": height}
        return {**told, "data": base64.b64encode(data).decode(), "engine": self.engine}


def as_prompt(told: Any, size_hw: tuple[int, int], *, needs_box: bool = False) -> Prompt:
    """Return the prompt in a parsed JSON body; UsageError says what is wrong with it."""
    if not isinstance(told, Mapping) or not told.keys() <= {"box", "positive", "negative"}:
        keys = ", ".join(map(str, told)) if isinstance(told, Mapping) else type(told).__name__
        raise UsageError(
            "This is no prompt.", found=f"{keys:.80}", expected='{"box", "positive", "negative"}'
        )
    given = told.get("box")
    box = None if given is None else as_box(given, size_hw)
    positive, negative = (as_points(told.get(name, []), size_hw) for name in ("positive", "negative"))
    if box is None and (needs_box or not positive):
        raise UsageError(
            "A prompt needs a box." if needs_box else "A prompt needs a box, or a point that is in."
        )
    return Prompt(box, positive, negative)


def as_box(value: Any, size_hw: tuple[int, int]) -> Box:
    """Return [x0, y0, x1, y1], fractions rounded outwards; UsageError unless it lies in the image and holds a pixel."""
    height, width = size_hw
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) != 4
        or not all(_is_number(one) for one in value)
    ):
        raise UsageError("A box is four numbers.", found=f"{value!r:.80}", expected="[x0, y0, x1, y1]")
    x0, y0, x1, y1 = value
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UsageError(
            "The box does not lie in the image.",
            found=f"x {x0:g} to {x1:g}, y {y0:g} to {y1:g}",
            expected=f"0 <= x0 < x1 <= {width}, 0 <= y0 < y1 <= {height}",
        )
    return math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)


def as_point(value: Any, size_hw: tuple[int, int]) -> Point:
    """Return [x, y]; UsageError unless it lies in the image."""
    height, width = size_hw
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or len(value) != 2
        or not all(_is_number(one) for one in value)
    ):
        raise UsageError("A point is two numbers.", found=f"{value!r:.80}", expected="[x, y]")
    x, y = value
    if not (0 <= x < width and 0 <= y < height):
        raise UsageError(
            "The point does not lie in the image.",
            found=f"{x:g}, {y:g}",
            expected=f"0 <= x < {width}, 0 <= y < {height}",
        )
    return float(x), float(y)


def as_points(value: Any, size_hw: tuple[int, int]) -> tuple[Point, ...]:
    """Return a list of points; UsageError where it is none, or too long."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UsageError("Points are a list.", found=f"{value!r:.80}", expected="[[x, y], …]")
    if len(value) > MOST_POINTS:
        raise UsageError("Too many points.", found=str(len(value)), expected=f"at most {MOST_POINTS}")
    return tuple(as_point(one, size_hw) for one in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
