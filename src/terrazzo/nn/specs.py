"""The specs of full-width networks, as published: what a recipe's `model` section stands for.

Plain dicts for `segmenter.assemble`; no torch here, so that recipes and names can be read without it. Widths, dilations
and auxiliary heads are those of OpenMMLab's configs: heads of 512 channels, a quarter of that on ResNet-18 and 34, and
few on a U-Net, whose finest map is as large as the image.
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
MITS: Mapping[str, str] = {f"mit_b{size}": f"b{size}" for size in range(6)}
"""Name -> which of `segformer.SIZES`; its layer norms have eps 1e-6, as OpenMMLab's."""
UNET = "unet"  # OpenMMLab's unet-s5-d16: maps at strides 1 to 16
TIMM = "timm/"  # before the names of timm's backbones
OUTPUT_STRIDES = (8, 16, 32)
DILATIONS = {8: [1, 12, 24, 36], 16: [1, 6, 12, 18], 32: [1, 3, 6, 9]}  # DeepLab's, by output stride

Spec = dict[str, Any]


def fcn(config: "ModelConfig") -> Spec:
    """FCN on a dilated ResNet, or on a U-Net."""
    if config.backbone == UNET:
        return _on_unet("fcn", config, {"channels": 64, "num_convs": 1, "concat_input": False})
    backbone, quarter = _dilated(config)
    head = {"channels": 512 // quarter, "in_index": 3, "num_convs": 2, "concat_input": True}
    return _spec("fcn", config, backbone, head, _auxiliary(quarter))


def pspnet(config: "ModelConfig") -> Spec:
    """PSPNet on a dilated ResNet, or on a U-Net."""
    if config.backbone == UNET:
        return _on_unet("pspnet", config, {"channels": 16, "pool_scales": [1, 2, 3, 6]})
    backbone, quarter = _dilated(config)
    head = {"channels": 512 // quarter, "in_index": 3, "pool_scales": [1, 2, 3, 6]}
    return _spec("pspnet", config, backbone, head, _auxiliary(quarter))


def deeplabv3(config: "ModelConfig") -> Spec:
    """DeepLabV3 on a dilated ResNet, or on a U-Net."""
    if config.backbone == UNET:
        return _on_unet("deeplabv3", config, {"channels": 16, "dilations": DILATIONS[8]})
    backbone, quarter = _dilated(config)
    dilations = DILATIONS[backbone.get("output_stride", 32)]
    head = {"channels": 512 // quarter, "in_index": 3, "dilations": dilations}
    return _spec("deeplabv3", config, backbone, head, _auxiliary(quarter))


def deeplabv3plus(config: "ModelConfig") -> Spec:
    """DeepLabV3+ on a dilated ResNet."""
    backbone, quarter = _dilated(config)
    dilations = DILATIONS[backbone.get("output_stride", 32)]
    head = {"channels": 512 // quarter, "c1_channels": 48 // quarter, "in_index": 3, "dilations": dilations}
    return _spec("deeplabv3plus", config, backbone, head, _auxiliary(quarter))


def upernet(config: "ModelConfig") -> Spec:
    """UPerNet on a ResNet that is not dilated; its head has 512 channels on every one."""
    backbone = backbone_spec(config.backbone or "resnet50_v1c", config.output_stride or 32, config)
    head = {"channels": 512, "pool_scales": [1, 2, 3, 6]}
    return _spec("upernet", config, backbone, head, _auxiliary(1))


def unet(config: "ModelConfig") -> Spec:
    """U-Net: an FCN on the finest map of its own backbone."""
    _refuse_other(config, "U-Net", backbones=(UNET,), output_strides=(16,))
    return _on_unet("unet", config, {"channels": 64, "num_convs": 1, "concat_input": False})


def nearfar(config: "ModelConfig") -> Spec:
    """NearFar: 1.4 M parameters with 11 classes, the auxiliary head's 56 thousand included."""
    _refuse_other(config, "NearFar", backbones=("nearfar",), output_strides=(16,))
    if config.multi_grid:
        raise _no_multi_grid("NearFar", config)
    backbone = {
        "kind": "nearfar",
        "widths": [32, 48, 96, 192],
        "depths": [2, 4, 9],
        "dilations": [1, 2, 1, 4, 1, 6, 1, 8, 1],
        "group_channels": 16,
        "squeeze": 4,
    }
    auxiliary = {"channels": 64, "in_index": 2, "num_convs": 1, "concat_input": False}
    return _spec("nearfar", config, backbone, {"channels": [64, 96, 96]}, auxiliary)


def segformer_conv(config: "ModelConfig") -> Spec:
    """OpenMMLab's SegFormer, on MiT-B0 where no backbone is named."""
    backbone = backbone_spec(config.backbone or "mit_b0", config.output_stride or 32, config)
    return _spec("segformer-conv", config, backbone, {"channels": 256}, None)


def backbone_spec(name: str, output_stride: int, config: "ModelConfig") -> Spec:
    """Return the spec of a backbone by the name a recipe calls it; output_stride is 8, 16 or 32.

    config: says how deep blocks are dropped while training. Raises UnknownNameError with the nearest names, and
    RecipeError for a stride that the backbone does not have. timm's names are checked where the backbone is built.
    """
    from terrazzo.nn import drop_path_of

    if output_stride not in OUTPUT_STRIDES:
        raise RecipeError(f"model.output_stride is {output_stride}.", expected="one of 8, 16, 32")
    if config.multi_grid and name not in RESNETS:
        raise _no_multi_grid(name, config)
    if name.startswith(TIMM):
        name, drop_path = name.removeprefix(TIMM), drop_path_of(config)
        return {"kind": "timm", "name": name, "output_stride": output_stride, "drop_path": drop_path}
    if name in MITS:
        return _mit(MITS[name], drop_path=drop_path_of(config), output_stride=output_stride)
    if name not in RESNETS:
        raise unknown_name("backbone", name, [*RESNETS, *MITS, UNET, f"{TIMM}NAME"])
    depth, variant = RESNETS[name]
    return {
        "kind": "resnet",
        "depth": depth,
        "variant": variant,
        "stem_channels": 64,
        "base_channels": 64,
        "output_stride": output_stride,
        "multi_grid": list(config.multi_grid) or None,
        "contract_dilation": True,
    }


def _dilated(config: "ModelConfig") -> tuple[Spec, int]:
    """The backbone of a head that reads one dilated map, and by what the head's widths are divided."""
    backbone = backbone_spec(config.backbone or "resnet50_v1c", config.output_stride or 8, config)
    return backbone, 4 if backbone.get("depth") in (18, 34) else 1


def _mit(size: str, *, drop_path: float, output_stride: int) -> Spec:
    if output_stride != 32:
        raise RecipeError(
            f"mit_{size} shrinks the image 32 times, and cannot be dilated.",
            found=f"an architecture that reads a map at stride {output_stride}",
            hint="Say that a coarser map will do, or choose a ResNet:",
            command="model.output_stride=32",
        )
    from terrazzo.nn.segformer import SIZES  # with torch, which whoever builds this needs anyway

    fields = ("depths", "hidden_sizes", "num_heads", "reductions", "mlp_ratios", "patch_sizes", "strides")
    numbers = {field: list(getattr(SIZES[size], field)) for field in fields}
    return {"kind": "mit", **numbers, "norm_eps": 1e-6, "drop_path": drop_path}


def _on_unet(architecture: str, config: "ModelConfig", head: Spec) -> Spec:
    """A head on the finest map of a U-Net, an auxiliary one on the next."""
    _refuse_other(config, "U-Net", backbones=(UNET,), output_strides=(16,))
    if config.multi_grid:
        raise _no_multi_grid("U-Net", config)
    auxiliary = {"channels": 64, "in_index": 1, "num_convs": 1, "concat_input": False}
    return _spec(
        architecture, config, {"kind": "unet", "base_channels": 64}, {"in_index": 0, **head}, auxiliary
    )


def _refuse_other(
    config: "ModelConfig", what: str, *, backbones: tuple[str, ...], output_strides: tuple[int, ...]
) -> None:
    """RecipeError where config names another backbone, or a stride that this one does not have."""
    for field, value, known in (
        ("backbone", config.backbone or backbones[0], backbones),
        ("output_stride", config.output_stride or output_strides[0], output_strides),
    ):
        if value not in known:
            raise RecipeError(
                f"{what} has no {field} to choose.",
                found=f"model.{field}={value}",
                expected=f"no model.{field}, or {', '.join(map(str, known))}",
            )


def _no_multi_grid(what: str, config: "ModelConfig") -> RecipeError:
    given = ",".join(map(str, config.multi_grid))
    return RecipeError(
        f"{what} has no multi_grid to choose.",
        found=f"model.multi_grid={given}",
        expected="a ResNet, or none",
    )


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
    "upernet": upernet,
    "unet": unet,
    "segformer-conv": segformer_conv,
    "nearfar": nearfar,
}
"""Name in `MODELS` -> its spec from a recipe's `model` section."""
