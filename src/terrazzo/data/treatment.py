"""What the repair will do: from the facts of an examination and what was asked for, a plan for every file of the copy.

No file is read or written here. The order is fixed: what is left out, what ids mean, what becomes of single masks,
 which side a pair is on.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Classes, Color, Remap, ignore_value
from terrazzo.data import alignment, label_space, likeness, mask_changes, redivision, symptoms
from terrazzo.data.chart import Case, Chart
from terrazzo.data.description import Description
from terrazzo.data.findings.finding import same_names
from terrazzo.data.remedies import Remedies
from terrazzo.errors import DatasetFormatError, MaskValueError, UsageError

MOST_NAMED = 10  # files that an action names; the rest are counted
Change = Callable[[NDArray[Any], Case], NDArray[Any]]


@dataclass
class Plan:
    """What becomes of a data set."""

    kept: list[Case]
    """The pairs of the copy."""
    changes: dict[int, list[Change]] = field(default_factory=dict)
    """By id() of the case: what is done to its mask, in this order; what makes ids out of three channels is first."""
    about: Description | None = None
    """The description of the copy."""
    sides: dict[int, str] = field(default_factory=dict)
    """By id() of the case: its split in the copy, where train and val are divided anew."""
    new_names: dict[int, str] = field(default_factory=dict)
    """By id() of the case: its name in the copy, where two that change sides have the same."""
    actions: list[str] = field(default_factory=list)
    """What is done, a sentence each."""
    left_out: list[str] = field(default_factory=list)
    """Files that the copy does not hold."""

    def drop(self, cases: Iterable[Case], why: str, *, extra: Sequence[str] = ()) -> None:
        """Leave pairs out, and say why."""
        gone = {id(case) for case in cases}
        files = [
            item.where for case in self.kept if id(case) in gone for item in (case.image, case.mask) if item
        ]
        files += [path for path in extra if path not in files]
        self.kept = [case for case in self.kept if id(case) not in gone]
        self.left_out += files
        self._say(f"{{}} left out: {why}", files, "file", "files")

    def change(self, cases: Iterable[Case], what: str, change: Change, *, first: bool = False) -> None:
        """Let a mask be changed, and say so."""
        changed = [case for case in cases if case.mask is not None]
        for case in changed:
            changes = self.changes.setdefault(id(case), [])
            changes.insert(0 if first else len(changes), change)
        self._say(f"{{}} {what}", [case.mask.where for case in changed if case.mask], "mask", "masks")

    def _say(self, sentence: str, files: Sequence[str], one: str, more: str) -> None:
        counted = f"{len(files):,} {one if len(files) == 1 else more}"
        named = ", ".join(files[:MOST_NAMED]) + (", …" if len(files) > MOST_NAMED else "")
        self.actions.append(sentence.format(counted) + (f": {named}." if files else "."))


def make_plan(chart: Chart, asked: Remedies) -> Plan:
    """Return what becomes of an examined data set; UsageError where nothing would be left of it.

    Raises MaskValueError where colours are no class's and nothing was asked for them, DatasetFormatError where a remedy
    needs names of classes that are not there.
    """
    plan = Plan(list(chart.cases), about=chart.about)
    _plan_drops(plan, chart, asked)
    if asked.binary:
        _plan_binary(plan, chart)
    if asked.shift:
        _plan_shift(plan, chart)
    if asked.ignore_ids:
        about = _need_description(plan, "--ignore-ids")
        table = {**symptoms.table_of(about), **dict.fromkeys(asked.ignore_ids)}
        plan.about = replace(about, remap=Remap(table, len(about.classes)))
        shown = ", ".join(map(str, asked.ignore_ids))
        plan.actions.append(f"Raw ids {shown} are ignored, by the table in dataset.json.")
    if asked.merge:
        _plan_merge(plan, asked.merge)
    if asked.drop_absent:
        _plan_absent(plan, chart)
    _plan_masks(plan, chart, asked)
    if asked.remap:
        _plan_remap(plan, asked)
    _plan_places(plan, chart, asked)
    if asked.resplit:
        sides, actions = redivision.redivide(plan.kept, chart, asked.groups)
        plan.sides = {id(case): side for case, side in zip(plan.kept, sides, strict=True)}
        places = [(side, case.name) for case, side in zip(plan.kept, sides, strict=True)]
        shared = Counter(places)
        for case, place in zip(plan.kept, places, strict=True):
            if shared[place] > 1:
                plan.new_names[id(case)] = f"{case.name}-{case.split}"
        plan.actions += actions
        if plan.about is not None and asked.groups and _fits_all(asked.groups, plan.kept):
            plan.about = replace(plan.about, groups=asked.groups)
    elif asked.groups:
        raise UsageError("--groups says how --resplit divides, and --resplit was not asked for.")
    return plan


def _fits_all(pattern: str, cases: Sequence[Case]) -> bool:
    """True when a pattern fits every name, as "groups" in dataset.json has to."""
    return all(re.search(pattern, case.name) for case in cases)


def _plan_masks(plan: Plan, chart: Chart, asked: Remedies) -> None:
    """What ids single masks hold; those of colours are of the copy's description, so it is settled before."""
    labels, cases = symptoms.labels, plan.kept
    if asked.unpack:
        factors = {id(c): by for c in cases if (by := symptoms.packing_of(c, chart)) is not None}
        plan.change(
            [c for c in cases if id(c) in factors],
            "written with the class of each packed id",
            lambda mask, case: mask_changes.unpacked(mask, factors[id(case)]),
        )
    if asked.grey:
        plan.change(
            [c for c in cases if labels(c).is_grey],
            "reduced to one of three equal channels",
            lambda mask, case: mask_changes.first_channel(mask),
            first=True,
        )
    in_palette = {id(c) for c in symptoms.with_palette_in_colors(chart)} if asked.palette else set()
    looked_up = [c for c in cases if id(c) in in_palette]
    if asked.palette:
        table = symptoms.palette_table(chart)
        plan.change(
            looked_up,
            "turned from the colours of a palette into its ids",
            lambda mask, case: mask_changes.ids_of_colors(mask, table, IGNORE_8BIT),
            first=True,
        )
    if asked.colors:
        told = {id(c) for c in looked_up}
        drawn = [c for c in cases if labels(c).colors and not labels(c).is_grey and id(c) not in told]
        change = _ids_of_colors(chart, plan.about, drawn, asked)
        plan.change(drawn, "turned from colours into ids", change, first=True)
    if asked.eight_bit:
        deep = [c for c in cases if symptoms.is_needlessly_deep(c)]
        plan.change(deep, "written with 8 bits", lambda mask, case: mask_changes.eight_bit(mask))


