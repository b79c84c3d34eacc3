"""A data set that is larger than the disk: parquet files on the Hub, in a bucket or here, read where they lie.

Opening reads footers alone. A sample is read with its row group, of which only those that come next are held in memory
(`row_groups.py`); `order.py` keeps the samples of a row group near each other in training. Nothing is downloaded as a
whole, nothing is converted, and nothing is written to disk. Columns, names of ids and masks mean what they mean in
`table.py`; splits are the same images in the same rows. What is not known without reading everything is not used: the
images are called by their row, and the fingerprint is made of the footers and of what the place says of its files.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import remote
from terrazzo.data import class_names, columns, dataset, description, hub_table, table
from terrazzo.data.remote_folder import open_remote_folder, read_described
from terrazzo.data.row_groups import Held, ParquetFile, read_footers
from terrazzo.data.splits import SPLIT_NAMES
from terrazzo.errors import DatasetFormatError, UnreadableFileError
from terrazzo.images import decode_image, decode_mask, size_of
from terrazzo.reduced import Reduced, decode_reduced


def stream_files(path: Path, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset in a parquet file, or in a folder of them, on this machine."""
    root = path.resolve()
    folder = root if root.is_dir() else root.parent
    described = root / description.FILE
    names_file = described if table.is_described(root) else class_names.find(folder)
    if names_file is None and folder.name == "data":
        names_file = class_names.find(folder.parent)
    return _opened(
        table.parquet_files(root),
        names_file,
        title=str(path),
        name=root.name if root.is_dir() else root.stem,
        location=str(root),
        folder=folder,
        keep_void=keep_void,
        manifest=split_manifest,
    )


