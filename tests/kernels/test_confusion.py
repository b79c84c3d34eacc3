"""Confusion counts against tables worked by hand, scikit-learn, and a plain double loop."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from terrazzo.errors import MaskSizeError, MaskValueError
from terrazzo.kernels import confusion as module
from terrazzo.kernels.confusion import confusion, confusion_reference

DTYPES = (np.uint8, np.int8, np.uint16, np.int32, np.int64)


def by_loop(pred: np.ndarray, mask: np.ndarray, num_classes: int, ignore: int) -> list[list[int]]:
    seen = Counter(zip(mask.ravel().tolist(), pred.ravel().tolist(), strict=True))
    return [[0 if t == ignore else seen[t, p] for p in range(num_classes)] for t in range(num_classes)]


def test_rows_are_the_truth_and_columns_the_prediction() -> None:
    mask = np.array([[0, 1, 2], [0, 1, 2], [0, 2, 255]], np.uint8)
    pred = np.array([[0, 1, 1], [1, 1, 2], [0, 0, 0]], np.uint8)
    assert confusion(pred, mask, 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 1, 1]]


def test_ignored_pixels_do_not_change_counts_whatever_was_predicted_there() -> None:
    mask, pred = np.array([[0, 1], [1, 255]], np.uint8), np.array([[0, 1], [0, 77]], np.uint8)
    assert confusion(pred, mask, 2).tolist() == [[1, 0], [1, 1]]  # by hand: one 1 seen as 0


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_counts_equal_a_plain_loop_for_every_dtype_and_length(data: st.DataObject) -> None:
    num_classes = data.draw(st.integers(1, 70), "classes")
    ignore = data.draw(st.sampled_from([255, num_classes, 120, 0]), "ignore")
    rng = np.random.default_rng(data.draw(st.integers(0, 999), "seed"))
    length, run = data.draw(st.integers(0, 200), "length"), data.draw(st.sampled_from([1, 5, 8, 40]), "run")
    mask = np.repeat(rng.integers(0, num_classes, length), run)
    mask[rng.random(len(mask)) < 0.1] = ignore
    pred = np.where(rng.random(len(mask)) < 0.2, rng.integers(0, num_classes, len(mask)), mask)
    pred[pred >= num_classes] = 0
    of_mask = data.draw(st.sampled_from([d for d in DTYPES if ignore <= np.iinfo(d).max]), "mask dtype")
    of_pred = data.draw(st.sampled_from(DTYPES), "pred dtype")
    counts = confusion(pred.astype(of_pred), mask.astype(of_mask), num_classes, ignore)
    assert counts.tolist() == by_loop(pred, mask, num_classes, ignore)
    assert counts.dtype == np.int64


def test_counts_equal_scikit_learns_at_cityscapes_and_ade20k_size() -> None:
    rng = np.random.default_rng(0)
    for num_classes in (19, 150):
        mask = rng.integers(0, num_classes, (97, 301)).astype(np.uint8)
        pred = np.where(rng.random(mask.shape) < 0.5, mask, rng.integers(0, num_classes, mask.shape)).astype(
            np.uint8
        )
        truth = confusion_matrix(mask.ravel(), pred.ravel(), labels=np.arange(num_classes))
        assert (confusion(pred, mask, num_classes) == truth).all()


def test_counts_add_over_pieces_threads_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    mask, pred = (rng.integers(0, 5, (7, 33, 41)).astype(np.uint8) for _ in range(2))
    whole = confusion(pred, mask, 5, threads=1)
    assert (whole == sum(confusion(p, m, 5) for p, m in zip(pred, mask, strict=True))).all()
    monkeypatch.setattr(module, "PIECE", 64)
    assert (whole == confusion(pred, mask, 5, threads=3)).all()


def test_views_that_are_not_contiguous_not_aligned_or_read_only_are_counted_alike() -> None:
    rng = np.random.default_rng(2)
    mask, pred = (rng.integers(0, 4, (40, 50)).astype(np.uint8) for _ in range(2))
    for view in (np.s_[:, ::2], np.s_[1:, 3:], np.s_[::-1]):
        assert (confusion(pred[view], mask[view], 4) == by_loop(pred[view], mask[view], 4, 255)).all()
    flat_pred, flat_mask = pred.ravel()[3:], mask.ravel()[3:]
    flat_pred.flags.writeable = False
    assert (confusion(flat_pred, flat_mask, 4) == by_loop(flat_pred, flat_mask, 4, 255)).all()


def test_sixteen_bit_masks_ignore_65535() -> None:
    mask = np.array([0, 299, 299, 65535], np.uint16)
    pred = np.array([0, 299, 1, 5], np.uint16)
    counts = confusion(pred, mask, 300)
    assert counts.sum() == 3
    assert (counts[0, 0], counts[299, 299], counts[299, 1]) == (1, 1, 1)


def test_torch_tensors_and_the_way_of_other_devices_count_the_same() -> None:
    mask, pred = torch.tensor([[[0, 1], [1, 255]]]), torch.tensor([[[0, 1], [0, 1]]])
    assert confusion(pred, mask, num_classes=2).tolist() == [[1, 0], [1, 1]]
    assert confusion(pred.byte().bool(), mask.byte(), num_classes=2).tolist() == [[1, 0], [1, 1]]
    assert module._confusion_on_device(pred, mask.numpy(), 2, 255).tolist() == [[1, 0], [1, 1]]
    with pytest.raises(MaskValueError, match="The prediction has class id 3; there are 2 classes."):
        module._confusion_on_device(pred * 3, mask, 2, 255)


@pytest.mark.gpu
def test_counts_on_a_gpu_are_the_same() -> None:
    mask, pred = (torch.randint(0, 19, (4, 100, 100), dtype=torch.uint8, device="cuda") for _ in range(2))
    mask[0] = 255
    assert (confusion(pred, mask, 19) == confusion(pred.cpu(), mask.cpu(), 19)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_predicted_id_outside_the_classes_is_an_error_that_names_it(dtype: type) -> None:
    mask, pred = np.zeros(100, dtype), np.zeros(100, dtype)
    pred[3:5], pred[99] = 7, 9
    with pytest.raises(MaskValueError) as error:
        confusion(pred, mask, 3)
    assert str(error.value) == (
        "The prediction has class id 7; there are 3 classes.\n"
        "  found: 7 (2 pixels), 9 (1 pixels)\n"
        "  expected: 0-2 wherever the truth is not 255\n"
        "  Ids are remapped once, where data enters; an id outside the classes would make every score false."
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_true_id_outside_the_classes_is_an_error_that_names_it(dtype: type) -> None:
    mask = np.array([0, 1, 33, 255] * 20, dtype)
    with pytest.raises(
        MaskValueError, match=r"The truth has class id 33; there are 19 classes.\n  found: 33 \(20 pix"
    ):
        confusion(np.zeros_like(mask), mask, 19)


def test_negative_ids_are_wrong_ids() -> None:
    with pytest.raises(MaskValueError, match="The prediction has class id -1"):
        confusion(np.array([-1, 0]), np.array([0, 0]), 2)


def test_other_sizes_and_probabilities_are_refused_in_words() -> None:
    with pytest.raises(MaskSizeError, match=r"found: prediction 2x3\n  expected: 3x2, as the truth"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)
    with pytest.raises(MaskValueError, match=r"The prediction is not a map of class ids.\n  found: float32"):
        confusion(np.zeros(4, np.float32), np.zeros(4, np.uint8), 2)


def test_without_numba_the_reference_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_available", lambda: False)
    mask, pred = np.array([0, 1, 1, 255], np.uint8), np.array([0, 1, 0, 1], np.uint8)
    assert (
        confusion(pred, mask, 2).tolist() == [[1, 0], [1, 1]] == confusion_reference(pred, mask, 2).tolist()
    )


def test_what_a_call_left_behind_is_in_no_other_calls_counts() -> None:
    mask, pred = np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, np.full((8, 8), 3, np.uint8)
    expected = [[0, 0, 0, 16]] * 4
    assert confusion(pred, mask, 4).tolist() == expected
    with pytest.raises(MaskValueError):
        confusion(pred, mask, 3)  # 3 is outside
    assert confusion(pred, mask, 4, ignore=2).tolist() == [expected[0], expected[0], [0] * 4, expected[0]]
    assert confusion(pred, mask, 4).tolist() == expected
