"""Scores from confusion counts: IoU, accuracy and Dice per class, their means, and a check of the ruler itself.

One K x K matrix holds all there is to know, so evaluating 10 or 10,000 images takes the same memory, and counts of
several processes simply add. Scores are pooled over all pixels of a split (PASCAL VOC, Everingham et al. 2010), not
averaged per image. With TP, FP, FN of a class:

    IoU = TP / (TP + FP + FN)      accuracy = TP / (TP + FN)      Dice = 2 TP / (2 TP + FP + FN)

A class that does not occur in the truth has no score: it is nan, never 0 or 1, and left out of every mean. Pixels
wrongly given to it are not forgotten, since each is a miss (FN) of the class it belongs to. MMSegmentation and
torchmetrics give 0 to a class that was predicted somewhere but occurs nowhere; on splits where every class occurs, as
in the usual benchmarks, all agree.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import ignore_value
from terrazzo.kernels.confusion import confusion

if TYPE_CHECKING:
    from torch import Tensor

Scores = NDArray[np.float64]


class ConfusionMatrix:
    """Pixel counts by (true class, predicted class), and the scores that follow from them.

    >>> matrix = ConfusionMatrix(2).update(pred=np.array([[0, 1], [1, 1]]), mask=np.array([[0, 0], [1, 255]]))
    >>> matrix.counts.tolist(), matrix.iou.tolist()
    ([[1, 1], [0, 1]], [0.5, 0.5])
    """

    def __init__(
        self, num_classes: int, ignore: int | None = None, *, counts: NDArray[Any] | None = None
    ) -> None:
        """Begin with nothing counted, or with `counts` (K, K); `ignore` None: 255 while num_classes <= 255."""
        assert num_classes >= 1
        self.num_classes = num_classes
        self.ignore = ignore_value(num_classes) if ignore is None else ignore
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        """(K, K) int64, rows truth, columns prediction."""
        if counts is not None:
            assert counts.shape == self.counts.shape, f"counts {counts.shape} for {num_classes} classes"
            self.counts += counts.astype(np.int64)

    def update(self, pred: "NDArray[Any] | Tensor", mask: "NDArray[Any] | Tensor") -> "ConfusionMatrix":
        """Count one pair of masks, or a batch, of equal shape; returns self.

        Pixels whose true id is `ignore` are skipped. An id outside the classes is a MaskValueError, a difference in
        shape a MaskSizeError; then nothing has been counted.
        """
        self.counts += confusion(pred, mask, self.num_classes, self.ignore)
        return self

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """Return the counts of both, as if one matrix had seen all pixels."""
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        assert (self.num_classes, self.ignore) == (other.num_classes, other.ignore), (
            "matrices of different classes"
        )
        return ConfusionMatrix(self.num_classes, self.ignore, counts=self.counts + other.counts)

    @property
    def true_pixels(self) -> NDArray[np.int64]:
        """(K,) scored pixels of each class in the truth (TP + FN)."""
        return self.counts.sum(1)

    @property
    def pred_pixels(self) -> NDArray[np.int64]:
        """(K,) scored pixels that were given to each class (TP + FP)."""
        return self.counts.sum(0)

    @property
    def iou(self) -> Scores:
        """(K,) intersection over union, in [0, 1]; nan where the class is absent from the truth."""
        return self._per_class(self._hits, self.true_pixels + self.pred_pixels - self._hits)

    @property
    def accuracy(self) -> Scores:
        """(K,) the share of each class's true pixels that were found (recall); nan where it is absent."""
        return self._per_class(self._hits, self.true_pixels)

    @property
    def dice(self) -> Scores:
        """(K,) twice the intersection over the sum of both areas, the F1 score of pixels; nan where it is absent."""
        return self._per_class(2 * self._hits, self.true_pixels + self.pred_pixels)

    @property
    def miou(self) -> float:
        """The mean IoU over the classes that occur in the truth; nan when nothing was counted."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """The mean accuracy over the classes that occur; nan when nothing was counted."""
        return _mean(self.accuracy)

    @property
    def mean_dice(self) -> float:
        """The mean Dice over the classes that occur; nan when nothing was counted."""
        return _mean(self.dice)

    @property
    def pixel_accuracy(self) -> float:
        """The share of scored pixels whose class is right; nan when nothing was counted."""
        total = int(self.counts.sum())
        return float(self._hits.sum() / total) if total else float("nan")

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU averaged with each class's share of the true pixels (Long et al. 2015); nan when nothing was counted."""
        present = self.true_pixels > 0
        if not present.any():
            return float("nan")
        return float(np.average(self.iou[present], weights=self.true_pixels[present]))

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self.num_classes} classes, {int(self.counts.sum()):,} pixels, mIoU {self.miou:.4f})"

    @property
    def _hits(self) -> NDArray[np.int64]:
        return np.diagonal(self.counts)

    def _per_class(self, part: NDArray[np.int64], whole: NDArray[np.int64]) -> Scores:
        scores = np.full(self.num_classes, np.nan)
        return np.divide(part, whole, out=scores, where=self.true_pixels > 0)


def self_check(num_classes: int, ignore: int | None = None) -> None:
    """Hold the ruler against things of known length, in microseconds; AssertionError in words when it is bent.

    An oracle must score 1 on everything, an answer that does not look at the image 1/K² mean IoU on a truth of equal
    shares, the ignored pixels must not matter, and the rows must be the truth: of a class half found and nothing else
    wrong, accuracy is 1/2.
    """
    ignore = ignore_value(num_classes) if ignore is None else ignore
    truth = np.repeat(np.arange(num_classes), 4)
    oracle = ConfusionMatrix(num_classes, ignore).update(truth, truth)
    means = (oracle.miou, oracle.mean_accuracy, oracle.mean_dice, oracle.pixel_accuracy)
    _hold({*means, oracle.frequency_weighted_iou} == {1.0}, f"an oracle scores {means}, not 1")
    if num_classes > 1:
        half = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
        accuracy = ConfusionMatrix(num_classes, ignore).update(*half).accuracy[:2].tolist()
        _hold(
            accuracy == [1.0, 0.5],
            f"a class half found has accuracy {accuracy[1]}, not 0.5, as if rows were not the truth",
        )
    constant = ConfusionMatrix(num_classes, ignore).update(np.zeros_like(truth), truth)
    _hold(abs(constant.miou - num_classes**-2) < 1e-12, f"a constant answer scores {constant.miou}, not 1/K²")
    unscored = np.concatenate([truth, np.full(num_classes, ignore)])
    guessed = np.concatenate([truth, np.arange(num_classes)])
    same = (ConfusionMatrix(num_classes, ignore).update(guessed, unscored).counts == oracle.counts).all()
    _hold(bool(same), f"pixels of the ignore value {ignore} are counted")


def _hold(claim: bool, otherwise: str) -> None:
    if not claim:  # not `assert`, which -O removes
        raise AssertionError(f"The metric's self-check failed: {otherwise}. Scores cannot be trusted.")


def _mean(scores: Scores) -> float:
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if len(present) else float("nan")
