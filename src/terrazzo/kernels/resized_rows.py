"""The loops of `resize_argmax.py` and `add_probs.py`: resized logits, row by row and tile by tile.

Two source rows at a time are stretched to the columns of a tile; every row between them is blended and used while it
is still in the cache. Along a row all loops are plain arithmetic on neighbouring floats, which the compiler turns into
vector instructions. They share a file because numba's cache watches one file alone.
"""

# K classes, h w height and width of the logits, H W of the mask, n W of a sum, T columns of a tile

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Mask
from terrazzo.kernels.compile import ELEMENTWISE, kernel

Logits = NDArray[np.float32]
Places = NDArray[np.uint32]

# e ** r for |r| <= ln(2) / 2: Cephes' polynomial for expf (S. Moshier); relative error below 1e-7
E5, E4, E3 = np.float32(1.9875691e-4), np.float32(1.3981999e-3), np.float32(8.3334519e-3)
E2, E1, E0 = np.float32(4.1665796e-2), np.float32(1.6666666e-1), np.float32(0.5)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST, HALF, ONE = np.float32(-87.0), np.float32(0.5), np.float32(1.0)  # e ** -87 is the last normal float32


@kernel(fastmath=ELEMENTWISE)
def argmax_rows(
    logits: Logits,
    top_of: Places,
    bottom_of: Places,
    down: NDArray[np.float32],
    left_of: Places,
    right_of: Places,
    across: NDArray[np.float32],
    start: int,
    stop: int,
    tile: int,
    mask: Mask,
    sure: NDArray[np.uint8],
) -> None:
    """Fill rows start … stop - 1 of mask, and of sure where it has any.

    A class that wins at all four corners of a cell wins everywhere inside: blending keeps order. Only the columns of
    other cells, `open_at`, are stretched and compared; where sure is asked for, or most columns are open, all of them.
    """
    num_classes, width = logits.shape[0], mask.shape[1]
    upper, lower = np.empty((num_classes, tile), np.float32), np.empty((num_classes, tile), np.float32)
    best, winner, total = np.empty(tile, np.float32), np.empty(tile, np.int32), np.empty(tile, np.float32)
    low = np.int64(top_of[start])
    won = np.empty((np.int64(bottom_of[stop - 1]) + 1 - low, logits.shape[2]), np.int32)
    _winners(logits, low, won)
    settled, open_at = np.empty(tile, np.int32), np.empty(tile, np.int64)
    left, right, share = np.empty(tile, np.uint32), np.empty(tile, np.uint32), np.empty(tile, np.float32)
    for x0 in range(0, width, tile):
        size = min(tile, width - x0)
        top, bottom = np.int64(-1), np.int64(-1)  # the source rows that stand in upper and lower
        count, had_all = 0, False  # of open columns
        for y in range(start, stop):
            first, second = np.int64(top_of[y]), np.int64(bottom_of[y])
            if first != top or second != bottom:
                count = 0
                for x in range(size):
                    near, far = left_of[x0 + x], right_of[x0 + x]
                    one = won[first - low, near]
                    is_settled = one == won[first - low, far]
                    is_settled &= one == won[second - low, near] and one == won[second - low, far]
                    settled[x] = one
                    open_at[count] = x
                    count += int(not is_settled)
                has_all = sure.shape[0] > 0 or count > size // 2
                if has_all:
                    count = size
                if not (has_all and had_all):
                    top, bottom = np.int64(-1), np.int64(-1)
                    for i in range(count):
                        place = x0 + (np.int64(i) if has_all else open_at[i])
                        left[i], right[i], share[i] = left_of[place], right_of[place], across[place]
                had_all = has_all
                if first == bottom and bottom != top:
                    upper, lower = lower, upper
                    top, bottom = bottom, np.int64(-1)
                if first != top:
                    top = first
                    _stretch(logits, top, left[:count], right[:count], share[:count], upper)
                if second != bottom:
                    bottom = second
                    _stretch(logits, bottom, left[:count], right[:count], share[:count], lower)
            if not had_all:
                for x in range(size):
                    mask[y, x0 + x] = settled[x]
                if count > 0:
                    _best_of_row(upper, lower, down[y], best[:count], winner[:count])
                    for i in range(count):
                        mask[y, x0 + open_at[i]] = winner[i]
                continue
            _best_of_row(upper, lower, down[y], best[:size], winner[:size])
            for x in range(size):
                mask[y, x0 + x] = winner[x]
            if sure.shape[0] > 0:
                _total_of_row(upper, lower, down[y], best[:size], total[:size])
                for x in range(size):
                    sure[y, x0 + x] = np.uint8(np.int32(np.float32(255.0) / total[x] + HALF))


