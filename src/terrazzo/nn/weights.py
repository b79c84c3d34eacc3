"""Models on disk: save them, read them, and start a training from those of others.

A model is a folder: model.safetensors, terrazzo.json (classes, preprocessing, and what the caller adds), and
for a SegFormer config.json and preprocessor_config.json, so that transformers opens it too. `files.py`
opens files and asks the Hub; `segformer_files.py` knows what those two configs mean.

Licences: the MiT and SegFormer weights on the Hub are NVIDIA's, for non-commercial research and evaluation;
`license_of` knows them, and what is fine-tuned from them inherits the terms.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import UsageError, WeightsError
from terrazzo.nn import segformer_files
from terrazzo.nn.files import CONFIG, OURS, PROCESSOR, SAFE, listed, model_folder, read_tensors
from terrazzo.nn.segformer import CLASSIFIER, SIZES, STEM, SegFormer
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.two_classes import narrowed, widened
from terrazzo.storage import read_json, write_json

__all__ = ["LoadedModel", "inflate", "license_of", "load_pretrained", "load_tensors", "model_folder", "read_model",
           "read_tensors", "save_model"]  # fmt: skip

FORMAT_VERSION = 1  # of terrazzo.json; a newer one is refused
COUNTER = "num_batches_tracked"  # of batch norm; old files lack it, and nothing here depends on it

NVIDIA_LICENSE = "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation only"


@dataclass(frozen=True)
class LoadedModel:
    """A network with its weights, in evaluation mode, and what belongs to it."""

    network: nn.Module
    classes: Classes
    preprocessing: dict[str, Any]
    """"resize" and "resize_hw" as in the recipe's data section, and what else was saved with them."""
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
) -> None:
    """Write `network` into an existing folder; the caller makes the folder appear whole (`storage.replace_folder`).

    preprocessing: "resize", "resize_hw" and "dtype" of the data section and the data set; the rest is kept as it is.
    terrazzo: what else terrazzo.json should tell, such as recipe, metrics, data and "licenses" ({"weights": …});
    its "format_version", "network", "classes" and "preprocessing" are written here.
    A SegFormer then opens in transformers. A Segmenter is saved with its spec and is built from it again. Any other
    network is saved with its qualified name, and is read by `read_model(folder, network=...)`.
    """
    folder = Path(folder)
    # clones, because safetensors refuses tensors that share their storage
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in widened(network, network.state_dict()).items()
    }
    save_file(tensors, folder / SAFE, metadata={"format": "pt"})
    about = {"class": f"{type(network).__module__}.{type(network).__qualname__}", "num_classes": len(classes)}
    if isinstance(network, SegFormer | Segmenter):
        assert network.num_classes == len(classes), f"{len(classes)} names for {network.num_classes} classes"
        mean = segformer_files.plain_numbers(network.mean.flatten().tolist())
        std = segformer_files.plain_numbers(network.std.flatten().tolist())
        about |= {"channels": network.channels, "mean": mean, "std": std}
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


def read_model(source: str | PathLike[str], *, network: nn.Module | None = None) -> LoadedModel:
    """Read a model: a folder of ours, a SegFormer that transformers saved, or a Hub id "user/name[@revision]".

    network: one's own module, for a folder that holds one; it gets the folder's weights. Raises
    MissingPathError, UnreadableFileError, UnsafeFileError, and WeightsError for another network or tensors
    that do not fit.
    """
    found = _read(source)
    said: tuple[str, ...] = ()
    if network is None:
        network, said = _build(found)
    else:
        load_tensors(network, found.tensors, where=found.where)
    _, _, preprocessing = segformer_files.preprocessing_of(found.processor or {}, 3)
    preprocessing |= found.ours.get("preprocessing", {})
    return LoadedModel(network.eval(), found.classes(), preprocessing, found.ours, said)


@dataclass(frozen=True)
class _Found:
    """What lay in a source, tensors under our names."""

    where: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None
    processor: dict[str, Any] | None
    ours: dict[str, Any]

    @property
    def names_classes(self) -> bool:
        return "classes" in self.ours or (self.config is not None and CLASSIFIER[0] in self.tensors)

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


def _read(source: str | PathLike[str]) -> _Found:
    where = str(source)
    if Path(source).is_file():
        return _Found(where, _under_our_names(read_tensors(source)), None, None, {})
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
    if "spec" not in ours.get("network", {}):  # which is saved under the names it has
        tensors = _under_our_names(tensors)
    return _Found(where, tensors, config, processor, ours)


