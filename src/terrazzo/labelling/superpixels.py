"""Superpixels whose granularity never moves a boundary: cells, and coarser cells made of whole finer ones.

An image is cut into thousands of small cells of one colour each (SLIC: Achanta et al., 2012), and neighbours are
joined, those first that differ least, until about thirty are left; `merging.py` says what differs least. Seven states
on that way are kept as levels. A cell of a level is a union of cells of the finer one, so a selection survives a change
of level, and the page changes level by swapping a table, without asking anybody.

What is computed is a map of at most 1.5 million pixels; the page stretches it over the image (`Superpixels.spread` says
how). For sharper boundaries the same is done for a part of the image at its full resolution (`box`).
"""

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from terrazzo.errors import UnreadableFileError, UsageError
from terrazzo.labelling import merging, slic
from terrazzo.rendering import display

VERSION = 1  # of what is computed and how it is packed; another one makes kept superpixels void
MOST_PIXELS = 1_500_000  # of a map: SLIC takes 0.3 s for them on one core (docs/explanation/superpixels.md)
MOST_IN_BOX = 1_000_000  # of a part that is looked at in full resolution
LEVELS = (3000, 1400, 650, 300, 140, 65, 30)  # cells, at most; each about half of the one before
FIRST = 5000  # cells that SLIC is asked for: smaller ones than are kept follow boundaries better
SMALLEST_STEP = 5  # pixels between the middles of SLIC's cells; below, colours are noise
BLUR = 0.8  # pixels: camera noise is no boundary

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the upright image, x1 and y1 exclusive
Cells = NDArray[np.uint16] | NDArray[np.uint32]
Report = Callable[[float, str], None]  # how far, 0 to 1, and in words


@dataclass(frozen=True, eq=False)
class Superpixels:
    """The cells of an image, or of a part of it, at every level."""

    image_hw: tuple[int, int]
    """(height, width) of the upright image."""
    box: Box
    """The part of it that the map covers."""
    fine: Cells
    """(h, w): the finest cell at every pixel of the map, 0 … n-1."""
    levels: tuple[Cells, ...]
    """Per level, from fine to coarse: fine cell -> cell, 0 … counts[level]-1. The first is the identity."""
    engine: str
    """Who made the first cells: opencv, skimage or numpy."""

    @property
    def counts(self) -> tuple[int, ...]:
        """How many cells every level has, falling."""
        return tuple(int(table.max()) + 1 for table in self.levels)

    def cells(self, level: int) -> NDArray[Any]:
        """Return the map (h, w) of a level's cells."""
        return self.levels[level][self.fine]

    def spread(self, level: int) -> NDArray[Any]:
        """Return a level's cells at every pixel of the box, as the page paints them.

        The middle of a pixel says in which pixel of the map it lies: column x (from the box's left) in
        floor((2x + 1) * w / (2 * width of the box)), rows likewise; whole numbers, so that every reader agrees.
        """
        x0, y0, x1, y1 = self.box
        rows = spread_places(y1 - y0, self.fine.shape[0])
        columns = spread_places(x1 - x0, self.fine.shape[1])
        return self.cells(level)[rows[:, None], columns]


def superpixels(
    image: NDArray[Any],
    *,
    box: Box | None = None,
    report: Report | None = None,
    levels: tuple[int, ...] = LEVELS,
    engine: str | None = None,
) -> Superpixels:
    """Return the superpixels of an image (H, W, C), or of the `box` of it, which is not made smaller.

    levels: cells per level, at most, falling; small images have fewer, and levels that would be alike are left out.
    engine: opencv, skimage or numpy; None takes the first that is installed. Equal images give equal superpixels from
    one engine. report: called with how far, 0 to 1; what it raises ends the work.
    Raises UsageError for a box outside the image, or of more than a million pixels.
    """
    told = report or (lambda share, says: None)
    height, width = image.shape[:2]
    whole = (0, 0, width, height)
    checked = whole if box is None else checked_box(box, (height, width))
    x0, y0, x1, y1 = checked
    seen = display(image[y0:y1, x0:x1]).convert("RGB")
    rgb = np.asarray(seen.resize(_map_size(seen.size), Image.Resampling.BOX, reducing_gap=1.01))
    lab = slic.as_lab(slic.blurred(rgb, BLUR))
    told(0.1, "cutting into cells")
    name = engine or slic.engine()
    step = max(SMALLEST_STEP, round(math.sqrt(rgb.shape[0] * rgb.shape[1] / FIRST)))
    cells = slic.connected(slic.cut(lab, step=step, engine=name))
    told(0.6, "joining neighbours")
    tables = merging.levels(merging.graph_of(cells, lab), levels)
    told(0.95, "keeping them")
    fine = tables[0][cells]
    seats = np.unique(tables[0], return_index=True)[1]  # one of SLIC's cells in each of the finest
    kind: Any = np.uint16 if len(seats) <= 1 << 16 else np.uint32
    nested = tuple(table[seats].astype(kind) for table in tables)
    return Superpixels((height, width), checked, fine.astype(kind), nested, name)


