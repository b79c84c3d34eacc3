"""How good a model is: every pixel of a split, counted at the masks' original size, in constant memory.

`evaluate` is the door: a model and a data set, by name or as objects. `measure` is the pass over a split that it and
the validation of a training share: one walk over the images gives scores, loss and one's own metrics. Masks are never
resized, images are neither padded nor repeated, and nothing but one K x K matrix of counts outlives an image. While the
network is at work, the next images are decoded and the one before is counted.

Shapes: K classes, H W the mask's original size.
"""

import heapq
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo import rendering
from terrazzo.classes import Classes, is_void
from terrazzo.data import Dataset, Split, open_dataset
from terrazzo.data.transforms import DataConfig
from terrazzo.errors import DatasetFormatError, ExistingOutputError, UsageError
from terrazzo.images import write_image
from terrazzo.inference import Predictor, ahead, batches, load
from terrazzo.metrics import ConfusionMatrix, self_check
from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer_files import has_real_names
from terrazzo.progress import track
from terrazzo.report import Report
from terrazzo.run import Run
from terrazzo.sample import Sample
from terrazzo.storage import write_json
from terrazzo.views import Band, as_array

if TYPE_CHECKING:
    from PIL.Image import Image

WORST = 10  # images with the lowest scores that a report names
REPORT = "report.json"  # beside the pictures of --show-dir; its presence says that the folder is ours

Metric = Callable[[NDArray[Any], NDArray[Any]], float]


class Loss(Protocol):
    """A loss as training has it: terms that are sums over pixels, divided by `weight`."""

    def __call__(self, output: Output, mask_BHW: Tensor, *, weight: Tensor | float) -> Mapping[str, Tensor]:
        """Return the named terms, scalars, for logits (B, K, h, w) and class ids (B, H, W)."""

    def pixel_weight(self, mask_BHW: Tensor, /) -> float:
        """Return the weight that the terms of these masks are to be divided by."""


def evaluate(
    model: "str | os.PathLike[str] | Predictor",
    *,
    data: "str | os.PathLike[str] | Dataset",
    split: str = "val",
    show_dir: "str | os.PathLike[str] | None" = None,
    inference: Literal["whole", "windows"] | None = None,
    window_hw: tuple[int, int] | None = None,
    stride_hw: tuple[int, int] | None = None,
    blend: Literal["uniform", "smooth"] | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    batch_size: int | None = None,
    metrics: Mapping[str, Metric] | None = None,
    limit: int | None = None,
    stream: bool | None = None,
    device: str = "auto",
    precision: str = "f32",
    backend: str = "auto",
    network: nn.Module | None = None,
    config: "str | os.PathLike[str] | None" = None,
    quiet: bool = False,
) -> Report:
    """Score a model on a split of a data set.

    model: what `load` takes (a run's best checkpoint, a model folder, a Hub id, a checkpoint with its config), or a
    Predictor. data: what
    `open_dataset` takes, or a Dataset; where it has no val split of its own, the one stored with the run is used, so
    that no training image is scored. inference, window_hw, stride_hw, blend, flip, scales, batch_size: the fields of
    `recipe.eval`, as the model's recipe has them unless given. metrics: name -> fn(pred_mask, true_mask), both (H, W),
    averaged over the images where it is a number.
    show_dir: a folder for a picture "image | truth | prediction" of every image. limit: score that many images only,
    spread evenly over the split.
    stream: read parquet where it lies, as `open_dataset` does; by default where the model was trained so.
    Raises UnknownNameError for a split that is not there, DatasetFormatError for one without masks, UsageError when
    the classes of model and data differ by more than their order, which is mapped and noted in the report.
    """
    if isinstance(model, Predictor):
        predictor = model
    else:
        predictor = load(
            model, backend=backend, device=device, precision=precision, network=network, config=config
        )
    look = predictor.eval
    predictor = predictor.with_eval(
        replace(
            look,
            inference=inference or look.inference,
            window_hw=window_hw or look.window_hw,
            stride_hw=stride_hw or look.stride_hw,
            blend=blend or look.blend,
            flip=look.flip if flip is None else flip,
            scales=look.scales if scales is None else tuple(scales),
            batch_size=batch_size or look.batch_size,
        )
    )
    dataset = _open(data, model, predictor, stream)
    if dataset.classes.names != predictor.classes.names:
        dataset = dataset.merged(predictor.data.merge)
    chosen = dataset[split]
    gallery = (
        Gallery(Path(show_dir), {"model": predictor.name, "split": chosen.name})
        if show_dir is not None
        else None
    )
    report = measure(
        predictor,
        chosen,
        metrics=metrics,
        show=gallery.add if gallery else None,
        limit=limit,
        quiet=quiet,
    )
    report = replace(
        report, data=dataset.name, fingerprint=dataset.fingerprint, notes=(*dataset.notes, *report.notes)
    )
    if gallery:
        report.save(gallery.folder / REPORT)
    return report


