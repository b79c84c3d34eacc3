"""JPEGs decoded at a half, a quarter or an eighth of their sides, for whoever shrinks an image anyway.

libjpeg can leave out the fine part of each block's cosine transform, for a fraction of the time. Whatever is not a
plain grey or RGB JPEG (PNG, TIFF, CMYK, an array) comes whole, and everything is checked and refused as in `images.py`:
EXIF orientation is applied, a truncated file is an error.

A reduced pixel stands for d x d pixels of the whole image, counted from the corner that is stored first. Sides that d
does not divide end in a pixel that stands for fewer; where EXIF turns that end to the top or the left, the whole image
begins inside a pixel. `Reduced.place` says where anything of the whole image lies, in fractions of a pixel.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from terrazzo.images import decode_image, read_bytes

DIVISORS = (8, 4, 2)  # whole numbers of pixels per block in every version of libjpeg
END_IS_TOP = (3, 4, 7, 8)  # EXIF orientations that bring the end of what is stored to the top
END_IS_LEFT = (2, 3, 6, 7)

Rectangle = tuple[float, float, float, float]  # (top, left, height, width)


@dataclass(frozen=True, eq=False)
class Reduced:
    """An image, upright, with fewer pixels than its file holds, or with all of them."""

    image: NDArray[Any]
    """(h, w, C)"""
    size_hw: tuple[int, int]
    """(height, width) of the whole image, upright."""
    divisor: int = 1
    """1, 2, 4 or 8: how many pixels of the whole image lie along the side of a pixel here."""
    origin_yx: tuple[float, float] = (0.0, 0.0)
    """Where the whole image begins, in pixels of `image`."""

    @classmethod
    def whole(cls, image: NDArray[Any]) -> Self:
        """The image (H, W, C) with all its pixels."""
        return cls(image, (image.shape[0], image.shape[1]))

    def place(self, source_yxhw: Rectangle) -> Rectangle:
        """Return where a rectangle of the whole image lies in `image`."""
        top, left, height, width = (value / self.divisor for value in source_yxhw)
        return self.origin_yx[0] + top, self.origin_yx[1] + left, height, width


def divisor_for(source_yxhw: Rectangle, size_hw: tuple[int, int]) -> int:
    """Return the largest divisor that leaves the rectangle as many pixels, along both sides, as `size_hw` has."""
    shrinks = min(source_yxhw[2] / size_hw[0], source_yxhw[3] / size_hw[1])
    return next((one for one in DIVISORS if shrinks * (1 + 1e-9) >= one), 1)


def read_reduced(path: Path | str, *, divisor: int, channels: int | None = None) -> Reduced:
    """Return the image in a file, or at a URL, as `images.read_image`, but a JPEG at 1 / divisor of its sides."""
    return decode_reduced(read_bytes(path), divisor=divisor, where=str(path), channels=channels)


def decode_reduced(data: Any, *, divisor: int, where: str, channels: int | None = None) -> Reduced:
    """The same as `read_reduced` for the bytes of a file, a Pillow image, or an array (H, W) or (H, W, C)."""
    if divisor > 1 and isinstance(data, bytes) and data.startswith(b"\xff\xd8"):
        found = _decode(data, divisor, where, channels)
        if found is not None:
            return found
    return Reduced.whole(decode_image(data, where=where, channels=channels))


def _decode(data: bytes, divisor: int, where: str, channels: int | None) -> Reduced | None:
    """None where the whole image has to be decoded."""
    from terrazzo import decoding

    file = decoding.opened(data, where=where)
    width, height = file.size
    if file.mode not in ("L", "RGB") or min(file.size) < divisor:
        return None
    if file.draft(file.mode, (width // divisor, height // divisor)) is None:
        return None
    assert file.size == (-(-width // divisor), -(-height // divisor))
    orientation = decoding.exif_orientation(file.info.get("exif"))
    stored = decoding.from_pil(file, where=where).array
    image = decode_image(decoding.turn(stored, orientation), where=where, channels=channels)
    size_hw = (width, height) if orientation >= 5 else (height, width)
    origin = [
        image.shape[axis] - size_hw[axis] / divisor if orientation in ends else 0.0
        for axis, ends in enumerate((END_IS_TOP, END_IS_LEFT))
    ]
    return Reduced(np.ascontiguousarray(image), size_hw, divisor, (origin[0], origin[1]))
