"""Windows over an image too large for one pass: where they lie, and their logits blended row by row.

Windows stand on a grid; the last row and column are shifted back inside, so no window is padded and every pixel is
covered (MMSegmentation's "slide" mode does the same). An image smaller than a window is one window of its own size.
Where windows overlap, their logits, each resized bilinearly to its window, are averaged: all alike ("uniform", as
there), or those near a window's centre more than those near its edge, where a network sees half of what is around
("smooth": a raised cosine down times one across; weights are above 0 everywhere, and divided by their sum).

`Blend` keeps the logits as small as the network gives them and resizes only the rows that are asked for, so memory
does not grow with the height of the image. Logits are arrays, or tensors, which are blended where they lie; no file.

Shapes: K classes, h w the network's logits of one window, n rows, W width of the image.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UsageError
from terrazzo.kernels.bilinear import taps, taps_on

if TYPE_CHECKING:
    from torch import Tensor

Logits = NDArray[np.float32]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return the first pixels of the windows along a side of `length` pixels, ascending; [0] when it fits one window.

    The last window ends at the last pixel. Raises UsageError for a stride that would skip pixels or never move.
    """
    if not 1 <= stride <= window:
        raise UsageError(
            f"Windows of {window} pixels cannot move by {stride}.",
            expected=f"a stride of 1 to {window}; a larger one would leave pixels without a prediction",
        )
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def taper(length: int) -> NDArray[np.float32]:
    """Return how much each pixel along a window's side counts: sin² over its centre, from nearly 0 to 1; symmetric.

    Windows half a side apart then add up to 1 everywhere between them. The least, sin²(pi / 2 / length), is above 0,
    so that pixels seen by one window alone keep its logits.
    """
    places = (np.arange(length) + 0.5) / length
    return np.square(np.sin(np.pi * places)).astype(np.float32)


class Blend:
    """The averaged logits of all windows of one image, computed as the rows are asked for, from top to bottom.

    score: called once for each row of windows with their (top, left) corners; returns their logits, each (K, h, w).
    weighting: "uniform" or "smooth". align_corners: how logits are resized to their window.
    Memory: the logits of the window rows that overlap the rows asked for (their number times the window rows'
    K x h x w each), and K x n x W floats for n rows.
    """

    def __init__(
        self,
        image_hw: tuple[int, int],
        window_hw: tuple[int, int],
        stride_hw: tuple[int, int],
        score: "Callable[[Sequence[tuple[int, int]]], Sequence[Logits | Tensor]]",
        *,
        weighting: Literal["uniform", "smooth"] = "uniform",
        align_corners: bool = False,
    ) -> None:
        self.image_hw = image_hw
        self.window_hw = min(window_hw[0], image_hw[0]), min(window_hw[1], image_hw[1])
        self.tops = starts(image_hw[0], window_hw[0], stride_hw[0])
        self.lefts = starts(image_hw[1], window_hw[1], stride_hw[1])
        self.align_corners = align_corners
        self._weights: tuple[Any, Any] | None = (  # down, across
            (taper(self.window_hw[0])[:, None], taper(self.window_hw[1])) if weighting == "smooth" else None
        )
        self._score = score
        # top of a row of windows -> the logits of its windows
        self._held: dict[int, Sequence[Logits | Tensor]] = {}

    def rows(self, first: int, end: int) -> "Logits | Tensor":
        """Return the averaged logits (K, end - first, W) of the image's rows `first` … `end` - 1.

        They are an array or a tensor as those of the windows are. Calls go down the image: window rows that end at or
        above `first` are forgotten.
        """
        height, width = self.window_hw
        self._held = {top: logits for top, logits in self._held.items() if top + height > first}
        touched = [top for top in self.tops if top < end and top + height > first]
        for top in touched:
            if top not in self._held:
                self._held[top] = self._score([(top, left) for left in self.lefts])
        one = self._held[touched[0]][0]
        total = _zeros((one.shape[0], end - first, self.image_hw[1]), one)
        weight = _zeros((end - first, self.image_hw[1]), one)
        if self._weights is not None:
            self._weights = _beside(self._weights[0], one), _beside(self._weights[1], one)
        for top in touched:
            inside = slice(max(first, top) - top, min(end, top + height) - top)
            here = slice(inside.start + top - first, inside.stop + top - first)
            share = None if self._weights is None else self._weights[0][inside] * self._weights[1]
            for left, logits in zip(self.lefts, self._held[top], strict=True):
                seen = resized_rows(logits, self.window_hw, inside, align_corners=self.align_corners)
                total[:, here, left : left + width] += seen if share is None else seen * share
                weight[here, left : left + width] += 1 if share is None else share
        total /= weight
        return total


def resized_rows(
    logits_Khw: "Logits | Tensor", size_hw: tuple[int, int], rows: slice, *, align_corners: bool = False
) -> Any:
    """Return `rows` of `logits_Khw` resized to `size_hw`: (K, n, W), bilinear as torch does it, tensors of tensors."""
    if logits_Khw.shape[1:] == size_hw:
        return logits_Khw[:, rows]
    y: Any = taps(logits_Khw.shape[1], size_hw[0], align_corners=align_corners)
    x: Any = taps(logits_Khw.shape[2], size_hw[1], align_corners=align_corners)
    top, end = int(y.first[rows][0]), int(y.second[rows][-1]) + 1
    low: Any = logits_Khw[:, top:end]  # few rows: widen them first, the other way costs more
    if not isinstance(logits_Khw, np.ndarray):
        y = taps_on(logits_Khw.shape[1], size_hw[0], logits_Khw.device, align_corners=align_corners)
        x = taps_on(logits_Khw.shape[2], size_hw[1], logits_Khw.device, align_corners=align_corners)
    first, second, share = y.first[rows], y.second[rows], y.share[rows, None]
    wide = low[:, :, x.first] * (1 - x.share) + low[:, :, x.second] * x.share
    return wide[:, first - top] * (1 - share) + wide[:, second - top] * share


def _zeros(shape: tuple[int, ...], like: "Logits | Tensor") -> Any:
    return np.zeros(shape, np.float32) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def _beside(values: Any, other: "Logits | Tensor") -> Any:
    """The values where `other` lies, if it is a tensor."""
    if isinstance(other, np.ndarray):
        return values
    import torch

    return torch.as_tensor(values, device=other.device)
