"""A data set as a table of Hugging Face `datasets`: saved with save_to_disk, or parquet; `hub_table.py` adds the Hub.

Columns are recognised by name and kind (`columns.py`). Names of ids come from id2label.json. Where a dataset.json lies
beside parquet files, as `push` writes them, all is as it says, and images have the names they had. Cells are decoded by
us, from their own bytes, under the same rules as files; nothing is converted on the way. Nothing here uses the network.
"""

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from terrazzo.data import class_names, dataset, description, fingerprint
from terrazzo.data.columns import find_columns, unknown_columns
from terrazzo.data.label_space import LabelSpace
from terrazzo.data.records import Records
from terrazzo.data.splits import SPLIT_NAMES
from terrazzo.errors import DatasetFormatError, UnreadableFileError
from terrazzo.images import decode_image, decode_mask, size_of
from terrazzo.reduced import Reduced, decode_reduced

SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\.parquet")  # as `datasets` names them on the Hub
LOOK_AT_MOST = 50  # masks opened to tell which ids there are, when nothing names them


def open_saved(path: Path, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset in a folder that `save_to_disk` wrote, of one split or several."""
    tables = saved_tables(path)
    records = recognise(tables, str(path))
    space = _local_names(path, records, keep_void=keep_void)
    return assemble(
        records,
        space,
        tables,
        name=path.resolve().name,
        location=str(path.resolve()),
        manifest=split_manifest,
    )


def saved_tables(path: Path) -> dict[str, Any]:
    """Return the tables that `save_to_disk` wrote, by their split; "" where there is one without a name."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except MemoryError:
        raise
    except Exception as error:  # datasets trips over damaged files in as many ways as it has fields
        raise UnreadableFileError(
            f"{path} looks like a saved Hugging Face data set and cannot be loaded.",
            found=f"{type(error).__name__}: {error}",
            hint="Save it again with save_to_disk, or copy the whole folder.",
        ) from error
    return dict(saved) if isinstance(saved, datasets.DatasetDict) else {str(saved.split or ""): saved}


def open_parquet(path: Path, *, keep_void: bool = False, split_manifest: Any = None) -> dataset.Dataset:
    """Return the Dataset in a parquet file, or in a folder of them; files are told apart by split names in their paths.

    "train-00000-of-00002.parquet", "validation.parquet" and "test/0000.parquet" are known. The table is converted once
    into the cache of `datasets`.
    """
    tables = parquet_tables(path)
    if is_described(path):
        about = description.read_description(path)
        return assemble_described(
            tables,
            about,
            title=str(path),
            location=str(path.resolve()),
            keep_void=keep_void,
            manifest=split_manifest,
        )
    folder = path if path.is_dir() else path.parent
    records = recognise(tables, str(path))
    space = _local_names(folder, records, keep_void=keep_void)
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return assemble(records, space, tables, name=name, location=str(path.resolve()), manifest=split_manifest)


def is_described(path: Path) -> bool:
    """True for a folder of parquet files with a dataset.json beside them, as terrazzo shares a data set."""
    has_tables = any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))
    return has_tables and (path / description.FILE).is_file()


def parquet_files(path: Path) -> dict[str, list[str]]:
    """Return a parquet file, or those in a folder, by split; "" where no name says one."""
    if path.is_file():
        return {"": [str(path)]}
    files = sorted({*path.glob("*.parquet"), *path.glob("*/*.parquet")})
    return by_split({file.relative_to(path).as_posix(): str(file) for file in files}, str(path))


def by_split(files: Mapping[str, str], title: str) -> dict[str, list[str]]:
    """Sort files, given by their paths below a folder, into the splits that these paths say."""
    found: dict[str, list[str]] = {}
    for below, file in files.items():
        found.setdefault(_split_in(below), []).append(file)
    if "" in found and len(found) > 1:
        raise DatasetFormatError(
            f"{title} has parquet files whose split is not clear.",
            found=", ".join(found[""][:10]),
            expected="train, validation or test in the name of every file, or in none",
        )
    return found


