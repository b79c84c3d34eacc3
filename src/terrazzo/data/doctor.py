"""The data set doctor: examines a data set and says what is in it, what is wrong, and which command mends that.

`examination.py` takes down the facts, `findings.py` judges them, `repair.py` mends a copy. Nothing is written here.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from terrazzo.data import symptoms
from terrazzo.data.dataset import Dataset
from terrazzo.data.examination import Chart, examine
from terrazzo.data.findings import Finding, find

__all__ = ["ClassCount", "Diagnosis", "Finding", "check", "diagnose"]


@dataclass(frozen=True)
class ClassCount:
    """How often a class occurs in a split."""

    name: str
    split: str
    pixels: int
    share: float
    """Of the split's pixels that are not ignored."""
    images: int


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    source: str
    """As the user named it."""
    images: Mapping[str, int]
    """Split -> images."""
    masks: Mapping[str, int]
    """Split -> masks that could be read as ids."""
    ignored: Mapping[str, float]
    """Split -> share of its pixels that is ignored."""
    counts: tuple[ClassCount, ...]
    """By split, then class id; empty where nothing says what ids mean."""
    findings: tuple[Finding, ...]
    """Errors first."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make scores or labels false."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The other findings."""
        return tuple(one for one in self.findings if one.severity == "warning")

    @property
    def ok(self) -> bool:
        """True when there is no error; `terrazzo check` then leaves with 0, else with 1."""
        return not self.errors

    def text(self) -> str:
        """Return the report for people, in plain characters."""
        lines = [f"{self.source}: {', '.join(self._splits()) or 'no image found'}"]
        if self.counts:
            lines += ["", *class_table(self.counts, self.ignored)]
        for title, findings in (("Errors", self.errors), ("Warnings", self.warnings)):
            if findings:
                lines += ["", f"{title}:"]
            for number, one in enumerate(findings, start=1):
                lines += _lines(number, one)
        return "\n".join([*lines, "", self.summary()])

    def summary(self) -> str:
        """Return one line: how many errors and warnings."""
        if not self.findings:
            return "Nothing wrong found."
        errors, warnings = len(self.errors), len(self.warnings)
        return (
            f"{errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}."
        )

    def to_json(self) -> str:
        """Return the same as JSON."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2, ensure_ascii=False)

    def _splits(self) -> Iterator[str]:
        for split, images in self.images.items():
            masks = self.masks[split]
            usable = (
                ""
                if masks == images
                else f" ({masks:,} with a usable mask)"
                if masks
                else " (no usable mask)"
            )
            yield f"{f'{split} ' if split else ''}{images:,} image{'s' if images != 1 else ''}{usable}"


def class_table(counts: Sequence[ClassCount], ignored: Mapping[str, float]) -> list[str]:
    """Return lines for people: pixels, share and images of every class, and what is ignored, a column a split."""
    splits = list(dict.fromkeys(one.split for one in counts))
    names = list(dict.fromkeys(one.name for one in counts))
    cells = {(one.split, one.name): one for one in counts}
    wide = max(len(name) for name in (*names, "(ignored)"))
    head = "".join(f"  {f'{split} pixels'.strip():>14} {'share':>8} {'images':>7}" for split in splits)
    lines = [f"  {'class':<{wide}}{head}"]
    for name in names:
        row = [cells[split, name] for split in splits]
        shown = "".join(f"  {one.pixels:>14,} {one.share:>8.2%} {one.images:>7,}" for one in row)
        lines.append(f"  {name:<{wide}}{shown}")
    last = "".join(f"  {'':>14} {ignored[split]:>8.2%} {'':>7}" for split in splits)
    return [*lines, f"  {'(ignored)':<{wide}}{last}".rstrip()]


def check(
    source: Path | str | Dataset,
    *,
    workers: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Examine a data set (a folder, a table, one on the Hub, an open one): what is in it, and what is wrong.

    workers: threads; -1 is one per core. progress: called with (done, total). Raises MissingPathError where there is
    nothing at `source`; everything else becomes a finding. Every image and mask is decoded once, one per thread in
    memory.
    """
    return diagnose(examine(source, workers=workers, progress=progress))


def diagnose(chart: Chart) -> Diagnosis:
    """Return the diagnosis of an examined data set."""
    counts, ignored = _count(chart)
    here = {split: [case for case in chart.cases if case.split == split] for split in chart.splits}
    return Diagnosis(
        source=chart.source,
        images={split: sum(case.image is not None for case in cases) for split, cases in here.items()},
        masks={
            split: sum(bool(symptoms.labels(case).ids) for case in cases) for split, cases in here.items()
        },
        ignored=ignored,
        counts=counts,
        findings=find(chart),
    )


def _count(chart: Chart) -> tuple[tuple[ClassCount, ...], dict[str, float]]:
    """Count the pixels and images of every class by split, and the share that is ignored."""
    table = symptoms.raw_table(chart)
    counts: list[ClassCount] = []
    ignored: dict[str, float] = {}
    if table is None or chart.space is None:
        return (), ignored
    names = chart.space.classes.names
    for split in chart.splits:
        masks = [symptoms.labels(case).ids for case in chart.cases if case.split == split]
        if not any(masks):
            continue
        pixels, images, left_out = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64), 0
        for ids in masks:
            here = np.zeros(len(names), np.int64)
            for raw, count in ids.items():
                class_id = table.get(raw)
                if class_id is not None:
                    here[class_id] += count
                elif raw in table:
                    left_out += count
            pixels, images = pixels + here, images + (here > 0)
        labelled = int(pixels.sum())
        ignored[split] = left_out / max(labelled + left_out, 1)
        for name, count, in_images in zip(names, pixels.tolist(), images.tolist(), strict=True):
            counts.append(ClassCount(name, split, count, count / max(labelled, 1), in_images))
    return tuple(counts), ignored


def _lines(number: int, one: Finding) -> list[str]:
    lines = [f"  {number}. {one.what}"]
    if one.files:
        more = f", … ({one.count:,} in all)" if one.count > len(one.files) else ""
        lines.append(f"     {', '.join(one.files)}{more}")
    lines += [f"     {one.hint}"] if one.hint else []
    return lines + [f"       {line}" for line in (one.command or "").splitlines()]
