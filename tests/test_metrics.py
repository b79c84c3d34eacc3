"""Scores against tables worked by hand, torchmetrics, an independent twin in numpy, and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from terrazzo import metrics
from terrazzo.errors import MaskSizeError, MaskValueError
from terrazzo.metrics import ConfusionMatrix, self_check

NAN = pytest.approx(float("nan"), nan_ok=True)


def random_pair(
    num_classes: int, *, seed: int = 0, size: int = 4000, right: float = 0.6
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, num_classes, size).astype(np.uint8)
    pred = np.where(rng.random(size) < right, mask, rng.integers(0, num_classes, size)).astype(np.uint8)
    mask[rng.random(size) < 0.1] = 255
    return pred, mask


def test_a_three_by_three_example_worked_by_hand() -> None:
    mask = np.array([[0, 0, 0], [0, 1, 1], [2, 2, 255]], np.uint8)
    pred = np.array([[0, 0, 1], [0, 1, 2], [2, 0, 2]], np.uint8)
    matrix = ConfusionMatrix(3).update(pred, mask)
    assert matrix.counts.tolist() == [[3, 1, 0], [0, 1, 1], [1, 0, 1]]
    assert matrix.true_pixels.tolist() == [4, 2, 2] and matrix.pred_pixels.tolist() == [4, 2, 2]
    assert matrix.iou.tolist() == pytest.approx([3 / 5, 1 / 3, 1 / 3])  # TP / (TP + FP + FN)
    assert matrix.accuracy.tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 2])
    assert matrix.dice.tolist() == pytest.approx([6 / 8, 2 / 4, 2 / 4])
    assert matrix.miou == pytest.approx((3 / 5 + 2 / 3) / 3)
    assert matrix.mean_accuracy == pytest.approx(7 / 12) and matrix.mean_dice == pytest.approx(7 / 12)
    assert matrix.pixel_accuracy == pytest.approx(5 / 8)
    assert matrix.frequency_weighted_iou == pytest.approx((4 * 3 / 5 + 2 / 3 + 2 / 3) / 8)
    assert repr(matrix) == "ConfusionMatrix(3 classes, 8 pixels, mIoU 0.4222)"


@pytest.mark.parametrize("num_classes", [2, 19, 150])
def test_scores_equal_torchmetrics_where_every_class_occurs(num_classes: int) -> None:
    pred, mask = random_pair(num_classes)
    matrix = ConfusionMatrix(num_classes).update(pred, mask)
    pair = torch.from_numpy(pred.astype(np.int64)), torch.from_numpy(mask.astype(np.int64))
    settings = {"num_classes": num_classes, "ignore_index": 255}
    iou = multiclass_jaccard_index(*pair, average="none", **settings)
    assert matrix.iou == pytest.approx(iou.numpy(), rel=1e-6)
    assert matrix.accuracy == pytest.approx(
        multiclass_accuracy(*pair, average="none", **settings).numpy(), rel=1e-6
    )
    assert matrix.dice == pytest.approx(
        multiclass_f1_score(*pair, average="none", **settings).numpy(), rel=1e-6
    )
    micro = multiclass_accuracy(*pair, average="micro", **settings)
    assert matrix.pixel_accuracy == pytest.approx(micro.item(), rel=1e-6)


@given(st.integers(1, 12), st.integers(0, 999), st.sampled_from([0.0, 0.5, 1.0]))
@settings(deadline=None, max_examples=40)
def test_scores_equal_an_independent_twin_in_numpy(num_classes: int, seed: int, right: float) -> None:
    pred, mask = random_pair(num_classes, seed=seed, size=60, right=right)
    matrix = ConfusionMatrix(num_classes).update(pred, mask)
    seen, truth = pred[mask != 255], mask[mask != 255]
    for k in range(num_classes):
        both, either = ((seen == k) & (truth == k)).sum(), ((seen == k) | (truth == k)).sum()
        size = (truth == k).sum()
        assert matrix.iou[k] == (both / either if size else NAN)
        assert matrix.accuracy[k] == (both / size if size else NAN)
        assert matrix.dice[k] == pytest.approx(
            2 * both / (size + (seen == k).sum()) if size else np.nan, nan_ok=True
        )
    present = np.unique(truth)
    assert matrix.miou == pytest.approx(
        np.mean([matrix.iou[k] for k in present]) if len(present) else np.nan, nan_ok=True
    )


def test_an_absent_class_has_no_score_but_its_false_pixels_count_against_the_true_class() -> None:
    mask = np.array([0, 0, 0, 1], np.uint8)
    pred = np.array([0, 0, 2, 1], np.uint8)  # class 2 is predicted, class 3 nowhere
    matrix = ConfusionMatrix(4).update(pred, mask)
    assert matrix.iou.tolist() == [2 / 3, 1.0, NAN, NAN]
    assert matrix.accuracy.tolist() == [2 / 3, 1.0, NAN, NAN]
    assert matrix.dice.tolist() == [4 / 5, 1.0, NAN, NAN]
    assert matrix.miou == pytest.approx(5 / 6)  # the mean of what there is, not of zeros and ones


def test_nothing_counted_has_no_scores_rather_than_zeros() -> None:
    matrix = ConfusionMatrix(3).update(np.zeros(5, np.uint8), np.full(5, 255, np.uint8))
    means = (
        matrix.miou,
        matrix.mean_accuracy,
        matrix.mean_dice,
        matrix.pixel_accuracy,
        matrix.frequency_weighted_iou,
    )
    assert means == (NAN,) * 5
    assert np.isnan(matrix.iou).all()


def test_counts_add_over_images_and_over_processes() -> None:
    pred, mask = random_pair(5)
    whole = ConfusionMatrix(5).update(pred, mask)
    left, right = (
        ConfusionMatrix(5).update(pred[:999], mask[:999]),
        ConfusionMatrix(5).update(pred[999:], mask[999:]),
    )
    assert ((left + right).counts == whole.counts).all()
    assert (left.update(pred[999:], mask[999:]).counts == whole.counts).all()
    rebuilt = ConfusionMatrix(5, counts=whole.counts.astype(np.float64))
    assert rebuilt.counts.dtype == np.int64 and rebuilt.miou == whole.miou


def test_scores_are_pooled_over_pixels_not_averaged_over_images() -> None:
    large, small = np.zeros(90, np.uint8), np.ones(10, np.uint8)
    matrix = ConfusionMatrix(2).update(large, large).update(np.zeros(10, np.uint8), small)
    assert matrix.iou.tolist() == [0.9, 0.0]


def test_renaming_the_classes_renames_the_scores() -> None:
    pred, mask = random_pair(6)
    table = np.array([3, 0, 5, 1, 2, 4] + [0] * 249 + [255], np.uint8)
    before, after = ConfusionMatrix(6).update(pred, mask), ConfusionMatrix(6).update(table[pred], table[mask])
    assert (after.iou[table[:6]] == before.iou).all()


def test_tensors_are_counted_like_arrays_and_an_error_counts_nothing() -> None:
    pred, mask = random_pair(4)
    matrix = ConfusionMatrix(4).update(torch.from_numpy(pred), torch.from_numpy(mask))
    counts = matrix.counts.copy()
    assert (counts == ConfusionMatrix(4).update(pred, mask).counts).all()
    with pytest.raises(MaskValueError, match="The prediction has class id 9; there are 4 classes."):
        matrix.update(np.full(3, 9, np.uint8), np.zeros(3, np.uint8))
    with pytest.raises(MaskSizeError, match="Prediction and truth differ in size."):
        matrix.update(pred[1:], mask)
    assert (matrix.counts == counts).all()


def test_more_than_255_classes_ignore_65535() -> None:
    mask = np.array([0, 299, 65535], np.uint16)
    assert ConfusionMatrix(300).update(mask * (mask < 300), mask).miou == 1.0
    assert ConfusionMatrix(300).ignore == 65535


@pytest.mark.parametrize("num_classes", [1, 2, 19, 150, 300])
def test_the_ruler_passes_its_own_check(num_classes: int) -> None:
    self_check(num_classes)


def test_a_bent_ruler_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = metrics.confusion

    def expect(bent: object, sentence: str) -> None:
        monkeypatch.setattr(metrics, "confusion", bent)
        with pytest.raises(AssertionError, match=sentence):
            self_check(5)

    expect(
        lambda p, m, k, i: honest(p, m, k, i).T,
        "a class half found has accuracy 1.0, not 0.5, as if rows were not the truth",
    )
    expect(lambda p, m, k, i: honest(m, m, k, i), "a class half found has accuracy 1.0, not 0.5")
    expect(
        lambda p, m, k, i: honest(p, np.where(m == i, 0, m), k, i),
        "pixels of the ignore value 255 are counted",
    )
    expect(
        lambda p, m, k, i: np.roll(honest(p, m, k, i), 1, 1),
        "an oracle scores .* not 1. Scores",
    )
    expect(lambda p, m, k, i: np.triu(honest(p, m, k, i), -1), "a constant answer scores 0.25, not 1/K²")
