"""Cross-entropy of logits that are resized to the target's size on the way, and its gradient, in one pass on a GPU.

A cell is what lies between four neighbouring logits; every target pixel lies in one. A program holds the corners of a
few cells of one row, all classes of them, in registers and walks over their pixels: blend, softmax, loss, and the
gradient goes back into four sums, one for each corner. Logits are read once, nothing of the target's size but the
target is touched, and no two programs write to one place. What up to four cells say of one logit is added afterwards in
a fixed order, a group of images at a time: 16 bytes for each logit of the group are held meanwhile.
"""

# B batch, K classes, h w height and width of the logits, H W of the target, M cells of a program

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from terrazzo.kernels.gpu import cells

CELL_FLOATS = 128  # M x K at least; a warp with all classes of its cells adds without asking other warps
WARP_FLOATS = 256  # M x K of a warp: 8 floats of each of a dozen arrays in every thread
GROUP_BYTES = 256 << 20  # of the corners' sums that are held at a time
LOWEST = tl.constexpr(-1e38)  # stands where there is no class: e ** that is 0, and its blend is finite


class Options(NamedTuple):
    """What is asked for besides the tensors."""

    ignore: int
    label_smoothing: float
    align_corners: bool
    wants_grad: bool


class ResizeCrossEntropy(torch.autograd.Function):
    """The loss, with its gradient computed in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_BKhw: Tensor,
        target_BHW: Tensor,
        weight_K: Tensor | None,
        pixel_weight_BHW: Tensor | None,
        limit_B: Tensor | None,
        options: Options,
    ) -> Tensor:
        """limit_B: pixels whose loss, before weights and smoothing, is below their image's limit are left out."""
        total, grad_BKhw, _ = loss_and_grad(
            logits_BKhw.detach(), target_BHW, weight_K, pixel_weight_BHW, limit_B, options
        )
        if grad_BKhw is not None:
            ctx.save_for_backward(grad_BKhw)
            ctx.dtype = logits_BKhw.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """Scale what forward found."""
        (grad_BKhw,) = ctx.saved_tensors
        return (grad_BKhw * grad_output).to(ctx.dtype), None, None, None, None, None


