"""A map plus three smaller ones, each resized bilinearly to its size, in one pass on a GPU; and its gradient.

Forward reads the map once and writes it once; the smaller ones come out of the cache. Backward gathers: a program has a
few places of a small map, walks over the pixels that read them, and adds with their shares, in a fixed order.
"""

# B batch, H W height and width of the large map, h w of a small one, D channels

import torch
import triton
import triton.language as tl
from torch import Tensor

from terrazzo.kernels.gpu import cells

ACROSS, DEEP = 16, 128  # positions and channels of a program


def add_upsampled(base_BHWD: Tensor, maps_BhwD: list[Tensor]) -> None:
    """Add three maps, resized (half-pixel centres), to base, in float32 and rounded once; all contiguous."""
    (batch, height, width, channels), device = base_BHWD.shape, base_BHWD.device
    about = []
    for x_BhwD in maps_BhwD:
        rows = cells(x_BhwD.shape[1], height, device, align_corners=False)
        columns = cells(x_BhwD.shape[2], width, device, align_corners=False)
        about += [
            x_BhwD.contiguous(),
            rows.source,
            rows.share,
            columns.source,
            columns.share,
            *x_BhwD.shape[1:3],
        ]
    deep = min(DEEP, triton.next_power_of_2(channels))
    grid = (triton.cdiv(width, ACROSS) * triton.cdiv(channels, deep), height, batch)
    _add_three[grid](base_BHWD, *about, height, width, channels, ACROSS=ACROSS, DEEP=deep, num_warps=4)


def upsampled_gradient(grad_BHWD: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Return the gradient of one of the small maps (B, h, w, D), for that of the sum."""
    (batch, height, width, channels), device = grad_BHWD.shape, grad_BHWD.device
    rows = cells(size_hw[0], height, device, align_corners=False)
    columns = cells(size_hw[1], width, device, align_corners=False)
    out = torch.empty((batch, *size_hw, channels), dtype=grad_BHWD.dtype, device=device)
    deep = min(DEEP, triton.next_power_of_2(channels))
    across = ACROSS if size_hw[1] > 2 * ACROSS else 4
    grid = (triton.cdiv(size_hw[1], across) * triton.cdiv(channels, deep), size_hw[0], batch)
    _collect[grid](
        grad_BHWD.contiguous(), out, rows.begin, rows.share, columns.begin, columns.share,
        *size_hw, height, width, channels, ACROSS=across, DEEP=deep, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _blended(
    small,
    row_of,
    down_of,
    column_of,
    across_of,
    small_height,
    small_width,
    image,
    y,
    x,
    d,
    channels,
    is_inside,
    is_x,
):
    """What a small map says at one row's places x and channels d."""
    above, down = tl.load(row_of + y), tl.load(down_of + y)
    left, across = tl.load(column_of + x, mask=is_x, other=0), tl.load(across_of + x, mask=is_x, other=0.0)
    below, right = tl.minimum(above + 1, small_height - 1), tl.minimum(left + 1, small_width - 1)
    plane = small + image * small_height * small_width * channels + d[None, :]
    above_at, below_at = plane + above * small_width * channels, plane + below * small_width * channels
    a = tl.load(above_at + left[:, None] * channels, mask=is_inside, other=0.0).to(tl.float32)
    b = tl.load(above_at + right[:, None] * channels, mask=is_inside, other=0.0).to(tl.float32)
    e = tl.load(below_at + left[:, None] * channels, mask=is_inside, other=0.0).to(tl.float32)
    f = tl.load(below_at + right[:, None] * channels, mask=is_inside, other=0.0).to(tl.float32)
    across = across[:, None]
    return (a * (1 - across) + b * across) * (1 - down) + (e * (1 - across) + f * across) * down


@triton.jit
def _add_three(
    base,
    one, one_row, one_down, one_column, one_across, one_height, one_width,
    two, two_row, two_down, two_column, two_across, two_height, two_width,
    six, six_row, six_down, six_column, six_across, six_height, six_width,
    height, width, channels, ACROSS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    y, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    parts = tl.cdiv(channels, DEEP)
    x = tl.program_id(0) // parts * ACROSS + tl.arange(0, ACROSS)
    d = tl.program_id(0) % parts * DEEP + tl.arange(0, DEEP)
    is_x = x < width
    is_inside = is_x[:, None] & (d < channels)[None, :]
    at = base + ((image * height + y) * width + x[:, None]) * channels + d[None, :]
    total = tl.load(at, mask=is_inside, other=0.0).to(tl.float32)
    total += _blended(
        one,
        one_row,
        one_down,
        one_column,
        one_across,
        one_height,
        one_width,
        image,
        y,
        x,
        d,
        channels,
        is_inside,
        is_x,
    )
    total += _blended(
        two,
        two_row,
        two_down,
        two_column,
        two_across,
        two_height,
        two_width,
        image,
        y,
        x,
        d,
        channels,
        is_inside,
        is_x,
    )
    total += _blended(
        six,
        six_row,
        six_down,
        six_column,
        six_across,
        six_height,
        six_width,
        image,
        y,
        x,
        d,
        channels,
        is_inside,
        is_x,
    )
    tl.store(at, total.to(base.dtype.element_ty), mask=is_inside)


@triton.jit
def _collect(
    grad, out, row_begin, row_share, column_begin, column_share, small_height, small_width, height, width, channels,
    ACROSS: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    row, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    parts = tl.cdiv(channels, DEEP)
    j = tl.program_id(0) // parts * ACROSS + tl.arange(0, ACROSS)
    d = tl.program_id(0) % parts * DEEP + tl.arange(0, DEEP)
    is_j, is_d = j < small_width, d < channels
    first = tl.load(column_begin + tl.maximum(j - 1, 0), mask=is_j, other=0)
    middle = tl.load(column_begin + j, mask=is_j, other=0)
    stop = tl.load(column_begin + j + 1, mask=is_j, other=0)
    longest = tl.max(stop - first, 0)
    middle_row = tl.load(row_begin + row)
    total = tl.zeros([ACROSS, DEEP], tl.float32)
    for y in range(tl.load(row_begin + tl.maximum(row - 1, 0)), tl.load(row_begin + row + 1)):
        down = tl.load(row_share + y)
        down = tl.where(y < middle_row, down, 1 - down)
        line = grad + ((image * height + y) * width) * channels + d[None, :]
        for step in range(longest):
            x = first + step
            is_x = is_j & (x < stop)
            across = tl.load(column_share + x, mask=is_x, other=0.0)
            share = tl.where(x < middle, across, 1 - across) * down
            is_inside = is_x[:, None] & is_d[None, :]
            total += (
                tl.load(line + x[:, None] * channels, mask=is_inside, other=0.0).to(tl.float32)
                * share[:, None]
            )
    at = out + ((image * small_height + row) * small_width + j[:, None]) * channels + d[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=is_j[:, None] & is_d[None, :])
