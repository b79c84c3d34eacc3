"""The loss of a training: cross-entropy at the target's size, class weights, and what auxiliary heads add.

Every loss is a sum over pixels divided by one number, the weight of the *global* batch: micro-batches and processes
add up to the same gradient however the batch is split. The weight of a pixel is its class's weight, 0 where the target
is ignore. The resize and the cross-entropy are one kernel (`kernels/resize_cross_entropy.py`).
torch is imported where it is needed, so that a recipe can be read without it.

Shapes: B batch, K classes, h w height and width of the logits, H W of the target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrazzo.errors import RecipeError, TrainingError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from terrazzo.nn.outputs import Output

Formula = Literal["none", "inverse", "sqrt_inverse", "enet", "median_frequency"]


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: `recipe.loss`."""

    class_weights: Formula = "none"
    """Weigh rare classes more, by a formula over the training split's pixel counts; none weighs all the same."""
    weights: tuple[float, ...] = ()
    """Class weights given by hand, one per class in id order, used as they are; they need class_weights=none."""
    label_smoothing: float = 0.0
    """The share of each pixel's target that is spread over all classes."""
    auxiliary: float = 0.4
    """Weight of each auxiliary head's loss, for networks that have such heads."""


class SegmentationLoss:
    """Cross-entropy of a network's output against class ids, as named terms that are summed in the training loop.

    weights_K: (K,) class weights as `chosen_weights` returns them, or None for 1 everywhere.
    """

    def __init__(self, config: LossConfig, class_weights_K: "Tensor | None", ignore: int) -> None:
        self.config = config
        self.class_weights_K = None if class_weights_K is None else class_weights_K.detach().float().cpu()
        self.ignore = ignore
        self._on_device: dict[Any, Tensor] = {}

    def __call__(
        self, output: "Output", mask_BHW: "Tensor", *, weight: "Tensor | float"
    ) -> "dict[str, Tensor]":
        """Return {"cross_entropy": …, and "auxiliary": … where the network has such heads}, float32 scalars.

        mask_BHW: uint8 or int64 class ids and ignore, at the size the loss is taken at: logits are resized to it.
        weight: the weight of the global batch, the sum of `pixel_weight` over all its masks. Where that is 0, nothing
        in the batch is labelled, and every term is exactly 0 with zero gradients.
        """
        terms = {"cross_entropy": self._sum(output.logits, mask_BHW)}
        if output.auxiliary:
            each = [self._sum(logits, mask_BHW) for logits in output.auxiliary.values()]
            terms["auxiliary"] = self.config.auxiliary * sum(each[1:], start=each[0])
        return {name: _divided(term, weight) for name, term in terms.items()}

    def pixel_weight(self, mask: "Tensor") -> float:
        """Return the sum of class weights over the pixels of `mask` (any shape) that are not ignore."""
        ids = mask.detach().cpu().numpy()
        if self.class_weights_K is None:
            return float(np.count_nonzero(ids != self.ignore))
        counts = np.bincount(ids[ids != self.ignore], minlength=len(self.class_weights_K))
        return float(counts[: len(self.class_weights_K)] @ self.class_weights_K.double().numpy())

    def _sum(self, logits_BKhw: "Tensor", mask_BHW: "Tensor") -> "Tensor":
        from terrazzo.kernels.resize_cross_entropy import resize_cross_entropy

        num_classes = logits_BKhw.shape[1]
        if num_classes == 1:
            raise TrainingError(
                "A network of one class has nothing to learn: every labelled pixel is of that class.",
                found="1 class",
                expected="at least 2",
                hint='Name what surrounds the class, such as "background", a class of its own and label it.',
            )
        weights_K = self._weights_on(logits_BKhw.device)
        assert weights_K is None or len(weights_K) == num_classes, (
            f"{len(weights_K)} weights, {num_classes} classes"
        )
        return resize_cross_entropy(
            logits_BKhw,
            mask_BHW,
            weight_K=weights_K,
            ignore=self.ignore,
            label_smoothing=self.config.label_smoothing,
        )

    def _weights_on(self, device: Any) -> "Tensor | None":
        if self.class_weights_K is None:
            return None
        if device not in self._on_device:
            self._on_device[device] = self.class_weights_K.to(device)
        return self._on_device[device]


