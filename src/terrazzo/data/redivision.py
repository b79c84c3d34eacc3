"""Train and val divided anew, in a copy: sequences on one side, every class that can be in train.

The shares stay about as they were. test stays as it is, unless sequences reach into it; then it is divided anew too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart
from terrazzo.data.sequences import group, sequences
from terrazzo.data.splits import make_split
from terrazzo.errors import DatasetFormatError, UsageError

_VAL = 0.2  # of the images, where there was no val


def redivide(cases: Sequence[Case], chart: Chart, pattern: str) -> tuple[list[str], list[str]]:
    """Return (the new split of every case, what was done in sentences).

    pattern: as "groups" of dataset.json; "": by the sequences that are found, else image by image. Raises UsageError
    where fewer groups are there than sides, DatasetFormatError where the pattern does not fit a name.
    """
    group_of = _groups(cases, chart, pattern)
    pool = _pool(cases, group_of)
    labelled = [
        case for case in cases if case.split in pool and case.image is not None and case.mask is not None
    ]
    units: dict[str, list[Case]] = defaultdict(list)
    for case in labelled:
        units[group_of[id(case)]].append(case)
    sides = _sides(units, pool, labelled)
    moved = _bring_classes(units, sides, chart)
    new = [sides.get(group_of[id(case)], case.split) if case.split in pool else case.split for case in cases]
    counted = ", ".join(f"{new.count(side):,} in {side}" for side in dict.fromkeys(sorted(new)))
    count = f"{len(units):,} groups" if len(units) < len(labelled) else "images without groups"
    actions = [
        f"{' and '.join(sorted({s or 'the pool' for s in pool}))} divided anew, by {count}: {counted}."
    ]
    if moved:
        actions.append(f"{moved} moved to train for the sake of classes that were missing there.")
    return new, actions


def _groups(cases: Sequence[Case], chart: Chart, pattern: str) -> Mapping[int, str]:
    """The group of every case, by its id()."""
    found = group(cases, pattern) if pattern else sequences(chart)
    if found is None and pattern:
        raise DatasetFormatError(
            f"The pattern {pattern!r} makes no groups of these names.",
            found=", ".join(case.name for case in cases[:6]) + (", …" if len(cases) > 6 else ""),
            expected="matches in the names, with at least two different first parentheses",
        )
    known = {id(case): name for name, group in found.groups.items() for case in group} if found else {}
    return {id(case): known.get(id(case), f"{case.split}/{case.name}") for case in cases}


def _pool(cases: Sequence[Case], group_of: Mapping[int, str]) -> set[str]:
    """The splits that are divided anew."""
    pool = {case.split for case in cases if case.split in ("", "train", "val")}
    inside = {group_of[id(case)] for case in cases if case.split in pool}
    others = {case.split for case in cases if case.split not in pool and case.mask is not None}
    reached = {case.split for case in cases if case.split in others and group_of[id(case)] in inside}
    return pool | reached


def _sides(units: Mapping[str, list[Case]], pool: set[str], labelled: Sequence[Case]) -> dict[str, str]:
    """The side of every unit: first what is scored, by the shares there were, the rest is train."""
    name_of = {f"{case.split}/{case.name}": unit for unit, cases in units.items() for case in cases}
    scored = sorted(pool - {"", "train"}) or ["val"]
    if len(units) < len(scored) + 1:
        raise UsageError(
            "There are fewer groups than sides, so train and val cannot be divided by them.",
            found=f"{len(units)} group{'s' if len(units) != 1 else ''}: {', '.join(list(units)[:5])}",
            hint="Record more sequences, or divide by another pattern with --groups.",
        )
    sides: dict[str, str] = {}
    rest = dict(name_of)
    for side in scored:
        share = sum(case.split == side for case in labelled) / len(labelled) or _VAL
        share = min(0.9, share * len(labelled) / len(rest))
        for name in make_split(rest, share, groups=rest)["val"]:
            sides[rest.pop(name)] = side
    return sides | dict.fromkeys(rest.values(), "train")


def _bring_classes(units: Mapping[str, list[Case]], sides: dict[str, str], chart: Chart) -> int:
    """Move units to train until every class that occurs is there, or nothing can be moved; returns how many were."""
    classes = {
        unit: {class_id for case in cases for class_id in symptoms.occurring(case, chart)}
        for unit, cases in units.items()
    }
    sides_before = dict(sides)
    for _ in range(len(units)):  # each turn brings at least one class to train, for good
        learned = _classes_of(classes, sides, "train")
        spare = [unit for unit, side in sides.items() if side != "train" and classes[unit] - learned]
        spare.sort(key=lambda unit: (-len(classes[unit] - learned), len(units[unit]), unit))
        for unit in spare:
            side = sides[unit]
            sides[unit] = "train"
            if side in sides.values():
                break
            needless = [  # the side would be empty: another unit takes the place, whose classes train has elsewhere
                one
                for one in sorted(units, key=lambda one: (len(units[one]), one))
                if one != unit
                and sides[one] == "train"
                and classes[one] <= _classes_of(classes, sides | {one: side}, "train")
            ]
            if needless:
                sides[needless[0]] = side
                break
            sides[unit] = side
        else:
            break
    return sum(side == "train" != sides_before[unit] for unit, side in sides.items())


def _classes_of(classes: Mapping[str, set[int]], sides: Mapping[str, str], side: str) -> set[int]:
    return {one for unit, its in sides.items() if its == side for one in classes[unit]}
