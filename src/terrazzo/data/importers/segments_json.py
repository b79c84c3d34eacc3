"""The JSON file of a Segments.ai release, which holds what anybody wrote: read whole, checked whole, told all at once.

What others leave out is not missed: owner, uuid, metadata, colours; `samples` may be a list or an object, a label null.
Refused: other tasks than bitmaps, doubled ids and names, categories and regions that cannot be, annotations of
categories that are not listed, sample names that are no paths of files.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from terrazzo.classes import Color
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.segments_names import file_names, repeated
from terrazzo.errors import DatasetFormatError, MissingPathError, unknown_name
from terrazzo.region_ids import MAX_CATEGORY, categories_of

TASKS = ("segmentation-bitmap", "segmentation-bitmap-highres")
LABELSET = "ground-truth"  # the one that every data set begins with
STATUSES = (
    *("UNLABELED", "PRELABELED", "LABELING_IN_PROGRESS", "LABELED", "REVIEWING_IN_PROGRESS", "REVIEWED"),
    *("REJECTED", "SKIPPED", "VERIFIED"),
)
NO_STATUS = "UNKNOWN"  # of a label that does not say
SHOWN = 8  # how many problems an error lists


@dataclass(frozen=True)
class Item:
    """A sample of a release, in one labelset."""

    name: str
    """As on the site; '/' for sub-folders."""
    stem: str
    """The name of its files, without suffix; no other sample's."""
    uuid: str
    """The site's id; "" where the release has none."""
    status: str
    """One of STATUSES, or what else a release may say."""
    image: str | None
    """Address or relative path of the image."""
    bitmap: str | None
    """Address or relative path of the bitmap; None where there is no label."""
    regions: Mapping[int, int]
    """Region id -> category id; regions without a category are left out."""


@dataclass(frozen=True)
class Release:
    """What a release file says, for one labelset."""

    name: str
    """Such as "v1.0"."""
    dataset: str
    """Such as "owner/flowers", or "flowers" where it has no owner."""
    description: str
    """Of the data set, by its owner."""
    created: str
    """When, as the file says."""
    labelset: str
    """The chosen one."""
    other_labelsets: tuple[str, ...]
    """Those that were not chosen."""
    categories: Mapping[int, str]
    """Category id -> name, by id."""
    colors: Mapping[int, Color]
    """Category id -> RGB, of the categories that have one."""
    things: tuple[int, ...]
    """Ids of the categories whose regions are single objects (has_instances)."""
    items: tuple[Item, ...]
    """In the order of the release."""


def read_release(path: Path, labelset: str | None = None) -> Release:
    """Return the release in a JSON file, in the labelset asked for; DatasetFormatError with everything wrong in it.

    labelset None: "ground-truth", or the only one there is.
    """
    value = _parsed(path)
    where = str(path)
    dataset = value.get("dataset") if isinstance(value, dict) else None
    if not isinstance(dataset, dict):
        _refuse(where, ['no object "dataset"'])
    task = dataset.get("task_type", TASKS[0])
    if task not in TASKS:
        raise DatasetFormatError(
            f"{where} is a release of another task.",
            found=f"task_type {task!r:.60}",
            expected=" or ".join(TASKS),
            hint="Only labels that are bitmaps say what every pixel is.",
        )
    samples = _samples(dataset, where)
    problems: list[str] = []
    categories, colors, things = _categories(dataset, problems)
    stems = file_names([one.get("name") for one in samples], problems)
    if problems:
        _refuse(where, problems)
    chosen, others = _labelset(dataset, samples, labelset)
    items = [
        _item(sample, stems[name], chosen, categories, problems)
        for sample in samples
        for name in [sample.get("name")]
        if isinstance(name, str) and name in stems
    ]
    if problems:
        _refuse(where, problems)
    owner, called = _text(dataset.get("owner")), _text(dataset.get("name")) or path.stem
    return Release(
        name=_text(value.get("name")) or path.stem,
        dataset=f"{owner}/{called}" if owner else called,
        description=_text(dataset.get("description")),
        created=_text(value.get("created_at")),
        labelset=chosen,
        other_labelsets=others,
        categories=categories,
        colors=colors,
        things=things,
        items=tuple(items),
    )


def _parsed(path: Path) -> Any:
    if path.is_dir():
        there = sorted(one.name for one in path.glob("*.json"))
        raise MissingPathError(
            f"{path} is a folder.",
            found=f"JSON files in it: {', '.join(there[:SHOWN])}" if there else "no JSON file in it",
            expected="the JSON file of a Segments.ai release, with the bitmaps below its folder or at addresses",
        )
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", expected="the JSON file of a Segments.ai release")
    try:
        return json.loads(read(path))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DatasetFormatError(
            f"{path} is not valid JSON.", found=str(error)[:200], hint="Download the release again."
        ) from error


