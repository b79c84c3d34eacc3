"""Segmentation models of transformers, read, started from and saved; the network itself is `huggingface.py`.

Only classes of the installed transformers are built, from a cleaned config (`huggingface_config.py`), and only
safetensors are read: by our own reader, which transformers then gives its names. What is saved opens in transformers
and here. transformers is imported inside the functions that need it.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from terrazzo.classes import Classes
from terrazzo.errors import UnsafeFileError, UsageError, WeightsError, quoted
from terrazzo.nn import segformer_files
from terrazzo.nn.files import (
    CONFIG,
    OURS,
    PICKLE,
    PICKLE_INDEX,
    PROCESSOR,
    SAFE,
    SAFE_INDEX,
    listed,
    model_folder,
    read_tensors,
)
from terrazzo.nn.huggingface import BY_QUERIES, HuggingFaceNetwork
from terrazzo.nn.huggingface_config import (
    built_config,
    channels_of,
    config_of,
    model_class,
    neutral,
    normalisation_of,
    preprocessing_of,
    processor_of,
    quietly,
    task_of,
    translated,
)
from terrazzo.storage import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def build(
    source: str | PathLike[str],
    *,
    num_classes: int,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> HuggingFaceNetwork:
    """Build the network that lies in `source`, a folder or Hub id, for training, with random weights.

    mean, std: where the source does not say how it normalises images. Raises UsageError for one that is not trained
    here, WeightsError for one that is no segmentation network.
    """
    folder = model_folder(source)
    values = config_of(folder)
    kind = str(values["model_type"])
    if kind in BY_QUERIES:
        raise UsageError(
            f"{source} predicts masks by queries, and is not trained here.",
            found=f"model_type {kind!r}",
            expected="a network that gives logits, such as SegFormer, UPerNet, BEiT, DPT or MobileViT",
            hint="It predicts and is evaluated as it is:",
            command=f"terrazzo evaluate {quoted(source)} --data DATA",
        )
    processor = processor_of(folder)
    config = built_config(values, where=str(source), num_classes=num_classes, channels=channels)
    mean, std = normalisation_of(processor, channels, mean, std)
    model = model_class(config, str(source))(config)
    return HuggingFaceNetwork(model, channels=channels, mean=mean, std=std, processor=processor)


def read(
    source: str | PathLike[str],
) -> tuple[HuggingFaceNetwork, Classes, dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return the network in `source` with its weights, its classes, preprocessing and terrazzo.json, and what to say.

    Raises UnsafeFileError where the weights are a pickle alone, WeightsError where some are missing.
    """
    folder = model_folder(source)
    where, values, processor = str(source), config_of(folder), processor_of(folder)
    config = built_config(values, where=where)
    model, missing = _loaded(config, _tensors(folder), where=where)
    if missing:
        raise WeightsError(
            f"The weights in {where} do not make a whole {type(model).__name__}.",
            found=f"{len(missing)} tensors missing: {listed(missing)}",
            hint="To train what is missing on a data set of yours:",
            command=f"terrazzo train RECIPE --data DATA model.name=huggingface model.pretrained={where}",
        )
    ours = read_json(folder / OURS) if (folder / OURS).is_file() else {}
    channels = channels_of(config)
    mean, std = normalisation_of(processor, channels, *neutral(channels))
    network = HuggingFaceNetwork(
        model, channels=channels, mean=mean, std=std, processor=processor, task=task_of(folder, config, ours)
    )
    classes = segformer_files.classes_of(values, network.num_classes, where=where)
    if "classes" in ours:  # which also knows colours
        classes = Classes.from_json(ours["classes"])
    preprocessing = segformer_files.saved_over(
        preprocessing_of(processor, network), ours.get("preprocessing")
    )
    said = []
    if not processor:
        said.append(f"{where} has no {PROCESSOR}: ImageNet's mean and deviation, images at their own size")
    if not segformer_files.has_real_names(classes):
        said.append(f"{where} does not name its classes: they are LABEL_0 to LABEL_{len(classes) - 1}")
    return network.eval(), classes, preprocessing, ours, tuple(said)


