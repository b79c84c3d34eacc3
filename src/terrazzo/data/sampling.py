"""Rare classes seen more often: images that hold them come again, and crops are aimed at them.

Images: repeat factors (Gupta et al. 2019, LVIS, arXiv 1908.03195). A class in the share f of all images has the factor
max(1, sqrt(t / f)), an image the largest factor of its classes. LVIS makes an epoch longer by what is repeated; here an
epoch stays as long as there are images, so that steps and epochs mean what they meant, and what is common comes less
often instead.

Crops: a class is drawn as DAFormer draws it (Hoyer et al. 2022, arXiv 2111.14887): with odds exp(-p / 0.01) for a class
that has the share p of all labelled pixels. They draw the class first and an image that holds it afterwards; here the
class is drawn from those of the image that is to be cropped.
"""

# N images, K classes

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrazzo.data.counts import image_class_pixels
from terrazzo.data.dataset import Split
from terrazzo.data.order import Order
from terrazzo.data.transforms import DataConfig
from terrazzo.errors import RecipeError

TEMPERATURE = 0.01  # DAFormer's: classes of 1 % of the pixels and less are drawn nearly alike, others hardly
SAME_EPOCH = (
    1 << 32
)  # between the turns of a sample that an epoch holds twice; no training has so many epochs


@dataclass(frozen=True)
class Rarity:
    """What is done for the rare classes of a training split."""

    repeats_N: NDArray[np.float64] | None = None
    """How often each image comes, or None where all come alike."""
    odds_K: NDArray[np.float64] | None = None
    """With which odds a crop is aimed at each class, or None where none is aimed."""
    said: tuple[str, ...] = ()
    """For people, one line each."""

    def order(self, seed: int) -> Order | None:
        """Return the order that `Loader` takes; None where it is the usual one."""
        return None if self.repeats_N is None else Balanced(self.repeats_N, seed)


def rarity(split: Split, config: DataConfig, *, location: str, quiet: bool = False) -> Rarity:
    """Return what `data.rare_images` and `data.rare_crops` mean for a split; its masks are counted where they are set.

    location: where the data set was opened. The counts are kept: see `counts.image_class_pixels`.
    """
    if not (config.rare_images or config.rare_crops):
        return Rarity()
    if split.shard_of is not None:
        raise RecipeError(
            "Rare classes are not looked for in a stream: every mask would have to be read before the first step.",
            found=f"data.rare_images={config.rare_images} and data.rare_crops={config.rare_crops}",
            expected="both 0 with data.stream=true",
            hint="Class weights, Dice and OHEM need no such reading; or let the data come here first:",
            command="data.stream=false",
        )
    names, ignore = split.classes.names, split.classes.ignore
    pixels_NK = image_class_pixels(split, len(names), ignore=ignore, location=location, quiet=quiet)
    repeats_N = odds_K = None
    said = []
    if config.rare_images:
        repeats_N = repeat_factors(pixels_NK, config.rare_images)
        factors = class_factors(pixels_NK, config.rare_images).tolist()
        rare = sorted(
            ((factor, name) for factor, name in zip(factors, names, strict=True) if factor > 1), reverse=True
        )
        listed = ", ".join(f"{name} x{factor:.1f}" for factor, name in rare[:8]) + (
            " …" if len(rare) > 8 else ""
        )
        share = f"less than {100 * config.rare_images:g} % of the images"
        said.append(
            f"images of rare classes come more often: {listed}" if rare else f"no class is in {share}"
        )
    if config.rare_crops:
        odds_K = crop_odds(pixels_NK.sum(axis=0))
    return Rarity(repeats_N, odds_K, tuple(said))


def repeat_factors(pixels_NK: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Return how often each image is drawn (N,), 1 where all of its classes are common.

    pixels_NK: the pixels of each class in each image. threshold: the share of images, 0-1, below which a class is rare.
    """
    holds_NK = np.asarray(pixels_NK) > 0
    return np.where(holds_NK, class_factors(pixels_NK, threshold), 1.0).max(axis=1, initial=1.0)


def class_factors(pixels_NK: ArrayLike, threshold: float) -> NDArray[np.float64]:
    """Return the repeat factor of each class (K,); 1 for a class that is in no image."""
    share_K = (np.asarray(pixels_NK) > 0).mean(axis=0)
    return np.sqrt(np.maximum(1.0, threshold / np.where(share_K > 0, share_K, 1.0)))


def crop_odds(pixels_K: ArrayLike) -> NDArray[np.float64]:
    """Return the odds (K,), at most 1, with which a crop is aimed at each class, if the image holds it.

    pixels_K: the pixels of each class in the whole split.
    """
    pixels = np.asarray(pixels_K, dtype=np.float64)
    share = pixels / max(pixels.sum(), 1.0)
    return np.exp((share.min(initial=1.0) - share) / TEMPERATURE)


class Balanced:
    """Which sample stands where in a training that repeats images: the order that `Loader` takes.

    Of every N positions, an epoch, sample i takes N r_i / (r_1 + … + r_N), rounded up or down by a draw from (seed,
    epoch): over many epochs exactly its share. It depends on seed and position alone, as any order does.
    """

    def __init__(self, factors_N: Sequence[float] | NDArray[np.float64], seed: int) -> None:
        self._factors = np.asarray(factors_N, dtype=np.float64)
        self._seed = seed
        self._epoch = functools.lru_cache(maxsize=4)(self._draw)

    def __call__(self, position: int) -> tuple[int, int]:
        """Return (turn, index) at a position: no two positions have the same pair, from which augmentation is drawn.

        The turn is the epoch, for the second time of a sample in it the epoch + 2**32, and so on.
        """
        epoch, place = divmod(position, len(self._factors))
        indices, times = self._epoch(epoch)
        return epoch + SAME_EPOCH * int(times[place]), int(indices[place])

    def _draw(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of an epoch in order, and how often each came before in it.

        Systematic resampling: the samples are laid out as stretches as long as their shares, in a drawn order, and one
        is taken at every whole step from a drawn start.
        """
        count, generator = len(self._factors), np.random.default_rng([self._seed, epoch])
        laid = generator.permutation(count)
        ends = np.cumsum(self._factors[laid])
        steps = (np.arange(count) + generator.random()) * (ends[-1] / count)
        taken = laid[np.minimum(np.searchsorted(ends, steps, side="right"), count - 1)]
        indices = generator.permutation(taken)
        by_index = np.argsort(indices, kind="stable")
        _, first, how_many = np.unique(indices[by_index], return_index=True, return_counts=True)
        times = np.empty(count, np.int64)
        times[by_index] = np.arange(count) - np.repeat(first, how_many)
        return indices.astype(np.int64), times
