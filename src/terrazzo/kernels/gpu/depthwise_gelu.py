"""A depthwise 3x3 convolution and GELU, the middle of SegFormer's Mix-FFN, in one pass over channels-last memory.

Nothing between the two is written: backward computes the convolution again, from the same nine pixels that it needs for
the gradient of the weights. It goes over the map twice, once for everything that belongs to a place, once to bring the
gradient back to the neighbours.
"""

# B batch, C channels, H W height and width, N = B H W places, P places of a program

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from terrazzo.kernels.gpu.column_sum import column_sum

PLACES, DEEP = 16, 64  # of a program that writes a tile
FEW_PLACES = 8  # of one that holds ten sums for each place of a tile
MOST_PROGRAMS = 1056  # on all channels, with a row of partial sums each


class DepthwiseGelu(torch.autograd.Function):
    """gelu(convolution of x with the weight of each channel + bias); zeros around."""

    @staticmethod
    def forward(ctx: Any, x_BHWC: Tensor, weight_C33: Tensor, bias_C: Tensor) -> Tensor:
        """x_BHWC: any float dtype, which the result has; weight_C33 and bias_C: float32."""
        x_BHWC = x_BHWC.contiguous()
        weight_9C = weight_C33.flatten(1).t().contiguous()
        out = torch.empty_like(x_BHWC)
        _, height, width, channels = x_BHWC.shape
        places = x_BHWC.numel() // channels
        grid = (triton.cdiv(places, PLACES), triton.cdiv(channels, DEEP))
        _forward[grid](
            x_BHWC, weight_9C, bias_C, out, places, height, width, channels, P=PLACES, DEEP=DEEP, num_warps=4
        )
        ctx.save_for_backward(x_BHWC, weight_9C, bias_C)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, weight and bias."""
        x_BHWC, weight_9C, bias_C = ctx.saved_tensors
        grad_BHWC, (_, height, width, channels) = grad_BHWC.contiguous(), x_BHWC.shape
        places, parts = x_BHWC.numel() // channels, triton.cdiv(channels, DEEP)
        programs = max(1, min(MOST_PROGRAMS // parts, triton.cdiv(places, FEW_PLACES)))
        sums = torch.empty((programs, 10, channels), dtype=torch.float32, device=x_BHWC.device)
        inner = torch.empty_like(x_BHWC)
        _of_places[(programs, parts)](
            grad_BHWC, x_BHWC, weight_9C, bias_C, inner, sums, places, height, width, channels,
            P=FEW_PLACES, DEEP=DEEP, num_warps=4,
        )  # fmt: skip
        grad_x = torch.empty_like(x_BHWC)
        _of_neighbours[(triton.cdiv(places, PLACES), parts)](
            inner, weight_9C, grad_x, places, height, width, channels, P=PLACES, DEEP=DEEP, num_warps=4
        )
        total = column_sum(sums.view(programs, -1)).view(10, channels)
        return grad_x, total[:9].t().reshape(channels, 1, 3, 3), total[9]


@triton.jit
def _tile(first, places, height, width, channels, P: tl.constexpr, DEEP: tl.constexpr):
    """Places and channels of a tile, the places' rows and columns, and which of the tile are there."""
    place, c = first + tl.arange(0, P), tl.program_id(1) * DEEP + tl.arange(0, DEEP)
    column, row = place % width, place // width % height
    return place, c, row, column, (place < places)[:, None] & (c < channels)[None, :]


@triton.jit
def _neighbour(at, row, column, is_inside, height, width, channels, down: tl.constexpr, across: tl.constexpr):
    """What lies so far from the places that `at` points to; 0 outside the map."""
    is_there = (row + down >= 0) & (row + down < height) & (column + across >= 0) & (column + across < width)
    to = at + (down * width + across) * channels
    return tl.load(to, mask=is_inside & is_there[:, None], other=0.0).to(tl.float32)


@triton.jit
def _bell(u):
    """Return the normal distribution's integral up to u, and its density there.

    erf by Abramowitz and Stegun 7.1.26, wrong by 1.5e-7 at most, whose exponential is the density's.
    """
    power = tl.exp(-0.5 * u * u)
    t = 1.0 / (1.0 + 0.2316418882 * tl.abs(u))  # 0.3275911 / sqrt(2)
    series = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592
    tail = 0.5 * series * t * power
    return tl.where(u < 0, tail, 1.0 - tail), power * 0.3989422804014327  # 1 / sqrt(2 pi)


@triton.jit
def _forward(x, weight, bias, out, places, height, width, channels, P: tl.constexpr, DEEP: tl.constexpr):
    place, c, row, column, is_inside = _tile(tl.program_id(0) * P, places, height, width, channels, P, DEEP)
    is_c = c < channels
    tile = place[:, None].to(tl.int64) * channels + c[None, :]
    at = x + tile
    total = tl.zeros([P, DEEP], tl.float32) + tl.load(bias + c, mask=is_c, other=0.0)[None, :]
    for tap in tl.static_range(9):
        w = tl.load(weight + tap * channels + c, mask=is_c, other=0.0)
        total += w[None, :] * _neighbour(
            at, row, column, is_inside, height, width, channels, tap // 3 - 1, tap % 3 - 1
        )
    below, _ = _bell(total)
    result = total * below
    tl.store(out + tile, result.to(out.dtype.element_ty), mask=is_inside)


