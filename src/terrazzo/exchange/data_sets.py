"""A data set that `open_dataset` opens, brought in: classes become categories, ignored pixels are those nobody drew.

Its masks say no instances. Images that are files are referenced; those of a table are written into a folder of the
project, byte for byte, under their names.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from terrazzo.data import Dataset, Split, open_dataset
from terrazzo.data.importers.segments_files import Look
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, Kind
from terrazzo.images import IMAGE_SUFFIXES, encode_image, size_of
from terrazzo.project.statuses import Status
from terrazzo.storage import replacing


def read(src: Path, root: Path) -> Arrivals:
    """Return what the data set at `src` brings; splits that were made on opening are not kept."""
    data = open_dataset(src)
    kinds = tuple(
        Kind(name, color) for name, color in zip(data.classes.names, data.classes.colors, strict=True)
    )
    samples = []
    for name, split in data.splits.items():
        status: Status = "labelled" if split.has_masks else "todo"
        for place in range(len(split)):
            draw: Callable[[], Drawn] | None = partial(_draw, data, split, place) if split.has_masks else None
            where = split.where(place, mask=split.has_masks)
            made = data.split_manifest is not None and name in ("train", "val")
            samples.append(
                Arrival(_image(split, place, root, data.name), draw, status, None if made else name, where)
            )
    notes = (f"Pixels that {data.name} ignores are those that nobody drew.",)
    return Arrivals(kinds, tuple(samples), notes)


def _draw(data: Dataset, split: Split, place: int) -> Drawn:
    mask = split.read_mask(place).astype(np.uint32)
    object_map = np.where(mask == data.classes.ignore, 0, mask + 1).astype(np.uint32)
    return Drawn(object_map, {class_id + 1: name for class_id, name in enumerate(data.classes.names)})


def _image(split: Split, place: int, root: Path, name: str) -> Path:
    path = Path(split.where(place))
    if path.is_file():
        return path
    records: Any = split.records
    return written_image(root / name, split.names[place], records.cell(split.indices[place]))


def written_image(folder: Path, name: str, cell: Any) -> Path:
    """Write what a table holds for an image below `folder`, unless it lies there; returns where.

    A name that cannot be one of a file becomes a hash of itself.
    """
    if isinstance(cell, bytes):
        data = cell
        suffix = Look.at(data, where=name).suffix
    else:
        data, suffix = encode_image(np.asarray(cell)), ".png"
    plain = PurePosixPath(name)
    stem = str(plain.with_suffix("")) if plain.suffix.lower() in IMAGE_SUFFIXES else name
    is_plain = (
        stem.isprintable()
        and "\\" not in stem
        and not any(
            part in ("", "..") or part.startswith(".") or len(part.encode()) > 200 for part in stem.split("/")
        )
    )
    path = folder / f"{stem if is_plain else hashlib.sha256(name.encode()).hexdigest()[:16]}{suffix}"
    size_of(data, where=name)  # an image, before anything is written
    if not path.is_file() or path.read_bytes() != data:
        with replacing(path) as beside:
            beside.write_bytes(data)
    return path
