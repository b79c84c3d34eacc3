"""A few steps of a training, run in a folder that is thrown away, and what they took: `planning.py` multiplies it.

It is `training.train` itself, on so few training images that each comes three times: what costs once, an image that is
decoded and then kept, is told from what costs at every step. Two trainings are run. The first, of two steps, pays for
what a process pays once, imports and compilers; it is not read. What the data set costs as a whole before the first
step, such as counting its classes, few images cannot tell: `before_first_step` does it.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from terrazzo.asking import overridden
from terrazzo.data import Dataset
from terrazzo.data.counts import class_pixels
from terrazzo.data.decoded import folder_of
from terrazzo.data.sampling import Rarity, rarity
from terrazzo.errors import TrainingError
from terrazzo.planned_reads import spread
from terrazzo.preparation import cache_key
from terrazzo.recipe import Recipe
from terrazzo.run import Run
from terrazzo.training import train

EVERY = 4  # steps between two readings: more often would make a GPU wait
WARM = 4  # steps before those that are measured
FRESH = 8  # steps that are measured with images that come for the first time; then all come again, twice
LOOKED = 8  # images of the validation


@dataclass(frozen=True)
class Probe:
    """What a few steps of a training took."""

    start_seconds: float
    """Before the first step, and after the last."""
    step_seconds: float
    """Median per optimiser step, once its images are at hand."""
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
    decoding_seconds: float = 0.0
    """What a step takes longer where all of its images have to be decoded."""
    decoding_waited_seconds: float = 0.0
    """Of these, spent waiting for data."""


@dataclass(frozen=True)
class Passes:
    """Which steps of a probe had which images."""

    fresh: int
    """The first, with images that had not come before; 0: all steps are alike."""
    settled: int
    """Steps after which images cost as little as they ever will."""


ALIKE = Passes(0, 0)


def probed(
    recipe: Recipe,
    data: Dataset,
    overrides: Sequence[str],
    *,
    device: str,
    seed: int | None,
    is_kept: bool,
) -> Probe:
    """Train for a few steps in a folder that is thrown away.

    is_kept: whether samples are kept decoded at all; the probe then sees few images, and again.
    """
    steps = 3 * (WARM + FRESH)
    short = [
        *_short(overrides, steps=steps, log_every=EVERY, look_every=steps // 2),
        "data.rare_images=0.0",  # an image that comes twice at once would not be fresh; the step is the same
    ]
    asked = overridden(recipe, short, seed=None)
    few, passes = _seen_again(data, asked) if is_kept else (data, ALIKE)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with _nothing_left(few, data, asked):
        began = time.perf_counter()
        with _trained(recipe, few, short, device=device, seed=seed) as run:
            total = time.perf_counter() - began
            rows, looks, saves = run.history("train"), run.history("eval"), run.history("save")
    return read(rows, looks, saves, total=total, passes=passes)


def warm_up(
    recipe: Recipe, data: Dataset, overrides: Sequence[str], *, device: str, seed: int | None
) -> None:
    """Train for two steps, so that what a process pays once is paid."""
    short = _short(overrides, steps=2, log_every=1, look_every=2)
    own = ("data.cache=none", "data.rare_images=0.0")
    with _trained(recipe, data, [*_without(short, own), *own], device=device, seed=seed):
        pass


def _short(overrides: Sequence[str], *, steps: int, log_every: int, look_every: int) -> list[str]:
    """The overrides of a training that is so short; what was typed of its length does not count."""
    own = [
        f"train.steps={steps}",
        f"train.log_every={log_every}",
        f"eval.every={look_every}",
        f"train.save_every={steps}",
        "train.loggers=[]",
        "train.patience=0",
    ]
    return [*_without(overrides, [*own, "train.epochs", "optim.warmup_steps", "data.rare_images"]), *own]


def _without(overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    fields = {one.partition("=")[0].strip() for one in others}
    return [one for one in overrides if one.partition("=")[0].strip() not in fields]


@contextmanager
def _trained(
    recipe: Recipe, data: Dataset, overrides: Sequence[str], *, device: str, seed: int | None
) -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="terrazzo-plan-") as folder:
        run = train(recipe, data=data, out=Path(folder) / "probe", overrides=overrides,
                    device=device, seed=seed, quiet=True)  # fmt: skip
        if run.stopped_by is not None:
            raise KeyboardInterrupt
        yield run


@contextmanager
def _nothing_left(few: Dataset, whole: Dataset, recipe: Recipe) -> Iterator[None]:
    """Throw away what a probe decodes onto the disk, before, where one was killed, and after."""
    if recipe.data.cache != "disk":
        yield
        return
    merged, all_of_it = few.merged(recipe.data.merge), whole.merged(recipe.data.merge)
    key = cache_key(merged, merged["train"])
    is_own = key != cache_key(all_of_it, all_of_it["train"])  # of a single image it is the training's
    if is_own:
        shutil.rmtree(folder_of(key), ignore_errors=True)
    try:
        yield
    finally:
        if is_own:
            shutil.rmtree(folder_of(key), ignore_errors=True)


def read(
    rows: Sequence[dict[str, Any]],
    looks: Sequence[dict[str, Any]],
    saves: Sequence[dict[str, Any]],
    *,
    total: float,
    passes: Passes = ALIKE,
) -> Probe:
    """What the lines of a probe's metrics.jsonl say; what its first steps and validation took longer is its start's."""
    if not rows:
        raise TrainingError("The probe did not get as far as a step.", hint="Train without --plan.")
    warm, later = [row for row in rows if row["step"] <= WARM], [row for row in rows if row["step"] > WARM]
    measured = later or warm
    again = [row for row in measured if row["step"] > passes.settled] or measured
    fresh = [row for row in measured if row["step"] <= passes.fresh] or again
    step, waited = _median(again, "seconds_per_step"), _median(again, "data_seconds")
    save = float(saves[-1]["seconds"]) if saves else 0.0
    like = fresh if passes.fresh else again  # what the first steps would have taken
    known = EVERY * len(warm) * _median(like, "seconds_per_step")
    known += sum(EVERY * float(row["seconds_per_step"]) for row in later)
    known += sum(float(one["seconds"]) for one in saves)
    image = pictures = 0.0
    if looks:
        last = looks[-1]
        image = float(last["seconds"]) / max(1, int(last["images"]))
        pictures = float(last["drawing_seconds"])
        known += len(looks) * (float(last["seconds"]) + pictures)
    return Probe(
        start_seconds=max(0.0, total - known),
        step_seconds=step,
        waited_seconds=waited,
        image_seconds=image,
        pictures_seconds=pictures,
        save_seconds=save,
        memory_bytes=max(int(row["memory_bytes"]) for row in rows),
        decoding_seconds=max(0.0, _median(fresh, "seconds_per_step") - step),
        decoding_waited_seconds=max(0.0, _median(fresh, "data_seconds") - waited),
    )


def _median(rows: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(float(row[name]) for row in rows)


def _seen_again(data: Dataset, recipe: Recipe) -> tuple[Dataset, Passes]:
    """The data set with so few training images that a probe sees them three times, and which steps see them how.

    They are turned round, so that not even a small data set keeps on the disk under the same name what a probe does.
    """
    split, batch = data["train"], recipe.train.batch_size
    if split.shard_of is not None:
        return data, ALIKE
    few = spread(len(split), (WARM + FRESH) * batch)
    chosen = replace(data, splits={**data.splits, "train": split.subset(reversed(few))})
    times = (
        2 if recipe.data.cache == "disk" else 1
    )  # what lies on the disk is compared when it is first taken
    return chosen, Passes(len(few) // batch, -(-times * len(few) // batch))


def before_first_step(recipe: Recipe, data: Dataset) -> tuple[float, Rarity]:
    """Return what a training does with all of its images before the first step, in seconds, and what is rare.

    What it keeps for the next training is not counted: the plan has paid for it. data: with its classes merged.
    """
    split = data["train"]
    if recipe.data.rare_images or recipe.data.rare_crops:
        rarity(split, recipe.data, location=data.location)
    began = time.perf_counter()
    rare = rarity(
        split, recipe.data, location=data.location, quiet=True
    )  # now out of the cache, if there is one
    if recipe.loss.class_weights != "none":
        class_pixels(split, len(data.classes), ignore=data.classes.ignore)
    if recipe.data.cache == "disk" and split.shard_of is None:
        cache_key(data, split)
        for index in range(len(split)):  # to lay them out
            split.size_hw(index)
    return time.perf_counter() - began, rare


def with_few_to_look_at(data: Dataset, recipe: Recipe) -> Dataset:
    """The data set with a few images to validate on, spread over the split."""
    name = recipe.eval.split
    if name not in data.splits or name == "train":
        return data
    split = data.splits[name]
    few = spread(len(split), max(LOOKED, 2 * recipe.eval.batch_size))
    return replace(data, splits={**data.splits, name: split.subset(few)})
