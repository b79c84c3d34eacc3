"""Which pixels of a line each resized pixel reads, and with what weights: the filters, and how weights become integers.

"bilinear" is the triangle, "bicubic" Keys' cubic with a = -1/2, both widened where a line shrinks (antialiasing), cut
off at the line's ends and brought to a sum of one: the definition that Pillow's `Resample.c` gave and torch took over.

8-bit images are resized in whole numbers, where those two differ:

    pillow       weights of 22 binary places, whatever they are
    torchvision  weights of 16 bits with their sign, with as many binary places, up to 22, as the largest weight of the
                 line leaves room for: torch's own resize of uint8 with antialiasing, which is what torchvision calls
                 for bytes on x86 processors with AVX2 (elsewhere it computes bilinear in floating point)

Each rounds halves upwards after it went across, and again after it went down. Results differ by a grey level in places.
"""

# T taps: source pixels that one result pixel reads, n result pixels

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["bilinear", "bicubic"]
Rounding = Literal["pillow", "torchvision"]

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
MOST_BITS = 22  # 32 - 8 for a grey level - 2 to spare; Pillow always, torch at most
ONE_AND_A_BIT = 1 << 15  # what weights of 16 bits with a sign stay below
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}

# (first source pixel read, how many are read, first tap of each result pixel counted from there, weights (n, T))
Table = tuple[int, int, NDArray[np.int64], NDArray[np.float64]]


def table(
    start: float, length: float, count: int, size: int, interpolation: Interpolation = "bilinear"
) -> Table:
    """Weights of `count` pixels over [start, start + length) of a line of `size` pixels."""
    assert length > 0
    assert start >= -1e-6
    assert start + length <= size + 1e-6
    scale = length / count
    width = max(scale, 1.0)  # by which the filter is widened
    reach = SUPPORT[interpolation] * width  # of the filter, to each side
    centers = start + (np.arange(count) + 0.5) * scale
    lowest = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    highest = np.minimum((centers + reach + 0.5).astype(np.int64), size)
    taps = int((highest - lowest).max())
    starts = np.minimum(lowest, size - taps)
    pixels = starts[:, None] + np.arange(taps)
    distances = np.abs((pixels - centers[:, None] + 0.5) * (1.0 / width))
    weights = np.maximum(1.0 - distances, 0.0) if interpolation == "bilinear" else _cubic(distances)
    weights[(pixels < lowest[:, None]) | (pixels >= highest[:, None])] = 0.0
    total = np.zeros(count)
    for tap in range(taps):  # in order, as Pillow adds them
        total += weights[:, tap]
    weights /= total[:, None]
    first = int(starts[0])
    return first, int(starts[-1]) + taps - first, starts - first, weights


def whole_numbers(
    weights: NDArray[np.float64], rounding: Rounding = "pillow"
) -> tuple[NDArray[np.int32], int]:
    """Return (weights, binary places): the weights of a line as 8-bit images are multiplied with them."""
    bits = MOST_BITS if rounding == "pillow" else _bits_for(float(weights.max()))
    scaled = weights * (1 << bits)
    return (scaled + np.copysign(0.5, scaled)).astype(
        np.int32, order="C"
    ), bits  # the cast cuts off, towards zero


def line_taps(
    size: int, count: int, *, interpolation: Interpolation = "bilinear", rounding: Rounding = "pillow"
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return, of a line of `size` pixels resized to `count`, which pixel each reads first, and its weights (n, T).

    The weights are those of `rounding`, as fractions; Pillow's, which float32 could not hold, as they were before.
    """
    first, _, starts, weights = table(0.0, float(size), count, size, interpolation)
    if rounding == "torchvision":
        whole, bits = whole_numbers(weights, rounding)
        weights = whole / (1 << bits)
    return first + starts, weights


def _cubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys (1981), a = -1/2; in the order of operations of Pillow and torch, whose last bits are the same."""
    a = -0.5
    near = ((a + 2.0) * distances - (a + 3.0)) * distances * distances + 1.0
    far = (((distances - 5.0) * distances + 8.0) * distances - 4.0) * a
    return np.where(distances < 1.0, near, np.where(distances < 2.0, far, 0.0))


def _bits_for(largest: float) -> int:
    """Return the binary places, at most 22, with which a weight of `largest` stays below 16 bits with a sign."""
    bits = 0
    while bits < MOST_BITS and int(0.5 + largest * (1 << bits + 1)) < ONE_AND_A_BIT:
        bits += 1
    return bits
