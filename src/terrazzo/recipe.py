"""A recipe: everything one decides before training, as one frozen value made of the parts' own configs.

A recipe comes from the catalogue (`recipes/*.py`, one flat file each), from a .py file that the user typed the path of,
or from the JSON that a run stored. `load` finds it, applies overrides such as "train.steps=2000" (`overrides.py` reads
them) and checks it; every problem is told at once. Nothing is inherited, merged or guessed, and what can be derived is
not written: the count of classes comes from the data, the count of steps of an epoch from `num_steps`.
"""

import ast
import math
import pkgutil
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from terrazzo import fields as leaf
from terrazzo import recipes as catalogue
from terrazzo.data.transforms import DataConfig
from terrazzo.errors import MissingPathError, RecipeError, TerrazzoError, unknown_name
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import TERMS, LossConfig
from terrazzo.optim import OptimConfig, check_warmup, shortened_warmup
from terrazzo.overrides import mistyped, raise_all, read_json_fields, read_overrides, replaced
from terrazzo.ranges import out_of_range
from terrazzo.storage import read_json

FORMAT_VERSION = 1
TTA_SCALES = (
    0.5,
    0.75,
    1.0,
    1.25,
    1.5,
    1.75,
)  # eval.scales of --tta, with flip: as MMSegmentation's tta_pipeline


@dataclass(frozen=True)
class TrainConfig:
    """How long and in which portions to train: `recipe.train`."""

    steps: int | None = 20_000
    """Optimiser steps; null where epochs says how long. As an override it takes the place of epochs."""
    epochs: float | None = None
    """Passes over the training split; null where steps says how long. As an override it takes the place of steps."""
    batch_size: int = 16
    """Images per optimiser step over all processes, on which results depend."""
    micro_batch: int = 0
    """Images per forward pass and process, a divisor of batch_size; 0 is the process's whole share."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 where the device is fast at it, else f16 on a GPU, else f32."""
    max_grad_norm: float | None = 1.0
    """Scale gradients down to this norm; null leaves them as they are."""
    log_every: int = 50
    """Steps between two lines of the log."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """Newest checkpoints that stay, beside the best; 0: all."""
    seed: int = 0
    """Seeds the weights, the order of the samples and their augmentation."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, that is then validated and saved; 0 is off."""
    patience: int = 0
    """Stop after this many validations without a better mIoU; 0 is never."""
    sync_batch_norm: bool = False
    """Batch norm sees the batches of all processes."""
    shard: Literal["none", "fsdp"] = "none"
    """fsdp: each process holds its part of weights, gradients and optimiser state, for networks that do not fit."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of holding them: slower, less memory."""
    cuda_graph: bool = True
    """On one GPU, where crops have one size: record a micro-batch once and replay it, instead of launching kernels."""
    compile: bool = False
    """Train through torch.compile, in place of train.cuda_graph; slower where it was measured, on a CPU."""
    pictures: int = 4
    """Validation samples drawn each time as image | truth | prediction."""
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    """Where curves and pictures go besides the run's own metrics.jsonl; none where it is empty."""


@dataclass(frozen=True)
class EvalConfig:
    """How to look at images after training, and how often meanwhile: `recipe.eval`."""

    every: int = 1000
    """Steps between two validations; the last step is always validated."""
    inference: Literal["whole", "windows"] = "whole"
    """The whole image at once, or windows averaged where they overlap."""
    window_hw: tuple[int, int] = (512, 512)
    """Height and width of a window."""
    stride_hw: tuple[int, int] = (384, 384)
    """How far windows lie apart, down and across; at most their size."""
    blend: Literal["uniform", "smooth"] = "uniform"
    """Where windows overlap, their logits count alike, or more the nearer a pixel is to its window's centre."""
    scales: tuple[float, ...] = (1.0,)
    """Sizes at which each image is looked at, as factors; the probabilities are averaged. --tta looks at six."""
    batch_size: int = 1
    """Images, or windows, per forward pass."""
    flip: bool = False
    """Average with the probabilities of the mirrored image, at every scale: twice the time."""
    split: str = "val"
    """The split that is validated on while training."""


