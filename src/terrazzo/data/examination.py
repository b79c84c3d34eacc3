"""What lies in a data set, file by file, taken down as it is: the facts that `doctor.py` judges and `repair.py` mends.

Nothing here judges, and nothing here stops: a file that cannot be read is a fact too. Works on folders that
`open_dataset` refuses, and on tables.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import remote
from terrazzo.classes import Remap
from terrazzo.data import alignment, class_names, description, label_space, table
from terrazzo.data.chart import Case, Chart, Item
from terrazzo.data.dataset import Dataset
from terrazzo.data.folder import FolderRecords, find_folders, pair
from terrazzo.data.open import PROJECT_SUFFIX, open_dataset
from terrazzo.data.readings import look
from terrazzo.data.records import Records
from terrazzo.data.streaming import StreamedRecords
from terrazzo.errors import DatasetFormatError, TerrazzoError, UnreadableFileError
from terrazzo.storage import read_json


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
    sums: dict[tuple[str, int], tuple[NDArray[np.float64], list[int]]] = {}
    with ThreadPoolExecutor(count) as pool:
        looks = pool.map(functools.partial(look, channels=channels), chart.cases)
        for done, (case, found) in enumerate(zip(chart.cases, looks, strict=True), start=1):
            if found is not None:
                correlation, step = found
                total, pairs = sums.setdefault((case.split, step), (np.zeros(correlation.shape), [0]))
                total += correlation
                pairs[0] += 1
            if progress is not None:
                progress(done, len(chart.cases))
    by_count = sorted(
        sums.items(), key=lambda item: item[1][1][0]
    )  # of two sizes of cells, that of more pairs
    chart.fits = {split: alignment.fit(total / pairs[0], step) for (split, step), (total, pairs) in by_count}
    return chart


def look_around(source: Path | str | Dataset) -> Chart:
    """Return what lies in a data set, no image opened yet."""
    if isinstance(source, Dataset):
        return _dataset_chart(source.location, source)
    path = Path(source).expanduser()
    if not path.exists():  # on the Hub, or nowhere, which `open_dataset` says
        return _dataset_chart(str(source), open_dataset(source))
    if path.is_file() and path.suffix == PROJECT_SUFFIX:  # which of its releases, `open_dataset` asks
        return _dataset_chart(str(source), open_dataset(path))
    if path.name == description.FILE:
        source, path = str(path.parent), path.parent
    if table.is_described(path):  # as it was pulled from the Hub
        return _dataset_chart(str(source), open_dataset(path))
    is_saved = (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
    has_parquet = path.is_file() or any(path.glob("*.parquet")) or any(path.glob("*/*.parquet"))
    if (path / description.FILE).is_file() or not (is_saved or has_parquet):
        return _folder_chart(str(source), path)
    return _table_chart(str(source), path, is_saved=is_saved)


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
