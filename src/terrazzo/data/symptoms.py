"""Questions to the facts of an examination, asked by the findings (is it wrong?) and by the repair (mend this one?)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Remap
from terrazzo.data.description import Description
from terrazzo.data.examination import Case, Chart, Color, MaskFacts

NEAR = 10  # of 256 bits of looks; re-saved and re-scaled images differ by less, different views by far more


def all_ids(chart: Chart) -> dict[int, int]:
    """Return raw id -> pixels, over all masks."""
    total: dict[int, int] = defaultdict(int)
    for case in chart.cases:
        for raw, pixels in labels(case).ids.items():
            total[raw] += pixels
    return dict(total)


def labels(case: Case) -> MaskFacts:
    """Return the facts of a case's mask; those of nothing where there is none."""
    return case.labelled if case.labelled is not None else MaskFacts()


def raw_table(chart: Chart) -> Mapping[int, int | None] | None:
    """Return raw id -> class id or None (ignore), as the data set says; None where nothing says so."""
    return None if chart.space is None else chart.space.remap.to_class


def file_table(chart: Chart) -> dict[int, int | None]:
    """Return the table of the description itself, void names still among the classes."""
    return {} if chart.about is None else table_of(chart.about)


def table_of(about: Description) -> dict[int, int | None]:
    """Return raw id -> class id or None, as a description says."""
    return dict((about.remap or Remap.identity(len(about.classes))).to_class)


def colors_of(about: Description) -> dict[Color, int]:
    """Return colour -> the raw id of the class that has it."""
    raw_of = {class_id: raw for raw, class_id in sorted(table_of(about).items(), reverse=True)}
    return {color: raw_of[i] for i, color in enumerate(about.classes.colors) if i in raw_of}


def color_table(chart: Chart) -> dict[Color, int]:
    """Return colour -> raw id, for the classes' colours in the description; empty where it gives none."""
    return colors_of(chart.about) if chart.about is not None and chart.has_colors else {}


def occurring(case: Case, chart: Chart) -> set[int]:
    """Return the class ids that a mask shows, as ids or as colours."""
    table, colors, mask = raw_table(chart) or {}, color_table(chart), labels(case)
    raws = {*mask.ids, *(colors[color] for color in mask.colors if color in colors and not mask.is_grey)}
    return {class_id for raw in raws if (class_id := table.get(raw)) is not None}


def is_binary(chart: Chart) -> bool:
    """True when all masks together hold 0 and 255 alone, and 255 is not a class."""
    table = raw_table(chart)
    return all_ids(chart).keys() == {0, IGNORE_8BIT} and (table is None or table.get(IGNORE_8BIT) is None)


def is_shifted(chart: Chart) -> bool:
    """True when ids that should be 0 … K-1 reach K and no further, and no table says what they mean."""
    about = chart.about
    if about is None or (about.remap is not None and not about.remap.is_identity):
        return False
    count, table = len(about.classes), file_table(chart)
    strange = [raw for raw in all_ids(chart) if raw not in table and not is_wide_ignore(chart, raw)]
    return strange == [count]


def is_wide_ignore(chart: Chart, raw: int) -> bool:
    """True for 65535 where it is in no table: somebody's ignore value for 16 bits."""
    return raw == IGNORE_16BIT and raw not in file_table(chart)


def exif_state(case: Case) -> Literal["same", "turned", "unsure"]:
    """Say how a mask lies on an image that EXIF turns: with it, as stored, or either way by its size."""
    mask = labels(case)
    if case.image is None or case.seen.problem or mask.size_hw == (0, 0):
        return "same"
    if case.seen.orientation in (1, mask.orientation):
        return "same"
    upright = case.seen.size_hw
    stored = upright[::-1] if case.seen.orientation >= 5 else upright
    if mask.size_hw == stored != upright:
        return "turned"
    return "unsure" if mask.size_hw == stored else "same"


def has_other_size(case: Case) -> bool:
    """True when image and mask do not have the same size, and EXIF does not explain it."""
    mask = labels(case)
    if case.image is None or case.seen.problem or mask.size_hw == (0, 0):
        return False
    return mask.size_hw != case.seen.size_hw and exif_state(case) == "same"


