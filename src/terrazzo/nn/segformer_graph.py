"""SegFormer as OpenVINO likes it: the same function of the same weights, in fewer and larger operations.

What its graphs are written from: of the published network (`segformer.py`), of OpenMMLab's (`segformer_conv.py`), and
of any head on a MiT encoder. Everything that no image changes is multiplied out beforehand, in double precision:

- A layer norm takes the mean away first. What writes into the residual stream (the linears at the end of a branch)
  and what alone is read by a norm (patch embeddings, reductions) has its mean over the channels taken out of its
  weights. So the mean is zero wherever a norm looks, and the norm is a root mean square: one operation instead of four.
  At the start of a stage the stream is centred once.
- A norm's bias moves into the linears that read it, and values' biases into the linear after attention, whose weights
  sum to 1. A key's bias adds the same to all scores of a query, and goes.
- Both heads are folded as in those files, their batch norms in them; the finest stage's product comes last, where a
  runtime adds the others' sum and the ReLU on its way. Other heads stay as they are.

Channels come last between the operations, as there; where a convolution is followed by another, nothing is permuted
between them. With B0 at 512x512 on two cores of an EPYC, OpenVINO takes 30.4 ms instead of 36.0 in f32, and 14.3
instead of 17.0 in bf16 (2026-11). OpenMMLab's B0 takes 73 ms of processor time instead of 85 in f32, and 48
instead of 52 in bf16; its B2 285 instead of 316, and 161 instead of 173; a PSPNet on MiT-B0 50 instead of 59 in f32
(medians of 21 by turns on a busy machine, 2026-11). ONNX Runtime, which has one operation for a layer norm and none for
a root mean square, is slower with it (48 ms instead of 41). It cannot be trained, and takes images from 32 pixels a
side on.

Shapes: B batch, K classes, C channels of a stage, D channels of the head, H W height and width, N tokens.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.conv import ConvNormAct
from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer import Attention, Block, Encoder, Head, PatchEmbedding, SegFormer
from terrazzo.nn.segformer_conv import MiT, SegFormerConvHead
from terrazzo.nn.segmenter import Segmenter

Sides = tuple[int, ...]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def graph_form(network: nn.Module) -> nn.Module:
    """Return what OpenVINO's graph of `network` is written from: itself, unless it has our MiT encoder and no hooks."""
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    is_on_mit = type(network) is Segmenter and type(network.backbone) is MiT
    return SegFormerGraph(network) if (type(network) is SegFormer or is_on_mit) and not hooked else network


class SegFormerGraph(nn.Module):
    """Image (B, C, H, W) float in [0, 1] -> logits, as the network it was made of."""

    mean: Tensor

    def __init__(self, network: nn.Module) -> None:
        """network: a SegFormer, or a Segmenter on a MiT."""
        super().__init__()
        assert isinstance(network, SegFormer | Segmenter)
        encoder = network.backbone.encoder
        assert isinstance(encoder, Encoder)
        self.register_buffer("mean", network.mean.detach().cpu().clone())
        self.encoder = EncoderGraph(encoder, network.std)
        self.head = _head(network.head)

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
    """A folded head: what each map becomes, at its own size, is resized and added up."""

    def __init__(
        self, products: Sequence[nn.Module], classifier: nn.Conv2d, *, align_corners: bool = False
    ) -> None:
        """products: for each map, finest first; align_corners: in the resizes."""
        super().__init__()
        self.align_corners = align_corners
        self.finest, self.products = products[0], nn.ModuleList(products[1:])
        self.classifier = _conv(_exact(classifier.weight), _exact(classifier.bias))

    def forward(self, maps_BCHW: list[Tensor]) -> Tensor:
        """Return logits (B, K, H, W) at the size of the first map."""
        finest_BCHW = maps_BCHW[0]
        total_BDHW: Tensor | None = None
        for product, map_BChw in zip(reversed(list(self.products)), reversed(maps_BCHW[1:]), strict=True):
            resized_BDHW = F.interpolate(
                product(map_BChw), finest_BCHW.shape[2:], mode="bilinear", align_corners=self.align_corners
            )
            total_BDHW = resized_BDHW if total_BDHW is None else total_BDHW + resized_BDHW
        fused_BDHW = self.finest(finest_BCHW)
        logits_BKHW: Tensor = self.classifier(
            F.relu(fused_BDHW if total_BDHW is None else fused_BDHW + total_BDHW)
        )
        return logits_BKHW


def _head(head: nn.Module) -> nn.Module:
    if type(head) is Head:
        return _linear_head(head)
    return _conv_head(head) if type(head) is SegFormerConvHead else deepcopy(head).cpu().eval()


def _linear_head(head: Head) -> HeadGraph:
    """The published head: a linear for each map, and one for all of them."""
    scale_D, bias_D = _scale_and_shift(head.batch_norm)
    blocks = _exact(head.linear_fuse.weight).flatten(1).chunk(len(head.linear_c), dim=1)
    weights = []
    for block, layer in zip(blocks[::-1], head.linear_c, strict=True):  # stored stage 4 first
        block = scale_D[:, None] * block
        weights.append((block @ _exact(layer.get_parameter("proj.weight")))[:, :, None, None])
        bias_D = bias_D + block @ _exact(layer.get_parameter("proj.bias"))
    biases = [bias_D, *[None] * (len(weights) - 1)]
    return HeadGraph([_conv(*both) for both in zip(weights, biases, strict=True)], head.classifier)


def _conv_head(head: SegFormerConvHead) -> HeadGraph:
    """OpenMMLab's: a convolution, batch norm and ReLU for each map, and one for all of them."""
    weight, bias_D = _folded(head.fusion_conv)
    products = [
        nn.Sequential(
            _conv(*_folded(layer)), nn.ReLU(), _conv(block, bias_D if layer is head.convs[0] else None)
        )
        for layer, block in zip(head.convs, weight.chunk(len(head.convs), dim=1), strict=True)
    ]
    return HeadGraph(products, head.classifier, align_corners=head.align_corners)


def _folded(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (D, C, h, w) and bias (D,) of a convolution and the batch norm after it."""
    assert isinstance(layer, ConvNormAct)
    scale_D, shift_D = _scale_and_shift(layer.bn)
    return _exact(layer.conv.weight) * scale_D[:, None, None, None], shift_D


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies each channel by, and what it then adds."""
    scale_D = _exact(norm.weight) * torch.rsqrt(_exact(norm.get_buffer("running_var")) + norm.eps)
    return scale_D, _exact(norm.bias) - _exact(norm.get_buffer("running_mean")) * scale_D


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
