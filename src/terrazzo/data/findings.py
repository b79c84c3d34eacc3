"""What may be wrong in a data set: one check per function, yielding findings in words and the command that mends each.

Errors are what would make scores or labels false, or what `open_dataset` refuses; warnings are what may be meant. A
finding never hides another: where one cause explains several facts (binary masks, ids shifted by one), the cause is
told and not its consequences.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT
from terrazzo.data import symptoms
from terrazzo.data.examination import Case, Chart, Color
from terrazzo.errors import MaskValueError, TerrazzoError

MOST_FILES = 5  # named per finding; the count says how many there are
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, wherever it occurs."""

    severity: Severity
    """error: scores or labels would be false; warning: it may be meant."""
    kind: str
    """A short name: unpaired, unreadable, size, range, shift, binary, colors, …"""
    what: str
    """A sentence."""
    files: tuple[str, ...] = ()
    """The first few it concerns, as paths in the data set."""
    count: int = 0
    """How many it concerns."""
    hint: str | None = None
    """Why, or what to decide."""
    command: str | None = None
    """What to type; None where only a person can tell."""


def find(chart: Chart) -> tuple[Finding, ...]:
    """Return everything that is wrong in an examined data set, errors first."""
    findings = [finding for look in _CHECKS for finding in look(chart)]
    return tuple(
        sorted(findings, key=lambda one: one.severity != "error")
    )  # stable: each in the order of the checks


# -- description, folders, files ---------------------------------------------------------------------------------------


def _layout(chart: Chart) -> Iterator[Finding]:
    for problem in chart.problems:
        what = problem.what + (f" Found: {problem.found.strip()}" if problem.found else "")
        hint = " ".join(
            part for part in (problem.expected and f"Expected: {problem.expected}.", problem.hint) if part
        )
        yield Finding("error", "description", what, hint=hint or None, command=problem.command, count=1)
    for split in chart.bare:
        cases = [case for case in chart.cases if case.split == split]
        where = chart.folders[split].masks_folder if split in chart.folders else chart.source
        yield Finding(
            "error",
            "no-masks",
            (f"The split {split!r} has " if split else "There are ")
            + f"{_some(len(cases), 'image', 'images')} and no mask.",
            *_named(_images(cases)),
            hint="Nothing can be learned or scored there; only a test split may be without masks. "
            f"Put them into {where}: PNG of class ids, each of its image's name and size.",
        )


def _names(chart: Chart) -> Iterator[Finding]:
    """Say which ids there are, where nothing says what they mean."""
    ids = sorted(symptoms.all_ids(chart))
    if chart.about is not None or chart.problems or not ids:
        return
    ignore = IGNORE_16BIT if any(i > IGNORE_8BIT for i in ids) else IGNORE_8BIT
    top = max((i for i in ids if i != ignore), default=0)
    place = Path(chart.source)
    names = (place if place.is_dir() else place.parent) / "classes.txt"
    lines = "".join(f"class{i}\\n" for i in range(top + 1)) if top < 30 else "class0\\nclass1\\n…\\n"
    yield Finding(
        "error",
        "no-names",
        f"Nothing says what the ids mean; the masks hold {_listed(ids)}.",
        count=len(ids),
        hint=f"Name them in {names}, one per line: the first line names id 0, the last id {top}. {ignore} is ignored "
        "and needs no name. For example:",
        command=f"printf '{lines}' > {shlex.quote(str(names))}",
    )


