"""What OpenMMLab, timm and torchvision call the tensors of their networks, and what those are called here.

Ours are OpenMMLab's but for the prefixes `head.` and `auxiliary.`, the `classifier`, and MiT, whose names are those of
Hugging Face's files.
"""

import re
from collections.abc import Mapping

from torch import Tensor

Tensors = Mapping[str, Tensor]

MIT = "backbone.layers.0.0.projection.weight"  # a tensor that only MiT has
MIT_BLOCK = (  # within a block of theirs -> of ours
    ("norm1.", "layer_norm_1."),
    ("norm2.", "layer_norm_2."),
    ("attn.attn.out_proj.", "attention.output.dense."),
    ("attn.sr.", "attention.self.sr."),
    ("attn.norm.", "attention.self.layer_norm."),
    ("ffn.layers.0.", "mlp.dense1."),
    ("ffn.layers.1.", "mlp.dwconv.dwconv."),
    ("ffn.layers.4.", "mlp.dense2."),
)


def is_theirs(tensors: Tensors) -> bool:
    """True for the names of a whole network, as MMSegmentation writes them."""
    parts = {name.partition(".")[0] for name in tensors}
    return {"backbone", "decode_head"} <= parts


def is_segmenters(tensors: Tensors) -> bool:
    """True for names that `our_names` knows: a whole network of theirs or of ours, or a ResNet or MiT alone."""
    alone = ("layer4.0.conv1.weight", "layers.0.0.projection.weight")
    return any(name.startswith("backbone.") or name in alone for name in tensors)


def plain_names(tensors: Tensors) -> tuple[dict[str, Tensor], list[str]]:
    """Return the network's own tensors, without what wrappers and hooks put before and beside them; and what to say."""
    said = []
    if any(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    beside = ("data_preprocessor.", "decode_head.loss_decode.", "auxiliary_head.loss_decode.")
    averages = [name for name in tensors if name.startswith("ema_")]
    if averages:
        said.append(f"{len(averages)} averaged weights (ema_…) beside the weights are left out")
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.startswith(beside) and not name.startswith("ema_")
    }, said


def our_names(tensors: Tensors) -> dict[str, Tensor]:
    """Return their tensors under our names; MiT's stacked query, key and value come apart, its 1x1 convolutions flat.

    A backbone alone, as it is published for ImageNet by OpenMMLab, timm or torchvision, gets its prefix.
    """
    if not any(name.startswith(("backbone.", "decode_head.")) for name in tensors):
        is_deep = (
            "conv1.0.weight" in tensors
        )  # timm's deep stem: conv1.0 to conv1.6, and its last norm is bn1
        tensors = {
            f"backbone.{_stem_name(name) if is_deep else name}": tensor for name, tensor in tensors.items()
        }
    is_mit = MIT in tensors
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_mit and name.startswith("backbone.layers."):
            found.update(_mit_names(name.removeprefix("backbone.layers."), tensor))
            continue
        part, _, rest = name.partition(".")
        if part in ("decode_head", "auxiliary_head"):
            name = f"{'head' if part == 'decode_head' else 'auxiliary'}.{rest.replace('conv_seg.', 'classifier.')}"
        found[name] = tensor
    return found


def _stem_name(name: str) -> str:
    if name.startswith("conv1."):
        return f"stem.{name.removeprefix('conv1.')}"
    return f"stem.7.{name.removeprefix('bn1.')}" if name.startswith("bn1.") else name


def _mit_names(name: str, tensor: Tensor) -> dict[str, Tensor]:
    stage, part, rest = name.split(".", 2)
    encoder = "backbone.encoder"
    if part == "0":
        inner = rest.replace("projection.", "proj.").replace("norm.", "layer_norm.")
        return {f"{encoder}.patch_embeddings.{stage}.{inner}": tensor}
    if part == "2":
        return {f"{encoder}.layer_norm.{stage}.{rest}": tensor}
    number, _, inner = rest.partition(".")
    block = f"{encoder}.block.{stage}.{number}"
    stacked = re.fullmatch(r"attn\.attn\.in_proj_(weight|bias)", inner)
    if stacked:
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {f"{block}.attention.self.{kind}.{stacked[1]}": part for kind, part in parts}
    for theirs, ours in MIT_BLOCK:
        if inner.startswith(theirs):
            is_linear = ours in ("mlp.dense1.", "mlp.dense2.") and tensor.ndim == 4
            return {f"{block}.{ours}{inner.removeprefix(theirs)}": tensor.flatten(1) if is_linear else tensor}
    return {f"{block}.{inner}": tensor}
