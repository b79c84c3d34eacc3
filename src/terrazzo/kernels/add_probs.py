"""Probabilities of resized logits, added up: what averages several looks at one image.

torch's way holds the resized logits, their softmax and the sum, K x H x W floats each and all passed over several
times. Here two source rows at a time are stretched to a tile's width, and every row between them is blended,
exponentiated and added while it is still in the cache: what is held is 3 K floats per column of a tile.
"""

# K classes, h w height and width of the logits, n W rows and columns of the sum, T columns of a tile

import itertools

import numpy as np
from numpy.typing import NDArray

from terrazzo.kernels.bilinear import Taps
from terrazzo.kernels.compile import ELEMENTWISE, is_available, kernel, read_only
from terrazzo.kernels.resize_argmax import (
    E0,
    E1,
    E2,
    E3,
    E4,
    E5,
    HALF,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    LOWEST,
    ONE,
)
from terrazzo.kernels.threads import default_threads, spread

Logits = NDArray[np.float32]
Places = NDArray[np.uint32]

TILE_FLOATS = 1 << 13  # K x T of one of the three rows at work: 32 KiB each
PIECE_FLOATS = 1 << 18  # K x n x W of a piece: below, a second thread costs more than it brings


def add_probs(
    logits_Khw: Logits,
    rows: Taps,
    columns: Taps,
    total_KnW: Logits,
    *,
    is_mirrored: bool = False,
    threads: int | None = None,
) -> None:
    """Add to `total_KnW` the softmax over K of the logits, resized bilinearly by `rows` and `columns`.

    logits_Khw: (K, h, w) float32. rows: n taps into h, never decreasing; columns: W taps into w (`bilinear.taps`, or a
    cut of its result). is_mirrored: the logits belong to the mirrored image; what is added is turned back.
    Equal to interpolate, softmax and + of torch to a few 1e-6. Pixels that read a NaN become NaN.
    """
    num_classes, num_rows, width = total_KnW.shape
    assert (len(rows.first), len(columns.first)) == (num_rows, width), "a tap for each row and column"
    if not is_available():
        add_probs_reference(logits_Khw, rows, columns, total_KnW, is_mirrored=is_mirrored)
        return
    logits = read_only(logits_Khw, np.float32)
    tile = min(width, max(64, TILE_FLOATS // num_classes // 16 * 16))

    def piece(bounds: tuple[int, int]) -> None:
        _add_rows(logits, *rows, *columns, *bounds, tile, is_mirrored, total_KnW)

    threads = default_threads() if threads is None else threads
    pieces = max(1, min(4 * threads, num_rows, total_KnW.size // PIECE_FLOATS)) if threads > 1 else 1
    cuts = [num_rows * i // pieces for i in range(pieces + 1)]
    spread(piece, itertools.pairwise(cuts), threads=threads)


def add_probs_reference(
    logits_Khw: Logits, rows: Taps, columns: Taps, total_KnW: Logits, *, is_mirrored: bool = False
) -> None:
    """The same in plain numpy, holding the resized logits (K, n, W)."""
    one = np.float32(1)
    wide = (
        logits_Khw[:, :, columns.first] * (one - columns.share)
        + logits_Khw[:, :, columns.second] * columns.share
    )
    down = rows.share[:, None]
    full = wide[:, rows.first] * (one - down) + wide[:, rows.second] * down
    full -= full.max(axis=0)
    np.exp(full, out=full)
    full /= full.sum(axis=0)
    total_KnW += full[:, :, ::-1] if is_mirrored else full


@kernel(fastmath=ELEMENTWISE)
def _add_rows(
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
def _stretch(
    logits: Logits,
    row: int,
    left: Places,
    right: Places,
    share: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Resize one row of every class to the columns of a tile; as in resize_argmax.py."""
    for k in range(logits.shape[0]):
        for x in range(len(share)):
            out[k, x] = logits[k, row, left[x]] * (ONE - share[x]) + logits[k, row, right[x]] * share[x]


@kernel(fastmath=ELEMENTWISE)
def _exp(x: np.float32) -> np.float32:
    """e ** x for x <= 0; as in resize_argmax.py."""
    x = LOWEST if x < LOWEST else x  # in this order a NaN stays one
    exponent = np.int32(x * LOG2_E - HALF)  # rounded: x is not positive, and conversion cuts towards 0
    whole = np.float32(exponent)
    r = x - whole * LN2_HIGH - whole * LN2_LOW
    series = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return (series * r * r + r + ONE) * np.int32((exponent + 127) << 23).view(np.float32)
