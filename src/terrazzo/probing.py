"""A few steps of a training, run in a folder that is thrown away, and what they took: `planning.py` multiplies it.

It is `training.train` itself, on few images: two validations of eight, and so few training images that each comes a
second time, since an image that is kept decoded costs less then. The first of everything pays for caches and compilers,
and is left out of what a step takes.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo.asking import overridden
from terrazzo.data import Dataset
from terrazzo.data.cache import cache_budget
from terrazzo.data.counts import class_pixels
from terrazzo.errors import TrainingError
from terrazzo.recipe import Recipe
from terrazzo.training import train

STEPS = 24  # that are measured
FRESH = 8  # of them with images that come for the first time
WARM = 8  # before them, which pay for caches, compilers and the first reading of files
EVERY = 4  # steps between two readings: more often would make a GPU wait
LOOKED = 8  # images of the validation


@dataclass(frozen=True)
class Probe:
    """What a few steps of a training took."""

    start_seconds: float
    """Before the first step, and after the last."""
    step_seconds: float
    """Median per optimiser step, once every image was seen."""
    waited_seconds: float
    """Of these, spent waiting for data."""
    image_seconds: float
    """To validate on one image."""
    pictures_seconds: float
    """To draw the pictures of one validation."""
    save_seconds: float
    """To write one checkpoint."""
    memory_bytes: int
    """The most that was taken: allocated on a GPU, resident on a CPU."""
    first_seconds: float = 0.0
    """What a step takes longer in the first pass over the images."""

    @property
    def waiting(self) -> float:
        """Share of a step spent waiting for data, 0-1."""
        return self.waited_seconds / max(self.step_seconds, 1e-9)


def probed(
    recipe: Recipe,
    data: Dataset,
    overrides: Sequence[str],
    *,
    device: str,
    seed: int | None,
) -> Probe:
    """Train for a few steps in a folder that is thrown away."""
    short = [
        f"train.steps={WARM + STEPS}",
        f"train.log_every={EVERY}",
        f"eval.every={(WARM + STEPS) // 2}",
        f"train.save_every={WARM + STEPS}",
        "train.loggers=[]",
        "train.patience=0",
    ]
    length = ("train.steps", "train.epochs", "train.log_every", "eval.every", "train.save_every",
              "train.loggers", "train.patience", "optim.warmup_steps")  # fmt: skip
    kept = [one for one in overrides if one.partition("=")[0].strip() not in length]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    asked = overridden(recipe, kept, seed=None)
    data, first_pass, share = _seen_again(data, asked)
    with tempfile.TemporaryDirectory(prefix="terrazzo-plan-") as folder:
        run = train(recipe, data=data, out=Path(folder) / "probe", overrides=[*kept, *short],
                    device=device, seed=seed, quiet=True)  # fmt: skip
        if run.stopped_by is not None:
            raise KeyboardInterrupt
        total = time.perf_counter() - began
        rows, looks, saves = run.history("train"), run.history("eval"), run.history("save")
    return read(rows, looks, saves, total=total, first_pass=first_pass, share=share)


def read(
    rows: Sequence[dict[str, Any]],
    looks: Sequence[dict[str, Any]],
    saves: Sequence[dict[str, Any]],
    *,
    total: float,
    first_pass: int = 0,
    share: float = 1.0,
) -> Probe:
    """What the lines of a probe's metrics.jsonl say; the first of everything pays for warming up.

    first_pass: steps after which its images came again. share: of all images, those that are then kept decoded.
    """
    measured = [row for row in rows if row["step"] > WARM] or list(rows)
    if not measured:
        raise TrainingError("The probe did not get as far as a step.", hint="Train without --plan.")
    fresh = [row for row in measured if row["step"] <= first_pass] or measured
    again = [row for row in measured if row["step"] > first_pass] or measured
    step, waited = (
        share * _median(again, name) + (1 - share) * _median(fresh, name)
        for name in ("seconds_per_step", "data_seconds")
    )
    more = max(0.0, _median(fresh, "seconds_per_step") - step)
    save = float(saves[-1]["seconds"]) if saves else 0.0
    known = sum(
        EVERY * _median(fresh if row["step"] <= first_pass else again, "seconds_per_step") for row in rows
    )
    known += len(saves) * save
    image = pictures = 0.0
    if looks:
        last = looks[-1]
        image = float(last["seconds"]) / max(1, int(last["images"]))
        pictures = float(last["drawing_seconds"])
        known += len(looks) * (float(last["seconds"]) + pictures)
    memory = max(int(row["memory_bytes"]) for row in rows)
    return Probe(max(0.0, total - known), step, waited, image, pictures, save, memory, more)


def _median(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(float(row[name]) for row in rows)


def _seen_again(data: Dataset, recipe: Recipe) -> tuple[Dataset, int, float]:
    """The data set with so few training images that a probe sees them again, where they are then kept decoded.

    Returns it, the steps until they come again, and the share of all images that is kept.
    """
    split, batch = data["train"], recipe.train.batch_size
    cache, rare = recipe.data.cache, recipe.data.rare_images or recipe.data.rare_crops
    if cache == "none" or cache == "disk" or rare or split.shard_of is not None:
        return data, WARM + STEPS, 1.0
    sides = [split.size_hw(index) for index in _spread(len(split), LOOKED)]
    pixels = statistics.mean(height * width for height, width in sides)
    each = pixels * (data.channels * np.dtype(data.dtype).itemsize + 1)  # the mask's byte
    share = min(1.0, cache_budget(cache) / max(1.0, each * len(split)))
    few = _spread(len(split), (WARM + FRESH) * batch)
    chosen = replace(data, splits={**data.splits, "train": split.subset(few)})
    return chosen, len(few) // batch, share


def counting_seconds(recipe: Recipe, data: Dataset) -> float:
    """What counting the pixels of every class takes before the first step; a probe counts those of a few images."""
    if recipe.loss.class_weights == "none":
        return 0.0
    began = time.perf_counter()
    class_pixels(data["train"], len(data.classes), ignore=data.classes.ignore)
    return time.perf_counter() - began


def with_few_to_look_at(data: Dataset, recipe: Recipe) -> Dataset:
    """The data set with a few images to validate on, spread over the split."""
    name = recipe.eval.split
    if name not in data.splits:
        return data
    split = data.splits[name]
    return replace(data, splits={**data.splits, name: split.subset(_spread(len(split), LOOKED))})


def _spread(length: int, count: int) -> list[int]:
    """Return up to `count` positions of `length`, spread evenly from the first to the last."""
    count = min(count, length)
    return sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})