def parquet_tables(path: Path) -> dict[str, Any]:
    """Return the tables in a parquet file, or in a folder of them, by split; "" where no name says one."""
    import datasets

    files = parquet_files(path)
    try:
        with quiet():
            named = {split or "train": members for split, members in files.items()}
            tables = dict(datasets.load_dataset("parquet", data_files=named))
    except Exception as error:  # pyarrow and datasets wrap each other's errors
        raise UnreadableFileError(
            f"{path} cannot be read as parquet.",
            found=innermost(error),
            hint="Restore the file from where it came.",
        ) from error
    return {"": tables["train"]} if "" in files else tables


@dataclass(frozen=True)
class TableRecords:
    """The rows of one table; pickles as the paths of its memory-mapped files."""

    table: Any
    """A datasets.Dataset of the two columns, undecoded."""
    image_column: str
    """Its images."""
    mask_column: str | None
    """Its masks; None where the split has none."""
    names: tuple[str, ...]
    """One per row: the file name it was made from where all differ, else the row's number."""
    title: str
    """What errors call the table."""

    @property
    def has_masks(self) -> bool:
        """True when there is a mask column with something in every row."""
        return self.mask_column is not None

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C)."""
        return decode_image(self._cell(index, self.image_column), where=self.where(index), channels=channels)

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image, a JPEG at 1 / divisor of its sides."""
        cell = self._cell(index, self.image_column)
        return decode_reduced(cell, divisor=divisor, where=self.where(index), channels=channels)

    def mask(self, index: int) -> NDArray[Any]:
        """Return the raw ids (H, W)."""
        assert self.mask_column is not None
        return decode_mask(self._cell(index, self.mask_column), where=self.where(index, mask=True))

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        return size_of(self._cell(index, self.image_column), where=self.where(index))

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the table, row and column that hold the image or the mask."""
        column = self.mask_column if mask else self.image_column
        name = self.names[index]
        return f"{self.title}, row {index}{'' if name == _number(index) else f' ({name})'}, column {column!r}"

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one sha256 (hex) per row, over the bytes of image and mask; cached while the files are unchanged."""
        files = [str(entry["filename"]) for entry in self.table.cache_files]
        every = fingerprint.cached_hashes(
            f"{location}\0{self.title}", files, lambda: [self._hash(i) for i in range(len(self.names))]
        )
        return [every[i] for i in indices]

    def cell(self, index: int, *, mask: bool = False) -> bytes | NDArray[Any]:
        """Return what the table holds for the image or the mask: encoded bytes, or a plain array."""
        column = self.mask_column if mask else self.image_column
        assert column is not None
        return cast(bytes | NDArray[Any], self._cell(index, column))

    def _hash(self, index: int) -> str:
        columns = [self.image_column, *([self.mask_column] if self.mask_column else [])]
        digests = [hashlib.sha256(_content(self._cell(index, column))).hexdigest() for column in columns]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _cell(self, index: int, column: str) -> Any:
        """The bytes of an encoded cell, or the array of a plain one."""
        where = self.where(index, mask=column == self.mask_column)
        try:
            value = self.table.select_columns([column])[int(index)][column]
        except (LookupError, OSError, ValueError) as error:  # pyarrow's errors are kinds of these
            raise UnreadableFileError(
                f"{where} cannot be read.",
                found=innermost(error),
                hint="Restore the table from where it came.",
            ) from error
        return content_of(value, self.table.features[column], where=where)


def assemble(
    records: Mapping[str, TableRecords],
    space: LabelSpace,
    tables: Mapping[str, Any],
    *,
    name: str,
    location: str,
    manifest: Any,
    license: str | None = None,
    source: str | None = None,
) -> dataset.Dataset:
    info = next(iter(tables.values())).info
    return dataset.assemble(
        records,
        space,
        name=name,
        location=location,
        license=license or info.license or None,
        source=source or info.homepage or info.citation or None,
        split_manifest=manifest,
    )


