"""From images to the class scores of their rows: sizes, looks, windows; the half of the eye that knows no files.

    resize as recipe.data says -> network, whole or in windows -> logits float32 -> bands of rows, top to bottom

Where `eval` asks for several looks at an image, at other sizes or mirrored, each of them goes that way; then their
probabilities are averaged, a few rows at a time. Logits of a network on a GPU stay there. What becomes of the bands, a
mask, is `inference.py`'s; how windows are blended `windows.py`'s; what runs the network `backends.py`'s.

Shapes: B batch, C channels, H W the image's original size, K classes, h w the logits' size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrazzo.backends import Backend, TorchBackend
from terrazzo.data.transforms import DataConfig, resize_image, resized_hw, unit_range
from terrazzo.errors import UsageError, WeightsError, unknown_name
from terrazzo.kernels.add_probs import add_probs, add_probs_there
from terrazzo.kernels.bilinear import taps, taps_on
from terrazzo.kernels.plain_resize import plain_resize
from terrazzo.kernels.threads import default_threads
from terrazzo.ranges import out_of_range
from terrazzo.recipe import EvalConfig
from terrazzo.windows import Blend, Logits, starts

Image = NDArray[Any]

BAND_BYTES = 32 << 20  # of blended logits that windows hold at a time, beside the network's own
BLENDS = ("uniform", "smooth")


class Band(NamedTuple):
    """Some rows of an image's mask, before resize and argmax."""

    rows: slice
    """Which rows of the original image."""
    logits: Logits | Tensor
    """(K, h, w) float32; resized to (number of rows, W) they are the class scores of these rows. Where the network runs
    on a GPU they are a tensor there."""


class Look(NamedTuple):
    """One way to look at an image."""

    scale: float
    """Of the size at which the network sees it otherwise."""
    is_mirrored: bool
    """Left and right changed."""


PLAIN = Look(1.0, False)


