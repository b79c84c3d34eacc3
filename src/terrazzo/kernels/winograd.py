"""A 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering, for inference on CPUs.

Lavin and Gray 2016 (arXiv 1509.09308), F(4x4, 3x3): each 4x4 tile of the output comes from a 6x6 tile of the input
by 36 multiplications per pair of channels instead of 144. In between lie small constant matrices,

    y = A^T [(G w G^T) * (B^T x B)] A

so with enough channels nearly all time is 36 matrix products. A dilated convolution is one plain convolution for each
of its d x d phases. Float32 loses about one digit to the plain sum (the test says how much); half precision would lose
too many, and a GPU's libraries do this by themselves.

Shapes: B batch, C D channels in and out, H W height and width, d dilation, T tiles.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# the interpolation points are 0, 1, -1, 2, -2 and infinity
WEIGHT = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
          (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

TILE = 4  # pixels of the output per side of a tile
CHUNK = 512  # input channels at a time: what lies between the steps stays a few maps large
FEWEST_CHANNELS = 128  # below, the matrices around the products cost more than is saved
FEWEST_TILES = 96


def pays(x_BCHW: Tensor, weight_DC33: Tensor, *, dilation: int) -> bool:
    """Whether `conv3x3` is the faster way here: float32 on a CPU, no gradients, many channels and many pixels."""
    if torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    if x_BCHW.device.type != "cpu" or x_BCHW.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    rows, columns = (_tiles(size, dilation) for size in x_BCHW.shape[2:])
    tiles = len(x_BCHW) * dilation**2 * rows * columns
    wasted = tiles * TILE**2 / (len(x_BCHW) * x_BCHW.shape[2] * x_BCHW.shape[3])
    return min(weight_DC33.shape[:2]) >= FEWEST_CHANNELS and tiles >= FEWEST_TILES and wasted < 2


def conv3x3(
    x_BCHW: Tensor, weight_DC33: Tensor, bias_D: Tensor | None = None, *, dilation: int = 1
) -> Tensor:
    """Return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation): (B, D, H, W), channels last."""
    batch, channels, height, width = x_BCHW.shape
    d, outputs = dilation, len(weight_DC33)
    rows, columns = _tiles(height, d), _tiles(width, d)
    tiles = batch * d * d * rows * columns
    products = None
    for start in range(0, channels, CHUNK):
        part = slice(start, start + CHUNK)
        seen = _seen(x_BCHW[:, part], rows, columns, d)
        taps = _kernel(WEIGHT, weight_DC33) @ weight_DC33[:, part].permute(2, 3, 1, 0).reshape(9, -1)
        seen, taps = seen.view(36, tiles, -1), taps.view(36, -1, outputs)
        products = torch.bmm(seen, taps) if products is None else products.baddbmm_(seen, taps)
    assert products is not None
    y = (_kernel(OUTPUT, x_BCHW) @ products.view(36, -1)).view(4, 4, batch, d, d, rows, columns, outputs)
    y = y.permute(2, 5, 0, 3, 6, 1, 4, 7)  # B, (tile, pixel, phase) down, the same across, D
    out_BHWD = y.new_empty(batch, rows * 4 * d, columns * 4 * d, outputs)
    torch.add(y, y.new_zeros(()) if bias_D is None else bias_D, out=out_BHWD.view(y.shape))
    return out_BHWD[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def _seen(x_BCHW: Tensor, rows: int, columns: int, d: int) -> Tensor:
    """The 6x6 tiles of the input, transformed: (36, B d d rows columns C)."""
    batch, channels, height, width = x_BCHW.shape
    below, right = (rows * 4 + 1) * d - height, (columns * 4 + 1) * d - width
    padded = F.pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, d, right, d, below)).unflatten(1, (-1, d))
    down = padded.new_empty(6, *padded[:, : rows * 4 : 4].shape)  # 6, B, rows, d, columns with phases, C
    _transform([padded[:, one : one + rows * 4 - 3 : 4] for one in range(6)], down)
    seen = padded.new_empty(6, 6, batch, d, d, rows, columns, channels)
    places = seen.permute(0, 1, 2, 5, 3, 6, 4, 7)
    for lines, place in zip(down.unflatten(4, (-1, d)), places, strict=True):
        _transform([lines[:, :, :, one : one + columns * 4 - 3 : 4] for one in range(6)], place)
    return seen.view(36, -1)


def _transform(x: Sequence[Tensor], out: Tensor) -> None:
    """Write B^T x to `out` (6, …), in additions: as a matrix product it takes three times as long."""
    even, odd = torch.sub(x[4], x[2], alpha=4), torch.sub(x[3], x[1], alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = x[4] - x[2], x[3] - x[1]
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.add(even, x[0] - x[2], alpha=4, out=out[0])
    torch.sub(x[5] - x[3], odd, alpha=4, out=out[5])


def _tiles(size: int, dilation: int) -> int:
    return -(-size // (TILE * dilation))


def _kernel(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The transform along both sides of a tile as one matrix."""
    one = like.new_tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(like.dtype)
