"""Cross-entropy of logits that are resized to the target's size on the way, and its gradient, in one pass.

torch's way holds the resized logits, their log-softmax and the gradient of both: 4 x B x K x H x W floats. Here two
source rows at a time are stretched to the target's width; for every target row between them softmax, loss and gradient
live in a few K x T floats, and the gradient flows back into the two rows (the adjoint of the resize) before they are
left. Along a row all loops are plain arithmetic on neighbouring floats, which the compiler turns into vector
instructions. Where the width is a whole multiple of the logits' width, columns are visited phase by phase, so that
stretching needs neither gather nor scatter.

The work is cut by shapes alone and partial sums are added in order: the result does not depend on the thread count.
"""

# B batch, K classes, h w height and width of the logits, H W of the target, T columns of a tile

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from terrazzo.errors import MaskValueError
from terrazzo.kernels.bilinear import Taps, taps
from terrazzo.kernels.compile import ELEMENTWISE, is_available, kernel
from terrazzo.kernels.threads import spread

Floats = NDArray[np.float32]
Places = NDArray[np.uint32]

TILE_FLOATS = 1 << 12  # K x T of one of the five buffers of a tile
PIECE_FLOATS = (
    1 << 19
)  # K x H x W of one piece of work, about 0.4 ms: small enough to share out, large enough to pay

# e ** r for |r| <= ln(2) / 2 and ln(1 + r) for sqrt(1/2) <= 1 + r < sqrt(2): Cephes' polynomials for float32
# (S. Moshier, netlib.org/cephes); relative errors below 1e-7
E5, E4, E3 = np.float32(1.9875691e-4), np.float32(1.3981999e-3), np.float32(8.3334519e-3)
E2, E1, E0 = np.float32(4.1665796e-2), np.float32(1.6666666e-1), np.float32(0.5)
L8, L7, L6 = np.float32(7.0376836e-2), np.float32(-1.1514610e-1), np.float32(1.1676998e-1)
L5, L4, L3 = np.float32(-1.2420141e-1), np.float32(1.4249323e-1), np.float32(-1.6668057e-1)
L2, L1, L0 = np.float32(2.0000714e-1), np.float32(-2.4999994e-1), np.float32(3.3333331e-1)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST, HALF, ONE = np.float32(-87.0), np.float32(0.5), np.float32(1.0)  # e ** -87 is the last normal float32
SQRT_HALF_BITS = np.int32(0x3F3504F3)


def resize_cross_entropy(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    *,
    weight_K: Tensor | None = None,
    ignore: int,
    label_smoothing: float = 0.0,
    threads: int | None = None,
) -> Tensor:
    """Sum the weighted cross-entropy over the pixels of the target that are not `ignore`; a float32 scalar.

    logits_BKhw: (B, K, h, w) float32, bfloat16 or float16, resized bilinearly (align_corners=False) to the target's
    size and computed in float32. target_BHW: class ids and ignore, of any integer dtype.
    weight_K, label_smoothing: as in torch.nn.functional.cross_entropy with reduction="sum".
    On the CPU the gradient is computed on the way, when one is wanted, and held at the logits' size; the loss is within
    1e-6 and gradients within 1e-5 of torch's. Ids outside the classes are a MaskValueError there.
    Elsewhere, for float64, and without numba, the reference answers.
    """
    assert logits_BKhw.ndim == 4, f"logits (B, K, h, w), not {tuple(logits_BKhw.shape)}"
    assert target_BHW.ndim == 3, f"target (B, H, W), not {tuple(target_BHW.shape)}"
    assert len(logits_BKhw) == len(target_BHW), f"{len(logits_BKhw)} logits for {len(target_BHW)} targets"
    on_cpu = logits_BKhw.device.type == "cpu" and logits_BKhw.dtype in (
        torch.float32,
        torch.bfloat16,
        torch.float16,
    )
    if not (on_cpu and is_available()):
        return resize_cross_entropy_reference(
            logits_BKhw, target_BHW, weight_K=weight_K, ignore=ignore, label_smoothing=label_smoothing
        )
    wants_grad = torch.is_grad_enabled() and logits_BKhw.requires_grad
    settings = _Settings(ignore, label_smoothing, wants_grad, threads)
    return _ResizeCrossEntropy.apply(logits_BKhw, target_BHW, weight_K, settings)


