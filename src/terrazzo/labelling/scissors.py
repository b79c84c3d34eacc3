"""Edges that a polygon follows: intelligent scissors (Mortensen, Barrett, 1995) by OpenCV, on what the page shows.

From an anchor the cheapest way along edges to every pixel is found once (about 0.15 s at 0.75 million pixels); then the
way to wherever the pointer is costs nothing. The last few views, and the last anchor of each, are kept.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UsageError
from terrazzo.labelling.grabcut import _opencv
from terrazzo.labelling.prompts import Box, Point

MOST_PIXELS = 750_000  # of a view as it is searched; larger ones are made smaller
KEPT = 4  # views; each holds about 20 bytes a pixel


@dataclass(eq=False)
class View:
    """What the page shows of one image, and what is known of its edges."""

    box: Box
    """In pixels of the image."""
    scale: float
    """Pixels searched per pixel of the image."""
    tool: Any
    """OpenCV's scissors, over the view."""
    anchor: tuple[int, int] | None = None
    """From where the ways are known, in pixels searched."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Scissors:
    """The views that people look at; may be asked by several threads."""

    def __init__(self) -> None:
        self._views: OrderedDict[tuple[str, Box], View] = OrderedDict()
        self._lock = threading.Lock()

    def path(
        self, key: str, read: Callable[[Box], NDArray[np.uint8]], view: Box, anchor: Point, target: Point
    ) -> list[Point]:
        """Return the way along edges from `anchor` to `target`, middles of pixels, both ends included.

        key: tells images apart, and one image from its changed self. read: returns a part of it (h, w, 3) uint8 RGB.
        Raises UsageError where anchor or target lie outside the view.
        """
        for name, (x, y) in (("anchor", anchor), ("target", target)):
            if not (view[0] <= x < view[2] and view[1] <= y < view[3]):
                raise UsageError(
                    f"The {name} does not lie in the view.", found=f"{x:g}, {y:g}", expected=f"{view}"
                )
        one = self._view(key, read, view)
        start, end = self._inside(one, anchor), self._inside(one, target)
        with one.lock:
            if one.anchor != start:
                one.anchor = None  # should this be interrupted
                one.tool.buildMap(start)
                one.anchor = start
            way = np.asarray(one.tool.getContour(end)).reshape(-1, 2)
        if not len(way):
            way = np.array([start, end])
        points = (way + 0.5) / one.scale + view[:2]
        return [(float(x), float(y)) for x, y in points]

    def _view(self, key: str, read: Callable[[Box], NDArray[np.uint8]], box: Box) -> View:
        with self._lock:
            known = self._views.get((key, box))
            if known is not None:
                self._views.move_to_end((key, box))
                return known
        made = _prepared(read(box), box)
        with self._lock:
            self._views[key, box] = made
            while len(self._views) > KEPT:
                self._views.popitem(last=False)
        return made

    @staticmethod
    def _inside(one: View, point: Point) -> tuple[int, int]:
        return int((point[0] - one.box[0]) * one.scale), int((point[1] - one.box[1]) * one.scale)


def _prepared(seen: NDArray[np.uint8], box: Box) -> View:
    cv2 = _opencv()
    scale = min(1.0, (MOST_PIXELS / (seen.shape[0] * seen.shape[1])) ** 0.5)
    if scale < 1:
        size = max(1, round(seen.shape[1] * scale)), max(1, round(seen.shape[0] * scale))
        seen = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    tool = cv2.segmentation.IntelligentScissorsMB()
    tool.setEdgeFeatureCannyParameters(32, 100)
    tool.setGradientMagnitudeMaxLimit(200)
    tool.applyImage(np.ascontiguousarray(seen))
    return View(box, scale, tool)