@dataclass(frozen=True)
class Recipe:
    """One training, decided: what `load` returns, and what one may build in Python."""

    name: str
    """What the run calls itself; a recipe of the catalogue has the name of its file."""
    summary: str
    """One sentence: what it is good for."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    default_data: str | None = None
    """The data set taken when none is named: the one this recipe was made for."""
    made_for: str | None = None
    """The published data set whose numbers these are, such as cityscapes: on another one that is said; null: any."""

    def with_overrides(self, overrides: Sequence[str]) -> "Recipe":
        """Return this recipe with leaves replaced, as in ["train.steps=2000", "data.crop_hw=256x320"], and checked.

        Values are read by the type of their field: see `fields.parse`. A new train.steps takes the place of
        train.epochs, and the reverse; where it leaves no room for the warm-up, and nothing is said of that, the warm-up
        becomes a tenth of it. Raises RecipeError with every problem of every override.
        """
        values = read_overrides(self, overrides)
        for given, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
            if values.get(given) is not None and other not in values:
                values[other] = None
        if values.get("train.steps") is not None and "optim.warmup_steps" not in values:
            values["optim.warmup_steps"] = shortened_warmup(self.optim, values["train.steps"]).warmup_steps
        return replaced(self, values).check()

    def check(self) -> "Recipe":
        """Return this recipe if every value has its type and range and they agree; RecipeError lists all else."""
        where = f"in recipe {self.name!r}"
        for name, config in leaf.sections(Recipe).items():
            if not isinstance(section := getattr(self, name), config):
                raise RecipeError(f"{name} is {section!r}.", expected=f"a {config.__name__}")
        known = leaf.leaves(Recipe)
        raise_all([problem for one in known.values() if (problem := mistyped(self, one))], where)
        outside = [problem for path in known if (problem := out_of_range(path, leaf.get(self, path)))]
        raise_all([*outside, *_disagreements(self)], where)
        return self

    def num_steps(self, num_samples: int) -> int:
        """Return the optimiser steps of a training on `num_samples` images; a step that an epoch ends in is taken."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None, "check() has seen to it"
        exact = self.train.epochs * num_samples / self.train.batch_size
        return max(1, math.ceil(round(exact, 9)))  # 0.1 * 30 is a little more than 3

    def to_json(self) -> dict[str, Any]:
        """Return every leaf as plain JSON, sections nested; `from_json` reads it back exactly."""
        value: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for path in leaf.leaves(Recipe):
            section, _, name = path.rpartition(".")
            place = value.setdefault(section, {}) if section else value
            item = leaf.get(self, path)
            place[name] = list(item) if isinstance(item, tuple) else item
        return value

    @classmethod
    def from_json(cls, value: Any, *, where: str = "the recipe") -> "Recipe":
        """Read what `to_json` wrote, and check it; `where` names it in errors.

        A key that no field has is an error. A field that no key has takes its default, so that a recipe written before
        the field was there still loads.
        """
        version = value.get("format_version") if isinstance(value, Mapping) else None
        if version != FORMAT_VERSION:
            newer = isinstance(version, int) and version > FORMAT_VERSION
            raise RecipeError(
                f"{where} is no recipe that this version of terrazzo reads.",
                found="no format_version" if version is None else f"format_version {version}",
                expected=f"format_version {FORMAT_VERSION}",
                hint="It was written by a newer terrazzo:" if newer else None,
                command="pip install --upgrade terrazzo" if newer else None,
            )
        values = read_json_fields(cls, value, where)
        blank = cls(name=values["name"], summary=values["summary"])
        return replaced(blank, values).check()


