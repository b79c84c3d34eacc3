"""Mend a data set, in a copy: `terrazzo fix`. Every action is asked for by its own word and said aloud; raw data stay.

The copy holds the images as they are, byte for byte, the masks that need no mending likewise, and the description. What
is left out is listed. A table becomes a data set in plain folders. `treatment.py` decides what is done to which file,
`mask_changes.py` does it.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from terrazzo.data import class_names, description, symptoms
from terrazzo.data.chart import Case, Chart, Item
from terrazzo.data.dataset import Dataset
from terrazzo.data.examination import examine
from terrazzo.data.findings.finding import printable
from terrazzo.data.remedies import Move, Remedies
from terrazzo.data.treatment import Plan, make_plan
from terrazzo.errors import DatasetFormatError, UsageError, quoted
from terrazzo.images import decode_image, decode_mask, write_image, write_mask
from terrazzo.storage import refuse_existing, replace_folder

__all__ = ["Move", "Remedies", "Repair", "fix"]


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
        return printable(
            "\n".join([*lines, "To see what is left:", f"  terrazzo check {quoted(self.folder)}"])
        )


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
            command=f"terrazzo check {quoted(str(source))}",
        )
    out = Path(out)
    refuse_existing(out)
    chart = examine(source, workers=workers, progress=progress)
    if not chart.cases:
        raise chart.problems[0] if chart.problems else DatasetFormatError(f"{source} holds no images.")
    plan = make_plan(chart, remedies)
    with replace_folder(out) as folder:
        for case in plan.kept:
            _copy(case, folder, plan)
        _describe(folder, plan, chart)
    return Repair(out, tuple(plan.actions), tuple(plan.left_out))


# -- writing -----------------------------------------------------------------------------------------------------------


def _copy(case: Case, folder: Path, plan: Plan) -> None:
    if case.image is not None:
        _copy_item(case.image, folder, _place(case, "images", plan), is_mask=False)
    if case.mask is None:
        return
    target, changes = _place(case, "masks", plan), plan.changes.get(id(case), [])
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
    path = _within(folder, target + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, mask, palette, durable=False)


def _place(case: Case, kind: str, plan: Plan) -> str:
    """Where an image or a mask lies in the copy, without its suffix: where it lay, unless it changes sides."""
    item = case.mask if kind == "masks" else case.image
    side = plan.sides.get(id(case))
    if side is None and item is not None and item.path is not None:
        return str(_inside(item.where).with_suffix(""))
    name = plan.new_names.get(id(case), case.name)
    split = case.split if side is None else side
    return f"{split}/{kind}/{name}" if split else f"{kind}/{name}"


def _copy_item(item: Item, folder: Path, name: str, *, is_mask: bool) -> None:
    """Copy a file, or write a table's cell as one, to `name` below `folder`, with the suffix that suits it."""
    if item.path is not None:
        path = _within(folder, name + item.path.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(item.path, path)
        return
    data = item.read()
    path = _within(folder, name + (_suffix(data) if isinstance(data, bytes) else ".tif"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif is_mask:
        write_mask(path.with_suffix(".png"), decode_mask(data, where=item.where), durable=False)
    else:
        write_image(path, decode_image(data, where=item.where), durable=False)


def _within(folder: Path, name: str) -> Path:
    """The path of a file of the copy; names come from strangers' tables, and none leads out of it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetFormatError(
            f"The name {name!r} leads out of the data set.",
            expected="names without '..' and without a leading '/'",
            hint="Nothing was written. Rename it where it comes from.",
        )
    return path


def _inside(where: str) -> Path:
    if where.startswith(".."):
        raise DatasetFormatError(
            f"{where} lies outside the data set's folder.",
            expected="images and masks below it",
            hint="Copy them there, or make the data set anew with an importer.",
        )
    return Path(where)


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


def _describe(folder: Path, plan: Plan, chart: Chart) -> None:
    """Write the description of the copy: the same file where nothing in it changed, else dataset.json."""
    about = plan.about
    if about is not None and plan.sides:
        about = replace(about, splits=None)
    elif about is not None and chart.by_lists and about.splits:
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