@triton.jit
def _of_places(
    grad, x, weight, bias, inner, sums, places, height, width, channels, P: tl.constexpr, DEEP: tl.constexpr
):
    """The gradient before GELU, and what each so-manieth tile says of weights and bias."""
    c = tl.program_id(1) * DEEP + tl.arange(0, DEEP)
    is_c = c < channels
    b = tl.load(bias + c, mask=is_c, other=0.0)[None, :]
    w0 = tl.load(weight + c, mask=is_c, other=0.0)[None, :]
    w1 = tl.load(weight + channels + c, mask=is_c, other=0.0)[None, :]
    w2 = tl.load(weight + 2 * channels + c, mask=is_c, other=0.0)[None, :]
    w3 = tl.load(weight + 3 * channels + c, mask=is_c, other=0.0)[None, :]
    w4 = tl.load(weight + 4 * channels + c, mask=is_c, other=0.0)[None, :]
    w5 = tl.load(weight + 5 * channels + c, mask=is_c, other=0.0)[None, :]
    w6 = tl.load(weight + 6 * channels + c, mask=is_c, other=0.0)[None, :]
    w7 = tl.load(weight + 7 * channels + c, mask=is_c, other=0.0)[None, :]
    w8 = tl.load(weight + 8 * channels + c, mask=is_c, other=0.0)[None, :]
    s0 = tl.zeros([P, DEEP], tl.float32)
    s1 = tl.zeros([P, DEEP], tl.float32)
    s2 = tl.zeros([P, DEEP], tl.float32)
    s3 = tl.zeros([P, DEEP], tl.float32)
    s4 = tl.zeros([P, DEEP], tl.float32)
    s5 = tl.zeros([P, DEEP], tl.float32)
    s6 = tl.zeros([P, DEEP], tl.float32)
    s7 = tl.zeros([P, DEEP], tl.float32)
    s8 = tl.zeros([P, DEEP], tl.float32)
    s9 = tl.zeros([P, DEEP], tl.float32)
    for first in range(tl.program_id(0) * P, places, tl.num_programs(0) * P):
        place, _, row, column, is_inside = _tile(first, places, height, width, channels, P, DEEP)
        at = place[:, None].to(tl.int64) * channels + c[None, :]
        here = x + at
        x0 = _neighbour(here, row, column, is_inside, height, width, channels, -1, -1)
        x1 = _neighbour(here, row, column, is_inside, height, width, channels, -1, 0)
        x2 = _neighbour(here, row, column, is_inside, height, width, channels, -1, 1)
        x3 = _neighbour(here, row, column, is_inside, height, width, channels, 0, -1)
        x4 = _neighbour(here, row, column, is_inside, height, width, channels, 0, 0)
        x5 = _neighbour(here, row, column, is_inside, height, width, channels, 0, 1)
        x6 = _neighbour(here, row, column, is_inside, height, width, channels, 1, -1)
        x7 = _neighbour(here, row, column, is_inside, height, width, channels, 1, 0)
        x8 = _neighbour(here, row, column, is_inside, height, width, channels, 1, 1)
        u = b + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3 + w4 * x4 + w5 * x5 + w6 * x6 + w7 * x7 + w8 * x8
        given = tl.load(grad + at, mask=is_inside, other=0.0).to(tl.float32)
        below, density = _bell(u)
        slope = below + u * density  # of gelu(u) = u below(u)
        g = given * slope
        tl.store(inner + at, g.to(inner.dtype.element_ty), mask=is_inside)
        s0 += g * x0
        s1 += g * x1
        s2 += g * x2
        s3 += g * x3
        s4 += g * x4
        s5 += g * x5
        s6 += g * x6
        s7 += g * x7
        s8 += g * x8
        s9 += g
    to = sums + tl.program_id(0) * 10 * channels + c
    tl.store(to, tl.sum(s0, 0), mask=is_c)
    tl.store(to + channels, tl.sum(s1, 0), mask=is_c)
    tl.store(to + 2 * channels, tl.sum(s2, 0), mask=is_c)
    tl.store(to + 3 * channels, tl.sum(s3, 0), mask=is_c)
    tl.store(to + 4 * channels, tl.sum(s4, 0), mask=is_c)
    tl.store(to + 5 * channels, tl.sum(s5, 0), mask=is_c)
    tl.store(to + 6 * channels, tl.sum(s6, 0), mask=is_c)
    tl.store(to + 7 * channels, tl.sum(s7, 0), mask=is_c)
    tl.store(to + 8 * channels, tl.sum(s8, 0), mask=is_c)
    tl.store(to + 9 * channels, tl.sum(s9, 0), mask=is_c)


@triton.jit
def _of_neighbours(inner, weight, out, places, height, width, channels, P: tl.constexpr, DEEP: tl.constexpr):
    """The gradient of x: the same convolution with its taps turned round."""
    place, c, row, column, is_inside = _tile(tl.program_id(0) * P, places, height, width, channels, P, DEEP)
    is_c = c < channels
    tile = place[:, None].to(tl.int64) * channels + c[None, :]
    at = inner + tile
    total = tl.zeros([P, DEEP], tl.float32)
    for tap in tl.static_range(9):
        w = tl.load(weight + tap * channels + c, mask=is_c, other=0.0)
        total += w[None, :] * _neighbour(
            at, row, column, is_inside, height, width, channels, 1 - tap // 3, 1 - tap % 3
        )
    tl.store(out + tile, total.to(out.dtype.element_ty), mask=is_inside)
