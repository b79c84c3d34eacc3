"""A data set in plain folders that lies elsewhere, by URL: dataset.json, train/images + train/masks, val/…, test/….

Folders are listed once; an image or a mask is fetched when it is asked for, and kept only as `data.cache` says. Only
the form that terrazzo writes is read from afar: other layouts are for a copy on this machine.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from terrazzo import remote
from terrazzo.data import dataset, description
from terrazzo.data.folder import MASK_FOLDERS, FolderRecords
from terrazzo.data.splits import SPLIT_NAMES
from terrazzo.errors import DatasetFormatError, UnreadableFileError
from terrazzo.images import IMAGE_SUFFIXES


def open_remote_folder(
    url: str, listing: Mapping[str, remote.Facts], *, keep_void: bool = False, split_manifest: Any = None
) -> dataset.Dataset:
    """Return the Dataset in a folder at a URL; listing: what lies there, by the path below it."""
    about = read_described(remote.join(url, description.FILE))
    folders = about.splits or _split_folders(listing)
    if not all(isinstance(folder, str) for folder in folders.values()):
        raise DatasetFormatError(
            f"{url}/{description.FILE} lists the images of its splits one by one.",
            expected="splits that are folders, where a data set is read from afar",
            hint="Copy it to this machine, and open the copy.",
        )
    note = f"Read file by file from {url}; the fingerprint is made of names, sizes and ETags."
    return dataset.assemble(
        {split: _records(url, str(folder), listing) for split, folder in folders.items()},
        about.space(keep_void=keep_void),
        name=about.name or PurePosixPath(remote.path_of(url)).name,
        location=url,
        channels=about.channels,
        dtype=about.dtype,
        mean=about.mean,
        std=about.std,
        license=about.license,
        source=about.source,
        groups=about.groups,
        split_manifest=split_manifest,
        notes=[note],
    )


@dataclass(frozen=True)
class RemoteRecords(FolderRecords):
    """Pairs of files below one URL."""

    facts: Mapping[str, remote.Facts]
    """What the place says of each file, by its path below the URL."""

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the URL of the image or of its mask."""
        return remote.join(self.root, (self.mask_paths if mask else self.image_paths)[index])

    def cell(self, index: int, *, mask: bool = False) -> bytes:
        """Return the bytes of the image's file, or of its mask's, as they lie there."""
        return remote.read(self.where(index, mask=mask))

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one sha256 (hex) per pair, over what the place says of both files; none is read."""
        return [hashlib.sha256(repr(self._said(index)).encode()).hexdigest() for index in indices]

    def _said(self, index: int) -> list[tuple[int, str]]:
        paths = [self.image_paths[index], *([self.mask_paths[index]] if self.has_masks else [])]
        return [(self.facts[path].size, self.facts[path].identity) for path in paths]


def read_described(url: "Path | str") -> description.Description:
    """Return the dataset.json at a URL, or on this machine."""
    if not remote.is_url(url):
        return description.read_description(Path(url).parent)
    try:
        value = json.loads(remote.read(url))
    except ValueError as error:
        raise UnreadableFileError(f"{url} is not valid JSON.", found=str(error)) from error
    return description.from_value(value, where=url)


def _split_folders(listing: Mapping[str, remote.Facts]) -> dict[str, str]:
    found = {path.partition("/")[0] for path in listing if path.split("/")[1:2] == ["images"]}
    return {SPLIT_NAMES[name.lower()]: name for name in sorted(found) if name.lower() in SPLIT_NAMES}


def _records(url: str, folder: str, listing: Mapping[str, remote.Facts]) -> RemoteRecords:
    """Pair the images and masks of a split; DatasetFormatError where one is without the other."""
    images = _images(f"{folder}/images/", listing)
    masks = next((found for name in MASK_FOLDERS if (found := _images(f"{folder}/{name}/", listing))), {})
    alone = sorted(images.keys() ^ masks.keys()) if masks else []
    if alone or (not masks and SPLIT_NAMES.get(folder, folder) != "test"):
        raise DatasetFormatError(
            f"{len(alone) or len(images)} files in {url}/{folder} have no partner.",
            found=", ".join(alone[:10]) if alone else f"{len(images)} images and no masks",
            expected=f"for every file in {folder}/images one in {folder}/masks; only suffixes may differ",
        )
    names = sorted(images)
    return RemoteRecords(
        url,
        tuple(names),
        tuple(images[name] for name in names),
        tuple(masks[name] for name in names) if masks else (),
        {path: listing[path] for path in (*images.values(), *masks.values())},
    )


def _images(prefix: str, listing: Mapping[str, remote.Facts]) -> dict[str, str]:
    """Path by name of the image files below a folder; hidden ones are not data."""
    inside = [PurePosixPath(path) for path in listing if path.startswith(prefix)]
    shown = [path for path in inside if path.suffix.lower() in IMAGE_SUFFIXES]
    return {
        path.with_suffix("").as_posix().removeprefix(prefix): path.as_posix()
        for path in shown
        if not any(part.startswith(".") for part in path.parts)
    }
