"""Mend a data set, in a copy: `terrazzo fix`. Every action is asked for by its own word and said aloud; raw data stay.

The copy holds the images as they are, byte for byte, the masks that need no mending likewise, and the description. What
is left out is listed. A table becomes a data set in plain folders.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT, Classes, Color, Remap, ignore_value
from terrazzo.data import class_names, description, symptoms
from terrazzo.data.dataset import Dataset
from terrazzo.data.examination import Case, Chart, Item, examine
from terrazzo.data.findings import same_names
from terrazzo.errors import DatasetFormatError, MaskValueError, UsageError
from terrazzo.images import decode_image, decode_mask, write_image, write_mask
from terrazzo.storage import refuse_existing, replace_folder

MOST_NAMED = 10  # files that an action names; the rest are counted


@dataclass(frozen=True)
class Remedies:
    """What `fix` is asked to do; the flag of `terrazzo fix` is the field with dashes."""

    binary: bool = False
    """Write 255 as id 1 in binary masks (0 and 255)."""
    shift: bool = False
    """Let the table in dataset.json ignore id 0 and move the others down by one; masks stay as they are."""
    colors: bool = False
    """Turn masks of colours into ids, by the classes' colours in dataset.json."""
    ignore_unknown_colors: bool = False
    """With `colors`: colours that no class has become ignore."""
    grey: bool = False
    """Keep one channel of masks whose ids were saved as grey RGB."""
    eight_bit: bool = False
    """Write 16-bit masks with 8 bits where their ids allow it, 65535 as 255."""
    exif: bool = False
    """Turn masks like their images where EXIF turns the image alone and the sizes show it."""
    exif_all: bool = False
    """The same where the sizes do not show it (mirrored, upside down, square)."""
    ignore_ids: tuple[int, ...] = ()
    """Let the table in dataset.json ignore these raw ids."""
    drop_unpaired: bool = False
    """Leave out images without masks, masks without images, files of one name, and names that are not there."""
    drop_unlisted: bool = False
    """Leave out images that dataset.json lists in no split."""
    drop_unreadable: bool = False
    """Leave out pairs of which one cannot be used."""
    drop_other_forms: bool = False
    """Leave out pairs whose image has other channels or another dtype than the data set."""
    drop_mismatched: bool = False
    """Leave out pairs whose sizes differ."""
    drop_duplicates: bool = False
    """Keep one of images that are equal pixel for pixel, where it is scored."""
    drop_near_duplicates: bool = False
    """Leave images of train out that look nearly like one of another split."""
    drop_empty: bool = False
    """Leave out pairs whose mask is ignored everywhere."""
    drop_constant: bool = False
    """Leave out pairs whose mask shows one class everywhere."""
    drop_absent: bool = False
    """Take classes that never occur off the list of classes."""


@dataclass(frozen=True)
class Repair:
    """What was done."""

    folder: Path
    """The mended copy."""
    actions: tuple[str, ...]
    """What was done, a sentence each."""
    left_out: tuple[str, ...]
    """Every file of the data set that the copy does not hold."""

    def text(self) -> str:
        """Return the report for people."""
        lines = [f"Mended copy: {self.folder}", *(f"  {action}" for action in self.actions)]
        return "\n".join([*lines, "To see what is left:", f"  terrazzo check {self.folder}"])


