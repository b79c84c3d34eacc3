"""A 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering, for inference on CPUs.

Lavin and Gray 2016 (arXiv 1509.09308), F(4x4, 3x3): each 4x4 tile of the output comes from a 6x6 tile of the input
by 36 multiplications per pair of channels instead of 144. In between lie small constant matrices,

    y = A^T [(G w G^T) * (B^T x B)] A

so with enough channels nearly all time is 36 products of matrices, which are 1x1 convolutions here: torch's matrix
product takes twice as long on processors that are not Intel's. What lies around them are three passes of ours, each
over a tile that stays in the first cache. A dilated convolution is one plain convolution for each of its d x d phases.
Float32 loses about one digit to the plain sum (the test says how much); half precision would lose too many, and a
GPU's libraries do this by themselves.

`conv3x3` does it all at once. Whoever convolves with the same weights again makes a `Filter` of them, once.

Shapes: B batch, C D channels in and out, H W height and width, d dilation, T tiles.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from terrazzo.kernels.compile import ELEMENTWISE, is_available, kernel
from terrazzo.kernels.threads import spread

TILE = 4  # pixels of the output per side of a tile
FEWEST_CHANNELS = 256  # below, what lies around the products costs more than is saved
FEWEST_TILES = 96
TILES_AT_ONCE = 512  # enough that the weights are read from memory in a small part of the time

# the interpolation points are 0, 1, -1, 2, -2 and infinity
STEP = 64  # channels at a time: a tile of them and one half transformed are 18 KiB of float32


@dataclass(frozen=True)
class Filter:
    """The weights of a 3x3 convolution with zero padding, as `convolve` wants them: four times as many."""

    taps: Tensor
    """G w G^T: (36, D, C, 1, 1)."""
    bias: NDArray[Any]
    """(D,)."""
    dilation: int = 1
    """Also the padding on each side."""

    @staticmethod
    def of(weight_DC33: Tensor, bias_D: Tensor | None = None, *, dilation: int = 1) -> "Filter":
        """Transform weights, float32 or float64 on the CPU."""
        bias_D = weight_DC33.new_zeros(len(weight_DC33)) if bias_D is None else bias_D
        return Filter(_taps(weight_DC33.detach()), bias_D.detach().numpy(), dilation)

    def room(self, size_hw: tuple[int, int]) -> Tensor:
        """Return memory that one `convolve` at a time may use for maps of a size, again and again."""
        rows, columns = (_tiles(size, self.dilation) for size in size_hw)
        lines = min(self.dilation**2 * rows, max(1, TILES_AT_ONCE // columns))
        return self.taps.new_empty(36, 1, lines, columns, self.taps.shape[2])

    def convolve(self, x_BHWC: NDArray[Any], *, room: Tensor | None = None) -> NDArray[Any]:
        """Return the convolution of maps (B, H, W, C), C-contiguous, in the weights' dtype: (B, H, W, D), new memory.

        room: from `room`; it holds at least TILES_AT_ONCE tiles, 2.25 of their input's bytes.
        """
        batch, height, width, _ = x_BHWC.shape
        d, rows, columns = self.dilation, _tiles(height, self.dilation), _tiles(width, self.dilation)
        grid = np.array([d, rows, columns, height, width])
        room = self.room((height, width)) if room is None else room
        out_BHWD = np.empty((batch, height, width, len(self.bias)), x_BHWC.dtype)
        lines, at_once = d * d * rows, room.shape[2]
        for x_HWC, out_HWD in zip(x_BHWC, out_BHWD, strict=True):
            for first in range(0, lines, at_once):
                part = range(first, min(first + at_once, lines))
                spread(functools.partial(_see, x_HWC, grid, room.numpy()[:, 0], first), part)
                with torch.no_grad():
                    seen = room[:, :, : len(part)]
                    products = tuple(_multiplied(*pair) for pair in zip(seen, self.taps, strict=True))
                spread(functools.partial(_say, products, self.bias, grid, out_HWD, first), part)
        return out_BHWD


def is_worth(
    map_hw: tuple[int, int], weight_shape: tuple[int, ...], *, dilation: int, batch: int = 1
) -> bool:
    """Whether the way through tiles is the faster one for float32 maps on a CPU: many channels, many pixels."""
    rows, columns = (_tiles(size, dilation) for size in map_hw)
    tiles = batch * dilation**2 * rows * columns
    wasted = tiles * TILE**2 / (batch * map_hw[0] * map_hw[1])
    return (
        min(weight_shape[:2]) >= FEWEST_CHANNELS and tiles >= FEWEST_TILES and wasted < 2 and is_available()
    )


def pays(x_BCHW: Tensor, weight_DC33: Tensor, *, dilation: int) -> bool:
    """Whether `conv3x3` is the faster way here: `is_worth`, float32 on a CPU, no gradients."""
    if torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    if x_BCHW.device.type != "cpu" or x_BCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    batch, _, height, width = x_BCHW.shape
    return is_worth((height, width), tuple(weight_DC33.shape), dilation=dilation, batch=batch)


def conv3x3(
    x_BCHW: Tensor, weight_DC33: Tensor, bias_D: Tensor | None = None, *, dilation: int = 1
) -> Tensor:
    """Return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation): (B, D, H, W), channels last.

    float32 or float64, on a CPU, without gradients. Needs numba.
    """
    x_BHWC = x_BCHW.detach().permute(0, 2, 3, 1).contiguous().numpy()
    out_BHWD = Filter.of(weight_DC33, bias_D, dilation=dilation).convolve(x_BHWC)
    return torch.from_numpy(out_BHWD).permute(0, 3, 1, 2)


def _multiplied(seen_1hwC: Tensor, tap_DC11: Tensor) -> NDArray[Any]:
    """Return (T, D), the products of all tiles, which lie as the pixels of an image do."""
    y_1Dhw = F.conv2d(seen_1hwC.permute(0, 3, 1, 2), tap_DC11)
    y_hwD: NDArray[Any] = y_1Dhw[0].permute(1, 2, 0).contiguous().numpy()
    return y_hwD.reshape(-1, len(tap_DC11))


def _taps(weight_DC33: Tensor) -> Tensor:
    """G w G^T: (36, D, C, 1, 1)."""
    outputs, channels = weight_DC33.shape[:2]
    taps = weight_DC33.new_empty(36, outputs, channels)
    weight = weight_DC33.reshape(outputs, channels, 9).numpy()
    pieces = [slice(first, first + 32) for first in range(0, outputs, 32)]
    spread(lambda piece: _tap(weight[piece], taps.numpy()[:, piece]), pieces)
    return taps[..., None, None]


def _tiles(size: int, dilation: int) -> int:
    return -(-size // (TILE * dilation))


@kernel(fastmath=ELEMENTWISE)
def _see(x_HWC: NDArray[Any], grid: NDArray[np.int64], out: NDArray[Any], first: int, line: int) -> None:
    """Write B^T x B of one line of tiles, those of one phase and row, to `out` (36, lines, columns, C).

    first: the line that lies first in `out`.
    """
    d, rows, columns, height, width = grid
    phase, row = line // rows, line % rows
    top, left = phase // d, phase % d
    channels = x_HWC.shape[2]
    tile, half = np.empty((6, 6, STEP), x_HWC.dtype), np.empty((6, 6, STEP), x_HWC.dtype)
    two, four = np.float32(2), np.float32(4)  # a plain 2 would make float64 of all
    for column in range(columns):
        for start in range(0, channels, STEP):
            size = min(STEP, channels - start)
            for i in range(6):
                y = (row * 4 - 1 + i) * d + top
                for j in range(6):
                    x = (column * 4 - 1 + j) * d + left
                    if y < 0 or y >= height or x < 0 or x >= width:
                        tile[i, j] = 0
                        continue
                    source = x_HWC[y, x, start : start + size]
                    for c in range(size):
                        tile[i, j, c] = source[c]
            for j in range(6):
                for c in range(STEP):
                    x0, x1, x2 = tile[0, j, c], tile[1, j, c], tile[2, j, c]
                    x3, x4, x5 = tile[3, j, c], tile[4, j, c], tile[5, j, c]
                    even, odd, near, far = x4 - four * x2, x3 - four * x1, x4 - x2, x3 - x1
                    half[0, j, c] = near + four * (x0 - x2)
                    half[1, j, c] = even + odd
                    half[2, j, c] = even - odd
                    half[3, j, c] = near + two * far
                    half[4, j, c] = near - two * far
                    half[5, j, c] = (x5 - x3) - four * far
            for i in range(6):
                for c in range(STEP):
                    x0, x1, x2 = half[i, 0, c], half[i, 1, c], half[i, 2, c]
                    x3, x4, x5 = half[i, 3, c], half[i, 4, c], half[i, 5, c]
                    even, odd, near, far = x4 - four * x2, x3 - four * x1, x4 - x2, x3 - x1
                    tile[i, 0, c] = near + four * (x0 - x2)
                    tile[i, 1, c] = even + odd
                    tile[i, 2, c] = even - odd
                    tile[i, 3, c] = near + two * far
                    tile[i, 4, c] = near - two * far
                    tile[i, 5, c] = (x5 - x3) - four * far
            for i in range(6):
                for j in range(6):
                    target = out[6 * i + j, line - first, column, start : start + size]
                    for c in range(size):
                        target[c] = tile[i, j, c]


@kernel(fastmath=ELEMENTWISE)
def _say(
    products: tuple[NDArray[Any], ...],
    bias: NDArray[Any],
    grid: NDArray[np.int64],
    out_HWD: NDArray[Any],
    first: int,
    line: int,
) -> None:
    """Write A^T m A and the bias of one line of tiles, from products (T, D) of lines from `first` on."""
    d, rows, columns, height, width = grid
    phase, row = line // rows, line % rows
    top, left = phase // d, phase % d
    outputs = out_HWD.shape[2]
    tile, half = np.empty((6, 6, STEP), out_HWD.dtype), np.empty((4, 6, STEP), out_HWD.dtype)
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for column in range(columns):
        place = (line - first) * columns + column
        for start in range(0, outputs, STEP):
            size = min(STEP, outputs - start)
            for i in range(6):
                for j in range(6):
                    source = products[6 * i + j][place, start : start + size]
                    for c in range(size):
                        tile[i, j, c] = source[c]
            for j in range(6):
                for c in range(STEP):
                    x1, x2, x3, x4 = tile[1, j, c], tile[2, j, c], tile[3, j, c], tile[4, j, c]
                    near, near_sum, far, far_sum = x1 - x2, x1 + x2, x3 - x4, x3 + x4
                    half[0, j, c] = tile[0, j, c] + near_sum + far_sum
                    half[1, j, c] = near + two * far
                    half[2, j, c] = near_sum + four * far_sum
                    half[3, j, c] = near + eight * far + tile[5, j, c]
            for i in range(4):
                for c in range(STEP):
                    x1, x2, x3, x4 = half[i, 1, c], half[i, 2, c], half[i, 3, c], half[i, 4, c]
                    near, near_sum, far, far_sum = x1 - x2, x1 + x2, x3 - x4, x3 + x4
                    tile[i, 0, c] = half[i, 0, c] + near_sum + far_sum
                    tile[i, 1, c] = near + two * far
                    tile[i, 2, c] = near_sum + four * far_sum
                    tile[i, 3, c] = near + eight * far + half[i, 5, c]
            shift = bias[start : start + size]
            for i in range(4):
                y = (row * 4 + i) * d + top
                for j in range(4):
                    x = (column * 4 + j) * d + left
                    if y < height and x < width:
                        target = out_HWD[y, x, start : start + size]
                        for c in range(size):
                            target[c] = tile[i, j, c] + shift[c]


@kernel(fastmath=ELEMENTWISE)
def _tap(weight_DC9: NDArray[Any], out: NDArray[Any]) -> None:
    """Write G w G^T of the weights to `out` (36, D, C)."""
    outputs, channels, _ = weight_DC9.shape
    taps, half = np.empty((3, 3, STEP), weight_DC9.dtype), np.empty((6, 3, STEP), weight_DC9.dtype)
    whole = np.empty((6, 6, STEP), weight_DC9.dtype)
    for one in range(outputs):
        for start in range(0, channels, STEP):
            size = min(STEP, channels - start)
            for c in range(size):
                for i in range(3):
                    for j in range(3):
                        taps[i, j, c] = weight_DC9[one, start + c, 3 * i + j]
            for j in range(3):
                for c in range(STEP):
                    w0, w1, w2 = taps[0, j, c], taps[1, j, c], taps[2, j, c]
                    ends, fars = (w0 + w2) / 6, w0 / 24 + w2 / 6
                    half[0, j, c] = w0 / 4
                    half[1, j, c] = -ends - w1 / 6
                    half[2, j, c] = -ends + w1 / 6
                    half[3, j, c] = fars + w1 / 12
                    half[4, j, c] = fars - w1 / 12
                    half[5, j, c] = w2
            for i in range(6):
                for c in range(STEP):
                    w0, w1, w2 = half[i, 0, c], half[i, 1, c], half[i, 2, c]
                    ends, fars = (w0 + w2) / 6, w0 / 24 + w2 / 6
                    whole[i, 0, c] = w0 / 4
                    whole[i, 1, c] = -ends - w1 / 6
                    whole[i, 2, c] = -ends + w1 / 6
                    whole[i, 3, c] = fars + w1 / 12
                    whole[i, 4, c] = fars - w1 / 12
                    whole[i, 5, c] = w2
            for i in range(6):
                for j in range(6):
                    target = out[6 * i + j, one, start : start + size]
                    for c in range(size):
                        target[c] = whole[i, j, c]
