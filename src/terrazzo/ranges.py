"""The range of every number in a recipe, and how to say it.

A knob arrives with its sentence (under the field), its range (here) and a test; `tests/test_recipe.py` names the
numeric field that has none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import RecipeError
from terrazzo.fields import to_text


@dataclass(frozen=True)
class Range:
    """The numbers a field may have."""

    holds: Callable[[float], bool]
    """Whether a number lies in the range."""
    text: str
    """The range in words, after "expected": "at least 1"."""


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
    """Numbers from 0 up to `high`, which is left out."""
    return Range(lambda number: 0 <= number < high, f"at least 0 and below {high}")


def one_of(*numbers: int) -> Range:
    """These numbers alone."""
    return Range(lambda number: number in numbers, f"one of {', '.join(map(str, numbers))}")


def share_above_0() -> Range:
    """Numbers up to 1, without 0."""
    return Range(lambda number: 0 < number <= 1, "above 0 and at most 1")


RANGES: Mapping[str, Range] = {
    "model.output_stride": one_of(0, 8, 16, 32),
    "model.multi_grid": at_least(1),
    "model.dropout": below(1),
    "model.drop_path": below(1),
    "data.resize_hw": at_least(32),  # the networks' deepest maps are 1/32 of what they see
    "data.crop_hw": at_least(32),
    "data.scale": above(0),
    "data.max_one_class": share_above_0(),
    "data.rare_images": between(0, 1),
    "data.rare_crops": between(0, 1),
    "data.flip": between(0, 1),
    "data.brightness": between(0, 1),
    "data.contrast": between(0, 1),
    "data.saturation": between(0, 1),
    "data.hue": between(0, 0.5),  # half a turn either way is every hue
    "data.color_probability": between(0, 1),
    "data.workers": at_least(-1),
    "data.shuffle_buffer": at_least(1),
    "loss.cross_entropy": at_least(0),
    "loss.ohem": at_least(0),
    "loss.focal": at_least(0),
    "loss.boundary": at_least(0),
    "loss.dice": at_least(0),
    "loss.tversky": at_least(0),
    "loss.lovasz": at_least(0),
    "loss.weights": at_least(0),
    "loss.ohem_threshold": between(0, 1),
    "loss.ohem_min_kept": at_least(0),
    "loss.focal_gamma": at_least(0),
    "loss.boundary_deviation": above(0),
    "loss.tversky_alpha": above(0),
    "loss.tversky_beta": above(0),
    "loss.label_smoothing": below(1),
    "loss.auxiliary": at_least(0),
    "optim.lr": above(0),
    "optim.head_lr_factor": above(0),
    "optim.weight_decay": at_least(0),
    "optim.betas": below(1),
    "optim.momentum": below(1),
    "optim.poly_power": above(0),
    "optim.min_lr_factor": between(0, 1),
    "optim.min_lr": at_least(0),
    "optim.warmup_steps": at_least(0),
    "optim.warmup_factor": between(0, 1),
    "optim.layer_decay": share_above_0(),
    "train.steps": at_least(1),
    "train.epochs": above(0),
    "train.batch_size": at_least(1),
    "train.micro_batch": at_least(0),
    "train.max_grad_norm": above(0),
    "train.log_every": at_least(1),
    "train.save_every": at_least(1),
    "train.keep": at_least(0),
    "train.seed": at_least(0),
    "train.ema": below(1),
    "train.patience": at_least(0),
    "train.pictures": at_least(0),
    "eval.every": at_least(1),
    "eval.window_hw": at_least(32),
    "eval.stride_hw": at_least(1),
    "eval.scales": between(0.1, 8),  # beyond, an image of 1024x2048 is a thumbnail or a gigapixel
    "eval.batch_size": at_least(1),
}


def out_of_range(name: str, value: Any) -> RecipeError | None:
    """Return the problem with the value of the field `name`, or None; each number of a tuple has to be in range."""
    numbers = value if isinstance(value, tuple) else (value,)
    if value is None or name not in RANGES or all(RANGES[name].holds(number) for number in numbers):
        return None
    each = "each number " if isinstance(value, tuple) else ""
    return RecipeError(f"{name} is {to_text(value)}.", expected=each + RANGES[name].text)
