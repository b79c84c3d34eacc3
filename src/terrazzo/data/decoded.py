"""Keep decoded samples on the disk, mapped into memory: decoded once, for every epoch, process and training to come.

    CACHE/decoded/KEY/
      index.json    names, sizes and places of the samples, and their dtypes
      pixels        images and masks, each where the index says
      state         8 bytes a sample: 0, or 1 and the CRC-32 of its pixels

KEY is a hash of everything the pixels come from: contents of files, table of ids, channels. Several processes may fill
one cache at a time: they write the same bytes to the same places, the state last. A sample is compared with its CRC
when a process first takes it, so that what a kill or a pulled plug left half-written is decoded again. Pixels are
written by calls that can fail, never through the mapping, where a full disk would kill the process; what does not fit
is read anew each time. Nothing here touches the user's data.
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.data.cache import Samples
from terrazzo.sample import Sample
from terrazzo.storage import cache_folder, write_json

FORMAT = 1  # of the folder, and of what decoding gives
ALIGN = 64  # bytes: a line of the processor's cache
SHARE = 4  # at most a quarter of what the disk has free is taken, older caches of ours counted as free
WHOLE = 1 << 32  # in the state of a sample: its pixels are there


@dataclass(frozen=True)
class _Place:
    image: int
    mask: int
    size_hw: tuple[int, int]


class DecodedSamples:
    """Reads samples of a split through a cache on the disk; safe to use from several threads and processes."""

    def __init__(self, samples: Samples, *, key: str, folder: Path | None = None) -> None:
        """key: what the pixels come from, hashed; folder: where caches lie, the user's cache folder by default."""
        self._samples = samples
        self._pixels: NDArray[np.uint8] | None = None
        self._checked: set[int] = set()
        self._has_warned = False
        self.said: list[str] = []
        """What was decided, one line each."""
        if not len(samples):
            return
        self._folder = folder_of(key, folder)
        try:
            self._open(samples[0])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.said.append(
                f"decoded samples cannot be kept in {self._folder}: {error}; each is decoded anew"
            )
            self._pixels = None

    def __getitem__(self, index: int) -> Sample:
        """Return a sample, which must not be written to; raises what reading it raises."""
        if self._pixels is None or index >= len(self._places):
            return self._samples[index]
        found = self._kept(index)
        if found is not None:
            return found
        sample = self._samples[index]
        self._keep(index, sample)
        return sample

    @property
    def num_bytes(self) -> int:
        """How many bytes of pixels have a place."""
        return 0 if self._pixels is None else self._pixels.size

    def _open(self, first: Sample) -> None:
        self._image_dtype, self._channels = first.image.dtype, first.image.shape[2]
        self._mask_dtype = None if first.mask is None else first.mask.dtype
        self._folder.mkdir(parents=True, exist_ok=True)
        index = self._folder / "index.json"
        wanted = self._planned()
        known = _read(index)
        if known is None or known["places"] != wanted["places"][: len(known["places"])] or any(
            known[part] != wanted[part] for part in ("format", "image", "channels", "mask")
        ):  # fmt: skip
            total = _total(wanted)
            room = _room(self._folder, total)
            places = wanted["places"]
            while places and _total({**wanted, "places": places}) > room:
                places = places[: int(len(places) * min(0.99, room / _total({**wanted, "places": places})))]
            if len(places) < len(wanted["places"]):
                self.said.append(
                    f"{len(places):,} of {len(wanted['places']):,} decoded samples have room on the disk; "
                    "the others are decoded anew each time"
                )
            known = {**wanted, "places": places}
            with contextlib.suppress(OSError):
                (self._folder / "state").unlink()  # of another division
            write_json(index, known, durable=False)
        os.utime(index)
        self._places = [
            _Place(image, mask, (height, width)) for image, mask, height, width in known["places"]
        ]
        if not self._places:
            return
        for name, size in (("pixels", _total(known)), ("state", 8 * len(self._places))):
            with open(self._folder / name, "ab") as file:  # made, never shortened
                if file.tell() < size:
                    file.truncate(size)
        self._pixels = np.memmap(self._folder / "pixels", np.uint8, "c", shape=(_total(known),))
        self._state = np.memmap(self._folder / "state", "<u8", "r", shape=(len(self._places),))

    def _planned(self) -> dict[str, Any]:
        places, at = [], 0
        mask_bytes = 0 if self._mask_dtype is None else self._mask_dtype.itemsize
        for index in range(len(self._samples)):
            height, width = self._samples.size_hw(index)
            mask = at + _aligned(height * width * self._channels * self._image_dtype.itemsize)
            places.append([at, mask, height, width])
            at = mask + _aligned(height * width * mask_bytes)
        return {
            "format": FORMAT,
            "image": self._image_dtype.str,
            "channels": self._channels,
            "mask": None if self._mask_dtype is None else self._mask_dtype.str,
            "places": places,
        }

    def _views(self, index: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        place = self._places[index]
        height, width = place.size_hw
        assert self._pixels is not None
        size = height * width * self._channels * self._image_dtype.itemsize
        plain = self._pixels.view(np.ndarray)
        image = plain[place.image : place.image + size].view(self._image_dtype)
        mask = None
        if self._mask_dtype is not None:
            size = height * width * self._mask_dtype.itemsize
            mask = plain[place.mask : place.mask + size].view(self._mask_dtype).reshape(height, width)
        return image.reshape(height, width, self._channels), mask

    def _kept(self, index: int) -> Sample | None:
        state = int(self._state[index])
        if not state & WHOLE:
            return None
        image, mask = self._views(index)
        if index not in self._checked:
            if _crc(image, mask) != state & (WHOLE - 1):
                return None
            self._checked.add(index)
        return Sample(image, mask, self._samples.names[index])

    def _keep(self, index: int, sample: Sample) -> None:
        place, image, mask = self._places[index], sample.image, sample.mask
        mask_dtype = None if mask is None else mask.dtype
        form = (image.shape[:2], image.shape[2], image.dtype, mask_dtype)
        if form != (place.size_hw, self._channels, self._image_dtype, self._mask_dtype):
            return  # an image that is not what the index says
        try:
            self._write("pixels", place.image, np.ascontiguousarray(image).tobytes())
            if mask is not None:
                self._write("pixels", place.mask, np.ascontiguousarray(mask).tobytes())
            self._write("state", 8 * index, (WHOLE | _crc(image, mask)).to_bytes(8, "little"))
        except OSError as error:  # a full disk: what is not kept is decoded anew each time
            if not self._has_warned:
                self._has_warned = True
                warnings.warn(f"Decoded samples cannot be kept in {self._folder}: {error}.", stacklevel=2)

    def _write(self, name: str, at: int, data: bytes) -> None:
        with open(self._folder / name, "r+b", buffering=0) as file:
            file.seek(at)
            if file.write(data) != len(data):
                raise OSError("the disk is full")


def folder_of(key: str, folder: Path | None = None) -> Path:
    """Return where the samples of a key are kept; it may not exist."""
    return (folder or cache_folder()) / "decoded" / hashlib.sha256(key.encode()).hexdigest()[:32]


def outlook(key: str, *, samples: int, size: float) -> tuple[float, float]:
    """Return which share of the samples of a key has room on the disk, and which share is there; nothing is written.

    size: bytes of them all, as far as is known before they are laid out.
    """
    folder = folder_of(key)
    known = _read(folder / "index.json")
    try:
        if known is not None:
            states = np.fromfile(folder / "state", "<u8")
            return len(known["places"]) / samples, np.count_nonzero(states & WHOLE) / samples
        above = next(one for one in folder.parents if one.is_dir())
        others = sum(_size(one) for one in folder.parent.glob("*"))
        most = (shutil.disk_usage(above).free + others) // SHARE
    except (OSError, KeyError, TypeError):
        return 0.0, 0.0
    return min(1.0, most / max(1.0, size)), 0.0


def key_of(names: Sequence[str], hashes: Sequence[str], *tables: object) -> str:
    """Return what identifies decoded samples: their names and contents, and `tables`, what they were read by."""
    total = hashlib.sha256(json.dumps([FORMAT, *map(repr, tables)]).encode())
    for name, digest in zip(names, hashes, strict=True):
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def _crc(image: NDArray[Any], mask: NDArray[Any] | None) -> int:
    crc = zlib.crc32(np.ascontiguousarray(image).tobytes())
    return crc if mask is None else zlib.crc32(np.ascontiguousarray(mask).tobytes(), crc)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _total(index: dict[str, Any]) -> int:
    if not index["places"]:
        return 0
    _, mask, height, width = index["places"][-1]
    return int(mask + _aligned(height * width * (np.dtype(index["mask"]).itemsize if index["mask"] else 0)))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) and value.get("format") == FORMAT else None
    except (OSError, ValueError):
        return None


def _room(folder: Path, wanted: int) -> int:
    """Bytes that a cache here may take; the caches of ours that were not used for longest make room."""
    own = _size(folder)
    others = [one for one in folder.parent.iterdir() if one != folder and (one / "index.json").is_file()]
    sizes = {one: _size(one) for one in others}
    most = (shutil.disk_usage(folder).free + own + sum(sizes.values())) // SHARE
    kept = sum(sizes.values())
    for one in sorted(others, key=lambda one: (one / "index.json").stat().st_mtime):
        if kept + wanted <= most:
            break
        shutil.rmtree(one, ignore_errors=True)  # whoever has it mapped keeps it
        kept -= sizes[one]
    return max(0, most - kept)


def _size(folder: Path) -> int:
    """The bytes that the pixels of a cache take on the disk."""
    try:
        status = os.stat(folder / "pixels")
    except OSError:
        return 0
    return getattr(status, "st_blocks", 0) * 512 or status.st_size
