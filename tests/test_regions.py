"""Run lengths are pycocotools' to the bit; polygons are the pixels whose centres they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from terrazzo.regions import as_corners, decode_runs, fill_polygon, polygon_area, unpack_runs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools with NumPy 2


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([0.0, 0.03, 0.5, 1.0]))
def test_packed_runs_are_those_of_pycocotools(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    packed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    np.testing.assert_array_equal(decode_runs(unpack_runs(packed["counts"].decode()), (height, width)), mask)


def test_runs_go_down_the_columns() -> None:
    assert decode_runs([1, 2, 3], (2, 3)).tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize("counts", [[7], [5], [-1, 7], [1, 2, 3, 10**12], []])
def test_runs_that_do_not_make_the_image_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="of 6 pixels"):
        decode_runs(counts, (2, 3))


@pytest.mark.parametrize("text", ["\x00", "ü", "P", "P" * 50, "p"])
def test_packed_runs_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="compressed run lengths"):
        unpack_runs(text)


def test_upright_rectangles_are_pycocotools_exactly_and_other_polygons_but_for_edges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        left, top, wide, high = (int(n) for n in rng.integers(0, 20, 4))
        numbers = [left, top, left + wide, top, left + wide, top + high, left, top + high]
        mask = np.zeros((30, 30), bool)
        fill_polygon(mask, as_corners(numbers))
        truth = np.zeros((30, 30), bool)
        truth[top : top + high, left : left + wide] = True
        np.testing.assert_array_equal(mask, truth)
        if wide and high:
            np.testing.assert_array_equal(mask, theirs(numbers, 30))
    for _ in range(30):
        angles = np.sort(rng.random(7)) * 2 * np.pi
        corners = 50 + rng.uniform(20, 45, (7, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        mask = np.zeros((100, 100), bool)
        fill_polygon(mask, corners)
        differing = mask != theirs(corners.ravel().tolist(), 100)
        edges = np.abs(np.diff(mask.astype(int), axis=0, prepend=0)) + np.abs(
            np.diff(mask.astype(int), axis=1, prepend=0)
        )
        near = np.zeros_like(mask)
        for shift in (-1, 0, 1):
            for other in (-1, 0, 1):
                near |= np.roll(edges > 0, (shift, other), (0, 1))
        assert not (differing & ~near).any()
        assert abs(mask.sum() - polygon_area(corners)) < 0.02 * mask.sum() + 10


def theirs(numbers: list[float], side: int) -> np.ndarray:
    return reference.decode(reference.merge(reference.frPyObjects([numbers], side, side))).astype(bool)


def test_corners_outside_the_image_are_cut_off() -> None:
    mask = np.zeros((4, 6), bool)
    fill_polygon(mask, as_corners([-1e6, -1e6, 3, -1e6, 3, 1e6, -1e6, 1e6]))
    assert mask.tolist() == [[True] * 3 + [False] * 3] * 4
    fill_polygon(mask, as_corners([10, 10, 20, 10, 20, 20]))
    assert mask.sum() == 12


def test_a_hole_of_a_polygon_that_turns_back_stays_empty() -> None:
    mask = np.zeros((8, 8), bool)
    fill_polygon(mask, as_corners([0, 0, 8, 0, 8, 8, 0, 8, 0, 0, 2, 2, 6, 2, 6, 6, 2, 6, 2, 2]))
    assert not mask[3:5, 3:5].any()
    assert mask[0].all()


@pytest.mark.parametrize(
    "numbers", [[], [1, 2], [1, 2, 3, 4, 5], [[1, 2], [3, 4], [5, 6]], [1, 2, 3, 4, 5, 1e400]]
)
def test_polygons_without_a_shape_are_refused(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match="a polygon"):
        as_corners(numbers)


def test_a_polygon_that_would_take_forever_is_refused() -> None:
    corners = np.tile([[0.0, 0.0], [5.0, 30_000.0]], (1000, 1))
    with pytest.raises(ValueError, match="edges cross"):
        fill_polygon(np.zeros((32_768, 1), bool), corners)
