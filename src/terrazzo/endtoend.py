"""A whole model as one graph of tensors: uint8 image in, class ids out, for runtimes that know nothing of terrazzo.

    image (1, H, W, C) uint8 -> resize as the model sees images -> network -> logits resized to (H, W) -> argmax
    -> mask (1, H, W) uint8, or int32 above 255 classes

for images of one size, as a camera gives them. Resizing is a weighted sum of a few gathered rows and columns, with the
weights of `kernels.resize_filter` and rounded to grey levels, so that every runtime computes it alike (antialiased
resizing is no operation that they agree on).

Shapes: B batch (1), C channels, H W height and width of the image, h w as the network sees it, T taps, n pixels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.classes import IGNORE_8BIT
from terrazzo.data.transforms import DataConfig, resized_hw
from terrazzo.errors import UsageError
from terrazzo.kernels.resize_filter import line_taps
from terrazzo.nn.outputs import as_output
from terrazzo.recipe import EvalConfig

IMAGE, MASK = "image", "mask"


class EndToEnd(nn.Module):
    """A network with what the Predictor does around it, for images of one size."""

    def __init__(
        self, network: nn.Module, *, size_hw: tuple[int, int], data: DataConfig, align_corners: bool
    ) -> None:
        super().__init__()
        self.network, self.size_hw, self.align_corners = network, size_hw, align_corners
        height, width = resized_hw(size_hw, data)
        is_plain = data.resize == "sides"  # without antialiasing, see kernels.plain_resize
        pairs = ((size_hw[1], width), (size_hw[0], height))
        self.across, self.down = (
            None
            if size == count
            else Taps(*(_plain_taps(size, count) if is_plain else _taps(size, count, data)), size)
            for size, count in pairs
        )

    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, C) uint8 -> (1, H, W) class ids."""
        x_BHWC = image.float()
        if self.across is not None:
            x_BHWC = self.across(x_BHWC, 2)
        if self.down is not None:
            x_BHWC = self.down(x_BHWC, 1)
        logits = as_output(self.network(x_BHWC.permute(0, 3, 1, 2) / 255)).logits
        full = F.interpolate(logits, self.size_hw, mode="bilinear", align_corners=self.align_corners)
        mask = full.argmax(1)
        return mask.to(torch.uint8 if logits.shape[1] <= IGNORE_8BIT else torch.int32)


class Taps(nn.Module):
    """A line of pixels resized: each of n is the weighted sum of T gathered ones, rounded to a grey level."""

    def __init__(self, starts: NDArray[np.int64], weights: NDArray[np.float64], size: int) -> None:
        """starts: the first pixel that each of n reads of a line of `size`; weights: (n, T)."""
        super().__init__()
        self.overshoots = bool((weights < 0).any())  # beyond black and white
        places = np.minimum(starts[:, None] + np.arange(weights.shape[1]), size - 1)
        self.register_buffer("places_Tn", torch.from_numpy(places.T.copy()), persistent=False)
        self.register_buffer("weights_Tn", torch.from_numpy(weights.T.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Resize along `dim` of (1, H, W, C): 1 is down, 2 across."""
        places_Tn, weights_Tn = self.get_buffer("places_Tn"), self.get_buffer("weights_Tn")
        total: Tensor | None = None
        for places_n, weights_n in zip(places_Tn.unbind(0), weights_Tn.unbind(0), strict=True):
            part = x.index_select(dim, places_n) * weights_n[:, None] if dim == 2 else (
                x.index_select(dim, places_n) * weights_n[:, None, None]
            )  # fmt: skip
            total = part if total is None else total + part
        assert total is not None
        rounded = torch.floor(total + 0.5)
        return rounded.clamp(0, 255) if self.overshoots else rounded


def refuse_unfit(data: DataConfig, eval: EvalConfig, dtype: str) -> None:
    """Raise UsageError where a model looks at images in a way that one pass over uint8 images is not."""
    found = []
    if dtype != "uint8":
        found.append(f"images of {dtype}")
    if eval.inference == "windows":
        found.append(f"windows of {eval.window_hw[0]}x{eval.window_hw[1]}")
    if eval.flip or tuple(eval.scales) != (1.0,):
        found.append("several looks at an image")
    if found:
        raise UsageError(
            "An end-to-end graph looks once at a whole 8-bit image; this model does not.",
            found=", ".join(found),
            hint="Export the network alone; terrazzo does the rest around it:",
            command="terrazzo export MODEL --format onnx --out DIR",
        )


def _taps(size: int, count: int, data: DataConfig) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return line_taps(size, count, interpolation=data.interpolation, rounding=data.rounding)


def _plain_taps(size: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Two taps for each pixel, edges aligned, without antialiasing."""
    place = np.clip((np.arange(count) + 0.5) * (size / count) - 0.5, 0, size - 1)
    first = np.minimum(np.floor(place).astype(np.int64), max(size - 2, 0))
    share = place - first
    return first, np.stack([1 - share, share], axis=1)
