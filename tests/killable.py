"""A training that goes on where it was, for tests that kill it."""

from pathlib import Path

import torch

import terrazzo as tz
from terrazzo.nn.segformer import SegFormer, Size


class Small(SegFormer):
    """A SegFormer with everything a big one has (attention, drop path, dropout, batch norm) and few weights."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        size = Size((1, 1, 1, 2), (8, 8, 16, 16), 16, num_heads=(1, 1, 2, 2))
        super().__init__(size, 3, mean=(0.5,) * 3, std=(0.2,) * 3, dropout=0.1, drop_path=0.3)


def train_or_go_on(data: Path, run: Path, overrides: list[str]) -> None:
    """Begin the run, or go on with it where there is one."""
    own = {"network": Small(), "device": "cpu", "quiet": True}
    if (run / "recipe.json").exists():
        tz.train(resume=run, **own)
    else:
        tz.train("segformer-b0-scratch", data=data, out=run, overrides=overrides, **own)
