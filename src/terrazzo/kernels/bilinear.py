"""Where bilinear resizing reads: for each row (or column) of the result two of the source, and the share of the second.

The formulas and their float32 rounding are those of torch.nn.functional.interpolate(mode="bilinear"), so that kernels
agree with it to the last bits. The two axes are independent, whatever the sizes; shrinking skips pixels, as torch does
without antialias.
"""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Taps(NamedTuple):
    """The two source positions of each of `out_size` results, and how much the second counts.

    Positions are unsigned: a loop that reads at them needs no check for negative ones and runs a quarter faster.
    """

    first: NDArray[np.uint32]
    """(out_size,) the nearer to 0 of the two; never decreases."""
    second: NDArray[np.uint32]
    """(out_size,) its neighbour, or itself at the far border."""
    share: NDArray[np.float32]
    """(out_size,) in [0, 1]: the result is first * (1 - share) + second * share."""


class TapsThere(NamedTuple):
    """Taps as tensors on a device; positions are int64, as torch indexes."""

    first: "torch.Tensor"
    """As of `Taps`."""
    second: "torch.Tensor"
    """As of `Taps`."""
    share: "torch.Tensor"
    """As of `Taps`."""


def taps(in_size: int, out_size: int, *, align_corners: bool) -> Taps:
    """Return where each of `out_size` results of one axis reads among `in_size` positions."""
    steps, one, half = np.arange(out_size, dtype=np.float32), np.float32(1), np.float32(0.5)
    if align_corners:
        scale = np.float32(in_size - 1) / np.float32(out_size - 1) if out_size > 1 else np.float32(0)
        place: NDArray[Any] = scale * steps
    else:
        scale = np.float32(in_size) / np.float32(out_size)
        place = np.maximum(scale * (steps + half) - half, np.float32(0))
    first = np.minimum(place.astype(np.uint32), np.uint32(in_size - 1))
    share = np.clip(place - first.astype(np.float32), np.float32(0), one)
    return Taps(first, np.minimum(first + np.uint32(1), np.uint32(in_size - 1)), share)


@functools.lru_cache(maxsize=64)
def taps_on(in_size: int, out_size: int, device: "torch.device", *, align_corners: bool) -> TapsThere:
    """Return `taps` on `device`; kept, so that a GPU is waited for once for each pair of sizes."""
    import torch

    first, second, share = taps(in_size, out_size, align_corners=align_corners)
    on = [torch.from_numpy(one.astype(np.int64)).to(device) for one in (first, second)]
    return TapsThere(on[0], on[1], torch.from_numpy(share).to(device))
