"""One eye: the only way from an image to a mask, for evaluate, predict, serve, assistance and validation in training.

    check -> resize as recipe.data says -> network, whole or in windows -> logits float32
          -> resize + argmax in one pass to the image's original size -> Prediction

Where the recipe (or --tta) asks for several looks at an image, at other sizes or mirrored, each of them goes that way
up to the resize; then their probabilities are averaged, a few rows at a time, and the argmax is that of the mean.

The network itself runs behind `backends.Backend`; windows are blended in `windows.py`. Nothing here knows files of
weights: `load` asks `nn.weights` and `run`.

Shapes: B batch, C channels, H W the image's original size, K classes, h w the logits' size.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from terrazzo.backends import Backend, TorchBackend
from terrazzo.classes import Classes, Mask, Remap
from terrazzo.data.transforms import DataConfig, resize_image, resized_hw, unit_range
from terrazzo.devices import choose_device, choose_precision
from terrazzo.errors import (
    ImageFormatError,
    MissingPathError,
    TerrazzoError,
    UsageError,
    WeightsError,
    nearest,
    unknown_name,
)
from terrazzo.images import decode_image, read_image
from terrazzo.kernels.add_probs import add_probs
from terrazzo.kernels.bilinear import Taps, taps
from terrazzo.kernels.plain_resize import plain_resize
from terrazzo.kernels.resize_argmax import resize_argmax
from terrazzo.nn.weights import read_model
from terrazzo.prediction import Prediction
from terrazzo.ranges import out_of_range
from terrazzo.recipe import EvalConfig, Recipe
from terrazzo.remote import is_url, path_of
from terrazzo.run import Run
from terrazzo.sources import Source
from terrazzo.windows import Blend, Logits, starts

Image = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")

BAND_BYTES = 32 << 20  # of blended logits that windows hold at a time, beside the network's own
BACKENDS = ("auto", "torch")
BLENDS = ("uniform", "smooth")
RECIPE = "recipe.json"  # what makes a folder a run


class Band(NamedTuple):
    """Some rows of an image's mask, before resize and argmax."""

    rows: slice
    """Which rows of the original image."""
    logits: Logits
    """(K, h, w) float32; resized to (number of rows, W) they are the class scores of these rows."""


class Look(NamedTuple):
    """One way to look at an image."""

    scale: float
    """Of the size at which the network sees it otherwise."""
    is_mirrored: bool
    """Left and right changed."""


PLAIN = Look(1.0, False)


