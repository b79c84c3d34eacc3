"""Cut a rectangle out of an image and resize it, in one go: only the pixels that end up in the crop are touched.

Images are resized bilinearly or bicubically, with the filter widened where the image shrinks (antialiasing), as
Pillow's BILINEAR and BICUBIC are (its `Resample.c`; the triangle filter is that of Heckbert's zoom). 8-bit images are
resized in whole numbers, across first, rounded to a grey level, then down, in one of two roundings (`resize_filter`):
Pillow's, to the last bit (from its version 13 on, it goes down first where the height shrinks more: a grey level apart
in places), or torch's, which is torchvision's and that of the image processors of transformers. uint16 and float32
are computed in float32 and rounded once. As in Pillow, the filter may look past the rectangle, never past the image, so
that

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
from terrazzo.kernels.resize_filter import Interpolation, Rounding, Table, table, whole_numbers
from terrazzo.kernels.threads import spread

PIECE_VALUES = 1 << 18  # values across that keep a thread busy for some tenths of a millisecond

Array = NDArray[Any]
Rectangle = tuple[float, float, float, float]


def crop_resize(
    image: Array,
    source_yxhw: Rectangle,
    size_hw: tuple[int, int],
    *,
    flip: bool = False,
    interpolation: Interpolation = "bilinear",
    rounding: Rounding = "pillow",
    out: Array | None = None,
    threads: int = 1,
) -> Array:
    """Return the rectangle of `image` resized to `size_hw`, antialiased.

    image: (H, W, C) uint8, uint16 or float32. source_yxhw: (top, left, height, width) in pixels of `image`, fractions
    allowed, inside the image. flip: mirror left and right. rounding: of 8-bit images; torch's weights are as fine as
    the largest of them allows, so in its rounding a part may differ by a grey level from the whole.
    out: (h, w, C) of the same dtype, C-contiguous, to write to.
    threads: at work on it; a loader, whose workers have an image each, wants 1.
    Returns (h, w, C) of the image's dtype. Time goes with the pixels of the rectangle, not of the image.
    """
    channels = image.shape[2]
    tables = _tables(image.shape[:2], source_yxhw, size_hw, interpolation)
    if out is None:
        out = np.empty((*size_hw, channels), image.dtype)
    assert out.shape == (*size_hw, channels)
    assert out.dtype == image.dtype
    assert out.flags.c_contiguous
    if not is_available():
        out[...] = _apply_plainly(image, tables, flip, rounding)
        return out
    (first, rows, y_starts, y_weights), (left, columns, x_starts, x_weights) = tables
    if not image.flags.c_contiguous:  # a turned or mirrored view: copy what is read, no more
        image = np.ascontiguousarray(image[first : first + rows, left : left + columns])
        first = left = 0
    lines = read_only(image.reshape(image.shape[0], -1))
    x_starts = left + x_starts
    if flip:
        x_starts, x_weights = x_starts[::-1].copy(), x_weights[::-1]
    flat = out.reshape(size_hw[0], -1)
    threads = min(threads, -(-rows * flat.shape[1] // PIECE_VALUES))
    overshoots = interpolation == "bicubic"  # beyond black and white, at edges
    if image.dtype == np.uint8:
        narrow = np.empty((rows, flat.shape[1]), np.uint8)
        (x_whole, x_bits), (y_whole, y_bits) = (
            whole_numbers(one, rounding) for one in (x_weights, y_weights)
        )
        x_starts, x_whole = _in_eights(x_starts, x_whole, image.shape[1])
        x_starts *= channels

        def across(a: int, b: int) -> None:
            _across_8bit(lines, first + a, x_starts, x_whole, x_bits, channels, overshoots, narrow[a:b])

        def down(a: int, b: int) -> None:
            _down_8bit(narrow, y_starts[a:b], y_whole[a:b], y_bits, overshoots, flat[a:b])
    else:
        x_starts *= channels
        wide = np.empty((rows, flat.shape[1]), np.float32)
        x_single, y_single = _single(x_weights), _single(y_weights)
        half = np.float32(0.5 if image.dtype == np.uint16 else 0.0)  # the cast to uint16 cuts off
        clips = overshoots and image.dtype == np.uint16

        def across(a: int, b: int) -> None:
            _across(lines, first + a, x_starts, x_single, channels, wide[a:b])

        def down(a: int, b: int) -> None:
            _down(wide, y_starts[a:b], y_single[a:b], half, clips, flat[a:b])

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
    image: Array,
    source_yxhw: Rectangle,
    size_hw: tuple[int, int],
    *,
    flip: bool = False,
    interpolation: Interpolation = "bilinear",
    rounding: Rounding = "pillow",
) -> Array:
    """Return what `crop_resize` returns, in plain numpy: tap by tap, the same arithmetic."""
    tables = _tables(image.shape[:2], source_yxhw, size_hw, interpolation)
    return _apply_plainly(image, tables, flip, rounding)


def _tables(
    hw: tuple[int, ...], source_yxhw: Rectangle, size_hw: tuple[int, int], interpolation: Interpolation
) -> tuple[Table, Table]:
    top, left, height, width = source_yxhw
    return table(top, height, size_hw[0], hw[0], interpolation), table(
        left, width, size_hw[1], hw[1], interpolation
    )


def _nearest(start: float, length: float, count: int, size: int) -> NDArray[np.intp]:
    positions = np.floor(start + (np.arange(count) + 0.5) * (length / count)).astype(np.intp)
    return positions.clip(0, size - 1)


def _in_eights(
    starts: NDArray[np.int64], weights: NDArray[np.int32], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the taps of a line of `size` pixels filled up to a multiple of eight with zeros, which change no sum.

    The loop over taps is then one of vectors: 3 to 7 of them take longer one by one.
    """
    taps = weights.shape[1]
    full = -(-taps // 8) * 8
    if taps < 3 or full == taps or full > size:
        return starts, weights
    moved = np.minimum(starts, size - full)
    filled = np.zeros((len(starts), full), np.int32)
    np.put_along_axis(filled, (starts - moved)[:, None] + np.arange(taps), weights, axis=1)
    return moved, filled


def _single(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    return weights.astype(np.float32, order="C")


def _in_pieces(task: Callable[[int, int], None], count: int, threads: int) -> None:
    """Run task(a, b) over all of range(count), split where several threads are at work."""
    pieces = min(count, 4 * threads) if threads > 1 else 1  # more than threads: one may be held up
    cuts = [count * i // pieces for i in range(pieces + 1)]
    spread(lambda bounds: task(*bounds), itertools.pairwise(cuts), threads=threads)


def _apply_plainly(image: Array, tables: tuple[Table, Table], flip: bool, rounding: Rounding) -> Array:
    (first, rows, y_starts, y_weights), (left, columns, x_starts, x_weights) = tables
    part = image[first : first + rows, left : left + columns]
    if image.dtype == np.uint8:
        x_whole, x_bits = whole_numbers(x_weights, rounding)
        y_whole, y_bits = whole_numbers(y_weights, rounding)
        across = _taps(part.transpose(1, 0, 2), x_starts, x_whole, 1 << x_bits - 1) >> x_bits
        down = _taps(across.clip(0, 255).transpose(1, 0, 2), y_starts, y_whole, 1 << y_bits - 1) >> y_bits
        down = down.clip(0, 255)
    else:
        wide = _taps(part.transpose(1, 0, 2), x_starts, _single(x_weights), np.float32(0))
        half = np.float32(0.5 if image.dtype == np.uint16 else 0.0)
        down = _taps(wide.transpose(1, 0, 2), y_starts, _single(y_weights), half)
        down = down.clip(0, 65535) if image.dtype == np.uint16 else down
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
    bits: int,
    channels: int,
    clips: bool,
    result: NDArray[np.uint8],
) -> None:
    width, taps = weights.shape
    half = np.int32(1 << bits - 1)
    one, two, step = np.uint64(1), np.uint64(2), np.uint64(channels)  # unsigned: no look for negative indices
    for y in range(result.shape[0]):
        line, out = lines[first + y], result[y]
        if channels == 3:  # three sums in registers: a third faster than channel by channel
            for x in range(width):
                at, to = np.uint64(starts[x]), np.uint64(3 * x)
                red = green = blue = half
                for tap in range(taps):
                    weight = weights[x, tap]
                    red = np.int32(red + weight * np.int32(line[at]))
                    green = np.int32(green + weight * np.int32(line[at + one]))
                    blue = np.int32(blue + weight * np.int32(line[at + two]))
                    at += step
                if clips:
                    out[to] = min(max(red >> bits, 0), 255)
                    out[to + one] = min(max(green >> bits, 0), 255)
                    out[to + two] = min(max(blue >> bits, 0), 255)
                else:
                    out[to] = red >> bits
                    out[to + one] = green >> bits
                    out[to + two] = blue >> bits
        else:
            for x in range(width):
                for channel in range(channels):
                    at = np.uint64(starts[x] + channel)
                    total = half
                    for tap in range(taps):
                        total = np.int32(total + weights[x, tap] * np.int32(line[at]))
                        at += step
                    value = total >> bits
                    out[np.uint64(x * channels + channel)] = min(max(value, 0), 255) if clips else value


@kernel()
def _down_8bit(
    lines: NDArray[np.uint8],
    starts: NDArray[np.int64],
    weights: NDArray[np.int32],
    bits: int,
    clips: bool,
    result: NDArray[np.uint8],
) -> None:
    height, taps = weights.shape
    width = lines.shape[1]
    total = np.empty(width, np.int32)
    for y in range(height):
        total[:] = 1 << bits - 1
        for tap in range(taps):
            weight = weights[y, tap]
            line = lines[starts[y] + tap]
            for x in range(width):
                total[x] += weight * line[x]
        if clips:
            for x in range(width):
                result[y, x] = min(max(total[x] >> bits, 0), 255)
        else:
            for x in range(width):
                result[y, x] = total[x] >> bits


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
    clips: bool,
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
        if clips:
            for x in range(width):
                total[x] = min(max(total[x], np.float32(0)), np.float32(65535))
        for x in range(width):
            result[y, x] = total[x]
