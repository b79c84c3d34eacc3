"""Networks: an explicit table of builders, and the part of a recipe that chooses one.

This page imports no torch, so recipes can be read and listed without it; each builder imports its own file.
To add an architecture, write its file and one line in `MODELS`. The contract that `tests/nn/test_contract.py`
holds every entry to:

    network(image_BCHW) -> Output      image float32 in [0, 1]; normalised inside with `mean` and `std`
    network.num_classes, .channels     ints
    network.mean, .std                 (1, C, 1, 1) buffers, not in the state dict
    network.backbone, .head            the two halves, as modules; `.auxiliary`, where there is one, trains with them
    network.gradient_checkpointing     bool, False at birth; True trades time for memory
    network.head_parameter_names()     a set: what starts from scratch when a pretrained backbone is loaded
    network.stage_parameter_names()    the backbone's, a list of sets: layers, nearest the image first
    network.align_corners              bool, where logits are to be resized so that corners meet; absent means False
    network.uses_all_parameters        True where logits depend on every parameter; absent means that nobody knows
    network.waits_for_nothing          True where a pass on a GPU can be recorded; absent means that nobody tried
    network.spec                       where `segmenter.assemble` builds the network: the dict it is built from
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from terrazzo.errors import RecipeError, UsageError, unknown_name

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; what the published MiT weights were trained with
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelConfig:
    """Which network, and what it starts from."""

    name: str = "segformer-b0"
    """A name in `terrazzo.nn.MODELS`; `terrazzo models` lists them with their licences."""
    backbone: str | None = None
    """What encodes the image, such as resnet101_v1c or timm/convnext_tiny; null: the architecture's usual one."""
    output_stride: int = 0
    """How many times smaller than the image the backbone's last map is: 8, 16 or 32; 0: the architecture's usual."""
    multi_grid: tuple[int, ...] = ()
    """Dilations of the blocks of a ResNet's last stage, one each, such as 1,2,4; none: that stage's own."""
    align_corners: bool = False
    """Corners meet where maps are resized, in the network, the loss and prediction; else pixels' edges do."""
    pretrained: str | None = None
    """Weights to start from: a Hub id such as "nvidia/mit-b0", a folder or file, "timm", "timm/NAME" or
    "openmmlab/resnet101_v1c"; null: random weights."""
    init: str | None = None
    """A run, saved model or .pth of MMSegmentation's whose weights start this training; head rows go by class name."""
    freeze: Literal["none", "backbone"] = "none"
    """"backbone" trains the head alone."""
    one_logit: bool = False
    """Two classes from one number per pixel, a sigmoid instead of a softmax; a data set of two classes only."""
    dropout: float = 0.1
    """Share of the head's channels dropped before the classifier while training."""
    drop_path: float = 0.1
    """Stochastic depth at the last block while training, from 0 at the first; not in ResNets, U-Net, NearFar."""


Builder = Callable[..., "nn.Module"]
"""builder(config, *, num_classes, channels, mean, std) -> a network with random weights."""


