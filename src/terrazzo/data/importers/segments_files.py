"""The files of a Segments.ai release: images, and bitmaps of region ids made into masks of category ids.

A place is a path below the release's own folder, or an http address, which is fetched only if that was asked for. The
site shows images upright, as their EXIF says, and people label what they see: a bitmap is upright. One that has the
size of the image as it is stored, lying on its side, is turned with it, and said.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Mask
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.fetching import fetch, shown
from terrazzo.data.importers.planning import Piece
from terrazzo.errors import MaskSizeError, MaskValueError
from terrazzo.images import IMAGE_SUFFIXES, encode_mask, size_of
from terrazzo.region_ids import category_map, decode_region_ids, unnamed_regions

SHOWN = 8  # how many files or regions a sentence lists
BEGINNINGS = {  # of files, and the suffix that says what they are
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"II": ".tif",
    b"MM": ".tif",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"P": ".ppm",
}


@dataclass(frozen=True)
class Look:
    """What is known of an image without its pixels."""

    shown_hw: tuple[int, int]
    """(height, width), upright."""
    orientation: int
    """1 (stored as it is shown) to 8."""
    suffix: str
    """Such as ".jpg", by its first bytes."""

    @classmethod
    def at(cls, data: bytes, *, where: str) -> "Look":
        """Look at the bytes of an image; UnreadableFileError naming `where` if they are none."""
        from terrazzo.decoding import orientation_of

        shown_hw, orientation = size_of(data, where=where), orientation_of(data, where=where)
        suffix = next((end for begin, end in BEGINNINGS.items() if data.startswith(begin)), ".png")
        return cls(shown_hw, orientation, suffix)


class Fetched:
    """A file at an address. What is seen of an image when it comes is kept; its bytes are not."""

    def __init__(self, url: str, name: str, stop: threading.Event) -> None:
        """name: the sample's, whose suffix counts where the address has none. stop: ends its waiting when set."""
        self.url = url
        self._stop = stop
        self._suffix = image_suffix(urlsplit(url).path) or image_suffix(name)
        self._look: Look | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def suffix(self) -> str:
        """Such as ".jpg"; where neither address nor name has one, the image is fetched to tell."""
        return self._suffix or self.look().suffix

    def read(self) -> bytes:
        """Return its bytes, fetched; raises as `fetching.fetch` does, and UnreadableFileError for what is no image."""
        with self._lock:  # so that a mask that asks for the image's size waits for an image on its way
            data = fetch(self.url, stop=self._stop)
            self._look = Look.at(data, where=str(self))
            return data

    def look(self) -> Look:
        """Return what is known of it; it is fetched where it never was."""
        with self._lock:
            if self._look is not None:
                return self._look
        self.read()
        return self.look()


@dataclass(frozen=True)
class Local:
    """A file of the release's folder whose name does not say what it is."""

    path: Path
    """Where it lies."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def suffix(self) -> str:
        """Such as ".jpg", by its first bytes."""
        return Look.at(self.read(), where=str(self)).suffix

    def read(self) -> bytes:
        """Return its bytes."""
        return read(self.path)


def image_suffix(name: str) -> str:
    """Return the suffix of a name or path if it is one of images, else ""."""
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in IMAGE_SUFFIXES else ""


@dataclass(frozen=True)
class Values:
    """The numbers in the masks of a release."""

    of: Mapping[int, int]
    """Category id -> value: the id itself, or 1 … K where some ids do not fit 16 bits."""
    unlabelled: int
    """Of pixels of no region: 0, or a free one where 0 is a category."""

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """uint8 where all of them fit, else uint16."""
        return np.uint8 if max(self.unlabelled, *self.of.values()) <= 255 else np.uint16

    @property
    def are_ids(self) -> bool:
        """True where every value is the category's id."""
        return all(raw == value for raw, value in self.of.items())

    @classmethod
    def for_categories(cls, ids: Sequence[int]) -> "Values":
        """Choose them."""
        top = max(ids)
        if top > 65_534:
            return cls({raw: value for value, raw in enumerate(sorted(ids), start=1)}, 0)
        return cls({raw: raw for raw in ids}, 0 if 0 not in ids else 255 if top < 255 else 65_535)


