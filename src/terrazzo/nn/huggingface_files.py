"""Segmentation models of transformers, read, started from and saved; the network itself is `huggingface.py`.

Only classes of the installed transformers are built, from config.json without what could bring code or other files
along (`FORBIDDEN`), and only safetensors are read: by our own reader, which transformers then gives its names. What is
saved opens in transformers and here. transformers is imported inside the functions that need it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from terrazzo.classes import Classes
from terrazzo.errors import MissingExtraError, UnsafeFileError, UsageError, WeightsError, nearest
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
from terrazzo.nn.huggingface import BY_QUERIES, OF_ONE_SIZE, HuggingFaceNetwork
from terrazzo.storage import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FORBIDDEN = (  # keys of config.json that name code, kernels, or files of elsewhere
    "auto_map",
    "custom_pipelines",
    "quantization_config",
    "fusion_config",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "transformers_weights",
    "_name_or_path",
)
TASK = "the task is semantic"  # what OneFormer is told


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
    values = _config_of(folder)
    kind = str(values["model_type"])
    if kind in BY_QUERIES:
        raise UsageError(
            f"{source} predicts masks by queries, and is not trained here.",
            found=f"model_type {kind!r}",
            expected="a network that gives logits, such as SegFormer, UPerNet, BEiT, DPT or MobileViT",
            hint="It predicts and is evaluated as it is:",
            command=f"terrazzo evaluate {source} --data DATA",
        )
    processor = _processor(folder)
    config = _config(values, where=str(source), num_classes=num_classes, channels=channels)
    mean, std = _normalisation(processor, channels, mean, std)
    model = _model_class(config, str(source))(config)
    return HuggingFaceNetwork(model, channels=channels, mean=mean, std=std, processor=processor)


def read(
    source: str | PathLike[str],
) -> tuple[HuggingFaceNetwork, Classes, dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Return the network in `source` with its weights, its classes, preprocessing and terrazzo.json, and what to say.

    Raises UnsafeFileError where the weights are a pickle alone, WeightsError where some are missing.
    """
    folder = model_folder(source)
    where, values, processor = str(source), _config_of(folder), _processor(folder)
    config = _config(values, where=where)
    model, missing = _loaded(config, _tensors(folder), where=where)
    if missing:
        raise WeightsError(
            f"The weights in {where} do not make a whole {type(model).__name__}.",
            found=f"{len(missing)} tensors missing: {listed(missing)}",
            hint="To train what is missing on a data set of yours:",
            command=f"terrazzo train RECIPE --data DATA model.name=huggingface model.pretrained={where}",
        )
    ours = read_json(folder / OURS) if (folder / OURS).is_file() else {}
    channels = _channels(config)
    mean, std = _normalisation(processor, channels, *_neutral(channels))
    network = HuggingFaceNetwork(
        model, channels=channels, mean=mean, std=std, processor=processor, task=_task(folder, config, ours)
    )
    classes = segformer_files.classes_of(values, network.num_classes, where=where)
    if "classes" in ours:  # which also knows colours
        classes = Classes.from_json(ours["classes"])
    preprocessing = {**_preprocessing(processor, network), **ours.get("preprocessing", {})}
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
    with _quietly():
        network.model.save_pretrained(folder, state_dict=theirs_own)
    mean = segformer_files.plain_numbers(network.mean.flatten().tolist())
    std = segformer_files.plain_numbers(network.std.flatten().tolist())
    ours = segformer_files.processor_config(mean, std, preprocessing)
    theirs = network.processor
    if theirs:  # their kind of processor, told to do what we did
        ours |= {"image_processor_type": theirs.get("image_processor_type", ours["image_processor_type"])}
        ours = {**theirs, **ours, "do_center_crop": False}
    write_json(folder / PROCESSOR, ours)
    task = {} if network.task is None else {"task": network.task.flatten().tolist()}
    return {"channels": network.channels, "mean": mean, "std": std, **task}