def build(
    config: ModelConfig,
    *,
    num_classes: int,
    channels: int = 3,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> "nn.Module":
    """Build the network that `config` names, with random weights.

    Reading weights is the next step, with a report of its own: `terrazzo.nn.starting.load_pretrained`. mean
    and std are per channel, for images in [0, 1]. Under `with torch.device("meta")` nothing is allocated.
    Raises UnknownNameError with the nearest names, RecipeError for a field that the architecture does not have,
    and for one number per pixel where there are not two classes.
    """
    if config.name not in MODELS:
        raise unknown_name("model", config.name, MODELS, command="terrazzo models")
    if config.one_logit and num_classes != 2:
        raise RecipeError(
            "One number per pixel is for two classes.",
            found=f"model.one_logit=true and {num_classes} classes",
            expected="a data set of two classes, or model.one_logit=false",
        )
    channels_out = 1 if config.one_logit else num_classes
    network = MODELS[config.name](config, num_classes=channels_out, channels=channels, mean=mean, std=std)
    if config.one_logit:
        from terrazzo.nn.two_classes import as_two_classes

        as_two_classes(network)
    if config.freeze == "backbone":
        network.backbone.requires_grad_(False)
    return network


def drop_path_of(config: ModelConfig) -> float:
    """Return config.drop_path, 0 where the backbone is frozen: noise in layers that do not learn teaches nothing."""
    return config.drop_path if config.freeze == "none" else 0.0


def _segformer(size: str) -> Builder:
    def builder(
        config: ModelConfig, *, num_classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> "nn.Module":
        from terrazzo.nn.segformer import SIZES, SegFormer

        _refuse(config, "backbone", "output_stride", "multi_grid", "align_corners")
        return SegFormer(
            SIZES[size],
            num_classes,
            channels=channels,
            mean=mean,
            std=std,
            dropout=config.dropout,
            drop_path=drop_path_of(config),
        )

    builder.__doc__ = (
        f"Build SegFormer-{size.upper()} (Xie et al. 2021, arXiv 2105.15203) with random weights."
    )
    return builder


def _segmenter(architecture: str) -> Builder:
    def builder(
        config: ModelConfig, *, num_classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> "nn.Module":
        from terrazzo.nn.segmenter import assemble
        from terrazzo.nn.specs import SPECS

        return assemble(
            SPECS[architecture](config), num_classes=num_classes, channels=channels, mean=mean, std=std
        )

    builder.__doc__ = f"Build {architecture} as `terrazzo.nn.specs` describes it, with random weights."
    return builder


def _huggingface(
    config: ModelConfig, *, num_classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
) -> "nn.Module":
    """Build the network of transformers that lies where config.pretrained or config.init says, with random weights."""
    from terrazzo.nn import huggingface_files

    _refuse(config, "backbone", "output_stride", "align_corners", "one_logit")
    source = config.pretrained or config.init
    if source is None:
        raise UsageError(
            "Which network of transformers is not said.",
            found="model.name=huggingface alone",
            expected="a folder, or an id on the Hub, of a model for semantic segmentation",
            command="model.name=huggingface model.pretrained=openmmlab/upernet-convnext-tiny",
        )
    return huggingface_files.build(source, num_classes=num_classes, channels=channels, mean=mean, std=std)


def _refuse(config: ModelConfig, *fields: str) -> None:
    """Raise RecipeError where one of `fields`, which the architecture does not have, was given."""
    given = [field for field in fields if getattr(config, field) != getattr(ModelConfig, field)]
    if given:
        raise RecipeError(
            f"{config.name} has no {' and no '.join(given)} to choose.",
            found=", ".join(f"model.{field}={getattr(config, field)}" for field in given),
            expected=f"another model.name, or no model.{', no model.'.join(given)}",
            command="terrazzo models",
        )


# The code of every network here is ours, Apache-2.0. The published MiT and SegFormer weights are NVIDIA's,
# for non-commercial research and evaluation only; what is fine-tuned from them inherits that, what starts
# from random weights does not.
MODELS: Mapping[str, Builder] = {
    "segformer-b0": _segformer("b0"),  # 3.7 M parameters
    "segformer-b1": _segformer("b1"),  # 13.7 M
    "segformer-b2": _segformer("b2"),  # 27.4 M
    "segformer-b3": _segformer("b3"),  # 47.2 M
    "segformer-b4": _segformer("b4"),  # 64.0 M
    "segformer-b5": _segformer("b5"),  # 84.6 M
    "fcn": _segmenter("fcn"),  # 49.5 M; these five on ResNet-50, auxiliary head included
    "pspnet": _segmenter("pspnet"),  # 49.0 M
    "deeplabv3": _segmenter("deeplabv3"),  # 68.1 M
    "deeplabv3plus": _segmenter("deeplabv3plus"),  # 43.6 M
    "upernet": _segmenter("upernet"),  # 66.4 M
    "unet": _segmenter("unet"),
    # OpenMMLab's, on MiT-B0; the weights of the others do not fit it
    "segformer-conv": _segmenter("segformer-conv"),
    "nearfar": _segmenter("nearfar"),  # 1.4 M, ours: for small images and little data
    # whatever transformers builds of the folder or Hub id that is model.pretrained
    "huggingface": _huggingface,
}
