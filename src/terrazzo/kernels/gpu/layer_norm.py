"""Layer norm over short rows on a GPU, forward and backward, with the result in the precision of whoever reads it.

Transformers for dense prediction normalise many rows of few channels (262,144 rows of 32 in the first stage of
SegFormer-B0 at 16 x 512x512). A program takes as many rows as fill its registers, where one row for each leaves most of
a multiprocessor idle. Statistics are float32; what a matrix product reads next is written in its precision at once.
"""

# N rows, C channels, R rows of a program

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from terrazzo.kernels.gpu.column_sum import column_sum

TILE_FLOATS = 2048  # R x C
MOST_PROGRAMS = 528  # of backward, each with a row of partial sums: four for each multiprocessor


class LayerNorm(torch.autograd.Function):
    """Rows (…, C) -> rows of the same shape in `dtype`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, dtype: torch.dtype
    ) -> Tensor:
        """weight_C, bias_C: float32."""
        x = x.contiguous()
        channels = x.shape[-1]
        rows, padded = x.numel() // channels, triton.next_power_of_2(channels)
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        mean = torch.empty(rows, dtype=torch.float32, device=x.device)
        inverse = torch.empty_like(mean)
        high = max(1, TILE_FLOATS // padded)
        _normalise[(triton.cdiv(rows, high),)](
            x, weight_C, bias_C, out, mean, inverse, rows, channels, eps, R=high, PADDED=padded, num_warps=4
        )
        ctx.save_for_backward(x, weight_C, mean, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, weight and bias."""
        x, weight_C, mean, inverse = ctx.saved_tensors
        grad, channels, padded = grad.contiguous(), x.shape[-1], triton.next_power_of_2(x.shape[-1])
        rows, high = len(mean), max(1, TILE_FLOATS // padded)
        programs = min(MOST_PROGRAMS, triton.cdiv(rows, high))
        grad_x = torch.empty_like(x)
        sums = torch.empty((programs, 2, channels), dtype=torch.float32, device=x.device)
        _backward[(programs,)](
            grad, x, weight_C, mean, inverse, grad_x, sums, rows, channels,
            R=high, PADDED=padded, num_warps=4,
        )  # fmt: skip
        grad_weight_C, grad_bias_C = column_sum(sums.view(programs, -1)).view(2, channels)
        return grad_x, grad_weight_C, grad_bias_C, None, None


@triton.jit
def _normalise(
    x, weight, bias, out, mean, inverse, rows, channels, eps, R: tl.constexpr, PADDED: tl.constexpr
):
    row, c = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, PADDED)
    is_row, is_channel = row < rows, c < channels
    is_inside = is_row[:, None] & is_channel[None, :]
    at = row[:, None].to(tl.int64) * channels + c[None, :]
    value = tl.load(x + at, mask=is_inside, other=0.0).to(tl.float32)
    middle = tl.sum(value, 1) / channels
    away = tl.where(is_inside, value - middle[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(away * away, 1) / channels + eps)
    w = tl.load(weight + c, mask=is_channel, other=0.0)
    b = tl.load(bias + c, mask=is_channel, other=0.0)
    result = away * scale[:, None] * w[None, :] + b[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=is_inside)
    tl.store(mean + row, middle, mask=is_row)
    tl.store(inverse + row, scale, mask=is_row)


@triton.jit
def _backward(
    grad, x, weight, mean, inverse, grad_x, sums, rows, channels, R: tl.constexpr, PADDED: tl.constexpr
):
    """Every program takes each so-manieth block of rows, and adds up what they say of weight and bias."""
    c = tl.arange(0, PADDED)
    is_channel = c < channels
    w = tl.load(weight + c, mask=is_channel, other=0.0)
    grad_weight = tl.zeros([PADDED], tl.float32)
    grad_bias = tl.zeros([PADDED], tl.float32)
    for first in range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        is_row = row < rows
        is_inside = is_row[:, None] & is_channel[None, :]
        at = row[:, None].to(tl.int64) * channels + c[None, :]
        value = tl.load(x + at, mask=is_inside, other=0.0).to(tl.float32)
        given = tl.load(grad + at, mask=is_inside, other=0.0).to(tl.float32)
        scale = tl.load(inverse + row, mask=is_row, other=0.0)
        unit = (value - tl.load(mean + row, mask=is_row, other=0.0)[:, None]) * scale[:, None]
        unit = tl.where(is_inside, unit, 0.0)
        grad_weight += tl.sum(given * unit, 0)
        grad_bias += tl.sum(given, 0)
        wanted = given * w[None, :]
        shared = tl.sum(wanted, 1) / channels
        along = tl.sum(wanted * unit, 1) / channels
        result = (wanted - shared[:, None] - unit * along[:, None]) * scale[:, None]
        tl.store(grad_x + at, result.to(grad_x.dtype.element_ty), mask=is_inside)
    to = sums + tl.program_id(0) * 2 * channels + c
    tl.store(to, grad_weight, mask=is_channel)
    tl.store(to + channels, grad_bias, mask=is_channel)
