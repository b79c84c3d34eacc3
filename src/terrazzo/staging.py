"""What is pushed of a data set, file by file: parquet shards, dataset.json, id2label.json; images as bytes, no paths.

    data/train-00000-of-00003.parquet   columns image and label: {"bytes", "path"}, as `datasets` decodes them; the path
                                        is the image's name in the data set, never a place on this machine
    dataset.json                        classes, colours, table, statistics: what `open_dataset` opens it with
    id2label.json                       names of the ids that the masks hold, for everyone else

One row group is in memory at a time and one shard on the disk. Bytes are those of the files, less what they say beside
their pixels (`metadata.py`); where nothing is taken out, the fingerprint stays the same.
"""

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.cards.datasets import hub_word
from terrazzo.data import Dataset, Split, open_dataset
from terrazzo.data.description import FILE, Description, read_description
from terrazzo.data.folder import FolderRecords
from terrazzo.data.table import TableRecords
from terrazzo.errors import DatasetFormatError
from terrazzo.licences import public
from terrazzo.metadata import without_metadata

SHARD_BYTES = 500_000_000  # as `datasets` cuts them
GROUP_BYTES = 32 << 20  # of a row group, which is what a stream reads at a time
SUFFIXES = (  # by how the bytes begin
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"II", ".tif"),
    (b"MM", ".tif"),
    (b"RIFF", ".webp"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"P", ".ppm"),
)


@dataclass
class StagedData:
    """A data set, ready to be written shard by shard."""

    dataset: Dataset
    """As it opens."""
    description: Description
    """The dataset.json that goes with it."""
    parts: dict[str, list[tuple[Split, int]]]
    """By the name of a split on the Hub: (split, index) of each image, in order."""
    shards: list["Shard"]
    """What is written, one after the other."""
    keep_metadata: bool = False
    """Whether what images say beside their pixels goes with them."""
    num_cleaned: int = 0
    """How many files lost something so far."""

    @property
    def id2label(self) -> dict[str, str]:
        """Return the name of every id in the masks."""
        names, remap = self.dataset.classes.names, self.dataset.remap.to_class
        found = {raw: names[class_id] for raw, class_id in remap.items() if class_id is not None}
        return {str(raw): name for raw, name in sorted({**found, **self.dataset.raw_names}.items())}

    def write(self, shard: "Shard", path: Path) -> None:
        """Write one shard as parquet; the same data gives the same bytes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        about = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "label")}}}
        schema = pa.schema([("image", cell), ("label", cell)], {b"huggingface": json.dumps(about).encode()})
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for rows in self._groups(self.parts[shard.split][shard.start : shard.stop]):
                writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=len(rows))

    def _groups(self, members: Sequence[tuple[Split, int]]) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        size = 0
        for split, index in members:
            row = self._row(split, index)
            size += sum(len(one["bytes"]) for one in row.values() if one is not None)
            rows.append(row)
            if size >= GROUP_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def _row(self, split: Split, index: int) -> dict[str, Any]:
        name = split.records.names[split.indices[index]]
        return {
            "image": self._cell(split, index, name, mask=False),
            "label": self._cell(split, index, name, mask=True) if split.has_masks else None,
        }

    def _cell(self, split: Split, index: int, name: str, *, mask: bool) -> dict[str, Any]:
        data = encoded(split, index, mask=mask)
        if not self.keep_metadata:
            clean = without_metadata(data, where=split.where(index, mask=mask))
            self.num_cleaned += clean is not data
            data = clean
        return {"bytes": data, "path": name + suffix_of(data)}


@dataclass(frozen=True)
class Shard:
    """Rows of a split that go into one file."""

    split: str
    start: int
    stop: int
    name: str = field(default="")
    """The file's path on the Hub."""


def stage_data(path: Path, *, license: str | None = None, keep_metadata: bool = False) -> StagedData:
    """Return what is shared of the data set at `path`, under `license` instead of its own; raises as `open_dataset`."""
    dataset = open_dataset(path)
    dataset = replace(dataset, license=license) if license is not None else dataset
    parts = _parts(dataset)
    shards = [shard for name, members in parts.items() for shard in _shards(name, members)]
    described = replace(_described(path, dataset), splits=_made(dataset))
    return StagedData(dataset, described, parts, shards, keep_metadata)


