"""Which network an OpenMMLab checkpoint holds: the spec to build it from.

Widths, depths, stems, heads and the count of classes are read from the shapes of the tensors, which cannot be wrong;
strides, dilations, pooled sizes and how maps are resized leave no trace in them and are read from the config. Facts of
MMSegmentation 0.x and 1.x: what their modules are called, and the defaults of what a config leaves out. No code of
theirs is here.

Shapes: D channels out, C channels in, k kernel.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from terrazzo.errors import WeightsError
from terrazzo.nn.config_text import Unread, shown
from terrazzo.nn.files import listed
from terrazzo.nn.openmmlab_names import MIT, Tensors, is_theirs
from terrazzo.nn.resnet import BASIC, BLOCKS, STAGES

Spec = dict[str, Any]

HEADS = {  # their class -> our architecture
    "FCNHead": "fcn",
    "PSPHead": "pspnet",
    "ASPPHead": "deeplabv3",
    "DepthwiseSeparableASPPHead": "deeplabv3plus",
    "UPerHead": "upernet",
    "SegformerHead": "segformer-conv",
}
BACKBONES = {  # their class -> our kind
    "ResNet": "resnet",
    "ResNetV1c": "resnet",
    "ResNetV1d": "resnet",
    "MixVisionTransformer": "mit",
    "UNet": "unet",
}
STEMS = ("backbone.stem.0.weight", "backbone.conv1.weight", MIT,
         "backbone.encoder.0.0.convs.0.conv.weight")  # fmt: skip
DETECTORS = (
    "bbox_head.",
    "rpn_head.",
    "roi_head.",
    "mask_head.",
    "panoptic_head.",
    "query_head.",
    "bbox_embed.",
)
PUBLISHED_DILATIONS = {8: [1, 12, 24, 36], 16: [1, 6, 12, 18]}  # of DeepLab's heads, by output stride


@dataclass(frozen=True)
class Config:
    """A config's values, asked for by their path; empty where a checkpoint has none."""

    values: Mapping[str, Any]
    where: str

    def get(self, *path: str, default: Any = None) -> Any:
        """Return the value at `path`, `default` where there is none; WeightsError where only running it would tell."""
        value: Any = self.values
        for position, name in enumerate(path):
            if not isinstance(value, Mapping) or value.get(name) is None:
                return default
            value = value[name]
            if isinstance(value, Unread):
                raise WeightsError(
                    f"The config of {self.where} cannot be read without running it.",
                    found=f"{'.'.join(path[: position + 1])} = {value.source}",
                    expected="a plain value",
                    hint="Write the value itself into a copy of the config and pass that one: config=…",
                )
        return value

    def numbers(
        self, *path: str, default: Sequence[float], kinds: type | tuple[type, ...] = int
    ) -> list[Any]:
        """Return the list of numbers at `path`."""
        found = self.get(*path, default=default)
        if not isinstance(found, list | tuple) or not all(isinstance(one, kinds) for one in found):
            raise self.wrong(*path, found=found, expected="a list of numbers")
        return list(found)

    def number(self, *path: str, default: float) -> float:
        """Return the number at `path`."""
        found = self.get(*path, default=default)
        if not isinstance(found, int | float):
            raise self.wrong(*path, found=found, expected="a number")
        return float(found)

    def wrong(self, *path: str, found: Any, expected: str) -> WeightsError:
        """Return the error for a value that terrazzo's networks cannot have."""
        return WeightsError(
            f"The config of {self.where} asks for what terrazzo does not have.",
            found=f"{'.'.join(path)} = {shown(found)}",
            expected=expected,
        )