def resize_cross_entropy_reference(
    logits_BKhw: Tensor,
    target_BHW: Tensor,
    *,
    weight_K: Tensor | None = None,
    ignore: int,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The same in torch's words, holding the resized logits (B, K, H, W); float64 stays float64."""
    with torch.autocast(logits_BKhw.device.type, enabled=False):
        logits = logits_BKhw if logits_BKhw.dtype == torch.float64 else logits_BKhw.float()
        full_BKHW = F.interpolate(logits, size=target_BHW.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(
            full_BKHW,
            target_BHW.long(),
            weight=None if weight_K is None else weight_K.to(logits),
            ignore_index=ignore,
            reduction="sum",
            label_smoothing=label_smoothing,
        )


class _Settings(NamedTuple):
    ignore: int
    label_smoothing: float
    wants_grad: bool
    threads: int | None


class _ResizeCrossEntropy(torch.autograd.Function):
    """The loss, with its gradient computed in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits_BKhw: Tensor, target_BHW: Tensor, weight_K: Tensor | None, settings: _Settings
    ) -> Tensor:
        logits = logits_BKhw.detach().float().contiguous().numpy()
        wide = target_BHW.dtype == torch.int64
        target_BHW = (
            target_BHW.clamp(-(2**31), 2**31 - 1) if wide else target_BHW
        )  # a wrong id must stay wrong
        target = (
            target_BHW.to(torch.int32).contiguous().numpy()
        )  # one type, so that the loops are compiled once
        num_classes = logits.shape[1]
        weights = (
            np.ones(num_classes, np.float32) if weight_K is None else weight_K.detach().float().cpu().numpy()
        )
        assert weights.shape == (num_classes,), f"{weights.shape} weights for {num_classes} classes"
        total, grad = _loss_and_grad(logits, target, weights, settings)
        if settings.wants_grad:
            ctx.save_for_backward(torch.from_numpy(grad))
            ctx.dtype = logits_BKhw.dtype
        return torch.tensor(total, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (grad_BKhw,) = ctx.saved_tensors
        return (grad_BKhw * grad_output).to(ctx.dtype), None, None, None


def _loss_and_grad(
    logits: Floats, target: NDArray[Any], weights: Floats, settings: _Settings
) -> tuple[float, Floats]:
    """Return the loss and its gradient (B, K, h, w), the latter empty when it is not wanted."""
    batch, num_classes, height, width = logits.shape
    plan = _plan((height, width), (target.shape[1], target.shape[2]), num_classes)
    wants_grad, strips = settings.wants_grad, list(itertools.pairwise(plan.cuts))
    grad = np.zeros(logits.shape if wants_grad else (batch, 0, 0, 0), np.float32)
    edges = np.zeros((batch, len(strips), num_classes if wants_grad else 0, 1, width), np.float32)
    smooth = np.float32(settings.label_smoothing)

    def piece(at: tuple[int, int]) -> tuple[float, bool]:
        image, strip = at
        return _strip(
            logits[image],
            target[image],
            weights,
            smooth,
            settings.ignore,
            *plan.rows,
            *plan.columns,
            plan.column_of,
            plan.is_phased,
            *strips[strip],
            plan.tile,
            grad[image],
            edges[image, strip],
        )

    pieces = list(itertools.product(range(batch), range(len(strips))))
    parts = spread(piece, pieces, threads=settings.threads)
    if any(wrong for _, wrong in parts):
        raise _wrong_ids(target, num_classes, settings.ignore)
    if wants_grad:  # the row that two strips share: in order, whatever the threads did
        for strip, (_, stop) in enumerate(strips):
            grad[:, :, plan.rows.second[stop - 1]] += edges[:, strip, :, 0]
    return float(sum(loss for loss, _ in parts)), grad


class _Plan(NamedTuple):
    """What depends on the shapes alone."""

    rows: Taps
    columns: Taps
    """In the order the columns are visited."""
    column_of: Places
    """(W,) the target's column at each place of that order."""
    is_phased: bool
    """Columns are visited phase by phase; a tile is then one phase or a few whole ones."""
    tile: int
    """T"""
    cuts: list[int]
    """The first target row of each strip, and H; a new pair of source rows begins there."""


@lru_cache(maxsize=64)
def _plan(logits_hw: tuple[int, int], target_hw: tuple[int, int], num_classes: int) -> _Plan:
    rows = taps(logits_hw[0], target_hw[0], align_corners=False)
    columns = taps(logits_hw[1], target_hw[1], align_corners=False)
    column_of = np.arange(target_hw[1], dtype=np.uint32)
    tile = max(64, TILE_FLOATS // num_classes // 16 * 16)
    width, phases = logits_hw[1], target_hw[1] // logits_hw[1]
    is_phased = _is_periodic(columns, width, target_hw[1])
    if is_phased:
        column_of = np.ascontiguousarray(column_of.reshape(width, phases).T).reshape(-1)
        columns = Taps(columns.first[column_of], columns.second[column_of], columns.share[column_of])
        tile = width * max(1, min(phases, round(tile / width)))
    begins = np.flatnonzero(
        np.diff(rows.first, prepend=-1)
    ).tolist()  # target rows where a pair of source rows begins
    strips = max(1, min(16, num_classes * target_hw[0] * target_hw[1] // PIECE_FLOATS))
    chosen = sorted({begins[len(begins) * i // strips] for i in range(strips)})
    return _Plan(rows, columns, column_of, is_phased, min(tile, target_hw[1]), [*chosen, target_hw[0]])


def _is_periodic(columns: Taps, width: int, target_width: int) -> bool:
    """True when column phases * j + p reads at j - 1 and j, or at j and j + 1, for all j alike but at the borders."""
    if target_width % width or width < 2:
        return False
    shift = columns.first.astype(np.int64).reshape(width, -1) - np.arange(width)[:, None]
    return bool((shift[1:] == shift[1]).all() and (shift[0] == 0).all() and np.isin(shift, (-1, 0)).all())


def _wrong_ids(target: NDArray[Any], num_classes: int, ignore: int) -> MaskValueError:
    bad = target[((target < 0) | (target >= num_classes)) & (target != ignore)]
    values, counts = np.unique(bad, return_counts=True)
    listed = ", ".join(
        f"{i} ({n:,} pixels)" for i, n in zip(values[:8].tolist(), counts[:8].tolist(), strict=True)
    )
    return MaskValueError(
        f"A training mask has class id {values[0]}; the network has {num_classes} classes.",
        found=listed + (f", … {len(values)} such ids" if len(values) > 8 else ""),
        expected=f"0-{num_classes - 1} and {ignore} (ignore)",
        hint="Ids are remapped once, where data enters. To see every file with such ids:",
        command="terrazzo check DATA",
    )


# --- the loops ------------------------------------------------------------------------------------------------------


@kernel(fastmath=ELEMENTWISE)
def _strip(
    logits: Floats,
    target: NDArray[Any],
    weights: Floats,
    smooth: np.float32,
    ignore: int,
    top_of: Places,
    bottom_of: Places,
    down: Floats,
    left_of: Places,
    right_of: Places,
    across: Floats,
    column_of: Places,
    is_phased: bool,
    start: int,
    stop: int,
    tile: int,
    grad: Floats,
    edge: Floats,
) -> tuple[float, bool]:
    """Loss of target rows start … stop - 1 of one image, and whether an id is outside the classes.

    Adds the gradient to grad (K, h, w) where that has any classes; what belongs to the strip's last source row, which
    the next strip shares, goes to edge (K, 1, w).
    """
    num_classes, wants_grad = logits.shape[0], grad.shape[0] > 0
    upper, lower = np.empty((num_classes, tile), np.float32), np.empty((num_classes, tile), np.float32)
    upper_grad, lower_grad = (
        np.zeros((num_classes, tile), np.float32),
        np.zeros((num_classes, tile), np.float32),
    )
    powers = np.empty((num_classes, tile), np.float32)
    label, weight, valid = np.empty(tile, np.uint32), np.empty(tile, np.float32), np.empty(tile, np.float32)
    peak, total, log_total = (
        np.empty(tile, np.float32),
        np.empty(tile, np.float32),
        np.empty(tile, np.float32),
    )
    spare = np.empty(tile, np.float32)
    loss, wrong, last = 0.0, False, np.int64(bottom_of[stop - 1])
    for x0 in range(0, len(column_of), tile):
        size = min(tile, len(column_of) - x0)
        columns = column_of[x0 : x0 + size]
        left, right, share = left_of[x0 : x0 + size], right_of[x0 : x0 + size], across[x0 : x0 + size]
        sums = np.zeros(size, np.float64)
        top, bottom = np.int64(-1), np.int64(-1)  # the source rows that stand in upper and lower
        for y in range(start, stop):
            first, second = np.int64(top_of[y]), np.int64(bottom_of[y])
            if first != top or second != bottom:
                if wants_grad and top >= 0:
                    _shrink(
                        upper_grad, left, right, share, is_phased, edge if top == last else grad, top, last
                    )
                if first == bottom and top != bottom:
                    upper, lower = lower, upper
                    upper_grad, lower_grad = lower_grad, upper_grad
                else:
                    if wants_grad and bottom >= 0:
                        _shrink(
                            lower_grad,
                            left,
                            right,
                            share,
                            is_phased,
                            edge if bottom == last else grad,
                            bottom,
                            last,
                        )
                    _stretch(logits, first, left, right, share, is_phased, upper)
                    upper_grad[:] = 0
                _stretch(logits, second, left, right, share, is_phased, lower)
                lower_grad[:] = 0
                top, bottom = first, second
            found = _read_labels(target, y, columns, weights, ignore, label, weight, valid)
            wrong |= found < 0
            if found <= 0:
                continue
            _softmax(upper, lower, down[y], size, peak, total, powers)
            _add_loss(
                upper,
                lower,
                down[y],
                label,
                weight,
                valid,
                peak,
                total,
                weights,
                smooth,
                log_total,
                spare,
                sums,
            )
            if wants_grad:
                _add_grad(
                    powers,
                    down[y],
                    label,
                    weight,
                    valid,
                    total,
                    weights,
                    smooth,
                    spare[:size],
                    upper_grad,
                    lower_grad,
                )
        if wants_grad:
            _shrink(upper_grad, left, right, share, is_phased, edge if top == last else grad, top, last)
            _shrink(lower_grad, left, right, share, is_phased, edge if bottom == last else grad, bottom, last)
        for x in range(size):
            loss += sums[x]
    return loss, wrong


@kernel(fastmath=ELEMENTWISE)
def _stretch(
    logits: Floats, row: int, left: Places, right: Places, share: Floats, is_phased: bool, out: Floats
) -> None:
    """Resize one row of every class to the columns of a tile."""
    width, size = logits.shape[2], len(share)
    for k in range(logits.shape[0]):
        source, result = logits[k, row], out[k]
        if not is_phased:
            for x in range(size):
                result[x] = source[left[x]] * (ONE - share[x]) + source[right[x]] * share[x]
            continue
        near, far = source[: width - 1], source[1:]
        for x0 in range(0, size, width):
            before = left[x0 + 1] == 0  # this phase reads at j - 1 and j, the first column at 0 alone;
            x1 = x0 + 1 if before else x0  # else at j and j + 1, the last column at the border alone
            alone = x0 if before else x0 + width - 1
            part, weight = result[x1 : x1 + width - 1], share[x1 : x1 + width - 1]
            for j in range(width - 1):
                part[j] = near[j] * (ONE - weight[j]) + far[j] * weight[j]
            result[alone] = source[left[alone]]


@kernel(fastmath=ELEMENTWISE)
def _shrink(
    wide: Floats,
    left: Places,
    right: Places,
    share: Floats,
    is_phased: bool,
    grad: Floats,
    row: int,
    last: int,
) -> None:
    """Add the gradient of stretched columns to one row of grad; the adjoint of `_stretch`."""
    width, size = grad.shape[2], len(share)
    row = 0 if row == last else row  # an edge has one row
    for k in range(grad.shape[0]):
        source, result = wide[k], grad[k, row]
        if not is_phased:
            for x in range(size):
                result[left[x]] += source[x] * (ONE - share[x])
                result[right[x]] += source[x] * share[x]
            continue
        near, far = result[: width - 1], result[1:]
        for x0 in range(0, size, width):
            before = left[x0 + 1] == 0
            x1 = x0 + 1 if before else x0
            alone = x0 if before else x0 + width - 1
            part, weight = source[x1 : x1 + width - 1], share[x1 : x1 + width - 1]
            for j in range(width - 1):
                near[j] += part[j] * (ONE - weight[j])
            for j in range(width - 1):
                far[j] += part[j] * weight[j]
            result[left[alone]] += source[alone]


@kernel(fastmath=ELEMENTWISE)
def _read_labels(
    target: NDArray[Any],
    y: int,
    columns: Places,
    weights: Floats,
    ignore: int,
    label: Places,
    weight: Floats,
    valid: Floats,
) -> int:
    """Fill label, its weight and valid (1, or 0 where ignored); return how many are valid, or -1 for a wrong id."""
    found, wrong = 0, False
    for x in range(len(columns)):
        class_id = np.int64(target[y, columns[x]])
        is_valid = class_id != ignore
        if is_valid and (class_id < 0 or class_id >= len(weights)):
            is_valid, wrong = False, True
        label[x] = np.uint32(class_id if is_valid else 0)
        valid[x] = np.float32(is_valid)
        weight[x] = weights[label[x]] * valid[x]
        found += is_valid
    return -1 if wrong else found


@kernel(fastmath=ELEMENTWISE)
def _softmax(
    upper: Floats, lower: Floats, share: np.float32, size: int, peak: Floats, total: Floats, powers: Floats
) -> None:
    """Blend two rows; fill peak with the largest logit, powers with e ** (logit - peak), total with their sum."""
    num_classes, rest = upper.shape[0], ONE - share
    for x in range(size):
        peak[x] = upper[0, x] * rest + lower[0, x] * share
        total[x] = 0
    for k in range(1, num_classes):
        for x in range(size):
            value = upper[k, x] * rest + lower[k, x] * share
            peak[x] = value if value > peak[x] else peak[x]
    for k in range(num_classes):
        for x in range(size):
            power = _exp(upper[k, x] * rest + lower[k, x] * share - peak[x])
            powers[k, x] = power
            total[x] += power


@kernel(fastmath=ELEMENTWISE)
def _add_loss(
    upper: Floats,
    lower: Floats,
    share: np.float32,
    label: Places,
    weight: Floats,
    valid: Floats,
    peak: Floats,
    total: Floats,
    weights: Floats,
    smooth: np.float32,
    log_total: Floats,
    gap: Floats,
    sums: NDArray[np.float64],
) -> None:
    """Add every pixel's loss to the sum of its column."""
    rest, size = ONE - share, len(sums)
    for x in range(size):
        gap[x] = peak[x] - (upper[label[x], x] * rest + lower[label[x], x] * share)
    for x in range(size):
        log_total[x] = _log(total[x])
        gap[x] = (gap[x] + log_total[x]) * weight[x] * (ONE - smooth)
    if smooth > 0:
        for k in range(len(weights)):
            part = smooth / np.float32(len(weights)) * weights[k]
            for x in range(size):
                below = peak[x] - (upper[k, x] * rest + lower[k, x] * share)
                gap[x] += (below + log_total[x]) * valid[x] * part
    for x in range(size):
        sums[x] += np.float64(gap[x])


@kernel(fastmath=ELEMENTWISE)
def _add_grad(
    powers: Floats,
    share: np.float32,
    label: Places,
    weight: Floats,
    valid: Floats,
    total: Floats,
    weights: Floats,
    smooth: np.float32,
    scale: Floats,
    upper_grad: Floats,
    lower_grad: Floats,
) -> None:
    """Add (softmax - target) x weight to the gradients of the two stretched rows."""
    rest, size, each = ONE - share, len(scale), smooth / np.float32(len(weights))
    spread_weight = each * weights.sum()
    for x in range(size):
        scale[x] = (weight[x] * (ONE - smooth) + valid[x] * spread_weight) / total[x]
    for k in range(len(weights)):
        if smooth > 0:
            part = each * weights[k]
            for x in range(size):
                value = powers[k, x] * scale[x] - part * valid[x]
                upper_grad[k, x] += value * rest
                lower_grad[k, x] += value * share
        else:
            for x in range(size):
                value = powers[k, x] * scale[x]
                upper_grad[k, x] += value * rest
                lower_grad[k, x] += value * share
    for x in range(size):
        hit = weight[x] * (ONE - smooth)
        upper_grad[label[x], x] -= hit * rest
        lower_grad[label[x], x] -= hit * share


@kernel(fastmath=ELEMENTWISE)
def _exp(x: np.float32) -> np.float32:
    """e ** x for x <= 0, about nine instructions per vector; 1e-38 for anything below -87."""
    x = LOWEST if x < LOWEST else x  # in this order a NaN stays one
    exponent = np.int32(x * LOG2_E - HALF)  # rounded: x is not positive, and conversion cuts towards 0
    whole = np.float32(exponent)
    r = x - whole * LN2_HIGH - whole * LN2_LOW
    series = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return (series * r * r + r + ONE) * np.int32((exponent + 127) << 23).view(np.float32)


@kernel(fastmath=ELEMENTWISE)
def _log(x: np.float32) -> np.float32:
    """ln(x) for x >= 1: the exponent's share, and a polynomial in what is left, which lies around 1.

    x - x is 0, or NaN where x is not finite, whose bits would pass for a number: a diverging training must be seen.
    """
    bits = np.float32(x).view(np.int32)
    exponent = np.int32((bits - SQRT_HALF_BITS) >> 23)
    r = np.int32(bits - (exponent << 23)).view(np.float32) - ONE
    square = r * r
    series = (((L8 * r + L7) * r + L6) * r + L5) * r + L4
    series = (((series * r + L3) * r + L2) * r + L1) * r + L0
    whole = np.float32(exponent)
    return r + (whole * LN2_LOW + (r * square * series - HALF * square)) + whole * LN2_HIGH + (x - x)