def load(source: "str | PathLike[str] | Recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Return a checked recipe: of the catalogue by name, of a .py or .json file by path, or the one given.

    A .py file runs, since the user typed its path; it has to define `recipe() -> Recipe`. A .json file is what a run
    stores as recipe.json. A config name of MMSegmentation, or a path to such a config, is taken by its name alone: see
    `recipes.openmmlab`. Raises UnknownNameError, MissingPathError, RecipeError, UnreadableFileError.
    """
    found = source if isinstance(source, Recipe) else _find(fspath(source))
    return found.check().with_overrides(overrides) if overrides else found.check()


def names() -> list[str]:
    """Return the names of the catalogue, sorted."""
    modules = pkgutil.iter_modules(catalogue.__path__)
    return sorted(module.name.replace("_", "-") for module in modules if not module.ispkg)


def promise(name: str) -> str:
    """Return the docstring of a recipe of the catalogue, without running it: where it is from, what it reaches.

    For a config name of MMSegmentation, what is known of that.
    """
    if name not in names() and _openmmlab().is_name(name):
        return str(_openmmlab().promise(name))
    if name not in names():
        raise unknown_name("recipe", name, names(), command="terrazzo recipes")
    path = Path(catalogue.__path__[0]) / f"{name.replace('-', '_')}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def fields() -> list[leaf.Leaf]:
    """Return every field of a recipe in order: name, type, default, sentence; `ranges.RANGES` has the ranges."""
    return list(leaf.leaves(Recipe).values())


def describe(recipe: Recipe, *, width: int = 110) -> str:
    """Return one screen: every field of the recipe, its value, and as much of its sentence as `width` allows."""
    told = [one for one in fields() if one.name not in ("name", "summary")]
    left, middle = max(len(one.name) for one in told), 14
    lines, section = [f"{recipe.name}: {recipe.summary}"], None
    for one in told:
        here = one.name.rpartition(".")[0]
        lines += [""] if here != section else []
        section = here
        value = (
            f"  {one.name:<{left}}  {leaf.to_text(leaf.get(recipe, one.name), one.annotation):<{middle}}  "
        )
        lines.append((value + _clause(one.doc, width - len(value))).rstrip())
    return "\n".join(lines)


def _clause(sentence: str, room: int) -> str:
    """The sentence, or as many clauses of it as there is room for, or else as many words, and "…"."""
    if len(sentence) <= room:
        return sentence
    borders = [
        border.start() for border in re.finditer(r"[.;:](?= )", sentence) if 20 <= border.start() < room
    ]
    return (sentence[: borders[-1]] if borders else sentence[: max(room - 1, 0)].rpartition(" ")[0]) + "…"


# --- where a recipe is found ----------------------------------------------------------------------------------------


def _find(source: str) -> Recipe:
    path = Path(source)
    if _openmmlab().is_name(source):
        made = _openmmlab().recipe(source)
        assert isinstance(made, Recipe), source
        return made
    if path.suffix in (".py", ".json") or "/" in source or "\\" in source:
        return _read_file(path)
    if source not in names():
        raise unknown_name("recipe", source, names(), command="terrazzo recipes")
    made = import_module(f"{catalogue.__name__}.{source.replace('-', '_')}").recipe()
    assert isinstance(made, Recipe), source
    return made


def _openmmlab() -> ModuleType:
    """The page of MMSegmentation's names, which is made of this one."""
    return import_module(f"{catalogue.__name__}.openmmlab")


def _read_file(path: Path) -> Recipe:
    inside = path / "recipe.json"
    if path.is_dir() or path.suffix not in (".py", ".json"):
        raise RecipeError(
            f"{path} is no recipe.",
            found="a folder" if path.is_dir() else f"a path ending in {path.suffix or 'nothing'}",
            expected="a .py or .json file, or a name of the catalogue",
            hint="The recipe of a run is a file in its folder:" if inside.is_file() else "The catalogue:",
            command=str(inside) if inside.is_file() else "terrazzo recipes",
        )
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", hint="The catalogue:", command="terrazzo recipes")
    return _run_file(path) if path.suffix == ".py" else Recipe.from_json(read_json(path), where=str(path))


def _run_file(path: Path) -> Recipe:
    try:
        make = runpy.run_path(str(path)).get("recipe")
        made = make() if callable(make) else None
    except Exception as error:
        raise RecipeError(
            f"{_place(path, error)}: the recipe cannot be built.", found=_told(error)
        ) from error
    if not isinstance(made, Recipe):
        raise RecipeError(
            f"{path} gives no recipe.",
            found=f"recipe() returns {type(made).__name__}" if callable(make) else "no function recipe()",
            expected="def recipe() -> terrazzo.Recipe",
            hint="Each file of terrazzo/recipes is an example to copy.",
        )
    return made


def _place(path: Path, error: Exception) -> str:
    """The line of the user's file where it went wrong: the innermost frame that lies in it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    return f"{path}, line {line}" if line else str(path)


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, TerrazzoError) else f"{type(error).__name__}: {error}"


# --- what is wrong with a recipe ------------------------------------------------------------------------------------


def _disagreements(recipe: Recipe) -> Iterator[RecipeError]:
    train, look = recipe.train, recipe.eval
    if (train.steps is None) == (train.epochs is None):
        yield RecipeError(
            "train.steps and train.epochs both say how long to train.",
            found=f"train.steps={leaf.to_text(train.steps)} and train.epochs={leaf.to_text(train.epochs)}",
            expected="one of them, the other null",
        )
    if train.steps is not None and train.steps > 0:
        try:
            check_warmup(recipe.optim, train.steps)
        except RecipeError as problem:
            yield problem
    if recipe.optim.min_lr and recipe.optim.min_lr_factor:
        yield RecipeError(
            "optim.min_lr and optim.min_lr_factor both say where the learning rate ends.",
            found=f"optim.min_lr={recipe.optim.min_lr} and optim.min_lr_factor={recipe.optim.min_lr_factor}",
            expected="one of them, the other 0",
        )
    if recipe.optim.min_lr > recipe.optim.lr:
        yield RecipeError(
            f"optim.min_lr is {recipe.optim.min_lr}, above the peak it falls from.",
            expected=f"at most optim.lr, {recipe.optim.lr}",
        )
    if train.micro_batch > 0 and train.batch_size % train.micro_batch:
        divisors = [str(n) for n in range(1, train.batch_size + 1) if train.batch_size % n == 0]
        yield RecipeError(
            f"train.micro_batch is {train.micro_batch}, which does not divide train.batch_size {train.batch_size}.",
            expected=f"0 or one of {', '.join(divisors)}",
        )
    if recipe.data.scale[0] > recipe.data.scale[1]:
        yield RecipeError(
            f"data.scale is {leaf.to_text(recipe.data.scale)}.",
            expected="the smallest factor, then the largest",
        )
    if recipe.data.resize == "sides" and (recipe.data.interpolation, recipe.data.rounding) != (
        "bilinear",
        "pillow",
    ):
        yield RecipeError(
            "data.resize=sides evaluates and predicts with OpenCV's bilinear resizing, and with no other.",
            found=f"data.interpolation={recipe.data.interpolation} and data.rounding={recipe.data.rounding}",
            expected="data.interpolation=bilinear and data.rounding=pillow, or another data.resize",
        )
    if train.compile and train.shard == "fsdp":
        yield RecipeError(
            "train.compile does not know a network that is spread over processes.",
            found="train.compile=true and train.shard=fsdp",
            expected="one of them",
        )
    if recipe.data.scaled_decoding and recipe.data.cache in ("memory", "disk"):
        yield RecipeError(
            "data.scaled_decoding decodes an image for each crop anew; a cache keeps it whole.",
            found=f"data.scaled_decoding=true and data.cache={recipe.data.cache}",
            expected="data.cache=auto or none with it, or data.scaled_decoding=false",
        )
    if not any(getattr(recipe.loss, term) for term in TERMS):
        yield RecipeError(
            "Nothing is minimised: every term of the loss has weight 0.",
            expected="a weight above 0 for one of " + ", ".join(f"loss.{term}" for term in TERMS),
        )
    if recipe.loss.ohem and not (recipe.loss.ohem_threshold or recipe.loss.ohem_min_kept):
        yield RecipeError(
            "OHEM would keep no pixel.",
            found="loss.ohem_threshold=0.0 and loss.ohem_min_kept=0",
            expected="one of them above 0",
        )
    if not look.scales:
        yield RecipeError("eval.scales is empty.", expected="at least one factor, such as 1.0")
    if any(stride > size for stride, size in zip(look.stride_hw, look.window_hw, strict=True)):
        yield RecipeError(
            f"eval.stride_hw is {leaf.to_text(look.stride_hw)}; pixels between two windows would never be seen.",
            expected=f"at most eval.window_hw, {leaf.to_text(look.window_hw)}",
        )
