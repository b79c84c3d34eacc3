"""What the JSON files beside a network of transformers say: config.json, and preprocessor_config.json.

A config comes without what could bring code or other files along (`FORBIDDEN`), and only segmentation classes of the
installed transformers are taken. transformers is imported inside the functions that need it.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from terrazzo.errors import MissingExtraError, WeightsError, nearest
from terrazzo.nn import segformer_files
from terrazzo.nn.files import CONFIG, PROCESSOR, SAFE
from terrazzo.nn.huggingface import BY_QUERIES, OF_ONE_SIZE, HuggingFaceNetwork
from terrazzo.storage import read_json

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


# config.json -------------------------------------------------------------------------------------------


def config_of(folder: Path) -> dict[str, Any]:
    """Return what config.json says; WeightsError where there is none, or none of transformers."""
    if not (folder / CONFIG).is_file():
        raise WeightsError(
            f"{folder} is no model of transformers.", found=f"no {CONFIG}", expected=f"{CONFIG} and {SAFE}"
        )
    values = read_json(folder / CONFIG)
    if "model_type" not in values:
        raise WeightsError(f"{folder / CONFIG} is no config of transformers.", found="no model_type")
    return values


def built_config(
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
    with translated(where):
        config: PreTrainedConfig = kinds[kind].from_dict(clean)
        if num_classes is not None:
            config.num_labels = num_classes
        if channels is not None and channels != channels_of(config):
            _set_channels(config, channels, where=where)
    return config


def _cleaned(values: dict[str, Any]) -> dict[str, Any]:
    """The config without FORBIDDEN, at every depth."""
    return {
        key: _cleaned(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in FORBIDDEN
    }


def channels_of(config: Any) -> int:
    """Return the channels of the images a config is for; 3 where it does not say."""
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
            f"{where} is for {channels_of(config)} channels, and its config has no word to change that.",
            found=f"images of {channels} channels",
        )
    for holder in holders:
        holder.num_channels = channels


def _segmentation_kinds() -> list[str]:
    """The values of model_type that are built here, without SegFormer's."""
    _transformers()
    from transformers.models.auto import modeling_auto

    return sorted({*modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES, *BY_QUERIES} - {"segformer"})


def model_class(config: "PreTrainedConfig", where: str) -> "type[PreTrainedModel]":
    """Return the segmentation class of transformers that a config belongs to; WeightsError where there is none."""
    from transformers.models.auto import modeling_auto

    for mapping in (
        modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
        modeling_auto.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
    ):
        if type(config) in mapping:
            found: type[PreTrainedModel] = mapping[type(config)]
            return found
    raise WeightsError(f"transformers has no segmentation network for {where}.", found=config.model_type)


# preprocessor_config.json ------------------------------------------------------------------------------


def processor_of(folder: Path) -> dict[str, Any]:
    """Return preprocessor_config.json with what its kind of processor adds by default; {} where there is none."""
    if not (folder / PROCESSOR).is_file():
        return {}
    written = read_json(folder / PROCESSOR)
    transformers = _transformers()
    try:
        with quietly(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception:  # a kind unknown here, or one that needs a package; what is written must do
        return dict(written)
    known = {key: value for key, value in vars(processor).items() if not key.startswith("_")}
    plain = {key: _plain(value) for key, value in known.items()}
    return {**{key: value for key, value in plain.items() if value is not None}, **written}


def normalisation_of(
    processor: Mapping[str, Any], channels: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """The processor's mean and deviation, where it has them for so many channels; else those given."""
    if not processor:
        return mean, std
    theirs = segformer_files.preprocessing_of(processor, channels)
    return theirs[:2] if len(theirs[0]) == len(theirs[1]) == channels else (mean, std)


def preprocessing_of(processor: Mapping[str, Any], network: HuggingFaceNetwork) -> dict[str, Any]:
    """How images reach the network: "resize", "resize_hw", where it is not the default "interpolation" and "rounding",
    and windows where it sees one size alone."""
    _, _, preprocessing = segformer_files.preprocessing_of(processor, network.channels)
    if network.kind in OF_ONE_SIZE:
        size = network.model.config.image_size
        side = int(size if isinstance(size, int) else max(size))
        is_split = bool(processor.get("do_split_image", False))
        preprocessing = {"resize": "short" if is_split else "fit", "resize_hw": (side, side)}
        preprocessing |= segformer_files.how_resized(processor)
        if is_split:
            preprocessing |= {"inference": "windows", "window_hw": (side, side), "stride_hw": (side, side)}
    return preprocessing


def neutral(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of images that nobody says more about: ImageNet's for three channels, else 0, 1."""
    mean, std, _ = segformer_files.preprocessing_of({}, channels)
    return mean, std


def _plain(value: Any) -> Any:
    """A processor's field as JSON has it: its sizes are objects with more keys than they use."""
    if hasattr(value, "items") or hasattr(value, "height"):
        items = dict(value).items() if isinstance(value, Mapping) else vars(value).items()
        return {key: one for key, one in items if one is not None}
    return list(value) if isinstance(value, tuple) else value


def task_of(folder: Path, config: Any, ours: Mapping[str, Any]) -> list[int] | None:
    """The tokens of OneFormer's task, by the tokeniser that lies beside it; None for the others."""
    if config.model_type != "oneformer":
        return None
    stored = ours.get("network", {}).get("task")
    if stored is not None:
        return [int(token) for token in stored]
    transformers = _transformers()
    length = int(config.task_seq_len)
    try:
        with quietly():
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
def quietly() -> Iterator[None]:
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
def translated(where: str) -> Iterator[None]:
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