def checked_box(box: Box, size_hw: tuple[int, int], *, most: int = MOST_IN_BOX) -> Box:
    """Return a box of whole numbers inside an image; UsageError where it is none, or has more than `most` pixels."""
    height, width = size_hw
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UsageError(
            "The box does not lie in the image.",
            found=f"x {x0} to {x1}, y {y0} to {y1}",
            expected=f"0 <= x0 < x1 <= {width}, 0 <= y0 < y1 <= {height}",
        )
    if (x1 - x0) * (y1 - y0) > most:
        raise UsageError(
            "The box is too large to be looked at in full resolution.",
            found=f"{x1 - x0} x {y1 - y0} pixels",
            expected=f"at most {most:,} pixels",
            hint="Zoom in.",
        )
    return x0, y0, x1, y1


def key_of(sha256: str, box: Box | None = None) -> str:
    """Return the name under which the superpixels of an image are kept: of its content and all they depend on."""
    about = [
        sha256,
        VERSION,
        slic.engine(),
        MOST_PIXELS,
        LEVELS,
        FIRST,
        SMALLEST_STEP,
        BLUR,
        merging.RULE,
        box,
    ]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def pack(cells: Superpixels) -> bytes:
    """Return the superpixels as one block of bytes; `unpack` gives them back exactly.

    Three parts, each behind its length (uint32, little-endian): a JSON header in UTF-8; the map, rows one after the
    other, zlib; the tables of all levels, one after the other, zlib. Numbers are little-endian and of `bits` bits.

        {"format": "terrazzo superpixels", "version": 1, "width", "height" (of the image), "box": [x0, y0, x1, y1],
         "map_width", "map_height", "bits": 16 | 32, "counts": [cells per level], "engine"}
    """
    height, width = cells.image_hw
    bits = cells.fine.dtype.itemsize * 8
    head = {
        "format": "terrazzo superpixels",
        "version": VERSION,
        "width": width,
        "height": height,
        "box": list(cells.box),
        "map_width": cells.fine.shape[1],
        "map_height": cells.fine.shape[0],
        "bits": bits,
        "counts": list(cells.counts),
        "engine": cells.engine,
    }
    order = f"<u{bits // 8}"
    parts = [
        json.dumps(head, separators=(",", ":")).encode(),
        zlib.compress(np.ascontiguousarray(cells.fine, order).tobytes(), 6),
        zlib.compress(b"".join(np.ascontiguousarray(table, order).tobytes() for table in cells.levels), 6),
    ]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def unpack(data: bytes) -> Superpixels:
    """Return what `pack` packed; UnreadableFileError for bytes that it did not."""
    try:
        packed = list(_parts(data))
        head = json.loads(packed[0])
        if head["format"] != "terrazzo superpixels" or head["version"] != VERSION or len(packed) != 3:
            raise ValueError("another format or version")
        order, counts = f"<u{head['bits'] // 8}", head["counts"]
        h, w = head["map_height"], head["map_width"]
        if h < 1 or w < 1 or h * w > max(MOST_PIXELS, MOST_IN_BOX):
            raise ValueError("a map of another size")
        fine = _numbers(packed[1], order, h * w).reshape(h, w)
        tables = _numbers(packed[2], order, counts[0] * len(counts)).reshape(len(counts), counts[0])
        if fine.max() >= counts[0] or any(t.max() >= n for t, n in zip(tables, counts, strict=True)):
            raise ValueError("cells beyond their count")
        size, box = (head["height"], head["width"]), head["box"]
        return Superpixels(size, tuple(box), fine, tuple(tables), head["engine"])
    except (ValueError, KeyError, TypeError, IndexError, struct.error, zlib.error) as error:
        raise UnreadableFileError("Kept superpixels cannot be read.", found=str(error)) from error


def spread_places(size: int, cells: int) -> NDArray[np.int64]:
    """Return, for each of `size` pixels, in which of the map's `cells` columns (or rows) its middle lies."""
    return (2 * np.arange(size, dtype=np.int64) + 1) * cells // (2 * size)


def _map_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the map of an image of this (width, height)."""
    width, height = size
    shrink = min(1.0, math.sqrt(MOST_PIXELS / (width * height)))
    return max(1, int(width * shrink)), max(1, int(height * shrink))


def _parts(data: bytes) -> Any:
    place = 0
    while place < len(data):
        (length,) = struct.unpack_from("<I", data, place)
        part = data[place + 4 : place + 4 + length]
        if len(part) != length:
            raise ValueError("cut short")
        yield part
        place += 4 + length


def _numbers(part: bytes, order: str, count: int) -> NDArray[Any]:
    size = count * np.dtype(order).itemsize
    inflate = zlib.decompressobj()
    found = inflate.decompress(part, size + 1)
    if len(found) != size or not inflate.eof:
        raise ValueError(f"{len(found)} bytes instead of {size}")
    return np.frombuffer(found, order).astype(np.dtype(order).newbyteorder("="))
