"""Resizing as OpenCV does it: its fixed-point sums worked by hand, and torch's interpolation for the rest."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from terrazzo.kernels.plain_resize import plain_resize


def test_two_pixels_become_four_by_hand():
    row = np.array([[[10], [21]]], np.uint8)
    # places -0.25, 0.25, 0.75, 1.25: shares of the second 0, 0.25, 0.75, 0 (outside: the last pixel itself)
    # 10; (10 * 1536 + 21 * 512) = 26112; (10 * 512 + 21 * 1536) = 37376; 21; each >> 4, * 2048 >> 16, + 2 >> 2
    assert [(26112 >> 4) * 2048 >> 16, (37376 >> 4) * 2048 >> 16] == [51, 73]
    assert plain_resize(row, (1, 4))[0, :, 0].tolist() == [10, (51 + 2) >> 2, (73 + 2) >> 2, 21]
    # halving reads between the pairs, without a wider window: 0.5 is 1024 of 2048
    four = np.array([[[0], [100], [200], [50]]], np.uint8)
    assert plain_resize(four, (1, 2))[0, :, 0].tolist() == [50, 125]


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 5), (20, 31), (64, 3), (12, 17)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_it_is_bilinear_without_antialiasing(size_hw: tuple[int, int], dtype: type):
    rng = np.random.default_rng(0)
    image = (rng.random((12, 17, 3)) * (1 if dtype is np.float32 else np.iinfo(dtype).max)).astype(dtype)
    found = plain_resize(image, size_hw)
    assert found.dtype == dtype and found.shape == (*size_hw, 3)
    batch = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]
    exact = F.interpolate(batch, size_hw, mode="bilinear", align_corners=False)[0].permute(1, 2, 0).numpy()
    off = np.abs(found.astype(np.float64) - exact).max()
    assert off <= {np.uint8: 1.0, np.uint16: 0.52, np.float32: 1e-6}[dtype]  # 8 bits: shares of 1/2048
    if size_hw == (12, 17):
        assert np.array_equal(found, image)


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch):
    image = np.random.default_rng(1).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    whole = plain_resize(image, (25, 30))
    monkeypatch.setattr("terrazzo.kernels.plain_resize.BAND_BYTES", 1)
    assert np.array_equal(plain_resize(image, (25, 30)), whole)