@dataclass(frozen=True)
class Eye:
    """How images are looked at, and by what; safe to use from several threads."""

    backend: Backend
    """Runs the network."""
    num_classes: int
    """K."""
    data: DataConfig
    """The recipe's `data`, of which `resize`, `resize_hw`, `interpolation` and `rounding` count here."""
    eval: EvalConfig
    """The recipe's `eval`."""

    def __post_init__(self) -> None:
        _check_looks(self.eval)

    @property
    def align_corners(self) -> bool:
        """Whether corners meet where logits are resized, as the network resizes its own maps."""
        return self.backend.align_corners

    @property
    def is_there(self) -> bool:
        """Whether logits stay on a GPU, as tensors, until they are a mask."""
        return isinstance(self.backend, TorchBackend) and self.backend.device.type == "cuda"

    @property
    def looks(self) -> list[Look]:
        """The ways in which an image is looked at: every scale, as it is and, with `eval.flip`, mirrored."""
        mirrored = (False, True) if self.eval.flip else (False,)
        return [Look(scale, is_mirrored) for scale in self.eval.scales for is_mirrored in mirrored]

    def logits(self, image: Image) -> Logits:
        """Return the class scores (K, h, w) float32 of one image (H, W, C) before they are resized to its size.

        In windows they are blended at the size of `data.resize`, held as a whole: 4 K H W bytes. Of several looks they
        are the logarithm of their mean probabilities, at that size too.
        """
        seen_hw = resized_hw((image.shape[0], image.shape[1]), self.data)
        if self.looks != [PLAIN]:
            views = self._views([image], self.looks)[0]
            return np.concatenate(
                [as_array(band.logits) for band in self._mean_bands(seen_hw, views)], axis=1
            )
        resized = self._resized(image, seen_hw)
        if self.eval.inference == "whole":
            return self._score([resized])[0]
        return as_array(self._blend(resized).rows(0, resized.shape[0]))

    def bands(self, images: Sequence[Image]) -> Iterator[Iterator[Band]]:
        """Yield, for each image (H, W, C), its bands from top to bottom, which cover every row once.

        images: of one size and dtype as the network sees them (`sees`), run in one pass where they are seen whole.
        The whole image is one band. Use up the bands of an image before asking for the next image's.
        """
        if self.looks != [PLAIN]:
            for image, views in zip(images, self._views(images, self.looks), strict=True):
                yield self._mean_bands((image.shape[0], image.shape[1]), views)
            return
        resized = [self._seen(image, PLAIN) for image in images]
        if self.eval.inference == "whole":
            for image, logits in zip(images, self._scores(resized), strict=True):
                yield iter([Band(slice(0, image.shape[0]), logits)])
        else:
            for image, small in zip(images, resized, strict=True):
                yield self._window_bands(image.shape[0], small)

    def input(self, image: Image) -> NDArray[np.float32]:
        """Return what the network gets of an image (H, W, C) in a plain look: (1, C, h, w), of windows the first."""
        seen = self._seen(image, PLAIN)
        if self.eval.inference == "windows":
            seen = seen[: self.eval.window_hw[0], : self.eval.window_hw[1]]
        return _stacked([seen])

    def sees(self, image: Image) -> tuple[tuple[int, int], int, np.dtype[Any]]:
        """Return (height, width), channels and dtype at which the network sees `image`: equal ones can share a pass."""
        return resized_hw((image.shape[0], image.shape[1]), self.data), image.shape[2], image.dtype

    def _seen(self, image: Image, look: Look) -> Image:
        """The image as the network gets it."""
        height, width = resized_hw((image.shape[0], image.shape[1]), self.data)
        scaled_hw = max(1, int(height * look.scale + 0.5)), max(1, int(width * look.scale + 0.5))
        resized = self._resized(image, scaled_hw)
        return resized[:, ::-1] if look.is_mirrored else resized  # a view: nothing is copied

    def _resized(self, image: Image, size_hw: tuple[int, int]) -> Image:
        if self.data.resize == "sides" and size_hw != image.shape[:2]:
            return plain_resize(image, size_hw)  # as those saw images who trained networks so
        return resize_image(image, size_hw, self.data, threads=default_threads())

    def _window_bands(self, height: int, resized: Image) -> Iterator[Band]:
        """Bands of the original image's `height` rows, from windows over the `resized` image."""
        blend = self._blend(resized)
        step = _band_rows(self.num_classes, height, [blend])
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            if height == resized.shape[0]:
                yield Band(rows, blend.rows(rows.start, rows.stop))
                continue
            part, down = self._rows_for(blend, rows, height)
            upper, lower = part[:, down.first], part[:, down.second]
            yield Band(rows, upper + (lower - upper) * down.share[:, None])

    def _mean_bands(self, size_hw: tuple[int, int], views: "Sequence[tuple[Look, Blend]]") -> Iterator[Band]:
        """Bands of an image of `size_hw`, at its full width: the logarithm of the mean probabilities of all views."""
        height, width = size_hw
        step = _band_rows(self.num_classes, height, [blend for _, blend in views])
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            shape = self.num_classes, rows.stop - rows.start, width
            add: Any = add_probs_there if self.is_there else add_probs
            total: Any = (
                torch.zeros(shape, device=self.backend.device)
                if self.is_there
                else np.zeros(shape, np.float32)
            )
            for look, blend in views:
                part, down = self._rows_for(blend, rows, height)
                add(part, down, self._taps(part.shape[2], width), total, is_mirrored=look.is_mirrored)
            total *= 1 / len(views)
            yield Band(rows, _log(total))

    def _rows_for(self, blend: Blend, rows: slice, height: int) -> tuple[Any, Any]:
        """The rows of a blend that `rows` of an image of `height` read, and the taps of each in them: of one kind."""
        first, second, _ = taps(blend.image_hw[0], height, align_corners=self.align_corners)
        top, end = int(first[rows][0]), int(second[rows][-1]) + 1
        down = self._taps(blend.image_hw[0], height)
        return blend.rows(top, end), down._make(
            (down.first[rows] - top, down.second[rows] - top, down.share[rows])
        )

    def _taps(self, in_size: int, out_size: int) -> Any:
        """Taps that lie where logits do."""
        if self.is_there:
            return taps_on(in_size, out_size, self.backend.device, align_corners=self.align_corners)
        return taps(in_size, out_size, align_corners=self.align_corners)

    def _views(self, images: Sequence[Image], looks: Sequence[Look]) -> list[list[tuple[Look, Blend]]]:
        """For each of the images (of one size) its views: in windows they are computed when their rows are asked for,
        whole ones now, in one pass for all images of a look."""
        views: list[list[tuple[Look, Blend]]] = [[] for _ in images]
        for look in looks:
            seen = [self._seen(image, look) for image in images]
            if self.eval.inference == "windows":
                blends = [self._blend(one) for one in seen]
            else:
                blends = [
                    self._one_window(one.shape[:2], logits)
                    for one, logits in zip(seen, self._scores(seen), strict=True)
                ]
            for mine, blend in zip(views, blends, strict=True):
                mine.append((look, blend))
        return views

    def _one_window(self, size_hw: tuple[int, int], logits: Logits | Tensor) -> Blend:
        """Logits of a whole view, as the blend of one window."""
        return Blend(size_hw, size_hw, size_hw, lambda corners: [logits], align_corners=self.align_corners)

    def _blend(self, resized: Image) -> Blend:
        def score(corners: Sequence[tuple[int, int]]) -> list[Logits | Tensor]:
            crops = [
                resized[top : top + blend.window_hw[0], left : left + blend.window_hw[1]]
                for top, left in corners
            ]
            size = self.eval.batch_size
            return [
                one
                for start in range(0, len(crops), size)
                for one in self._scores(crops[start : start + size])
            ]

        blend = Blend(
            (resized.shape[0], resized.shape[1]),
            self.eval.window_hw,
            self.eval.stride_hw,
            score,
            weighting=self.eval.blend,
            align_corners=self.align_corners,
        )
        return blend

    def _scores(self, images: Sequence[Image]) -> Logits | Tensor:
        """The same as `_score`, but left on the GPU where the network runs on one."""
        backend = self.backend
        if not self.is_there:
            return self._score(images)
        assert isinstance(backend, TorchBackend)
        logits = backend.there(_stacked_there(images, backend.device))
        least = logits.amin()
        self._check(logits.shape[1], logits.isnan().float().mean().item() if least.isnan() else 0.0)
        return logits

    def _score(self, images: Sequence[Image]) -> Logits:
        """Run the network on images of one size: logits (B, K, h, w), finite, of K classes."""
        logits = self.backend(_stacked(images))
        self._check(logits.shape[1], float(np.isnan(logits).mean()) if np.isnan(logits.min()) else 0.0)
        return logits

    def _check(self, num_classes: int, share_of_nan: float) -> None:
        if num_classes != self.num_classes:
            raise WeightsError(
                "The network and its classes do not fit.",
                found=f"logits of {num_classes} classes",
                expected=f"{self.num_classes}, as there are classes",
            )
        if share_of_nan:
            raise WeightsError(
                "The network's answer is not a number (NaN).",
                found=f"NaN in {share_of_nan:.1%} of its logits",
                hint="Its weights hold NaN, or precision f16 overflowed: then bf16 or f32 will do.",
            )


