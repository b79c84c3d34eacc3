"""What labels are worth: which classes would gain most from more of them, and how many pixels nobody labelled yet.

The estimate for a class, said with every number: its error falls with the square root of its labelled pixels, so

    gain = (1 - IoU) / K x (1 - sqrt(L / (L + W)))

IoU: the model's on its validation; K: classes; L: pixels that people labelled of the class; W: the pixels that wait,
seen as that class in images where nobody drew, each counted with the model's doubt (1 - confidence), for what it is
certain of teaches it little. The sum over all classes is the mIoU that all waiting labels might bring. It is a guide
to what to draw next, no promise: the exponent is that of independent samples, and pixels of one image are not.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from terrazzo.project import Project
from terrazzo.project.models import Attached
from terrazzo.project.statuses import UNDRAWN

FORMULA = "(1 - IoU) / K x (1 - sqrt(L / (L + W)))"


@dataclass(frozen=True)
class Worth:
    """What more labels of one category might be worth."""

    category_id: int
    """Which."""
    name: str
    """As people call it."""
    iou: float | None
    """The model's on its validation; None where it does not occur there, or the model does not know it."""
    labelled: int
    """Pixels that people labelled: L."""
    waiting: int
    """Pixels that the model sees as it where nobody drew."""
    doubted: float
    """The same, each counted with the model's doubt: W."""
    gain: float | None
    """What these might add to mIoU, in [0, 1]; None where there is no IoU."""
    best: str | None = None
    """The sample in which most of W lies."""


def gain(iou: float, labelled: float, waiting: float, *, classes: int) -> float:
    """Return what `waiting` more pixels of a class might add to the mean IoU over `classes` classes."""
    if not waiting > 0:
        return 0.0
    return (1 - iou) / classes * (1 - math.sqrt(labelled / (labelled + waiting)))


def worths(project: Project, model: Attached) -> list[Worth]:
    """Return what more labels of each category might be worth, the most first, those without an IoU last."""
    report: Mapping[str, Any] = model.report or {}
    per_class: Mapping[str, Any] = report.get("per_class", {})
    scored = {name: value["iou"] for name, value in per_class.items() if value.get("iou") is not None}
    heads = model.table(project.categories.all(deleted=True)).tolist()
    names_of: dict[int, list[str]] = {}
    for (name, _), head in zip(model.classes, heads, strict=True):
        names_of.setdefault(head, []).append(name)
    labelled = project.queue.labelled()
    undrawn = {one.name for one in project.samples.all() if one.status in UNDRAWN}
    seen = {name: one.seen for name, one in project.queue.measures(model.labelset).items() if name in undrawn}
    found = []
    for category in project.categories:
        if category.is_ignore:
            continue
        mine = {
            name: categories[category.id] for name, categories in seen.items() if category.id in categories
        }
        ious = [scored[name] for name in names_of.get(category.id, ()) if name in scored]
        iou = sum(ious) / len(ious) if ious else None
        doubted = sum(doubt for _, doubt in mine.values())
        count = labelled.get(category.id, 0)
        worth = None if iou is None else gain(iou, count, doubted, classes=max(1, len(scored)))
        best = max(mine, key=lambda name: (mine[name][1], name), default=None)
        waiting = sum(pixels for pixels, _ in mine.values())
        found.append(Worth(category.id, category.name, iou, count, waiting, doubted, worth, best))
    return sorted(found, key=lambda one: (one.gain is None, -(one.gain or 0), one.name))


def scores(project: Project, model: str | None = None) -> dict[str, Any]:
    """Return all that the page shows of a model's scores, plain JSON; of the one attached last where None.

    "confusion" is counted over what people labelled and the model saw: its cells lead to samples, those of the report
    do not.
    """
    with project.store.reading() as db:
        pixels, samples = db.execute("SELECT sum(height * width), count(*) FROM samples").fetchone()
    labelled = sum(project.queue.labelled().values())
    progress = {
        "samples": samples,
        "pixels": pixels or 0,
        "labelled": labelled,
        "unlabelled": (pixels or 0) - labelled,
    }
    one = project.models.newest() if model is None else project.models[model]
    if one is None:
        return {
            "model": None,
            "pixels": progress,
            "worths": [],
            "formula": FORMULA,
            "confusion": [],
            "images": 0,
        }
    names = {sample.id: sample.name for sample in project.samples.all()}
    ids = {name: number for number, name in names.items()}
    total: dict[tuple[int, int], int] = {}
    compared = 0
    against = _against_labels(project, one.labelset)
    for name, measure in project.queue.measures(one.labelset).items():
        if name in against:
            compared += bool(measure.pairs)
            for pair, count in measure.pairs.items():
                total[pair] = total.get(pair, 0) + count
    return {
        "model": {"hash": one.hash, "name": one.name, "miou": (one.report or {}).get("miou")},
        "pixels": progress,
        "formula": FORMULA,
        "worths": [asdict(worth) | {"best_id": ids.get(worth.best or "")} for worth in worths(project, one)],
        "confusion": [[*pair, count] for pair, count in sorted(total.items())],
        "images": compared,
    }


def _against_labels(project: Project, labelset: str) -> set[str]:
    """The samples whose prediction was compared with a label, not with another model."""
    with project.store.reading() as db:
        rows = db.execute(
            "SELECT name FROM measures JOIN samples ON samples.id = sample WHERE labelset = ? AND against = 'label'",
            (labelset,),
        ).fetchall()
    return {row[0] for row in rows}
