"""Seamless tiles of noise, made once per process: grain, stains and clouds for surfaces, and a sensor's noise."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32
TILE = 512  # texels of a tile's side; a power of two, so that coordinates wrap by a mask
_LOG2 = 9


@cache
def noise(power: float) -> Floats:
    """Return a flat tile of mean 0, deviation 1, spectrum 1 / f^power: 0 is grain, 1 stains, 2 clouds."""
    rng = np.random.default_rng([7, int(power * 100)])
    frequency = np.fft.fftfreq(TILE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    radius[0, 0] = 1.0
    spectrum = np.fft.fft2(rng.standard_normal((TILE, TILE))) / radius**power
    spectrum[0, 0] = 0.0
    tile = np.fft.ifft2(spectrum).real
    return (tile / tile.std()).astype(np.float32).ravel()


def lookup(tile: Floats, column: Any, row: Any) -> Floats:
    """Return the values of a flat tile at texel coordinates (N,); it repeats for ever."""
    at = row.astype(np.int32) & (TILE - 1)
    at <<= _LOG2
    at |= column.astype(np.int32) & (TILE - 1)
    return np.take(tile, at)


def sensor_noise(height: int, width: int, top: int, left: int) -> Floats:
    """Return noise (3, height, width) of deviation 1: grey grain and, less of it, coloured grain."""
    rows, columns = (top + np.arange(height)) & (TILE - 1), (left + np.arange(width)) & (TILE - 1)
    return _sensor_tile()[:, rows[:, None], columns]


@cache
def _sensor_tile() -> Floats:
    rng = np.random.default_rng(11)
    tile = 0.8 * rng.standard_normal((1, TILE, TILE)) + 0.6 * rng.standard_normal((3, TILE, TILE))
    return tile.astype(np.float32)
