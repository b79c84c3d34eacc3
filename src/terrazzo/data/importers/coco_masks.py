"""Objects and segments of COCO to masks of category ids; `coco` says which image has which."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Mask
from terrazzo.data.importers.downloads import Origin, read
from terrazzo.errors import DatasetFormatError, MaskSizeError, MaskValueError
from terrazzo.images import decode_image, encode_mask, size_of
from terrazzo.regions import as_corners, decode_runs, fill_polygon, polygon_area, unpack_runs

BACKGROUND = "background"
MAX_ID = 65_534  # of categories: a mask has 16 bits, and one value means ignore
SHOWN = 8  # how many problems an error lists


@dataclass(frozen=True)
class Ids:
    """The values that masks hold."""

    categories: Mapping[int, str]
    """Category id -> name, by id."""
    background: int
    """Of pixels that nobody labelled: the category called "background" where there is one, else a free id."""
    void: int
    """Of ignored pixels: a free id."""

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """uint8 where all of them fit, else uint16."""
        return np.uint8 if max(*self.categories, self.background, self.void) <= 255 else np.uint16

    @classmethod
    def of(cls, categories: Mapping[int, str], *, has_background: bool) -> "Ids":
        """Choose the two that are not given."""
        taken = set(categories)
        called = [raw for raw, name in categories.items() if name.strip().lower() == BACKGROUND]
        background = called[0] if called else next(raw for raw in (0, *range(1, MAX_ID)) if raw not in taken)
        if has_background:
            taken.add(background)
        return cls(categories, background, 255 if max(taken) < 255 else MAX_ID + 1)


@dataclass(frozen=True)
class Painted:
    """A mask that is still a list of objects."""

    image: Origin
    """The photograph: its size must be the one that the JSON says."""
    size_hw: tuple[int, int]
    """As the JSON says."""
    objects: tuple[Mapping[str, Any], ...]
    """The annotations of this image, as they stand in the JSON."""
    ids: Ids
    """What to paint with."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of it, painted."""
        mask = paint(self.objects, self.size_hw, self.ids, where=str(self.image))
        return encode_mask(as_shown(mask, self.image))


@dataclass(frozen=True)
class Segments:
    """A panoptic PNG and the categories of its segments."""

    image: Origin
    """The photograph: its size must be that of the PNG."""
    origin: Origin
    """The PNG: segment = R + 256 G + 65,536 B."""
    raw_of: Mapping[int, int]
    """Segment -> category id, or the ignored one."""
    ids: Ids
    """What to paint with."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of its categories."""
        colors = decode_image(read(self.origin), where=str(self.origin), channels=3).astype(np.uint32)
        packed = colors[..., 0] | colors[..., 1] << 8 | colors[..., 2] << 16
        segments, place, counts = np.unique(packed, return_inverse=True, return_counts=True)
        table = {0: self.ids.void, **self.raw_of}
        strange = [
            f"{s} ({n:,} pixels)"
            for s, n in zip(segments.tolist(), counts.tolist(), strict=True)
            if s not in table
        ]
        if strange:
            raise MaskValueError(
                f"The mask {self.origin} has segments that its JSON does not name.",
                found=", ".join(strange[:SHOWN]),
                expected="R + 256 G + 65,536 B = an id in segments_info, or 0 for none",
            )
        values = np.array([table[segment] for segment in segments.tolist()], dtype=self.ids.dtype)
        return encode_mask(as_shown(values[place.reshape(packed.shape)], self.image))


def paint(objects: Iterable[Mapping[str, Any]], size_hw: tuple[int, int], ids: Ids, *, where: str) -> Mask:
    """Return the category ids (H, W) of annotations: crowds as void first, then objects, the large ones first.

    Areas are those of the shapes, not what the JSON claims. Equal ones are painted in the order of the JSON.
    Raises DatasetFormatError naming `where` and the annotation whose shape is none.
    """
    canvas: Mask = np.full(size_hw, ids.background, dtype=ids.dtype)
    shapes: list[tuple[bool, float, Mapping[str, Any], Any]] = []
    for one in objects:
        with _in_words(one, size_hw, where):
            area, shape = _shape(one["segmentation"], size_hw)
            shapes.append((not one.get("iscrowd"), -area, one, shape))
    for _, _, one, shape in sorted(shapes, key=lambda shape: shape[:2]):
        with _in_words(one, size_hw, where):
            canvas[_region(shape, size_hw)] = ids.void if one.get("iscrowd") else one["category_id"]
    return canvas


def as_shown(mask: Mask, image: Origin) -> Mask:
    """Return `mask` turned as its photograph is shown; MaskSizeError where the two do not fit.

    A photograph that EXIF lays on its side is often annotated as it is stored; the sizes tell. One that is mirrored or
    stands on its head has the same size either way, and is taken to be annotated as shown.
    """
    from terrazzo.decoding import orientation_of, turn

    data = read(image)
    shown_hw = size_of(data, where=str(image))
    if mask.shape == shown_hw:
        return mask
    if mask.shape != shown_hw[::-1] or (orientation := orientation_of(data, where=str(image))) < 5:
        raise MaskSizeError(
            f"{image} and its mask differ in size.",
            found=f"image {shown_hw[0]} x {shown_hw[1]}, annotations for {mask.shape[0]} x {mask.shape[1]}",
            expected="the same height x width",
        )
    return turn(mask, orientation)


@contextmanager
def _in_words(one: Mapping[str, Any], size_hw: tuple[int, int], where: str) -> Iterator[None]:
    """Whatever a malformed shape trips over becomes a DatasetFormatError that names the annotation."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetFormatError(
            f"Annotation {one.get('id')!r:.40} of {where} has no shape that can be painted.",
            found=f"{type(error).__name__}: {error}"[:200],
            expected='polygons [[x, y, x, y, …], …], or runs {"size": [h, w], "counts": …} for '
            f"{size_hw[0]} x {size_hw[1]} pixels (height x width)",
            hint="Boxes alone are no masks.",
        ) from error


def _region(shape: Any, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) of polygons, all of them together, or of run lengths."""
    if not isinstance(shape, tuple):
        return decode_runs(shape, size_hw)
    region = np.zeros(size_hw, dtype=np.bool_)
    for corners in shape:
        fill_polygon(region, corners)
    return region


def _shape(segmentation: Any, size_hw: tuple[int, int]) -> tuple[float, Any]:
    """Return (area, a tuple of polygons or a list of run lengths); raises whatever a malformed one trips over."""
    if isinstance(segmentation, list):
        polygons = tuple(as_corners(numbers) for numbers in segmentation)
        if not polygons:
            raise ValueError("no polygon")
        return sum(map(polygon_area, polygons)), polygons
    if tuple(segmentation["size"]) != size_hw:
        raise ValueError(f"runs for {segmentation['size']}")
    counts = segmentation["counts"]
    counts = unpack_runs(counts) if isinstance(counts, str) else counts
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError("run lengths that are no whole numbers")
    return sum(counts[1::2]), counts