def measure(
    predictor: Predictor,
    split: Split,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
    show: "Callable[[str, Image], None] | None" = None,
    limit: int | None = None,
    rank: int = 0,
    world: int = 1,
    reduce: Callable[[Tensor], Tensor] | None = None,
    quiet: bool = True,
) -> Report:
    """Score a predictor on a split in one pass.

    loss: also measured, on the logits resized to the original mask, divided by the weight of all pixels; in windows a
    loss of one's own sees an image in bands, one after the other. show: called with the name and the picture
    "image | truth | prediction" of every image, in order, from a thread of its own, as one's own metrics are.
    rank, world: score the rank-th of `world` parts of the images; reduce: returns the sum of a tensor over the
    processes, so that each of them gets the report of all images; `worst` lists its own.
    """
    _check_fit(predictor, split)
    order, notes = class_order(predictor.classes, split.classes)
    self_check(len(split.classes), split.classes.ignore)
    chosen = _share(_spread(len(split), limit), rank, world)
    tally = Tally(split.classes, loss, metrics or {})
    started = time.monotonic()
    more = predictor.more_readers
    depth = 2 * predictor.eval.batch_size + more
    samples = ahead(split.__getitem__, chosen, depth=depth, threads=1 + more)
    watched = track(samples, total=len(chosen), what="evaluate", quiet=quiet)

    def predicted() -> Iterator[tuple[Sample, NDArray[Any] | Tensor]]:
        for batch in batches(
            watched, lambda sample: predictor.eye.sees(sample.image), predictor.eval.batch_size
        ):
            images = [sample.image for sample in batch]
            for sample, bands in zip(batch, predictor.eye.bands(images), strict=True):
                assert sample.mask is not None, "the split has masks"
                seen = tally.seen(_in_order(bands, order), sample.mask)
                yield sample, predictor.assemble_there(seen, sample.mask.shape)[0]

    def count(one: tuple[Sample, NDArray[Any] | Tensor]) -> None:
        sample, pred = one
        with _beside(pred):
            tally.add(sample, pred)
            if show is not None and sample.mask is not None:
                masks = {"truth": sample.mask, "prediction": as_array(pred)}
                show(sample.name, rendering.beside(sample.image, masks, split.classes))

    for _ in ahead(count, predicted(), depth=2):  # one thread, in order: an image while the next is predicted
        pass
    tally.reduce(reduce)
    return Report(
        names=split.classes.names,
        counts=tally.matrix.counts,
        num_images=tally.num_images,
        loss=tally.loss_sum / tally.loss_weight if tally.loss_weight else None,
        metrics=tally.metrics(),
        worst=tally.worst(),
        split=split.name,
        model=predictor.name,
        seconds=time.monotonic() - started,
        settings=_settings(predictor, limit),
        notes=(*predictor.notes, *notes),
    )


def class_order(model: Classes, data: Classes) -> tuple[NDArray[np.intp] | None, tuple[str, ...]]:
    """Return the order that brings the model's class scores into the data set's ids, and the note that says so.

    None where the names agree already, or the model has none and as many classes. Raises UsageError, listing the
    differences, when the names are not the same.
    """
    if model.names == data.names:
        return None, ()
    if set(model.names) == set(data.names):
        moved = [name for i, name in enumerate(data.names) if model.names[i] != name]
        note = f"{len(moved)} classes have other ids in the model than in the data set; they were matched by name."
        return np.array([model.names.index(name) for name in data.names]), (note,)
    if len(model) == len(data) and not has_real_names(model):
        return None, ("The model's classes are unnamed; they were taken in the order of the data set's.",)
    raise _other_classes(model, data)


