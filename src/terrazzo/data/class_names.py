"""Names of raw ids from a file beside the data: classes.json, id2label.json or classes.txt.

Used where there is no dataset.json. Where there is no such file either, the ids in the masks are counted and the file
to write is named; names are never made up.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import remote
from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Color, ignore_value
from terrazzo.data import label_space
from terrazzo.errors import DatasetFormatError, UnreadableFileError
from terrazzo.storage import read_json

FILES = ("classes.json", "id2label.json", "classes.txt")


def find(*folders: Path) -> Path | None:
    """Return the first file that names classes in these folders."""
    return next((folder / name for folder in folders for name in FILES if (folder / name).is_file()), None)


def read(path: Path | str, *, keep_void: bool = False) -> label_space.LabelSpace:
    """Return the label space that a file of names gives, here or at a URL.

    Text: one name per line, the first for id 0; or "id name" in every line. JSON: a list of names or of {"name",
    "color"}; or {"0": name}; or {name: 0}.
    """
    raw_names, colors = names_in_text(path) if str(path).endswith(".txt") else names_in_json(path)
    if not raw_names:
        raise DatasetFormatError(f"{path} names no class.", expected="one name per line, the first for id 0")
    if not colors:
        return label_space.from_raw_names(raw_names, keep_void=keep_void)
    raws = sorted(raw_names)
    table: dict[int, int | None] = {raw: position for position, raw in enumerate(raws)}
    table.setdefault(ignore_value(len(raws)), None)
    chosen = label_space.from_raw_names(raw_names, keep_void=True).classes.colors
    all_colors = [colors.get(raw, chosen[position]) for position, raw in enumerate(raws)]
    return label_space.settle([raw_names[raw] for raw in raws], all_colors, table, keep_void=keep_void)


def missing(
    root: Path, masks: Iterable[NDArray[Any]], *, looked: int, total: int, file: str = "classes.txt"
) -> DatasetFormatError:
    """Build the error of a data set that does not name its ids: which ids there are, and the file to write."""
    seen: set[int] = set()
    for mask in masks:
        seen.update(np.unique(mask).tolist())
    ids = sorted(seen)
    ignored = IGNORE_16BIT if any(i > IGNORE_8BIT for i in ids) else IGNORE_8BIT
    top = max((i for i in ids if i != ignored), default=0)
    shown = ", ".join(map(str, ids[:40])) + (", …" if len(ids) > 40 else "")
    binary = (
        " 0 and 255 alone look like a binary mask: terrazzo check DATA tells more."
        if ids == [0, ignored]
        else ""
    )
    names = [f"class{i}" for i in range(min(top, 3) + 1)] + (["…"] if top > 3 else [])
    if file.endswith(".txt"):
        expected = f"the names in {root / file}, one per line: the first line names id 0, the last id {top}"
        command = "printf '" + "".join(f"{name}\\n" for name in names) + f"' > {root / file}"
    else:
        expected = f'the names in {root / file}, as {{"0": name, …, "{top}": name}}'
        entries = [f'"{i}": "{name}"' for i, name in enumerate(names) if name != "…"] + (
            ["…"] if top > 3 else []
        )
        command = f"echo '{{{', '.join(entries)}}}' > {root / file}"
    return DatasetFormatError(
        f"{root} does not say what its ids mean.",
        found=f"{len(ids)} ids in {looked} of {total} masks: {shown}",
        expected=expected,
        hint=f"{ignored} is ignored and needs no name.{binary} For example:",
        command=command,
    )


def names_in_text(path: Path | str) -> tuple[dict[int, str], dict[int, Color]]:
    """Return {raw id: name} of a text file, and no colours: one name a line, or "id name" in every line."""
    text = remote.read(path).decode("utf-8-sig") if remote.is_url(path) else Path(path).read_text("utf-8-sig")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    numbered = [re.match(r"(\d+)\s*[\s,:;]\s*(\S.*)", line) for line in lines]
    if lines and all(numbered):
        return {int(match[1]): match[2].strip() for match in numbered if match}, {}
    return dict(enumerate(lines)), {}


def names_in_json(path: Path | str) -> tuple[dict[int, str], dict[int, Color]]:
    """Return {raw id: name} and {raw id: colour} of a JSON: a list of names, of objects, {"0": name} or {name: 0}."""
    value = _json_at(path) if remote.is_url(path) else read_json(path)
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return dict(enumerate(value)), {}
    if isinstance(value, list) and all(isinstance(entry, dict) and "name" in entry for entry in value):
        ids = [int(entry.get("id", position)) for position, entry in enumerate(value)]
        colors = {i: tuple(entry["color"]) for i, entry in zip(ids, value, strict=True) if entry.get("color")}
        return {i: str(entry["name"]) for i, entry in zip(ids, value, strict=True)}, colors
    if isinstance(value, dict) and all(str(key).isdigit() for key in value):
        return {int(key): str(name) for key, name in value.items()}, {}
    if isinstance(value, dict) and all(isinstance(raw, int) for raw in value.values()):
        return {raw: name for name, raw in value.items()}, {}
    raise DatasetFormatError(
        f"{path} does not name classes.",
        found=str(value)[:100],
        expected='["road", "car"], [{"name": "road", "color": [128, 64, 128]}], or {"0": "road", "1": "car"}',
    )


def _json_at(url: str) -> Any:
    try:
        return json.loads(remote.read(url))
    except ValueError as error:
        raise UnreadableFileError(f"{url} is not JSON.", found=str(error)) from error