def assemble_described(
    tables: Mapping[str, Any],
    about: description.Description,
    *,
    title: str,
    location: str,
    keep_void: bool,
    manifest: Any,
    license: str | None = None,
    source: str | None = None,
) -> dataset.Dataset:
    """Return the Dataset of tables with a dataset.json beside them: the very one that was shared."""
    records = recognise(_joined(tables, about.splits, title), title, paths_are_names=True)
    return dataset.assemble(
        records,
        about.space(keep_void=keep_void),
        name=about.name or Path(title).name,
        location=location,
        channels=about.channels,
        dtype=about.dtype,
        mean=about.mean,
        std=about.std,
        license=about.license or license,
        source=about.source or source,
        groups=about.groups,
        split_manifest=manifest,
    )


def _joined(
    tables: Mapping[str, Any], splits: Mapping[str, str | tuple[str, ...]] | None, title: str
) -> dict[str, Any]:
    """The splits that were shared in parts, put together again; a split that was made is made again from the whole."""
    import datasets

    if splits is None:
        return dict(tables)
    joined = {}
    for split, parts in splits.items():
        members = [parts] if isinstance(parts, str) else list(parts)
        missing = [part for part in members if part not in tables]
        if missing:
            raise DatasetFormatError(
                f"dataset.json of {title} names splits that are not there.",
                found=", ".join(tables),
                expected=f"{', '.join(members)}, of which {split or 'everything'} is made",
            )
        joined[split] = datasets.concatenate_datasets([tables[part] for part in members])
    return joined


def content_of(value: Any, feature: Any, *, where: str) -> Any:
    """Return the bytes of an encoded cell, or the array of a plain one."""
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"]
        return _read_beside(value.get("path"), where)
    if value is None:
        return _read_beside(None, where)
    if isinstance(value, bytes):
        return value
    dtype = getattr(feature, "dtype", None)
    return np.asarray(value, dtype=dtype if dtype != "list" else None)


# -- columns and rows --------------------------------------------------------------------------------------------------


def recognise(
    tables: Mapping[str, Any], title: str, *, paths_are_names: bool = False
) -> dict[str, TableRecords]:
    """Recognise the columns of every split; all splits have the same.

    paths_are_names: the images' paths in the table, folders included, are the names they had before.
    """
    records: dict[str, TableRecords] = {}
    for key, table in tables.items():
        split = SPLIT_NAMES.get(key, key)
        if split in records:
            raise DatasetFormatError(
                f"{title} has two splits that are both {split!r}.", found=", ".join(tables)
            )
        records[split] = _recognise(table, f"{title} [{key}]" if key else title, paths_are_names)
    if not any(one.has_masks for one in records.values()):
        raise unknown_columns(next(iter(tables.values())).features, title, "no mask column")
    ordered = [split for split in ("", "train", "val", "test") if split in records]
    return {split: records[split] for split in [*ordered, *(s for s in records if s not in ordered)]}


def _recognise(table: Any, title: str, paths_are_names: bool) -> TableRecords:
    import datasets

    image, mask = find_columns(table.features, title)
    _check_places(table, [image, mask] if mask else [image], title)
    if mask is not None and _all_empty(table, mask, title):
        mask = None
    table = table.select_columns([image, mask] if mask else [image])
    for name in table.column_names:
        if isinstance(table.features[name], datasets.Image):
            table = table.cast_column(name, datasets.Image(decode=False))
    return TableRecords(table.with_format(None), image, mask, _names(table, image, paths_are_names), title)


def _check_places(table: Any, columns: Sequence[str], title: str) -> None:
    """Refuse columns whose cells do not lie where the file says: pyarrow believes it, and reads what is there instead.

    The cells themselves are not looked at, but for their paths.
    """
    cells = table.select_columns(list(columns)).with_format("arrow")[:]
    try:
        for column in columns:
            cells[column].validate(full=True)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is the first
        raise UnreadableFileError(
            f"{title} is damaged: its cells do not lie where it says.",
            found=innermost(error),
            hint="Restore the table from where it came.",
        ) from error


