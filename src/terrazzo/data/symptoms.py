"""Questions to the facts of an examination, asked by the findings (is it wrong?) and by the repair (mend this one?)."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Remap
from terrazzo.data import alignment
from terrazzo.data.chart import Case, Chart, Color, MaskFacts
from terrazzo.data.description import Description

_BLENDED = (
    0.12  # of its borders; CamVid's masks and drawn ones reach 0.03, smoothed or lossy ones begin at 0.19
)
_SALTED = (
    0.35  # of all pairs of neighbours; a mask of so many borders is noise, and nothing lies between areas
)
_PACKINGS = (
    257,
    256,
    1000,
)  # 8 bits stretched to 16, or moved up by 8; class * 1000 + instance, as Cityscapes has it


def all_ids(chart: Chart) -> dict[int, int]:
    """Return raw id -> pixels, over all masks."""
    total: dict[int, int] = defaultdict(int)
    for case in chart.cases:
        for raw, pixels in labels(case).ids.items():
            total[raw] += pixels
    return dict(total)


def all_specks(chart: Chart) -> dict[int, int]:
    """Return raw id -> pixels in areas of a few pixels, over all masks."""
    total: dict[int, int] = defaultdict(int)
    for case in chart.cases:
        for raw, pixels in labels(case).specks.items():
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
    table, mask = raw_table(chart) or {}, labels(case)
    colors = color_table(chart) if mask.colors else {}
    raws = {*mask.ids, *(colors[color] for color in mask.colors if color in colors and not mask.is_grey)}
    return {class_id for raw in raws if (class_id := table.get(raw)) is not None}


def is_binary(chart: Chart) -> bool:
    """True when all masks together hold 0 and 255 alone, and 255 is not a class."""
    table = raw_table(chart)
    return all_ids(chart).keys() == {0, IGNORE_8BIT} and (table is None or table.get(IGNORE_8BIT) is None)


def is_shifted(chart: Chart) -> bool:
    """True when ids that should be 0 … K-1 reach K and no further, and no table says what they mean.

    Where 0 occurs too, K has to occur in several masks and about as much as a class does: a lone or small area is a
    slip, not another way of counting.
    """
    about, ids = chart.about, all_ids(chart)
    if about is None or (about.remap is not None and not about.remap.is_identity):
        return False
    count, table = len(about.classes), file_table(chart)
    strange = [raw for raw in ids if raw not in table and not is_wide_ignore(chart, raw)]
    if strange != [count]:
        return False
    masks = [case for case in chart.cases if labels(case).ids]
    holding = sum(count in labels(case).ids for case in masks)
    others = sorted(pixels for raw, pixels in ids.items() if 0 < raw < count)
    is_class = bool(others) and ids[count] > 0.1 * others[len(others) // 2]
    return 0 not in ids or (is_class and holding > max(1, len(masks) // 200))


def ids_apart(chart: Chart) -> tuple[str, int] | None:
    """Return (split, step) where the ids of one split are those of train moved by a step, or None.

    That is so where a step of one makes the shares of the classes more alike, and both ends of the numbers are off by
    it and reach out of the table; or where they end at other numbers, and with the step half of the pixels agree, twice
    as many as without it.
    """
    counts: dict[str, dict[int, int]] = {}
    for case in chart.cases:
        for raw, pixels in labels(case).ids.items():
            here = counts.setdefault(case.split, {})
            here[raw] = here.get(raw, 0) + pixels
    of_train, table = counts.pop("train", {}), file_table(chart)

    def is_in_table(raws: tuple[int, int]) -> bool:
        return all(raw in table for raw in raws)

    for split, ids in counts.items():
        agree = {step: _overlap(of_train, ids, step) for step in (0, -1, 1)}
        step = max((-1, 1), key=lambda one: agree[one])
        ends, of_both = _ends(of_train), _ends(ids)
        if ends == of_both or len(of_train) < 3 or agree[step] <= agree[0]:
            continue
        is_off = ends == (of_both[0] + step, of_both[1] + step) and not is_in_table(of_both)
        if is_off or agree[step] > max(0.5, 2 * agree[0]):
            return split, step
    return None


def _overlap(ids: Mapping[int, int], others: Mapping[int, int], step: int) -> float:
    """How far the shares of ids agree with those of other ids to which a step is added, 0 to 1."""
    ids = {raw: pixels for raw, pixels in ids.items() if raw < IGNORE_8BIT}
    others = {raw + step: pixels for raw, pixels in others.items() if raw < IGNORE_8BIT}
    whole, other_whole = max(1, sum(ids.values())), max(1, sum(others.values()))
    return sum(min(pixels / whole, others.get(raw, 0) / other_whole) for raw, pixels in ids.items())


def _ends(ids: Mapping[int, int]) -> tuple[int, int]:
    low = [raw for raw in ids if raw < IGNORE_8BIT]
    return (min(low), max(low)) if low else (0, 0)


def lost_class(chart: Chart) -> int | None:
    """Return the raw id of the one class that never occurs, where 255, which means ignore, may stand for it; or None.

    That is so where 255 is as much of the pixels as a class is, and in most masks more than a rim or some specks.
    """
    table, ids = raw_table(chart), all_ids(chart)
    if table is None or chart.space is None or is_binary(chart) or IGNORE_8BIT not in ids:
        return None
    if table.get(IGNORE_8BIT, 0) is not None:
        return None
    there = {class_id for case in chart.cases for class_id in occurring(case, chart)}
    lost = [class_id for class_id in range(len(chart.space.classes)) if class_id not in there]
    if len(lost) != 1 or not there:
        return None
    share = ids[IGNORE_8BIT] / sum(ids.values())
    if share < 0.2 / len(chart.space.classes):
        return None
    return next((raw for raw, class_id in sorted(table.items()) if class_id == lost[0]), None)


def are_ids_doubted(chart: Chart) -> bool:
    """True where ids may mean something else than the table says, so that what they seem to lack tells nothing."""
    doubts = (
        is_binary(chart),
        is_shifted(chart),
        ids_apart(chart) is not None,
        lost_class(chart) is not None,
    )
    return any(doubts)


def is_wide_ignore(chart: Chart, raw: int) -> bool:
    """True for 65535 where it is in no table: somebody's ignore value for 16 bits."""
    return raw == IGNORE_16BIT and raw not in file_table(chart)


