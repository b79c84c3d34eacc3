"""How much each class should count, from how many pixels it has: the formulas behind `loss.class_weights`.

Plain numbers in and out: the loss takes them, and the doctor shows them before a training.
"""

# K classes

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from terrazzo.errors import TrainingError, unknown_name

Formula = Literal["none", "inverse", "sqrt_inverse", "enet", "median_frequency"]


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