def _plan_remap(plan: Plan, asked: Remedies) -> None:
    """Ids written as others: those of a split as it is told for it, the rest as it is told for all."""

    def moves_of(case: Case) -> dict[int, int]:
        everywhere = {move.raw: move.new for move in asked.remap if move.split is None}
        return everywhere | {move.raw: move.new for move in asked.remap if move.split == case.split}

    there = {case.split for case in plan.kept}
    strange = sorted({move.split for move in asked.remap if move.split is not None} - there)
    if strange:
        raise UsageError(
            f"There is no split {strange[0]!r} whose ids could be written anew.",
            expected=", ".join(sorted(one for one in there if one)) or "ids alone: there are no splits",
        )
    cases = [c for c in plan.kept if not symptoms.labels(c).ids.keys().isdisjoint(moves_of(c))]
    shown = ", ".join(f"{f'{one.split}/' if one.split else ''}{one.raw} as {one.new}" for one in asked.remap)
    plan.change(
        cases,
        f"written with other ids, {shown}",
        lambda mask, case: mask_changes.moved_ids(mask, moves_of(case)),
    )


def _plan_places(plan: Plan, chart: Chart, asked: Remedies) -> None:
    """Where labels lie; after what they mean."""
    cases = plan.kept
    if asked.exif or asked.exif_all:
        states = {state for state, wanted in (("turned", asked.exif), ("unsure", asked.exif_all)) if wanted}
        turned = [c for c in cases if symptoms.exif_state(c) in states]
        plan.change(
            turned,
            "turned like their images",
            lambda mask, case: alignment.upright(mask, case.seen.orientation),
        )
    if asked.turn:
        plan.change(
            [c for c in cases if symptoms.turn_of(c) != 1],
            "turned or mirrored as their images lie",
            lambda mask, case: alignment.upright(mask, symptoms.turn_of(case)),
        )
    if asked.align:
        ignore = _ignored_id(plan)
        ways = {id(c): way for c in cases if (way := symptoms.shift_of(c, chart)) is not None}
        plan.change(
            [c for c in cases if id(c) in ways],
            "moved to where the image fits",
            lambda mask, case: mask_changes.moved(mask, ways[id(case)], ignore),
        )
    if asked.unblend:
        known = (
            set(symptoms.table_of(plan.about)) if plan.about is not None else symptoms.all_ids(chart).keys()
        )
        own = symptoms.color_table(chart)
        mixed = [c for c in cases if symptoms.is_blended(c)]
        mixed += [c for c in cases if asked.colors and symptoms.has_blended_colors(c, own)]
        plan.change(
            mixed,
            "freed of mixed ids along borders",
            lambda mask, case: mask_changes.unblended(mask, known),
        )
    if asked.drop_specks:
        classes = {raw for raw, class_id in (symptoms.raw_table(chart) or {}).items() if class_id is not None}
        speckled = [c for c in cases if not classes.isdisjoint(symptoms.labels(c).specks)]
        plan.change(
            speckled, "freed of specks", lambda mask, case: mask_changes.without_specks(mask, classes)
        )
    if asked.fill_frame:
        frames = {
            id(c): frame for c in cases if symptoms.frame_of(c, chart) and (frame := symptoms.labels(c).frame)
        }
        plan.change(
            [c for c in cases if id(c) in frames],
            "labelled out to the rim",
            lambda mask, case: mask_changes.without_frame(mask, frames[id(case)]),
        )


