"""A recipe: everything one decides before training, as one frozen value made of the parts' own configs.

A recipe comes from the catalogue (`recipes/*.py`, one flat file each), from a .py file that the user typed the path of,
or from the JSON that a run stored. `load` finds it, applies overrides such as "train.steps=2000" and checks it; every
problem is told at once. Nothing is inherited, merged or guessed, and what can be derived is not written: the count of
classes comes from the data, the count of steps of an epoch from `num_steps`.
"""

import ast
import math
import pkgutil
import runpy
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from terrazzo import fields as leaf
from terrazzo import recipes as catalogue
from terrazzo.data.transforms import DataConfig
from terrazzo.errors import MissingPathError, RecipeError, nearest, unknown_name
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig, check_warmup
from terrazzo.storage import read_json

FORMAT_VERSION = 1


@dataclass(frozen=True)
class TrainConfig:
    """How long and in which portions to train: `recipe.train`."""

    steps: int | None = 20_000
    """Optimiser steps; null where epochs says how long. Given as an override it replaces epochs."""
    epochs: float | None = None
    """Passes over the training split; null where steps says how long. Given as an override it replaces steps."""
    batch_size: int = 16
    """Images per optimiser step, over all processes: what a result depends on."""
    micro_batch: int = 0
    """Images per forward pass and process; a divisor of batch_size; 0 is all of the process's share at once."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 where the device is fast at it, else f16 on a GPU, else f32."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; null leaves them as they are."""
    log_every: int = 50
    """Steps between two lines of the log."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    keep: int = 2
    """How many of the newest checkpoints stay, beside the best."""
    seed: int = 0
    """Seeds the weights, the order of the samples and their augmentation."""
    ema: float = 0.0
    """Decay of the moving average of the weights that is validated and saved, such as 0.999; 0 is off."""
    patience: int = 0
    """Stop after this many validations without a better mIoU; 0 is never."""
    sync_batch_norm: bool = False
    """Batch norm counts over all processes."""
    gradient_checkpointing: bool = False
    """Compute the backbone's activations twice to hold less of them in memory."""
    pictures: int = 4
    """How many validation samples are drawn as image | truth | prediction at each validation."""


