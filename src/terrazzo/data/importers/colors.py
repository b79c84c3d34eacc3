"""Masks that somebody saved as colours, turned back into ids by a table; one that is not in it is never guessed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, Color, Mask
from terrazzo.data.importers.downloads import read
from terrazzo.errors import MaskValueError
from terrazzo.images import decode_image, encode_mask

SHOWN = 8  # how many unknown colours an error lists
BLENDED = "Blended colours along borders come from resizing or JPEG: take the masks as they were published."


@dataclass(frozen=True, eq=False)
class Colored:
    """A mask of colours: RGB, RGBA, or a palette whose colours count."""

    path: Path
    """The file."""
    table: Mapping[Color, int]
    """Colour -> id."""
    whose: str
    """Whose colours these are, for errors: "VOC's"."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of its ids; in a viewer it has the colours it had."""
        image = decode_image(read(self.path), where=str(self.path), channels=3)
        ids = ids_of_colors(image, self.table, where=str(self.path), whose=self.whose)
        palette = np.zeros((256, 3), dtype=np.uint8)
        for color, raw in reversed(
            list(self.table.items())
        ):  # of several colours of one id the first is shown
            if raw < len(palette):
                palette[raw] = color
        return encode_mask(ids, palette)


@dataclass(frozen=True)
class Grey:
    """A mask whose ids were saved as grey: three equal channels, or one with transparency."""

    path: Path
    """The file."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of its ids; MaskValueError where its channels are not equal."""
        image = decode_image(read(self.path), where=str(self.path), channels=3)
        if not (image == image[..., :1]).all():
            raise MaskValueError(
                f"The mask {self.path} holds colours; others hold ids saved as grey.",
                found=counted(count_colors(image)),
                expected="equal red, green and blue, or a table of colours with --classes",
            )
        return encode_mask(np.ascontiguousarray(image[..., 0]))


def ids_of_colors(image: NDArray[Any], table: Mapping[Color, int], *, where: str, whose: str) -> Mask:
    """Return ids (H, W) uint8, or uint16 where one is above 255, of colours (H, W, 3) uint8.

    Raises MaskValueError naming `where`, with the colours that are not in `table` and their pixels.
    """
    packed = _packed(image)
    known = np.array(sorted(map(_pack, table)), dtype=np.uint32)
    id_of = {_pack(color): raw for color, raw in table.items()}
    dtype = np.uint8 if max(table.values()) <= IGNORE_8BIT else np.uint16
    ids = np.array([id_of[color] for color in known.tolist()], dtype=dtype)
    place = np.minimum(np.searchsorted(known, packed), len(known) - 1)
    strange = known[place] != packed
    if strange.any():
        unknown = {color: n for color, n in count_colors(image).items() if color not in table}
        raise MaskValueError(
            f"The mask {where} has colours that are not {whose}.",
            found=counted(unknown),
            expected=f"the {len(table)} colours of the table",
            hint=BLENDED,
        )
    return np.asarray(ids[place], dtype=dtype)


def count_colors(image: NDArray[Any]) -> dict[Color, int]:
    """Return {colour: pixels} of an image (H, W, 3) uint8, the commonest first."""
    colors, counts = np.unique(_packed(image), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {
        (color >> 16, color >> 8 & 255, color & 255): count
        for color, count in zip(colors[order].tolist(), counts[order].tolist(), strict=True)
    }


def counted(colors: Mapping[Color, int]) -> str:
    """Return "(1, 2, 3) (40 pixels), …" with how many there are in all."""
    shown = [f"{color} ({count:,} pixels)" for color, count in list(colors.items())[:SHOWN]]
    return ", ".join(shown) + (f", … ({len(colors)} in all)" if len(colors) > SHOWN else "")


def _packed(image: NDArray[Any]) -> NDArray[np.uint32]:
    wide = image.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2], dtype=np.uint32)


def _pack(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
