"""A finding of the doctor, and the words that all of them share."""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart

MOST_FILES = 5  # named per finding; the count says how many there are
Severity = Literal["error", "warning"]
_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, wherever it occurs."""

    severity: Severity
    """error: scores or labels would be false; warning: it may be meant."""
    kind: str
    """A short name, by which docs/how-to/doctor.md tells more: size, range, shift, binary, colors, …"""
    what: str
    """A sentence."""
    files: tuple[str, ...] = ()
    """The first few it concerns, as paths in the data set."""
    count: int = 0
    """How many it concerns."""
    found: str | None = None
    """What is there, where the sentence does not say it."""
    expected: str | None = None
    """What should be there."""
    hint: str | None = None
    """Why, or what to decide."""
    command: str | None = None
    """What to type; None where only a person can tell."""
    cost: float = 0.0
    """About which share of the score it may make false or take away, 0 to 1: what findings are ranked by."""
    raw_ids: tuple[int, ...] = ()
    """The ids in the masks that are meant, where it is about some: the page marks their pixels."""


def printable(text: str) -> str:
    """Return text that a terminal or a page can only show: names come from strangers.

    Replaced are control characters but the end of a line, marks that turn the direction of writing, half characters.
    """
    text = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fix_command(chart: Chart, *flags: str) -> str:
    """Return the command line that mends a data set with these flags; the copy lies beside it."""
    source = chart.source if not chart.source.startswith("-") else f"./{chart.source}"
    return shlex.join(["terrazzo", "fix", source, *flags, "--out", copy_beside(source)])


def copy_beside(source: str) -> str:
    """Return the path that is proposed for a mended copy."""
    return source.rstrip("/\\").removesuffix(".parquet") + "-fixed"


def same_names(chart: Chart) -> list[str]:
    """Return the files that share their name with another one but for the suffix, as paths in the data set."""
    root = chart.root or Path()
    return [str(Path(path).relative_to(root)) for one in chart.folders.values() for path in one.twice]


def share_of(cases: Sequence[object], chart: Chart) -> float:
    """Return which share of the pairs some cases are."""
    return len(cases) / max(1, len(chart.cases))


def holding(chart: Chart, ids: Iterable[int]) -> list[Case]:
    """Return the cases whose masks hold one of these raw ids."""
    wanted = list(ids)
    return [case for case in chart.cases if not symptoms.labels(case).ids.keys().isdisjoint(wanted)]


def images(cases: Iterable[Case]) -> list[str]:
    """Return where the images of some cases lie."""
    return [case.image.where for case in cases if case.image is not None]


def masks(cases: Iterable[Case]) -> list[str]:
    """Return where the masks of some cases lie."""
    return [case.mask.where for case in cases if case.mask is not None]


def named(files: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Return the first few and their count, as `Finding` takes them."""
    return tuple(files[:MOST_FILES]), len(files)


def some(count: int, one: str, more: str) -> str:
    """Return "1 mask has" or "1,204 masks have"."""
    return f"{count:,} {one if count == 1 else more}"


def words(names: Sequence[str]) -> str:
    """Return names with commas, the first twenty."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def counted(pixels: dict[int, int] | Sequence[tuple[object, int]], most: int = 8) -> str:
    """Return "33 (1,204 pixels), …"."""
    pairs = list(pixels.items()) if isinstance(pixels, dict) else list(pixels)
    shown = ", ".join(f"{one} ({count:,} pixel{'s' if count != 1 else ''})" for one, count in pairs[:most])
    return shown + (", …" if len(pairs) > most else "")


def listed(ids: Sequence[int]) -> str:
    """Return ids as ranges: ids 0-18, 255."""
    runs: list[list[int]] = []
    for i in ids:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    shown = [f"{low}-{high}" if high > low else str(low) for low, high in runs]
    return "ids " + ", ".join(shown[:12]) + (", …" if len(shown) > 12 else "")