def spec_of(tensors: Tensors, config: Config, *, name: str) -> tuple[Spec, list[str]]:
    """Return the spec of the network in `tensors` (their names), and what a user should hear.

    name: of the file, whose "-d8" says the output stride where there is no config. Raises WeightsError for networks we
    do not have, and for what only the config could tell.
    """
    _refuse_others(tensors, config)
    if config.values and not isinstance(config.get("model"), Mapping):
        raise WeightsError(
            f"The config of {config.where} describes no model.",
            found=listed(sorted(map(str, config.values))),
            expected="model = dict(backbone=dict(…), decode_head=dict(…), …)",
        )
    said: list[str] = []
    kind = _backbone_kind(tensors, config)
    architecture = _architecture(tensors, config)
    if kind == "unet" and architecture == "fcn":
        architecture = "unet"
    _refuse_options(config)
    if kind == "resnet":
        backbone = _resnet(tensors, config, architecture, name, said)
        widths = [
            backbone["base_channels"] * (1 if backbone["depth"] in BASIC else 4) * 2**stage
            for stage in range(4)
        ]
    elif kind == "mit":
        backbone = _mit(tensors, config)
        widths = list(backbone["hidden_sizes"])
    else:
        backbone = _unet(tensors, config)
        widths = [backbone["base_channels"] * 2**stage for stage in range(backbone.get("num_stages", 5))]
    spec = {
        "architecture": architecture,
        "backbone": backbone,
        "head": _head(architecture, tensors, config, widths, backbone.get("output_stride", 32)),
        "auxiliary": _auxiliary(tensors, config, widths, said),
        "dropout": config.number("model", "decode_head", "dropout_ratio", default=0.1),
        "align_corners": _align_corners(config, name, said),
    }
    return spec, said


def count_classes(tensors: Tensors) -> int:
    """Return the rows of the classifier."""
    weight = tensors.get("decode_head.conv_seg.weight")
    if weight is None or weight.ndim != 4:
        raise WeightsError(
            "The head of this checkpoint has no classifier that terrazzo knows.",
            found="no decode_head.conv_seg.weight (D, C, 1, 1)",
            expected=f"one of {', '.join(HEADS)}",
        )
    return int(weight.shape[0])


# the backbone -------------------------------------------------------------------------------------------


def _backbone_kind(tensors: Tensors, config: Config) -> str:
    named = config.get("model", "backbone", "type")
    kind = str(named).rpartition(".")[2] if isinstance(named, str) else None
    if kind is not None and kind not in BACKBONES:
        raise _no_such("backbone", kind, BACKBONES)
    if any(stem in tensors for stem in STEMS[:2]) and "backbone.layer4.0.conv1.weight" in tensors:
        return "resnet"
    if STEMS[2] in tensors and "backbone.layers.0.1.0.attn.attn.in_proj_weight" in tensors:
        return "mit"
    if STEMS[3] in tensors:
        return "unet"
    modules = sorted({".".join(name.split(".")[:2]) for name in tensors if name.startswith("backbone.")})
    raise _no_such("backbone", kind or f"one of {listed(modules)}", BACKBONES)


def _resnet(tensors: Tensors, config: Config, architecture: str, name: str, said: list[str]) -> Spec:
    is_basic = "backbone.layer1.0.conv3.weight" not in tensors
    blocks = tuple(_count(tensors, f"backbone.layer{stage}.") for stage in range(1, 5))
    depths = [depth for depth, known in BLOCKS.items() if known == blocks and (depth in BASIC) == is_basic]
    if not depths:
        raise _no_such("ResNet", f"blocks {blocks}", [str(depth) for depth in BLOCKS])
    is_deep = STEMS[0] in tensors
    pools = is_deep and "backbone.layer2.0.downsample.1.weight" in tensors
    if pools and tensors["backbone.layer2.0.downsample.1.weight"].ndim != 4:
        pools = False  # that is the norm of a shortcut without a pool
    second = _of(tensors, "backbone.layer1.0.conv2.weight")
    base = int(_of(tensors, "backbone.layer1.0.conv1.weight").shape[0])
    if tuple(second.shape[:2]) != (base, base):
        raise _no_such(
            "ResNet", f"grouped or widened convolutions of shape {tuple(second.shape)}", ["plain ones"]
        )
    stem = _of(tensors, "backbone.stem.6.weight" if is_deep else STEMS[1])
    if config.get("model", "backbone", "style", default="pytorch") != "pytorch":
        raise config.wrong(
            "model", "backbone", "style", found="caffe", expected="'pytorch', the stride on the 3x3"
        )
    outputs = config.numbers("model", "backbone", "out_indices", default=(0, 1, 2, 3))
    if outputs != [0, 1, 2, 3]:
        raise config.wrong("model", "backbone", "out_indices", found=outputs, expected="(0, 1, 2, 3)")
    return {
        "kind": "resnet",
        "depth": depths[0],
        "variant": "v1d" if pools else "v1c" if is_deep else "v1b",
        "stem_channels": int(stem.shape[0]),
        "base_channels": base,
        "output_stride": _output_stride(config, architecture, name, said),
        "multi_grid": config.get("model", "backbone", "multi_grid"),
        "contract_dilation": bool(
            config.get("model", "backbone", "contract_dilation", default=not config.values)
        ),
    }