def fix(
    source: Path | str | Dataset,
    out: Path | str,
    remedies: Remedies,
    *,
    workers: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> Repair:
    """Write a mended copy of the data set at `source` to `out`, whole or not at all, and return what was done.

    `source` is only read. Raises UsageError when nothing is asked for, ExistingOutputError when `out` holds something,
    MaskValueError when colours are no class's and `ignore_unknown_colors` was not asked for.
    """
    if remedies == Remedies():
        flags = " ".join("--" + one.name.replace("_", "-") for one in fields(Remedies))
        raise UsageError(
            "Nothing to mend was named.",
            expected=f"at least one of {flags}",
            hint="Each finding of the doctor names its own:",
            command=f"terrazzo check {source}",
        )
    out = Path(out)
    refuse_existing(out)
    chart = examine(source, workers=workers, progress=progress)
    if not chart.cases:
        raise chart.problems[0] if chart.problems else DatasetFormatError(f"{source} holds no images.")
    plan = _plan(chart, remedies)
    with replace_folder(out) as folder:
        for case in plan.kept:
            _copy(case, folder, plan, chart)
        _describe(folder, plan, chart)
    return Repair(out, tuple(plan.actions), tuple(plan.left_out))


# -- what will be done -------------------------------------------------------------------------------------------------

_Change = Callable[[NDArray[Any], Case], NDArray[Any]]


@dataclass
class _Plan:
    kept: list[Case]
    changes: dict[int, list[_Change]] = field(default_factory=dict)
    """By id() of the case: what is done to its mask, in this order; what makes ids out of three channels is first."""
    about: description.Description | None = None
    """The description of the copy."""
    actions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def drop(self, cases: Iterable[Case], why: str, *, extra: Sequence[str] = ()) -> None:
        gone = {id(case) for case in cases}
        files = [
            item.where for case in self.kept if id(case) in gone for item in (case.image, case.mask) if item
        ]
        files += [path for path in extra if path not in files]
        self.kept = [case for case in self.kept if id(case) not in gone]
        self.left_out += files
        self._say(f"{{}} left out: {why}", files, "file", "files")

    def change(self, cases: Iterable[Case], what: str, change: _Change, *, first: bool = False) -> None:
        changed = [case for case in cases if case.mask is not None]
        for case in changed:
            changes = self.changes.setdefault(id(case), [])
            changes.insert(0 if first else len(changes), change)
        self._say(f"{{}} {what}", [case.mask.where for case in changed if case.mask], "mask", "masks")

    def _say(self, sentence: str, files: Sequence[str], one: str, more: str) -> None:
        counted = f"{len(files):,} {one if len(files) == 1 else more}"
        named = ", ".join(files[:MOST_NAMED]) + (", …" if len(files) > MOST_NAMED else "")
        self.actions.append(sentence.format(counted) + (f": {named}." if files else "."))


def _plan(chart: Chart, asked: Remedies) -> _Plan:
    plan = _Plan(list(chart.cases), about=chart.about)
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
    if asked.drop_absent:
        _plan_absent(plan, chart)
    _plan_masks(plan, chart, asked)
    return plan


def _plan_masks(plan: _Plan, chart: Chart, asked: Remedies) -> None:
    """What is done to single masks; ids of colours are those of the copy's description, so it is settled before."""
    labels, cases = symptoms.labels, plan.kept
    if asked.grey:
        plan.change(
            [c for c in cases if labels(c).is_grey],
            "reduced to one of three equal channels",
            _first_channel,
            first=True,
        )
    if asked.colors:
        drawn = [c for c in cases if labels(c).colors and not labels(c).is_grey]
        change = _ids_of_colors(chart, plan.about, drawn, asked.ignore_unknown_colors)
        plan.change(drawn, "turned from colours into ids", change, first=True)
    if asked.exif or asked.exif_all:
        states = {state for state, wanted in (("turned", asked.exif), ("unsure", asked.exif_all)) if wanted}
        turned = [c for c in cases if symptoms.exif_state(c) in states]
        plan.change(
            turned, "turned like their images", lambda mask, case: upright(mask, case.seen.orientation)
        )
    if asked.eight_bit:
        deep = [c for c in cases if symptoms.is_needlessly_deep(c)]
        plan.change(deep, "written with 8 bits", _eight_bit)


def _plan_drops(plan: _Plan, chart: Chart, asked: Remedies) -> None:
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
    if asked.drop_near_duplicates:
        plan.drop(
            [case for _, case in symptoms.near_duplicates(chart)],
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


def _plan_binary(plan: _Plan, chart: Chart) -> None:
    if not symptoms.is_binary(chart):
        plan.actions.append("0 masks changed from 255 to 1: they do not hold 0 and 255 alone.")
        return
    holding = [c for c in plan.kept if IGNORE_8BIT in symptoms.labels(c).ids]
    plan.change(holding, "written with id 1 for 255", _one_for_255)
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


def _plan_shift(plan: _Plan, chart: Chart) -> None:
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


def _plan_absent(plan: _Plan, chart: Chart) -> None:
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


def _need_description(plan: _Plan, flag: str) -> description.Description:
    if plan.about is None:
        raise DatasetFormatError(
            f"{flag} needs the names of the classes.",
            expected="dataset.json, or classes.txt with one name per line",
            hint="The doctor says which ids there are.",
        )
    return plan.about


# -- what is done to a mask --------------------------------------------------------------------------------------------


def upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an array (H, W, …) turned as EXIF orientation 1-8 asks."""
    if orientation >= 5:  # rows and columns change places first
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def _first_channel(mask: NDArray[Any], case: Case) -> NDArray[Any]:
    return mask[..., 0] if mask.ndim == 3 else mask


def _eight_bit(mask: NDArray[Any], case: Case) -> NDArray[Any]:
    return np.where(mask == IGNORE_16BIT, IGNORE_8BIT, mask).astype(np.uint8)


def _one_for_255(mask: NDArray[Any], case: Case) -> NDArray[Any]:
    return np.where(mask == IGNORE_8BIT, 1, mask).astype(np.uint8)


def _ids_of_colors(
    chart: Chart, about: description.Description | None, cases: Sequence[Case], ignore_unknown: bool
) -> _Change:
    known = symptoms.colors_of(about) if about is not None and chart.has_colors else {}
    found: dict[Color, int] = {}
    for case in cases:
        for color, pixels in symptoms.labels(case).colors.items():
            found[color] = found.get(color, 0) + pixels
    strange = sorted(set(found) - set(known), key=lambda color: -found[color])
    if cases and (not known or (strange and not ignore_unknown)):
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
    dtype = np.uint8 if max([ignore, *known.values()]) <= IGNORE_8BIT else np.uint16
    packed = {red << 16 | green << 8 | blue: raw for (red, green, blue), raw in known.items()}

    def change(mask: NDArray[Any], case: Case) -> NDArray[Any]:
        red, green, blue = np.moveaxis(mask[..., :3].astype(np.int32), 2, 0)
        values, inverse = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
        ids = np.array([packed.get(value, ignore) for value in values.tolist()], dtype=dtype)
        return ids[inverse.reshape(red.shape)]

    return change


# -- writing -----------------------------------------------------------------------------------------------------------


def _copy(case: Case, folder: Path, plan: _Plan, chart: Chart) -> None:
    if case.image is not None:
        _copy_item(case.image, folder, f"{_prefix(case)}images/{case.name}", is_mask=False)
    if case.mask is None:
        return
    changes = plan.changes.get(id(case), [])
    target = f"{_prefix(case)}masks/{case.name}"
    if not changes:
        _copy_item(case.mask, folder, target, is_mask=True)
        return
    data = case.mask.read()
    if symptoms.labels(case).colors:
        mask = decode_image(data, where=case.mask.where, channels=3)
    else:
        mask = decode_mask(data, where=case.mask.where)
    for change in changes:
        mask = change(mask, case)
    palette = (
        plan.about.classes.palette if plan.about is not None and len(plan.about.classes) <= 256 else None
    )
    path = folder / (Path(case.mask.where).with_suffix(".png") if case.mask.path else target + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, mask, palette, durable=False)


def _copy_item(item: Item, folder: Path, name: str, *, is_mask: bool) -> None:
    """Copy a file to the same path below `folder`; write a table's cell as the file that `name` says."""
    if item.path is not None:
        path = folder / _inside(item.where)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(item.path, path)
        return
    data = item.read()
    path = folder / (name + (_suffix(data) if isinstance(data, bytes) else ".tif"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif is_mask:
        write_mask(path.with_suffix(".png"), decode_mask(data, where=item.where), durable=False)
    else:
        write_image(path, decode_image(data, where=item.where), durable=False)


def _inside(where: str) -> Path:
    if where.startswith(".."):
        raise DatasetFormatError(
            f"{where} lies outside the data set's folder.",
            expected="images and masks below it",
            hint="Copy them there, or make the data set anew with an importer.",
        )
    return Path(where)


def _prefix(case: Case) -> str:
    return f"{case.split}/" if case.split else ""


def _suffix(data: bytes) -> str:
    """The suffix of an encoded image, by its first bytes."""
    heads = (
        (b"\x89PNG", ".png"),
        (b"\xff\xd8", ".jpg"),
        (b"II", ".tif"),
        (b"MM", ".tif"),
        (b"BM", ".bmp"),
        (b"GIF8", ".gif"),
    )
    if data[:4] == b"RIFF":
        return ".webp"
    return next((suffix for head, suffix in heads if data.startswith(head)), ".png")


def _describe(folder: Path, plan: _Plan, chart: Chart) -> None:
    """Write the description of the copy: the same file where nothing in it changed, else dataset.json."""
    about = plan.about
    if about is not None and chart.by_lists and about.splits:
        there = {case.name for case in plan.kept}
        lists = {s: tuple(n for n in names if n in there) for s, names in about.splits.items()}
        about = replace(about, splits={split: names for split, names in lists.items() if names})
    if about is not None and (about != chart.about or chart.root is None):
        description.write_description(folder, about)
        return
    if chart.root is None:
        return
    named = [chart.root / description.FILE, class_names.find(chart.root)]
    for path in named:
        if path is not None and path.is_file():
            shutil.copy2(path, folder / path.name)
