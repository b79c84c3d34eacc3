"""Networks whose answer is known, the images they are shown, and how these are looked at."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.nn.outputs import Output
from terrazzo.recipe import EvalConfig

THREE = Classes(("low", "middle", "high"))


class Thresholds(nn.Module):
    """Class 0, 1 or 2 by which of 0, 0.5 and 1 the first channel is nearest to; nothing is learned."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image_BCHW: Tensor) -> Output:
        self.shapes.append(tuple(image_BCHW.shape))
        return Output(
            torch.cat([-(((image_BCHW[:, :1] - level) * 8) ** 2) for level in (0.0, 0.5, 1.0)], dim=1)
        )


class Quarter(nn.Module):
    """Logits at stride 4 from a 3x3 convolution: position matters, as in a real network."""

    channels = 3

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv = nn.Conv2d(3, num_classes, 3, stride=4, padding=1)

    def forward(self, image_BCHW: Tensor) -> Output:
        return Output(self.conv(image_BCHW) * 20)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def thresholded(image: np.ndarray) -> np.ndarray:
    """The truth of Thresholds, by integer arithmetic: grey levels nearest to 0, 127.5 and 255."""
    return np.digitize(image[:, :, 0], [64, 192])


def windows(window: int, stride: int, **changes: Any) -> EvalConfig:
    return EvalConfig(inference="windows", window_hw=(window, window), stride_hw=(stride, stride), **changes)
