"""Files of torch.save in both of its containers, with all that checkpoints hold, and when two values are the same."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = {"zip": True, "before torch 1.6": False}


def saved(value: Any, path: Path, *, is_zip: bool = True, protocol: int = 2) -> Path:
    """Save a value with torch.save; returns the path."""
    torch.save(value, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    return path


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, dtypes, containers and shared storages' values included."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
            and one.shape == other.shape and one.stride() == other.stride()
            and torch.equal(one.contiguous().flatten().view(torch.uint8) if one.numel() else one,
                            other.contiguous().flatten().view(torch.uint8) if other.numel() else other)
        )  # fmt: skip
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def everything() -> dict[str, Any]:
    """What checkpoints hold, as torch.load(weights_only=True) opens it too."""
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8)  # fmt: skip
    tied = torch.rand(3, 4)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    return {
        "dtypes": {str(dtype): (torch.rand(5, 3) * 100).to(dtype) for dtype in dtypes},
        "bool": torch.tensor([True, False]),
        "complex": torch.complex(torch.rand(3), torch.rand(3)),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "tied": [tied, tied],
        "transposed": torch.rand(4, 5).t(),
        "strided": torch.arange(20)[3:15:2],
        "window": torch.rand(6, 6)[1:4, 2:],
        "state_dict": network.state_dict(),
        "parameter": collections.OrderedDict(weight=torch.rand(2)),
        "plain": [
            None,
            True,
            1,
            -7,
            2**40,
            -(2**80),
            0.1,
            float("inf"),
            "ünïcode",
            b"bytes",
            (1,),
            {"a": {1: 2}},
        ],
        "size": tuple(torch.rand(2, 3).shape),
    }


class Buffer:
    """As mmengine's HistoryBuffer: a class that need not be here to be read."""

    def __init__(self, values: list[float]) -> None:
        self.values = np.array(values)
