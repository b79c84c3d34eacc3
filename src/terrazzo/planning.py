"""How long a training takes on this machine, and what to change so that it ends in time: measured, then computed.

The probe is the training itself: `training.train`, in a folder that is thrown away, for a few steps and two validations
of a few images, so that what is measured is what will run. A plan is that measurement times the counts of the recipe:

    start + steps * step + decoded * decoding + looks * (images * image + pictures) + saves * save

`decoded` is how many steps' worth of images have to be decoded (`planned_reads.py`): most of them once, for they are
then kept. So the probe trains on so few images that it sees them again. `start` is what this training will pay: what
the probe paid for good is not in it, such as a count of the classes that is kept for the next time.

Changes that leave the result as it is are tried where the measurement asks for them, and kept where they pay: portions
that fit the memory, threads and memory for the loader. What changes the result is proposed only where a budget of time
leaves too few passes over the data, and said to be another training.
"""

# What is not in it: a machine that does other things later, and files that come slower than those of the probe.

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from terrazzo.asking import overridden, recipe_named
from terrazzo.data import Dataset, open_dataset
from terrazzo.data.folds import folded
from terrazzo.data.loader import default_threads
from terrazzo.data.sampling import Rarity
from terrazzo.devices import choose_device, choose_precision
from terrazzo.errors import MemoryShortageError, UsageError
from terrazzo.launcher import place
from terrazzo.memory import GRAIN, HALF, mib
from terrazzo.planned_reads import Reads, reads_of
from terrazzo.probing import Probe, before_first_step, probed, warm_up, with_few_to_look_at
from terrazzo.progress import duration
from terrazzo.recipe import Recipe

MARGIN = 0.95  # of a budget that is planned with: the rest is for what cannot be known
FEW_EPOCHS = 20.0  # below which a budget is better spent on smaller crops
LOOKING = 0.1  # share of the time that validations may take where a budget sets the steps
LOOKS = 20  # validations at most, then
WAITING = 0.1  # share of a step spent waiting for data, above which something is changed
WORTH = 0.95  # of the time of a step: what does not get below is not changed


