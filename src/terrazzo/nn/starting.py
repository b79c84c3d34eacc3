"""Starting a training from the weights of others: all of a network or its backbone, the classifier's rows by name.

`load_pretrained` takes whatever `weights.py` reads, and weights by name (`published.py`). What is taken, what starts
from random values, and why, is the line it returns.
"""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import TerrazzoError
from terrazzo.licences import NVIDIA_SEGFORMER, Ledger, Origin, ledger_of, read
from terrazzo.nn import published, segformer_files
from terrazzo.nn.files import CARD, CONFIG, OURS, fetched, listed, on_card
from terrazzo.nn.huggingface import HuggingFaceNetwork
from terrazzo.nn.openmmlab_names import our_names
from terrazzo.nn.segformer import CLASSIFIER, STEM, SegFormer
from terrazzo.nn.segmenter import Segmenter
from terrazzo.nn.timm_backbone import backbone_tensors, tagged, timm_weights
from terrazzo.nn.two_classes import narrowed, widened
from terrazzo.nn.weights import COUNTER, Found, does_not_fit, load_tensors, problems_of, read_source
from terrazzo.storage import read_json

NVIDIA_LICENSE = NVIDIA_SEGFORMER


def load_pretrained(network: nn.Module, source: str | PathLike[str], *, classes: Classes) -> str:
    """Start `network`, for `classes`, from the weights in `source`; returns the line that says how.

    source: a folder, a weights file, a checkpoint of MMSegmentation's, a Hub id ("nvidia/mit-b0"), or weights by name:
    "timm", "timm/NAME", "openmmlab/resnet101_v1c". Backbone alone or whole. Every tensor of the backbone must be there
    and fit; so must those of the head where the source has the same kind of head, else it starts from random weights.
    Rows of the classifier are reused for classes of the same name, upper and lower case alike; the others keep their
    random values, and so do all where the source does not name its classes. Where the source takes another number of
    channels, `inflate` changes its first convolution. A network of one's own takes the source's tensors one to one.
    Raises WeightsError with all that does not fit, and the errors of `read_tensors`.
    """
    if isinstance(network, HuggingFaceNetwork):
        from terrazzo.nn import huggingface_files

        return huggingface_files.start(network, source, classes=classes) + _terms(license_of(source))
    found = _found(source, network)
    if not isinstance(network, SegFormer | Segmenter):
        load_tensors(network, found.tensors, where=found.where)
        return f"{found.where}: loaded all {len(found.tensors)} tensors"
    roles = _roles(network)
    wanted = widened(network, {name: tensor.clone() for name, tensor in network.state_dict().items()})
    offered = _named_as(roles, found)
    given = {name: tensor for name, tensor in offered.items() if name in wanted}
    parts = _matching_parts(roles, wanted, offered)
    report = [f"{roles.backbone_word} and head" if "head" in parts else roles.backbone_word]

    stem = roles.stem
    if stem in given and given[stem].ndim == 4 and given[stem].shape[1] != wanted[stem].shape[1]:
        channels = wanted[stem].shape[1]
        report.append(f"first convolution spread from {given[stem].shape[1]} to {channels} channels")
        given[stem] = inflate(given[stem], channels)
    known = found.known_classes()
    rows = matching_rows(known, classes)
    for name in [name for name in given if name.rpartition(".")[0] in roles.classifiers]:
        given[name] = _reused(wanted[name], given[name], rows)
    report += _head_report(roles, parts, offered, rows, known, classes)

    kept = tuple(prefix for part in parts for prefix in [roles.prefixes[part]])
    given = {name: tensor for name, tensor in given.items() if name.startswith(kept)}
    problems = problems_of(wanted, given, due=[name for name in wanted if name.startswith(kept)])
    if problems:
        raise does_not_fit(network, found.tensors, problems, where=found.where)
    network.load_state_dict(narrowed(network, {**wanted, **given}))

    report += [*_normalisation_report(network, found), *found.said]
    return f"{found.where}: loaded the {'; '.join(report)}" + _terms(license_of(source, network))


