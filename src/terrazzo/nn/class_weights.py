"""How much each class counts in the loss: given by hand, or by a named formula over the pixels of the training split.

torch is imported where it is needed, so that a recipe can be read without it.
"""

# K classes

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrazzo.errors import RecipeError, TrainingError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from terrazzo.nn.losses import LossConfig

Formula = Literal["none", "inverse", "sqrt_inverse", "enet", "median_frequency"]


def chosen_weights(
    config: "LossConfig",
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
    weights_K = class_weights(pixels_K, config.class_weights, image_pixels_K=image_pixels_K)
    return torch.from_numpy(weights_K).float()


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
