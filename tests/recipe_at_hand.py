"""A recipe to change, and what is said where it is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from terrazzo.data.transforms import DataConfig
from terrazzo.errors import RecipeError
from terrazzo.nn import ModelConfig
from terrazzo.nn.losses import LossConfig
from terrazzo.optim import OptimConfig
from terrazzo.recipe import EvalConfig, Recipe, TrainConfig

MINE = Recipe(
    name="mine",
    summary="For tests.",
    model=ModelConfig(name="segformer-b0"),
    data=DataConfig(crop_hw=(64, 96)),
    loss=LossConfig(),
    optim=OptimConfig(),
    train=TrainConfig(steps=100, batch_size=8),
    eval=EvalConfig(every=50),
)


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        call()
    assert caught.value.exit_code == 2
    return str(caught.value)