def _output_stride(config: Config, architecture: str, name: str, said: list[str]) -> int:
    if config.values:
        strides = config.numbers("model", "backbone", "strides", default=(1, 2, 2, 2))
        dilations = config.numbers("model", "backbone", "dilations", default=(1, 1, 1, 1))
        for stride, stages in STAGES.items():
            if (tuple(strides), tuple(dilations)) == stages:
                return stride
        known = "; ".join(f"{one} with {other}" for one, other in STAGES.values())
        raise config.wrong(
            "model", "backbone", "strides with dilations", found=[*strides, *dilations], expected=known
        )
    told = re.search(r"[-_]d(8|16|32)(?=[-_.])", name)
    if told:
        said.append(f"output stride {told[1]}, by the name of the file, for it holds no config")
        return int(told[1])
    if architecture == "upernet":
        said.append("output stride 32, as every published UPerNet's, for the file holds no config")
        return 32
    raise WeightsError(
        f"{config.where} holds no config, and its tensors do not tell how far its backbone is dilated.",
        found="no text under meta's cfg or config, and no -d8, -d16 or -d32 in the name",
        hint="Pass the config it was trained with:",
        command=f'terrazzo.load("{name}", config="CONFIG.py")     terrazzo evaluate {name} --config CONFIG.py …',
    )