def _other_classes(model: Classes, data: Classes) -> UsageError:
    """Return the error that lists which classes only one side has."""
    extra = [name for name in model.names if name not in data.names]
    missing = [name for name in data.names if name not in model.names]
    found, expected = f"model: {len(model)} classes", f"{len(data)} classes"
    if not missing and all(is_void(name) for name in extra):
        hint = "The model was trained with classes that mean 'not labelled'; open the data with them too:"
        command = "terrazzo.open_dataset(DATA, keep_void=True)"
    else:
        hint = (
            "Scores of one label space mean nothing in another. Rename classes in dataset.json where only the "
            "words differ, or train on this data set, starting from the model:"
        )
        command = "terrazzo train RECIPE --data DATA model.init=MODEL"
    return UsageError(
        "The model and the data set do not have the same classes.",
        found=found + (f", of which the data set lacks {_listed(extra)}" if extra else ""),
        expected=expected + (f", of which the model lacks {_listed(missing)}" if missing else ""),
        hint=hint,
        command=command,
    )


@dataclass
class Tally:
    """What is added up while a split is walked through."""

    classes: Classes
    loss: Loss | None
    own: Mapping[str, Metric]
    """One's own metrics."""
    num_images: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    lowest: list[tuple[float, str]] = field(default_factory=list)
    """A heap of (minus mIoU, name): the images with the lowest scores."""

    def __post_init__(self) -> None:
        self.matrix = ConfusionMatrix(len(self.classes), self.classes.ignore)
        self.totals = np.zeros((len(self.own), 2))  # of each own metric: the sum, and of how many images

    def seen(self, bands: Iterable[Band], mask: NDArray[Any]) -> Iterator[Band]:
        """Pass the bands of an image on, measuring the loss of each on the way."""
        for band in bands:
            if self.loss is not None:
                target = torch.from_numpy(mask[None, band.rows].astype(np.int64))
                logits = torch.as_tensor(band.logits)[None]
                with torch.no_grad():
                    terms = self.loss(Output(logits), target.to(logits.device), weight=1.0)
                self.loss_sum += sum(float(term) for term in terms.values())
                self.loss_weight += float(self.loss.pixel_weight(target))
            yield band

    def add(self, sample: Sample, pred: "NDArray[Any] | Tensor") -> None:
        """Count one image, where its prediction lies."""
        assert sample.mask is not None
        one = ConfusionMatrix(len(self.classes), self.classes.ignore).update(pred, sample.mask)
        self.matrix = self.matrix + one
        self.num_images += 1
        if not np.isnan(one.miou):
            keep = heapq.heappush if len(self.lowest) < WORST else heapq.heappushpop
            keep(self.lowest, (-one.miou, sample.name))
        for row, (name, metric) in zip(self.totals, self.own.items(), strict=True):
            value = _number(metric(as_array(pred), sample.mask), name)
            if not np.isnan(value):
                row += (value, 1)

    def reduce(self, sum_over_processes: Callable[[Tensor], Tensor] | None) -> None:
        """Replace what this process counted by what all of them did."""
        if sum_over_processes is None:
            return
        counts = sum_over_processes(torch.from_numpy(self.matrix.counts))
        self.matrix = ConfusionMatrix(len(self.classes), self.classes.ignore, counts=counts.cpu().numpy())
        mine = [self.num_images, self.loss_sum, self.loss_weight, *self.totals.ravel()]
        summed = sum_over_processes(torch.tensor(mine, dtype=torch.float64)).tolist()
        images, self.loss_sum, self.loss_weight, *totals = summed
        self.num_images = round(images)
        self.totals = np.array(totals).reshape(self.totals.shape)

    def metrics(self) -> dict[str, float]:
        """Return the mean of each own metric over the images where it was a number; nan where it never was."""
        pairs = zip(self.own, self.totals.tolist(), strict=True)
        return {name: total / count if count else np.nan for name, (total, count) in pairs}

    def worst(self) -> tuple[tuple[str, float], ...]:
        """Return (name, mIoU of that image alone), the lowest first."""
        return tuple((name, -score) for score, name in sorted(self.lowest, reverse=True))