@dataclass(frozen=True)
class EvalConfig:
    """How to look at images after training, and how often meanwhile: `recipe.eval`."""

    every: int = 1000
    """Steps between two validations; the last step is validated too."""
    inference: Literal["whole", "windows"] = "whole"
    """The whole image at once, or windows whose overlaps are averaged."""
    window_hw: tuple[int, int] = (512, 512)
    """Height and width of a window."""
    stride_hw: tuple[int, int] = (384, 384)
    """How far a window moves down and to the right; no more than its size, so that no pixel is missed."""
    batch_size: int = 1
    """Images, or windows, per forward pass."""
    flip: bool = False
    """Average with the prediction of the mirrored image: twice the time."""
    split: str = "val"
    """The split that is validated on during training."""


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
    """The data set this recipe was made for, taken when none is named: a folder, a Hub id, or "scenes"."""

    def with_overrides(self, overrides: Sequence[str]) -> "Recipe":
        """Return this recipe with leaves replaced, as in ["train.steps=2000", "data.crop_hw=256x320"], and checked.

        Values are read by the type of their field: see `fields.parse`. A new train.steps takes the place of
        train.epochs, and the reverse. Raises RecipeError with every problem of every override.
        """
        if isinstance(overrides, str):
            raise RecipeError(
                "Overrides are a list of strings.", found=repr(overrides), expected=repr([overrides])
            )
        values: dict[str, Any] = {}
        problems: list[RecipeError] = []
        for override in overrides:
            name, equals, text = (part.strip() for part in override.partition("="))
            try:
                known = self._leaf(name)
                if not equals:
                    raise RecipeError(
                        f"The override {override!r} has no value.", expected=self._example(known)
                    )
                if name in values:
                    raise RecipeError(
                        f"{name} is given twice.", found=f"{leaf.to_text(values[name])} and {text}"
                    )
                values[name] = self._parse(known, text)
            except RecipeError as problem:
                problems.append(problem)
        _raise(problems, f"in the overrides of recipe {self.name!r}")
        for given, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
            if values.get(given) is not None and other not in values:
                values[other] = None
        return leaf.replace_leaves(self, values).check()

    def _leaf(self, name: str) -> leaf.Leaf:
        known = leaf.leaves(Recipe)
        if name in known:
            return known[name]
        if name in leaf.sections(Recipe):
            inside = [path for path in known if path.startswith(name + ".")]
            raise RecipeError(
                f"{name} is a section of the recipe, not a field.",
                expected=f"one of its fields, such as {self._example(known[inside[0]])}",
                hint=f"Its fields: {', '.join(inside)}.",
            )
        raise _unknown_field(name, known, command=f"terrazzo recipes {self.name}")

    def _parse(self, known: leaf.Leaf, text: str) -> Any:
        try:
            value = leaf.parse(text, known.annotation)
        except ValueError as error:
            expected = f"{leaf.expects(known.annotation)}, such as {self._example(known)}"
            raise RecipeError(f"{known.name} cannot be {text!r}.", expected=expected) from error
        if problem := _out_of_range(known.name, value):
            raise problem
        return value

    def _example(self, known: leaf.Leaf) -> str:
        """Write the leaf as an override: with its value here, or one of its type where that says nothing."""
        value = leaf.get(self, known.name)
        says = value not in (None, ())
        return f"{known.name}={leaf.to_text(value, known.annotation) if says else leaf.example(known.annotation)}"

    def check(self) -> "Recipe":
        """Return this recipe if every value has its type and range and they agree; RecipeError lists all else."""
        problems = [p for known in leaf.leaves(Recipe).values() if (p := _mistyped(self, known))]
        if not problems:  # values are compared only when they can be
            paths = leaf.leaves(Recipe)
            problems = [
                p for path in paths if (p := _out_of_range(path, leaf.get(self, path)))
            ] + self._disagreements()
        _raise(problems, f"in recipe {self.name!r}")
        return self

    def _disagreements(self) -> list[RecipeError]:
        data, train, look, found = self.data, self.train, self.eval, []
        if (train.steps is None) == (train.epochs is None):
            both = f"train.steps={leaf.to_text(train.steps)} and train.epochs={leaf.to_text(train.epochs)}"
            found.append(
                RecipeError(
                    "A training is as long as train.steps or train.epochs says.",
                    found=both,
                    expected="one of them, the other null",
                )
            )
        if train.steps is not None and train.steps > 0:
            try:
                check_warmup(self.optim, train.steps)
            except RecipeError as problem:
                found.append(problem)
        if train.micro_batch > 0 and train.batch_size % train.micro_batch:
            divisors = [str(n) for n in range(1, train.batch_size + 1) if train.batch_size % n == 0]
            is_no_divisor = f"which does not divide train.batch_size {train.batch_size}"
            found.append(
                RecipeError(
                    f"train.micro_batch is {train.micro_batch}, {is_no_divisor}.",
                    expected=f"0 or one of {', '.join(divisors)}",
                )
            )
        if data.scale[0] > data.scale[1]:
            found.append(
                RecipeError(f"data.scale is {leaf.to_text(data.scale)}.", expected="the smaller factor first")
            )
        if any(stride > size for stride, size in zip(look.stride_hw, look.window_hw, strict=True)):
            found.append(
                RecipeError(
                    f"eval.stride_hw is {leaf.to_text(look.stride_hw)}, more than the window.",
                    expected=f"no more than eval.window_hw={leaf.to_text(look.window_hw)}",
                    hint="Pixels between two windows would never be seen.",
                )
            )
        return found

    def num_steps(self, num_samples: int) -> int:
        """Return the optimiser steps of a training on `num_samples` images; an epoch that begins is finished."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None, "check() has seen to it"
        return max(1, math.ceil(self.train.epochs * num_samples / self.train.batch_size))

    def to_json(self) -> dict[str, Any]:
        """Return every leaf as plain JSON, sections nested; `from_json` reads it back exactly."""
        value: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for path in leaf.leaves(Recipe):
            section, _, name = path.rpartition(".")
            place = value.setdefault(section, {}) if section else value
            place[name] = _plain(leaf.get(self, path))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str = "the recipe") -> "Recipe":
        """Read what `to_json` wrote; `where` names it in errors. Checked.

        A key that no field has is an error; a field that no key has takes its default, so that a recipe written before
        the field was there still loads.
        """
        version = value.get("format_version") if isinstance(value, Mapping) else None
        if version != FORMAT_VERSION:
            newer = isinstance(version, int) and version > FORMAT_VERSION
            raise RecipeError(
                f"{where} is not a recipe this version of terrazzo reads.",
                found=f"format_version {version}" if version is not None else "no format_version",
                expected=f"format_version {FORMAT_VERSION}",
                hint="It was written by a newer terrazzo:" if newer else None,
                command="pip install --upgrade terrazzo" if newer else None,
            )
        known, problems = leaf.leaves(cls), list[RecipeError]()
        values: dict[str, Any] = {}
        for path, item in _flat(value, leaf.sections(cls)):
            try:
                values[path] = _conformed(path, item, known)
            except RecipeError as problem:
                problems.append(problem)
        required = [path for path, one in known.items() if one.default is MISSING]
        problems += [RecipeError(f"{path} is missing.") for path in required if path not in value]
        _raise(problems, f"in {where}")
        top = {path: values[path] for path in required}
        return leaf.replace_leaves(cls(**top), values).check()


def load(name_or_path: "str | Path | Recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Return a checked recipe: of the catalogue by name, of a .py or .json file by path, or the one given.

    A .py file runs, since the user typed its path; it has to define `recipe() -> Recipe`. A .json file is what a run
    stores as recipe.json. Raises UnknownNameError, MissingPathError or RecipeError.
    """
    if isinstance(name_or_path, Recipe):
        return name_or_path.check().with_overrides(overrides)
    return _find(str(name_or_path)).check().with_overrides(overrides)