@dataclass
class Seen:
    """What was seen while bitmaps were read, by sample; told when all were."""

    unnamed: dict[str, dict[int, int]] = field(default_factory=dict)
    """Sample -> {region: pixels} that its annotations do not name."""
    turned: dict[str, int] = field(default_factory=dict)
    """Sample -> the orientation by which its bitmap was turned."""

    def sentences(self) -> tuple[str, ...]:
        """Return them for people to read."""
        said = []
        if self.unnamed:
            pixels = sum(sum(regions.values()) for regions in self.unnamed.values())
            listed = [
                f"{name} region{'s' if len(regions) > 1 else ''} {', '.join(map(str, list(regions)[:4]))}"
                + (", …" if len(regions) > 4 else "")
                for name, regions in sorted(self.unnamed.items())
            ]
            said.append(
                f"{pixels:,} pixels in {len(listed)} bitmap{'s' if len(listed) > 1 else ''} belong to regions that no "
                f"annotation gives a category; they are ignored: {_listed(listed)}."
            )
        if self.turned:
            said.append(
                f"{len(self.turned)} bitmap{'s were' if len(self.turned) > 1 else ' was'} drawn on the image as it is "
                f"stored, on its side, and turned with it: {_listed(sorted(self.turned))}."
            )
        return tuple(said)


@dataclass(frozen=True)
class Bitmap:
    """A mask that is still a bitmap of region ids."""

    name: str
    """The sample's."""
    origin: Path | Piece
    """The bitmap."""
    image: Path | Piece
    """Its image, whose size it must have."""
    regions: Mapping[int, int]
    """Region id -> category id."""
    values: Values
    """What the mask is to hold."""
    seen: Seen
    """Where to note what somebody should hear."""
    suffix: str = ".png"
    """Of the mask it becomes."""

    def read(self) -> bytes:
        """Return a PNG of the mask."""
        return encode_mask(self.mask(self.region_ids()))

    def region_ids(self) -> NDArray[np.uint32]:
        """Return the region ids (H, W) uint32, upright as the image is; MaskSizeError where the two do not fit."""
        from terrazzo.decoding import turn

        ids = decode_region_ids(read(self.origin), where=str(self.origin))
        look = (
            self.image.look()
            if isinstance(self.image, Fetched)
            else Look.at(read(self.image), where=str(self.image))
        )
        if ids.shape == look.shown_hw:
            return ids
        if ids.shape != look.shown_hw[::-1] or look.orientation < 5:
            raise MaskSizeError(
                f"The bitmap of {self.name} has not the size of its image.",
                found=f"image {look.shown_hw[0]} x {look.shown_hw[1]}, bitmap {ids.shape[0]} x {ids.shape[1]}",
                expected="the same height x width",
                hint=f"{self.image}, {self.origin}",
            )
        self.seen.turned[self.name] = look.orientation
        return turn(ids, look.orientation)

    def mask(self, ids: NDArray[np.uint32]) -> Mask:
        """Return the values (H, W) of region ids; what nobody drew is unlabelled, as is what no annotation names.

        The latter is noted. MaskValueError where the bitmap holds regions, and none of them is named.
        """
        strange = unnamed_regions(ids, self.regions)
        if strange and sum(strange.values()) == np.count_nonzero(ids):
            raise MaskValueError(
                f"The bitmap of {self.name} holds none of the regions in its annotations.",
                found=f"regions {_listed([str(region) for region in strange])} in {self.origin}",
                expected=f"regions {_listed([str(region) for region in sorted(self.regions)]) or 'with a category'}",
                hint="Is it the bitmap of another sample, or stored in another form than R + 256 G + 65,536 B?",
            )
        if strange:
            self.seen.unnamed[self.name] = strange
        annotations = [
            {"id": region, "category_id": self.values.of[raw]} for region, raw in self.regions.items()
        ]
        nothing = self.values.unlabelled
        mask = category_map(ids, annotations, unlabelled=nothing, unnamed=nothing, where=str(self.origin))
        return mask.astype(self.values.dtype)


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f", … ({len(items)} in all)" if len(items) > SHOWN else "")
