"""SegFormer as OpenVINO likes it: the function of `segformer.py`, of the same weights, in fewer and larger operations.

What its graphs are written from. Everything that no image changes is multiplied out beforehand, in double precision:

- A layer norm takes the mean away first. What writes into the residual stream (the linears at the end of a branch)
  and what alone is read by a norm (patch embeddings, reductions) has its mean over the channels taken out of its
  weights. So the mean is zero wherever a norm looks, and the norm is a root mean square: one operation instead of four.
  At the start of a stage the stream is centred once.
- A norm's bias moves into the linears that read it, and values' biases into the linear after attention, whose weights
  sum to 1. A key's bias adds the same to all scores of a query, and goes.
- The head is folded as in `segformer.py`, its batch norm in it; the finest stage's product comes last, where a runtime
  adds the others' sum and the ReLU on its way.

Channels come last between the operations, as there; where a convolution is followed by another, nothing is permuted
between them. With B0 at 512x512 on two cores of an EPYC, OpenVINO takes 30.4 ms instead of 36.0 in f32, and 14.3
instead of 17.0 in bf16 (2026-11). ONNX Runtime, which has one operation for a layer norm and none for a root mean
square, is slower with it (48 ms instead of 41). It cannot be trained, and takes images from 32 pixels a side on.

Shapes: B batch, K classes, C channels of a stage, D channels of the head, H W height and width, N tokens.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer import Attention, Block, Encoder, Head, PatchEmbedding, SegFormer

Sides = tuple[int, ...]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def graph_form(network: nn.Module) -> nn.Module:
    """Return what OpenVINO's graph of `network` is written from: itself, but for a SegFormer nobody hooked into."""
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    return SegFormerGraph(network) if type(network) is SegFormer and not hooked else network


class SegFormerGraph(nn.Module):
    """Image (B, C, H, W) float in [0, 1] -> logits (B, K, H / 4, W / 4), as the SegFormer it was made of."""

    mean: Tensor

    def __init__(self, network: SegFormer) -> None:
        super().__init__()
        self.register_buffer("mean", network.mean.detach().cpu().clone())
        self.encoder = EncoderGraph(network.segformer.encoder, network.std)
        self.head = HeadGraph(network.decode_head)

    def forward(self, image_BCHW: Tensor) -> Output:
        """Normalise, encode, classify."""
        return Output(self.head(self.encoder(image_BCHW - self.mean)))


class EncoderGraph(nn.Module):
    """Image minus its mean (B, C, H, W) -> the four stages' maps (B, C, H, W)."""

    def __init__(self, encoder: Encoder, std_1C11: Tensor) -> None:
        """std_1C11: what divides each channel of the image, which the first convolution does here."""
        super().__init__()
        self.stages = nn.ModuleList()
        divisor_1C11 = _exact(std_1C11)
        for embed, blocks, norm in zip(
            encoder.patch_embeddings, encoder.block, encoder.layer_norm, strict=True
        ):
            self.stages.append(StageGraph(embed, blocks, norm, divisor_1C11))
            divisor_1C11 = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the maps, finest first."""
        maps: list[Tensor] = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            maps.append(x_BCHW)
        return maps


class StageGraph(nn.Module):
    """A strided convolution, blocks, and a norm."""

    def __init__(self, embed: nn.Module, blocks: nn.Module, norm: nn.Module, divisor_1C11: Tensor) -> None:
        """divisor_1C11: of what comes in."""
        super().__init__()
        assert isinstance(embed, PatchEmbedding)
        assert isinstance(norm, nn.LayerNorm)
        proj = embed.proj
        self.embed = _conv(
            _centred(_exact(proj.weight)) / divisor_1C11,
            _centred(_exact(proj.bias)),
            stride=proj.stride,
            padding=proj.padding,
        )
        self.embed_norm = RootMeanSquare(embed.layer_norm)
        self.shift_C = _fixed(_centred(_exact(embed.layer_norm.bias)))
        self.blocks = nn.ModuleList(BlockGraph(block) for block in blocks.children())
        self.norm = RootMeanSquare(norm)
        self.bias_C = _fixed(_exact(norm.bias))  # stays: the next stage's zero padding is not shifted by it

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BHWC = self.embed_norm(self.embed(x_BCHW).permute(0, 2, 3, 1))
        x_BHWC = x_BHWC - x_BHWC.mean(-1, keepdim=True) + self.shift_C
        for block in self.blocks:
            x_BHWC = block(x_BHWC)
        map_BHWC: Tensor = self.norm(x_BHWC) + self.bias_C
        return map_BHWC.permute(0, 3, 1, 2)


class BlockGraph(nn.Module):
    """x + attention(norm(x)), then x + Mix-FFN(norm(x)), where x has no mean over its channels."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        assert isinstance(block, Block)
        self.norm_1, self.norm_2 = RootMeanSquare(block.layer_norm_1), RootMeanSquare(block.layer_norm_2)
        self.attention = AttentionGraph(block.attention, _exact(block.layer_norm_1.bias))
        mlp, shift_C = block.mlp, _exact(block.layer_norm_2.bias)
        weight, bias = _exact(mlp.dense1.weight), _exact(mlp.dense1.bias)
        depthwise = mlp.dwconv["dwconv"]
        assert isinstance(depthwise, nn.Conv2d)
        self.widen = _conv(weight[:, :, None, None], weight @ shift_C + bias)
        self.depthwise = _conv(
            _exact(depthwise.weight),
            _exact(depthwise.bias),
            padding=depthwise.padding,
            groups=depthwise.groups,
        )
        self.narrow = _linear(_centred(_exact(mlp.dense2.weight)), _centred(_exact(mlp.dense2.bias)))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.attention(self.norm_1(x_BHWC))
        hidden_BCHW = self.depthwise(self.widen(self.norm_2(x_BHWC).permute(0, 3, 1, 2)))
        return x_BHWC + self.narrow(F.gelu(hidden_BCHW).permute(0, 2, 3, 1))