def exif_state(case: Case) -> Literal["same", "turned", "unsure"]:
    """Say how a mask lies on an image that EXIF turns: with it, as stored, or unsure, by size and borders."""
    mask = labels(case)
    if case.image is None or case.seen.problem or mask.size_hw == (0, 0):
        return "same"
    if case.seen.orientation in (1, mask.orientation):
        return "same"
    upright = case.seen.size_hw
    stored = upright[::-1] if case.seen.orientation >= 5 else upright
    if mask.size_hw == stored != upright:
        return "turned"
    if mask.size_hw != stored or (case.fit is not None and case.fit.is_in_place):
        return "same"
    return "turned" if case.turn == case.seen.orientation else "unsure"


def has_other_size(case: Case) -> bool:
    """True when image and mask do not have the same size, and EXIF does not explain it."""
    mask = labels(case)
    if case.image is None or case.seen.problem or mask.size_hw == (0, 0):
        return False
    return mask.size_hw != case.seen.size_hw and exif_state(case) == "same" and turn_of(case) == 1


def turn_of(case: Case) -> int:
    """Return the EXIF orientation that a mask needs to lie as its image does: 1 where it needs none.

    Where rows and columns have changed places and nothing tells in which way, 5, which changes them back.
    """
    mask, image = labels(case).size_hw, case.seen.size_hw
    if case.image is None or case.seen.problem or exif_state(case) != "same":
        return 1
    if case.turn != 1:
        return case.turn
    has_swapped_sides = mask == image[::-1] != image and case.seen.orientation == 1
    return 5 if has_swapped_sides else 1