def state_of(folder: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the state dict of the network that `save` wrote into `folder`; WeightsError where it is not whole."""
    folder = Path(folder)
    model, missing = _loaded(
        _config(_config_of(folder), where=str(folder)), _tensors(folder), where=str(folder)
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
    where, values = str(source), _config_of(folder)
    theirs, missing = _loaded(_config(values, where=where), _tensors(folder), where=where)
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


# config.json -------------------------------------------------------------------------------------------


def _config_of(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise WeightsError(
            f"{folder} is no model of transformers.", found=f"no {CONFIG}", expected=f"{CONFIG} and {SAFE}"
        )
    values = read_json(folder / CONFIG)
    if "model_type" not in values:
        raise WeightsError(f"{folder / CONFIG} is no config of transformers.", found="no model_type")
    return values


def _config(
    values: Mapping[str, Any], *, where: str, num_classes: int | None = None, channels: int | None = None
) -> "PreTrainedConfig":
    """Return transformers' config of a config.json's values, for other numbers of classes and channels if given."""
    transformers = _transformers()
    kinds = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    kind = str(values["model_type"])
    known = _segmentation_kinds()
    if kind not in known:
        near = nearest(kind, known)
        raise WeightsError(
            f"{where} holds no segmentation network that terrazzo and transformers {transformers.__version__} build.",
            found=f"model_type {kind!r} in {CONFIG}",
            expected=f"one of segformer, {', '.join(known)}",
            hint=f"Its nearest name is {near[0]!r}."
            if near
            else "Build it yourself: load(..., network=my_network).",
        )
    clean = _cleaned(dict(values))
    with _translated(where):
        config: PreTrainedConfig = kinds[kind].from_dict(clean)
        if num_classes is not None:
            config.num_labels = num_classes
        if channels is not None and channels != _channels(config):
            _set_channels(config, channels, where=where)
    return config


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    """The config without FORBIDDEN, at every depth."""
    return {
        key: _cleaned(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in FORBIDDEN
    }


def _channels(config: Any) -> int:
    for one in (config, getattr(config, "backbone_config", None)):
        found = getattr(one, "num_channels", None)
        if found is not None:
            return int(found)
    return 3


def _set_channels(config: Any, channels: int, *, where: str) -> None:
    parts = (config, getattr(config, "backbone_config", None))
    holders: list[Any] = [part for part in parts if hasattr(part, "num_channels")]
    if not holders:
        raise WeightsError(
            f"{where} is for {_channels(config)} channels, and its config has no word to change that.",
            found=f"images of {channels} channels",
        )
    for holder in holders:
        holder.num_channels = channels


def _segmentation_kinds() -> list[str]:
    """The values of model_type that are built here, without SegFormer's."""
    _transformers()
    from transformers.models.auto import modeling_auto

    return sorted({*modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, *BY_QUERIES} - {"segformer"})


def _model_class(config: "PreTrainedConfig", where: str) -> "type[PreTrainedModel]":
    from transformers.models.auto import modeling_auto

    for mapping in (
        modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
        modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    ):
        if type(config) in mapping:
            found: type[PreTrainedModel] = mapping[type(config)]
            return found
    raise WeightsError(f"transformers has no segmentation network for {where}.", found=config.model_type)


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
    kind = _model_class(config, where)
    with _translated(where), _quietly():
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
        with torch.device("meta"), _quietly():
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


# preprocessor_config.json ------------------------------------------------------------------------------


def _processor(folder: Path) -> dict[str, Any]:
    """Return preprocessor_config.json with what its kind of processor adds by default; {} where there is none."""
    if not (folder / PROCESSOR).is_file():
        return {}
    written = read_json(folder / PROCESSOR)
    transformers = _transformers()
    try:
        with _quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception:  # a kind unknown here, or one that needs a package; what is written must do
        return dict(written)
    known = {key: value for key, value in vars(processor).items() if not key.startswith("_")}
    plain = {key: _plain(value) for key, value in known.items()}
    return {**{key: value for key, value in plain.items() if value is not None}, **written}


def _normalisation(
    processor: Mapping[str, Any], channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """The processor's mean and deviation, where it has them for so many channels; else those given."""
    if not processor:
        return mean, std
    theirs = segformer_files.preprocessing_of(processor, channels)
    return theirs[:2] if len(theirs[0]) == len(theirs[1]) == channels else (mean, std)


def _preprocessing(processor: Mapping[str, Any], network: HuggingFaceNetwork) -> dict[str, Any]:
    """How images reach the network: "resize", "resize_hw", and windows where it sees one size alone."""
    _, _, preprocessing = segformer_files.preprocessing_of(processor, network.channels)
    if network.kind in OF_ONE_SIZE:
        size = network.model.config.image_size
        side = int(size if isinstance(size, int) else max(size))
        is_split = bool(processor.get("do_split_image", False))
        preprocessing = {"resize": "short" if is_split else "fit", "resize_hw": (side, side)}
        if is_split:
            preprocessing |= {"inference": "windows", "window_hw": (side, side), "stride_hw": (side, side)}
    return preprocessing


def _neutral(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std, _ = segformer_files.preprocessing_of({}, channels)
    return mean, std


def _plain(value: Any) -> Any:
    """A processor's field as JSON has it: its sizes are objects with more keys than they use."""
    if hasattr(value, "items") or hasattr(value, "height"):
        items = dict(value).items() if isinstance(value, Mapping) else vars(value).items()
        return {key: one for key, one in items if one is not None}
    return list(value) if isinstance(value, tuple) else value


def _task(folder: Path, config: Any, ours: Mapping[str, Any]) -> list[int] | None:
    """The tokens of OneFormer's task, by the tokeniser that lies beside it; None for the others."""
    if config.model_type != "oneformer":
        return None
    stored = ours.get("network", {}).get("task")
    if stored is not None:
        return [int(token) for token in stored]
    transformers = _transformers()
    length = int(config.task_seq_len)
    try:
        with _quietly():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        told = tokenizer(TASK, padding="max_length", max_length=length, truncation=True)
    except Exception as error:  # transformers raises what its tokenisers raise, and they are many
        raise WeightsError(
            f"{folder} has no tokeniser, and OneFormer is told its task in words.",
            found=next(iter(str(error).splitlines()), type(error).__name__),
            expected="tokenizer.json, or vocab.json and merges.txt",
            hint="They lie beside the published weights.",
        ) from error
    return [token * seen for token, seen in zip(told["input_ids"], told["attention_mask"], strict=True)]


@contextmanager
def _quietly() -> Iterator[None]:
    """transformers without its bars and reports on standard error; what matters is said by us."""
    from transformers.utils import logging as theirs

    level, shows_bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if shows_bars:
            theirs.enable_progress_bar()


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """What transformers raises over a config or weights, in our words."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"transformers needs another package for {where}.", found=next(iter(str(error).split("\n")), "")
        ) from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise WeightsError(
            f"transformers does not make a network of {where}.",
            found=f"{type(error).__name__}: {' '.join(lines[:3])}"[:600],
            expected=f"a {CONFIG} and tensors that fit each other",
        ) from error


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            "Networks of transformers need transformers, which is not installed; a SegFormer does not.",
            command='pip install "terrazzo[transformers]"',
        ) from error
    return transformers
