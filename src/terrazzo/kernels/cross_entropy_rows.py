"""The loops of `resize_cross_entropy.py`: one strip of one image, from logits to loss and gradient.

Along a row all loops are plain arithmetic on neighbouring floats, which the compiler turns into vector instructions.
The order of all additions is fixed.
"""

# K classes, h w height and width of the logits, H W of the target, T columns of a tile

from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.kernels.compile import ELEMENTWISE, kernel

Floats = NDArray[np.float32]
Places = NDArray[np.uint32]

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


@kernel(fastmath=ELEMENTWISE)
def loss_of_rows(
    logits: Floats,
    target: NDArray[Any],
    pixel_weights: Floats,
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
    limit: np.float32,
    losses: Floats,
    grad: Floats,
    edge: Floats,
) -> tuple[float, bool]:
    """Return the loss of target rows start … stop - 1 of one image, and whether an id is outside the classes.

    logits: (K, h, w). target: (H, W) int32. pixel_weights: (H, W), or without rows where every pixel weighs 1.
    weights: (K,). smooth: the share of a pixel spread over all classes.
    top_of, bottom_of, down, and left_of, right_of, across: the taps of rows and columns, the columns in the order they
    are visited, which column_of gives; is_phased: that order is phase by phase, and a tile is a few whole phases.
    Where losses (H, W) has rows, writes the loss of each labelled pixel there, neither weighted nor smoothed, and
    leaves out the pixels whose loss is below limit.
    Adds the gradient to grad (K, h, w) where that has any classes; what belongs to the last source row, which the rows
    from `stop` on share, goes to edge (K, 1, w).
    """
    num_classes, wants_grad = logits.shape[0], grad.shape[0] > 0
    upper, lower = np.empty((num_classes, tile), np.float32), np.empty((num_classes, tile), np.float32)
    upper_grad, lower_grad = (
        np.empty((num_classes, tile), np.float32),
        np.empty((num_classes, tile), np.float32),
    )
    powers = np.empty((num_classes, tile), np.float32)
    label, weight, valid = np.empty(tile, np.uint32), np.empty(tile, np.float32), np.empty(tile, np.float32)
    peak, total = np.empty(tile, np.float32), np.empty(tile, np.float32)
    log_total, spare = np.empty(tile, np.float32), np.empty(tile, np.float32)
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
                    _shrink(upper_grad, left, right, share, is_phased, grad, edge, top, last)
                if first == bottom and top != bottom:
                    upper, lower = lower, upper
                    upper_grad, lower_grad = lower_grad, upper_grad
                else:
                    if wants_grad and bottom >= 0:
                        _shrink(lower_grad, left, right, share, is_phased, grad, edge, bottom, last)
                    _stretch(logits, first, left, right, share, is_phased, upper)
                    upper_grad[:] = 0
                _stretch(logits, second, left, right, share, is_phased, lower)
                lower_grad[:] = 0
                top, bottom = first, second
            found = _read_labels(target, pixel_weights, y, columns, weights, ignore, label, weight, valid)
            wrong |= found < 0
            if found <= 0:
                continue
            _softmax(upper, lower, down[y], size, peak, total, powers)
            if len(losses) > 0:
                _drop_easy(
                    upper, lower, down[y], columns, limit, peak, total, label, valid, weight, losses[y]
                )
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
            _shrink(upper_grad, left, right, share, is_phased, grad, edge, top, last)
            _shrink(lower_grad, left, right, share, is_phased, grad, edge, bottom, last)
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
    edge: Floats,
    row: int,
    last: int,
) -> None:
    """Add the gradient of stretched columns to a row of grad, or to edge for the last; the adjoint of `_stretch`."""
    width, size = grad.shape[2], len(share)
    for k in range(grad.shape[0]):
        source = wide[k]
        result = edge[k, 0] if row == last else grad[k, row]
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
    pixel_weights: Floats,
    y: int,
    columns: Places,
    weights: Floats,
    ignore: int,
    label: Places,
    weight: Floats,
    valid: Floats,
) -> int:
    """Fill label, valid (what the pixel weighs, 0 where ignored) and weight (that times its class's).

    Returns how many pixels weigh anything, or -1 for a wrong id.
    """
    found, wrong = 0, False
    for x in range(len(columns)):
        class_id = np.int64(target[y, columns[x]])
        is_valid = class_id != ignore
        if is_valid and (class_id < 0 or class_id >= len(weights)):
            is_valid, wrong = False, True
        label[x] = np.uint32(class_id if is_valid else 0)
        valid[x] = np.float32(is_valid)
        found += is_valid
    if len(pixel_weights) > 0:
        found = 0
        for x in range(len(columns)):
            valid[x] *= pixel_weights[y, columns[x]]
            found += valid[x] > 0
    for x in range(len(columns)):
        weight[x] = weights[label[x]] * valid[x]
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
def _drop_easy(
    upper: Floats,
    lower: Floats,
    share: np.float32,
    columns: Places,
    limit: np.float32,
    peak: Floats,
    total: Floats,
    label: Places,
    valid: Floats,
    weight: Floats,
    losses: Floats,
) -> None:
    """Write minus the log of the true class's probability to losses (W,), and let a pixel below limit weigh nothing.

    Ignored pixels of losses stay as they are. A loss that is NaN is not below anything.
    """
    rest = ONE - share
    for x in range(len(columns)):
        if valid[x] > 0:
            logit = upper[label[x], x] * rest + lower[label[x], x] * share
            loss = peak[x] - logit + _log(total[x])
            losses[columns[x]] = loss
            if loss < limit:
                valid[x] = 0
                weight[x] = 0


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
