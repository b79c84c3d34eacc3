"""Checkpoints of MMSegmentation 0.x and 1.x: everything one needs to go on with them, read without running anything.

A file is {meta, state_dict, optimizer, …} in either container of torch's (`torch_file.py`). What its classes are called
lies in meta (CLASSES and PALETTE, or dataset_meta), how images are to be seen in the config's text, in meta too or
passed by the user. `openmmlab_specs.py` tells the network, `openmmlab_names.py` the names. What is decided without a
config is said, one line each; classes that nobody names get no names here either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrazzo.classes import Classes
from terrazzo.errors import MissingPathError, WeightsError
from terrazzo.nn import IMAGENET_MEAN, IMAGENET_STD, segformer_files
from terrazzo.nn.config_text import read_config_text
from terrazzo.nn.files import named_tensors
from terrazzo.nn.openmmlab_names import is_segmenters, is_theirs, our_names, plain_names
from terrazzo.nn.openmmlab_specs import STEMS, Config, Spec, count_classes, spec_of
from terrazzo.nn.pickled import Inert, mapping
from terrazzo.nn.torch_file import read_torch_file

CLASSIFIERS = ("head.classifier", "auxiliary.classifier")
TURNED = "its network takes blue first: the first convolution and the mean were turned round, to red first"
BINARY_THRESHOLD = 0.3  # of one sigmoid row, where their config says nothing


@dataclass(frozen=True)
class Checkpoint:
    """What a file of theirs says, in our words."""

    spec: Spec
    """Of the network, for `segmenter.assemble`."""
    tensors: dict[str, Tensor]
    """The network's, under our names."""
    classes: Classes
    mean: tuple[float, ...]
    """Per channel, of images in [0, 1], RGB."""
    std: tuple[float, ...]
    preprocessing: dict[str, Any]
    """"resize", "resize_hw", and where it looks in windows "inference", "window_hw" and "stride_hw"."""
    remap: dict[str, int | None] | None
    """raw id -> class id, where the data set's raw ids begin with a class that is ignored."""
    said: tuple[str, ...]
    """What a user should hear, one line each."""


def read_checkpoint(path: str | PathLike[str], *, config: str | PathLike[str] | None = None) -> Checkpoint:
    """Read a checkpoint of MMSegmentation's.

    config: the .py file it was trained with, for files that do not hold its text, or to be read in its place.
    Raises WeightsError for what is no such checkpoint or needs what we do not have, UsageError for a config that
    builds on others, and the errors of `read_torch_file`.
    """
    path = Path(path)
    value = read_torch_file(path)
    meta = mapping(mapping(value).get("meta"))
    read = _config(path, meta, config)
    theirs, said = plain_names(named_tensors(value, path))
    if "ema_state_dict" in mapping(value):
        said.append(
            "it also holds the weights beside the average that was kept (ema_state_dict): these are left out"
        )
    spec, told = spec_of(theirs, read, name=path.name)
    said += told
    mean, std, is_bgr = _normalisation(read, _image_channels(theirs), said)
    if is_bgr:
        said.append(TURNED)
        theirs = _turned(theirs)
    if spec["auxiliary"] is None:
        theirs = {name: tensor for name, tensor in theirs.items() if not name.startswith("auxiliary_head.")}
    tensors = our_names(theirs)
    num_classes = count_classes(theirs)
    if num_classes == 1 and _is_binary(meta, read):
        num_classes = 2
        tensors = _two_rows(
            tensors, read.number("model", "decode_head", "threshold", default=BINARY_THRESHOLD)
        )
        said.append("its one sigmoid became two classes, the first being none; the threshold is in the bias")
    classes = classes_of(meta, num_classes, where=str(path))
    if not segformer_files.has_real_names(classes):
        said.append(f"its classes are unnamed: they are LABEL_0 to LABEL_{num_classes - 1} here")
    look = _resize(read, said) | _windows(read, path.name, said)
    return Checkpoint(spec, tensors, classes, mean, std, look, _remap(meta, read, num_classes), tuple(said))


def read_start(path: str | PathLike[str]) -> tuple[dict[str, Tensor], Classes | None, tuple[str, ...]]:
    """Return what a training can start from in a file of torch.save: tensors, the classes it names, what to say.

    A network of theirs, whole or its backbone alone, comes under our names; anything else as it lies there.
    """
    path = Path(path)
    value = read_torch_file(path)
    meta = mapping(mapping(value).get("meta"))
    tensors, said = plain_names(named_tensors(value, path))
    if not is_theirs(tensors):
        return our_names(tensors) if is_segmenters(tensors) else tensors, None, tuple(said)
    config = _config(path, meta, None)
    told = _normalisation_told(config, channels := _image_channels(tensors))
    if told is not None and channels == 3 and not told[2]:
        said.append(TURNED)
        tensors = _turned(tensors)
    rows = tensors.get("decode_head.conv_seg.weight")
    named = classes_of(meta, rows.shape[0], where=str(path)) if rows is not None and rows.ndim == 4 else None
    return our_names(tensors), named, tuple(said)


