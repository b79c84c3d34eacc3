"""Networks: an explicit table of builders, and the part of a recipe that chooses one.

This page imports no torch, so recipes can be read and listed without it; each builder imports its own file.
To add an architecture, write its file and one line in `MODELS`. The contract that `tests/nn/test_contract.py`
holds every entry to:

    network(image_BCHW) -> Output      image float32 in [0, 1]; normalised inside with `mean` and `std`
    network.num_classes, .channels     ints
    network.mean, .std                 (1, C, 1, 1) buffers, not in the state dict
    network.backbone, .head            the two halves, as modules
    network.gradient_checkpointing     bool, False at birth; True trades time for memory
    network.head_parameter_names()     a set: what starts from scratch when a pretrained backbone is loaded
    network.stage_parameter_names()    the backbone's, a list of sets: layers, nearest the image first
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from terrazzo.errors import unknown_name

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; what the published MiT weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "segformer-b0"
    """A name in `terrazzo.nn.MODELS`; `terrazzo models` lists them with their licences."""
    pretrained: str | None = None
    """Weights to start from: a Hub id such as "nvidia/mit-b0" or a folder; None: random weights."""
    init: str | None = None
    """A run or saved model whose weights start this training, head rows matched by class name."""
    freeze: Literal["none", "backbone"] = "none"
    """"backbone" trains the head alone."""
    dropout: float = 0.1
    """Share of the head's channels dropped before the classifier while training."""
    drop_path: float = 0.1
    """Stochastic depth at the last block while training; grows linearly from 0 at the first."""


def build(
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int = 3,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> "nn.Module":
    """Build the network that `config` names, with random weights.

    Reading weights is the next step, with a report of its own: `terrazzo.nn.weights.load_pretrained`. mean
    and std are per channel, for images in [0, 1]. Under `with torch.device("meta")` nothing is allocated.
    Raises UnknownNameError with the nearest names.
    """
    if config.name not in MODELS:
        raise unknown_name("model", config.name, MODELS, command="terrazzo models")
    drop_path = config.drop_path if config.freeze == "none" else 0.0  # noise in frozen layers teaches nothing
    network = MODELS[config.name](
        num_classes, channels=channels, mean=mean, std=std, dropout=config.dropout, drop_path=drop_path
    )
    if config.freeze == "backbone":
        network.backbone.requires_grad_(False)
    return network


def _segformer(size: str) -> Callable[..., "nn.Module"]:
    def builder(
        num_classes: int,
        *,
        channels: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> "nn.Module":
        from terrazzo.nn.segformer import SIZES, SegFormer

        return SegFormer(
            SIZES[size],
            num_classes,
            channels=channels,
            mean=mean,
            std=std,
            dropout=dropout,
            drop_path=drop_path,
        )

    builder.__doc__ = (
        f"Build SegFormer-{size.upper()} (Xie et al. 2021, arXiv 2105.15203) with random weights."
    )
    return builder


# The code of every network here is ours, Apache-2.0. The published MiT and SegFormer weights are NVIDIA's,
# for non-commercial research and evaluation only; what is fine-tuned from them inherits that, what starts
# from random weights does not.
MODELS: Mapping[str, Callable[..., "nn.Module"]] = {
    "segformer-b0": _segformer("b0"),  # 3.7 M parameters
    "segformer-b1": _segformer("b1"),  # 13.7 M
    "segformer-b2": _segformer("b2"),  # 27.4 M
    "segformer-b3": _segformer("b3"),  # 47.2 M
    "segformer-b4": _segformer("b4"),  # 64.0 M
    "segformer-b5": _segformer("b5"),  # 84.6 M
}
