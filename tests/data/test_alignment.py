"""How a mask lies on its image: the way found is the way moved, chance finds none. What is done to masks, by hand."""

import numpy as np
import pytest
from PIL import Image

from terrazzo.data import alignment, mask_changes
from terrazzo.data.chart import Border
from terrazzo.data.scenes import scene


def drawn(index: int, size_hw: tuple[int, int] = (96, 128)) -> tuple[Image.Image, np.ndarray]:
    sample = scene(index, size_hw=size_hw)
    assert sample.mask is not None
    return Image.fromarray(sample.image).convert("L"), sample.mask


def lies(grey: Image.Image, mask: np.ndarray) -> alignment.Fit:
    found = alignment.correlate(grey, mask)
    assert found is not None
    return alignment.fit(*found)


@pytest.mark.parametrize("way", [(8, 0), (0, -8), (6, 6), (-5, 7), (3, 0)])
def test_the_way_back_is_found(way: tuple[int, int]) -> None:
    for index in range(3):
        grey, mask = drawn(index)
        assert lies(grey, mask).is_in_place and not lies(grey, mask).is_shifted
        there = lies(grey, mask_changes.moved(mask, way, 255))
        assert there.is_shifted and (round(there.dy), round(there.dx)) == (-way[0], -way[1])


def test_a_large_image_is_compared_in_coarse_cells_and_refined_to_the_pixel() -> None:
    grey, mask = drawn(0, (320, 400))
    moved = mask_changes.moved(mask, (7, -3), 255)
    found = alignment.correlate(grey, moved)
    assert found is not None and found[1] == 2
    there = alignment.refined(grey, moved, alignment.fit(*found))
    assert there.is_shifted and (there.dy, there.dx) == (-7, 3)


def test_chance_is_no_shift() -> None:
    rng = np.random.default_rng(0)
    usual = np.median([lies(*drawn(index)).height for index in range(6)])
    for index in range(12):
        grey, _ = drawn(index)
        _, other = drawn(index + 100)
        noise = Image.fromarray(rng.integers(0, 256, (96, 128)).astype(np.uint8))
        for there in (lies(grey, other), lies(noise, other)):  # as `symptoms.shift_of` asks
            assert not there.is_shifted or there.height < alignment.LOWEST * usual


def test_where_there_is_nothing_to_compare_nothing_is_said() -> None:
    grey, mask = drawn(0)
    assert alignment.correlate(grey, np.zeros_like(mask)) is None  # no border
    assert alignment.correlate(Image.new("L", (128, 96), 80), mask) is None  # no edge
    assert alignment.correlate(grey.crop((0, 0, 30, 30)), mask[:30, :30]) is None  # too small


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_turned_mask_is_turned_back(turn: int) -> None:
    grey, mask = drawn(4)
    back = {6: 8, 8: 6}.get(turn, turn)
    lying = alignment.upright(mask, back)
    turns = (5, 6, 7, 8) if lying.shape != mask.shape else range(2, 9)
    assert alignment.best_turn(grey, lying, turns)[0] == turn


def test_holes_grow_shut_from_their_rims() -> None:
    mask = np.array([[1, 9, 9, 2], [1, 9, 9, 2]], np.uint8)
    assert mask_changes.filled(mask, mask == 9).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]
    assert mask_changes.filled(mask, np.ones_like(mask, bool)).tolist() == mask.tolist()


def test_a_moved_mask_leaves_an_ignored_strip() -> None:
    mask = np.array([[1, 2], [3, 4]], np.uint8)
    assert mask_changes.moved(mask, (1, 0), 255).tolist() == [[255, 255], [1, 2]]
    assert mask_changes.moved(mask, (0, -1), 255).tolist() == [[2, 255], [4, 255]]


def test_mixed_ids_take_the_side_they_are_nearer_to() -> None:
    row = np.array([[0, 0, 0, 2, 6, 8, 8, 8]] * 3, np.uint8)  # 2 and 6 nobody drew
    assert mask_changes.unblended(row, range(9)).tolist() == [[0, 0, 0, 0, 8, 8, 8, 8]] * 3


def test_ids_are_written_all_at_once_and_packed_ones_taken_apart() -> None:
    assert mask_changes.moved_ids(np.array([[1, 2, 3]], np.uint8), {1: 2, 2: 1, 3: 300}).tolist() == [
        [2, 1, 300]
    ]
    packed = np.array([[0, 7, 11003, 26001, 65535]], np.uint16)
    assert mask_changes.unpacked(packed, 1000).tolist() == [[0, 7, 11, 26, 65535]]


def test_a_frame_is_filled_from_within() -> None:
    mask = np.pad(np.array([[1, 2], [3, 4]], np.uint8), 1, constant_values=255)
    assert mask_changes.without_frame(mask, Border(255, 1, 1, 1, 1)).tolist() == [
        [1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4],
    ]  # fmt: skip