def _pairing(chart: Chart) -> Iterator[Finding]:
    command, hint = fix_command(chart, "--drop-unpaired"), chart.pairing_hint
    may_lack = {*chart.bare, "test"}
    labelled = {case.split for case in chart.cases if case.mask is not None}
    alone = [case for case in chart.cases if case.image is not None and case.mask is None]
    alone = [case for case in alone if case.split in labelled or case.split not in may_lack]
    if alone:
        what = f"{_some(len(alone), 'image has', 'images have')} no mask."
        advice = hint or "Label them, or leave them out of a copy:"
        yield Finding("error", "unpaired", what, *_named(_images(alone)), hint=advice, command=command)
    lonely = [case for case in chart.cases if case.image is None]
    if lonely:
        what = f"{_some(len(lonely), 'mask has', 'masks have')} no image."
        advice = hint or "Bring the images back, or leave the masks out of a copy:"
        yield Finding("error", "unpaired", what, *_named(_masks(lonely)), hint=advice, command=command)
    twice = same_names(chart)
    if twice:
        what = f"{len(twice)} files share their name with another but for the suffix."
        advice = "Which image belongs to which mask cannot be told. Rename them, or leave all of them out of a copy:"
        yield Finding("error", "same-name", what, *_named(twice), hint=advice, command=command)
    if chart.missing:
        what = (
            f"dataset.json lists {_some(len(chart.missing), 'image that is', 'images that are')} not there."
        )
        advice = "Bring them back, or take them off the lists in a copy:"
        yield Finding("error", "missing", what, *_named(chart.missing), hint=advice, command=command)
    unlisted = [case for case in chart.cases if chart.by_lists and not case.split]
    if unlisted:
        what = (
            f"{_some(len(unlisted), 'image is', 'images are')} in none of the splits that dataset.json lists."
        )
        advice = "They are not used. List them, or leave them out of a copy:"
        yield Finding("warning", "unlisted", what, *_named(_images(unlisted)), hint=advice,
                      command=fix_command(chart, "--drop-unlisted"))  # fmt: skip


def _unreadable(chart: Chart) -> Iterator[Finding]:
    broken: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for case in chart.cases:
        for item, problem in ((case.image, case.seen.problem), (case.mask, symptoms.labels(case).problem)):
            if item is not None and problem is not None:
                reason = _reason(item.where, problem)
                broken[re.sub(r"\d+", "0", reason)].append((item.where, reason))
    for found in broken.values():
        yield Finding(
            "error",
            "unreadable",
            f"{_some(len(found), 'file', 'files')} cannot be used: {found[0][1]}",
            *_named([where for where, _ in found]),
            hint="Restore them, or leave them out of a copy, with their partners:",
            command=fix_command(chart, "--drop-unreadable"),
        )


def _forms(chart: Chart) -> Iterator[Finding]:
    form = symptoms.main_form(chart)
    odd = [case for case in chart.cases if symptoms.has_other_form(case, form)]
    if odd:
        seen = odd[0].seen
        yield Finding(
            "error",
            "form",
            f"{_some(len(odd), 'image is', 'images are')} not of the data set's form, {form[0]} channels of {form[1]}: "
            f"the first has {seen.channels} of {seen.dtype}.",
            *_named(_images(odd)),
            hint="Convert them, or declare their form in dataset.json if they are right, or leave them out of a copy:",
            command=fix_command(chart, "--drop-other-forms"),
        )


def _sizes(chart: Chart) -> Iterator[Finding]:
    by_state: dict[str, list[Case]] = defaultdict(list)
    for case in chart.cases:
        by_state[symptoms.exif_state(case)].append(case)
    if turned := by_state["turned"]:
        yield Finding(
            "error",
            "exif",
            f"{_some(len(turned), 'mask lies', 'masks lie')} as the image is stored, not as it is shown: "
            "EXIF turns the image and not the mask.",
            *_named(_masks(turned)),
            hint="Every label would be in a wrong place. To turn the masks like their images, in a copy:",
            command=fix_command(chart, "--exif"),
        )
    if unsure := by_state["unsure"]:
        yield Finding(
            "warning",
            "exif-unsure",
            f"{_some(len(unsure), 'image is', 'images are')} turned or mirrored by EXIF and the mask is not; "
            "the sizes do not tell which is right.",
            *_named(_images(unsure)),
            hint="Look at them. If the masks were drawn on the image as stored, turn them too, in a copy:",
            command=fix_command(chart, "--exif-all"),
        )
    other = [case for case in chart.cases if symptoms.has_other_size(case)]
    if other:
        mask, image = symptoms.labels(other[0]).size_hw, other[0].seen.size_hw
        yield Finding(
            "error",
            "size",
            f"{_some(len(other), 'mask has', 'masks have')} another size than the image: the first is "
            f"{mask[0]}x{mask[1]} on {image[0]}x{image[1]} (height x width).",
            *_named(_masks(other)),
            hint="Labels and pixels do not meet. Export these masks at full size, or leave the pairs out of a copy:",
            command=fix_command(chart, "--drop-mismatched"),
        )


