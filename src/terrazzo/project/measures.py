"""What is taken down of a prediction, so that queues and scores need not read its pixels again: pure numbers.

Which categories it sees and how it doubts them; what it and the label, or another model, say of the same pixels; and
the places where it is sure of something else than the label says.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.outlines import outlines
from terrazzo.project import orders

SURE = 204  # of 255: 0.8, from which on a disagreement is called confident
SMALLEST = 16  # pixels of a disagreement that is listed, in an image of up to 320,000 pixels; then a 20,000th
FINE = 2_000_000  # pixels of an image of which every one is looked at
MOST = 20  # disagreements listed of one image, the heaviest


@dataclass(frozen=True)
class Area:
    """Pixels that hang together, of which a model is sure that they are something else than the label says."""

    x: int
    """Column of a pixel in it: the first of its first row."""
    y: int
    """Row of that pixel, the uppermost of the area."""
    left: int
    """The first column of its bounding box, which begins at row `y`."""
    width: int
    """Of its bounding box."""
    height: int
    """Of its bounding box."""
    pixels: int
    """How many."""
    label: int
    """The category that the label says."""
    predicted: int
    """The category that the model says."""
    confidence: float
    """The mean of the model's, in [0, 1]."""


@dataclass(frozen=True)
class Measure:
    """What is kept of one prediction of one image."""

    size: int
    """Pixels of the image."""
    uncertainty: float
    """As `orders.uncertainty`."""
    seen: Mapping[int, tuple[int, float]]
    """{category: (pixels, doubt)}; doubt: the sum of 1 - confidence over them."""
    pairs: Mapping[tuple[int, int], int]
    """{(label says, model says): pixels}, where both say something that is scored; {} where nobody drew."""
    areas: tuple[Area, ...] = ()
    """The confident disagreements, heaviest first."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain form of all but `areas`."""
        return {
            "size": self.size,
            "uncertainty": round(self.uncertainty, 6),
            "seen": [[one, pixels, round(doubt, 3)] for one, (pixels, doubt) in self.seen.items()],
            "pairs": [[*pair, pixels] for pair, pixels in self.pairs.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Measure":
        """Read what `to_json` wrote."""
        return cls(
            int(value["size"]),
            float(value["uncertainty"]),
            {int(one): (int(pixels), float(doubt)) for one, pixels, doubt in value["seen"]},
            {(int(one), int(other)): int(pixels) for one, other, pixels in value["pairs"]},
        )


def measure(
    mask: NDArray[np.uint16],
    confidence: NDArray[np.uint8],
    other: NDArray[np.uint16] | None,
    *,
    ignored: Collection[int] = (),
) -> Measure:
    """Return the measure of a prediction (H, W): category ids, 0 for none, and confidence, 255 = certain.

    other: (H, W) category ids of the label, or of another model, 0 for none; None where there is nothing to compare
    with. ignored: categories that are not compared.
    """
    certain = confidence.astype(np.float64)
    top = int(mask.max(initial=0)) + 1
    pixels = np.bincount(mask.ravel(), minlength=top)
    doubt = pixels - np.bincount(mask.ravel(), certain.ravel(), minlength=top) / 255
    seen = {int(one): (int(pixels[one]), float(doubt[one])) for one in np.flatnonzero(pixels) if one}
    pairs: dict[tuple[int, int], int] = {}
    areas: tuple[Area, ...] = ()
    if other is not None:
        compared = (mask != 0) & (other != 0) & ~np.isin(other, list(ignored)) & ~np.isin(mask, list(ignored))
        pairs = _pairs(other[compared], mask[compared])
        areas = disagreements(mask, confidence, np.where(compared, other, 0))
    return Measure(mask.size, orders.uncertainty(confidence), seen, pairs, areas)


def _pairs(label: NDArray[np.uint16], mask: NDArray[np.uint16]) -> dict[tuple[int, int], int]:
    """Count pairs of ids, without sorting: by their ranks among those that occur."""
    rows, columns = (np.flatnonzero(np.bincount(one)) for one in (label, mask))
    if not len(rows):
        return {}
    rank, place = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64)
    rank[rows], place[columns] = np.arange(len(rows)), np.arange(len(columns))
    counts = np.bincount(rank[label] * len(columns) + place[mask], minlength=len(rows) * len(columns))
    return {
        (int(rows[n // len(columns)]), int(columns[n % len(columns)])): int(counts[n])
        for n in np.flatnonzero(counts)
    }


def disagreements(
    mask: NDArray[np.uint16],
    confidence: NDArray[np.uint8],
    label: NDArray[np.integer[Any]],
    *,
    sure: int = SURE,
    most: int = MOST,
) -> tuple[Area, ...]:
    """Return where a model is sure of something else than the label says; heaviest (pixels x confidence) first.

    label: 0 where it is not compared. An area is of one pair of categories, and its pixels hang together by edges. Of
    images of more than 2 megapixels every second, third … pixel of every second, third … row is looked at.
    """
    step = math.ceil(math.sqrt(mask.size / FINE))
    if step > 1:
        every = (slice(None, None, step), slice(None, None, step))
        coarse = disagreements(mask[every], confidence[every], label[every], sure=sure, most=most)
        return tuple(
            Area(one.x * step, one.y * step, one.left * step, one.width * step, one.height * step,
                 one.pixels * step * step, one.label, one.predicted, one.confidence)
            for one in coarse
        )  # fmt: skip
    is_wrong = (label != mask) & (label != 0) & (mask != 0) & (confidence >= sure)
    smallest = max(SMALLEST, mask.size // 20_000)
    if int(is_wrong.sum()) < smallest:
        return ()
    codes = np.where(is_wrong, (label.astype(np.int64) << 16) | mask, 0)
    found = []
    for area in outlines(codes):
        if not area.value or area.size < smallest:
            continue
        ring = area.rings[0]
        (left, top), (right, bottom) = ring.min(axis=0), ring.max(axis=0)
        inside = codes[top:bottom, left:right] == area.value
        sureness = float(confidence[top:bottom, left:right][inside].mean()) / 255
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]  # its uppermost, then leftmost corner
        found.append(
            Area(
                int(x),
                int(y),
                int(left),
                int(right - left),
                int(bottom - top),
                area.size,
                area.value >> 16,
                area.value & 0xFFFF,
                sureness,
            )
        )
    found.sort(key=lambda one: (-one.pixels * one.confidence, one.y, one.x))
    return tuple(found[:most])
