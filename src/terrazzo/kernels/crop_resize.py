"""Cut a rectangle out of an image and resize it, in one go: only the pixels that end up in the crop are touched.

Images are resized bilinearly, with the filter widened where the image shrinks (antialiasing), which is what Pillow's
BILINEAR does (its `Resample.c`; the triangle filter of Heckbert's zoom). For 8-bit images the result is Pillow's to the
last bit: 22-bit fixed-point weights, across first, rounded to a grey level, then down (from Pillow 13 on, down first
where the height shrinks more: a grey level apart in places). uint16 and float32 are computed in float32 and rounded
once. As in Pillow, the filter may look past the rectangle, never past the image, so that

    crop_resize(image, rectangle, size) == crop_resize(image, whole image, whole size)[the same rectangle]

Masks take the class id of the nearest pixel. Both count positions from pixel centres: output pixel i of n, over the
source range [start, start + length), looks at start + (i + 0.5) * length / n, where source pixel j has its centre at
j + 0.5. So an image and its mask stay in register at every scale and offset.
"""

# H W height width of the source, h w of the result, C channels, T taps: source pixels that one result pixel reads

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.kernels.compile import is_available, kernel, read_only
from terrazzo.kernels.threads import spread

BITS = 22  # 32 - 8 for a grey level - 2 to spare, as Pillow
HALF = 1 << (BITS - 1)
PIECE_VALUES = 1 << 18  # values across that keep a thread busy for some tenths of a millisecond

Array = NDArray[Any]
Rectangle = tuple[float, float, float, float]