@kernel(fastmath=ELEMENTWISE)
def add_rows(
    logits: Logits,
    top_of: Places,
    bottom_of: Places,
    down: NDArray[np.float32],
    left_of: Places,
    right_of: Places,
    across: NDArray[np.float32],
    start: int,
    stop: int,
    tile: int,
    is_mirrored: bool,
    total: Logits,
) -> None:
    """Add to rows start … stop - 1 of the total."""
    num_classes, width = logits.shape[0], total.shape[2]
    upper, lower = np.empty((num_classes, tile), np.float32), np.empty((num_classes, tile), np.float32)
    probs = np.empty((num_classes, tile), np.float32)
    best, norm = np.empty(tile, np.float32), np.empty(tile, np.float32)
    for x0 in range(0, width, tile):
        size = min(tile, width - x0)
        left, right, share = left_of[x0 : x0 + size], right_of[x0 : x0 + size], across[x0 : x0 + size]
        top, bottom = np.int64(-1), np.int64(-1)  # the source rows that stand in upper and lower
        for y in range(start, stop):
            first, second = np.int64(top_of[y]), np.int64(bottom_of[y])
            if first == bottom and bottom != top:
                upper, lower = lower, upper
                top, bottom = bottom, np.int64(-1)
            if first != top:
                top = first
                _stretch(logits, top, left, right, share, upper)
            if second != bottom:
                bottom = second
                _stretch(logits, bottom, left, right, share, lower)
            _softmax_row(upper, lower, down[y], best[:size], norm[:size], probs)
            for k in range(num_classes):
                if is_mirrored:
                    for x in range(size):
                        total[k, y, width - 1 - x0 - x] += probs[k, x] * norm[x]
                else:
                    for x in range(size):
                        total[k, y, x0 + x] += probs[k, x] * norm[x]


@kernel(fastmath=ELEMENTWISE)
def _winners(logits: Logits, low: int, won: NDArray[np.int32]) -> None:
    """Fill won with the class of the largest of the logits' rows from `low` on; a NaN never wins."""
    best = np.empty(won.shape[1], np.float32)
    for row in range(won.shape[0]):
        for x in range(won.shape[1]):
            best[x] = np.float32(-np.inf)
            won[row, x] = 0
        for k in range(logits.shape[0]):
            for x in range(won.shape[1]):
                one = logits[k, low + row, x]
                if one > best[x]:
                    best[x], won[row, x] = one, np.int32(k)


@kernel(fastmath=ELEMENTWISE)
def _stretch(
    logits: Logits,
    row: int,
    left: Places,
    right: Places,
    share: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Resize one row of every class to the columns of a tile."""
    for k in range(logits.shape[0]):
        for x in range(len(share)):
            out[k, x] = logits[k, row, left[x]] * (ONE - share[x]) + logits[k, row, right[x]] * share[x]


@kernel(fastmath=ELEMENTWISE)
def _best_of_row(
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
    share: np.float32,
    best: NDArray[np.float32],
    winner: NDArray[np.int32],
) -> None:
    """Blend the two rows class by class and keep the largest value and its class; four classes at a time."""
    num_classes, rest = upper.shape[0], ONE - share
    for x in range(len(best)):
        best[x] = np.float32(-np.inf)
        winner[x] = 0
    for k in range(0, num_classes - 3, 4):
        for x in range(len(best)):
            value, at = best[x], winner[x]
            for j in range(4):
                one = upper[k + j, x] * rest + lower[k + j, x] * share
                if one > value:
                    value, at = one, np.int32(k + j)
            best[x], winner[x] = value, at
    for k in range(num_classes // 4 * 4, num_classes):
        for x in range(len(best)):
            one = upper[k, x] * rest + lower[k, x] * share
            if one > best[x]:
                best[x], winner[x] = one, np.int32(k)


@kernel(fastmath=ELEMENTWISE)
def _total_of_row(
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
    share: np.float32,
    best: NDArray[np.float32],
    total: NDArray[np.float32],
) -> None:
    """Sum e ** (value - best) over the classes: the softmax of the best is 1 / total."""
    rest = ONE - share
    for x in range(len(best)):
        total[x] = 0
    for k in range(upper.shape[0]):
        for x in range(len(best)):
            total[x] += _exp(upper[k, x] * rest + lower[k, x] * share - best[x])


@kernel(fastmath=ELEMENTWISE)
def _softmax_row(
    upper: NDArray[np.float32],
    lower: NDArray[np.float32],
    share: np.float32,
    best: NDArray[np.float32],
    norm: NDArray[np.float32],
    probs: NDArray[np.float32],
) -> None:
    """Blend the two rows, exponentiate less the largest, and find what to multiply with to make them add up to 1."""
    num_classes, rest = upper.shape[0], ONE - share
    for x in range(len(best)):
        best[x] = np.float32(-np.inf)
        norm[x] = 0
    for k in range(num_classes):
        for x in range(len(best)):
            one = upper[k, x] * rest + lower[k, x] * share
            probs[k, x] = one
            best[x] = one if one > best[x] else best[x]
    for k in range(num_classes):
        for x in range(len(best)):
            one = _exp(probs[k, x] - best[x])
            probs[k, x] = one
            norm[x] += one
    for x in range(len(best)):
        norm[x] = ONE / norm[x]


@kernel(fastmath=ELEMENTWISE)
def _exp(x: np.float32) -> np.float32:
    """e ** x for x <= 0, about nine instructions per vector; 1e-38 for anything below -87."""
    x = LOWEST if x < LOWEST else x  # in this order a NaN stays one
    exponent = np.int32(x * LOG2_E - HALF)  # rounded: x is not positive, and conversion cuts towards 0
    whole = np.float32(exponent)
    r = x - whole * LN2_HIGH - whole * LN2_LOW
    series = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return (series * r * r + r + ONE) * np.int32((exponent + 127) << 23).view(np.float32)
