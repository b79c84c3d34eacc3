"""Checkpoints as MMSegmentation writes them, of small networks of ours: its names of tensors and its config by hand."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.nn.segmenter import assemble

CLASSES = ("road", "car", "sky")
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
RESNET = {"kind": "resnet", "depth": 18, "variant": "v1c", "stem_channels": 8, "base_channels": 4, "output_stride": 8,
          "multi_grid": None, "contract_dilation": True}  # fmt: skip
MIT = {"kind": "mit", "depths": [2, 2, 2, 2], "hidden_sizes": [4, 8, 20, 32], "num_heads": [1, 2, 5, 8],
       "reductions": [8, 4, 2, 1], "mlp_ratios": [4, 4, 4, 4], "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2],
       "norm_eps": 1e-6, "drop_path": 0.1}  # fmt: skip
AUXILIARY = {"channels": 4, "in_index": 2, "num_convs": 1, "concat_input": False}
PSP = {"channels": 6, "in_index": 3, "pool_scales": [1, 2, 3, 6]}
HEAD_TYPES = {"fcn": "FCNHead", "unet": "FCNHead", "pspnet": "PSPHead", "deeplabv3": "ASPPHead", "upernet": "UPerHead",
              "deeplabv3plus": "DepthwiseSeparableASPPHead", "segformer-conv": "SegformerHead"}  # fmt: skip
STAGES = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2)), 32: ((1, 2, 2, 2), (1, 1, 1, 1))}


def spec(architecture: str = "pspnet", head: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What a narrow PSPNet on ResNet-18 is made of, with changes to it or to its backbone."""
    own = {key: changes.pop(key) for key in list(changes) if key in RESNET}
    return {"architecture": architecture, "backbone": RESNET | own, "head": head or PSP, "auxiliary": AUXILIARY,
            "dropout": 0.1, "align_corners": False} | changes  # fmt: skip


def segformer(*depths: int) -> dict[str, Any]:
    """What a narrow SegFormer of these depths is made of."""
    return {"architecture": "segformer-conv", "backbone": MIT | {"depths": list(depths)}, "head": {"channels": 6},
            "auxiliary": None, "dropout": 0.1, "align_corners": False}  # fmt: skip


def network_of(spec: dict[str, Any], num_classes: int = 3, *, seed: int = 0) -> nn.Module:
    """The network, its batch norms no longer those of a fresh one."""
    torch.manual_seed(seed)
    network = assemble(spec, num_classes=num_classes).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def checkpoint(
    path: Path, network: nn.Module, text: str | None, *, names: Any = CLASSES, **more: Any
) -> Path:
    """Save a network of ours under MMSegmentation\'s names, with a config\'s text and the names of classes."""
    meta: dict[str, Any] = {"mmengine_version": "0.10.7", "seed": 0}
    if text is not None:
        meta["cfg"] = text
    if names is not None:
        meta["dataset_meta"] = {"classes": tuple(names), "palette": [[i, i, i] for i in range(len(names))]}
    torch.save({"meta": meta, "state_dict": their_names(network)} | more, path)
    return path


def changed(path: Path, **tensors: Tensor | None) -> Path:
    """The same checkpoint with tensors replaced, added, or (None) removed; __ stands for a dot."""
    value = torch.load(path, weights_only=True)
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del value["state_dict"][key]
        else:
            value["state_dict"][key] = tensor
    torch.save(value, path)
    return path


def config(spec: dict[str, Any], num_classes: int = 3, **more: Any) -> str:
    """A config of 1.x as text, with what a spec says that no tensor tells."""
    backbone, head = spec["backbone"], spec["head"]
    strides, dilations = STAGES.get(backbone.get("output_stride", 32), STAGES[32])
    told: dict[str, Any] = {"type": "MixVisionTransformer", "num_heads": backbone.get("num_heads")}
    if backbone["kind"] == "resnet":
        told = {"type": "ResNetV1c", "depth": backbone["depth"], "strides": strides, "dilations": dilations,
                "contract_dilation": True, "multi_grid": backbone["multi_grid"]}  # fmt: skip
    if backbone["kind"] == "unet":
        told, head = {"type": "UNet", "base_channels": 4}, head | {"in_index": 4}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "bgr_to_rgb": True, "mean": MEAN, "std": STD},
        "backbone": told,
        "decode_head": {"type": HEAD_TYPES[spec["architecture"]], "align_corners": spec["align_corners"],
                        "dropout_ratio": spec["dropout"], "num_classes": num_classes,
                        **{key: head[key] for key in ("pool_scales", "dilations", "in_index") if key in head}},
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    for path, value in more.items():
        place: Any = model
        *way, last = path.split("__")
        for step in way:
            place = place.setdefault(step, {})
        place[last] = value
    return f"model = {model!r}\n"


MIT_NAMES = r"backbone\.encoder\.(patch_embeddings|block|layer_norm)\."


def their_names(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as MMSegmentation calls and shapes them."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        name = re.sub(r"^head\.", "decode_head.", name)
        name = re.sub(r"^auxiliary\.", "auxiliary_head.", name).replace(".classifier.", ".conv_seg.")
        tensors[name] = tensor
    found = {name: tensor for name, tensor in tensors.items() if not re.match(MIT_NAMES, name)}
    for name, tensor in tensors.items():
        if not re.match(MIT_NAMES, name):
            continue
        part = name.split(".")
        stage, rest = part[3], ".".join(part[4:])
        if part[2] == "patch_embeddings":
            found[
                f"backbone.layers.{stage}.0.{rest.replace('proj', 'projection').replace('layer_norm', 'norm')}"
            ] = tensor
        elif part[2] == "layer_norm":
            found[f"backbone.layers.{stage}.2.{rest}"] = tensor
        else:
            found.update(
                _their_block(
                    f"backbone.layers.{stage}.1.{part[4]}", ".".join(part[5:]), tensor, tensors, name
                )
            )
    return found


def _their_block(
    block: str, rest: str, tensor: Tensor, tensors: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    kind = rest.rpartition(".")[2]
    if ".query." in rest:  # query, key and value lie in one
        parts = [tensors[name.replace(".query.", f".{one}.")] for one in ("query", "key", "value")]
        return {f"{block}.attn.attn.in_proj_{kind}": torch.cat(parts)}
    if ".key." in rest or ".value." in rest:
        return {}
    renamed = {"layer_norm_1": "norm1", "layer_norm_2": "norm2", "attention.output.dense": "attn.attn.out_proj",
               "attention.self.sr": "attn.sr", "attention.self.layer_norm": "attn.norm", "mlp.dense1": "ffn.layers.0",
               "mlp.dwconv.dwconv": "ffn.layers.1", "mlp.dense2": "ffn.layers.4"}  # fmt: skip
    new = renamed[rest.rpartition(".")[0]]
    is_conv = new in ("ffn.layers.0", "ffn.layers.4") and kind == "weight"
    return {f"{block}.{new}.{kind}": tensor[:, :, None, None] if is_conv else tensor}
