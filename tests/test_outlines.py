"""Outlines are exact: filled again they are the mask, and areas are those that scipy finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from terrazzo.outlines import Area, outlines
from terrazzo.regions import fill_polygon


def filled(area: Area, size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    outer, *holes = [np.zeros(size_hw, bool) for _ in area.rings]
    for canvas, ring in zip((outer, *holes), area.rings, strict=True):
        fill_polygon(canvas, ring.astype(np.float64))
    for hole in holes:
        assert not (hole & ~outer).any()
        outer &= ~hole
    return outer


def test_a_square_is_walked_clockwise_on_the_screen_from_its_upper_left() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 2:5] = 7
    by_value = {area.value: area for area in outlines(mask)}
    assert [ring.tolist() for ring in by_value[7].rings] == [[[2, 1], [5, 1], [5, 3], [2, 3]]]
    outer, hole = by_value[0].rings
    assert outer.tolist() == [[0, 0], [6, 0], [6, 5], [0, 5]]
    assert sorted(map(tuple, hole.tolist())) == [(2, 1), (2, 3), (5, 1), (5, 3)]
    assert (by_value[7].size, by_value[0].size) == (6, 24)


def test_pixels_that_touch_by_a_corner_are_two_areas() -> None:
    areas = outlines(np.asarray([[1, 0], [0, 1]], np.uint8))
    assert [(area.value, area.size) for area in areas] == [(1, 1), (0, 1), (0, 1), (1, 1)]
    assert all(len(area.rings) == 1 for area in areas)


def test_a_hole_whose_left_end_looks_at_another_hole_finds_the_outer_ring() -> None:
    mask = np.asarray(
        [
            [1, 1, 1, 1, 1, 1],
            [1, 0, 1, 1, 0, 1],
            [1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0],
            [2, 2, 0, 2, 2, 0],
        ],
        np.uint16,
    )
    ones = next(area for area in outlines(mask) if area.value == 1)
    assert (len(ones.rings), ones.size) == (3, 16)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32), st.integers(1, 4), st.booleans())
def test_filled_again_areas_are_the_mask_and_those_of_scipy(
    height: int, width: int, seed: int, values: int, blocks: bool
) -> None:
    mask = np.random.default_rng(seed).integers(0, values, (height, width)).astype(np.uint8)
    if blocks:
        mask = np.kron(mask, np.ones((2, 3), np.uint8))
    covered = np.zeros(mask.shape, int)
    areas = outlines(mask)
    for area in areas:
        inside = filled(area, mask.shape)
        assert (mask[inside] == area.value).all()
        assert inside.sum() == area.size
        covered += inside
    assert (covered == 1).all()
    assert len(areas) == sum(ndimage.label(mask == value)[1] for value in range(values))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_one_value_is_one_rectangle(shape: tuple[int, int]) -> None:
    (area,) = outlines(np.full(shape, 3, np.uint16))
    height, width = shape
    assert area.rings[0].tolist() == [[0, 0], [width, 0], [width, height], [0, height]]
    assert area.size == height * width