def open_url(url: str, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset at a URL: a parquet file, a folder of them, or a folder that holds dataset.json and images."""
    url, names_file = url.rstrip("/"), None
    if PurePosixPath(remote.path_of(url)).suffix.lower() == ".parquet":
        files, folder = {"": [url]}, remote.parent(url)
    else:
        listing = {file.below: file.facts for file in remote.files_below(url)}
        is_table = any(table.SHARD.fullmatch(below) for below in listing)
        if description.FILE in listing and not is_table:
            return open_remote_folder(url, listing, keep_void=keep_void, split_manifest=split_manifest)
        inside = {below: remote.join(url, below) for below in listing if below.lower().endswith(".parquet")}
        if not inside:
            raise DatasetFormatError(
                f"There is no data set in {url}.",
                found=f"{len(listing)} files, no dataset.json and no .parquet among them",
                expected="parquet files with an image column and a mask column, or dataset.json with train/images …",
            )
        files, folder = table.by_split(inside, url), url
        if description.FILE in listing:
            names_file = remote.join(url, description.FILE)
    return _opened(
        files,
        names_file or _names_at(folder),
        title=url,
        name=PurePosixPath(remote.path_of(url)).stem,
        location=url,
        folder=Path(PurePosixPath(remote.path_of(folder)).name),
        advice=f"Put that file into {folder}.",
        keep_void=keep_void,
        manifest=split_manifest,
    )


def stream_hub(source: str, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset "user/name[@revision]" on the Hugging Face Hub, pinned to the commit it has now."""
    found = hub_table.find_parquet(source)
    return _opened(
        found.files,
        found.names_file,
        title=source,
        name=found.repo.split("/")[-1],
        location=f"{found.repo}@{found.commit}",
        folder=Path(found.repo.split("/")[-1]),
        advice=hub_table.SAVE_IT.format(repo=source),
        keep_void=keep_void,
        manifest=split_manifest,
        license=found.license,
        source=f"https://huggingface.co/datasets/{found.repo}",
    )


class StreamedRecords:
    """The rows of some parquet files; holds the row groups that are read now and next. Pickles without them."""

    def __init__(
        self,
        files: Sequence[ParquetFile],
        image_column: str,
        mask_column: str | None,
        features: Mapping[str, Any],
    ) -> None:
        """features: of both columns, as `datasets` has them. mask_column: None for a split without masks."""
        self.files, self.image_column, self.mask_column = tuple(files), image_column, mask_column
        self._features = dict(features)
        self._shards, self._in_file, sizes = [], [], []
        for file in files:
            for group, (rows, before) in enumerate(
                zip(file.rows, accumulate(file.rows, initial=0), strict=False)
            ):
                if rows:
                    self._shards.append((file, group))
                    self._in_file.append(before)
                    sizes.append(rows)
        self._starts = np.cumsum([0, *sizes])
        self._both, self._masks = self._held(False), self._held(True)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The rows' numbers: "000123"."""
        return tuple(f"{row:06d}" for row in range(int(self._starts[-1])))

    @property
    def has_masks(self) -> bool:
        """True where there is a mask column that is not empty."""
        return self.mask_column is not None

    @cached_property
    def shard_of(self) -> NDArray[np.int64]:
        """The row group of each row, counted over all files."""
        return np.repeat(np.arange(len(self._shards)), np.diff(self._starts))

    def expect(self, shards: Sequence[int]) -> None:
        """Hold these row groups, fetched ahead in this order, and drop those expected before."""
        self._both.expect(shards)

    def bytes_of(self, shards: Sequence[int]) -> int:
        """Return the memory that row groups take, their images and masks encoded as they lie."""
        return sum(
            file.bytes_of(group, self._columns) for file, group in (self._shards[one] for one in shards)
        )

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C)."""
        return decode_image(self.cell(index), where=self.where(index), channels=channels)

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image, a JPEG at 1 / divisor of its sides."""
        return decode_reduced(self.cell(index), divisor=divisor, where=self.where(index), channels=channels)

    def mask(self, index: int) -> NDArray[Any]:
        """Return the raw ids (H, W); where its row group is not here, the masks alone are fetched."""
        return decode_mask(self.cell(index, mask=True), where=self.where(index, mask=True))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        return size_of(self.cell(index), where=self.where(index))

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the file, row and column that hold the image or the mask."""
        shard, row = self._at(index)
        column = self.mask_column if mask else self.image_column
        return f"{self._shards[shard][0].url}, row {self._in_file[shard] + row}, column {column!r}"

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one sha256 (hex) per row, of its place and of what is known of its file; no image is read."""
        first = [before - int(start) for before, start in zip(self._in_file, self._starts[:-1], strict=True)]
        shards = self.shard_of.tolist()
        places = ((self._shards[shards[index]][0].digest, index + first[shards[index]]) for index in indices)
        return [hashlib.sha256(f"{digest} {row}".encode()).hexdigest() for digest, row in places]

    def cell(self, index: int, *, mask: bool = False) -> bytes | NDArray[Any]:
        """Return what the table holds for the image or the mask: encoded bytes, or a plain array."""
        shard, row = self._at(index)
        column = self.mask_column if mask else self.image_column
        assert column is not None
        here = self._both.peek(shard) if mask else self._both[shard]
        value = (self._masks[shard] if here is None else here).column(column)[row].as_py()
        content: bytes | NDArray[Any] = table.content_of(
            value, self._features[column], where=self.where(index, mask=mask)
        )
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_both", "_masks")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._both, self._masks = self._held(False), self._held(True)

    @property
    def _columns(self) -> list[str]:
        return [self.image_column, *([self.mask_column] if self.mask_column else [])]

    def _held(self, only_masks: bool) -> Held:
        shards = self._shards  # the held row groups do not keep the records alive
        columns = [self.mask_column or self.image_column] if only_masks else self._columns
        fetch = partial(_fetch, shards, columns)
        return Held(
            fetch, lambda shard: f"row group {shards[shard][1]} of {shards[shard][0].url}", len(shards)
        )

    def _at(self, index: int) -> tuple[int, int]:
        """The row group of a row, and its place there."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])


def _fetch(shards: Sequence[tuple[ParquetFile, int]], columns: Sequence[str], shard: int) -> Any:
    file, group = shards[shard]
    return file.fetch(group, columns)


def _opened(
    files: Mapping[str, Sequence[str]],
    names_file: "Path | str | None",
    *,
    title: str,
    name: str,
    location: str,
    folder: Path,
    keep_void: bool,
    manifest: Any,
    advice: str | None = None,
    license: str | None = None,
    source: str | None = None,
) -> dataset.Dataset:
    """Read the footers and put a Dataset together."""
    urls = [url for members in files.values() for url in members]
    footers = dict(zip(urls, read_footers(urls), strict=True))
    by_split = {split: [footers[url] for url in members] for split, members in files.items()}
    records = _recognised(by_split, title)
    if names_file is None:
        raise table.unnamed(title, folder, records, advice=advice)
    about = read_described(names_file) if PurePosixPath(str(names_file)).name == description.FILE else None
    space = (
        class_names.read(names_file, keep_void=keep_void)
        if about is None
        else about.space(keep_void=keep_void)
    )
    return dataset.assemble(
        records,
        space,
        name=(about.name if about else None) or name,
        location=location,
        channels=about.channels if about else None,
        dtype=about.dtype if about else None,
        mean=about.mean if about else None,
        std=about.std if about else None,
        license=(about.license if about else None) or license,
        source=(about.source if about else None) or source,
        split_manifest=manifest,
        notes=[_note(records)],
    )


def _note(records: Mapping[str, StreamedRecords]) -> str:
    files = {file.url: file for one in records.values() for file in one.files}
    groups = sum(file.footer.num_row_groups for file in files.values())
    size = sum(file.size for file in files.values())
    return (
        f"Streamed: {len(files):,} parquet file{'' if len(files) == 1 else 's'} of {size / 2**20:,.1f} MiB in "
        f"{groups:,} row groups are read where they lie. "
        "Images are called by their row; the fingerprint is that of the footers."
    )


def _recognised(by_split: Mapping[str, Sequence[ParquetFile]], title: str) -> dict[str, StreamedRecords]:
    """Recognise the columns of the first file; every other file has the same, or it is named."""
    import datasets

    records: dict[str, StreamedRecords] = {}
    every = [file for files in by_split.values() for file in files]
    features = dict(datasets.Features.from_arrow_schema(every[0].schema))
    image, mask = columns.find_columns(features, every[0].url)
    if mask is None:
        raise columns.unknown_columns(features, title, "no mask column")
    _check_same_columns(every, (image, mask), title)
    for key, files in by_split.items():
        split = SPLIT_NAMES.get(key, key)
        if split in records:
            raise DatasetFormatError(
                f"{title} has two splits that are both {split!r}.", found=", ".join(by_split)
            )
        labelled = None if _all_empty(files, mask) else mask
        records[split] = StreamedRecords(
            files, image, labelled, {name: features[name] for name in (image, mask)}
        )
    if not any(one.has_masks for one in records.values()):
        raise columns.unknown_columns(features, title, "no mask in any row")
    ordered = [split for split in ("", "train", "val", "test") if split in records]
    return {split: records[split] for split in [*ordered, *(s for s in records if s not in ordered)]}


def _check_same_columns(files: Sequence[ParquetFile], columns: Sequence[str], title: str) -> None:
    def kinds(file: ParquetFile) -> dict[str, str]:
        return {name: str(file.schema.field(name).type) for name in columns if name in file.schema.names}

    expected = kinds(files[0])
    others = {file.url: kinds(file) for file in files if kinds(file) != expected}
    if others:
        url, found = next(iter(others.items()))
        raise DatasetFormatError(
            f"The files of {title} do not have the same columns.",
            found=f"{len(others)} of {len(files)} differ, such as {url}: {_listed(found) or 'neither of them'}",
            expected=f"as {files[0].url}: {_listed(expected)}",
            hint="Write them anew with one schema, or open only those that belong together.",
        )


def _listed(kinds: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())


def _all_empty(files: Sequence[ParquetFile], column: str) -> bool:
    """True where the footers say that no row has a mask; single rows without one are told when they are read."""
    return all(
        file.num_empty(group, column) == rows
        for file in files
        for group, rows in enumerate(file.rows)
        if rows
    )


def _names_at(folder: str) -> str | None:
    """The URL of the file that names classes: beside the parquet files, or above data/."""
    folders = [folder, folder.removesuffix("/data")] if folder.endswith("/data") else [folder]
    places = [remote.join(one, name) for one in folders for name in class_names.FILES]
    try:
        return next((place for place in places if remote.exists(place)), None)
    except UnreadableFileError:  # a bucket may be read without being looked into
        return None
