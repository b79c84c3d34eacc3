"""Probabilities of resized logits add up as torch's interpolate and softmax say."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.kernels.add_probs import add_probs, add_probs_reference, add_probs_there
from terrazzo.kernels.bilinear import Taps, TapsThere, taps


def add_there(
    logits: np.ndarray, rows: Taps, columns: Taps, total: np.ndarray, *, is_mirrored: bool = False
) -> None:
    """The form for tensors, which share the arrays' memory here."""
    there = [TapsThere(*(torch.from_numpy(one.astype(np.int64) if one.dtype == np.uint32 else one) for one in line))
             for line in (rows, columns)]  # fmt: skip
    add_probs_there(torch.from_numpy(logits), *there, torch.from_numpy(total), is_mirrored=is_mirrored)


BOTH = pytest.mark.parametrize(
    "add", [add_probs, add_probs_reference, add_there], ids=["kernel", "reference", "tensors"]
)
sides = st.integers(1, 30)


@BOTH
@settings(deadline=None, max_examples=40)
@given(sides, sides, sides, sides, st.integers(1, 5), st.booleans(), st.booleans(), st.data())
def test_some_rows_of_the_sum_are_those_of_torch(
    add: Callable[..., None], h: int, w: int, height: int, width: int, num_classes: int, corners: bool, mirrored: bool,
    data: st.DataObject
) -> None:  # fmt: skip
    first = data.draw(st.integers(0, height - 1))
    rows = slice(first, data.draw(st.integers(first + 1, height)))
    rng = np.random.default_rng(h * 100 + w)
    logits = rng.normal(0, 3, (num_classes, h, w)).astype(np.float32)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (height, width), mode="bilinear", align_corners=corners
    )[0]
    probs = full.softmax(0)
    start = rng.random((num_classes, rows.stop - rows.start, width)).astype(np.float32)
    total = start.copy()
    down = Taps(*(part[rows] for part in taps(h, height, align_corners=corners)))
    add(logits, down, taps(w, width, align_corners=corners), total, is_mirrored=mirrored)
    expected = (probs.flip(2) if mirrored else probs)[:, rows].numpy() + start
    np.testing.assert_allclose(total, expected, atol=5e-6)


@BOTH
def test_a_nan_spoils_the_pixels_that_read_it_and_no_others(add: Callable[..., None]) -> None:
    logits = np.zeros((2, 1, 4), np.float32)
    logits[1, 0, 3] = np.nan
    total = np.zeros((2, 1, 4), np.float32)
    with np.errstate(invalid="ignore"):
        add(logits, taps(1, 1, align_corners=False), taps(4, 4, align_corners=False), total)
    assert np.isnan(total[:, 0, 3]).all()
    assert (total[:, 0, :2] == 0.5).all()


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(19, 40, 50)).astype(np.float32)
    down, across = taps(40, 130, align_corners=False), taps(50, 170, align_corners=False)
    totals = [np.zeros((19, 130, 170), np.float32) for _ in range(2)]
    for total, threads in zip(totals, (1, 3), strict=True):
        add_probs(logits, down, across, total, threads=threads)
    assert (totals[0] == totals[1]).all()
    np.testing.assert_allclose(totals[0].sum(0), 1, atol=1e-5)
