"""The kernels' forms for a CUDA device, written in Triton; each is reached through its public function, by device.

A kernel here computes what the one of the same name above computes, from tensors where they lie to tensors there, and
waits for nothing. Sums have a fixed order, so that a result does not change from one run to the next. Triton comes with
torch on Linux; where it is absent, torch's own operations answer. Nothing but these files imports it.
"""

import functools
import importlib.util
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from terrazzo.kernels.bilinear import taps

MOST_CLASSES = 4096  # which the registers of a program of `resize_cross_entropy.py` hold


@functools.cache
def is_installed() -> bool:
    """True where Triton can be imported."""
    return importlib.util.find_spec("triton") is not None


def takes(tensor: Tensor) -> bool:
    """True where a kernel of this folder computes what is asked of `tensor`; exporters and compilers see torch's."""
    if not (tensor.is_cuda and tensor.dtype in (torch.float32, torch.bfloat16, torch.float16)):
        return False
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling()) and is_installed()


class Cells(NamedTuple):
    """One axis of a bilinear resize, from the source's side: a cell lies between two neighbouring source positions."""

    begin: Tensor
    """(in_size + 1,) int32: results begin[i] … begin[i + 1] - 1 read source position i and the one after it."""
    source: Tensor
    """(out_size,) int32: the nearer to 0 of the two positions that a result reads."""
    share: Tensor
    """(out_size,) float32: how much the position after counts; 0 at the far border, where there is none."""


@functools.lru_cache(maxsize=64)
def cells(in_size: int, out_size: int, device: torch.device, *, align_corners: bool) -> Cells:
    """Return the cells of one axis on `device`; the places are `bilinear.taps`', so those of torch."""
    first, second, share = taps(in_size, out_size, align_corners=align_corners)
    begin = np.searchsorted(first, np.arange(in_size + 1)).astype(np.int32)
    share = np.where(first == second, np.float32(0), share)
    return Cells(*(torch.from_numpy(one).to(device) for one in (begin, first.astype(np.int32), share)))
