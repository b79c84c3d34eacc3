"""The data set doctor: examines a data set and says what is in it, what is wrong, and which command mends that.

`examination.py` takes down the facts, `findings.py` judges them, `repair.py` mends a copy. Nothing is written here.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from terrazzo.data.chart import Chart
from terrazzo.data.dataset import Dataset
from terrazzo.data.examination import examine
from terrazzo.data.findings import Finding, find
from terrazzo.data.findings.finding import printable
from terrazzo.data.statistics import ClassCount, SplitStatistics, class_counts, split_statistics

__all__ = ["ClassCount", "Diagnosis", "Finding", "SplitStatistics", "check", "diagnose"]


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
    splits: tuple[SplitStatistics, ...]
    """Sizes, brightness and labelled share, split by split."""
    findings: tuple[Finding, ...]
    """Errors first, then by how much of the score they cost."""

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
        lines = [f"{self.source}: {self.contents()}"]
        lines += [f"  {line}" for one in self.splits if (line := _form(one))]
        if self.counts:
            lines += ["", *class_table(self.counts, self.ignored)]
        for title, findings in (("Errors", self.errors), ("Warnings", self.warnings)):
            if findings:
                lines += ["", f"{title}:"]
            for number, one in enumerate(findings, start=1):
                lines += _lines(number, one)
        return printable("\n".join([*lines, "", self.summary()]))

    def contents(self) -> str:
        """Return how many images and masks there are, split by split, in a line."""
        return ", ".join(self._splits()) or "no image found"

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
        value = {"ok": self.ok, **asdict(self)}
        text = json.dumps(value, indent=2, ensure_ascii=False)
        is_text = text == text.encode("utf-8", "replace").decode(
            "utf-8"
        )  # half characters come from odd file names
        return text if is_text else json.dumps(value, indent=2)

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
    counts, ignored = class_counts(chart)
    splits = split_statistics(chart)
    return Diagnosis(
        source=chart.source,
        images={one.split: one.images for one in splits},
        masks={one.split: one.masks for one in splits},
        ignored=ignored,
        counts=counts,
        splits=splits,
        findings=find(chart),
    )


def _lines(number: int, one: Finding) -> list[str]:
    lines = [f"  {number}. {one.what}"]
    if one.files:
        more = f", … ({one.count:,} in all)" if one.count > len(one.files) else ""
        lines.append(f"     {', '.join(one.files)}{more}")
    told = [("found", one.found), ("expected", one.expected)]
    known = "; ".join(f"{word} {text}" for word, text in told if text)
    lines += [f"     {known}"] if known else []
    lines += [f"     {one.hint}"] if one.hint else []
    return lines + [f"       {line}" for line in (one.command or "").splitlines()]


def _form(one: SplitStatistics) -> str:
    """Sizes, form and brightness of a split's images in one line; empty where none could be read."""
    if not one.sizes:
        return ""
    sizes = [
        f"{height}x{width}" + (f" ({count:,})" if len(one.sizes) > 1 else "")
        for height, width, count in one.sizes
    ]
    more = f", {one.other_sizes:,} of other sizes" if one.other_sizes else ""
    form = f"{' or '.join(map(str, one.channels))} channels of {' or '.join(one.dtypes)}"
    numbers = [" ".join(f"{value:.3f}" for value in values) for values in (one.mean, one.std)]
    brightness = f", mean {numbers[0]}, std {numbers[1]}" if one.mean else ""
    return f"{f'{one.split}: ' if one.split else ''}{', '.join(sizes)}{more} (height x width), {form}{brightness}"