def _all_empty(table: Any, column: str, title: str) -> bool:
    """True where no row has a mask; DatasetFormatError where some have and some have not."""
    cells = table.select_columns([column]).with_format("arrow")[:][column]
    empty = [row for row, is_empty in enumerate(_null_flags(cells)) if is_empty]
    if empty and len(empty) < len(table):
        raise DatasetFormatError(
            f"{title} has {len(empty)} rows without a mask.",
            found=f"empty cells in {column!r}, rows {', '.join(map(str, empty[:10]))}",
            expected="a mask in every row, or in none (a test split)",
        )
    return bool(empty) and len(table) > 0


def _null_flags(cells: Any) -> list[bool]:
    """Which cells hold nothing; the pixels themselves are not looked at."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flags: NDArray[np.bool_] = np.asarray(pc.is_null(cells))
    if pa.types.is_struct(cells.type):
        parts = [pc.is_null(pc.struct_field(cells, name)) for name in ("bytes", "path")]
        flags = flags | (np.asarray(parts[0]) & np.asarray(parts[1]))
    return [bool(flag) for flag in flags]


def _names(table: Any, column: str, paths_are_names: bool) -> tuple[str, ...]:
    """The stems of the images' paths (or paths without suffix) where every row has one of its own, else row numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = tuple(_number(row) for row in range(len(table)))
    cells = table.select_columns([column]).with_format("arrow")[:][column]
    if not pa.types.is_struct(cells.type):
        return numbers
    paths = pc.struct_field(cells, "path").to_pylist()
    given = [PurePosixPath(str(path).replace("\\", "/")) for path in paths if path]
    stems = [path.with_suffix("").as_posix() if paths_are_names else path.stem for path in given]
    return tuple(stems) if len(stems) == len(numbers) and len(set(stems)) == len(stems) else numbers


def _number(row: int) -> str:
    return f"{row:06d}"


def _read_beside(path: str | None, where: str) -> bytes:
    if path is None:
        raise UnreadableFileError(f"{where} is empty.", expected="an encoded image, or the path of one")
    try:
        if not Path(path).is_file():  # a device or a pipe would be read for ever
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{where} refers to a file that cannot be read.",
            found=f"{path}: {getattr(error, 'strerror', None) or error}",
            hint="The table was saved with paths only; put the files there, or save it with embed_external_files.",
        ) from error


def _content(cell: Any) -> bytes:
    return cell if isinstance(cell, bytes) else f"{cell.dtype}{cell.shape}".encode() + cell.tobytes()


# -- names and words ---------------------------------------------------------------------------------------------------


def _local_names(folder: Path, records: Mapping[str, TableRecords], *, keep_void: bool) -> LabelSpace:
    path = class_names.find(folder, folder.parent) if folder.name == "data" else class_names.find(folder)
    if path is None:
        raise unnamed(str(folder), folder, records)
    return class_names.read(path, keep_void=keep_void)


def unnamed(
    title: str, folder: Path, records: Mapping[str, Records], advice: str | None = None
) -> DatasetFormatError:
    labelled = [one for one in records.values() if one.has_masks]
    first = labelled[0]
    looked = min(len(first.names), LOOK_AT_MOST)
    total = sum(len(one.names) for one in labelled)
    error = class_names.missing(
        folder, (first.mask(i) for i in range(looked)), looked=looked, total=total, file="id2label.json"
    )
    if advice is None:
        return error
    return DatasetFormatError(
        f"{title} does not say what its ids mean: it holds no id2label.json.",
        found=error.found,
        expected=error.expected,
        hint=advice + "\n" + (error.hint or ""),
        command=error.command,
    )


def _split_in(below: str) -> str:
    """The split that a parquet file's name or folder says, or ""; below: its path below the data set."""
    if shared := SHARD.fullmatch(below):
        return SPLIT_NAMES.get(shared[1].lower(), shared[1])
    for part in reversed(below.split("/")):
        word = re.match(r"[A-Za-z]+", part)
        if word and word[0].lower() in SPLIT_NAMES:
            return SPLIT_NAMES[word[0].lower()]
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of `datasets` where nobody watches."""
    import datasets

    if sys.stderr.isatty() or datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{error}".strip().split("\n")[0] or type(error).__name__
