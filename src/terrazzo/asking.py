"""What a training is asked for, and the recipe that comes of it: a new one, or that of the run that goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from torch import nn

from terrazzo.data import Dataset
from terrazzo.errors import RecipeError, RunError, UsageError, quoted
from terrazzo.launcher import place
from terrazzo.optim import check_warmup, shortened_warmup
from terrazzo.recipe import Recipe, load
from terrazzo.recipes import openmmlab
from terrazzo.run import Run
from terrazzo.storage import read_json

FREE_ON_RESUME = (
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.pictures",
    "train.loggers",
    "train.gradient_checkpointing",
    "train.micro_batch",
    "train.compile",
    "train.shard",
    "data.workers",
    "data.cache",
    "data.on_unreadable",
)  # overrides that do not change what is computed


@dataclass(frozen=True)
class Asked:
    """What `training.train` was asked for: its arguments, which its docstring explains."""

    recipe: str | PathLike[str] | Recipe | None = None
    data: str | PathLike[str] | Dataset | None = None
    out: str | PathLike[str] | None = None
    overrides: Sequence[str] = ()
    network: nn.Module | None = None
    loss: Callable[..., Any] | None = None
    metrics: Mapping[str, Callable[..., float]] | None = None
    overfit: int = 0
    fold: tuple[int, int] | None = None
    resume: str | PathLike[str] | None = None
    seed: int | None = None
    data_changed_ok: bool = False


def recipe_named(recipe: str | PathLike[str] | Recipe | None) -> Recipe:
    """Return the recipe as it is before overrides; UsageError where none is named."""
    if recipe is None:
        raise UsageError("Training needs a recipe.", hint="The catalogue:", command="terrazzo recipes")
    return load(recipe)


def overridden(base: Recipe, overrides: Sequence[str], *, seed: int | None) -> Recipe:
    """Return the recipe with its fields replaced, checked; a seed of its own goes before train.seed."""
    chosen = base.with_overrides(overrides)
    return replace(chosen, train=replace(chosen.train, seed=seed)).check() if seed is not None else chosen


def with_room_for_warmup(recipe: Recipe, steps: int, overrides: Sequence[str]) -> Recipe:
    """Return the recipe with a warm-up that ends before its epochs do; one that was asked for has to."""
    if _is_given("optim.warmup_steps", overrides):
        check_warmup(recipe.optim, steps)
    return replace(recipe, optim=shortened_warmup(recipe.optim, steps))


def shorter_warmup(base: Recipe, recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """Return the line that says so, where `with_room_for_warmup` shortened a warm-up."""
    before, now = base.optim.warmup_steps, recipe.optim.warmup_steps
    if before == now or _is_given("optim.warmup_steps", overrides):
        return []
    return [f"warm-up of {now} steps instead of {before:,}: a tenth of so short a training"]


def _is_given(field: str, overrides: Sequence[str]) -> bool:
    return any(override.partition("=")[0].strip() == field for override in overrides)


def taken_by_name(recipe: str | PathLike[str] | Recipe | None) -> list[str]:
    """Return the line that says that a config's file was not read, where there is one."""
    if recipe is None or isinstance(recipe, Recipe) or not openmmlab.is_name(fspath(recipe)):
        return []
    return (
        [f"{recipe} is taken by its name; what is written in it is not read"]
        if Path(recipe).is_file()
        else []
    )


def recipe_of_resumed(run: Run, asked: Asked) -> Recipe:
    """Return the run's own recipe; another one, or an override that would change what is computed, is refused."""
    recipe, overrides = asked.recipe, asked.overrides
    if recipe is not None:
        other = recipe if isinstance(recipe, Recipe) else load(recipe, ())
        if other.name != run.recipe.name:
            raise RunError(
                f"{run.path} is a run of another recipe.",
                found=other.name,
                expected=run.recipe.name,
                hint="A run goes on with its own recipe:",
                command=f"terrazzo train --resume {quoted(run.path)}",
            )
    fixed = [item for item in overrides if item.partition("=")[0].strip() not in FREE_ON_RESUME]
    if fixed:
        raise RecipeError(
            "A resumed run keeps its recipe; otherwise it would not be the same training.",
            found=", ".join(fixed),
            expected=f"no override, or one of {', '.join(FREE_ON_RESUME)}",
            hint="To train further from its weights with other settings, start a new run:",
            command=f"terrazzo train {run.recipe.name} --data DATA model.init={quoted(run.path)} {' '.join(fixed)}",
        )
    chosen = run.recipe.with_overrides(overrides)
    return chosen.check()


def begun_before(asked: Asked) -> Path | None:
    """Return the run that this very command began before its launcher started it again (`torchrun --max-restarts`)."""
    mine = place().attempt
    if mine is None:
        return None
    files = sorted(Path("runs").glob("*/env.json")) if asked.out is None else [Path(asked.out) / "env.json"]
    for file in files:
        if file.with_name("recipe.json").is_file() and read_json(file).get("launch") == mine:
            run = Run.open(file.parent)
            warmup = run.recipe.optim.warmup_steps  # may have been shortened to the data
            wanted = overridden(recipe_named(asked.recipe), asked.overrides, seed=asked.seed)
            wanted = replace(wanted, optim=replace(wanted.optim, warmup_steps=warmup))
            if run.data["overfit"] or run.recipe == wanted:
                return run.path if run.data["overfit"] == asked.overfit else None
    return None