def _ignored_id(plan: Plan) -> int:
    """A raw id that the copy's table ignores; one is added to it where there is none."""
    if plan.about is None:
        return IGNORE_8BIT
    table = symptoms.table_of(plan.about)
    ignored = sorted((raw for raw, class_id in table.items() if class_id is None), reverse=True)
    if ignored:
        return ignored[0]
    free = next(raw for raw in range(ignore_value(len(plan.about.classes)), -1, -1) if raw not in table)
    plan.about = replace(plan.about, remap=Remap({**table, free: None}, len(plan.about.classes)))
    return free


def _plan_drops(plan: Plan, chart: Chart, asked: Remedies) -> None:
    if asked.drop_unpaired:
        may_lack = {"test"} - {case.split for case in chart.cases if case.mask is not None}
        unpaired = [c for c in plan.kept if c.image is None or (c.mask is None and c.split not in may_lack)]
        twice = set(same_names(chart))
        unpaired += [c for c in plan.kept if any(item and item.where in twice for item in (c.image, c.mask))]
        plan.drop(unpaired, "they have no partner, or more than one", extra=sorted(twice))
    if asked.drop_unlisted:
        unlisted = [c for c in plan.kept if chart.by_lists and not c.split]
        plan.drop(unlisted, "dataset.json lists them in no split")
    if asked.drop_unreadable:
        plan.drop([c for c in plan.kept if symptoms.is_broken(c)], "one of the pair cannot be used")
    if asked.drop_other_forms:
        form = symptoms.main_form(chart)
        odd = [c for c in plan.kept if symptoms.has_other_form(c, form)]
        plan.drop(odd, f"the image is not {form[0]} channels of {form[1]}")
    if asked.drop_mismatched:
        plan.drop([c for c in plan.kept if symptoms.has_other_size(c)], "image and mask differ in size")
    if asked.drop_duplicates:
        leaks, repeats = symptoms.same_images(chart)
        again = [case for group in leaks + repeats for case in group[1:]]
        plan.drop(again, "the same image is kept elsewhere")
    if asked.drop_contradictions:
        doubted = [case for group in symptoms.contradictions(chart) for case in group]
        plan.drop(doubted, "the same image has different masks")
    if asked.drop_near_duplicates:
        plan.drop(
            [case for _, case in likeness.near_duplicates(chart)],
            "another split has an image that looks alike",
        )
    if asked.drop_empty:
        plan.drop([c for c in plan.kept if symptoms.is_empty(c, chart)], "the mask is ignored everywhere")
    if asked.drop_constant:
        plan.drop(
            [c for c in plan.kept if symptoms.is_constant(c, chart)], "the mask shows one class everywhere"
        )
    if not plan.kept:
        raise UsageError(
            f"Nothing would be left of {chart.source}.",
            found=f"{len(chart.cases)} pairs, all to be left out",
            hint="Ask for less, or bring the files back.",
        )


def _plan_binary(plan: Plan, chart: Chart) -> None:
    if not symptoms.is_binary(chart):
        plan.actions.append("0 masks changed from 255 to 1: they do not hold 0 and 255 alone.")
        return
    holding = [c for c in plan.kept if IGNORE_8BIT in symptoms.labels(c).ids]
    moves = {IGNORE_8BIT: 1}
    plan.change(holding, "written with id 1 for 255", lambda mask, case: mask_changes.moved_ids(mask, moves))
    about = plan.about
    if (
        about is not None
        and len(about.classes) == 1
        and not {"background", "other"} & set(about.classes.names)
    ):
        black = (0, 0, 0)
        classes = Classes(("background", *about.classes.names), (black, *about.classes.colors))
        plan.about = replace(about, classes=classes, remap=None)
        plan.actions.append(f'Id 0 is named "background", id 1 {about.classes.names[0]!r}.')


