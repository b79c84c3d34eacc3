"""Specks against scikit-image's labelling of areas, a plain walk, and a mask worked by hand."""

import numpy as np
import pytest
from skimage.measure import label

from terrazzo.kernels.specks import specks, specks_reference


def by_labels(mask: np.ndarray, most: int) -> np.ndarray:
    found = np.zeros(mask.shape, bool)
    for value in np.unique(mask):
        areas = label(mask == value, connectivity=2)
        sizes = np.bincount(areas.ravel())
        sizes[0] = 0
        found |= (sizes[areas] <= most) & (areas > 0)
    return found


def test_corners_join_and_an_area_of_one_more_is_none() -> None:
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 2], [3, 0, 0, 2]], np.uint8)
    by_hand = [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [1, 0, 0, 0],
    ]  # two 1s at a corner, one 3; three 2s stay
    assert specks(mask, 2).astype(int).tolist() == by_hand


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_areas_are_those_of_scikit_image(dtype: type) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        mask = rng.integers(0, 3, rng.integers(1, 15, 2)).astype(dtype)
        for most in (1, 3, 6):
            truth = by_labels(mask, most)
            assert np.array_equal(specks(mask, most), truth)
            assert np.array_equal(specks_reference(mask, most), truth)


def test_a_large_winding_area_is_one() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[::2] = 1  # a comb, joined at its ends alternately
    for row in range(1, 63, 2):
        mask[row, -1 if row % 4 == 1 else 0] = 1
    mask[31, 30] = (
        1  # between two teeth, so part of the comb; the 0s around it become two areas of many pixels
    )
    assert not specks(mask, 20).any() and np.array_equal(specks(mask, 62), by_labels(mask, 62))
    assert specks(np.zeros((0, 4), np.uint8), 3).shape == (0, 4)
