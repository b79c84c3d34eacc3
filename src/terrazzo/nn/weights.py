"""Models on disk: saved, and read again.

A model is a folder: model.safetensors, terrazzo.json (classes, preprocessing, and what the caller adds), and
for a SegFormer config.json and preprocessor_config.json, so that transformers opens it too. `files.py`
opens files and asks the Hub; `segformer_files.py` knows what those two configs mean.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import UsageError, WeightsError
from terrazzo.nn import openmmlab, segformer_files
from terrazzo.nn.files import CONFIG, OURS, PROCESSOR, SAFE, model_folder, read_tensors
from terrazzo.nn.huggingface import HuggingFaceNetwork
from terrazzo.nn.openmmlab_names import is_segmenters, our_names
from terrazzo.nn.segformer import CLASSIFIER, SIZES, SegFormer
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.two_classes import narrowed, widened
from terrazzo.storage import read_json, write_json

__all__ = [
    "LoadedModel",
    "load_tensors",
    "model_folder",
    "model_tensors",
    "read_model",
    "read_tensors",
    "save_model",
]

FORMAT_VERSION = 1  # of terrazzo.json; a newer one is refused
COUNTER = "num_batches_tracked"  # of batch norm; old files lack it, and nothing here depends on it


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, and what belongs to it."""

    network: nn.Module
    classes: Classes
    preprocessing: dict[str, Any]
    """"resize", "resize_hw" and, where they are not the default, "interpolation" and "rounding" as in the recipe's data
    section, and what else was saved with them."""
    terrazzo: dict[str, Any]
    """terrazzo.json whole; {} for a model that transformers saved."""
    said: tuple[str, ...] = ()
    """What a user should hear about this model, one line each."""


# saving ------------------------------------------------------------------------------------------------


