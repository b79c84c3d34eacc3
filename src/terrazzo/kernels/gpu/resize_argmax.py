"""From logits to the mask in one pass on a GPU: bilinear resize, argmax, and how sure the winner is.

A program walks over all classes for a stretch of one row of the mask and keeps each pixel's running best: what is read
are the logits, out of the cache, what is written is one id per pixel, and nothing of K x H x W is held.
"""

# B batch, K classes, h w height and width of the logits, H W of the mask

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from terrazzo.classes import IGNORE_8BIT
from terrazzo.kernels.bilinear import taps

STRETCH = 256  # pixels of a program


def resize_argmax(
    logits_BKhw: Tensor, size_hw: tuple[int, int], *, align_corners: bool, confidence: bool
) -> tuple[Tensor, Tensor | None]:
    """Return masks (B, H, W) of the largest of K resized logits, uint8 while K <= 255, else int32, and confidences.

    Ties go to the lowest id; a NaN never wins. confidence: uint8, 255 x the softmax of the winner, rounded.
    """
    (batch, num_classes, *small_hw), device = logits_BKhw.shape, logits_BKhw.device
    dtype = torch.uint8 if num_classes <= IGNORE_8BIT else torch.int32
    mask = torch.empty((batch, *size_hw), dtype=dtype, device=device)
    sure = torch.empty((batch, *size_hw), dtype=torch.uint8, device=device) if confidence else None
    rows = _taps(small_hw[0], size_hw[0], device, align_corners=align_corners)
    columns = _taps(small_hw[1], size_hw[1], device, align_corners=align_corners)
    _argmax_row[(triton.cdiv(size_hw[1], STRETCH), size_hw[0], batch)](
        logits_BKhw, *rows, *columns, mask, mask if sure is None else sure, *logits_BKhw.stride(),
        num_classes, *size_hw, IS_SURE=confidence, STRETCH=STRETCH, num_warps=4,
    )  # fmt: skip
    return mask, sure


@functools.lru_cache(maxsize=64)
def _taps(
    in_size: int, out_size: int, device: torch.device, *, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    first, second, share = taps(in_size, out_size, align_corners=align_corners)
    on = [torch.from_numpy(one.view("int32")).to(device) for one in (first, second)]
    return on[0], on[1], torch.from_numpy(share).to(device)


@triton.jit
def _argmax_row(
    logits, above_of, below_of, down_of, left_of, right_of, across_of, mask, sure,
    stride_b, stride_k, stride_h, stride_w, num_classes, height, width,
    IS_SURE: tl.constexpr, STRETCH: tl.constexpr,
):  # fmt: skip
    """STRETCH pixels of one row of one mask."""
    x, y, image = tl.program_id(0) * STRETCH + tl.arange(0, STRETCH), tl.program_id(1), tl.program_id(2)
    is_here = x < width
    down = tl.load(down_of + y)
    across = tl.load(across_of + x, mask=is_here, other=0.0)
    above = logits + image.to(tl.int64) * stride_b + tl.load(above_of + y) * stride_h
    below = logits + image.to(tl.int64) * stride_b + tl.load(below_of + y) * stride_h
    left = tl.load(left_of + x, mask=is_here, other=0) * stride_w
    right = tl.load(right_of + x, mask=is_here, other=0) * stride_w
    best = tl.full([STRETCH], -3.0e38, tl.float32)
    winner = tl.zeros([STRETCH], tl.int32)
    total = tl.zeros([STRETCH], tl.float32)
    for k in range(num_classes):
        plane = k * stride_k
        a = tl.load(above + plane + left, mask=is_here, other=0.0).to(tl.float32)
        b = tl.load(above + plane + right, mask=is_here, other=0.0).to(tl.float32)
        c = tl.load(below + plane + left, mask=is_here, other=0.0).to(tl.float32)
        d = tl.load(below + plane + right, mask=is_here, other=0.0).to(tl.float32)
        value = (a * (1 - across) + b * across) * (1 - down) + (c * (1 - across) + d * across) * down
        is_better = value > best
        if IS_SURE:
            higher = tl.where(is_better, value, best)
            total = total * tl.exp(best - higher) + tl.exp(value - higher)
        best = tl.where(is_better, value, best)
        winner = tl.where(is_better, k, winner)
    at = (image.to(tl.int64) * height + y) * width + x
    tl.store(mask + at, winner, mask=is_here)
    if IS_SURE:
        share = tl.where(total > 0, 255.0 / total + 0.5, 0.0)  # of NaN among the classes none
        tl.store(sure + at, share.to(tl.uint8), mask=is_here)