# -- ids ---------------------------------------------------------------------------------------------------------------


def _colors(chart: Chart) -> Iterator[Finding]:
    grey = [case for case in chart.cases if symptoms.labels(case).is_grey]
    if grey:
        what = f"{_some(len(grey), 'mask holds', 'masks hold')} ids saved as grey RGB: three equal channels."
        advice = "Ids have one channel. To keep one, in a copy:"
        yield Finding(
            "error", "grey", what, *_named(_masks(grey)), hint=advice, command=fix_command(chart, "--grey")
        )
    drawn = [
        case for case in chart.cases if symptoms.labels(case).colors and not symptoms.labels(case).is_grey
    ]
    if not drawn:
        return
    found: dict[Color, int] = defaultdict(int)
    for case in drawn:
        for color, pixels in symptoms.labels(case).colors.items():
            found[color] += pixels
    known = symptoms.color_table(chart)
    strange = sorted((color for color in found if color not in known), key=lambda color: -found[color])
    shown = ", ".join(f"{list(color)} ({found[color]:,} pixels)" for color in strange[:6])
    shown += ", …" if len(strange) > 6 else ""
    what, flags = f"{_some(len(drawn), 'mask holds', 'masks hold')} colours, not ids.", ["--colors"]
    if not strange:
        hint = "Each colour is a class's. To turn them into ids, in a copy:"
    elif len(strange) < len(found):
        flags.append("--ignore-unknown-colors")
        hint = f"No class has {shown}. To turn colours into ids and these into ignore, in a copy:"
    else:
        hint = (
            f"No class has one of their {len(found)} colours: {shown}. Give every class its colour in dataset.json, "
            'as in {"name": "road", "color": [128, 64, 128]}. Then, in a copy:'
        )
    command = fix_command(chart, *flags)
    yield Finding("error", "colors", what, *_named(_masks(drawn)), hint=hint, command=command)


def _values(chart: Chart) -> Iterator[Finding]:
    """Binary masks, ids shifted by one, or ids that are in no table: the one that explains what is there."""
    ids = symptoms.all_ids(chart)
    total = sum(ids.values())
    if symptoms.is_binary(chart):
        one_class = chart.about is not None and len(chart.about.classes) == 1
        yield Finding(
            "error",
            "binary",
            f"The masks are binary, 0 and 255, and 255 means ignore: {ids[IGNORE_8BIT] / total:.1%} of the pixels "
            "would be neither trained nor scored.",
            *_named(_masks(_with(chart, [IGNORE_8BIT]))),
            hint="To write 255 as id 1"
            + (', with "background" as the name of id 0,' if one_class else "")
            + " in a copy:",
            command=fix_command(chart, "--binary"),
        )
        return
    if chart.about is None:
        return
    count = len(chart.about.classes)
    if symptoms.is_shifted(chart):
        zero = f"id 0 ({ids[0] / total:.1%} of the pixels)" if 0 in ids else "id 0, which never occurs,"
        yield Finding(
            "error",
            "shift",
            f"The ids are shifted by one: they reach {count}, and the {count} classes are 0-{count - 1}.",
            *_named(_masks(_with(chart, [count]))),
            hint=f"If {zero} means 'not labelled', a table in dataset.json makes it ignore and moves the others down; "
            "the masks stay as they are. If a class is missing in the list of names, add it instead. In a copy:",
            command=fix_command(chart, "--shift"),
        )
        return
    table = symptoms.file_table(chart)
    strange = sorted(i for i in ids if i not in table and not symptoms.is_wide_ignore(chart, i))
    if strange:
        shown = ", ".join(f"{i} ({ids[i]:,} pixels)" for i in strange[:8]) + (
            ", …" if len(strange) > 8 else ""
        )
        yield Finding(
            "error",
            "range",
            f"{_some(len(strange), 'id is', 'ids are')} not in the data set's table: {shown}; "
            f"it has {_listed(sorted(table))}.",
            *_named(_masks(_with(chart, strange))),
            hint="If they are classes, name them. If they mean 'not labelled', let the table ignore them, in a copy:",
            command=fix_command(chart, "--ignore-ids", ",".join(map(str, strange))),
        )