def loss_and_grad(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    weight_K: Tensor | None,
    pixel_weight_BHW: Tensor | None,
    limit_B: Tensor | None,
    options: Options,
    *,
    notes_losses: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the loss, a float32 scalar; its gradient (B, K, h, w) float32 if wanted; each pixel's loss (B, H, W).

    The last, if asked for, is minus the log of the true class's probability, and no number that means anything where
    the target is ignore. An id outside the classes makes the loss NaN: nothing here waits to raise an error.
    """
    batch, num_classes, height, width = logits_BKhw.shape
    target_BHW = target_BHW.contiguous()
    device, padded = logits_BKhw.device, triton.next_power_of_2(num_classes)
    across = max(1, CELL_FLOATS // padded)
    rows = cells(height, target_BHW.shape[1], device, align_corners=options.align_corners)
    columns = cells(width, target_BHW.shape[2], device, align_corners=options.align_corners)
    blocks = triton.cdiv(width, across)
    sums = torch.empty((batch, height, blocks), dtype=torch.float32, device=device)
    nothing = sums  # stands where a kernel looks at no tensor
    weights = nothing if weight_K is None else weight_K.detach().float().contiguous()
    spread = float(num_classes) if weight_K is None else weights.sum()
    pixel_weights = nothing if pixel_weight_BHW is None else pixel_weight_BHW.detach().float().contiguous()
    losses = torch.empty(target_BHW.shape, dtype=torch.float32, device=device) if notes_losses else None
    grad_BKhw: Tensor | None = None
    group, corners = batch, nothing
    if options.wants_grad:
        grad_BKhw = torch.empty((batch, num_classes, height, width), dtype=torch.float32, device=device)
        group = max(1, min(batch, GROUP_BYTES // (16 * num_classes * height * width)))
        corners = torch.empty((4, group, height, width, num_classes), dtype=torch.float32, device=device)
    for start in range(0, batch, group):
        images = min(group, batch - start)
        _cells[(blocks, height, images)](
            logits_BKhw, target_BHW, pixel_weights, weights, spread if weight_K is not None else nothing,
            nothing if limit_B is None else limit_B, nothing if losses is None else losses, sums, corners,
            rows.begin, rows.share, columns.begin, columns.share,
            *logits_BKhw.stride(), start, group, num_classes, height, width,
            target_BHW.shape[1], target_BHW.shape[2], options.ignore, options.label_smoothing,
            IS_WEIGHTED=weight_K is not None, HAS_PIXEL_WEIGHTS=pixel_weight_BHW is not None,
            CHOOSES=limit_B is not None, NOTES=notes_losses, SMOOTHS=options.label_smoothing > 0,
            WANTS_GRAD=options.wants_grad, M=across, PADDED=padded, num_warps=max(1, padded // WARP_FLOATS),
        )  # fmt: skip
        if grad_BKhw is not None:
            _gather[(triton.cdiv(width, 32) * triton.cdiv(num_classes, 32), height, images)](
                corners, grad_BKhw, start, group, num_classes, height, width, TILE=32,
            )  # fmt: skip
    return sums.sum(dtype=torch.float64).float(), grad_BKhw, losses


@triton.jit
def _cells(
    logits, target, pixel_weights, weights, weights_sum, limits, losses, sums, corners,
    row_begin, row_share, column_begin, column_share,
    stride_b, stride_k, stride_h, stride_w, start, group, num_classes, height, width,
    target_height, target_width, ignore, smooth,
    IS_WEIGHTED: tl.constexpr, HAS_PIXEL_WEIGHTS: tl.constexpr, CHOOSES: tl.constexpr, NOTES: tl.constexpr,
    SMOOTHS: tl.constexpr, WANTS_GRAD: tl.constexpr, M: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """M cells of one row of one image: their loss into sums, the gradient of their corners into corners."""
    row, slot = tl.program_id(1), tl.program_id(2).to(tl.int64)
    image = slot + start
    cell, k = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, PADDED)
    is_cell, is_class = cell < width, k < num_classes
    is_inside = is_cell[:, None] & is_class[None, :]
    below, beside = tl.minimum(row + 1, height - 1), tl.minimum(cell + 1, width - 1)
    of_class = logits + image * stride_b + k[None, :].to(tl.int64) * stride_k
    above_at, below_at = of_class + row * stride_h, of_class + below * stride_h
    c00 = tl.load(above_at + cell[:, None] * stride_w, mask=is_inside, other=0.0).to(tl.float32)
    c01 = tl.load(above_at + beside[:, None] * stride_w, mask=is_inside, other=0.0).to(tl.float32)
    c10 = tl.load(below_at + cell[:, None] * stride_w, mask=is_inside, other=0.0).to(tl.float32)
    c11 = tl.load(below_at + beside[:, None] * stride_w, mask=is_inside, other=0.0).to(tl.float32)
    # not by `other`, which float16 would take for infinite
    c00, c01 = tl.where(is_inside, c00, LOWEST), tl.where(is_inside, c01, LOWEST)
    c10, c11 = tl.where(is_inside, c10, LOWEST), tl.where(is_inside, c11, LOWEST)
    first = tl.load(column_begin + cell, mask=is_cell, other=0)
    stop = tl.load(column_begin + cell + 1, mask=is_cell, other=0)
    longest = tl.max(stop - first, 0)
    weight_k = tl.where(is_class, 1.0, 0.0)
    if IS_WEIGHTED:
        weight_k = tl.load(weights + k, mask=is_class, other=0.0)
    each = smooth / num_classes
    spread = each * num_classes
    if IS_WEIGHTED:
        spread = each * tl.load(weights_sum)
    limit = 0.0
    if CHOOSES:
        limit = tl.load(limits + image)
    total_loss = tl.zeros([M], tl.float32)
    g00 = tl.zeros([M, PADDED], tl.float32)
    g01 = tl.zeros([M, PADDED], tl.float32)
    g10 = tl.zeros([M, PADDED], tl.float32)
    g11 = tl.zeros([M, PADDED], tl.float32)
    for y in range(tl.load(row_begin + row), tl.load(row_begin + row + 1)):
        down = tl.load(row_share + y)
        left, right = c00 * (1 - down) + c10 * down, c01 * (1 - down) + c11 * down
        left_grad = tl.zeros([M, PADDED], tl.float32)
        right_grad = tl.zeros([M, PADDED], tl.float32)
        line = (image * target_height + y) * target_width
        for step in range(longest):
            x = first + step
            is_here = x < stop
            across = tl.load(column_share + x, mask=is_here, other=0.0)
            found = tl.load(target + line + x, mask=is_here, other=0).to(tl.int64)
            is_labelled = is_here & (found != ignore)
            is_wrong = is_labelled & ((found < 0) | (found >= num_classes))
            label = found.to(tl.int32)
            counts = tl.where(is_labelled, 1.0, 0.0)
            if HAS_PIXEL_WEIGHTS:
                counts = tl.load(pixel_weights + line + x, mask=is_labelled, other=0.0)
            value = left * (1 - across)[:, None] + right * across[:, None]
            peak = tl.max(value, 1)
            power = tl.exp(value - peak[:, None])
            total = tl.sum(power, 1)
            is_true = k[None, :] == label[:, None]
            log_total = tl.log(total)
            loss = log_total + (peak - tl.sum(tl.where(is_true, value, 0.0), 1))
            if NOTES:
                tl.store(losses + line + x, loss, mask=is_here)
            if CHOOSES:
                counts = tl.where(loss < limit, 0.0, counts)  # a NaN is not below anything
            hit = counts * (1 - smooth)
            if IS_WEIGHTED:
                hit *= tl.load(weights + label, mask=is_labelled & (is_wrong == 0), other=0.0)
            loss *= hit
            if SMOOTHS:
                gap = (peak[:, None] - value) + log_total[:, None]
                loss += counts * each * tl.sum(tl.where(is_class[None, :], gap * weight_k[None, :], 0.0), 1)
            loss = tl.where(counts > 0, loss, 0.0)  # what is ignored says nothing, not even NaN
            total_loss += tl.where(is_wrong, float("nan"), loss)
            if WANTS_GRAD:
                grad = power * ((hit + counts * spread) / total)[:, None] - tl.where(
                    is_true, hit[:, None], 0.0
                )
                if SMOOTHS:
                    grad -= (counts * each)[:, None] * weight_k[None, :]
                left_grad += grad * (1 - across)[:, None]
                right_grad += grad * across[:, None]
        if WANTS_GRAD:
            g00 += left_grad * (1 - down)
            g01 += right_grad * (1 - down)
            g10 += left_grad * down
            g11 += right_grad * down
    tl.store(sums + (image * height + row) * tl.num_programs(0) + tl.program_id(0), tl.sum(total_loss, 0))
    if WANTS_GRAD:
        plane = (0 * slot + group) * height * width * num_classes
        at = corners + ((slot * height + row) * width + cell[:, None]) * num_classes + k[None, :]
        tl.store(at, g00, mask=is_inside)
        tl.store(at + plane, g01, mask=is_inside)
        tl.store(at + 2 * plane, g10, mask=is_inside)
        tl.store(at + 3 * plane, g11, mask=is_inside)


@triton.jit
def _gather(corners, grad, start, group, num_classes, height, width, TILE: tl.constexpr):
    """The gradient of TILE x TILE logits of one row, columns by classes: what four cells say of each, added."""
    row, slot = tl.program_id(1), tl.program_id(2).to(tl.int64)
    tiles = tl.cdiv(num_classes, TILE)
    x = tl.program_id(0) // tiles * TILE + tl.arange(0, TILE)
    k = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
    is_inside = (x < width)[:, None] & (k < num_classes)[None, :]
    has_left, has_above = is_inside & (x > 0)[:, None], is_inside & (row + 0 * x > 0)[:, None]
    plane = (0 * slot + group) * height * width * num_classes
    at = corners + ((slot * height + row) * width + x[:, None]) * num_classes + k[None, :]
    above = at + 2 * plane - width * num_classes
    value = tl.load(at, mask=is_inside, other=0.0)
    value += tl.load(at + plane - num_classes, mask=has_left, other=0.0)
    value += tl.load(above, mask=has_above, other=0.0)
    value += tl.load(above + plane - num_classes, mask=has_left & has_above, other=0.0)
    image = slot + start
    to = grad + ((image * num_classes + k[None, :]) * height + row) * width + x[:, None]
    tl.store(to, value, mask=is_inside)
