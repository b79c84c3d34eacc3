"""Random choices for a scene: one generator, drawn in blocks, for a scene makes about a thousand small decisions."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """A seeded stream of decisions; each costs a fifth of a microsecond, not the several of a Generator call."""

    def __init__(self, *key: int) -> None:
        self._rng = np.random.default_rng(key)
        self._left: list[float] = []

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number, uniform in [low, high)."""
        if not self._left:
            self._left = self._rng.random(1024).tolist()
        return low + (high - low) * self._left.pop()

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self() < probability

    def count(self, low: int, high: int) -> int:
        """Return an integer, low … high, both included."""
        return low + int(self() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of `choices`."""
        return choices[int(self() * len(choices))]

    def side(self) -> int:
        """Return -1 (left) or 1 (right)."""
        return -1 if self() < 0.5 else 1
