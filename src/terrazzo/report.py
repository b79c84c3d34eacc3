"""What an evaluation found: the counts, and every score that follows from them, as numbers, table, JSON and HTML.

The counts are kept, not only the scores, so a report that was saved can be read again and asked for anything else.
"""

import html
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UnreadableFileError
from terrazzo.metrics import ConfusionMatrix
from terrazzo.progress import duration
from terrazzo.storage import read_json, write_json

FORMAT_VERSION = 1
EVALUATION = "evaluation.json"  # in a model folder: the validation of these very weights
NOT_THERE = "n/a"  # the score of a class that does not occur


class ClassScore(NamedTuple):
    """The scores of one class, each in [0, 1], nan where the class does not occur in the truth."""

    iou: float
    accuracy: float
    dice: float
    pixels: int
    """Scored pixels of the class in the truth."""


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of a model on a split, pooled over all pixels; shares in [0, 1], nan where there is nothing to score."""

    names: tuple[str, ...]
    """The classes, in id order."""
    counts: NDArray[np.int64]
    """(K, K) pixels, rows truth, columns prediction; ignored pixels are not among them."""
    num_images: int
    """How many images were scored."""
    loss: float | None = None
    """The loss per unit of weight, where it was measured."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """One's own metrics, averaged over the images where they are a number."""
    worst: tuple[tuple[str, float], ...] = ()
    """The images with the lowest mIoU of their own, lowest first."""
    data: str = ""
    """The data set's name."""
    fingerprint: str = ""
    """The data set's fingerprint."""
    split: str = ""
    """The split that was scored."""
    model: str = ""
    """The model, as it was named when loaded."""
    seconds: float = 0.0
    """How long it took."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the images were looked at: whole or in windows, flip, resize …"""
    notes: tuple[str, ...] = ()
    """What a reader of the scores must know, one sentence each."""

    @cached_property
    def matrix(self) -> ConfusionMatrix:
        """The counts as a `ConfusionMatrix`."""
        return ConfusionMatrix(len(self.names), counts=self.counts)

    @property
    def miou(self) -> float:
        """The mean IoU over the classes that occur."""
        return self.matrix.miou

    @property
    def mean_accuracy(self) -> float:
        """The mean accuracy (recall) over the classes that occur."""
        return self.matrix.mean_accuracy

    @property
    def mean_dice(self) -> float:
        """The mean Dice over the classes that occur."""
        return self.matrix.mean_dice

    @property
    def pixel_accuracy(self) -> float:
        """The share of pixels whose class is right."""
        return self.matrix.pixel_accuracy

    @property
    def frequency_weighted_iou(self) -> float:
        """The IoU averaged with each class's share of the true pixels."""
        return self.matrix.frequency_weighted_iou

    @cached_property
    def per_class(self) -> dict[str, ClassScore]:
        """{class name: ClassScore} in id order, absent classes included."""
        matrix = self.matrix
        columns = (
            matrix.iou.tolist(),
            matrix.accuracy.tolist(),
            matrix.dice.tolist(),
            matrix.true_pixels.tolist(),
        )
        return {
            name: ClassScore(*row) for name, row in zip(self.names, zip(*columns, strict=True), strict=True)
        }

    def scalars(self) -> dict[str, float]:
        """Return every finite score by name for a log: "miou", "loss" …, one's own, and "iou/CLASS" of each class."""
        values = {"miou": self.miou, "mean_accuracy": self.mean_accuracy, "mean_dice": self.mean_dice,
                  "pixel_accuracy": self.pixel_accuracy, "frequency_weighted_iou": self.frequency_weighted_iou,
                  "loss": math.nan if self.loss is None else self.loss, **self.metrics}  # fmt: skip
        values |= {f"iou/{name}": score.iou for name, score in self.per_class.items()}
        return {name: float(value) for name, value in values.items() if math.isfinite(value)}

    def table(self) -> str:
        """Return IoU, accuracy and Dice of each class in percent and the means below, as text for a terminal."""
        rows = [(name, _percent(s.iou), _percent(s.accuracy), _percent(s.dice), f"{s.pixels:,}")
                for name, s in self.per_class.items()]  # fmt: skip
        return "\n".join([*_boxed(("Class", "IoU", "Acc", "Dice", "Pixels"), rows), *self._summary()])

    def _summary(self) -> Iterator[str]:
        """The lines below the table."""
        means = [f"mIoU {_percent(self.miou)}", f"mAcc {_percent(self.mean_accuracy)}",
                 f"mDice {_percent(self.mean_dice)}", f"aAcc {_percent(self.pixel_accuracy)}",
                 f"fwIoU {_percent(self.frequency_weighted_iou)}"]  # fmt: skip
        if self.loss is not None:
            means.append(f"loss {self.loss:.4f}")
        means += [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        yield "  ".join(means)
        of = f" of {self.data}" if self.data else ""
        split = f", split {self.split}{of}" if self.split else ""
        yield f"{self.num_images:,} image{'' if self.num_images == 1 else 's'}{split}, {duration(self.seconds)}"
        absent = [name for name, score in self.per_class.items() if score.pixels == 0]
        if absent:
            shown = ", ".join(absent[:8]) + (" …" if len(absent) > 8 else "")
            yield f"{len(absent)} of {len(self.names)} classes do not occur and are left out of the means: {shown}"
        yield from self.notes

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: every score (null where there is none), the counts, and what was scored how."""
        per_class = {
            name: {
                "iou": _plain(s.iou),
                "accuracy": _plain(s.accuracy),
                "dice": _plain(s.dice),
                "pixels": s.pixels,
            }
            for name, s in self.per_class.items()
        }
        return {
            "format_version": FORMAT_VERSION,
            "miou": _plain(self.miou),
            "mean_accuracy": _plain(self.mean_accuracy),
            "mean_dice": _plain(self.mean_dice),
            "pixel_accuracy": _plain(self.pixel_accuracy),
            "frequency_weighted_iou": _plain(self.frequency_weighted_iou),
            "loss": None if self.loss is None else _plain(self.loss),
            "metrics": {name: _plain(value) for name, value in self.metrics.items()},
            "per_class": per_class,
            "counts": self.counts.tolist(),
            "worst": [list(one) for one in self.worst],
            "num_images": self.num_images,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "model": self.model,
            "seconds": round(self.seconds, 3),
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Report":
        """Read what `to_json` returns; the scores follow from the counts. Raises UnreadableFileError."""
        try:
            if value["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format_version {value['format_version']}")
            names = tuple(value["per_class"])
            if not names:
                raise ValueError("no classes")
            return cls(
                names=names,
                counts=np.asarray(value["counts"], dtype=np.int64).reshape(len(names), len(names)),
                metrics={name: math.nan if v is None else v for name, v in value["metrics"].items()},
                worst=tuple((name, score) for name, score in value["worst"]),
                notes=tuple(value["notes"]),
                **{name: value[name] for name in _AS_THEY_ARE},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UnreadableFileError(
                "This is no report that this version of terrazzo wrote.",
                found=f"{type(error).__name__}: {error}",
            ) from error

    def save(self, path: "str | os.PathLike[str]") -> None:
        """Write `to_json` to a file, atomically."""
        write_json(Path(path), self.to_json())

    @classmethod
    def open(cls, path: "str | os.PathLike[str]") -> "Report":
        """Read what `save` wrote."""
        return cls.from_json(read_json(Path(path)))

    def __repr__(self) -> str:
        return f"Report(mIoU {_percent(self.miou)}, {self.num_images} images, {len(self.names)} classes)"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{title}</th>" for title in ("Class", "IoU", "Acc", "Dice", "Pixels"))
        body = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td><td>{_percent(s.iou)}</td>"
            f"<td>{_percent(s.accuracy)}</td><td>{_percent(s.dice)}</td><td>{s.pixels:,}</td></tr>"
            for name, s in self.per_class.items()
        )
        summary = "<br>".join(html.escape(line) for line in self._summary())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{summary}</p>"


_AS_THEY_ARE = ("num_images", "loss", "data", "fingerprint", "split", "model", "seconds", "settings")


def _boxed(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"

    def line(row: Sequence[str]) -> str:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return "| " + " | ".join(cells) + " |"

    return [rule, line(head), rule, *map(line, rows), rule]


def _percent(share: float) -> str:
    return NOT_THERE if math.isnan(share) else f"{100 * share:.2f}"


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