def _under_our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {segformer_files.stored_name(name): tensor for name, tensor in tensors.items()}


def _build(found: _Found) -> tuple[nn.Module, tuple[str, ...]]:
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
    network.to_empty(device="cpu")
    about = found.ours.get("network", {})
    network.set_normalisation(about.get("mean", mean), about.get("std", std))
    load_tensors(network, found.tensors, where=where)
    said = []
    if found.processor is None:
        said.append(f"{where} has no {PROCESSOR}: ImageNet's mean and deviation, images at their own size")
    if not segformer_files.has_real_names(classes):
        said.append(f"{where} does not name its classes: they are LABEL_0 to LABEL_{len(classes) - 1}")
    return network, tuple(said)


def _build_segmenter(found: _Found) -> nn.Module:
    """Build the network that terrazzo.json describes, with its weights."""
    about = found.ours["network"]
    classes = found.classes()

    def built() -> Segmenter:
        return assemble(
            about["spec"],
            num_classes=len(classes),
            channels=about["channels"],
            mean=about["mean"],
            std=about["std"],
        )

    try:
        with torch.device("meta"):  # random weights would be made for nothing
            network = built()
    except (UsageError, AssertionError, LookupError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{OURS} of {found.where} describes a network that terrazzo does not build.",
            found=str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}",
            hint="It was edited, or a newer terrazzo wrote it.",
        ) from error
    problems = _misfits(network, found.tensors)
    if problems:
        raise _does_not_fit(network, found.tensors, problems, where=found.where)
    others = {name for name, _ in network.named_buffers()} - network.state_dict().keys() - {"mean", "std"}
    network = built() if others else network.to_empty(device="cpu")  # values that no file holds are made anew
    network.set_normalisation(about["mean"], about["std"])
    load_tensors(network, found.tensors, where=found.where)
    return network


