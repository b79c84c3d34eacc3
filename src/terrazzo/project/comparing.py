"""Predictions laid beside labels: what they say of the same pixels, taken down, and again where labels changed.

No model is asked for it: what it said is kept. `prelabelling` calls it for what was just predicted.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from terrazzo.project.measures import measure
from terrazzo.project.queue import SEED
from terrazzo.project.statuses import UNDRAWN

if TYPE_CHECKING:
    from terrazzo.project.project import Project


def refresh(project: "Project", labelset: str, *, seed: int = SEED) -> None:
    """Compare predictions anew with the labels that changed since, and make the queues of a labelset anew."""
    for name in project.queue.stale(labelset):
        offer = project.predictions.get(name, labelset)
        note(project, name, labelset, offer.mask, offer.confidence, None)
    project.queue.rank(labelset, seed=seed)


def note(
    project: "Project",
    name: str,
    labelset: str,
    mask: NDArray[np.uint16],
    confidence: NDArray[np.uint8],
    features: NDArray[np.float32] | None,
) -> None:
    """Measure a prediction against the label where somebody drew, else against another model."""
    sample = project.sample(name)
    other, against = None, None
    if sample.status not in UNDRAWN:
        other, against = project.read_mask(name), "label"
    else:
        others = [one.labelset for one in project.models.all() if one.labelset != labelset]
        there = set(project.predictions.labelsets(name))
        against = next((one for one in others if one in there), None)
        if against is not None:
            other = project.predictions.get(name, against).mask
    ignored = [one.id for one in project.categories if one.is_ignore]
    measured = measure(mask, confidence, other, ignored=ignored)
    project.queue.note(name, labelset, measured, revision=sample.head, against=against, features=features)