def _described(path: Path, dataset: Dataset) -> Description:
    """The dataset.json at `path`, or one that opens the same; void names stay in it, to be ignored again."""
    if (path / FILE).is_file():
        about = read_description(path)
    else:
        whole = open_dataset(path, keep_void=True)
        about = Description(whole.classes, whole.remap, whole.raw_names)
    return replace(
        about,
        name=dataset.name,
        license=dataset.license,
        source=dataset.source if dataset.source and public(dataset.source) else None,
        channels=dataset.channels,
        dtype=dataset.dtype,
        mean=dataset.mean,
        std=dataset.std,
        groups=dataset.groups,
        extra=_public(about.extra),
    )


def _public(value: Any) -> Any:
    """The same without texts that are paths of this machine."""
    if isinstance(value, Mapping):
        return {key: _public(one) for key, one in value.items() if not isinstance(one, str) or public(one)}
    if isinstance(value, list | tuple):
        return [_public(one) for one in value if not isinstance(one, str) or public(one)]
    return value


def _parts(dataset: Dataset) -> dict[str, list[tuple[Split, int]]]:
    """By name on the Hub, which must be a word there, the images of each split in their order."""
    found: dict[str, list[tuple[Split, int]]] = {}
    for name, split in dataset.splits.items():
        word = hub_word(name)
        if word in found:
            raise DatasetFormatError(
                f"Two splits of {dataset.name} have one name on the Hub.",
                found=", ".join(dataset.splits),
                expected="names that differ in letters or digits",
            )
        found[word] = [(split, index) for index in range(len(split))]
    return found


def _made(dataset: Dataset) -> dict[str, tuple[str, ...]] | None:
    """For dataset.json: which parts make up a split, where one was cut here and is cut again on opening."""
    words = {name: hub_word(name) for name in dataset.splits}
    if dataset.split_manifest is None:
        return (
            None if all(name == word for name, word in words.items()) else {n: (w,) for n, w in words.items()}
        )
    cut = tuple(dataset.split_manifest["splits"])
    rest = {name: (word,) for name, word in words.items() if name not in cut}
    return {str(dataset.split_manifest["of"]): tuple(words[name] for name in cut), **rest}


def _shards(name: str, members: Sequence[tuple[Split, int]]) -> list[Shard]:
    """Cut a split where a file would grow beyond SHARD_BYTES."""
    cuts, size = [0], 0
    for row, (split, index) in enumerate(members):
        more = sum(
            _size(split, index, mask=mask) for mask in ((False, True) if split.has_masks else (False,))
        )
        if size and size + more > SHARD_BYTES:
            cuts.append(row)
            size = 0
        size += more
    cuts.append(len(members))
    count = len(cuts) - 1
    return [
        Shard(name, start, stop, f"data/{name}-{number:05d}-of-{count:05d}.parquet")
        for number, (start, stop) in enumerate(pairwise(cuts))
    ]


def _size(split: Split, index: int, *, mask: bool) -> int:
    if isinstance(split.records, FolderRecords):
        return os.path.getsize(split.where(index, mask=mask))
    return len(encoded(split, index, mask=mask))


def encoded(split: Split, index: int, *, mask: bool = False) -> bytes:
    """Return the bytes of an image file or mask file as they lie there; plain arrays become PNG or TIFF."""
    assert isinstance(split.records, FolderRecords | TableRecords), "what lies at a path is one of these"
    value = split.records.cell(split.indices[index], mask=mask)
    return value if isinstance(value, bytes) else _as_file(value)


def _as_file(array: NDArray[Any]) -> bytes:
    """A plain array of a table as a file without loss."""
    import tifffile

    from terrazzo.images import _png

    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype in (np.uint8, np.uint16) and (array.ndim == 2 or array.shape[2] <= 4):
        return _png(array)
    stream = io.BytesIO()
    planar = {"planarconfig": "contig"} if array.ndim == 3 else {}
    tifffile.imwrite(stream, array, photometric="minisblack", metadata=None, software="", **planar)
    return stream.getvalue()


def suffix_of(data: bytes) -> str:
    """Return how a file of these bytes ends: ".jpg"."""
    return next((suffix for start, suffix in SUFFIXES if data.startswith(start)), ".img")