def _mit(tensors: Tensors, config: Config) -> Spec:
    stages = range(_count(tensors, "backbone.layers."))
    openings = [_of(tensors, f"backbone.layers.{s}.0.projection.weight") for s in stages]
    widths = [int(opening.shape[0]) for opening in openings]

    def shape(stage: int, name: str) -> tuple[int, ...] | None:
        name = f"backbone.layers.{stage}.1.0.{name}"
        return tuple(_of(tensors, name).shape) if name in tensors else None

    reductions = [(shape(s, "attn.sr.weight") or (1, 1, 1, 1))[-1] for s in stages]
    ratios = [(shape(s, "ffn.layers.0.weight") or (0,))[0] // widths[s] for s in stages]
    return {
        "kind": "mit",
        "depths": [_count(tensors, f"backbone.layers.{s}.1.") for s in stages],
        "hidden_sizes": widths,
        "num_heads": config.numbers("model", "backbone", "num_heads", default=(1, 2, 5, 8)),
        "reductions": reductions,
        "mlp_ratios": ratios,
        "patch_sizes": [int(opening.shape[-1]) for opening in openings],
        "strides": config.numbers("model", "backbone", "strides", default=(4, 2, 2, 2)),
        "norm_eps": 1e-6,  # their MiT's, everywhere
        "drop_path": config.number("model", "backbone", "drop_path_rate", default=0.1),
    }


def _unet(tensors: Tensors, config: Config) -> Spec:
    at = ("model", "backbone")
    if set(config.numbers(*at, "strides", default=(1,))) != {1}:
        raise config.wrong(*at, "strides", found=config.get(*at, "strides"), expected="1 everywhere")
    if not all(config.numbers(*at, "downsamples", default=(True,))):
        raise config.wrong(
            *at, "downsamples", found=config.get(*at, "downsamples"), expected="True everywhere"
        )
    spec: Spec = {"kind": "unet", "base_channels": int(_of(tensors, STEMS[3]).shape[0])}
    stages = _count(tensors, "backbone.encoder.")
    return spec if stages == 5 else {**spec, "num_stages": stages}


# the heads ----------------------------------------------------------------------------------------------


def _architecture(tensors: Tensors, config: Config) -> str:
    named = config.get("model", "decode_head")
    if isinstance(named, list) or any(name.startswith("decode_head.0.") for name in tensors):
        raise _no_such("head", "a cascade of heads", HEADS)
    kind = config.get("model", "decode_head", "type")
    if isinstance(kind, str):
        kind = kind.rpartition(".")[2]
        if kind not in HEADS:
            raise _no_such("head", kind, HEADS)
        return HEADS[kind]
    modules = {name.split(".")[1] for name in tensors if name.startswith("decode_head.")} - {"conv_seg"}
    for architecture, needed in (
        ("upernet", {"psp_modules", "lateral_convs", "fpn_convs", "fpn_bottleneck", "bottleneck"}),
        ("segformer-conv", {"convs", "fusion_conv"}),
        ("pspnet", {"psp_modules", "bottleneck"}),
        ("deeplabv3plus", {"image_pool", "aspp_modules", "bottleneck", "c1_bottleneck", "sep_bottleneck"}),
        ("deeplabv3", {"image_pool", "aspp_modules", "bottleneck"}),
        ("fcn", {"convs", "conv_cat"}),
        ("fcn", {"convs"}),
    ):
        if modules == needed:
            return architecture
    raise _no_such("head", f"one of {listed(sorted(modules)) or 'a classifier alone'}", HEADS)


def _head(
    architecture: str, tensors: Tensors, config: Config, widths: Sequence[int], output_stride: int
) -> Spec:
    def out(name: str) -> int:
        return int(_of(tensors, f"decode_head.{name}").shape[0])

    at = ("model", "decode_head")
    if architecture in ("fcn", "unet"):
        return _fcn(tensors, config, "decode_head", widths)
    if architecture == "segformer-conv":
        mode = config.get(*at, "interpolate_mode", default="bilinear")
        if mode != "bilinear":
            raise config.wrong(*at, "interpolate_mode", found=mode, expected="'bilinear'")
        return {"channels": out("fusion_conv.conv.weight")}
    scales = config.numbers(*at, "pool_scales", default=(1, 2, 3, 6))
    if architecture == "upernet":
        return {"channels": out("bottleneck.conv.weight"), "pool_scales": scales}
    index = _in_index(config, at, int(_of(tensors, _reads(architecture)).shape[1]), widths)
    if architecture == "pspnet":
        return {"channels": out("bottleneck.conv.weight"), "in_index": index, "pool_scales": scales}
    dilations = config.numbers(
        *at, "dilations", default=PUBLISHED_DILATIONS.get(output_stride, (1, 6, 12, 18))
    )
    head: Spec = {"channels": out("bottleneck.conv.weight"), "in_index": index, "dilations": dilations}
    if architecture == "deeplabv3plus":
        head["c1_channels"] = out("c1_bottleneck.conv.weight")
    return head


def _reads(architecture: str) -> str:
    """A tensor whose inputs are the map that the head reads."""
    return (
        "decode_head.psp_modules.0.1.conv.weight"
        if architecture == "pspnet"
        else "decode_head.image_pool.1.conv.weight"
    )


def _fcn(tensors: Tensors, config: Config, head: str, widths: Sequence[int]) -> Spec:
    at = ("model", head)
    if config.get(*at, "dilation", default=1) != 1:
        raise config.wrong(*at, "dilation", found=config.get(*at, "dilation"), expected="1")
    num_convs = _count(tensors, f"{head}.convs.")
    classifier = _of(tensors, f"{head}.conv_seg.weight")
    first = _of(tensors, f"{head}.convs.0.conv.weight") if num_convs else classifier
    spec: Spec = {
        "channels": int(classifier.shape[1]),
        "in_index": _in_index(config, at, int(first.shape[1]), widths),
        "num_convs": num_convs,
        "concat_input": f"{head}.conv_cat.conv.weight" in tensors,
    }
    if num_convs and first.shape[-1] != 3:
        spec["kernel_size"] = int(first.shape[-1])
    return spec


def _in_index(config: Config, at: tuple[str, ...], inputs: int, widths: Sequence[int]) -> int:
    """Which map a head reads: the config's word, or the one of as many channels."""
    told = config.get(*at, "in_index")
    if isinstance(told, int) and -len(widths) <= told < len(widths):
        is_coarsest_first = str(config.get("model", "backbone", "type")).endswith("UNet")
        return (len(widths) - 1 - told if is_coarsest_first else told) % len(widths)
    fits = [index for index, width in enumerate(widths) if width == inputs]
    if told is not None or not fits:
        raise config.wrong(
            *at, "in_index", found=told, expected=f"one map of {len(widths)}, of {inputs} channels"
        )
    return fits[-1]


def _auxiliary(tensors: Tensors, config: Config, widths: Sequence[int], said: list[str]) -> Spec | None:
    """The auxiliary head where it is one FCN; others serve training alone, and are left out with a word."""
    names = [name for name in tensors if name.startswith("auxiliary_head.")]
    if not names:
        return None
    known = ("auxiliary_head.convs.", "auxiliary_head.conv_cat.", "auxiliary_head.conv_seg.")
    main, own = tensors.get("decode_head.conv_seg.weight"), tensors.get("auxiliary_head.conv_seg.weight")
    if (
        own is None
        or main is None
        or own.shape[:1] != main.shape[:1]
        or not all(n.startswith(known) for n in names)
    ):
        said.append(
            "its auxiliary heads are left out: they are not one FCN of the same classes, and serve training alone"
        )
        return None
    return _fcn(tensors, config, "auxiliary_head", widths)


def _align_corners(config: Config, name: str, said: list[str]) -> bool:
    if config.values:
        return bool(config.get("model", "decode_head", "align_corners", default=False))
    is_769 = "769x769" in name
    told = "true, as in every published 769x769 model" if is_769 else "false"
    said.append(f"align_corners {told}, for the file holds no config")
    return is_769


# what is refused ----------------------------------------------------------------------------------------


def _refuse_others(tensors: Tensors, config: Config) -> None:
    """Refuse what is no segmentation network: each kind with its sentence."""
    if is_theirs(tensors):
        if any(name.startswith("neck.") for name in tensors):
            neck = config.get("model", "neck", "type", default="neck")
            raise _no_such("neck", str(neck), ["none between backbone and head"])
        return
    if any(name.startswith(DETECTORS) for name in tensors):
        kind = config.get("model", "type", default="a detector")
        raise WeightsError(
            f"{config.where} is a checkpoint of a detector, not of semantic segmentation.",
            found=f"{kind}: {listed(sorted({n.split('.')[0] for n in tensors}))}",
            expected=f"a decode_head: {', '.join(HEADS)}",
            hint="Its backbone can start a training, where it is one of ours:",
            command=f"terrazzo train pspnet … model.pretrained={config.where}",
        )
    raise WeightsError(
        f"{config.where} holds no segmentation network.",
        found=listed(sorted({n.split(".")[0] for n in tensors})) or "no tensors",
        expected="backbone and decode_head, as MMSegmentation saves them",
        hint="A backbone alone gives features and no classes; it can start a training:",
        command=f"terrazzo train pspnet … model.pretrained={config.where}",
    )


def _refuse_options(config: Config) -> None:
    """Refuse what would change the arithmetic without leaving a trace in the tensors."""
    for part in ("backbone", "decode_head"):
        eps = config.get("model", part, "norm_cfg", "eps", default=1e-5)
        if eps != 1e-5:
            raise config.wrong("model", part, "norm_cfg", "eps", found=eps, expected="1e-05")
        activation = config.get("model", part, "act_cfg", "type", default="ReLU")
        if activation != ("GELU" if activation == "GELU" and part == "backbone" else "ReLU"):
            raise config.wrong("model", part, "act_cfg", "type", found=activation, expected="'ReLU'")
    transform = config.get("model", "decode_head", "input_transform")
    if transform not in (None, "multiple_select"):
        raise config.wrong("model", "decode_head", "input_transform", found=transform, expected="None")


def _no_such(what: str, found: str, known: Mapping[str, str] | Sequence[str]) -> WeightsError:
    return WeightsError(
        f"This checkpoint has a {what} that terrazzo does not have.",
        found=found,
        expected=f"one of {', '.join(known)}",
        hint="`terrazzo models` lists the networks there are. Nothing was loaded.",
    )


def _of(tensors: Tensors, name: str, dims: int = 4) -> Tensor:
    """The tensor of that name, of `dims` dimensions."""
    found = tensors.get(name)
    if found is None or found.ndim != dims:
        raise WeightsError(
            "The checkpoint lacks a tensor that its kind of network has.",
            found=f"no {name}" if found is None else f"{name} of shape {tuple(found.shape)}",
            expected=f"{name} of {dims} dimensions",
        )
    return found


def _count(tensors: Tensors, prefix: str) -> int:
    """How many numbered modules follow `prefix`."""
    return len({name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix)})