def _depth(chart: Chart) -> Iterator[Finding]:
    """16-bit masks where 8 bits would do; 65535 is no ignore value there."""
    if chart.about is not None and len(chart.about.classes) > IGNORE_8BIT:
        return
    deep = [case for case in chart.cases if symptoms.is_needlessly_deep(case)]
    wide = [case for case in deep if IGNORE_16BIT in symptoms.labels(case).ids]
    wide = wide if symptoms.is_wide_ignore(chart, IGNORE_16BIT) else []  # a table may give 65535 a meaning
    told = {id(case) for case in wide}
    command = fix_command(chart, "--eight-bit")
    if wide:
        what = f"{_some(len(wide), 'mask has', 'masks have')} 16 bits and holds 65535, which is not in the table."
        advice = "255 is the ignore value of a data set of so few classes. To write 8 bits, 65535 as 255, in a copy:"
        yield Finding("error", "sixteen-bit", what, *_named(_masks(wide)), hint=advice, command=command)
    if len(deep) > len(wide):
        rest = [case for case in deep if id(case) not in told]
        what = f"{_some(len(rest), 'mask has', 'masks have')} 16 bits where 8 would do."
        advice = "It works, and costs time and disk. To write 8 bits, in a copy:"
        yield Finding("warning", "sixteen-bit", what, *_named(_masks(rest)), hint=advice, command=command)


def _empty(chart: Chart) -> Iterator[Finding]:
    empty = [case for case in chart.cases if symptoms.is_empty(case, chart)]
    if empty:
        what = f"{_some(len(empty), 'mask is', 'masks are')} ignored everywhere."
        advice = "Nothing is learned or scored there. To leave these pairs out of a copy:"
        yield Finding("warning", "empty", what, *_named(_masks(empty)), hint=advice,
                      command=fix_command(chart, "--drop-empty"))  # fmt: skip
    constant = [case for case in chart.cases if symptoms.is_constant(case, chart)]
    if constant:
        what = f"{_some(len(constant), 'mask shows', 'masks show')} one class everywhere."
        advice = "That may be so, or the labels were lost. To leave these pairs out of a copy:"
        yield Finding("warning", "constant", what, *_named(_masks(constant)), hint=advice,
                      command=fix_command(chart, "--drop-constant"))  # fmt: skip


def _absent(chart: Chart) -> Iterator[Finding]:
    """Classes that never occur, or only where nothing is learned."""
    occurring: dict[str, set[int]] = {}
    for case in chart.cases:
        if case.mask is not None and not symptoms.labels(case).problem:
            occurring.setdefault(case.split, set()).update(symptoms.occurring(case, chart))
    if chart.space is None or not occurring:
        return
    names = chart.space.classes.names
    absent = [name for i, name in enumerate(names) if not any(i in here for here in occurring.values())]
    if absent and len(absent) < len(names):
        what = f"{_some(len(absent), 'class never occurs', 'classes never occur')}: {_words(absent)}."
        advice = "Nobody can learn or score them: their IoU is n/a. To take them off the list of classes, in a copy:"
        yield Finding("warning", "absent", what, count=len(absent), hint=advice,
                      command=fix_command(chart, "--drop-absent"))  # fmt: skip
    for split, here in occurring.items():
        new = sorted(here - occurring.get("train", here))
        if new:
            what = f"{_some(len(new), 'class occurs', 'classes occur')} in {split} and never in train: "
            yield Finding("warning", "unseen", what + f"{_words([names[i] for i in new])}.", count=len(new),
                          hint="What is never shown is not learned. Label such images for train.")  # fmt: skip


