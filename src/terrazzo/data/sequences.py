"""Frames of one sequence, told by their names, and whether a split keeps them together.

Names that differ in their last number alone (0001TP_006690, frankfurt_000001_000294, walk/frame12) may be frames of one
sequence, or may only be counted (2008_000123 of Pascal VOC). The images tell: neighbours of a sequence look alike.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrazzo.data.chart import Case, Chart
from terrazzo.data.likeness import correlations

PATTERN = r"^(.*(?<!\d))\d+(?:[_.-][A-Za-z]\w*)?$"
"""All but the last number, and a word behind it such as _leftImg8bit."""
_FEWEST = 3  # frames that make a sequence
_RELATED = 0.2  # how much more alike neighbours are than images drawn by chance: 0.5 in CamVid, 0 in scenes
_SAME_LIGHT = 0.5  # how far apart neighbours are in brightness, as a share of what images by chance are
_PAIRS = 500  # of neighbours that are compared; more tell nothing new
_STEPS = range(1, 40)  # how far apart the images lie that are compared by chance
_FEWEST_PAIRS = 8  # below, chance decides


@dataclass(frozen=True)
class Sequences:
    """The groups that names form."""

    pattern: str
    """The regular expression, whose first parenthesis names the group."""
    groups: Mapping[str, Sequence[Case]]
    """Group -> its cases in the order of their names."""

    def apart(self, chart: Chart) -> dict[str, Sequence[Case]]:
        """Return the groups that lie in more than one split."""
        return {
            group: cases for group, cases in self.groups.items() if len({case.split for case in cases}) > 1
        }


def sequences(chart: Chart) -> Sequences | None:
    """Return the sequences of a data set: by the "groups" of dataset.json, else by names whose images agree."""
    given = chart.about.groups if chart.about is not None else None
    given = given if given and _is_quick(given) else None
    cases = [case for case in chart.cases if case.image is not None and case.split]
    cases = cases or [case for case in chart.cases if case.image is not None]
    found = group(cases, given or PATTERN)
    if found is None or (given is None and not _are_related(found.groups)):
        return None
    return found


def group(cases: Sequence[Case], pattern: str) -> Sequences | None:
    """Return the groups of the cases whose names a pattern fits; None where it tells nothing apart."""
    try:
        compiled = re.compile(pattern)
    except re.error:
        return None
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if (found := compiled.search(case.name)) is not None:
            groups[(found[1] if compiled.groups else found[0]) or ""].append(case)
    if not groups:
        return None
    if len(groups) < 2 or max(map(len, groups.values())) < _FEWEST:
        return None
    ordered = {name: sorted(group, key=lambda case: _number(case.name)) for name, group in groups.items()}
    return Sequences(pattern, ordered)


def _is_quick(pattern: str) -> bool:
    """True for a pattern whose search ends soon whatever the name: one from a stranger's file may be made to hang.

    No group is repeated, and there are at most three repetitions without end.
    """
    return re.search(r"\)[*+{]", pattern) is None and len(re.findall(r"(?<!\\)[*+}]", pattern)) <= 3


def _are_related(groups: Mapping[str, Sequence[Case]]) -> bool:
    """True when neighbours of a group look more alike than images drawn by chance, in their drawing or their light."""
    pairs = [
        (one, other)
        for group in groups.values()
        for one, other in itertools.pairwise(group)
        if one.seen.drawing and other.seen.drawing and one.seen.content != other.seen.content
    ]
    if len(pairs) < _FEWEST_PAIRS:
        return False
    pairs = pairs[:: max(1, len(pairs) // _PAIRS)]
    ours = [one for one, _ in pairs]
    theirs = [other for _, other in pairs]
    half = max(1, len(pairs) // 2)
    by_chance = correlations(ours, theirs[half:] + theirs[:half])
    if float(np.median(correlations(ours, theirs)) - np.median(by_chance)) > _RELATED:
        return True
    ours_light, theirs_light = _lights(ours), _lights(theirs)
    near = np.abs(ours_light - theirs_light).sum(axis=1)
    apart = [np.roll(ours_light, step, axis=0) for step in _STEPS if step < len(ours)]
    far = np.concatenate([np.abs(ours_light - others).sum(axis=1) for others in apart])
    return float(np.median(near)) < _SAME_LIGHT * float(np.median(far))


def _lights(cases: Sequence[Case]) -> NDArray[np.float64]:
    """Mean and mean square of the first channel (N, 2): the brightness of images and its contrast."""
    return np.array([(case.seen.mean[0], case.seen.square[0]) for case in cases])


def _number(name: str) -> tuple[str, int]:
    """The name up to its last number, and that."""
    found = re.search(r"^(.*?)(\d+)\D*$", name)
    return (found[1], int(found[2])) if found else (name, 0)