def save(
    folder: Path,
    network: HuggingFaceNetwork,
    *,
    classes: Classes,
    preprocessing: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> dict[str, Any]:
    """Write config.json, the weights and preprocessor_config.json, from which transformers opens the network.

    tensors: instead of the network's own, under its names. Returns what terrazzo.json should say besides.
    """
    config = network.model.config
    config.id2label = dict(enumerate(classes.names))
    config.label2id = {name: class_id for class_id, name in enumerate(classes.names)}
    theirs_own = (
        tensors if tensors is None else {name.removeprefix("model."): one for name, one in tensors.items()}
    )
    with quietly():
        network.model.save_pretrained(folder, state_dict=theirs_own)
    mean = segformer_files.plain_numbers(network.mean.flatten().tolist())
    std = segformer_files.plain_numbers(network.std.flatten().tolist())
    ours = segformer_files.processor_config(mean, std, preprocessing)
    theirs = network.processor
    if theirs:  # their kind of processor, told to do what we did
        kind = str(theirs.get("image_processor_type", ours["image_processor_type"]))
        rounding = str(preprocessing.get("rounding", "pillow"))
        ours |= {"image_processor_type": segformer_files.processor_type(kind, rounding)}
        ours = {**theirs, **ours, "do_center_crop": False}
    write_json(folder / PROCESSOR, ours)
    task = {} if network.task is None else {"task": network.task.flatten().tolist()}
    return {"channels": network.channels, "mean": mean, "std": std, **task}


def state_of(folder: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict of the network that `save` wrote into `folder`; WeightsError where it is not whole."""
    folder = Path(folder)
    model, missing = _loaded(
        built_config(config_of(folder), where=str(folder)), _tensors(folder), where=str(folder)
    )
    if missing:
        raise WeightsError(
            f"{folder} is not whole.", found=f"{len(missing)} tensors missing: {listed(missing)}"
        )
    return {f"model.{name}": tensor for name, tensor in model.state_dict().items()}


def start(network: HuggingFaceNetwork, source: str | PathLike[str], *, classes: Classes) -> str:
    """Start `network` from the weights in `source`; returns the line that says how.

    What depends on the classes is found by building the network for one class more: those tensors are taken row by row
    for classes of the same name, the others keep their random values. A first convolution for other channels is
    spread. The head may be missing whole. Raises WeightsError with all that does not fit.
    """
    from terrazzo.nn.starting import inflate, matching_rows, rows_report

    folder = model_folder(source)
    where, values = str(source), config_of(folder)
    theirs, missing = _loaded(built_config(values, where=where), _tensors(folder), where=where)
    wanted, given = network.model.state_dict(), theirs.state_dict()
    problems = [f"{name}: missing" for name in missing if name in wanted and network.is_backbones(name)]
    by_class = _class_axes(network.model)
    is_whole = not any(name in missing for name in by_class)
    known = (
        segformer_files.classes_of(values, int(theirs.config.num_labels), where=where) if is_whole else None
    )
    rows = matching_rows(known, classes)
    report = ["backbone and head" if is_whole else "backbone"]
    merged: dict[str, Tensor] = {}
    for name, fresh in wanted.items():
        trained = given.get(name)
        if trained is None or name in missing:
            continue
        if name in by_class:
            merged[name] = _with_rows(fresh, trained, by_class[name], rows)
        elif trained.shape == fresh.shape:
            merged[name] = trained
        elif fresh.ndim == 4 and fresh.shape[1] == network.channels and fresh.shape[2:] == trained.shape[2:]:
            report.append(f"first convolution spread from {trained.shape[1]} to {network.channels} channels")
            merged[name] = inflate(trained, network.channels)
        else:
            problems.append(f"{name}: found {tuple(trained.shape)}, expected {tuple(fresh.shape)}")
    if problems:
        raise WeightsError(
            f"The weights in {where} do not fit the network {type(network.model).__name__}: {len(problems)} tensors.",
            found="\n" + "\n".join(f"  {line}" for line in problems[:12]),
        )
    network.model.load_state_dict({**wanted, **merged})
    report.append(rows_report(rows, known, classes) if is_whole else "the head starts from random weights")
    return f"{where}: loaded the {'; '.join(report)}"


# weights -----------------------------------------------------------------------------------------------


def _tensors(folder: Path) -> dict[str, Tensor]:
    if not any((folder / name).is_file() for name in (SAFE, SAFE_INDEX)):
        pickles = [name for name in (PICKLE, PICKLE_INDEX) if (folder / name).is_file()]
        if pickles:
            raise UnsafeFileError(
                f"{folder} has its weights as a pickle alone, and opening one could run code.",
                found=pickles[0],
                expected=f"{SAFE} or {SAFE_INDEX}",
                hint="Nothing was opened. On the Hub, its discussions may offer safetensors as revision refs/pr/N.",
            )
    return read_tensors(folder)


def _loaded(
    config: "PreTrainedConfig", tensors: dict[str, Tensor], *, where: str
) -> tuple["PreTrainedModel", list[str]]:
    """Return the model with `tensors` in it, in float32, and the names of those that were not among them."""
    kind = model_class(config, where)
    with translated(where), quietly():
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
        )
    if info["mismatched_keys"]:
        lines = [
            f"{name}: found {tuple(found)}, expected {tuple(due)}"
            for name, found, due in info["mismatched_keys"]
        ]
        raise WeightsError(
            f"{CONFIG} and the weights of {where} do not fit each other: {len(lines)} tensors.",
            found="\n" + "\n".join(f"  {line}" for line in sorted(lines)[:12]),
        )
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("num_batches_tracked"))
    return model, missing


def _class_axes(model: "PreTrainedModel") -> dict[str, int]:
    """Return {name: axis} of the tensors whose shape follows the number of classes."""
    import copy

    shapes = []
    for more in (0, 1):
        config = copy.deepcopy(model.config)
        config.num_labels = model.config.num_labels + more
        with torch.device("meta"), quietly():
            built = type(model)(config)
        shapes.append({name: tensor.shape for name, tensor in built.state_dict().items()})
    here, there = shapes
    return {
        name: next(axis for axis, (a, b) in enumerate(zip(here[name], there[name], strict=True)) if a != b)
        for name in here
        if here[name] != there[name]
    }


def _with_rows(fresh: Tensor, trained: Tensor, axis: int, rows: Mapping[int, int]) -> Tensor:
    merged = fresh.clone().movedim(axis, 0)
    source = trained.movedim(axis, 0)
    for class_id, row in rows.items():
        merged[class_id] = source[row].to(fresh.dtype)
    return merged.movedim(0, axis)
