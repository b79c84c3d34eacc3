"""Bilinear resizing without antialiasing, in the fixed-point arithmetic that OpenCV has for 8-bit images.

Networks trained by MMSegmentation saw images resized so, and see them so here (`data.resize` "sides"). `crop_resize`
antialiases where it shrinks, and rounds as Pillow does. On the golden image of MMSegmentation's own prediction, 37
pixels of 172,800 then differ; with this 10 (2026-11; the rest is that scores are resized twice there).

8 bits: shares of 1/2048; a row's two taps are added exactly, its last four bits dropped, rows are added with
truncated products, and the sum is rounded by two bits. Other kinds of numbers are interpolated in float32.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARES = 2048  # OpenCV's INTER_RESIZE_COEF_SCALE
BAND_BYTES = 8 << 20  # of a band of rows at work


def plain_resize(image: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    """Return `image` (H, W, C) at `size_hw`, same dtype (uint8, uint16 or float32): bilinear, pixels' edges aligned."""
    height, width = size_hw
    left, right, share_x = _taps(image.shape[1], width)
    top, bottom, share_y = _taps(image.shape[0], height)
    resized = np.empty((height, width, image.shape[2]), image.dtype)
    step = max(1, BAND_BYTES // (8 * width * image.shape[2]))
    for start in range(0, height, step):
        rows = slice(start, start + step)
        above, below = (_row(image[place[rows]], left, right, share_x) for place in (top, bottom))
        resized[rows] = _column(above, below, share_y[rows], image.dtype)
    return resized


def _taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Which two pixels are read for each of `target`, and the share of the second."""
    place = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.intp)
    share = place - first.astype(np.float32)
    outside = (first < 0) | (first >= source - 1)
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), np.where(outside, np.float32(0), share)


def _row(
    rows: NDArray[Any], left: NDArray[np.intp], right: NDArray[np.intp], share: NDArray[np.float32]
) -> NDArray[Any]:
    """Interpolate across: int32 in units of 1 / SHARES for 8 bits, float32 otherwise."""
    if rows.dtype != np.uint8:
        one, other = rows[:, left].astype(np.float32), rows[:, right].astype(np.float32)
        return one * (np.float32(1) - share)[:, None] + other * share[:, None]
    first, second = _whole(np.float32(1) - share), _whole(share)
    return rows[:, left].astype(np.int32) * first[:, None] + rows[:, right].astype(np.int32) * second[:, None]


def _column(
    above: NDArray[Any], below: NDArray[Any], share: NDArray[np.float32], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Interpolate down, and round to `dtype`."""
    if dtype != np.uint8:
        mixed = above * (np.float32(1) - share)[:, None, None] + below * share[:, None, None]
        return mixed if dtype == np.float32 else np.rint(mixed).astype(dtype)
    first, second = _whole(np.float32(1) - share)[:, None, None], _whole(share)[:, None, None]
    summed = (first * (above >> 4) >> 16) + (second * (below >> 4) >> 16)
    return (summed + 2 >> 2).astype(np.uint8)


def _whole(share: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.rint(share * SHARES).astype(np.int32)
