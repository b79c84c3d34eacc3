"""Names of raw ids from a file beside the data: classes.json, id2label.json or classes.txt.

Used where there is no dataset.json. Where there is no such file either, the ids in the masks are counted and the file
to write is named; names are never made up.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo import remote
from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Color, check_names, color_of, ignore_value
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
    check_names(raw_names.values())
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
    try:
        text = (remote.read(path) if remote.is_url(path) else Path(path).read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(
            f"{path} cannot be read as text.", found=str(error), hint="Save it as UTF-8, one name per line."
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    numbered = [re.match(r"(\d{1,9})\s*[\s,:;]\s*(\S.*)", line, re.ASCII) for line in lines]
    if lines and all(numbered):
        return _table([(int(match[1]), match[2].strip()) for match in numbered if match], path), {}
    return dict(enumerate(lines)), {}


def names_in_json(path: Path | str) -> tuple[dict[int, str], dict[int, Color]]:
    """Return {raw id: name} and {raw id: colour} of a JSON: a list of names, of objects, {"0": name} or {name: 0}."""
    value = _json_at(path) if remote.is_url(path) else read_json(path)
    if isinstance(value, list):
        value = [{"name": entry} if isinstance(entry, str) else entry for entry in value]
        if all(isinstance(entry, dict) for entry in value):
            pairs = [(entry.get("id", position), entry.get("name")) for position, entry in enumerate(value)]
            colors = [
                (pair[0], entry["color"])
                for pair, entry in zip(pairs, value, strict=True)
                if entry.get("color")
            ]
            return _table(pairs, path), {raw: color_of(color) for raw, color in colors}
    elif isinstance(value, dict) and all(re.fullmatch(r"\d{1,9}", key, re.ASCII) for key in value):
        return _table([(int(key), name) for key, name in value.items()], path), {}
    elif isinstance(value, dict):
        return _table([(raw, name) for name, raw in value.items()], path), {}
    raise _no_names(path, value)


def _table(pairs: Sequence[tuple[Any, Any]], path: Path | str) -> dict[int, str]:
    """{id: name}; DatasetFormatError for what is none, and for an id that has two names."""
    for raw, name in pairs:
        if type(raw) is not int or not isinstance(name, str):
            raise _no_names(path, f"{raw!r:.40}: {name!r:.60}")
    twice = [raw for raw, count in Counter(raw for raw, _ in pairs).items() if count > 1]
    if twice:
        names = [name for raw, name in pairs if raw == twice[0]]
        raise DatasetFormatError(f"{path} names id {twice[0]} more than once.", found=", ".join(names[:8]))
    return dict(pairs)


def _no_names(path: Path | str, found: Any) -> DatasetFormatError:
    return DatasetFormatError(
        f"{path} does not name classes.",
        found=str(found)[:100],
        expected='["road", "car"], [{"name": "road", "color": [128, 64, 128]}], or {"0": "road", "1": "car"}',
    )


def _json_at(url: str) -> Any:
    try:
        return json.loads(remote.read(url))
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{url} is not JSON.", found=str(error)) from error
