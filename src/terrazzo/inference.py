"""One eye: the only way from an image to a mask, for evaluate, predict, serve, assistance and validation in training.

    check -> resize as recipe.data says -> network, whole or in windows -> logits float32
          -> resize + argmax in one pass to the image's original size -> Prediction

How an image is looked at, up to the class scores of its rows, is told in `views.py`; the network itself runs behind
`backends.Backend`. Nothing here knows files of weights: `load` asks `nn.weights` and `run`.

Shapes: B batch, C channels, H W the image's original size, K classes, h w the logits' size.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo.backends import Backend, TorchBackend
from terrazzo.classes import Classes, Mask, Remap
from terrazzo.converted import BACKENDS, choose_backend
from terrazzo.data.transforms import DataConfig
from terrazzo.devices import choose_device, choose_precision
from terrazzo.errors import (
    ImageFormatError,
    MissingPathError,
    TerrazzoError,
    UsageError,
    nearest,
    unknown_name,
)
from terrazzo.exported import find_exported
from terrazzo.images import decode_image, read_image
from terrazzo.kernels.resize_argmax import resize_argmax
from terrazzo.kernels.resize_filter import INTERPOLATIONS, ROUNDINGS
from terrazzo.kernels.threads import MOST_PASSES, default_threads
from terrazzo.nn.weights import described, read_model
from terrazzo.prediction import Prediction
from terrazzo.recipe import EvalConfig, Recipe
from terrazzo.remote import is_url, path_of
from terrazzo.run import Run
from terrazzo.sources import Source
from terrazzo.views import Band, Eye
from terrazzo.windows import Logits

Image = NDArray[Any]
T = TypeVar("T")
R = TypeVar("R")

MOST_READERS = 8  # beyond, threads wait for each other's turn in the interpreter
RECIPE = "recipe.json"  # what makes a folder a run


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
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """network: image (B, C, H, W) float32 in [0, 1] -> logits (B, K, h, w); moved to `device`. Or a backend.

        data: the recipe's `data`, of which `resize`, `resize_hw`, `interpolation` and `rounding` count here; eval: the
        recipe's `eval`. precision: "f32", "bf16", "f16" or "auto". remap: the data set's table, for raw ids. channels:
        of the images, where the network has no `channels` of its own. name: what the model is called in what it writes.
        notes: what a user should hear about it. about: its terrazzo.json.
        """
        if isinstance(network, nn.Module):
            on = device if isinstance(device, torch.device) else choose_device(device)
            network = TorchBackend(network, on, choose_precision(precision, on))
        self.eye = Eye(network, len(classes), data or DataConfig(), eval or EvalConfig())
        self.classes, self.remap, self.name, self.notes = classes, remap, name, tuple(notes)
        self.about: Mapping[str, Any] = about or {}
        self.channels = channels if channels is not None else network.channels

    @property
    def network(self) -> nn.Module:
        """The torch module itself: image (B, C, H, W) float in [0, 1] -> `.logits` (B, K, h, w), not yet resized."""
        return self.eye.backend.network

    @property
    def backend(self) -> str:
        """What runs the network and in which precision, such as "OpenVINO 2026.4.1, f32"."""
        return self.eye.backend.says

    @property
    def passes(self) -> int:
        """How many passes beside each other give the most images a second: on a CPU one a thread, up to MOST_PASSES."""
        is_on_cpu = self.eye.backend.device.type == "cpu"
        return min(default_threads(), MOST_PASSES) if is_on_cpu else 1

    @property
    def more_readers(self) -> int:
        """How many threads more read images ahead where a GPU would wait for them; none on a CPU."""
        return 0 if self.eye.backend.device.type == "cpu" else min(MOST_READERS, default_threads())

    @property
    def data(self) -> DataConfig:
        """How images are resized before the network sees them."""
        return self.eye.data

    @property
    def eval(self) -> EvalConfig:
        """How images are looked at."""
        return self.eye.eval

    def with_eval(self, eval: EvalConfig) -> "Predictor":
        """Return a predictor that looks as `eval` says; the network is shared."""
        other = copy.copy(self)
        other.eye = replace(self.eye, eval=eval)
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
        passes: int = 1,
    ) -> Iterator[Prediction]:
        """Yield the predictions of `images` in order; the next ones are decoded meanwhile, and only a few are held.

        Neighbours that the network sees at one size are stacked, up to `eval.batch_size`. on_error: called with an
        image that cannot be read, or that the backend does not take, and the error; the image is left out. Without it
        the first error is raised.
        passes: of the network at a time, each in a thread of its own; on a CPU, with `kernels.threads.shared_by`, as
        many as there are threads give the most images a second.
        """

        def read(numbered: tuple[int, Any]) -> "Named | tuple[Any, TerrazzoError]":
            number, image = numbered
            try:
                return replace(self.read(image, default=f"{number:06d}"), given=image)
            except TerrazzoError as error:
                return image, error

        def readable() -> Iterator[Named]:
            more = self.more_readers
            depth = 2 * passes * self.eval.batch_size + more
            for result in ahead(read, enumerate(images), depth=depth, threads=2 + more):
                if isinstance(result, Named):
                    yield result
                elif on_error is None:
                    raise result[1]
                else:
                    on_error(*result)

        def look(batch: "Sequence[Named]") -> "tuple[Sequence[Named], list[Prediction] | ImageFormatError]":
            try:
                return batch, self._predict(batch, confidence)
            except ImageFormatError as error:  # they are of one form, so the backend takes none of them
                return batch, error

        fitting = batches(readable(), lambda named: self.eye.sees(named.image), self.eval.batch_size)
        looked = map(look, fitting) if passes == 1 else ahead(look, fitting, depth=2 * passes, threads=passes)
        for batch, result in looked:
            if isinstance(result, list):
                yield from result
                continue
            for named in batch:
                if on_error is None:
                    raise _of(named, result) from result
                on_error(named.given, _of(named, result))

    def logits(self, image: Any) -> Logits:
        """Return the class scores (K, h, w) float32 of one image before they are resized to its size.

        In windows they are blended at the size of `data.resize`, held as a whole: 4 K H W bytes. Of several looks they
        are the logarithm of their mean probabilities, at that size too.
        """
        return self.eye.logits(self.read(image).image)

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
        for named, bands in zip(batch, self.eye.bands([named.image for named in batch]), strict=True):
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
        mask, sure = self.assemble_there(bands, size_hw, confidence=confidence)
        if isinstance(mask, np.ndarray):
            assert not isinstance(sure, Tensor)
            return mask, sure
        there = None if sure is None else torch.as_tensor(sure).cpu().numpy()
        return mask.cpu().numpy().astype(self.classes.mask_dtype, copy=False), there

    def assemble_there(
        self, bands: Iterable[Band], size_hw: tuple[int, ...], *, confidence: bool = False
    ) -> tuple[Mask | Tensor, NDArray[np.uint8] | Tensor | None]:
        """The same, as tensors on the GPU where logits lie there."""
        height, width = size_hw
        mask: Any = None
        sure: Any = None
        for band in bands:
            num_rows = band.rows.stop - band.rows.start
            part, part_sure = resize_argmax(
                band.logits, (num_rows, width), align_corners=self.eye.align_corners, confidence=confidence
            )
            if num_rows == height:
                return part, part_sure
            if mask is None:
                mask, sure = _empty_as(part, (height, width)), _empty_as(part_sure, (height, width))
            mask[band.rows] = part
            if part_sure is not None:
                sure[band.rows] = part_sure
        return mask, sure


def _empty_as(part: NDArray[Any] | Tensor | None, size_hw: tuple[int, int]) -> Any:
    if part is None or isinstance(part, Tensor):
        return None if part is None else part.new_empty(size_hw)
    return np.empty(size_hw, part.dtype)


@dataclass(frozen=True)
class Named:
    """An image (H, W, C) and its name."""

    name: str
    image: Image
    given: Any = None
    """What `Predictor.stream` was asked about."""


def _of(named: Named, error: ImageFormatError) -> ImageFormatError:
    """The error of a pass, with the image in it."""
    where = named.given.path if isinstance(named.given, Source) else named.name
    return ImageFormatError(
        f"{where}: {error.what}",
        found=error.found,
        expected=error.expected,
        hint=error.hint,
        command=error.command,
    )


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
    0.x or 1.x, and config the .py file it was trained with, where it does not hold its text; or what `export` wrote, a
    folder or the .onnx or .xml in it. A model looks at images as it was trained to: resize, windows and flip are those
    of its recipe, its preprocessor_config.json or its config. An image processor whose name ends in "Fast" resizes in
    torchvision's rounding, any other in Pillow's (see `DataConfig.rounding`).
    backend: "torch", "openvino", "onnx"; "auto" is the fastest of them for this device that is installed, never changes
    precision, and is told in `notes` and `backend`. What is converted for it is kept in the user's cache folder.
    network: one's own module for a model whose architecture is not one of terrazzo's; its weights are loaded into it.
    Raises MissingPathError, WeightsError, CheckpointError. No code of the model's runs, nothing unsafe is unpickled.
    """
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    runs: Backend
    said: tuple[str, ...] = ()
    if network is None and (exported := find_exported(Path(source))) is not None:
        about = exported.terrazzo
        with described(source):
            classes, preprocessing = Classes.from_json(about["classes"]), about.get("preprocessing", {})
            channels = _channels(about)
            runs = exported.backend(backend, precision)
    else:
        model = read_model(_model_folder(source), network=network, config=config)
        about, classes, preprocessing = model.terrazzo, model.classes, model.preprocessing
        with described(source):
            channels = _channels(about)
        runs, told = choose_backend(
            model.network,
            backend=backend,
            device=device,
            precision=precision,
            channels=channels,
            quiet=False,
        )
        said = (*model.said, *told)
    with described(source):
        stored, remap = about.get("recipe"), about.get("remap")
        recipe = Recipe.from_json(stored, where=f"terrazzo.json of {source}") if stored is not None else None
        data = recipe.data if recipe else _data_config(preprocessing)
        look = recipe.eval if recipe else _eval_config(preprocessing)
    return Predictor(
        runs,
        classes,
        data=data,
        eval=look,
        remap=Remap.from_json(remap, len(classes)) if remap is not None else None,
        channels=channels,
        name=str(source),
        notes=said,
        about={**about, "preprocessing": preprocessing},
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


def _channels(about: Mapping[str, Any]) -> int | None:
    """How many channels terrazzo.json says images have; None where it does not."""
    channels = about.get("channels")
    if channels is not None and (type(channels) is not int or channels < 1):
        raise ValueError(f"images of {channels!r} channels")
    return channels


def _data_config(preprocessing: Mapping[str, Any]) -> DataConfig:
    """How a model without a recipe saw its images."""
    resize, resize_hw = preprocessing.get("resize", "original"), preprocessing.get("resize_hw", (512, 512))
    return DataConfig(
        resize=resize,
        resize_hw=(int(resize_hw[0]), int(resize_hw[1])),
        interpolation=_one_of(INTERPOLATIONS, preprocessing.get("interpolation", "bilinear")),
        rounding=_one_of(ROUNDINGS, preprocessing.get("rounding", "pillow")),
    )


def _one_of(known: tuple[T, ...], found: Any) -> T:
    if found not in known:
        raise ValueError(f"{found!r:.60} where one of {', '.join(map(str, known))} is expected")
    return known[known.index(found)]


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