def names() -> list[str]:
    """Return the names of the catalogue, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(catalogue.__path__))


def promise(name: str) -> str:
    """Return the docstring of a recipe of the catalogue, without running it: where it is from and what it reaches."""
    if name not in names():
        raise unknown_name("recipe", name, names(), command="terrazzo recipes")
    path = Path(catalogue.__path__[0]) / f"{name.replace('-', '_')}.py"
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def fields() -> list[leaf.Leaf]:
    """Return every field a recipe has, in order, with its type, default and sentence: the reference page's source."""
    return list(leaf.leaves(Recipe).values())


def range_text(name: str) -> str:
    """Return the range of a numeric field in words, such as "at least 1"; "" where there is none."""
    return RANGES[name].text if name in RANGES else ""


def describe(recipe: Recipe, *, width: int = 110) -> str:
    """Return one screen: every field of the recipe with its value and the first sentence about it."""
    told = [one for one in fields() if one.name not in ("name", "summary")]
    shown = {one.name: (leaf.to_text(leaf.get(recipe, one.name), one.annotation), one.doc) for one in told}
    left = max(map(len, shown))
    middle = max(8, min(22, max(len(value) for value, _ in shown.values())))
    lines = [f"{recipe.name}: {recipe.summary}"]
    section = ""
    for path, (value, doc) in shown.items():
        if (here := path.rpartition(".")[0]) != section:
            section = here
            lines.append("")
        line = f"  {path:<{left}}  {value:<{middle}}  {doc}"
        lines.append(line if len(line) <= width else line[: width - 1].rstrip() + "…")
    return "\n".join(lines)


# --- where a recipe is found ----------------------------------------------------------------------------------------


def _find(source: str) -> Recipe:
    path = Path(source)
    if path.suffix in (".py", ".json") or "/" in source or "\\" in source:
        if path.is_dir():
            inside = path / "recipe.json"
            hint = "The recipe of a run is a file in it:" if inside.is_file() else None
            raise RecipeError(
                f"{source} is a folder.",
                expected="a .py or .json file",
                hint=hint,
                command=str(inside) if hint else None,
            )
        if not path.is_file():
            raise MissingPathError(
                f"There is no file {source}.",
                expected="a recipe: a .py or .json file",
                command="terrazzo recipes",
            )
        if path.suffix == ".py":
            return _run_file(path)
        return Recipe.from_json(read_json(path), where=source)
    if source not in names():
        raise unknown_name("recipe", source, names(), command="terrazzo recipes")
    made = import_module(f"{catalogue.__name__}.{source.replace('-', '_')}").recipe()
    assert isinstance(made, Recipe)
    return made


def _run_file(path: Path) -> Recipe:
    try:
        make = runpy.run_path(str(path)).get("recipe")
        made = make() if callable(make) else None
    except RecipeError:
        raise
    except Exception as error:
        at = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
        ]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (at[-1] if at else None)
        raise RecipeError(
            f"{path}{f', line {line}' if line else ''}: the recipe cannot be built.",
            found=f"{type(error).__name__}: {error}",
        ) from error
    if not isinstance(made, Recipe):
        raise RecipeError(
            f"{path} gives no recipe.",
            found="no function recipe()" if not callable(make) else f"recipe() returns {type(made).__name__}",
            expected="def recipe() -> terrazzo.Recipe",
            hint="Any file of terrazzo/recipes is an example to copy.",
        )
    return made


# --- what a value may be --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Range:
    """The numbers a field may have, and how to say so."""

    holds: Callable[[float], bool]
    text: str


def at_least(low: float) -> Range:
    """Numbers from `low` on."""
    return Range(lambda number: number >= low, f"at least {low}")


def above(low: float) -> Range:
    """Numbers larger than `low`."""
    return Range(lambda number: number > low, f"above {low}")