class AttentionGraph(nn.Module):
    """Attention to a smaller map, of a norm without its bias."""

    def __init__(self, attention: Attention, shift_C: Tensor) -> None:
        """shift_C: the bias of the norm before it."""
        super().__init__()
        self.num_heads = attention.num_heads
        layers = attention.self
        weight, bias = _exact(layers["query"].weight), _exact(layers["query"].bias)
        scale = (len(weight) // self.num_heads) ** -0.5  # of the scores
        self.query = _linear(scale * weight, scale * (weight @ shift_C + bias))
        self.reduce: nn.Module | None = None
        if attention.reduction > 1:
            sr, norm = layers["sr"], layers["layer_norm"]
            assert isinstance(sr, nn.Conv2d)
            assert isinstance(norm, nn.LayerNorm)
            weight, bias = _exact(sr.weight), _exact(sr.bias)
            self.reduce = _conv(
                _centred(weight), _centred(weight.sum((2, 3)) @ shift_C + bias), stride=sr.stride
            )
            self.reduce_norm = RootMeanSquare(norm)
            shift_C = _exact(norm.bias)
        self.key = _linear(_exact(layers["key"].weight))
        weight, bias = _exact(layers["value"].weight), _exact(layers["value"].bias)
        self.value = _linear(weight)
        dense = attention.output["dense"]
        shift_C = _exact(dense.weight) @ (weight @ shift_C + bias) + _exact(dense.bias)
        self.output = _linear(_centred(_exact(dense.weight)), _centred(shift_C))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        small_BHWC = x_BHWC
        if self.reduce is not None:
            small_BHWC = self.reduce_norm(self.reduce(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        query, key, value = (
            layer(map_BHWC).flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for layer, map_BHWC in ((self.query, x_BHWC), (self.key, small_BHWC), (self.value, small_BHWC))
        )
        attended = (query @ key.transpose(-1, -2)).softmax(-1) @ value
        out: Tensor = self.output(attended.transpose(1, 2).reshape(x_BHWC.shape))
        return out


class HeadGraph(nn.Module):
    """The folded head."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        norm = head.batch_norm
        scale_D = _exact(norm.weight) * torch.rsqrt(_exact(norm.get_buffer("running_var")) + norm.eps)
        blocks = _exact(head.linear_fuse.weight).flatten(1).chunk(len(head.linear_c), dim=1)
        layers = [
            (layer.get_parameter("proj.weight"), layer.get_parameter("proj.bias")) for layer in head.linear_c
        ]
        bias_D = -_exact(norm.get_buffer("running_mean"))
        weights = []
        for block, (weight, bias) in zip(blocks[::-1], layers, strict=True):  # stored stage 4 first
            weights.append((scale_D[:, None] * block @ _exact(weight))[:, :, None, None])
            bias_D = bias_D + block @ _exact(bias)
        self.products = nn.ModuleList(_conv(weight) for weight in weights[1:])
        self.finest = _conv(weights[0], scale_D * bias_D + _exact(norm.bias))
        self.classifier = _conv(_exact(head.classifier.weight), _exact(head.classifier.bias))

    def forward(self, maps_BCHW: list[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) at the size of the first map."""
        finest_BCHW = maps_BCHW[0]
        total_BDHW: Tensor | None = None
        for product, map_BChw in zip(reversed(list(self.products)), reversed(maps_BCHW[1:]), strict=True):
            resized_BDHW = F.interpolate(
                product(map_BChw), finest_BCHW.shape[2:], mode="bilinear", align_corners=False
            )
            total_BDHW = resized_BDHW if total_BDHW is None else total_BDHW + resized_BDHW
        fused_BDHW = self.finest(finest_BCHW)
        logits_BKHW: Tensor = self.classifier(
            F.relu(fused_BDHW if total_BDHW is None else fused_BDHW + total_BDHW)
        )
        return logits_BKHW


class RootMeanSquare(nn.Module):
    """A layer norm over the last axis, of what has no mean there, without its bias."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.eps = _fixed(_exact(norm.weight)), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def _exact(tensor: Tensor | nn.Module | None) -> Tensor:
    assert isinstance(tensor, Tensor)  # what torch's types cannot say of a ModuleDict's layers
    return tensor.detach().cpu().double()


def _centred(weight: Tensor) -> Tensor:
    """Weights (outputs first), or a bias, of a layer whose outputs then have no mean."""
    return weight - weight.mean(0)


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float().contiguous(), requires_grad=False)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(layer, weight, bias)


def _conv(
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sides = (1, 1),
    padding: Sides | str = (0, 0),
    groups: int = 1,
) -> nn.Conv2d:
    outputs, inputs, height, width = weight.shape
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
    kernel = (height, width)
    layer = nn.Conv2d(groups * inputs, outputs, kernel, bias=bias is not None, device="meta", **options)
    return _filled(layer, weight, bias)


def _filled(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    layer.weight = _fixed(weight)
    if bias is not None:
        layer.bias = _fixed(bias)
    return layer
