"""What lies in a data set, file by file, taken down as it is: the facts that `doctor.py` judges and `repair.py` mends.

Nothing here judges, and nothing here stops: a file that cannot be read is a fact too. Works on folders that
`open_dataset` refuses, and on tables.
"""

import functools
import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import remote
from terrazzo.classes import Remap
from terrazzo.data import class_names, description, label_space, table
from terrazzo.data.dataset import Dataset, Records
from terrazzo.data.folder import FolderRecords, SplitFolders, find_folders, pair
from terrazzo.data.open import open_dataset
from terrazzo.data.streaming import StreamedRecords
from terrazzo.errors import (
    DatasetFormatError,
    MaskValueError,
    TerrazzoError,
    UnreadableFileError,
)
from terrazzo.images import decode_image, decode_mask
from terrazzo.storage import read_json

MOST_COLORS = 4096  # distinct colours kept of one mask; more is a photograph, not a mask
_LOOKS_HW = (16, 16)  # cells of the fingerprint of looks: 256 bits


Color = tuple[int, int, int]  # RGB, 0-255


@dataclass(frozen=True)
class Item:
    """An image or a mask, where it lies."""

    where: str
    """Path within the data set, or table, row and column."""
    read: Callable[[], Any]
    """Returns its encoded bytes, or the array of a plain table cell."""
    path: Path | None = None
    """Where it is a file."""


@dataclass(frozen=True)
class ImageFacts:
    """What was seen of one image."""

    size_hw: tuple[int, int] = (0, 0)
    """Upright, as it is shown and trained on."""
    channels: int = 0
    dtype: str = ""
    orientation: int = 1
    """EXIF or TIFF orientation: 1 upright, 2-8 to be turned or mirrored."""
    content: str = ""
    """Hash of the pixels."""
    looks: bytes = b""
    """256 bits that change little when an image is scaled or saved again; empty for an image without contrast."""
    problem: TerrazzoError | None = None
    """Why it cannot be used."""


@dataclass(frozen=True)
class MaskFacts:
    """What was seen of one mask."""

    size_hw: tuple[int, int] = (0, 0)
    dtype: str = ""
    orientation: int = 1
    ids: Mapping[int, int] = field(default_factory=dict)
    """Raw id -> pixels."""
    colors: Mapping[Color, int] = field(default_factory=dict)
    """Colour -> pixels, where the mask holds three channels instead of ids; equal channels give `ids` too."""
    problem: TerrazzoError | None = None
    """Why it cannot be used."""

    @property
    def is_grey(self) -> bool:
        """True for ids that were saved as grey RGB."""
        return bool(self.colors and self.ids)


@dataclass
class Case:
    """One image and its mask; either may be missing."""

    split: str
    name: str
    image: Item | None
    mask: Item | None
    seen: ImageFacts = field(default_factory=ImageFacts)
    """Facts of the image."""
    labelled: MaskFacts | None = None
    """Facts of the mask; None where there is none."""


@dataclass
class Chart:
    """A data set as it lies there."""

    source: str
    """As the user named it."""
    cases: list[Case]
    """Every image and mask, by split and name."""
    root: Path | None = None
    """The folder, where it is one in plain folders."""
    about: description.Description | None = None
    """dataset.json, where it could be read; or what a file of class names says, in the same words."""
    space: label_space.LabelSpace | None = None
    """What ids mean; None where nothing says so."""
    is_described: bool = False
    """True when `about` comes from dataset.json."""
    has_colors: bool = False
    """True when the classes were given colours, not chosen ones."""
    missing: list[str] = field(default_factory=list)
    """Names that dataset.json lists in a split and that are not there."""
    by_lists: bool = False
    """True when dataset.json lists the names of the splits."""
    problems: list[TerrazzoError] = field(default_factory=list)
    """What kept the description, the class names or the folders from being understood."""
    folders: Mapping[str, SplitFolders] = field(default_factory=dict)
    """The split folders of plain folders."""
    bare: list[str] = field(default_factory=list)
    """Splits other than test that have images and no mask at all."""
    pairing_hint: str | None = None
    """Why names may not fit each other, where that can be told."""

    @property
    def splits(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(case.split for case in self.cases))