def between(low: float, high: float) -> Range:
    """Numbers from `low` to `high`, both included."""
    return Range(lambda number: low <= number <= high, f"from {low} to {high}")


def below(high: float) -> Range:
    """Numbers from 0 to `high`, which is not reached."""
    return Range(lambda number: 0 <= number < high, f"from 0 to below {high}")


RANGES: Mapping[str, Range] = {
    "model.dropout": below(1),
    "model.drop_path": below(1),
    "data.resize_hw": at_least(32),
    "data.crop_hw": at_least(32),  # the networks' deepest maps are 1/32 of the crop
    "data.scale": above(0),
    "data.max_one_class": Range(lambda share: 0 < share <= 1, "above 0, to 1"),
    "data.flip": between(0, 1),
    "data.brightness": between(0, 1),
    "data.contrast": between(0, 1),
    "data.saturation": between(0, 1),
    "data.hue": between(0, 0.5),
    "data.color_probability": between(0, 1),
    "data.workers": at_least(-1),
    "loss.weights": at_least(0),
    "loss.label_smoothing": below(1),
    "loss.auxiliary": at_least(0),
    "optim.lr": above(0),
    "optim.head_lr_factor": above(0),
    "optim.weight_decay": at_least(0),
    "optim.betas": below(1),
    "optim.momentum": below(1),
    "optim.poly_power": above(0),
    "optim.min_lr_factor": between(0, 1),
    "optim.warmup_steps": at_least(0),
    "optim.warmup_factor": between(0, 1),
    "optim.layer_decay": Range(lambda factor: 0 < factor <= 1, "above 0, to 1"),
    "train.steps": at_least(1),
    "train.epochs": above(0),
    "train.batch_size": at_least(1),
    "train.micro_batch": at_least(0),
    "train.max_grad_norm": above(0),
    "train.log_every": at_least(1),
    "train.save_every": at_least(1),
    "train.keep": at_least(1),
    "train.seed": at_least(0),
    "train.ema": below(1),
    "train.patience": at_least(0),
    "train.pictures": at_least(0),
    "eval.every": at_least(1),
    "eval.window_hw": at_least(32),
    "eval.stride_hw": at_least(1),
    "eval.batch_size": at_least(1),
}


def _out_of_range(name: str, value: Any) -> RecipeError | None:
    numbers = value if isinstance(value, tuple) else (value,)
    if value is None or name not in RANGES or all(RANGES[name].holds(number) for number in numbers):
        return None
    each = "each " if isinstance(value, tuple) else ""
    return RecipeError(f"{name} is {leaf.to_text(value)}.", expected=each + RANGES[name].text)


def _mistyped(recipe: Recipe, known: leaf.Leaf) -> RecipeError | None:
    value = leaf.get(recipe, known.name)
    try:
        if leaf.conform(value, known.annotation) == value and not isinstance(value, list):
            return None
    except ValueError:
        pass
    example = leaf.parse(leaf.example(known.annotation), known.annotation)
    expected = f"{leaf.expects(known.annotation)}, such as {example!r}"
    return RecipeError(f"{known.name} is {value!r}.", expected=expected)


def _conformed(path: str, item: Any, known: Mapping[str, leaf.Leaf]) -> Any:
    if path not in known:
        raise _unknown_field(path, known)
    try:
        value = leaf.conform(item, known[path].annotation)
    except ValueError as error:
        raise RecipeError(f"{path} is {item!r}.", expected=leaf.expects(known[path].annotation)) from error
    if problem := _out_of_range(path, value):
        raise problem
    return value


def _flat(value: Mapping[str, Any], sections: Iterable[str]) -> Iterable[tuple[str, Any]]:
    for name, item in value.items():
        if name in sections and isinstance(item, Mapping):
            yield from ((f"{name}.{inner}", one) for inner, one in item.items())
        elif name != "format_version":
            yield name, item


def _unknown_field(name: str, known: Mapping[str, leaf.Leaf], *, command: str | None = None) -> RecipeError:
    by_last = {path.rpartition(".")[2]: path for path in known}
    last = name.rpartition(".")[2]
    namesakes = [path for path in known if path.rpartition(".")[2] == last]
    near = namesakes or nearest(name, known) or [by_last[one] for one in nearest(last, by_last)]
    hint = f"Did you mean {' or '.join(near)}?" if near else "Every field of the recipe, with its value:"
    return RecipeError(
        f"There is no recipe field {name!r}.", hint=hint, command=command if not near else None
    )


def _raise(problems: Sequence[RecipeError], where: str) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise RecipeError(f"{len(problems)} problems {where}.", hint="\n".join(map(str, problems)))


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