def classes_of(meta: Mapping[Any, Any], num_classes: int, *, where: str) -> Classes:
    """Return the classes that either meta names, with their colours; LABEL_0 … where it names none, or not so many."""
    new = mapping(meta.get("dataset_meta"))
    names = _strings(new.get("classes")) or _strings(meta.get("CLASSES"))
    palette = new.get("palette") or meta.get("PALETTE")
    is_named = names is not None and len(names) == num_classes and all(name.strip() for name in names)
    table = dict(enumerate(names)) if is_named and names is not None else {}
    classes = segformer_files.classes_of({"id2label": table}, num_classes, where=where)
    colors = _colors(palette, num_classes) if is_named else None
    return Classes(classes.names, colors) if colors is not None else classes


def _turned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor.flip(1) if name in STEMS and tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }


# classes ------------------------------------------------------------------------------------------------


def _strings(value: Any) -> list[str] | None:
    items = value.items if isinstance(value, Inert) else value
    if isinstance(items, list | tuple) and items and all(isinstance(item, str) for item in items):
        return list(items)
    return None


def _colors(palette: Any, count: int) -> tuple[tuple[int, int, int], ...] | None:
    rows = palette.tolist() if hasattr(palette, "tolist") else palette
    if not isinstance(rows, list | tuple) or len(rows) != count:
        return None
    colors = []
    for row in rows:
        row = row.tolist() if hasattr(row, "tolist") else row
        if not isinstance(row, list | tuple) or len(row) != 3:
            return None
        if not all(isinstance(part, int) and 0 <= part <= 255 for part in row):
            return None
        colors.append((int(row[0]), int(row[1]), int(row[2])))
    return tuple(colors)


def _is_binary(meta: Mapping[Any, Any], config: Config) -> bool:
    names = _strings(mapping(meta.get("dataset_meta")).get("classes")) or _strings(meta.get("CLASSES"))
    count = config.get("model", "decode_head", "num_classes", default=len(names or ()))
    return bool(count == 2)