def examine(
    source: Path | str | Dataset,
    *,
    workers: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> Chart:
    """Return everything in a data set, every file opened once, by `workers` threads (-1: one per core).

    progress: called with (done, total) after each image. Raises MissingPathError where there is nothing.
    """
    chart = look_around(source)
    count = (os.cpu_count() or 1) if workers < 0 else max(1, workers)
    channels = chart.about.channels if chart.about is not None else None
    with ThreadPoolExecutor(count) as pool:
        for done, _ in enumerate(pool.map(functools.partial(_look, channels=channels), chart.cases), start=1):
            if progress is not None:
                progress(done, len(chart.cases))
    return chart


def look_around(source: Path | str | Dataset) -> Chart:
    """Return what lies in a data set, no image opened yet."""
    if isinstance(source, Dataset):
        return _dataset_chart(source.location, source)
    path = Path(source).expanduser()
    if not path.exists():  # on the Hub, or nowhere, which `open_dataset` says
        return _dataset_chart(str(source), open_dataset(source))
    if path.name == description.FILE:
        source, path = str(path.parent), path.parent
    is_saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    has_parquet = path.is_file() or any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))
    if (path / description.FILE).is_file() or not (is_saved or has_parquet):
        return _folder_chart(str(source), path)
    return _table_chart(str(source), path, is_saved=is_saved)


def orientation(data: Any) -> int:
    """Return the EXIF or TIFF orientation, 1-8, in the bytes of an image file; 1 where there is none."""
    if not isinstance(data, bytes):
        return 1
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            value = image.getexif().get(0x0112, 1)
    except Exception:  # whatever Pillow's parsers trip over; the reading proper says what is wrong
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# -- one case ----------------------------------------------------------------------------------------------------------


def _look(case: Case, *, channels: int | None) -> None:
    """Open image and mask of a case and write down what is there."""
    if case.image is not None:
        case.seen = _look_at_image(case.image, channels)
    if case.mask is not None:
        case.labelled = _look_at_mask(case.mask)


def _look_at_image(item: Item, channels: int | None) -> ImageFacts:
    try:
        data = item.read()
        image = decode_image(data, where=item.where, channels=channels)
    except TerrazzoError as error:
        return ImageFacts(problem=error)
    height, width, count = image.shape
    digest = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return ImageFacts(
        size_hw=(height, width),
        channels=count,
        dtype=image.dtype.name,
        orientation=orientation(data),
        content=digest.hexdigest(),
        looks=_looks(image),
    )


def _look_at_mask(item: Item) -> MaskFacts:
    try:
        data = item.read()
        turned = orientation(data)
        try:
            mask = decode_mask(data, where=item.where)
        except MaskValueError:
            colors = decode_image(data, where=item.where)
            if colors.dtype != np.uint8 or colors.shape[2] != 3 or _is_jpeg(data):
                raise
            shares = _count_colors(colors)
            if shares is None:
                raise
            is_grey = all(red == green == blue for red, green, blue in shares)
            ids = {red: count for (red, _, _), count in shares.items()} if is_grey else {}
            return MaskFacts((colors.shape[0], colors.shape[1]), "uint8", turned, ids, shares)
    except TerrazzoError as error:
        return MaskFacts(problem=error)
    counts = np.bincount(mask.ravel())
    ids = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    return MaskFacts((mask.shape[0], mask.shape[1]), mask.dtype.name, turned, ids)


def _is_jpeg(data: Any) -> bool:
    return isinstance(data, bytes) and data.startswith(b"\xff\xd8")


def _count_colors(image: NDArray[np.uint8]) -> dict[Color, int] | None:
    red, green, blue = np.moveaxis(image.astype(np.int32), 2, 0)
    packed = red << 16 | green << 8 | blue
    values, counts = np.unique(packed, return_counts=True)
    if len(values) > MOST_COLORS:
        return None
    return {
        (value >> 16, value >> 8 & 255, value & 255): count
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
    }


def _looks(image: NDArray[Any]) -> bytes:
    """Pack, for 16 x 16 cells, whether a cell is brighter than the one to its right (a difference hash)."""
    from PIL import Image

    if image.dtype == np.uint8 and image.shape[2] == 3:
        grey = Image.fromarray(image).convert("L")
    else:
        plane = image[..., : min(3, image.shape[2])].mean(axis=2, dtype=np.float32)
        low, high = float(plane.min()), float(plane.max())
        grey = Image.fromarray(((plane - low) * (255 / max(high - low, 1e-6))).astype(np.uint8))
    rows, columns = _LOOKS_HW
    small = np.asarray(grey.resize((columns + 1, rows), Image.Resampling.BOX)).astype(np.int16)
    if small.std() < 4:  # grey levels; below, noise alone decides the bits
        return b""
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


# -- where things lie --------------------------------------------------------------------------------------------------