def _plan_shift(plan: Plan, chart: Chart) -> None:
    about = _need_description(plan, "--shift")
    if not symptoms.is_shifted(chart):
        plan.actions.append("The table was not changed: the ids are not shifted by one.")
        return
    count = len(about.classes)
    table: dict[int, int | None] = {raw: raw - 1 for raw in range(1, count + 1)}
    table.update({0: None, ignore_value(count): None})
    plan.about = replace(about, remap=Remap(table, count), raw_names={})
    plan.actions.append(
        f"Id 0 is ignored and ids 1-{count} are classes 0-{count - 1}, by the table in dataset.json: "
        f"1 is {about.classes.names[0]!r}, {count} is {about.classes.names[-1]!r}."
    )


def _plan_merge(plan: Plan, rules: Sequence[str]) -> None:
    about = _need_description(plan, "--merge")
    table = Remap(symptoms.table_of(about), len(about.classes))
    merged = label_space.merge(label_space.LabelSpace(about.classes, table, about.raw_names), rules)
    plan.about = replace(about, classes=merged.classes, remap=merged.remap)
    plan.actions.append(f"{merged.notes[-1]} The table in dataset.json says so; the masks stay as they are.")


def _plan_absent(plan: Plan, chart: Chart) -> None:
    about = _need_description(plan, "--drop-absent")
    if chart.space is None:
        return
    scored = chart.space.classes.names
    there = {scored[i] for case in chart.cases for i in symptoms.occurring(case, chart)}
    gone = [i for i, name in enumerate(about.classes.names) if name in scored and name not in there]
    kept = [i for i in range(len(about.classes)) if i not in gone]
    if not gone or not kept:
        plan.actions.append("0 classes taken off the list.")
        return
    names, colors = about.classes.names, about.classes.colors
    moved = {old: new for new, old in enumerate(kept)}
    table = {raw: None if old is None else moved.get(old) for raw, old in symptoms.table_of(about).items()}
    classes = Classes(tuple(names[i] for i in kept), tuple(colors[i] for i in kept))
    plan.about = replace(about, classes=classes, remap=Remap(table, len(classes)))
    shown = ", ".join(names[i] for i in gone)
    plan.actions.append(f"{len(gone)} class{'es' if len(gone) > 1 else ''} taken off the list: {shown}.")


def _need_description(plan: Plan, flag: str) -> Description:
    if plan.about is None:
        raise DatasetFormatError(
            f"{flag} needs the names of the classes.",
            expected="dataset.json, or classes.txt with one name per line",
            hint="The doctor says which ids there are.",
        )
    return plan.about


def _ids_of_colors(chart: Chart, about: Description | None, cases: Sequence[Case], asked: Remedies) -> Change:
    """What turns the classes' colours into ids; MaskValueError where others occur and nothing was said of them."""
    known = symptoms.colors_of(about) if about is not None and chart.has_colors else {}
    found: dict[Color, int] = {}
    for case in cases:
        for color, pixels in symptoms.labels(case).colors.items():
            found[color] = found.get(color, 0) + pixels
    strange = sorted(set(found) - set(known), key=lambda color: -found[color])
    if cases and (not known or (strange and not (asked.ignore_unknown_colors or asked.unblend))):
        raise MaskValueError(
            f"{len(strange)} colours in the masks of {chart.source} are no class's.",
            found=", ".join(f"{list(color)} ({found[color]:,} pixels)" for color in strange[:12]),
            expected="the colour of a class in dataset.json"
            + (
                ": " + ", ".join(f"{list(color)}" for color in list(known)[:12])
                if known
                else ", which gives none"
            ),
            hint='Give classes their colours there, as in {"name": "road", "color": [128, 64, 128]}; or, where these '
            "colours mean 'not labelled', add --ignore-unknown-colors.",
        )
    ignore = ignore_value(len(about.classes)) if about is not None else IGNORE_8BIT
    other = ignore
    if about is not None and asked.unblend and not asked.ignore_unknown_colors:  # an id that is in no table
        table = symptoms.table_of(about)
        other = next(raw for raw in range(IGNORE_16BIT) if raw not in table)
    return lambda mask, case: mask_changes.ids_of_colors(mask, known, other)