@dataclass(frozen=True)
class Plan:
    """What a training will be, and how long it will take."""

    recipe: Recipe
    """With everything decided."""
    probe: Probe
    """On this machine."""
    reads: Reads
    """The images of the training split."""
    looked_at: int
    """Images of the validation split."""
    device: str
    """On which it runs."""
    precision: str
    """In which the forward pass computes."""
    budget: float | None = None
    """Seconds it may take."""
    measuring: float = 0.0
    """Seconds of the budget that were spent on measuring."""
    overrides: tuple[str, ...] = ()
    """What was changed, as it is typed."""
    said: tuple[str, ...] = ()
    """Why, a line each."""

    @property
    def images(self) -> int:
        """Of the training split."""
        return self.reads.images

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.recipe.num_steps(self.images)

    @property
    def epochs(self) -> float:
        """Passes over the training split."""
        return self.steps * self.recipe.train.batch_size / self.images

    def decoded(self, steps: int) -> float:
        """For how many of the first `steps` there are images to decode, all of a step's taken together."""
        batch = self.recipe.train.batch_size
        return self.reads.decoded(steps * batch) / batch

    def stepping(self, steps: int) -> float:
        """Seconds that the first `steps` take."""
        return steps * self.probe.step_seconds + self.decoded(steps) * self.probe.decoding_seconds

    @property
    def waiting(self) -> float:
        """Share of its steps' time that is spent waiting for data, 0-1."""
        one = self.probe
        waited = self.steps * one.waited_seconds + self.decoded(self.steps) * one.decoding_waited_seconds
        return waited / max(self.stepping(self.steps), 1e-9)

    @property
    def looks(self) -> int:
        """How often is validated."""
        return _times(self.steps, self.recipe.eval.every) if self.looked_at else 0

    @property
    def saves(self) -> int:
        """How many checkpoints are written: with every validation, and in between."""
        every, look = self.recipe.train.save_every, self.recipe.eval.every
        both = self.steps // math.lcm(every, look) + (self.steps % every == 0 and self.steps % look != 0)
        return _times(self.steps, look) + self.steps // every - both

    @property
    def look_seconds(self) -> float:
        """One validation."""
        return self.looked_at * self.probe.image_seconds + self.probe.pictures_seconds

    @property
    def seconds(self) -> float:
        """The whole training."""
        one = self.probe
        return (
            one.start_seconds
            + self.stepping(self.steps)
            + self.looks * self.look_seconds
            + self.saves * one.save_seconds
        )

    def typed(self, overrides: Sequence[str]) -> list[str]:
        """Return the overrides that train as planned, for those that the plan was asked with."""
        own = {_field(one) for one in self.overrides}
        own |= {"train.epochs", "train.steps"} if "train.steps" in own else set()
        return [*(one for one in overrides if _field(one) not in own), *self.overrides]

    def __str__(self) -> str:
        recipe, probe = self.recipe, self.probe
        portion = recipe.train.micro_batch or recipe.train.batch_size
        crop = "{}x{}".format(*recipe.data.crop_hw) if recipe.data.augment else "whole images"
        ends = time.strftime("%H:%M", time.localtime(time.time() + self.seconds))
        slow, few = probe.step_seconds + probe.decoding_seconds, self.decoded(self.steps)
        is_told = few >= 1 and WORTH * slow > probe.step_seconds
        first = f"; {slow:.3f} s where images are decoded, {few:,.0f} of them" if is_told else ""
        rows = [
            ("crop", crop),
            ("batch", f"{recipe.train.batch_size} images, {portion} at a time"),
            ("workers", _workers(recipe)),
            ("precision", f"{self.precision} on {self.device}"),
            ("steps", f"{self.steps:,}, {self.epochs:.1f} times over {self.images:,} images"),
            (
                "step",
                f"{probe.step_seconds:.3f} s, {100 * self.waiting:.0f} % of the time waiting for data{first}",
            ),
            (
                "validation",
                f"{self.looks} x {duration(self.look_seconds)}, on {self.looked_at:,} images",
            ),
            ("memory", mib(probe.memory_bytes) + (" (of the process)" if self.device == "cpu" else "")),
            ("time", f"{duration(self.seconds)}; begun now, it ends at {ends}"),
        ]
        if self.budget is not None:
            spent = f", {duration(self.measuring)} of it for measuring" if self.measuring else ""
            rows.append(
                ("budget", f"{duration(self.budget)}, of which {100 * MARGIN:.0f} % are planned with{spent}")
            )
        lines = [f"{name:<12}{value}" for name, value in rows]
        if self.overrides:
            lines += ["", "What is changed, and why:", *(f"  {line}" for line in self.said)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON."""
        return {
            "recipe": self.recipe.name,
            "overrides": list(self.overrides),
            "said": list(self.said),
            "device": self.device,
            "precision": self.precision,
            "steps": self.steps,
            "epochs": self.epochs,
            "looks": self.looks,
            "seconds": self.seconds,
            "budget": self.budget,
            "measuring": self.measuring,
            "decoded": self.decoded(self.steps),
            "probe": {name: getattr(self.probe, name) for name in Probe.__dataclass_fields__},
        }

    def compared(self, seconds: float) -> str:
        """Return the sentence that holds the plan beside what it took."""
        off = 100 * (seconds / self.seconds - 1)
        return f"planned {duration(self.seconds)}, took {duration(seconds)} ({off:+.0f} %)"


def plan(
    recipe: "str | PathLike[str] | Recipe",
    *,
    data: "str | PathLike[str] | Dataset | None" = None,
    overrides: Sequence[str] = (),
    budget: float | None = None,
    fold: tuple[int, int] | None = None,
    device: str = "auto",
    seed: int | None = None,
    is_measuring_paid: bool = False,
) -> Plan:
    """Measure a few steps of a training and return what the whole of it will be; nothing of it is kept.

    The arguments are those of `training.train`. budget: seconds that it may take; steps and validations are then chosen
    to end within it, and smaller crops where it would see each image less than 20 times. is_measuring_paid: the budget
    began with this call, as where the training follows at once.
    Raises what training raises; UsageError under a launcher of several processes, or for a budget that is too short.
    """
    if place().world > 1:
        raise UsageError(
            "A plan is measured in one process.",
            found=f"{place().world} processes",
            hint="Plan without the launcher; N processes that share a batch take about an N-th of a step's time.",
        )
    chosen = overridden(recipe_named(recipe), overrides, seed=seed)
    source: Any = data if data is not None else chosen.default_data
    if source is None:
        raise UsageError("A plan needs a data set.", hint="Name a folder, a saved data set or a Hub id:",
                         command=f"terrazzo train {chosen.name} --data DATA --plan")  # fmt: skip
    began = time.perf_counter()
    whole = _opened(source, chosen, fold)
    opening = 0.0
    if not isinstance(source, Dataset):
        again = time.perf_counter()  # the training opens it once more, and finds what was kept
        _opened(source, chosen, fold)
        opening = time.perf_counter() - again
    merged = whole.merged(chosen.data.merge)
    few = with_few_to_look_at(whole, chosen)
    typed = list(overrides)
    once: list[tuple[float, Rarity]] = []

    def measured(*more: str) -> Probe:
        words = [*typed, *more]
        if not once:
            warm_up(chosen, few, words, device=device, seed=seed)
            once.append(before_first_step(chosen, merged))
        before, rare = once[0]
        asked = chosen.with_overrides(more)
        is_kept = reads_of(merged, asked, rare).kept > 0
        probe = probed(chosen, few, words, device=device, seed=seed, is_kept=is_kept)
        return replace(probe, start_seconds=probe.start_seconds + opening + before)

    def reads(recipe: Recipe) -> Reads:
        return reads_of(merged, recipe, once[0][1])

    probe, kept, said = _fitting(measured, chosen)
    where = choose_device(device)
    decided = overridden(chosen, kept, seed=None)
    made = Plan(
        recipe=decided,
        probe=probe,
        reads=reads(decided),
        looked_at=_looked_at(whole, chosen),
        device=where.type,
        precision=choose_precision(chosen.train.precision, where),
        budget=budget,
        overrides=tuple(kept),
        said=tuple(said),
    )
    made = _fed(made, measured, reads, typed)
    if budget is None:
        return made

    def spent() -> float:
        return time.perf_counter() - began if is_measuring_paid else 0.0

    return _within(made, measured, typed, spent)


def _opened(source: Any, recipe: Recipe, fold: tuple[int, int] | None) -> Dataset:
    """The data set, and its fingerprint, which is kept for the training."""
    data = open_dataset(source, keep_void=recipe.data.keep_void, stream=recipe.data.stream)
    data = data if fold is None else folded(data, fold)
    _ = data.fingerprint
    return data


def _fitting(measured: Any, recipe: Recipe) -> tuple[Probe, list[str], list[str]]:
    """The probe in the largest portions that the memory holds; results do not depend on them."""
    micro = recipe.train.micro_batch or recipe.train.batch_size
    kept: list[str] = []
    said: list[str] = []
    while True:
        try:
            return measured(*kept), kept, said
        except MemoryShortageError:
            smaller = [n for n in range(1, micro // 2 + 1) if recipe.train.batch_size % n == 0]
            if not smaller:
                raise
            micro = smaller[-1]
            kept = [f"train.micro_batch={micro}"]
            said = [f"{kept[0]}: more at a time does not fit the memory; the result is the same"]


def _fed(made: Plan, measured: Any, reads: Callable[[Recipe], Reads], typed: Sequence[str]) -> Plan:
    """The plan with more threads for the loader, or samples kept decoded, where steps wait for data and it helps."""
    if made.waiting <= WAITING:
        return made
    ways = []
    threads = default_threads() if made.recipe.data.workers < 0 else made.recipe.data.workers
    if not _is_typed("data.workers", typed) and threads < 2 * default_threads():
        ways.append((f"data.workers={2 * default_threads()}", "twice the threads"))
    data = made.recipe.data
    can_keep = data.cache != "memory" and not data.scaled_decoding
    if not _is_typed("data.cache", typed) and can_keep and made.epochs > 2:
        ways.append(("data.cache=memory", "each image is decoded once"))
    for override, why in ways:
        other = _changed(made, measured(*made.overrides, override), override, "")
        other = replace(other, reads=reads(other.recipe))
        mine, its = (one.stepping(one.steps) / one.steps for one in (made, other))
        if its < WORTH * mine:
            line = f"{override}: {why}; {its:.3f} s a step instead of {mine:.3f}; the result is the same"
            made = replace(other, said=(*made.said, line))
    return made


def _nothing() -> float:
    return 0.0


def _within(made: Plan, measured: Any, typed: Sequence[str], spent: Callable[[], float] = _nothing) -> Plan:
    """The plan whose steps end within its budget; spent: seconds of it that are over."""
    budget = made.budget
    assert budget is not None
    made = replace(made, measuring=spent())
    fitted = _steps_within(made, budget)
    data = made.recipe.data
    height, width = (max(GRAIN, int(side * HALF) // GRAIN * GRAIN) for side in data.crop_hw)
    can_shrink = data.augment and (height, width) != data.crop_hw and not _is_typed("data.crop_hw", typed)
    if fitted is not None and (fitted.epochs >= FEW_EPOCHS or not can_shrink):
        return fitted
    if can_shrink:
        override = f"data.crop_hw={height}x{width}"
        probe = measured(*made.overrides, override)
        made = replace(made, measuring=spent())
        fitted = _steps_within(made, budget)  # in what is left now
        line = f"{override}: half the area, for more steps; another training: less is seen around a pixel"
        smaller = _steps_within(_changed(made, probe, override, line), budget)
        if smaller is not None and (fitted is None or smaller.steps > fitted.steps / WORTH):
            return smaller
    if fitted is None:
        least = made.probe.start_seconds + made.look_seconds + made.probe.save_seconds
        spent_on = f"; measuring took {duration(made.measuring)}" if made.measuring else ""
        raise UsageError(
            "The budget is over before a training is worth its name.",
            found=f"{duration(budget)}; starting, one validation and one checkpoint take {duration(least)}{spent_on}",
            expected=f"{duration((made.measuring + least + made.stepping(100)) / MARGIN)} for 100 steps",
        )
    return fitted


def _steps_within(made: Plan, budget: float) -> Plan | None:
    """The plan with as many steps as the budget has room for, and validations for a tenth of it; None: for none."""
    probe, room = made.probe, MARGIN * budget - made.measuring - made.probe.start_seconds
    look = made.look_seconds + probe.save_seconds if made.looked_at else probe.save_seconds
    looks = max(1, min(LOOKS, int(LOOKING * room / look))) if look > 0 else LOOKS
    room -= looks * look
    steps, beyond = 0, max(1, int(room / probe.step_seconds) + 1)
    while beyond - steps > 1:  # between the two lies the last that fits
        middle = (steps + beyond) // 2
        steps, beyond = (middle, beyond) if made.stepping(middle) <= room else (steps, middle)
    if steps < 1:
        return None
    every = max(1, math.ceil(steps / looks))
    overrides = (f"train.steps={steps}", f"eval.every={every}", f"train.save_every={every}")
    said = (
        f"train.steps={steps}: what the budget has room for",
        f"eval.every={every}: validations take about a tenth of the time at most",
        f"train.save_every={every}: a checkpoint with each",
    )
    return replace(
        made,
        recipe=made.recipe.with_overrides(overrides),
        overrides=(*made.overrides, *overrides),
        said=(*made.said, *said),
    )


def _changed(made: Plan, probe: Probe, override: str, line: str) -> Plan:
    return replace(
        made,
        recipe=made.recipe.with_overrides([override]),
        probe=probe,
        overrides=(*made.overrides, override),
        said=(*made.said, line),
    )


def _looked_at(data: Dataset, recipe: Recipe) -> int:
    split = data.splits.get(recipe.eval.split)
    return len(split) if split is not None and split.has_masks else 0


def _workers(recipe: Recipe) -> str:
    threads = default_threads() if recipe.data.workers < 0 else recipe.data.workers
    kept = {
        "auto": "images kept decoded while memory lasts",
        "memory": "every image kept decoded in memory",
        "disk": "every image kept decoded on the disk",
        "none": "no image kept decoded",
    }
    return f"{threads}, {kept['none' if recipe.data.scaled_decoding else recipe.data.cache]}"


def _is_typed(field: str, overrides: Sequence[str]) -> bool:
    return any(_field(one) == field for one in overrides)


def _field(override: str) -> str:
    return override.partition("=")[0].strip()


def _times(steps: int, every: int) -> int:
    """How often something is done every so many steps, and after the last."""
    return steps // every + (steps % every != 0)