class Predictor:
    """A network, its classes, and everything between an image and its mask. Safe to use from several threads.

    Memory beside the network's own, for one image: the image; seen whole, 4 C h w bytes of input (h w after
    `data.resize`) and the logits, 4 K h/4 w/4 for SegFormer; in windows, the logits of the rows of windows that overlap
    (4 K h'/4 w'/4 for each window) and about 100 MiB for the band at work (a few full rows of logits where those are
    more), so that nothing but image and mask grows with the image's height; the mask, one or two bytes a pixel. Several
    looks hold their resized images and logits side by side, and one band.
    """

    def __init__(
        self,
        network: nn.Module | Backend,
        classes: Classes,
        *,
        data: DataConfig | None = None,
        eval: EvalConfig | None = None,
        device: str | torch.device = "auto",
        precision: str = "f32",
        remap: Remap | None = None,
        channels: int | None = None,
        name: str = "",
        notes: Sequence[str] = (),
    ) -> None:
        """network: image (B, C, H, W) float32 in [0, 1] -> logits (B, K, h, w); moved to `device`. Or a backend.

        data: the recipe's `data`, of which `resize` and `resize_hw` count here; eval: the recipe's `eval`. precision:
        "f32", "bf16", "f16" or "auto". remap: the data set's table, for raw ids. channels: of the images, where the
        network has no `channels` of its own. name: what the model is called in what it writes. notes: what a user
        should hear about it.
        """
        if isinstance(network, nn.Module):
            on = device if isinstance(device, torch.device) else choose_device(device)
            network = TorchBackend(network, on, choose_precision(precision, on))
        self.backend: Backend = network
        self.classes, self.remap, self.name, self.notes = classes, remap, name, tuple(notes)
        self.data = data or DataConfig()
        self.eval = eval or EvalConfig()
        self.channels = channels if channels is not None else self.backend.channels
        self.align_corners = bool(getattr(self.backend.network, "align_corners", False))
        _check_looks(self.eval)

    @property
    def network(self) -> nn.Module:
        """The torch module itself: image (B, C, H, W) float in [0, 1] -> `.logits` (B, K, h, w), not yet resized."""
        return self.backend.network

    @property
    def looks(self) -> list[Look]:
        """The ways in which an image is looked at: every scale, as it is and, with `eval.flip`, mirrored."""
        mirrored = (False, True) if self.eval.flip else (False,)
        return [Look(scale, is_mirrored) for scale in self.eval.scales for is_mirrored in mirrored]

    def with_eval(self, eval: EvalConfig) -> "Predictor":
        """Return a predictor that looks as `eval` says; the network is shared."""
        _check_looks(eval)
        other = copy.copy(self)
        other.eval = eval
        return other

    @overload
    def __call__(
        self, image: "list[Any] | tuple[Any, ...]", *, confidence: bool = False
    ) -> list[Prediction]: ...

    @overload
    def __call__(self, image: Any, *, confidence: bool = False) -> Prediction: ...

    def __call__(self, image: Any, *, confidence: bool = False) -> Prediction | list[Prediction]:
        """Predict one image, or a list of them, at their original sizes.

        image: a path, a URL, a `sources.Source`, the bytes of a file, a PIL image, or an array (H, W, C) uint8, uint16
        or float32 in [0, 1].
        confidence: also say how sure the model is of every pixel, 255 = certain.
        Raises ImageFormatError for other channels than the network's, UnreadableFileError for damaged files.
        """
        if isinstance(image, list | tuple):
            return list(self.stream(image, confidence=confidence))
        return self._predict([self.read(image)], confidence)[0]

    def stream(
        self,
        images: Iterable[Any],
        *,
        confidence: bool = False,
        on_error: Callable[[Any, TerrazzoError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield the predictions of `images` in order; the next ones are decoded meanwhile, and only a few are held.

        Neighbours that the network sees at one size are stacked, up to `eval.batch_size`. on_error: called with an
        image that cannot be read and the error; the image is left out. Without it the first error is raised.
        """

        def read(numbered: tuple[int, Any]) -> "Named | tuple[Any, TerrazzoError]":
            number, image = numbered
            try:
                return self.read(image, default=f"{number:06d}")
            except TerrazzoError as error:
                return image, error

        def readable() -> Iterator[Named]:
            for result in ahead(read, enumerate(images), depth=2 * self.eval.batch_size, threads=2):
                if isinstance(result, Named):
                    yield result
                elif on_error is None:
                    raise result[1]
                else:
                    on_error(*result)

        for batch in batches(readable(), lambda named: self.sees(named.image), self.eval.batch_size):
            yield from self._predict(batch, confidence)

    def logits(self, image: Any) -> Logits:
        """Return the class scores (K, h, w) float32 of one image before they are resized to its size.

        In windows they are blended at the size of `data.resize`, held as a whole: 4 K H W bytes. Of several looks they
        are the logarithm of their mean probabilities, at that size too.
        """
        image = self.read(image).image
        seen_hw = resized_hw((image.shape[0], image.shape[1]), self.data)
        if self.looks != [PLAIN]:
            views = self._views([image], self.looks)[0]
            return np.concatenate([band.logits for band in self._mean_bands(seen_hw, views)], axis=1)
        resized = self._resized(image, seen_hw)
        if self.eval.inference == "whole":
            return self._score([resized])[0]
        return self._blend(resized).rows(0, resized.shape[0])

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
            for image, logits in zip(images, self._score(resized), strict=True):
                yield iter([Band(slice(0, image.shape[0]), logits)])
        else:
            for image, small in zip(images, resized, strict=True):
                yield self._window_bands(image.shape[0], small)

    def sees(self, image: Image) -> tuple[tuple[int, int], int, np.dtype[Any]]:
        """Return (height, width), channels and dtype at which the network sees `image`: equal ones can share a pass."""
        return resized_hw((image.shape[0], image.shape[1]), self.data), image.shape[2], image.dtype

    def read(self, image: Any, *, default: str = "image") -> "Named":
        """Return an image, given as `__call__` takes it, as an array (H, W, C) with a name, channels checked."""
        if isinstance(image, Source):
            return Named(image.name, read_image(image.path, channels=self.channels))
        if is_url(image):
            return Named(PurePosixPath(path_of(image)).stem, read_image(image, channels=self.channels))
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            return Named(path.stem, read_image(path, channels=self.channels))
        if isinstance(image, list | tuple):
            raise UsageError("An image cannot be a list.", found=f"a {type(image).__name__} of {len(image)}")
        file = getattr(image, "filename", "")  # PIL keeps where an image was opened
        name = Path(file).stem if isinstance(file, str) and file else default
        if isinstance(image, np.ndarray):
            self._refuse_channels_first(image, name)
        return Named(name, decode_image(image, where=repr(name), channels=self.channels))

    def _refuse_channels_first(self, image: Image, name: str) -> None:
        if image.ndim == 3 and image.shape[2] not in (1, self.channels) and image.shape[0] == self.channels:
            raise ImageFormatError(
                f"The image {name!r} seems to have its channels first.",
                found=f"shape {image.shape}",
                expected=f"(height, width, {self.channels})",
                hint="image.transpose(1, 2, 0) puts them last.",
            )

    def _predict(self, batch: "Sequence[Named]", confidence: bool) -> list[Prediction]:
        predictions = []
        for named, bands in zip(batch, self.bands([named.image for named in batch]), strict=True):
            mask, sure = self.assemble(bands, named.image.shape[:2], confidence=confidence)
            predictions.append(
                Prediction(
                    mask, self.classes, sure, named.image, named.name, remap=self.remap, model=self.name
                )
            )
        return predictions

    def assemble(
        self, bands: Iterable[Band], size_hw: tuple[int, ...], *, confidence: bool = False
    ) -> tuple[Mask, NDArray[np.uint8] | None]:
        """Return the mask (H, W), and the confidence if asked for, of an image's bands: resize and argmax of each."""
        height, width = size_hw
        mask = np.empty((height, width), self.classes.mask_dtype)
        sure = np.empty((height, width) if confidence else (0, 0), np.uint8)
        for band in bands:
            num_rows = band.rows.stop - band.rows.start
            part, part_sure = resize_argmax(
                band.logits, (num_rows, width), align_corners=self.align_corners, confidence=confidence
            )
            if num_rows == height:
                return part, part_sure
            mask[band.rows] = part
            if part_sure is not None:
                sure[band.rows] = part_sure
        return mask, sure if confidence else None

    def _seen(self, image: Image, look: Look) -> Image:
        """The image as the network gets it."""
        height, width = resized_hw((image.shape[0], image.shape[1]), self.data)
        scaled_hw = max(1, int(height * look.scale + 0.5)), max(1, int(width * look.scale + 0.5))
        resized = self._resized(image, scaled_hw)
        return resized[:, ::-1] if look.is_mirrored else resized  # a view: nothing is copied

    def _resized(self, image: Image, size_hw: tuple[int, int]) -> Image:
        if self.data.resize == "sides" and size_hw != image.shape[:2]:
            return plain_resize(image, size_hw)  # as those saw images who trained networks so
        return resize_image(image, size_hw)

    def _window_bands(self, height: int, resized: Image) -> Iterator[Band]:
        """Bands of the original image's `height` rows, from windows over the `resized` image."""
        blend = self._blend(resized)
        step = _band_rows(len(self.classes), height, [blend])
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
        step = _band_rows(len(self.classes), height, [blend for _, blend in views])
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            total = np.zeros((len(self.classes), rows.stop - rows.start, width), np.float32)
            for look, blend in views:
                part, down = self._rows_for(blend, rows, height)
                across = taps(part.shape[2], width, align_corners=self.align_corners)
                add_probs(part, down, across, total, is_mirrored=look.is_mirrored)
            total *= np.float32(1 / len(views))
            yield Band(rows, np.log(np.maximum(total, np.finfo(np.float32).tiny), out=total))

    def _rows_for(self, blend: Blend, rows: slice, height: int) -> tuple[Logits, Taps]:
        """The rows of a blend that `rows` of an image of `height` read, and where in them each reads."""
        first, second, share = taps(blend.image_hw[0], height, align_corners=self.align_corners)
        first, second, share = first[rows], second[rows], share[rows]
        return blend.rows(int(first[0]), int(second[-1]) + 1), Taps(
            first - first[0], second - first[0], share
        )

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
                    for one, logits in zip(seen, self._score(seen), strict=True)
                ]
            for mine, blend in zip(views, blends, strict=True):
                mine.append((look, blend))
        return views

    def _one_window(self, size_hw: tuple[int, int], logits: Logits) -> Blend:
        """Logits of a whole view, as the blend of one window."""
        return Blend(size_hw, size_hw, size_hw, lambda corners: [logits], align_corners=self.align_corners)

    def _blend(self, resized: Image) -> Blend:
        def score(corners: Sequence[tuple[int, int]]) -> list[Logits]:
            crops = [
                resized[top : top + blend.window_hw[0], left : left + blend.window_hw[1]]
                for top, left in corners
            ]
            size = self.eval.batch_size
            return [
                one
                for start in range(0, len(crops), size)
                for one in self._score(crops[start : start + size])
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

    def _score(self, images: Sequence[Image]) -> Logits:
        """Run the network on images of one size: logits (B, K, h, w), finite, of K classes."""
        height, width, channels = images[0].shape
        image_BCHW = np.empty((len(images), channels, height, width), np.float32)
        for slot, image in zip(image_BCHW, images, strict=True):
            slot[...] = unit_range(image).transpose(2, 0, 1)
        logits = self.backend(image_BCHW)
        if logits.shape[1] != len(self.classes):
            raise WeightsError(
                "The network and its classes do not fit.",
                found=f"logits of {logits.shape[1]} classes",
                expected=f"{len(self.classes)}, as there are classes",
            )
        if np.isnan(logits.min()):
            raise WeightsError(
                "The network's answer is not a number (NaN).",
                found=f"NaN in {np.isnan(logits).mean():.1%} of its logits",
                hint="Its weights hold NaN, or precision f16 overflowed: then bf16 or f32 will do.",
            )
        return logits


@dataclass(frozen=True)
class Named:
    """An image (H, W, C) and its name."""

    name: str
    image: Image


def load(
    source: str | os.PathLike[str],
    *,
    backend: str = "auto",
    precision: str = "f32",
    device: str = "auto",
    network: nn.Module | None = None,
    config: str | os.PathLike[str] | None = None,
) -> Predictor:
    """Return the predictor of a model: a run (its best checkpoint), a model folder, a Hub id "user/name", a checkpoint.

    A model folder is one that terrazzo wrote, or a SegFormer of transformers; a checkpoint is a .pth of MMSegmentation,
    0.x or 1.x, and config the .py file it was trained with, where it does not hold its text. A model looks at images as
    it was trained to: resize, windows and flip are those of its recipe, its preprocessor_config.json or its config.
    backend: "torch"; "auto" is the fastest there is and never changes precision. network: one's own module for a model
    whose architecture is not one of terrazzo's; its weights are loaded into it.
    Raises MissingPathError, WeightsError, CheckpointError. No code of the model's runs, nothing unsafe is unpickled.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    model = read_model(_model_folder(source), network=network, config=config)
    stored = model.terrazzo.get("recipe")
    recipe = Recipe.from_json(stored, where=f"terrazzo.json of {source}") if stored is not None else None
    remap = model.terrazzo.get("remap")
    return Predictor(
        model.network,
        model.classes,
        data=recipe.data if recipe else _data_config(model.preprocessing),
        eval=recipe.eval if recipe else _eval_config(model.preprocessing),
        device=device,
        precision=precision,
        remap=Remap.from_json(remap, len(model.classes)) if remap is not None else None,
        channels=model.terrazzo.get("channels"),
        name=str(source),
        notes=model.said,
    )


def _model_folder(source: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A run stands for its best checkpoint; a slip in the name of one is told at once, without asking the Hub."""
    path = Path(source)
    if (path / RECIPE).is_file():
        return Run.open(path).best_folder()
    if path.exists():
        return source
    siblings = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    runs = [entry.name for entry in siblings if (entry / RECIPE).is_file()]
    if runs:
        near = nearest(path.name, runs) or runs[:3]
        raise MissingPathError(
            f"There is no run or model {source}.",
            found=f"{len(runs)} run{'s' if len(runs) != 1 else ''} in {path.parent}",
            hint=f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?",
        )
    return source


def _data_config(preprocessing: Mapping[str, Any]) -> DataConfig:
    """How a model without a recipe saw its images."""
    resize, resize_hw = preprocessing.get("resize", "original"), preprocessing.get("resize_hw", (512, 512))
    return DataConfig(resize=resize, resize_hw=(int(resize_hw[0]), int(resize_hw[1])))


def _eval_config(preprocessing: Mapping[str, Any]) -> EvalConfig:
    """How a model without a recipe looks at what it sees: whole, unless it says windows."""
    if preprocessing.get("inference") != "windows":
        return EvalConfig()
    window, stride = preprocessing["window_hw"], preprocessing["stride_hw"]
    return EvalConfig(
        inference="windows",
        window_hw=(int(window[0]), int(window[1])),
        stride_hw=(int(stride[0]), int(stride[1])),
    )


def ahead(function: Callable[[T], R], items: Iterable[T], *, depth: int, threads: int = 1) -> Iterator[R]:
    """Yield function(item) for `items` in order, computed up to `depth` items ahead in `threads` threads.

    An error is raised at its item's turn. Leaving early cancels what has not begun.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="terrazzo-ahead")
    waiting: deque[Future[R]] = deque()
    try:
        for item in islice(source, max(1, depth)):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.popleft().result()
            for item in islice(source, 1):
                waiting.append(pool.submit(function, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[T], key: Callable[[T], Any], size: int) -> Iterator[list[T]]:
    """Yield lists of up to `size` neighbours with equal `key`, keeping the order."""
    batch: list[T] = []
    for item in items:
        if batch and (len(batch) == size or key(item) != key(batch[0])):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _check_looks(eval: EvalConfig) -> None:
    """Refuse strides that skip pixels and looks at nothing when a predictor is made, not at its first image."""
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
