"""Windows cover every pixel, stay inside, and blend as the plain way of adding resized logits does."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.errors import UsageError
from terrazzo.windows import Blend, resized_rows, starts, taper

sides = st.integers(1, 60)


@settings(deadline=None)
@given(length=sides, window=sides, data=st.data())
def test_windows_cover_every_pixel_and_stay_inside(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    seen = np.zeros(length, bool)
    for start in starts(length, window, stride):
        assert start >= 0
        assert start + min(window, length) <= length
        seen[start : start + window] = True
    assert seen.all()


def test_windows_stand_on_the_grid_and_the_last_is_shifted_inside() -> None:
    assert starts(2048, 1024, 768) == [0, 768, 1024]  # Cityscapes' width with MMSegmentation's 1024 / 768
    assert starts(1024, 1024, 768) == [0]
    assert starts(1025, 1024, 768) == [0, 1]
    assert starts(10, 4, 2) == [0, 2, 4, 6]
    assert starts(3, 4, 4) == [0]


@pytest.mark.parametrize("stride", [0, 9])
def test_a_stride_that_skips_pixels_or_never_moves_is_refused(stride: int) -> None:
    with pytest.raises(
        UsageError, match=f"Windows of 8 pixels cannot move by {stride}.\n  expected: a stride of 1 to 8"
    ):
        starts(20, 8, stride)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.data())
def test_resized_rows_are_those_of_torch(
    h: int, w: int, height: int, width: int, corners: bool, data: st.DataObject
) -> None:
    logits = np.random.default_rng(h * 10 + w).normal(size=(3, h, w)).astype(np.float32)
    first = data.draw(st.integers(0, height - 1))
    end = data.draw(st.integers(first + 1, height))
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (height, width), mode="bilinear", align_corners=corners
    )[0]
    rows = resized_rows(logits, (height, width), slice(first, end), align_corners=corners)
    np.testing.assert_allclose(rows, whole[:, first:end], atol=1e-5)


def blended_plainly(
    scores: dict[tuple[int, int], np.ndarray],
    image_hw: tuple[int, int],
    window_hw: tuple[int, int],
    weight: np.ndarray,
    corners: bool,
) -> np.ndarray:
    """Every window's logits at full size, times its weights, added and divided by what they weigh at each pixel."""
    total, count = np.zeros((2, *image_hw)), np.zeros(image_hw)
    for (top, left), logits in scores.items():
        big = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None], window_hw, mode="bilinear", align_corners=corners
        )[0].numpy()
        total[:, top : top + window_hw[0], left : left + window_hw[1]] += big * weight
        count[top : top + window_hw[0], left : left + window_hw[1]] += weight
    return total / count


@given(
    st.integers(1, 45), st.integers(1, 45), st.integers(1, 20), st.integers(1, 20), st.booleans(), st.data()
)
@settings(deadline=None)
def test_a_blend_is_the_plain_average_of_resized_windows_however_it_is_cut_into_rows(
    height: int, width: int, wh: int, ww: int, corners: bool, data: st.DataObject
) -> None:
    stride_hw = data.draw(st.integers(1, wh)), data.draw(st.integers(1, ww))
    scores: dict[tuple[int, int], np.ndarray] = {}
    rng = np.random.default_rng(height)
    shape = 2, -(-min(wh, height) // 4), -(-min(ww, width) // 4)

    def score(corners: list[tuple[int, int]]) -> list[np.ndarray]:
        for corner in corners:
            assert corner not in scores, "a window is looked at once"
            scores[corner] = rng.normal(size=shape).astype(np.float32)
        return [scores[corner] for corner in corners]

    weighting = data.draw(st.sampled_from(["uniform", "smooth"]))
    blend = Blend((height, width), (wh, ww), stride_hw, score, weighting=weighting, align_corners=corners)
    step = data.draw(st.integers(1, height))
    rows = [blend.rows(top, min(top + step, height)) for top in range(0, height, step)]
    weight = np.ones(blend.window_hw)
    if weighting == "smooth":  # Hann, sampled at the centres of pixels
        down, across = (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n) for n in blend.window_hw)
        weight = np.outer(down, across)
    expected = blended_plainly(scores, (height, width), blend.window_hw, weight, corners)
    np.testing.assert_allclose(np.concatenate(rows, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 512, 4096])
def test_a_taper_is_symmetric_never_zero_and_half_a_window_apart_adds_up_to_one(length: int) -> None:
    weight = taper(length).astype(np.float64)
    assert (weight > 0).all()
    np.testing.assert_allclose(weight, weight[::-1], atol=1e-6)
    if length % 2 == 0:
        np.testing.assert_allclose(weight[length // 2 :] + weight[: length // 2], 1, atol=1e-6)


def test_smooth_windows_have_no_seam_where_uniform_ones_jump() -> None:
    """Two windows that disagree by 1: between them the mean slides, without a step anywhere."""

    def score(corners: list[tuple[int, int]]) -> list[np.ndarray]:
        return [np.full((1, 4, 32), float(left > 0), np.float32) for _, left in corners]

    steps = {}
    for weighting in ("uniform", "smooth"):
        row = Blend((4, 48), (4, 32), (4, 16), score, weighting=weighting).rows(0, 4)[0, 0]
        assert row[0] == 0
        assert row[-1] == 1
        steps[weighting] = np.abs(np.diff(row)).max()
    assert steps["uniform"] == 0.5
    assert steps["smooth"] < 0.11  # pi / 2 / 16: the steepest slope of sin² over 16 pixels


@pytest.mark.parametrize("weighting", ["uniform", "smooth"])
@pytest.mark.parametrize("corners", [False, True])
def test_tensors_are_blended_as_arrays_are_and_never_leave_their_device(
    weighting: Any, corners: bool
) -> None:
    rng = np.random.default_rng(5)
    scores = {
        (top, left): rng.normal(size=(3, 4, 5)).astype(np.float32)
        for top in starts(37, 16, 10)
        for left in starts(41, 20, 13)
    }

    def blended(kind: Callable[[np.ndarray], Any]) -> list[Any]:
        def score(at: Sequence[tuple[int, int]]) -> list[Any]:
            return [kind(scores[corner]) for corner in at]

        blend = Blend((37, 41), (16, 20), (10, 13), score, weighting=weighting, align_corners=corners)
        return [blend.rows(top, min(top + 9, 37)) for top in range(0, 37, 9)]

    arrays, tensors = blended(lambda logits: logits), blended(torch.from_numpy)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_allclose(tensor.numpy(), array, rtol=0, atol=1e-6)
    without_values = blended(lambda logits: torch.from_numpy(logits).to("meta"))  # what reads one raises
    assert [one.shape for one in without_values] == [array.shape for array in arrays]
    assert {one.device.type for one in without_values} == {"meta"}
