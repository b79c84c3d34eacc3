"""dataset.json: what a folder of images and masks means; read whole, checked whole, all problems at once.

{"format_version": 1, "name", "license", "source", "classes": [{"name", "color"}], "remap": {"raw id": class id or
null}, "raw_names": {"raw id": name}, "channels", "dtype", "mean", "std", "splits": {split: folder or [names]},
"groups": regular expression, "extra": {anything}}. Only "classes" must be there. It lies beside folders, and beside the
parquet files of a data set that was shared; there, "splits" is {split: [splits of the table that make it up]}.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from terrazzo.classes import Classes, Remap, check_names
from terrazzo.data import label_space
from terrazzo.errors import DatasetFormatError, nearest
from terrazzo.storage import read_json, write_json

FILE = "dataset.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Description:
    """The content of dataset.json."""

    classes: Classes
    """Names and colours; position is class id."""
    remap: Remap | None = None
    """Ids in the mask files -> class id or ignore; None where they are class ids already."""
    raw_names: Mapping[int, str] = field(default_factory=dict)
    """Names of raw ids that differ from their class's, such as {11: "void"}."""
    name: str | None = None
    """What it is called; None: as its folder."""
    license: str | None = None
    """As its publisher states it."""
    source: str | None = None
    """Where it comes from: a citation or an address."""
    channels: int | None = None
    """C of every image; None: as the first image."""
    dtype: Literal["uint8", "uint16", "float32"] | None = None
    """uint8, uint16 or float32; None: as the first image."""
    mean: tuple[float, ...] | None = None
    """Per channel in the unit range; None: ImageNet's for RGB uint8, else measured."""
    std: tuple[float, ...] | None = None
    """Per channel in the unit range."""
    splits: Mapping[str, str | tuple[str, ...]] | None = None
    """Split -> its folder, or the names of its images in images/; of a table, the parts that make it up; None: by the
    folders' names, or as the table has them."""
    groups: str | None = None
    """A regular expression; names with the same first parenthesis stay on one side of a split made here."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping; terrazzo does not read it."""

    def space(self, *, keep_void: bool = False) -> label_space.LabelSpace:
        """Return what raw ids mean; names such as "unlabeled" become ignore unless `keep_void`."""
        table = (self.remap or Remap.identity(len(self.classes))).to_class
        return label_space.settle(
            self.classes.names, self.classes.colors, table, raw_names=self.raw_names, keep_void=keep_void
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form that is written; what is None or empty is left out."""
        value: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for one in fields(self):
            part = getattr(self, one.name)
            if part is None or part == {}:
                continue
            if one.name in ("classes", "remap"):
                part = part.to_json()
            value[one.name] = dict(part) if isinstance(part, Mapping) else part
        return value


def write_description(folder: Path | str, description: Description) -> None:
    """Write dataset.json into `folder`, atomically."""
    write_json(Path(folder) / FILE, description.to_json())


def read_description(folder: Path | str) -> Description:
    """Return the dataset.json of `folder`; DatasetFormatError with every problem in it."""
    path = Path(folder) / FILE
    return from_value(read_json(path), where=str(path))


def from_value(value: Any, *, where: str) -> Description:
    """Return the description in the JSON of a dataset.json that lies at `where`; raises as `read_description` does."""
    if not isinstance(value, dict):
        raise DatasetFormatError(
            f"{where} is not a description.", found=str(value)[:80], expected='{"classes": [...], …}'
        )
    version = value.pop("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise DatasetFormatError(
            f"{where} has format version {version!r}.",
            expected=f"{FORMAT_VERSION}, which this terrazzo reads",
            hint="A newer terrazzo wrote it. Upgrade:",
            command="pip install --upgrade terrazzo",
        )
    problems = _problems(value)
    if problems:
        raise DatasetFormatError(
            f"{where} has {len(problems)} problem{'s' if len(problems) > 1 else ''}.",
            found="\n" + "\n".join(problems),
        )
    try:
        classes = Classes.from_json(value["classes"])
        check_names(classes.names)
        remap = Remap.from_json(value["remap"], len(classes)) if value.get("remap") is not None else None
    except DatasetFormatError as error:
        raise DatasetFormatError(
            f"{where}: {error.what}", found=error.found, expected=error.expected, hint=error.hint
        ) from error
    splits = value.get("splits")
    return Description(
        classes=classes,
        remap=remap,
        raw_names={int(raw): name for raw, name in (value.get("raw_names") or {}).items()},
        splits=None
        if splits is None
        else {k: v if isinstance(v, str) else tuple(v) for k, v in splits.items()},
        mean=None if value.get("mean") is None else tuple(value["mean"]),
        std=None if value.get("std") is None else tuple(value["std"]),
        extra=value.get("extra") or {},
        **{key: value.get(key) for key in ("name", "license", "source", "channels", "dtype", "groups")},
    )


def _problems(value: Mapping[str, Any]) -> list[str]:
    """One line for everything in the JSON that is not as it should be."""
    known = [one.name for one in fields(Description)]
    problems = []
    for key in value:
        if key not in known:
            near = nearest(key, known, most=1)
            problems.append(
                f"unknown key {key!r}"
                + (f"; did you mean {near[0]!r}?" if near else '; keep your own under "extra"')
            )
    if not isinstance(value.get("classes"), list) or not value["classes"]:
        problems.append('"classes" must be a list such as [{"name": "road", "color": [128, 64, 128]}, …]')
    elif not all(isinstance(entry, str | dict) for entry in value["classes"]):
        problems.append('"classes" holds something else than names and {"name", "color"}')
    texts = ("name", "license", "source", "groups")
    problems += [
        f'"{k}" must be text, not {value[k]!r}' for k in texts if not isinstance(value.get(k), str | None)
    ]
    channels = value.get("channels")
    if channels is not None and (not isinstance(channels, int) or isinstance(channels, bool) or channels < 1):
        problems.append(f'"channels" must be a whole number above 0, not {channels!r}')
    if value.get("dtype") not in (None, "uint8", "uint16", "float32"):
        problems.append(f'"dtype" must be uint8, uint16 or float32, not {value["dtype"]!r}')
    for key in ("mean", "std"):
        numbers = value.get(key)
        if numbers is None:
            continue
        if not isinstance(numbers, list) or not all(isinstance(n, int | float) for n in numbers):
            problems.append(f'"{key}" must be a list of numbers, one per channel, in the unit range')
        elif isinstance(channels, int) and len(numbers) != channels:
            problems.append(f'"{key}" has {len(numbers)} numbers for {channels} channels')
        elif key == "std" and not all(n > 0 for n in numbers):
            problems.append('"std" must be above 0')
    if (value.get("mean") is None) != (value.get("std") is None):
        problems.append('"mean" and "std" come together')
    for key in ("remap", "raw_names"):
        table = value.get(key)
        if table is not None and not (isinstance(table, dict) and all(raw.isdigit() for raw in table)):
            problems.append(f'"{key}" must be an object whose keys are raw ids')
    problems += _split_problems(value.get("splits"))
    if not isinstance(value.get("extra"), dict | None):
        problems.append('"extra" must be an object')
    return problems


def _split_problems(splits: Any) -> list[str]:
    if splits is None:
        return []
    if not isinstance(splits, dict) or not splits:
        return ['"splits" must be an object: split -> folder, or split -> list of names']
    lists = [v for v in splits.values() if isinstance(v, list) and all(isinstance(name, str) for name in v)]
    texts = [v for v in splits.values() if isinstance(v, str)]
    if len(texts) == len(splits):
        return []
    if len(lists) != len(splits):
        return ['"splits" must hold only folders, or only lists of names']
    members = [name for names in lists for name in names]
    twice = (
        sorted({name for name in members if members.count(name) > 1})
        if len(set(members)) < len(members)
        else []
    )
    return [f'"splits" names {len(twice)} images more than once: {", ".join(twice[:10])}'] if twice else []