def crop_resize(
    image: Array,
    source_yxhw: Rectangle,
    size_hw: tuple[int, int],
    *,
    flip: bool = False,
    out: Array | None = None,
    threads: int = 1,
) -> Array:
    """Return the rectangle of `image` resized to `size_hw`, bilinear and antialiased.

    image: (H, W, C) uint8, uint16 or float32. source_yxhw: (top, left, height, width) in pixels of `image`, fractions
    allowed, inside the image. flip: mirror left and right. out: (h, w, C) of the same dtype, C-contiguous, to write to.
    threads: at work on it; a loader, whose workers have an image each, wants 1.
    Returns (h, w, C) of the image's dtype. Time goes with the pixels of the rectangle, not of the image.
    """
    channels = image.shape[2]
    tables = _tables(image.shape[:2], source_yxhw, size_hw)
    if out is None:
        out = np.empty((*size_hw, channels), image.dtype)
    assert out.shape == (*size_hw, channels)
    assert out.dtype == image.dtype
    assert out.flags.c_contiguous
    if not is_available():
        out[...] = _apply_plainly(image, tables, flip)
        return out
    (first, rows, y_starts, y_weights), (left, columns, x_starts, x_weights) = tables
    if not image.flags.c_contiguous:  # a turned or mirrored view: copy what is read, no more
        image = np.ascontiguousarray(image[first : first + rows, left : left + columns])
        first = left = 0
    lines = read_only(image.reshape(image.shape[0], -1))
    x_starts = (left + x_starts) * channels
    if flip:
        x_starts, x_weights = x_starts[::-1].copy(), x_weights[::-1]
    flat = out.reshape(size_hw[0], -1)
    threads = min(threads, -(-rows * flat.shape[1] // PIECE_VALUES))
    if image.dtype == np.uint8:
        narrow = np.empty((rows, flat.shape[1]), np.uint8)
        x_fixed, y_fixed = _fixed_point(x_weights), _fixed_point(y_weights)

        def across(a: int, b: int) -> None:
            _across_8bit(lines, first + a, x_starts, x_fixed, channels, narrow[a:b])

        def down(a: int, b: int) -> None:
            _down_8bit(narrow, y_starts[a:b], y_fixed[a:b], flat[a:b])
    else:
        wide = np.empty((rows, flat.shape[1]), np.float32)
        x_single, y_single = _single(x_weights), _single(y_weights)
        half = np.float32(0.5 if image.dtype == np.uint16 else 0.0)  # the cast to uint16 cuts off

        def across(a: int, b: int) -> None:
            _across(lines, first + a, x_starts, x_single, channels, wide[a:b])

        def down(a: int, b: int) -> None:
            _down(wide, y_starts[a:b], y_single[a:b], half, flat[a:b])

    _in_pieces(across, rows, threads)
    _in_pieces(down, size_hw[0], threads)
    return out


def crop_resize_mask(
    mask: Array,
    source_yxhw: Rectangle,
    size_hw: tuple[int, int],
    *,
    flip: bool = False,
    out: Array | None = None,
) -> Array:
    """Return the rectangle of `mask` (H, W) resized to `size_hw`: each pixel takes the id that lies under its centre.

    The geometry is that of `crop_resize`. out: (h, w) of an integer dtype that holds the ids. Returns (h, w).
    """
    rows, columns = nearest_rows_columns(mask.shape, source_yxhw, size_hw)
    if flip:
        columns = columns[::-1]
    if out is None:
        out = np.empty(size_hw, mask.dtype)
    if is_available() and mask.dtype == np.uint8 and mask.flags.c_contiguous and out.flags.c_contiguous:
        _pick(read_only(mask), rows, np.ascontiguousarray(columns), out)
    else:
        out[...] = mask.take(rows, axis=0).take(columns, axis=1)
    return out


def nearest_rows_columns(
    hw: tuple[int, ...], source_yxhw: Rectangle, size_hw: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the source row of each of h result rows, and the source column of each of w result columns."""
    top, left, height, width = source_yxhw
    return _nearest(top, height, size_hw[0], hw[0]), _nearest(left, width, size_hw[1], hw[1])


def crop_resize_reference(
    image: Array, source_yxhw: Rectangle, size_hw: tuple[int, int], *, flip: bool = False
) -> Array:
    """Return what `crop_resize` returns, in plain numpy: tap by tap, the same arithmetic."""
    return _apply_plainly(image, _tables(image.shape[:2], source_yxhw, size_hw), flip)


def line_taps(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, of a line of `size` pixels resized to `count`, which pixel each reads first, and its weights (n, T)."""
    first, _, starts, weights = _table(0.0, float(size), count, size)
    return first + starts, weights


# (first source pixel read, how many are read, first tap of each result pixel counted from there, weights (n, T))
_Table = tuple[int, int, NDArray[np.int64], NDArray[np.float64]]


def _tables(hw: tuple[int, ...], source_yxhw: Rectangle, size_hw: tuple[int, int]) -> tuple[_Table, _Table]:
    top, left, height, width = source_yxhw
    return _table(top, height, size_hw[0], hw[0]), _table(left, width, size_hw[1], hw[1])


def _table(start: float, length: float, count: int, size: int) -> _Table:
    """Triangle weights of `count` pixels over [start, start + length) of a line of `size` pixels."""
    assert length > 0
    assert start >= -1e-6
    assert start + length <= size + 1e-6
    scale = length / count
    reach = max(scale, 1.0)  # of the triangle, to each side
    centers = start + (np.arange(count) + 0.5) * scale
    lowest = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    highest = np.minimum((centers + reach + 0.5).astype(np.int64), size)
    taps = int((highest - lowest).max())
    starts = np.minimum(lowest, size - taps)
    pixels = starts[:, None] + np.arange(taps)
    weights = np.maximum(1.0 - np.abs((pixels - centers[:, None] + 0.5) * (1.0 / reach)), 0.0)
    weights[(pixels < lowest[:, None]) | (pixels >= highest[:, None])] = 0.0
    total = np.zeros(count)
    for tap in range(taps):  # in order, as Pillow adds them
        total += weights[:, tap]
    weights /= total[:, None]
    first = int(starts[0])
    return first, int(starts[-1]) + taps - first, starts - first, weights


def _nearest(start: float, length: float, count: int, size: int) -> NDArray[np.intp]:
    positions = np.floor(start + (np.arange(count) + 0.5) * (length / count)).astype(np.intp)
    return positions.clip(0, size - 1)


def _fixed_point(weights: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.floor(weights * (1 << BITS) + 0.5).astype(np.int32, order="C")


def _single(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return weights.astype(np.float32, order="C")


def _in_pieces(task: Callable[[int, int], None], count: int, threads: int) -> None:
    """Run task(a, b) over all of range(count), split where several threads are at work."""
    pieces = min(count, 4 * threads) if threads > 1 else 1  # more than threads: one may be held up
    cuts = [count * i // pieces for i in range(pieces + 1)]
    spread(lambda bounds: task(*bounds), itertools.pairwise(cuts), threads=threads)


def _apply_plainly(image: Array, tables: tuple[_Table, _Table], flip: bool) -> Array:
    (first, rows, y_starts, y_weights), (left, columns, x_starts, x_weights) = tables
    part = image[first : first + rows, left : left + columns]
    if image.dtype == np.uint8:
        across = _taps(part.transpose(1, 0, 2), x_starts, _fixed_point(x_weights), HALF) >> BITS
        down = _taps(across.transpose(1, 0, 2), y_starts, _fixed_point(y_weights), HALF) >> BITS
    else:
        wide = _taps(part.transpose(1, 0, 2), x_starts, _single(x_weights), np.float32(0))
        half = np.float32(0.5 if image.dtype == np.uint16 else 0.0)
        down = _taps(wide.transpose(1, 0, 2), y_starts, _single(y_weights), half)
    return np.ascontiguousarray((down[:, ::-1] if flip else down).astype(image.dtype))


def _taps(lines: Array, starts: NDArray[np.int64], weights: Array, bias: Any) -> Array:
    """Weighted sums of lines along the first axis: (n, …) in the dtype of the weights."""
    total = np.full((len(starts), *lines.shape[1:]), bias, weights.dtype)
    for tap in range(weights.shape[1]):
        total += weights[:, tap, None, None] * lines[starts + tap].astype(weights.dtype)
    return total


@kernel()
def _pick(
    mask: NDArray[np.uint8],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    result: NDArray[np.integer[Any]],
) -> None:
    for y in range(len(rows)):
        line, out = mask[rows[y]], result[y]
        for x in range(len(columns)):
            out[x] = line[columns[x]]


@kernel()
def _across_8bit(
    lines: NDArray[np.uint8],
    first: int,
    starts: NDArray[np.int64],
    weights: NDArray[np.int32],
    channels: int,
    result: NDArray[np.uint8],
) -> None:
    width, taps = weights.shape
    one, two, step = np.uint64(1), np.uint64(2), np.uint64(channels)  # unsigned: no look for negative indices
    for y in range(result.shape[0]):
        line, out = lines[first + y], result[y]
        if channels == 3:  # three sums in registers: a third faster than channel by channel
            for x in range(width):
                at, to = np.uint64(starts[x]), np.uint64(3 * x)
                red = green = blue = np.int32(HALF)
                for tap in range(taps):
                    weight = weights[x, tap]
                    red = np.int32(red + weight * np.int32(line[at]))
                    green = np.int32(green + weight * np.int32(line[at + one]))
                    blue = np.int32(blue + weight * np.int32(line[at + two]))
                    at += step
                out[to] = red >> BITS
                out[to + one] = green >> BITS
                out[to + two] = blue >> BITS
        else:
            for x in range(width):
                for channel in range(channels):
                    at = np.uint64(starts[x] + channel)
                    total = np.int32(HALF)
                    for tap in range(taps):
                        total = np.int32(total + weights[x, tap] * np.int32(line[at]))
                        at += step
                    out[np.uint64(x * channels + channel)] = total >> BITS


@kernel()
def _down_8bit(
    lines: NDArray[np.uint8], starts: NDArray[np.int64], weights: NDArray[np.int32], result: NDArray[np.uint8]
) -> None:
    height, taps = weights.shape
    width = lines.shape[1]
    total = np.empty(width, np.int32)
    for y in range(height):
        total[:] = HALF
        for tap in range(taps):
            weight = weights[y, tap]
            line = lines[starts[y] + tap]
            for x in range(width):
                total[x] += weight * line[x]
        for x in range(width):
            result[y, x] = total[x] >> BITS


@kernel()
def _across(
    lines: Array,
    first: int,
    starts: NDArray[np.int64],
    weights: NDArray[np.float32],
    channels: int,
    result: NDArray[np.float32],
) -> None:
    width, taps = weights.shape
    step = np.uint64(channels)
    for y in range(result.shape[0]):
        line, out = lines[first + y], result[y]
        for x in range(width):
            for channel in range(channels):
                at = np.uint64(starts[x] + channel)
                total = np.float32(0.0)
                for tap in range(taps):
                    total += weights[x, tap] * np.float32(line[at])
                    at += step
                out[np.uint64(x * channels + channel)] = total


@kernel()
def _down(
    lines: NDArray[np.float32],
    starts: NDArray[np.int64],
    weights: NDArray[np.float32],
    half: np.float32,
    result: Array,
) -> None:
    height, taps = weights.shape
    width = lines.shape[1]
    total = np.empty(width, np.float32)
    for y in range(height):
        total[:] = half
        for tap in range(taps):
            weight = weights[y, tap]
            line = lines[starts[y] + tap]
            for x in range(width):
                total[x] += weight * line[x]
        for x in range(width):
            result[y, x] = total[x]