def save_model(
    folder: str | PathLike[str],
    network: nn.Module,
    *,
    classes: Classes,
    preprocessing: Mapping[str, Any],
    terrazzo: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `network` into an existing folder; the caller makes the folder appear whole (`storage.replace_folder`).

    preprocessing: "resize", "resize_hw", "interpolation", "rounding" and "dtype" of the data section and the data set;
    the rest is kept as it is.
    terrazzo: what else terrazzo.json should tell, such as recipe, metrics, data and "licenses" ({"weights": …});
    its "format_version", "network", "classes" and "preprocessing" are written here.
    tensors: what is written instead of the network's own state dict, under the same names; on the CPU, each its own
    memory.
    A SegFormer then opens in transformers. A Segmenter is saved with its spec and is built from it again. Any other
    network is saved with its qualified name, and is read by `read_model(folder, network=...)`.
    """
    folder = Path(folder)
    about = {"class": f"{type(network).__module__}.{type(network).__qualname__}", "num_classes": len(classes)}
    if isinstance(network, SegFormer | Segmenter):
        assert network.num_classes == len(classes), f"{len(classes)} names for {network.num_classes} classes"
        mean = segformer_files.plain_numbers(network.mean.flatten().tolist())
        std = segformer_files.plain_numbers(network.std.flatten().tolist())
        about |= {"channels": network.channels, "mean": mean, "std": std}
    if isinstance(network, HuggingFaceNetwork):
        from terrazzo.nn import huggingface_files

        about |= huggingface_files.save(
            folder, network, classes=classes, preprocessing=preprocessing, tensors=tensors
        )
    else:
        # clones, because safetensors refuses tensors that share their storage
        own = network.state_dict() if tensors is None else {}
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in own.items()}
        save_file(widened(network, tensors or copies), folder / SAFE, metadata={"format": "pt"})
    if isinstance(network, Segmenter):
        about["spec"] = network.spec
    if isinstance(network, SegFormer):
        write_json(folder / CONFIG, segformer_files.model_config(network, classes))
        write_json(folder / PROCESSOR, segformer_files.processor_config(mean, std, preprocessing))
    ours = {
        "format_version": FORMAT_VERSION,
        "network": about,
        "classes": classes.to_json(),
        "preprocessing": {**preprocessing, "dtype": str(preprocessing.get("dtype", "uint8"))},
    }
    write_json(folder / OURS, {**(terrazzo or {}), **ours})


# reading -----------------------------------------------------------------------------------------------


def read_model(
    source: str | PathLike[str],
    *,
    network: nn.Module | None = None,
    config: str | PathLike[str] | None = None,
) -> LoadedModel:
    """Read a model: a folder of ours, a SegFormer that transformers saved, a Hub id "user/name[@revision]", or a
    checkpoint of MMSegmentation's. Other models of transformers are built by it, which has to be installed for them.

    network: one's own module, for a folder that holds one; it gets the folder's weights. config: the .py file of a
    checkpoint that does not hold its text. Raises MissingPathError, UnreadableFileError, UnsafeFileError, and
    WeightsError for another network or tensors that do not fit.
    """
    with described(source):
        return _read_model(source, network, config)


@contextmanager
def described(source: str | PathLike[str]) -> Iterator[None]:
    """Whatever a description trips over that describes no model becomes a WeightsError naming `source`."""
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,  # torch's, of sizes that no tensor has
        TypeError,
        ValueError,
    ) as error:
        raise WeightsError(
            f"{source} does not describe a model that can be built.",
            found=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            expected=f"{OURS}, {CONFIG} and {PROCESSOR} as terrazzo or transformers wrote them",
            hint="It was edited, or is damaged: copy it again from where it came.",
        ) from error


def _read_model(
    source: str | PathLike[str], network: nn.Module | None, config: str | PathLike[str] | None
) -> LoadedModel:
    path = Path(source)
    if network is None and path.is_file() and path.suffix != ".safetensors":
        return _read_checkpoint(path, config)
    if config is not None:
        raise UsageError(
            f"{source} needs no config.",
            found=f"config={config}",
            expected="a config beside a checkpoint file alone",
        )
    if network is None and _is_theirs(source):
        from terrazzo.nn import huggingface_files

        return LoadedModel(*huggingface_files.read(source))
    is_own_file = network is not None and path.is_file()  # whose tensors are called as the network calls them
    found = Found(str(source), read_tensors(path), None, None, {}) if is_own_file else read_source(source)
    said: tuple[str, ...] = ()
    if network is None:
        network, said = _build(found)
    else:
        load_tensors(network, found.tensors, where=found.where)
    _, _, preprocessing = segformer_files.preprocessing_of(found.processor or {}, 3)
    preprocessing = segformer_files.saved_over(preprocessing, found.ours.get("preprocessing"))
    return LoadedModel(network.eval(), found.classes(), preprocessing, found.ours, said)


def _is_theirs(source: str | PathLike[str]) -> bool:
    """True for a folder or Hub id with a network that transformers has to build."""
    if Path(source).is_file():
        return False
    folder = model_folder(source)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return config.get("model_type") not in (None, "segformer")


@dataclass(frozen=True)
class Found:
    """What lay in a source, tensors under our names."""

    where: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    processor: dict[str, Any] | None
    ours: dict[str, Any]
    named: Classes | None = None
    """The classes that a checkpoint of others names."""
    said: tuple[str, ...] = ()
    """What a user should hear of it."""

    def known_classes(self) -> Classes | None:
        """The classes of the head, None where nothing names them."""
        is_named = "classes" in self.ours or (self.config is not None and CLASSIFIER[0] in self.tensors)
        return self.classes() if is_named else self.named

    def classes(self) -> Classes:
        """The classes of the head; WeightsError where nothing names them."""
        if "classes" in self.ours:
            return Classes.from_json(self.ours["classes"])
        if self.config is None or CLASSIFIER[0] not in self.tensors:
            raise WeightsError(
                f"{self.where} does not name its classes.",
                found=f"no {OURS}, and no {CONFIG} beside a classifier",
                hint="A model folder that terrazzo or transformers saved whole names them.",
            )
        num_classes = self.tensors[CLASSIFIER[0]].shape[0]
        return segformer_files.classes_of(self.config, num_classes, where=self.where)


def read_source(source: str | PathLike[str]) -> Found:
    """Return what lies in a folder, a weights file or a model of the Hub, tensors under our names."""
    with described(source):
        return _read_source(source)


def _read_source(source: str | PathLike[str]) -> Found:
    where, path = str(source), Path(source)
    if path.is_file():
        if path.suffix == ".safetensors":
            return Found(where, _under_our_names(read_tensors(path)), None, None, {})
        tensors, named, said = openmmlab.read_start(path)
        return Found(where, _under_our_names(tensors), None, None, {}, named, said)
    folder = model_folder(source)
    config, processor, ours = (
        read_json(folder / name) if (folder / name).is_file() else None for name in (CONFIG, PROCESSOR, OURS)
    )
    ours = ours or {}
    version = ours.get("format_version", FORMAT_VERSION)
    if version > FORMAT_VERSION:
        raise WeightsError(
            f"{where} was saved by a newer terrazzo.",
            found=f"format_version {version} in {OURS}",
            expected=f"{FORMAT_VERSION} or less",
            command="pip install --upgrade terrazzo",
        )
    tensors = read_tensors(folder)
    is_ours = "spec" in ours.get("network", {}) or ("network" in ours and config is None)
    if not is_ours:  # ours, and one's own, are saved under the names they have
        tensors = _under_our_names(tensors)
    return Found(where, tensors, config, processor, ours)


def _under_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if is_segmenters(tensors):
        return our_names(tensors)
    return {segformer_files.stored_name(name): tensor for name, tensor in tensors.items()}


def _read_checkpoint(path: Path, config: str | PathLike[str] | None) -> LoadedModel:
    """Build the network of a checkpoint of MMSegmentation's, with its weights."""
    read = openmmlab.read_checkpoint(path, config=config)
    network = _assembled(
        read.spec,
        read.tensors,
        num_classes=len(read.classes),
        mean=read.mean,
        std=read.std,
        where=str(path),
        told=str(path),
    )
    about = {"remap": read.remap} if read.remap is not None else {}
    return LoadedModel(network.eval(), read.classes, read.preprocessing, about, read.said)


def _build(found: Found) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network that terrazzo.json or config.json describes, with its weights; also what a user should hear."""
    where, config = found.where, found.config
    if "spec" in found.ours.get("network", {}):
        return _build_segmenter(found), ()
    if config is None:
        raise _no_builder(found)
    size = segformer_files.size_of(config, where=where)
    if not set(config.get("architectures") or ()).isdisjoint(segformer_files.ENCODER_ONLY):
        raise WeightsError(
            f"{where} holds an encoder alone: it gives features, and no classes.",
            found=f"architectures {', '.join(config['architectures'])} in {CONFIG}",
            expected="SegformerForSemanticSegmentation",
            hint="Train a head on it first:",
            command=f"terrazzo train segformer-b0 --data DATA model.pretrained={where}",
        )
    classes = found.classes()
    channels = int(config.get("num_channels", 3))
    mean, std, _ = segformer_files.preprocessing_of(found.processor or {}, channels)
    about = found.ours.get("network", {})
    mean, std = _numbers(about.get("mean", mean)), _numbers(about.get("std", std), above=0.0)
    if not len(mean) == len(std) == channels:
        raise WeightsError(
            f"{PROCESSOR} of {where} does not fit its network.",
            found=f"{len(mean)} means and {len(std)} deviations",
            expected=f"{channels} of each, one per channel",
        )
    with torch.device("meta"):  # random weights would be made for nothing
        network = SegFormer(
            size,
            len(classes),
            channels=channels,
            mean=mean,
            std=std,
            dropout=float(config.get("classifier_dropout_prob", 0.1)),
            drop_path=float(config.get("drop_path_rate", 0.1)),
        )
    problems = _misfits(network, narrowed(network, found.tensors))
    if problems:  # before memory is taken for what a config claims
        raise does_not_fit(network, found.tensors, problems, where=where)
    network.to_empty(device="cpu")
    network.set_normalisation(mean, std)
    load_tensors(network, found.tensors, where=where)
    said = []
    if found.processor is None:
        said.append(f"{where} has no {PROCESSOR}: ImageNet's mean and deviation, images at their own size")
    if not segformer_files.has_real_names(classes):
        said.append(f"{where} does not name its classes: they are LABEL_0 to LABEL_{len(classes) - 1}")
    return network, tuple(said)


def _build_segmenter(found: Found) -> nn.Module:
    """Build the network that terrazzo.json describes, with its weights."""
    about = found.ours["network"]
    return _assembled(
        about["spec"],
        found.tensors,
        num_classes=len(found.classes()),
        mean=_numbers(about["mean"]),
        std=_numbers(about["std"], above=0.0),
        where=found.where,
        told=f"{OURS} of {found.where}",
    )


def _numbers(values: Iterable[Any], *, above: float = -math.inf) -> tuple[float, ...]:
    """The mean or the deviation of each channel; ValueError where a value is none."""
    numbers = tuple(float(value) for value in values)
    if not all(math.isfinite(number) and number > above for number in numbers):
        raise ValueError(f"images are normalised by {numbers}"[:80])
    return numbers


def _assembled(
    spec: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    where: str,
    told: str,
) -> nn.Module:
    """Build the network of a spec, with all of `tensors`; `told` names what the spec is from."""

    def built() -> Segmenter:
        return assemble(spec, num_classes=num_classes, channels=len(mean), mean=mean, std=std)

    try:
        with torch.device("meta"):  # random weights would be made for nothing
            network = built()
    except (UsageError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{told} describes a network that terrazzo does not build.",
            found=str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}",
            hint="It was edited, or a newer terrazzo wrote it." if told.startswith(OURS) else None,
        ) from error
    problems = _misfits(network, tensors)
    if problems:
        raise does_not_fit(network, tensors, problems, where=where)
    others = {name for name, _ in network.named_buffers()} - network.state_dict().keys() - {"mean", "std"}
    network = built() if others else network.to_empty(device="cpu")  # values that no file holds are made anew
    network.set_normalisation(mean, std)
    load_tensors(network, tensors, where=where)
    return network


def _no_builder(found: Found) -> WeightsError:
    if "network" not in found.ours:
        return WeightsError(
            f"{found.where} is no model folder.",
            found=f"no {CONFIG} and no {OURS}",
            expected=f"{SAFE} with {CONFIG} (as transformers writes it) or {OURS} (as terrazzo does)",
        )
    name = found.ours["network"]["class"]
    return WeightsError(
        f"{found.where} holds a network of your own, {name}, which terrazzo cannot build by itself.",
        hint="Build it as it was for training and pass it, to read_model or to terrazzo.load:",
        command=f"terrazzo.load({found.where!r}, network={name.rpartition('.')[2]}(...))",
    )


def model_tensors(folder: str | PathLike[str], network: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that `save_model` wrote of `network` into a folder, under the names of its state dict."""
    if isinstance(network, HuggingFaceNetwork):
        from terrazzo.nn import huggingface_files

        return huggingface_files.state_of(folder)
    return read_tensors(Path(folder) / SAFE)


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Put `tensors` into `network`, all of them; WeightsError lists whatever is missing, misshapen or left over.

    Tensors of half precision become the network's own dtype.
    """
    tensors = narrowed(network, tensors)
    problems = _misfits(network, tensors)
    if problems:
        raise does_not_fit(network, tensors, problems, where=where)
    wanted = network.state_dict()
    counters = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith(COUNTER)}
    network.load_state_dict({**counters, **tensors})


def _misfits(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    wanted = network.state_dict()
    problems = problems_of(wanted, tensors, due=wanted)
    return problems + [f"{name}: not part of this network" for name in tensors if name not in wanted]


def problems_of(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, due: Iterable[str]
) -> list[str]:
    missing = [f"{name}: missing" for name in due if name not in given and not name.endswith(COUNTER)]
    return missing + [
        f"{name}: found {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]


def does_not_fit(
    network: nn.Module, tensors: Mapping[str, Tensor], problems: list[str], *, where: str
) -> WeightsError:
    shown = problems[:12] + ([f"… and {len(problems) - 12} more"] if len(problems) > 12 else [])
    size = _size_name(tensors) if isinstance(network, SegFormer) else None
    is_other = size is not None and isinstance(network, SegFormer) and SIZES[size] != network.size
    return WeightsError(
        f"The weights in {where} do not fit the network {type(network).__name__}: {len(problems)} tensors.",
        found="\n" + "\n".join(f"  {line}" for line in shown),
        hint=f"They are those of a segformer-{size}. To build that one:" if is_other else None,
        command=f"model.name=segformer-{size}" if is_other else None,
    )


def _size_name(tensors: Mapping[str, Tensor]) -> str | None:
    """Return which of SIZES the tensors of a SegFormer are of, if any."""
    found = [re.search(r"\.block\.(\d)\.(\d+)\.", name) for name in tensors]
    blocks = {(int(match[1]), int(match[2])) for match in found if match}
    widths = [
        tensors.get(f"segformer.encoder.layer_norm.{stage}.weight", torch.empty(0)).numel()
        for stage in range(4)
    ]
    for name, size in SIZES.items():
        depths = {(stage, block) for stage, depth in enumerate(size.depths) for block in range(depth)}
        if blocks == depths and list(size.hidden_sizes) == widths:
            return name
    return None