def _folder_chart(source: str, root: Path) -> Chart:
    chart = Chart(source, [], root)
    if (root / description.FILE).is_file():
        try:
            chart.about, chart.is_described = description.read_description(root), True
            entries = read_json(root / description.FILE)["classes"]
            chart.has_colors = all(isinstance(entry, dict) and entry.get("color") for entry in entries)
        except TerrazzoError as error:
            chart.problems.append(error)
    try:
        chart.folders = find_folders(root, chart.about.splits if chart.about else None)
    except TerrazzoError as error:
        chart.problems.append(error)
        return chart
    try:
        pair(chart.folders)
    except DatasetFormatError as error:
        chart.pairing_hint = error.hint if error.command is None else None
    by_list = _lists(chart.about)
    chart.by_lists = by_list is not None
    there = {name for one in chart.folders.values() for name in (*one.images, *one.masks)}
    chart.missing = sorted((by_list or {}).keys() - there)
    for split, one in chart.folders.items():
        has_masks = bool(one.masks)
        if one.images and not has_masks and split != "test":
            chart.bare.append(split)
        for name in sorted({*one.images, *one.masks}):
            image, mask = one.images.get(name), one.masks.get(name)
            placed = split if by_list is None else by_list.get(name, "")
            chart.cases.append(Case(placed, name, _file(image, root), _file(mask, root)))
    if chart.about is None and not (root / description.FILE).is_file():
        _name_by_file(chart, class_names.find(root))
    elif chart.about is not None:
        _settle(chart, chart.about)
    return chart


def _lists(about: description.Description | None) -> dict[str, str] | None:
    """Name -> split, where dataset.json lists names."""
    if about is None or not about.splits or isinstance(next(iter(about.splits.values())), str):
        return None
    return {name: split for split, names in about.splits.items() for name in names}


def _file(path: Path | None, root: Path) -> Item | None:
    if path is None:
        return None
    return Item(os.path.relpath(path, root), functools.partial(_read_file, path), path)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read.", found=error.strerror or str(error)) from error


def _table_chart(source: str, path: Path, *, is_saved: bool) -> Chart:
    chart = Chart(source, [])
    try:
        tables = table.saved_tables(path) if is_saved else table.parquet_tables(path)
        records = table.recognise(tables, str(path))
    except TerrazzoError as error:
        chart.problems.append(error)
        return chart
    for split, one in records.items():
        _take(chart, split, one, one.names)
    folder = path if path.is_dir() else path.parent
    beside = (folder, folder.parent) if folder.name == "data" else (folder,)
    _name_by_file(chart, class_names.find(*beside))
    return chart


def _dataset_chart(source: str, data: Dataset) -> Chart:
    """What lies in a data set that opens: on the Hub, or opened already."""
    chart = Chart(source, [], has_colors=True)
    chart.about = description.Description(data.classes, None if data.remap.is_identity else data.remap)
    chart.space = label_space.LabelSpace(data.classes, data.remap, data.raw_names)
    for name, split in data.splits.items():
        _take(chart, name, split.records, split.names)
    return chart


def _take(chart: Chart, split: str, records: Records, names: Sequence[str]) -> None:
    """Add the cases of these names in some records."""
    if not records.has_masks and split != "test":
        chart.bare.append(split)
    index_of = {name: index for index, name in enumerate(records.names)}
    for name in names:
        index, mask = index_of[name], None
        if records.has_masks:
            mask = Item(
                records.where(index, mask=True), functools.partial(_read_record, records, index, mask=True)
            )
        image = Item(records.where(index), functools.partial(_read_record, records, index, mask=False))
        chart.cases.append(Case(split, name, image, mask))


def _read_record(records: Records, index: int, *, mask: bool) -> Any:
    if isinstance(records, table.TableRecords | StreamedRecords):
        return records.cell(index, mask=mask)
    if isinstance(records, FolderRecords):
        where = records.where(index, mask=mask)
        return remote.read(where) if remote.is_url(where) else _read_file(Path(where))
    return records.mask(index) if mask else records.image(index, None)


def _name_by_file(chart: Chart, path: Path | None) -> None:
    """Take the class names from a file of names."""
    if path is None:
        return
    try:
        kept = class_names.read(path, keep_void=True)
    except TerrazzoError as error:
        chart.problems.append(error)
        return
    remap = None if kept.remap.is_identity else kept.remap
    chart.has_colors = path.suffix == ".json" and '"color"' in path.read_text(encoding="utf-8")
    _settle(chart, description.Description(kept.classes, remap))


def _settle(chart: Chart, about: description.Description) -> None:
    chart.about = about
    table = (about.remap or Remap.identity(len(about.classes))).to_class
    try:
        chart.space = label_space.settle(
            about.classes.names, about.classes.colors, table, raw_names=about.raw_names
        )
    except TerrazzoError as error:
        chart.problems.append(error)
