"""How much each class counts in the loss: given by hand, or by a formula of `balance.py` over the training split.

torch is imported where it is needed, so that a recipe can be read without it.
"""

# K classes

from collections.abc import Callable
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from terrazzo.balance import Formula, class_weights
from terrazzo.errors import RecipeError

__all__ = ["Formula", "chosen_weights", "class_weights"]

if TYPE_CHECKING:
    from torch import Tensor

    from terrazzo.nn.losses import LossConfig


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
