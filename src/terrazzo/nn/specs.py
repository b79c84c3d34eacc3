"""The specs of full-width networks, as published: what a recipe's `model` section stands for.

Plain dicts for `segmenter.assemble`; no torch here, so that recipes and names can be read without it. Widths, dilations
and auxiliary heads are those of OpenMMLab's configs: heads of 512 channels, a quarter of that on ResNet-18 and 34.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from terrazzo.errors import RecipeError, unknown_name

if TYPE_CHECKING:
    from terrazzo.nn import ModelConfig

RESNETS: Mapping[str, tuple[int, str]] = {
    f"resnet{depth}_{variant}": (depth, variant)
    for depth in (18, 34, 50, 101, 152)
    for variant in ("v1b", "v1c", "v1d")
}
"""Name -> depth and variant: v1b has one 7x7 convolution as its stem (torchvision's), v1c three 3x3, v1d also pools its
shortcuts."""
TIMM = "timm/"  # before the names of timm's backbones
OUTPUT_STRIDES = (8, 16, 32)
DILATIONS = {8: [1, 12, 24, 36], 16: [1, 6, 12, 18], 32: [1, 3, 6, 9]}  # DeepLab's, by output stride

Spec = dict[str, Any]


def fcn(config: "ModelConfig") -> Spec:
    """FCN on a dilated ResNet."""
    backbone, quarter = _dilated(config)
    head = {"channels": 512 // quarter, "in_index": 3, "num_convs": 2, "concat_input": True}
    return _spec("fcn", config, backbone, head, _auxiliary(quarter))


def pspnet(config: "ModelConfig") -> Spec:
    """PSPNet on a dilated ResNet."""
    backbone, quarter = _dilated(config)
    head = {"channels": 512 // quarter, "in_index": 3, "pool_scales": [1, 2, 3, 6]}
    return _spec("pspnet", config, backbone, head, _auxiliary(quarter))


def deeplabv3(config: "ModelConfig") -> Spec:
    """DeepLabV3 on a dilated ResNet."""
    backbone, quarter = _dilated(config)
    dilations = DILATIONS[backbone["output_stride"]]
    head = {"channels": 512 // quarter, "in_index": 3, "dilations": dilations}
    return _spec("deeplabv3", config, backbone, head, _auxiliary(quarter))


def deeplabv3plus(config: "ModelConfig") -> Spec:
    """DeepLabV3+ on a dilated ResNet."""
    backbone, quarter = _dilated(config)
    dilations = DILATIONS[backbone["output_stride"]]
    head = {"channels": 512 // quarter, "c1_channels": 48 // quarter, "in_index": 3, "dilations": dilations}
    return _spec("deeplabv3plus", config, backbone, head, _auxiliary(quarter))


def backbone_spec(name: str, output_stride: int) -> Spec:
    """Return the spec of a backbone by the name a recipe calls it; output_stride is 8, 16 or 32.

    Raises UnknownNameError with the nearest names. timm's names are checked where the backbone is built.
    """
    if output_stride not in OUTPUT_STRIDES:
        raise RecipeError(f"model.output_stride is {output_stride}.", expected="one of 8, 16, 32")
    if name.startswith(TIMM):
        return {"kind": "timm", "name": name.removeprefix(TIMM), "output_stride": output_stride}
    if name not in RESNETS:
        raise unknown_name("backbone", name, [*RESNETS, f"{TIMM}NAME"])
    depth, variant = RESNETS[name]
    return {
        "kind": "resnet",
        "depth": depth,
        "variant": variant,
        "stem_channels": 64,
        "base_channels": 64,
        "output_stride": output_stride,
        "multi_grid": None,
        "contract_dilation": True,
    }


def _dilated(config: "ModelConfig") -> tuple[Spec, int]:
    """The backbone of a head that reads one dilated map, and by what the head's widths are divided."""
    backbone = backbone_spec(config.backbone or "resnet50_v1c", config.output_stride or 8)
    return backbone, 4 if backbone.get("depth") in (18, 34) else 1


def _auxiliary(quarter: int) -> Spec:
    return {"channels": 256 // quarter, "in_index": 2, "num_convs": 1, "concat_input": False}


def _spec(
    architecture: str, config: "ModelConfig", backbone: Spec, head: Spec, auxiliary: Spec | None
) -> Spec:
    return {
        "architecture": architecture,
        "backbone": backbone,
        "head": head,
        "auxiliary": auxiliary,
        "dropout": config.dropout,
        "align_corners": config.align_corners,
    }


SPECS: Mapping[str, Callable[["ModelConfig"], Spec]] = {
    "fcn": fcn,
    "pspnet": pspnet,
    "deeplabv3": deeplabv3,
    "deeplabv3plus": deeplabv3plus,
}
"""Name in `MODELS` -> its spec from a recipe's `model` section."""