def _no_builder(found: _Found) -> WeightsError:
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


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Put `tensors` into `network`, all of them; WeightsError lists whatever is missing, misshapen or left over.

    Tensors of half precision become the network's own dtype.
    """
    tensors = narrowed(network, tensors)
    problems = _misfits(network, tensors)
    if problems:
        raise _does_not_fit(network, tensors, problems, where=where)
    wanted = network.state_dict()
    counters = {name: torch.zeros((), dtype=torch.long) for name in wanted if name.endswith(COUNTER)}
    network.load_state_dict({**counters, **tensors})


def _misfits(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    wanted = network.state_dict()
    problems = _problems(wanted, tensors, due=wanted)
    return problems + [f"{name}: not part of this network" for name in tensors if name not in wanted]


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, due: Iterable[str]) -> list[str]:
    missing = [f"{name}: missing" for name in due if name not in given and not name.endswith(COUNTER)]
    return missing + [
        f"{name}: found {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]


def _does_not_fit(
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


# starting from the weights of others -------------------------------------------------------------------


def load_pretrained(network: nn.Module, source: str | PathLike[str], *, classes: Classes) -> str:
    """Start `network`, a SegFormer for `classes`, from the weights in `source`; returns the line that says how.

    source: a folder, a weights file or a Hub id; encoder alone ("nvidia/mit-b0") or whole. Every tensor of
    the encoder must be there and fit. Rows of the classifier are reused for classes of the same name, upper
    and lower case alike; the others keep their random values, and so do all where the source does not name
    its classes. Where the source takes another number of channels, `inflate` changes its first convolution.
    Any other network takes the source's tensors one to one. Raises WeightsError with all that does not fit,
    and the errors of `read_tensors`.
    """
    found = _read(source)
    if not isinstance(network, SegFormer):
        load_tensors(network, found.tensors, where=found.where)
        return f"{found.where}: loaded all {len(found.tensors)} tensors"
    wanted = widened(network, {name: tensor.clone() for name, tensor in network.state_dict().items()})
    given = {name: tensor for name, tensor in found.tensors.items() if name in wanted}
    is_whole = any(name.startswith("decode_head.") for name in given)
    report = ["encoder and head" if is_whole else "encoder"]

    if STEM in given and given[STEM].shape[1] != network.channels:
        report.append(f"first convolution spread from {given[STEM].shape[1]} to {network.channels} channels")
        given[STEM] = inflate(given[STEM], network.channels)
    if is_whole:
        known = found.classes() if found.names_classes else None
        rows = matching_rows(known, classes)
        for name in given.keys() & set(CLASSIFIER):
            given[name] = _reused(wanted[name], given[name], rows)
        report.append(_head_report(rows, known, classes))
    else:
        report.append("the head starts from random weights")

    due = [name for name in wanted if is_whole or not name.startswith("decode_head.")]
    problems = _problems(wanted, given, due=due)
    if problems:
        raise _does_not_fit(network, found.tensors, problems, where=found.where)
    network.load_state_dict(narrowed(network, {**wanted, **given}))

    report += _normalisation_report(network, found)
    terms = license_of(source)
    return f"{found.where}: loaded the {'; '.join(report)}" + (f" ({terms})" if terms else "")


def matching_rows(known: Classes | None, classes: Classes) -> dict[int, int]:
    """Return {class id: class id in `known`} for the classes of the same name; {} where `known` has no real names."""
    if known is None or not segformer_files.has_real_names(known):
        return {}
    by_name = {name.strip().casefold(): row for row, name in reversed(list(enumerate(known.names)))}
    names = [name.strip().casefold() for name in classes.names]
    return {class_id: by_name[name] for class_id, name in enumerate(names) if name in by_name}


def _reused(fresh: Tensor, trained: Tensor, rows: Mapping[int, int]) -> Tensor:
    """Return `fresh` with the rows of `trained` that stand for the same classes; misshapen tensors as they are."""
    if fresh.shape[1:] != trained.shape[1:]:
        return trained  # reported with everything else that does not fit
    merged = fresh.clone()
    for class_id, row in rows.items():
        merged[class_id] = trained[row].to(fresh.dtype)
    return merged


def _head_report(rows: Mapping[int, int], known: Classes | None, classes: Classes) -> str:
    fresh = [name for class_id, name in enumerate(classes.names) if class_id not in rows]
    if not rows:
        is_named = known is not None and segformer_files.has_real_names(known)
        reason = "no class has the same name" if is_named else "the source does not name its classes"
        return f"all {len(classes)} rows of the classifier start from random weights, for {reason}"
    if not fresh:
        return f"all {len(classes)} classes reused by name"
    reused = listed(classes.names[class_id] for class_id in rows)
    return f"{len(rows)} of {len(classes)} classes reused by name ({reused}), from random weights: {listed(fresh)}"


def _normalisation_report(network: SegFormer, found: _Found) -> list[str]:
    """Say so when images will be normalised otherwise than the weights were trained."""
    if found.processor is None:
        return []
    mean, std, _ = segformer_files.preprocessing_of(
        found.processor, int((found.config or {}).get("num_channels", 3))
    )
    here = [*network.mean.flatten().tolist(), *network.std.flatten().tolist()]
    there = [*mean, *std]
    if len(here) != len(there) or all(
        math.isclose(a, b, abs_tol=1e-3) for a, b in zip(here, there, strict=True)
    ):
        return []
    trained = ", ".join(f"{value:.3f}" for value in mean)
    return [
        f"images are normalised by this data set's mean and deviation, not those of the source (mean {trained})"
    ]


def inflate(weight_DCHW: Tensor, channels: int) -> Tensor:
    """Make a first convolution (D, C, k, k) take another number of channels, its sum over channels kept.

    The kernels are repeated in order (RGB, RGB, …) and scaled by C / channels, so that bands beyond the third
    begin as copies of red, green and blue; what the sum then lacks is spread evenly. An image whose
    normalised channels are all equal gives exactly the features it gave before.
    """
    before = weight_DCHW.shape[1]
    repeated = weight_DCHW.repeat(1, math.ceil(channels / before), 1, 1)[:, :channels] * (before / channels)
    lacking = weight_DCHW.sum(1, keepdim=True) - repeated.sum(1, keepdim=True)
    return repeated + lacking / channels


def license_of(source: str | PathLike[str]) -> str | None:
    """Return the licence of the weights in `source` as far as it is known: terrazzo.json's, or NVIDIA's by name."""
    path = Path(source)
    if (path / OURS).is_file():
        licenses = read_json(path / OURS).get("licenses")
        return licenses.get("weights") if isinstance(licenses, Mapping) else None
    is_nvidia = not path.exists() and re.match(r"nvidia/(mit-b\d|segformer-b\d)", str(source))
    return NVIDIA_LICENSE if is_nvidia else None
