"""How many of the images that a training reads have to be decoded; the others are at hand.

What is kept decoded, in memory or on the disk, costs once, however long the training is. Which images come when is
drawn anew in every epoch, and with `data.rare_images` some come often and others not at all: what is said here is the
mean over such draws.
"""

# N images

import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrazzo.data import Dataset
from terrazzo.data.cache import cache_budget
from terrazzo.data.dataset import Split
from terrazzo.data.decoded import outlook
from terrazzo.data.sampling import Rarity
from terrazzo.preparation import cache_key
from terrazzo.recipe import Recipe

SIZED = 16  # images whose sizes are looked at, to know what all of them take


@dataclass(frozen=True)
class Reads:
    """The images of a training split, as a training reads them."""

    times_N: NDArray[np.float64]
    """How often each image comes in an epoch, in the mean; together N."""
    kept: float = 1.0
    """Share of them that has room to be kept decoded, 0-1."""
    there: float = 0.0
    """Share that an earlier training left decoded, part of `kept`."""

    @property
    def images(self) -> int:
        """Of the split."""
        return len(self.times_N)

    def seen(self, count: float) -> float:
        """Return how many different images are among the first `count` that are read."""
        epochs, part = divmod(count / self.images, 1.0)
        never_N = self._missing(1.0) ** epochs * self._missing(part)
        return float((1.0 - never_N).sum())

    def decoded(self, count: float) -> float:
        """Return how many of the first `count` images that are read have to be decoded."""
        return (self.kept - self.there) * self.seen(count) + (1.0 - self.kept) * count

    def _missing(self, part: float) -> NDArray[np.float64]:
        """The chance (N,) of each image not to come in this part of an epoch, 0-1.

        An epoch holds an image as often as its mean says, rounded up or down by a draw (`sampling.Balanced`).
        """
        sure_N, more_N = np.divmod(self.times_N, 1.0)
        return (1.0 - part) ** sure_N * (1.0 - more_N * part)


def reads_of(data: Dataset, recipe: Recipe, rare: Rarity) -> Reads:
    """Return how the training split is read; rare: what `sampling.rarity` said of it."""
    split = data["train"]
    times_N = np.ones(len(split)) if rare.repeats_N is None else _shares(rare.repeats_N)
    kept, there = _kept(data, split, recipe)
    return Reads(times_N, kept, there)


def _shares(repeats_N: ArrayLike) -> NDArray[np.float64]:
    repeats = np.asarray(repeats_N, dtype=np.float64)
    return repeats * (len(repeats) / repeats.sum())


def _kept(data: Dataset, split: Split, recipe: Recipe) -> tuple[float, float]:
    """The shares of a split's images that will be kept decoded, and that are."""
    cache = recipe.data.cache
    if cache == "none" or recipe.data.scaled_decoding:
        return 0.0, 0.0
    if split.shard_of is not None:  # what is fetched in shards stays only where that is asked for
        return float(cache == "memory"), 0.0
    sides = [split.size_hw(index) for index in spread(len(split), SIZED)]
    pixels = statistics.mean(height * width for height, width in sides)
    total = len(split) * pixels * (data.channels * np.dtype(data.dtype).itemsize + 1)  # the mask's byte
    if cache == "disk":
        return outlook(cache_key(data, split), samples=len(split), size=total)
    return min(1.0, cache_budget(cache) / max(1.0, total)), 0.0


def spread(length: int, count: int) -> list[int]:
    """Return up to `count` positions of `length`, spread evenly from the first to the last."""
    count = min(count, length)
    return sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})