def _terms(terms: str | None) -> str:
    """Their licence in brackets; one that denies commercial use has a line of its own, which the caller says."""
    return f" ({terms})" if terms and read(terms).commercial != "no" else ""


def _found(source: str | PathLike[str], network: nn.Module) -> Found:
    """Read what `source` stands for, fetched where it is a name; timm's weights under the names of the network."""
    source = _named(source, network)
    path, name = Path(source), str(source)
    if name.startswith(published.OPENMMLAB) and not path.exists():
        return replace(read_source(published.fetch_openmmlab(name)), where=name)
    is_timms = name.startswith(f"{published.TIMM}/") and not path.exists()
    if not is_timms and not (path / CONFIG).is_file():
        return read_source(source)
    if not is_timms and "architecture" not in read_json(path / CONFIG):  # which only timm calls so
        return read_source(source)
    weights = timm_weights(source)
    backbone = network.spec["backbone"] if isinstance(network, Segmenter) else {}
    if backbone.get("kind") == "timm":
        stride = int(backbone.get("output_stride", 0))
        made = backbone_tensors(str(backbone["name"]), weights, output_stride=stride)
        tensors = {f"backbone.{name}": tensor for name, tensor in made.items()}
    else:
        tensors = our_names(weights.tensors)
    seen = {"image_mean": list(weights.mean), "image_std": list(weights.std)}
    return Found(weights.where, tensors, None, seen, {})


def _named(source: str | PathLike[str], network: nn.Module) -> str | PathLike[str]:
    """ "timm" is the model of timm's with the network's backbone."""
    if str(source) != published.TIMM or Path(source).exists():
        return source
    return published.timm_name(network.spec["backbone"] if isinstance(network, Segmenter) else None)


@dataclass(frozen=True)
class Roles:
    """Which names of a network's tensors are what."""

    prefixes: Mapping[str, str]
    """"backbone", "head" and "auxiliary", as far as there are: what the names of their tensors begin with."""
    classifiers: tuple[str, ...]
    """The modules with one row per class."""
    stem: str
    """The weight of the first convolution (D, channels of the image, k, k)."""
    backbone_word: str
    """What its backbone is called in what is said."""


def _roles(network: SegFormer | Segmenter) -> Roles:
    if isinstance(network, SegFormer):
        prefixes = {"backbone": "segformer.", "head": "decode_head."}
        return Roles(prefixes, (CLASSIFIER[0].rpartition(".")[0],), STEM, "encoder")
    prefixes = {"backbone": "backbone.", "head": "head."}
    if network.auxiliary is not None:
        prefixes["auxiliary"] = "auxiliary."
    convolutions = (name for name, tensor in network.backbone.named_parameters() if tensor.ndim == 4)
    return Roles(
        prefixes,
        ("head.classifier", "auxiliary.classifier"),
        f"backbone.{next(convolutions, '')}",
        "backbone",
    )


def _named_as(roles: Roles, found: Found) -> dict[str, Tensor]:
    """The source's tensors under the network's names, where only the prefix of the same backbone differs."""
    here = roles.prefixes["backbone"] + "encoder."
    there = "segformer.encoder." if here.startswith("backbone.") else "backbone.encoder."
    return {
        here + name.removeprefix(there) if name.startswith(there) else name: tensor
        for name, tensor in found.tensors.items()
    }


def _matching_parts(roles: Roles, wanted: Iterable[str], offered: Iterable[str]) -> list[str]:
    """The parts to take: the backbone, and each head of which the source has one of the same kind."""

    def names(all_names: Iterable[str], prefix: str) -> set[str]:
        return {name for name in all_names if name.startswith(prefix) and not name.endswith(COUNTER)}

    parts = ["backbone"]
    for part, prefix in roles.prefixes.items():
        there = names(offered, prefix)
        if part != "backbone" and there and there <= names(wanted, prefix):
            parts.append(part)
    return parts