def shift_of(case: Case, chart: Chart) -> tuple[int, int] | None:
    """Return (down, right): the pixels by which a mask has to move to lie on its image; None where it lies well."""
    fit, common = case.fit, chart.fits.get(case.split)
    if fit is None or case.turn != 1:
        return None
    if fit.is_shifted and common is not None and fit.height < alignment.LOWEST * common.height:
        return None
    if not fit.is_shifted:
        if common is None or not common.is_shifted or fit.is_in_place:
            return None
        fit = common  # what one pair does not tell, all together do
    return round(fit.dy), round(fit.dx)


def is_blended(case: Case) -> bool:
    """True when the ids along a mask's borders were mixed of those to both sides."""
    mask = labels(case)
    pairs = 2 * mask.size_hw[0] * mask.size_hw[1]
    if mask.between < 20 or mask.between_ids < 2 or mask.borders > _SALTED * pairs:
        return False
    return mask.between > _BLENDED * mask.borders


def has_blended_colors(case: Case, known: Mapping[Color, int]) -> bool:
    """True when a mask of colours holds many that no class has, and few pixels of each: mixed along borders."""
    mask = labels(case)
    strange = [pixels for color, pixels in mask.colors.items() if color not in known]
    few = 0.4 * sum(mask.colors.values())
    return not mask.is_grey and len(strange) >= max(16, len(known)) and sum(strange) < few


def packing_of(case: Case, chart: Chart) -> int | None:
    """Return by what the ids of a 16-bit mask have to be divided to be in the table, where they are not; else None."""
    table, mask = file_table(chart), labels(case)
    odd = [raw for raw in mask.ids if raw not in table and not is_wide_ignore(chart, raw)]
    if mask.dtype != "uint16" or not odd or max(odd) <= IGNORE_8BIT:
        return None
    for factor in _PACKINGS:
        is_whole = all(factor == 1000 or raw % factor == 0 for raw in odd)
        meant = {unpacked(raw, factor) for raw in mask.ids if not is_wide_ignore(chart, raw)}
        if is_whole and meant <= table.keys():
            return factor
    return None


def unpacked(raw: int, factor: int) -> int:
    """Return the class id in a packed id; what is below the factor is one already."""
    return raw // factor if raw >= factor else raw


def palette_table(chart: Chart) -> dict[Color, int]:
    """Return colour -> raw id as in the palette of most masks that have one, else in that of Pascal VOC."""
    kept = [mask.palette for case in chart.cases if (mask := labels(case)).palette and not mask.colors]
    palette = max(dict.fromkeys(kept), key=kept.count) if kept else voc_palette()
    colors = [(palette[i], palette[i + 1], palette[i + 2]) for i in range(0, len(palette) - 2, 3)]
    return {color: raw for raw, color in reversed(list(enumerate(colors)))}


def voc_palette() -> bytes:
    """Return the palette of Pascal VOC, which many tools took over: the bits of an id dealt to red, green and blue."""
    shades = []
    for raw in range(256):
        for channel in range(3):
            bits = [(raw >> (3 * place + channel) & 1) << (7 - place) for place in range(8)]
            shades.append(sum(bits) & 255)
    return bytes(shades)


def with_palette_in_colors(chart: Chart) -> list[Case]:
    """Return the cases whose masks hold the colours that a palette has for ids of the table, and no class has."""
    own, palette, table = color_table(chart), palette_table(chart), file_table(chart)
    meant = {color for color, raw in palette.items() if raw in table}
    drawn = [case for case in chart.cases if labels(case).colors and not labels(case).is_grey]
    return [
        case
        for case in drawn
        if not labels(case).colors.keys() <= own.keys() and labels(case).colors.keys() <= meant
    ]


def frame_of(case: Case, chart: Chart) -> int:
    """Return the width in pixels of an ignored frame around a mask, the same on all sides; 0 where there is none."""
    table, frame = raw_table(chart), labels(case).frame
    if table is None or frame is None or frame.raw not in table or table[frame.raw] is not None:
        return 0
    return frame.top if frame.top == frame.bottom == frame.left == frame.right else 0


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


def contradictions(chart: Chart) -> list[list[Case]]:
    """Return groups of images that are equal pixel for pixel and whose masks are not."""
    groups = [group for kind in same_images(chart) for group in kind]
    return [group for group in groups if len({labels(case).content for case in group} - {""}) > 1]


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
