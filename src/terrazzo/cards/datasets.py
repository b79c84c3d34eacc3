"""The card of a data set: how much of what, in which classes and colours, from where, under which licence.

Pixels are counted over every mask, once: the counts are kept in the user's cache folder.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.cards import licensing
from terrazzo.cards.pictures import LEGEND, SHEET
from terrazzo.cards.text import counted, front_matter, line, linked, percent, shown, swatch, table
from terrazzo.data import Dataset
from terrazzo.data.counts import image_class_pixels
from terrazzo.licences import public, read

SIZES = (  # the Hub's words -> below how many samples
    ("n<1K", 1_000),
    ("1K<n<10K", 10_000),
    ("10K<n<100K", 100_000),
    ("100K<n<1M", 1_000_000),
    ("1M<n<10M", 10_000_000),
)
COLUMNS = {"image": "image", "label": "image"}  # name -> the Hub's word for its type
FILES = "data/{}-*.parquet"  # where `datasets` puts the parquet files of a split


def data_card(
    dataset: Dataset,
    *,
    repo_id: str,
    pictures: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    data_files: Mapping[str, str] | None = None,
    is_cleaned: bool = False,
    quiet: bool = True,
) -> str:
    """Return the README.md of a data set that is to be shared as `repo_id`, "user/name".

    pictures: what `cards.pictures` returned.
    columns: name -> type, and data_files: split on the Hub -> pattern, of what is shared; by default image and label in
    parquet, a split called by `hub_word`. is_cleaned: what images say beside their pixels was taken out, so the bytes
    that are shared are not those of the fingerprint.
    """
    counts = {
        name: image_class_pixels(
            split,
            len(dataset.classes),
            ignore=dataset.classes.ignore,
            location=dataset.location,
            quiet=quiet,
        ).sum(0)
        for name, split in dataset.splits.items()
        if split.has_masks
    }
    columns = COLUMNS if columns is None else columns
    words = [hub_word(name) for name in dataset.splits]
    files = {word: FILES.format(word) for word in words} if data_files is None else data_files
    values = _metadata(dataset, columns, files)
    parts = [
        _head(dataset, repo_id, pictures),
        _splits(dataset),
        _classes(dataset, counts),
        _ids(dataset),
        _use(repo_id, columns, dataset),
        _origin(dataset, is_cleaned=is_cleaned),
    ]
    return front_matter(values) + "\n" + "\n\n".join(parts) + "\n"


def _metadata(dataset: Dataset, columns: Mapping[str, str], files: Mapping[str, str]) -> dict[str, Any]:
    total = sum(len(split) for split in dataset.splits.values())
    # no splits: `datasets` wants their bytes too, and without those takes nothing of it
    info = {"features": [{"name": name, "dtype": kind} for name, kind in columns.items()]}
    return {
        "pretty_name": dataset.name,
        **licensing.metadata(read(dataset.license)),
        "task_categories": ["image-segmentation"],
        "task_ids": ["semantic-segmentation"],
        "size_categories": [next((word for word, below in SIZES if total < below), "n>10M")],
        "tags": ["semantic-segmentation", "terrazzo"],
        "dataset_info": info,
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": path} for name, path in files.items()],
            }
        ],
    }


def _head(dataset: Dataset, repo_id: str, pictures: Sequence[str]) -> str:
    total = sum(len(split) for split in dataset.splits.values())
    kind = "RGB" if dataset.channels == 3 else counted(dataset.channels, "channel")
    text = [
        f"# {shown(dataset.name)}",
        f"{counted(total, 'image')} ({kind}, {dataset.dtype}) for semantic segmentation, with masks of "
        f"{counted(len(dataset.classes), 'class', 'es')}. Shared as `{line(repo_id)}`.",
    ]
    for number, (name, split) in enumerate(dataset.splits.items()):
        if (file := SHEET.format(number)) in pictures:
            text.append(f"![Some images{' under their masks' if split.has_masks else ''}]({file})")
            text.append(
                f"Images of the split {shown(name)}{', under their masks' if split.has_masks else ''}."
            )
    if LEGEND in pictures:
        text.append(f"![The classes and their colours]({LEGEND})")
    elif read(dataset.license).redistribution == "no":
        text.append("No images are shown: the licence of the data does not allow passing them on.")
    return "\n\n".join(text)


def _splits(dataset: Dataset) -> str:
    rows = [
        (shown(name), f"{len(split):,}", "yes" if split.has_masks else "no")
        for name, split in dataset.splits.items()
    ]
    made = dataset.split_manifest
    if made is None:
        how = "The splits are as the data set was found."
    else:
        kept = (
            f"; images whose names agree in {shown(repr(made['groups']))} stay together"
            if made.get("groups")
            else ""
        )
        how = (
            f"train and val were cut by terrazzo, by name, with seed {made.get('seed')}: "
            f"{100 * float(made.get('fraction') or 0):.0f} % for val{kept}."
        )
    return "\n\n".join(["## Splits", table(("split", "images", "masks"), rows, right=(1,)), how])


def _classes(dataset: Dataset, counts: Mapping[str, NDArray[np.int64]]) -> str:
    classes = dataset.classes
    rows = []
    for number, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        shares = [_share(one[number], one.sum()) for one in counts.values()]
        rows.append([str(number), shown(name), swatch(color), *shares])
    head = ["id", "class", "colour", *(f"{shown(name)} %" for name in counts)]
    said = (
        f"Percent of the labelled pixels of each split. The value {classes.ignore} is ignore, neither trained on nor "
        "scored; it has no part in these shares."
    )
    return "\n\n".join(["## Classes", table(head, rows, right=(0, *range(3, len(head)))), said])


def _ids(dataset: Dataset) -> str:
    if dataset.remap.is_identity:
        last, ignore = len(dataset.classes) - 1, dataset.classes.ignore
        return f"## Ids\n\nThe masks hold class ids, 0 to {last}, and {ignore}, which is ignore."
    names = dataset.classes.names
    rows = []
    for raw, class_id in sorted(dataset.remap.to_class.items()):
        becomes = "ignore" if class_id is None else f"{class_id} ({shown(names[class_id])})"
        published = dataset.raw_names.get(raw, "" if class_id is None else names[class_id])
        rows.append((str(raw), shown(published) if published else "", becomes))
    text = [
        "## Ids",
        "The masks hold raw ids. terrazzo makes class ids of them by this table, which stands in `dataset.json`; "
        "whoever reads the masks by other means has to do the same.",
        table(("raw id", "published as", "class id"), rows, right=(0,)),
    ]
    return "\n\n".join(text)


def _use(repo_id: str, columns: Mapping[str, str], dataset: Dataset) -> str:
    repo = json.dumps(repo_id)
    first = next(iter(dataset.splits))
    mask = "label" if "label" in columns else next(iter(columns))
    return "\n\n".join(
        [
            "## How to open it",
            f"""```python
import terrazzo as tz

data = tz.open_dataset({repo})
sample = data[{_quoted(first)}][0]
sample.image, sample.mask                  # (height, width, channels); (height, width) class ids, or None
```""",
            f"""```python
from datasets import load_dataset

row = load_dataset({repo}, split={_quoted(hub_word(first))})[0]
row["image"], row[{_quoted(mask)}]                # PIL images; masks hold the ids of the table above
```""",
        ]
    )


def _origin(dataset: Dataset, *, is_cleaned: bool) -> str:
    stated, known = dataset.license, read(dataset.license)
    source = dataset.source if dataset.source is not None and public(dataset.source) else None
    rows = [
        ("source", linked(source)),
        ("licence, as stated", shown(stated) if stated else "not known"),
        ("commercial use", licensing.WORDS[known.commercial]),
        ("fingerprint", f"`{dataset.fingerprint}`"),
    ]
    if is_cleaned:
        rows[-1] = ("fingerprint before what images say beside their pixels was taken out", rows[-1][1])
    if known.link:
        rows.insert(2, ("the licence itself", linked(known.link)))
    return "\n\n".join(["## Where it comes from", table(("what", "here"), rows)])


def hub_word(split: str) -> str:
    """Return what a split is called on the Hub: one word."""
    return re.sub(r"\W+", "_", split).strip("_") or "train"


def _quoted(words: str) -> str:
    """A name inside a fence of code."""
    return json.dumps(line(words).replace("`", "'"))


def _share(pixels: int, total: int) -> str:
    return percent(float(pixels) / float(total) if total else None, digits=3)