def chosen_weights(
    config: LossConfig,
    num_classes: int,
    counts: "Callable[[], tuple[ArrayLike, ArrayLike | None]]",
) -> "Tensor | None":
    """Return the class weights (K,) float32 that a config asks for, or None for 1 everywhere.

    counts: called only when a formula needs it; returns the pixels of each class in the training split, and the
    labelled pixels of the images each class occurs in (or None), both (K,): see `class_weights`.
    Raises RecipeError when weights are given twice, or not one per class.
    """
    import torch

    if config.weights and config.class_weights != "none":
        raise RecipeError(
            "Class weights are given twice.",
            found=f"loss.weights of {len(config.weights)} numbers and loss.class_weights={config.class_weights}",
            expected="one of them, the other () or none",
        )
    if config.weights:
        if len(config.weights) != num_classes or not any(config.weights):
            raise RecipeError(
                "loss.weights does not fit the classes.",
                found=f"{len(config.weights)} numbers" + ("" if any(config.weights) else ", all 0"),
                expected=f"{num_classes} numbers, one per class in id order, not all 0",
            )
        return torch.tensor(config.weights, dtype=torch.float32)
    if config.class_weights == "none":
        return None
    pixels_K, image_pixels_K = counts()
    return torch.from_numpy(
        class_weights(pixels_K, config.class_weights, image_pixels_K=image_pixels_K)
    ).float()


def class_weights(
    counts_K: ArrayLike, formula: str, *, image_pixels_K: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return (K,) float64 weights from the pixels of each class, with mean 1 over the classes that occur.

    With share p of a class among all labelled pixels:

        none               1
        inverse            1 / p
        sqrt_inverse       1 / sqrt(p)
        enet               1 / ln(1.02 + p)      (Paszke et al. 2016; a weight is at most 36 times another)
        median_frequency   median(f) / f         (Eigen & Fergus 2015), f the share of a class among the labelled
                                                 pixels of the images it occurs in

    image_pixels_K: for each class, the labelled pixels of the images it occurs in; median_frequency without them takes
    all labelled pixels, and is then the same as inverse. A class without pixels weighs 0: it cannot be learned, and
    should not move the mean; with label smoothing nothing is spread to it either.
    """
    if formula not in get_args(Formula):
        raise unknown_name("formula of class weights", formula, get_args(Formula))
    counts = np.asarray(counts_K, dtype=np.float64)
    present = counts > 0
    weights = np.zeros_like(counts)
    if not present.any():
        raise TrainingError("No pixel of the training split is labelled.", found="only ignored pixels")
    share = counts[present] / counts.sum()
    if formula == "none":
        weights[present] = 1.0
    elif formula == "inverse":
        weights[present] = 1.0 / share
    elif formula == "sqrt_inverse":
        weights[present] = 1.0 / np.sqrt(share)
    elif formula == "enet":
        weights[present] = 1.0 / np.log(1.02 + share)
    else:
        whole = counts.sum() if image_pixels_K is None else np.asarray(image_pixels_K, np.float64)[present]
        frequency = counts[present] / whole
        weights[present] = np.median(frequency) / frequency
    return weights / weights[present].mean()


def _divided(total: "Tensor", weight: "Tensor | float") -> "Tensor":
    """Return total / weight, and exactly 0 with zero gradients where the weight is 0."""
    import torch

    if not isinstance(weight, torch.Tensor):
        return total * (1.0 / weight if weight else 0.0)
    weight = weight.to(total.device, torch.float64)
    scale = torch.where(weight > 0, 1.0 / torch.where(weight > 0, weight, 1.0), 0.0)
    return total * scale.to(total.dtype)