def _samples(dataset: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The samples as a list of objects; an object of samples gives each its key as a name where it has none."""
    samples = dataset.get("samples")
    if isinstance(samples, dict):
        samples = [{"name": key, **one} if isinstance(one, dict) else one for key, one in samples.items()]
    if not isinstance(samples, list) or not all(isinstance(one, dict) for one in samples):
        _refuse(where, ['no list of objects "samples"'])
    if not samples:
        _refuse(where, ["no samples"])
    return samples


def _categories(
    dataset: Mapping[str, Any], problems: list[str]
) -> tuple[dict[int, str], dict[int, Color], tuple[int, ...]]:
    attributes = dataset.get("task_attributes")
    listed = attributes.get("categories") if isinstance(attributes, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        problems.append("no list of categories under task_attributes")
        return {}, {}, ()
    for one in listed:
        raw, name = one.get("id"), one.get("name")
        if type(raw) is not int or not 0 <= raw <= MAX_CATEGORY:
            problems.append(f"a category with id {raw!r:.40}, not 0-{MAX_CATEGORY:,}")
        elif not isinstance(name, str) or not name.strip() or not name.isprintable():
            problems.append(f"category {raw} with the name {name!r:.80}")
    if problems:
        return {}, {}, ()
    problems += [f"two categories with id {raw}" for raw in repeated(one["id"] for one in listed)]
    for name in repeated(one["name"].strip() for one in listed):
        ids = sorted(one["id"] for one in listed if one["name"].strip() == name)
        problems.append(f"categories {', '.join(map(str, ids))} are all called {name!r:.80}")
    listed = sorted(listed, key=lambda one: one["id"])
    colors = {one["id"]: color for one in listed if (color := _color(one.get("color"))) is not None}
    things = tuple(one["id"] for one in listed if one.get("has_instances") is True)
    return {one["id"]: one["name"].strip() for one in listed}, colors, things


def _labelset(
    dataset: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    listed = dataset.get("labelsets")
    names = [
        one["name"]
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("name"), str)
    ]
    for sample in samples:
        labels = sample.get("labels")
        names += labels if isinstance(labels, dict) else ()
    names = [name for name in dict.fromkeys(names) if name.isprintable()]  # others nobody can ask for
    chosen = wanted or (names[0] if len(names) == 1 else LABELSET)
    if chosen not in names and wanted is None:
        raise DatasetFormatError(
            f"The release has no labelset {LABELSET!r}.",
            found=", ".join(names) or "no labelsets",
            hint="Choose one:",
            command="terrazzo import segments RELEASE.json --out DIR --labelset NAME",
        )
    if chosen not in names:
        raise unknown_name("labelset", chosen, names)
    return chosen, tuple(name for name in names if name != chosen)


def _item(
    sample: Mapping[str, Any],
    stem: str,
    labelset: str,
    categories: Mapping[int, str],
    problems: list[str],
) -> Item:
    name = sample["name"]
    labels = sample.get("labels")
    label = labels.get(labelset) if isinstance(labels, dict) else None
    attributes = label.get("attributes") if isinstance(label, dict) else None
    attributes = attributes if isinstance(attributes, dict) else {}
    status = label.get("label_status") if isinstance(label, dict) else "UNLABELED"
    regions: dict[int, int] = {}
    try:
        regions = categories_of(_listed(attributes.get("annotations")), where=f"sample {name!r:.80}")
    except DatasetFormatError as error:
        problems.append(f"sample {name!r:.80}: {(error.found or '').strip().splitlines()[0]}")
    strange = sorted(set(regions.values()) - categories.keys())
    if strange:
        problems.append(
            f"sample {name!r:.80} has regions of category {', '.join(map(str, strange[:4]))}, which is not listed"
        )
    return Item(
        name=name,
        stem=stem,
        uuid=_text(sample.get("uuid")),
        status=_text(status).upper() or NO_STATUS,
        image=_url(sample.get("attributes"), "image"),
        bitmap=_url(attributes, "segmentation_bitmap"),
        regions=regions,
    )


def _listed(annotations: Any) -> list[Any]:
    """The annotations with an id each: old releases call it track_id."""
    if annotations is None:
        return []
    if not isinstance(annotations, list):
        return [annotations]  # told as no annotation
    return [
        {"id": one["track_id"], **one} if isinstance(one, dict) and "track_id" in one else one
        for one in annotations
    ]


def _url(holder: Any, key: str) -> str | None:
    inner = holder.get(key) if isinstance(holder, dict) else None
    url = inner.get("url") if isinstance(inner, dict) else None
    return url if isinstance(url, str) and url else None


def _color(value: Any) -> Color | None:
    if not isinstance(value, list) or len(value) < 3:
        return None
    red, green, blue = value[:3]
    if not all(type(one) is int and 0 <= one <= 255 for one in (red, green, blue)):
        return None
    return red, green, blue


def _text(value: Any) -> str:
    """A text for people to read, on one line; "" for what is none."""
    return "".join(c if c.isprintable() else " " for c in value).strip() if isinstance(value, str) else ""


def _refuse(where: str, problems: list[str]) -> NoReturn:
    more = [f"… {len(problems)} problems in all"] if len(problems) > SHOWN else []
    raise DatasetFormatError(
        f"{where} is not to be trusted, or no release of Segments.ai.",
        found="\n" + "\n".join(problems[:SHOWN] + more),
        expected='{"name", "dataset": {"task_type", "task_attributes": {"categories": [{"id", "name"}]}, "samples": '
        '[{"name", "attributes": {"image": {"url"}}, "labels"}]}}',
    )