class Gallery:
    """The folder of --show-dir: NAME.png of every image and report.json; never anybody else's folder."""

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        if (
            folder.exists()
            and (not folder.is_dir() or any(folder.iterdir()))
            and not (folder / REPORT).is_file()
        ):
            raise ExistingOutputError(
                f"{folder} is not empty, and no evaluation wrote it.",
                found=f"no {REPORT} in it",
                hint="Nothing was overwritten. Choose another folder with --show-dir.",
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / REPORT, {"unfinished": dict(about)})
        self.folder = folder

    def add(self, name: str, picture: "Image") -> None:
        """Write one picture under the name of its image, sub-folders kept."""
        path = self.folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.asarray(picture))


def _open(
    data: "str | os.PathLike[str] | Dataset",
    model: "str | os.PathLike[str] | Predictor",
    predictor: Predictor,
    stream: bool | None,
) -> Dataset:
    """Open a data set as the model's training did: void classes kept or not, and its own split where it made one."""
    manifest = None if isinstance(model, Predictor) else _stored_split(Path(model))
    source = data if isinstance(data, Dataset) else os.fspath(data)
    return open_dataset(
        source,
        keep_void=predictor.data.keep_void,
        stream=predictor.data.stream if stream is None else stream,
        split_manifest=manifest,
    )


def _stored_split(model: Path) -> Mapping[str, Any] | None:
    """Return the split that a run made, for the run's folder or one of its checkpoints; else None."""
    for folder in (model, model.parent.parent):
        if (folder / "recipe.json").is_file() and (folder / "data.json").is_file():
            manifest: Mapping[str, Any] | None = Run.open(folder).data.get("split_manifest")
            return manifest
    return None


def _check_fit(predictor: Predictor, split: Split) -> None:
    if not split.has_masks:
        raise DatasetFormatError(
            f"The split {split.name!r} has no masks to compare with.",
            found=f"{len(split)} images without masks",
            expected="a split with masks, such as val",
            hint="Its images can be predicted:",
            command="terrazzo predict MODEL SOURCE --out DIR",
        )
    if predictor.channels not in (None, split.channels):
        raise UsageError(
            "The model and the data set do not have the same channels.",
            found=f"images of {split.channels} channels",
            expected=f"{predictor.channels}, as the network was built for",
        )


def _spread(count: int, limit: int | None) -> list[int]:
    """Return the positions to look at: all, or `limit` spread evenly from the first to the last."""
    if limit is None:
        return list(range(count))
    return [round(place) for place in np.linspace(0, count - 1, min(limit, count)).tolist()]


def _share(places: list[int], rank: int, world: int) -> list[int]:
    """Return the rank-th of `world` contiguous parts: neighbours lie together where a stream is read."""
    return places[len(places) * rank // world : len(places) * (rank + 1) // world]


def _in_order(bands: Iterable[Band], order: NDArray[np.intp] | None) -> Iterable[Band]:
    if order is None:
        return bands
    return (
        Band(band.rows, band.logits[order if isinstance(band.logits, np.ndarray) else order.tolist()])
        for band in bands
    )


def _beside(pred: "NDArray[Any] | Tensor") -> AbstractContextManager[None]:
    """Work inside on the GPU where `pred` lies: a thread begins on the first one, whichever its process uses."""
    return torch.cuda.device_of(pred) if isinstance(pred, Tensor) and pred.is_cuda else nullcontext()


def _settings(predictor: Predictor, limit: int | None) -> dict[str, Any]:
    look, data = predictor.eval, predictor.data
    settings: dict[str, Any] = {"inference": look.inference, "flip": look.flip, "resize": data.resize}
    if look.inference == "windows":
        settings |= {
            "window_hw": list(look.window_hw),
            "stride_hw": list(look.stride_hw),
            "blend": look.blend,
        }
    if look.scales != (1.0,):
        settings["scales"] = list(look.scales)
    if data.resize != "original":
        settings["resize_hw"] = list(data.resize_hw)
        settings |= {
            name: value
            for name in ("interpolation", "rounding")
            if (value := getattr(data, name)) != getattr(DataConfig, name)
        }
    return settings | ({"limit": limit} if limit is not None else {})


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"The metric {name!r} did not return a number.",
            found=type(value).__name__,
            expected="float, or nan",
        ) from error


def _listed(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" … ({len(names)} in all)" if len(names) > 10 else "")