def _head_report(
    roles: Roles,
    parts: list[str],
    offered: Mapping[str, Tensor],
    rows: Mapping[int, int],
    known: Classes | None,
    classes: Classes,
) -> list[str]:
    report = []
    if "head" in parts:
        report.append(rows_report(rows, known, classes))
    elif any(name.startswith(roles.prefixes["head"]) for name in offered):
        report.append("its head is of another kind, so the head starts from random weights")
    else:
        report.append("the head starts from random weights")
    if "auxiliary" in roles.prefixes and "auxiliary" not in parts and "head" in parts:
        report.append(
            "so does the auxiliary head"
            if "random" in report[-1]
            else "the auxiliary head starts from random weights"
        )
    return report


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


def rows_report(rows: Mapping[int, int], known: Classes | None, classes: Classes) -> str:
    fresh = [name for class_id, name in enumerate(classes.names) if class_id not in rows]
    if not rows:
        is_named = known is not None and segformer_files.has_real_names(known)
        reason = "no class has the same name" if is_named else "the source does not name its classes"
        return f"all {len(classes)} rows of the classifier start from random weights, for {reason}"
    if not fresh:
        return f"all {len(classes)} classes reused by name"
    reused = listed(classes.names[class_id] for class_id in rows)
    return f"{len(rows)} of {len(classes)} classes reused by name ({reused}), from random weights: {listed(fresh)}"


def _normalisation_report(network: SegFormer | Segmenter, found: Found) -> list[str]:
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


def license_of(source: str | PathLike[str], network: nn.Module | None = None) -> str | None:
    """Return the licence of the weights in `source`, in their publisher's words, as far as it is known."""
    return next((one.license for one in origins_of(source, network).weights if one.license is not None), None)


def origins_of(source: str | PathLike[str], network: nn.Module | None = None) -> Ledger:
    """Return what the weights in `source` were made from: what terrazzo.json says there, a name, or a card on the Hub.

    network: for which "timm" stands for one of timm's models. Of the Hub's, what was fetched with the weights is read.
    """
    if network is not None:
        source = _named(source, network)
    path, name = Path(source), str(source)
    if (path / OURS).is_file():
        return _of_ours(read_json(path / OURS))
    if path.exists():
        stated, bases = on_card(path / CARD)
        return Ledger((Origin(path.name, stated), *map(_base, bases)))
    if name.startswith(f"{published.TIMM}/"):
        with suppress(TerrazzoError):  # timm itself is not there, or knows no such model
            name = tagged(name)
        return Ledger((Origin(name, _timm_license(name)),))
    known = _known_license(name)
    if known is not None:
        return Ledger((Origin(name, known),))
    stated, bases = on_card(fetched(name, CARD))
    ours = fetched(name, OURS)
    before = ledger_of(read_json(ours)) if ours is not None else Ledger(tuple(map(_base, bases)))
    if stated in (None, "unknown"):  # as our own cards say where nobody chose one
        stated = before.of_weights
    return Ledger((Origin(name, stated), *before.weights), before.data)


def _of_ours(about: Mapping[str, Any]) -> Ledger:
    """What a model of ours passes on; it is named itself where a licence was chosen for it."""
    ledger = ledger_of(about)
    if ledger.chosen is None:
        return ledger
    named = [str((about.get(part) or {}).get("name", "not named")) for part in ("recipe", "data")]
    mine = Origin(" trained on ".join(named), ledger.chosen)
    return Ledger((mine, *ledger.weights), ledger.data)


def _base(name: str) -> Origin:
    """A model that another was made from, as its card says; what is known of its licence without asking the Hub."""
    return Origin(name, _known_license(name) or on_card(fetched(name, CARD))[0])


def _known_license(name: str) -> str | None:
    """The licence of weights that are published under a name; None where only their own card can say."""
    if re.match(r"nvidia/(mit-b\d|segformer-b\d)", name):
        return NVIDIA_LICENSE
    return published.license_of_published(name)


def _timm_license(name: str) -> str | None:
    """By its tag; else as the config says that was fetched with the weights."""
    known, file = published.license_of_published(name), fetched(name, CONFIG)
    if known is not None and not known.startswith("unknown"):
        return known
    about = read_json(file) if file is not None else {}
    return about.get("pretrained_cfg", about).get("license") or known
