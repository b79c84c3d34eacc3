"""What each architecture costs, whose it is, and what was published for it: the table of `terrazzo models`.

Networks are built and run on torch's meta device, which allocates and computes nothing. A multiply-add counts once:
half of what "FLOPs" often means. Counted are the convolutions, matrix products and attention that our code runs for one
image outside training; a folded head counts what it costs here, not in its paper. That takes ten seconds for all of
them, so the counts are kept in architectures.json: scripts/reference.py --write counts anew, a test compares.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from terrazzo.licences import CODE, least, read
from terrazzo.nn import MODELS, ModelConfig, build
from terrazzo.recipes.openmmlab import names
from terrazzo.recipes.openmmlab.published import PUBLISHED
from terrazzo.storage import read_json

COUNTS = Path(__file__).with_name("architectures.json")

SEEN_HW = (512, 1024)  # what multiply-adds are counted at
NUM_CLASSES = 19  # of Cityscapes
SHOWN = {"cityscapes": "Cityscapes", "ade20k": "ADE20K"}  # the data sets whose published scores are told
RESNETS = ("resnet50_v1c", "resnet101_v1c")
BACKBONES: Mapping[str, tuple[str | None, ...]] = {  # on which an architecture is listed, the usual one first
    **dict.fromkeys(("fcn", "pspnet", "deeplabv3", "deeplabv3plus", "upernet"), RESNETS),
    "segformer-conv": tuple(f"mit_b{size}" for size in range(6)),
}


@dataclass(frozen=True)
class Architecture:
    """A row of the table."""

    name: str
    """A name in `terrazzo.nn.MODELS`."""
    backbone: str | None
    """`model.backbone`; None where the architecture has its own."""
    parameters: int | None
    """With 19 classes, auxiliary head included; None where a folder decides."""
    multiply_adds: int | None
    """Of one image of 512x1024 outside training; None where a folder decides."""
    code: str = CODE
    """Licence of the code."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Published weights to start from, as `model.pretrained` -> their licence, in its publisher's words."""
    commercial: str = "yes"
    """Whether code and weights together may be used commercially: yes, no or unknown; "yes" without weights."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Data set -> the best mIoU in percent that MMSegmentation published, one scale, no flip; not reproduced here."""


@cache
def table() -> tuple[Architecture, ...]:
    """Return every architecture on each backbone it is listed on."""
    scores, counts = _scores(), read_json(COUNTS)
    return tuple(_row(name, backbone, scores, counts) for name, backbone in _listed())


def count() -> dict[str, tuple[int, int]]:
    """Return what COUNTS should hold: {architecture and backbone: (parameters, multiply-adds)}."""
    listed = [(name, backbone) for name, backbone in _listed() if name != "huggingface"]
    return {_key(*one): cost(ModelConfig(one[0], backbone=one[1])) for one in listed}


def cost(
    config: ModelConfig, *, seen_hw: tuple[int, int] = SEEN_HW, num_classes: int = NUM_CLASSES
) -> tuple[int, int]:
    """Return (parameters, multiply-adds of one RGB image of seen_hw outside training) of a network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        network = build(config, num_classes=num_classes).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, *seen_hw))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() // 2


def _listed() -> Iterator[tuple[str, str | None]]:
    yield from ((name, backbone) for name in MODELS for backbone in BACKBONES.get(name, (None,)))


def _key(name: str, backbone: str | None) -> str:
    return f"{name} {backbone}" if backbone else name


def _row(
    name: str,
    backbone: str | None,
    scores: Mapping[tuple[str, str | None], Mapping[str, float]],
    counts: Mapping[str, tuple[int, int]],
) -> Architecture:
    if name == "huggingface":
        own = {"a folder or Hub id": "its own"}
        return Architecture(name, None, None, None, weights=own, commercial="unknown")
    weights = _weights(name, backbone)
    parameters, multiply_adds = counts[_key(name, backbone)]
    return Architecture(
        name,
        backbone,
        parameters,
        multiply_adds,
        weights=weights,
        commercial=least(read(words).commercial for words in (CODE, *weights.values())),
        published=scores.get((name, backbone), {}),
    )


def _weights(name: str, backbone: str | None) -> dict[str, str]:
    from terrazzo.nn.starting import license_of

    if name.startswith("segformer-b"):
        source: str | None = f"nvidia/{name.replace('segformer', 'mit')}"
    else:
        known = {one.name: one.pretrained for one in names.BACKBONES.values()}
        source = known.get(backbone) if backbone is not None else None
    return {} if source is None else {source: license_of(source) or "not known"}


def _scores() -> dict[tuple[str, str | None], dict[str, float]]:
    """{(architecture, backbone): {data set: best published mIoU}}."""
    best: dict[tuple[str, str | None], dict[str, float]] = {}
    for text, one in PUBLISHED.items():
        name = names.parse(text)
        data_set = SHOWN.get(name.data_set)
        backbone: str | None = names.BACKBONES[name.backbone].name
        architecture = {"segformer": "segformer-conv"}.get(name.algorithm, name.algorithm)
        if backbone == "unet":
            architecture, backbone = ("unet" if name.algorithm == "fcn" else ""), None
        if one.metric == "mIoU" and data_set is not None:
            here = best.setdefault((architecture, backbone), {})
            here[data_set] = max(here.get(data_set, 0.0), one.score)
    return {key: {title: one[title] for title in SHOWN.values() if title in one} for key, one in best.items()}