def as_array(there: NDArray[Any] | Tensor) -> NDArray[Any]:
    """Return logits or a mask as an array of the same shape and dtype; a tensor comes from its device."""
    if isinstance(there, np.ndarray):
        return there
    array: NDArray[Any] = there.cpu().numpy()
    return array


def _log(probs: Any) -> Logits | Tensor:
    """Their logarithm, in their place; that of 0 is a finite one."""
    tiny = np.finfo(np.float32).tiny
    if isinstance(probs, Tensor):
        return probs.clamp_(min=float(tiny)).log_()
    array: Logits = np.log(np.maximum(probs, tiny), out=probs)
    return array


def _stacked(images: Sequence[Image]) -> NDArray[np.float32]:
    """Images (h, w, C) of one size as a network gets them: (B, C, h, w) float32 in [0, 1]."""
    height, width, channels = images[0].shape
    image_BCHW = np.empty((len(images), channels, height, width), np.float32)
    for slot, image in zip(image_BCHW, images, strict=True):
        unit_range(image.transpose(2, 0, 1), out=slot)
    return image_BCHW


def _stacked_there(images: Sequence[Image], device: torch.device) -> Tensor:
    """The same on a device, to which bytes go as bytes."""
    if images[0].dtype != np.uint8:
        return torch.from_numpy(_stacked(images)).to(device)
    image_BHWC = torch.from_numpy(np.stack(images)).to(device)
    white = torch.tensor(255.0, device=device)  # by a plain number torch would multiply with its inverse
    return image_BHWC.permute(0, 3, 1, 2).float().contiguous() / white


def _check_looks(eval: EvalConfig) -> None:
    """Refuse strides that skip pixels and looks at nothing when an eye is made, not at its first image."""
    for window, stride in zip(eval.window_hw, eval.stride_hw, strict=True):
        starts(window, window, stride)
    if eval.blend not in BLENDS:
        raise unknown_name("blend", eval.blend, BLENDS)
    if problem := out_of_range("eval.scales", eval.scales):
        raise problem
    if not eval.scales:
        raise UsageError(
            "An image has to be looked at.", found="no scales", expected="at least one, such as 1.0"
        )


def _band_rows(num_classes: int, height: int, blends: Sequence[Blend]) -> int:
    """How many of an image's `height` rows make a band of about BAND_BYTES in each of these blends."""
    row_bytes = [
        4 * num_classes * blend.image_hw[1] * max(height, blend.image_hw[0]) // height for blend in blends
    ]
    return max(1, BAND_BYTES // max(row_bytes))
