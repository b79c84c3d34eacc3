"""The measures of one labelset as scores with reasons, a sentence each that people read beside an image."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from terrazzo.project import orders
from terrazzo.project.measures import Measure
from terrazzo.project.statuses import UNDRAWN

Scored = tuple[float | None, str]  # None: not in this queue


class Ranked:
    """The measures of one labelset, in rows, and their scores with reasons."""

    def __init__(
        self, rows: Sequence[tuple[Any, ...]], labelled: Mapping[int, int], names: Mapping[int, str]
    ) -> None:
        self.ids = [row[0] for row in rows]
        self.samples = [row[1] for row in rows]
        self.statuses = [row[2] for row in rows]
        self.measures = [Measure.from_json(json.loads(row[3])) for row in rows]
        self.against = [row[4] for row in rows]
        self.features = [None if row[5] is None else np.frombuffer(row[5], "<f2") for row in rows]
        self.labelled, self.names = labelled, names

    def uncertainty(self) -> list[Scored]:
        """Where the model doubts most."""
        scored: list[Scored] = []
        for one in self.measures:
            most = max(one.seen, key=lambda category: one.seen[category][1], default=None)
            where = "" if most is None else f", most in {self._name(most)}"
            said = f"{one.uncertainty:.0%} in doubt over the least certain tenth of its pixels{where}"
            scored.append((one.uncertainty, said))
        return scored

    def rare(self) -> list[Scored]:
        """Whose pixels are scarce."""
        scored: list[Scored] = []
        for one in self.measures:
            pixels = {category: count for category, (count, _) in one.seen.items()}
            score, most = orders.rare_gain(pixels, self.labelled, size=one.size)
            if most is None:
                scored.append((score, "nothing scarce is seen in it"))
                continue
            share = pixels[most] / (pixels[most] + self.labelled[most])
            scored.append((score, f"would bring {share:.0%} of all pixels of {self._name(most)}"))
        return scored

    def disagreement(self) -> list[Scored]:
        """Where the label, or another model, says something else."""
        scored: list[Scored] = []
        for one, against in zip(self.measures, self.against, strict=True):
            score, pair = orders.disagreement(one.pairs)
            other = "the label" if against == "label" else f"the model {against}"
            said = "" if pair is None else f", most {self._name(pair[0])} seen as {self._name(pair[1])}"
            scored.append(
                (score, "" if score is None else f"{score:.1%} of its pixels differ from {other}{said}")
            )
        return scored

    def diversity(self) -> list[Scored]:
        """What is unlike all that is labelled; none where features are of several sizes, as of two networks."""
        scored: list[Scored] = [(None, "")] * len(self.ids)
        sizes = {one.size for one in self.features if one is not None}
        if len(sizes) != 1:
            return scored
        known = [index for index, one in enumerate(self.features) if one is not None]
        features = np.stack([np.asarray(self.features[index], np.float32) for index in known])
        covered = np.array([self.statuses[index] not in (*UNDRAWN, "skipped") for index in known], bool)
        order = orders.k_center(features, covered)
        for place, (row, distance, nearest) in enumerate(order):
            near = f", nearest {self.samples[known[nearest]]}" if nearest >= 0 else ""
            said = f"unlike all that is labelled or comes before it: distance {distance:.2f}{near}"
            scored[known[row]] = 1 - place / len(order), said
        return scored

    def _name(self, category: int) -> str:
        return repr(self.names.get(category, f"category {category}"))


def queued(ranked: Ranked, scored: Sequence[Scored], seed: int) -> list[tuple[int, float, str, bool]]:
    """Return (sample, score, why, drawn at random) by place."""
    places = orders.placed([score for score, _ in scored], ranked.samples, seed=seed)
    fair = f"drawn at random, as one in ten is, for a fair sample (seed {seed})"
    return [
        (ranked.ids[index], scored[index][0] or 0.0, fair if is_random else scored[index][1], is_random)
        for index, is_random in places
    ]
