"""Recolouring is one matrix product per pixel, clipped and laid out in planes."""

import numpy as np
import pytest

from terrazzo.kernels import colour as module
from terrazzo.kernels.colour import recolour

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255.0), (np.uint16, 65535.0), (np.float32, 1.0)])
def test_every_pixel_is_multiplied_and_clipped(dtype: type, white: float, channels: int) -> None:
    image = (RNG.random((9, 14, channels)) * white).astype(dtype)
    matrix = RNG.normal(0, 1, (channels, channels + 1)).astype(np.float32)
    matrix[0] = [2.5, *[0.0] * (channels - 1), -0.6]  # one channel at least is clipped below and above
    out = np.empty((channels, 9, 14), np.float32)
    recolour(image, matrix, white=white, low=-0.2, high=0.9, out_CHW=out)
    homogeneous = np.concatenate([image.astype(np.float64) / white, np.ones((9, 14, 1))], axis=2)
    expected = np.clip(np.einsum("ij,hwj->ihw", matrix.astype(np.float64), homogeneous), -0.2, 0.9)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert out.min() == np.float32(-0.2)
    assert out.max() == np.float32(0.9)


def test_what_lies_beyond_the_image_is_left_alone() -> None:
    image = np.full((2, 3, 3), 255, np.uint8)
    out = np.full((3, 4, 5), 7, np.float32)
    recolour(image, np.eye(3, 4, dtype=np.float32), white=255.0, out_CHW=out)
    assert (out[:, :2, :3] == 1).all()
    assert out.sum() == 3 * (2 * 3 * 1 + (4 * 5 - 2 * 3) * 7)


def test_a_pixel_that_is_no_number_stays_none() -> None:
    image = np.array([[[np.nan]], [[0.5]]], np.float32)
    out = np.empty((1, 2, 1), np.float32)
    recolour(image, np.eye(1, 2, dtype=np.float32), white=1.0, out_CHW=out)
    assert np.isnan(out[0, 0, 0])
    assert out[0, 1, 0] == 0.5


@pytest.mark.parametrize("channels", [2, 3])
def test_without_numba_the_same_comes_out(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    image = RNG.integers(0, 256, (9, 8, channels), dtype=np.uint8)
    matrix = RNG.normal(0, 1, (channels, channels + 1)).astype(np.float32)
    compiled, plain = np.zeros((channels, 12, 12), np.float32), np.zeros((channels, 12, 12), np.float32)
    recolour(image, matrix, white=255.0, out_CHW=compiled)
    monkeypatch.setattr(module, "is_available", lambda: False)
    recolour(image, matrix, white=255.0, out_CHW=plain)
    np.testing.assert_allclose(compiled, plain, atol=1e-6)
