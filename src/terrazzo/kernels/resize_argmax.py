"""From logits to the mask in one pass: bilinear resize and argmax, and how sure the winner is.

torch's way writes and reads K x H x W floats, 157 MB for 19 classes at 1080p. Here two source rows at a time are
stretched to the full width, tile by tile, and every pixel between them keeps only its running best: what is held is
2 K floats per column of a tile, what is written is one id per pixel. Along a row all loops are plain arithmetic on
neighbouring floats, which the compiler turns into vector instructions.
"""

# K classes, h w height and width of the logits, H W of the mask, T columns of a tile

import itertools

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import IGNORE_8BIT, Mask
from terrazzo.kernels.bilinear import Taps, taps
from terrazzo.kernels.compile import ELEMENTWISE, is_available, kernel, read_only
from terrazzo.kernels.threads import default_threads, spread

Logits = NDArray[np.float32]
Places = NDArray[np.uint32]

TILE_FLOATS = 1 << 14  # K x T of one of the two stretched rows; 64 KiB was fastest, 2026-11, EPYC 9004
PIECE_FLOATS = 1 << 20  # K x H x W of a piece: below 0.2 ms a second thread costs more than it brings

# e ** r for |r| <= ln(2) / 2: Cephes' polynomial for expf (S. Moshier); relative error below 1e-7
E5, E4, E3 = np.float32(1.9875691e-4), np.float32(1.3981999e-3), np.float32(8.3334519e-3)
E2, E1, E0 = np.float32(4.1665796e-2), np.float32(1.6666666e-1), np.float32(0.5)
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
LOWEST, HALF, ONE = np.float32(-87.0), np.float32(0.5), np.float32(1.0)  # e ** -87 is the last normal float32


def resize_argmax(
    logits_KHW: Logits,
    size_hw: tuple[int, int],
    *,
    align_corners: bool = False,
    confidence: bool = False,
    threads: int | None = None,
) -> tuple[Mask, NDArray[np.uint8] | None]:
    """Return the mask (H, W) of the largest of K bilinearly resized logits, and its confidence or None.

    logits_KHW: (K, h, w) float32 (others are converted). size_hw: the mask's (H, W), larger or smaller.
    The mask is uint8 while K <= 255, else uint16, and equals that of torch.nn.functional.interpolate followed by argmax
    except where two classes are within rounding of each other; exact ties go to the lowest id. A NaN never wins.
    confidence: uint8, 255 x the softmax of the winner among the resized logits, rounded; 255 is certain.
    """
    assert logits_KHW.ndim == 3, f"logits (K, h, w), not {logits_KHW.shape}"
    assert min(*logits_KHW.shape, *size_hw) > 0, f"nothing to resize: {logits_KHW.shape} to {size_hw}"
    if not is_available():
        return resize_argmax_reference(
            logits_KHW, size_hw, align_corners=align_corners, confidence=confidence
        )
    logits = read_only(logits_KHW, np.float32)
    num_classes, (height, width) = len(logits), size_hw
    mask = np.empty(size_hw, np.uint8 if num_classes <= IGNORE_8BIT else np.uint16)
    sure = np.empty(size_hw if confidence else (0, 0), np.uint8)
    rows = taps(logits.shape[1], height, align_corners=align_corners)
    columns = taps(logits.shape[2], width, align_corners=align_corners)
    tile = min(width, max(64, TILE_FLOATS // num_classes // 16 * 16))

    def piece(bounds: tuple[int, int]) -> None:
        _argmax_rows(logits, *rows, *columns, *bounds, tile, mask, sure)

    threads = default_threads() if threads is None else threads
    pieces = max(1, min(4 * threads, height, mask.size * num_classes // PIECE_FLOATS)) if threads > 1 else 1
    cuts = [height * i // pieces for i in range(pieces + 1)]
    spread(piece, itertools.pairwise(cuts), threads=threads)
    return mask, sure if confidence else None


def resize_argmax_reference(
    logits_KHW: Logits, size_hw: tuple[int, int], *, align_corners: bool = False, confidence: bool = False
) -> tuple[Mask, NDArray[np.uint8] | None]:
    """The same in plain numpy, holding the resized logits (K, H, W)."""
    logits = np.asarray(logits_KHW, dtype=np.float32)
    columns = taps(logits.shape[2], size_hw[1], align_corners=align_corners)
    rows = taps(logits.shape[1], size_hw[0], align_corners=align_corners)
    wide = _blend(logits, columns, axis=2)
    full_KHW = _blend(wide, rows, axis=1)
    mask = np.argmax(np.where(np.isnan(full_KHW), -np.inf, full_KHW), axis=0)
    mask = mask.astype(np.uint8 if len(logits) <= IGNORE_8BIT else np.uint16)
    if not confidence:
        return mask, None
    probs = 1.0 / np.exp(full_KHW - full_KHW.max(0)).sum(0)
    return mask, (255 * probs + 0.5).astype(np.uint8)


def _blend(values: Logits, axis_taps: Taps, *, axis: int) -> Logits:
    first, second, share = axis_taps
    shape = [1, 1, 1]
    shape[axis] = len(share)
    share = share.reshape(shape)
    return values.take(first, axis) * (1 - share) + values.take(second, axis) * share


@kernel(fastmath=ELEMENTWISE)
def _argmax_rows(
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
    """Fill rows start … stop - 1 of mask, and of sure where it has any."""
    num_classes, width = logits.shape[0], mask.shape[1]
    upper, lower = np.empty((num_classes, tile), np.float32), np.empty((num_classes, tile), np.float32)
    best, winner, total = np.empty(tile, np.float32), np.empty(tile, np.int32), np.empty(tile, np.float32)
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
            _best_of_row(upper, lower, down[y], best[:size], winner[:size])
            for x in range(size):
                mask[y, x0 + x] = winner[x]
            if sure.shape[0] > 0:
                _total_of_row(upper, lower, down[y], best[:size], total[:size])
                for x in range(size):
                    sure[y, x0 + x] = np.uint8(np.int32(np.float32(255.0) / total[x] + HALF))


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
def _exp(x: np.float32) -> np.float32:
    """e ** x for x <= 0, about nine instructions per vector; 1e-38 for anything below -87."""
    x = LOWEST if x < LOWEST else x  # in this order a NaN stays one
    exponent = np.int32(x * LOG2_E - HALF)  # rounded: x is not positive, and conversion cuts towards 0
    whole = np.float32(exponent)
    r = x - whole * LN2_HIGH - whole * LN2_LOW
    series = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return (series * r * r + r + ONE) * np.int32((exponent + 127) << 23).view(np.float32)
