"""A release as records of a data set: images read where they lie, masks joined from tiles; raw ids are category ids.

Labels that somebody finished are taken. An image whose bytes are not those that were released is an error when it is
read, and so is a damaged tile; neither is skipped. Pickles as the project's path and the release's name; every process
opens the file for itself, to read.
"""

import hashlib
import os
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.images import IMAGE_SUFFIXES, decode_image
from terrazzo.project.manifest import Member
from terrazzo.project.project import open_project
from terrazzo.project.releases import Release
from terrazzo.project.statuses import FINISHED
from terrazzo.reduced import Reduced, decode_reduced


class ReleaseRecords:
    """Some samples of one release."""

    def __init__(self, path: Path, release: str, members: Sequence[Member], names: Sequence[str]) -> None:
        self.path, self.release = path, release
        self.names = tuple(names)
        self.members = tuple(members)
        self._opened: tuple[int, Release] | None = None

    has_masks = True

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C); DataError where it is gone or not the one that was released."""
        member = self.members[index]
        return decode_image(self._open().image(member), where=self.where(index), channels=channels)

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image, a JPEG at 1 / divisor of its sides."""
        data = self._open().image(self.members[index])
        return decode_reduced(data, divisor=divisor, where=self.where(index), channels=channels)

    def mask(self, index: int) -> NDArray[Any]:
        """Return the category ids (H, W), 0 where nobody drew."""
        mask = self._open().label(self.members[index]).mask()
        return mask.astype(np.uint8) if mask.max(initial=0) <= 255 else mask

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image."""
        return self.members[index].size_hw

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the path of the image, or what names its label."""
        member = self.members[index]
        return f"{self.path}@{self.release}, {member.name}" if mask else self._open().where(member)

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one sha256 (hex) per sample, of the hashes of image and label that the release holds."""
        chosen = [self.members[i] for i in indices]
        return [hashlib.sha256(f"{one.sha256}{one.tree}".encode()).hexdigest() for one in chosen]

    def _open(self) -> Release:
        if self._opened is None or self._opened[0] != os.getpid():  # a connection does not survive a fork
            project = open_project(self.path, read_only=True)
            weakref.finalize(self, project.close)
            self._opened = os.getpid(), project.releases[self.release]
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def records_of(path: Path, release: Release) -> tuple[dict[str, ReleaseRecords], int]:
    """Return ({split: records}, how many samples are left out because nobody finished them).

    "" is the split of samples that have none, where no sample has one; else these are of train. ProjectError for a
    release that was withdrawn.
    """
    release.refuse_withdrawn()
    finished = [one for one in release.samples if one.status in FINISHED]
    has_splits = any(one.split for one in finished)
    short = short_names([one.name for one in release.samples])
    found: dict[str, ReleaseRecords] = {}
    for split in ("", "train", "val", "test"):
        chosen = [one for one in finished if (one.split or ("train" if has_splits else "")) == split]
        if chosen:
            found[split] = ReleaseRecords(path, release.name, chosen, [short[one.name] for one in chosen])
    return found, len(release.samples) - len(finished)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return {name: name without its suffix}, but where two would then be one."""
    plain = {name: _without_suffix(name) for name in names}
    counts = Counter(plain.values())
    return {
        name: short if counts[short] == 1 and short not in names else name for name, short in plain.items()
    }


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name