def _duplicates(chart: Chart) -> Iterator[Finding]:
    leaks, repeats = symptoms.same_images(chart)
    command = fix_command(chart, "--drop-duplicates")
    if leaks:
        is_divided = len({case.split for group in leaks for case in group}) == 1
        where = (
            "more than once, and train and val are made of them" if is_divided else "in more than one split"
        )
        what = f"{_some(len(leaks), 'image is', 'images are')} {where}, pixel for pixel."
        advice = "Scores would be of images that were trained on. To keep one of each, where it is scored, in a copy:"
        files, _ = _named([item for group in leaks for item in _images(group)])
        yield Finding("error", "leak", what, files, len(leaks), hint=advice, command=command)
    if repeats:
        what = f"{_some(len(repeats), 'image occurs', 'images occur')} more than once in one split."
        advice = "It counts as often as it occurs. To keep the first of each, in a copy:"
        files, _ = _named([item for group in repeats for item in _images(group)])
        yield Finding("warning", "repeated", what, files, len(repeats), hint=advice, command=command)
    near = symptoms.near_duplicates(chart)
    if near:
        what = f"{_some(len(near), 'image of train looks', 'images of train look')} nearly like one of another split."
        advice = "Frames of one sequence, or copies saved again? Scores may flatter. To drop those of train, in a copy:"
        files, _ = _named([item for pair in near for item in _images(pair)])
        yield Finding("warning", "near-leak", what, files, len(near), hint=advice,
                      command=fix_command(chart, "--drop-near-duplicates"))  # fmt: skip


_CHECKS: tuple[Callable[[Chart], Iterable[Finding]], ...] = (
    _layout,
    _names,
    _pairing,
    _unreadable,
    _forms,
    _sizes,
    _colors,
    _values,
    _depth,
    _duplicates,
    _empty,
    _absent,
)


# -- words -------------------------------------------------------------------------------------------------------------


def fix_command(chart: Chart, *flags: str) -> str:
    """Return the command line that mends a data set with these flags; the copy lies beside it."""
    return shlex.join(["terrazzo", "fix", chart.source, *flags, "--out", copy_beside(chart.source)])


def copy_beside(source: str) -> str:
    """Return the path that is proposed for a mended copy."""
    return source.rstrip("/\\").removesuffix(".parquet") + "-fixed"


def same_names(chart: Chart) -> list[str]:
    """Return the files that share their name with another one but for the suffix, as paths in the data set."""
    root = chart.root or Path()
    return [str(Path(path).relative_to(root)) for one in chart.folders.values() for path in one.twice]


def _reason(where: str, problem: TerrazzoError) -> str:
    """Why a file cannot be used, without its name, so that files with the same trouble are told together."""
    told = problem.what if isinstance(problem, MaskValueError) or not problem.found else problem.found
    told = told.replace(f"The mask {where}", "it").replace(f"The image {where}", "it").replace(where, "it")
    return told.strip().splitlines()[0].rstrip(".") + "."


def _with(chart: Chart, ids: Sequence[int]) -> list[Case]:
    return [case for case in chart.cases if not symptoms.labels(case).ids.keys().isdisjoint(ids)]


def _images(cases: Iterable[Case]) -> list[str]:
    return [case.image.where for case in cases if case.image is not None]


def _masks(cases: Iterable[Case]) -> list[str]:
    return [case.mask.where for case in cases if case.mask is not None]


def _named(files: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """The first few and their count, as `Finding` takes them."""
    return tuple(files[:MOST_FILES]), len(files)


def _some(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _words(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def _listed(ids: Sequence[int]) -> str:
    """Ids as ranges: ids 0-18, 255."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    shown = [f"{low}-{high}" if high > low else str(low) for low, high in runs]
    return "ids " + ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "")