def _two_rows(tensors: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """Make one sigmoid row two softmax rows, of 0 and of x - logit(threshold): the second wins where x is above it."""
    low = torch.logit(torch.tensor(min(max(threshold, 1e-6), 1 - 1e-6)))
    made = dict(tensors)
    for name in CLASSIFIERS:
        if f"{name}.weight" in tensors and f"{name}.bias" in tensors:
            weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
            made[f"{name}.weight"] = torch.cat([torch.zeros_like(weight), weight])
            made[f"{name}.bias"] = torch.cat([torch.zeros_like(bias), bias - low])
    return made


def _remap(meta: Mapping[Any, Any], config: Config, num_classes: int) -> dict[str, int | None] | None:
    """The table of a data set whose masks count from 1, 0 being ignored (ADE20K)."""
    told = mapping(meta.get("dataset_meta")).get("reduce_zero_label")
    if told is None:
        told = config.get("test_dataloader", "dataset", "reduce_zero_label")
    if not told:
        return None
    return {"0": None, **{str(class_id + 1): class_id for class_id in range(num_classes)}}


# how images are seen ------------------------------------------------------------------------------------


def _config(path: Path, meta: Mapping[Any, Any], given: str | PathLike[str] | None) -> Config:
    if given is not None:
        file = Path(given)
        if not file.is_file():
            raise MissingPathError(
                f"There is no config {file}.", expected="the .py file the checkpoint was trained with"
            )
        text = file.read_text(encoding="utf-8", errors="replace")
        return Config(read_config_text(text, where=str(file)), str(file))
    held = meta.get("cfg", meta.get("config"))
    if isinstance(held, str):
        return Config(read_config_text(held, where=f"the config in {path}"), str(path))
    values = mapping(held)  # some tools keep the config itself
    return Config(mapping(values.get("_cfg_dict")) or values, str(path))


def _image_channels(tensors: Mapping[str, Tensor]) -> int:
    return next(
        (int(tensors[name].shape[1]) for name in STEMS if name in tensors and tensors[name].ndim == 4), 3
    )


def _normalisation(
    config: Config, channels: int, said: list[str]
) -> tuple[tuple[float, ...], tuple[float, ...], bool]:
    """Return mean and std for RGB in [0, 1], and whether the network takes BGR."""
    found = _normalisation_told(config, channels)
    if found is None:
        if channels != 3:
            raise WeightsError(
                f"{config.where} takes images of {channels} channels, and nothing says how they are normalised.",
                hint="Pass the config it was trained with: config=…",
            )
        said.append("images are normalised by ImageNet's mean and deviation, for no config says how")
        return IMAGENET_MEAN, IMAGENET_STD, False
    mean, std, is_rgb = found
    if not len(mean) == len(std) == channels:
        raise WeightsError(
            f"The normalisation in the config of {config.where} does not fit its network.",
            found=f"{len(mean)} means and {len(std)} deviations",
            expected=f"{channels} of each, one per channel",
        )
    is_bgr = channels == 3 and not is_rgb
    if is_bgr:
        mean, std = mean[::-1], std[::-1]
    return tuple(value / 255 for value in mean), tuple(value / 255 for value in std), is_bgr


def _normalisation_told(config: Config, channels: int) -> tuple[list[float], list[float], bool] | None:
    """mean, std and whether they are of RGB, on the scale 0-255: 1.x's preprocessor, or 0.x's step of the pipeline."""
    for path in (("model", "data_preprocessor"), ("data_preprocessor",)):
        if config.get(*path) is not None:
            if config.get(*path, "mean") is None:
                turns = bool(config.get(*path, "bgr_to_rgb", default=False))
                return [0.0] * channels, [1.0] * channels, turns
            turns = config.get(*path, "bgr_to_rgb", default=False) or config.get(
                *path, "rgb_to_bgr", default=False
            )
            return *_mean_and_std(config, *path), bool(turns)
    steps = [step for step in _flat(_test_pipeline(config)) if step.get("type") == "Normalize"]
    if steps:
        step = Config(steps[0], config.where)
        return *_mean_and_std(step), bool(step.get("to_rgb", default=True))
    if config.get("img_norm_cfg") is not None:
        return *_mean_and_std(config, "img_norm_cfg"), bool(
            config.get("img_norm_cfg", "to_rgb", default=True)
        )
    return None


def _mean_and_std(config: Config, *path: str) -> tuple[list[float], list[float]]:
    mean = config.numbers(*path, "mean", default=(), kinds=(int, float))
    std = config.numbers(*path, "std", default=(), kinds=(int, float))
    if not all(value > 0 for value in std):
        raise config.wrong(*path, "std", found=std, expected="numbers above 0")
    return [float(value) for value in mean], [float(value) for value in std]


def _test_pipeline(config: Config) -> list[Any]:
    for path in (
        ("test_pipeline",),
        ("test_dataloader", "dataset", "pipeline"),
        ("val_dataloader", "dataset", "pipeline"),
        ("data", "test", "pipeline"),
        ("data", "val", "pipeline"),
    ):
        found = config.get(*path)
        if isinstance(found, list | tuple):
            return list(found)
    return []


def _flat(pipeline: Sequence[Any]) -> list[Mapping[str, Any]]:
    """The steps of a pipeline, those inside a test-time augmentation of 0.x too."""
    steps: list[Mapping[str, Any]] = []
    for step in pipeline:
        if isinstance(step, Mapping):
            steps.append(step)
            inner = step.get("transforms")
            if step.get("type") == "MultiScaleFlipAug" and isinstance(inner, list | tuple):
                steps += [one for one in inner if isinstance(one, Mapping)]
    return steps


def _resize(config: Config, said: list[str]) -> dict[str, Any]:
    """How an image is resized before the network sees it: their (width, height) becomes our (height, width)."""
    steps = _flat(_test_pipeline(config))
    resizes = [step for step in steps if step.get("type") == "Resize"]
    if not resizes:
        return {"resize": "original"}
    around = next((step for step in steps if step.get("type") == "MultiScaleFlipAug"), {})
    scale = resizes[0].get("scale") or resizes[0].get("img_scale") or around.get("img_scale")
    if (
        not isinstance(scale, list | tuple)
        or len(scale) != 2
        or not all(isinstance(s, int) and s > 0 for s in scale)
    ):
        said.append("how its test images were resized is not understood: they are seen at their own size")
        return {"resize": "original"}
    keeps_ratio = bool(resizes[0].get("keep_ratio", bool(around)))
    return {"resize": "sides" if keeps_ratio else "exact", "resize_hw": (scale[1], scale[0])}


def _windows(config: Config, name: str, said: list[str]) -> dict[str, Any]:
    mode = config.get("model", "test_cfg", "mode", default=config.get("test_cfg", "mode"))
    if mode == "slide":
        at = ("model", "test_cfg") if config.get("model", "test_cfg", "mode") else ("test_cfg",)
        window = config.numbers(*at, "crop_size", default=())
        stride = config.numbers(*at, "stride", default=())
        if not len(window) == len(stride) == 2 or not all(
            0 < s <= w for s, w in zip(stride, window, strict=True)
        ):
            raise config.wrong(
                *at, "crop_size and stride", found=[*window, *stride], expected="two sizes above 0"
            )
        return {"inference": "windows", "window_hw": tuple(window), "stride_hw": tuple(stride)}
    if mode is None and "769x769" in name:
        said.append(
            "windows of 769x769 every 513 pixels, as every published 769x769 model, for the file holds no config"
        )
        return {"inference": "windows", "window_hw": (769, 769), "stride_hw": (513, 513)}
    return {}