def is_broken(case: Case) -> bool:
    """True when image or mask cannot be used."""
    return case.seen.problem is not None or labels(case).problem is not None


def main_form(chart: Chart) -> tuple[int, str]:
    """Return (channels, dtype) of the data set: as declared, else as most images."""
    forms = [(case.seen.channels, case.seen.dtype) for case in chart.cases if case.seen.channels]
    if not forms:
        return 0, ""
    channels, dtype = max(dict.fromkeys(forms), key=forms.count)
    about = chart.about
    if {c for c, _ in forms} == {1, 3}:
        channels = 3  # grey among RGB is shown as RGB
    return (about.channels if about else None) or channels, (about.dtype if about else None) or dtype


def has_other_form(case: Case, form: tuple[int, str]) -> bool:
    """True when an image is not of the data set's channels and dtype."""
    seen, (channels, dtype) = case.seen, form
    if not seen.channels:
        return False
    return seen.dtype != dtype or (seen.channels != channels and (seen.channels, channels) != (1, 3))


def is_needlessly_deep(case: Case) -> bool:
    """True for a mask of 16 bits whose ids, 65535 apart, fit 8."""
    mask = labels(case)
    if mask.dtype != "uint16" or not mask.ids:
        return False
    return max((raw for raw in mask.ids if raw != IGNORE_16BIT), default=0) <= IGNORE_8BIT


def is_empty(case: Case, chart: Chart) -> bool:
    """True when every pixel of the mask is ignored."""
    table, ids = raw_table(chart), labels(case).ids
    return table is not None and bool(ids) and all(raw in table and table[raw] is None for raw in ids)


def is_constant(case: Case, chart: Chart) -> bool:
    """True when a mask shows one class everywhere, in a data set of several."""
    table, ids = raw_table(chart), labels(case).ids
    if table is None or chart.space is None or len(ids) != 1 or len(chart.space.classes) == 1:
        return False
    return table.get(next(iter(ids))) is not None


def is_divided_later(chart: Chart, split: str) -> bool:
    """True for the split out of which train and val are made when the data set is opened."""
    return "val" not in chart.splits and split in ("", "train")


def same_images(chart: Chart) -> tuple[list[list[Case]], list[list[Case]]]:
    """Return groups of images that are equal pixel for pixel: those that reach two sides, and those within one.

    In each group the first is the one to keep: a split that scores comes before the one that trains.
    """
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in chart.cases:
        if case.image is not None and case.seen.content:
            groups[case.seen.content].append(case)
    order = {"test": 0, "val": 1, "train": 3}
    leaks: list[list[Case]] = []
    repeats: list[list[Case]] = []
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda case: order.get(case.split, 2))
            splits = {case.split for case in group}
            reaches_both = len(splits) > 1 or is_divided_later(chart, group[0].split)
            (leaks if reaches_both else repeats).append(group)
    return leaks, repeats


def near_duplicates(chart: Chart) -> list[tuple[Case, Case]]:
    """Return pairs of images, one that scores and one that trains, that look alike and are not equal."""
    trained = [case for case in chart.cases if case.seen.looks and case.split == "train"]
    scored = [case for case in chart.cases if case.seen.looks and case.split != "train"]
    if not trained or not scored:
        return []
    ours, theirs = _signs(trained), _signs(scored)
    found = []
    for start in range(0, len(trained), 1024):
        agree = ours[start : start + 1024] @ theirs.T  # bits that agree minus bits that do not
        nearest = agree.argmax(axis=1)
        for row in np.flatnonzero(agree.max(axis=1) >= ours.shape[1] - 2 * NEAR).tolist():
            one, other = trained[start + row], scored[int(nearest[row])]
            if one.seen.content != other.seen.content:
                found.append((other, one))
    return found


def _signs(cases: Sequence[Case]) -> NDArray[np.float32]:
    """The bits of looks (N, 256) as -1 and 1."""
    packed = np.frombuffer(b"".join(case.seen.looks for case in cases), dtype=np.uint8).reshape(
        len(cases), -1
    )
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
