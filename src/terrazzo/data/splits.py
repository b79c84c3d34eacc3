"""Make a split once: by name, from a seed, with groups kept together; stored with the run and read back.

Which side a name falls on depends on the names, the seed and the groups alone: not on their order, the machine, or the
Python version. Frames of one sequence or slices of one patient in both sides would make scores false, hence groups.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from terrazzo.errors import DatasetFormatError
from terrazzo.storage import read_json

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names that folders and the Hub use -> ours."""
MADE = "No val split"  # how the note on a split made here begins
POOLED = "train+val"  # what a fold is cut from where a data set has both; its images are called train/NAME, val/NAME


def make_split(
    names: Iterable[str], fraction: float = 0.2, seed: int = 0, groups: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Return {"train": [...], "val": [...]}, sorted, about `fraction` of the names in "val".

    Units (groups, or single names) are taken in the order of a hash of (seed, unit) as long as that brings the count
    nearer to the wanted one; both sides get at least one unit. Raises DatasetFormatError when there is only one unit.
    """
    names = sorted(set(names))
    if not 0 < fraction < 1:
        raise DatasetFormatError("A split needs a fraction between 0 and 1.", found=str(fraction))
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(name if groups is None else groups[name], []).append(name)
    if len(units) < 2:
        raise DatasetFormatError(
            "There is nothing to split: one side would be empty.",
            found=f"{len(names)} images in {len(units)} group{'s' if len(units) != 1 else ''}",
            expected="at least two groups (or two images, without groups)",
        )
    wanted = max(1, round(fraction * len(names)))
    val: list[str] = []
    taken = 0
    order = sorted(units, key=lambda unit: (_drawn(seed, unit), unit))
    for unit in order:
        size = len(units[unit])
        if abs(len(val) + size - wanted) < abs(len(val) - wanted) and taken < len(units) - 1:
            val.extend(units[unit])
            taken += 1
    if not val:  # every group is far larger than the wanted count
        val.extend(units[min(order, key=lambda unit: len(units[unit]))])
    chosen = set(val)
    return {"train": [name for name in names if name not in chosen], "val": sorted(val)}


def make_folds(
    names: Iterable[str], count: int, seed: int = 0, groups: Mapping[str, str] | None = None
) -> list[list[str]]:
    """Return `count` disjoint lists of names, each sorted, that together are all of them; none is empty.

    The largest groups are dealt first, each to the smallest fold so far; equals in the order of a hash of (seed, unit).
    Without groups the folds differ by one name at most. There have to be as many groups (or names) as folds.
    """
    units: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        units.setdefault(name if groups is None else groups[name], []).append(name)
    assert 2 <= count <= len(units), f"{count} folds of {len(units)} units"
    folds: list[list[str]] = [[] for _ in range(count)]
    for unit in sorted(units, key=lambda unit: (-len(units[unit]), _drawn(seed, unit), unit)):
        min(folds, key=len).extend(units[unit])
    return [sorted(fold) for fold in folds]


def _drawn(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{unit}".encode()).digest()


def groups_by_pattern(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return {name: group}: the first parenthesis of `pattern` found in the name, or all of the match.

    Raises DatasetFormatError for a pattern that does not compile or names it does not fit.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DatasetFormatError(
            f'The "groups" pattern {pattern!r} is not a regular expression.', found=str(error)
        ) from error
    names = list(names)
    found = {name: compiled.search(name) for name in names}
    unfit = sorted(name for name, match in found.items() if match is None)
    if unfit:
        raise DatasetFormatError(
            f'The "groups" pattern {pattern!r} does not fit every name.',
            found=f"{len(unfit)} of {len(names)} without a match: {', '.join(unfit[:10])}",
            expected="a match in every name; its first parenthesis names the group",
        )
    return {
        name: (match.group(1) if compiled.groups else match.group(0))
        for name, match in found.items()
        if match
    }


def manifest(
    split: Mapping[str, list[str]], *, of: str, fraction: float, seed: int, groups: str | None
) -> dict[str, Any]:
    """Return the JSON form that a run stores: which names of split `of` went where, and how that was decided."""
    return {
        "format_version": 1,
        "of": of,
        "fraction": fraction,
        "seed": seed,
        "groups": groups,
        "splits": {name: list(members) for name, members in split.items()},
    }


def read_manifest(source: Path | str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest from its file or value, checked; DatasetFormatError where it is none."""
    value = dict(source) if isinstance(source, Mapping) else read_json(source)
    where = "The split manifest" if isinstance(source, Mapping) else f"The split manifest {source}"
    is_manifest = isinstance(value, dict) and isinstance(value.get("splits"), dict)
    if not is_manifest or not {"train", "val"} <= set(value["splits"]):
        raise DatasetFormatError(
            f"{where} cannot be used.",
            found=str(value)[:120],
            expected='{"splits": {"train": [names], "val": [names]}, "of": "train", "seed": 0, …}',
        )
    both = sorted(set(value["splits"]["train"]) & set(value["splits"]["val"]))
    if both:
        raise DatasetFormatError(
            f"{where} has {len(both)} names in train and in val.",
            found=", ".join(both[:10]),
            expected="every name on one side",
        )
    return value
