"""Resize and argmax in one pass against torch's interpolate, softmax and argmax, and examples worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from terrazzo.kernels import resize_argmax as module
from terrazzo.kernels.bilinear import taps
from terrazzo.kernels.resize_argmax import resize_argmax, resize_argmax_reference


def by_torch(logits_KHW: np.ndarray, size_hw: tuple[int, int], align_corners: bool) -> torch.Tensor:
    logits = torch.from_numpy(logits_KHW)[None]
    return torch.nn.functional.interpolate(
        logits, size=size_hw, mode="bilinear", align_corners=align_corners
    )[0]


def assert_equal_but_for_ties(
    logits_KHW: np.ndarray, size_hw: tuple[int, int], *, align_corners: bool
) -> None:
    mask, sure = resize_argmax(logits_KHW, size_hw, align_corners=align_corners, confidence=True)
    assert sure is not None
    full_KHW = by_torch(logits_KHW, size_hw, align_corners)
    best_HW, chosen_HW = (
        full_KHW.max(0).values,
        full_KHW.gather(0, torch.from_numpy(mask.astype(np.int64))[None])[0],
    )
    assert (best_HW - chosen_HW).max() <= 1e-6 * max(1.0, full_KHW.abs().max().item())
    certain = full_KHW.softmax(0).max(0).values.numpy()
    assert np.abs(sure - 255 * certain).max() <= 0.5 + 255e-6  # rounded, of a value within 1e-6


def test_two_classes_cross_in_the_middle() -> None:
    # places -0.25 -> 0, 0.25, 0.75, 1.25 -> 1: class 0 has 1, 0.75, 0.25, 0 and class 1 what is missing to 1
    logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    mask, sure = resize_argmax(logits, (1, 4), confidence=True)
    assert mask.tolist() == [[0, 0, 1, 1]]
    certain, unsure = round(255 / (1 + np.exp(-1.0))), round(255 / (1 + np.exp(-0.5)))
    assert sure is not None
    assert sure.tolist() == [[certain, unsure, unsure, certain]]


def test_corners_stay_where_they_are_when_aligned() -> None:
    logits = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)  # aligned, class 0 has 1, 2/3, 1/3, 0
    _, sure = resize_argmax(logits, (1, 4), align_corners=True, confidence=True)
    third = round(255 / (1 + np.exp(-1 / 3)))
    assert sure is not None
    assert sure.tolist() == [[186, third, third, 186]]


def test_ties_go_to_the_lowest_id() -> None:
    logits = np.zeros((9, 3, 3), np.float32)
    assert not resize_argmax(logits, (7, 7))[0].any()
    logits[[5, 7]] = 1.0
    mask, sure = resize_argmax(logits, (7, 7), confidence=True)
    assert sure is not None
    assert (mask == 5).all() and (sure == round(255 / (2 + 7 / np.e))).all()


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_masks_equal_torchs_for_any_sizes(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(1, 20)), "logits")
    size_hw = data.draw(st.tuples(st.integers(1, 70), st.integers(1, 70)), "mask")
    scale = data.draw(st.sampled_from([0.1, 1.0, 10.0]), "scale")
    rng = np.random.default_rng(data.draw(st.integers(0, 999), "seed"))
    logits = (rng.standard_normal(shape) * scale).astype(np.float32)
    assert_equal_but_for_ties(logits, size_hw, align_corners=data.draw(st.booleans(), "align_corners"))


@given(st.integers(1, 300), st.integers(1, 2000), st.booleans())
@example(97, 769, True)
@example(128, 1920, False)
@settings(deadline=None, max_examples=60)
def test_positions_are_torchs_to_the_last_bits(in_size: int, out_size: int, align_corners: bool) -> None:
    ramp = torch.arange(in_size, dtype=torch.float32)
    theirs = torch.nn.functional.interpolate(
        ramp[None, None], out_size, mode="linear", align_corners=align_corners
    )
    first, second, share = taps(in_size, out_size, align_corners=align_corners)
    assert np.abs(first * (1 - share) + second * share - theirs[0, 0].numpy()).max() <= 2e-7 * in_size
    assert (
        (np.diff(first.astype(int)) >= 0).all()
        and first.max(initial=0) < in_size
        and second.max(initial=0) < in_size
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_many_classes_and_several_tiles_and_strips_change_nothing(
    align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(3).standard_normal((300, 9, 13)).astype(np.float32)
    monkeypatch.setattr(module, "PIECE_FLOATS", 1000)
    assert_equal_but_for_ties(logits, (31, 150), align_corners=align_corners)  # tiles of 64 columns
    alone, _ = resize_argmax(logits, (31, 150), threads=1)
    several, _ = resize_argmax(logits, (31, 150), threads=3)
    assert alone.dtype == np.uint16
    assert (alone == several).all()


def test_a_mask_of_the_logits_own_size_is_their_argmax() -> None:
    logits = np.random.default_rng(4).standard_normal((6, 21, 17)).astype(np.float32)
    assert (resize_argmax(logits, (21, 17))[0] == logits.argmax(0)).all()


def test_nan_never_wins() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0], logits[2] = np.nan, 1.0
    for way in (resize_argmax, resize_argmax_reference):
        assert (way(logits, (5, 5))[0] == 2).all()


def test_read_only_strided_and_double_logits_are_taken_too() -> None:
    logits = np.random.default_rng(5).standard_normal((20, 14, 5))
    wanted = resize_argmax(np.ascontiguousarray(logits.transpose(2, 0, 1)[:, ::2], np.float32), (30, 28))[0]
    logits.flags.writeable = False
    assert (resize_argmax(logits.transpose(2, 0, 1)[:, ::2], (30, 28))[0] == wanted).all()


def test_without_numba_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(6).standard_normal((7, 8, 9)).astype(np.float32)
    mask, sure = resize_argmax(logits, (33, 20), confidence=True)
    monkeypatch.setattr(module, "is_available", lambda: False)
    plain, plain_sure = resize_argmax(logits, (33, 20), confidence=True)
    assert sure is not None and plain_sure is not None
    assert (mask == plain).all() and np.abs(sure.astype(int) - plain_sure).max() <= 1
    assert resize_argmax(logits, (33, 20))[1] is None


def test_cells_that_one_class_wins_at_all_corners_are_filled_as_torch_fills_them() -> None:
    """Large regions, as trained networks draw them: nearly all cells are settled without looking inside."""
    rng = np.random.default_rng(6)
    for shape, size_hw in (((19, 40, 52), (330, 419)), ((3, 33, 17), (65, 33)), ((5, 24, 24), (11, 9))):
        regions = np.kron(rng.integers(0, shape[0], (4, 4)), np.ones((12, 15), int))[: shape[1], : shape[2]]
        logits = rng.standard_normal(shape).astype(np.float32)
        np.put_along_axis(logits, regions[None], 6.0, axis=0)
        for align_corners in (False, True):
            assert_equal_but_for_ties(logits, size_hw, align_corners=align_corners)
            mask, _ = resize_argmax(logits, size_hw, align_corners=align_corners)
            full = by_torch(logits, size_hw, align_corners)
            assert (mask == full.argmax(0).numpy()).mean() > 0.9995
