"""SegFormer: a hierarchical transformer encoder (MiT) and a head of linear layers.

Xie et al. 2021, arXiv 2105.15203. Parameters are named as transformers writes them into safetensors, so
`state_dict()` *is* the file; logits and gradients agree with transformers (tests/parity). What differs is the
way there, never the function:

- The encoder never leaves the channels-last layout. Tokens are (B, H, W, C); a convolution sees them through
  `permute`, which copies nothing, and convolutions that receive channels-last memory return it.
- The head is folded. Upsampling and 1x1 convolutions commute:
      fuse(concat_i(up(L_i x_i))) = sum_i up((W_i L_i) x_i)
  so the 4D -> D product at stride 4, half of B0's arithmetic, is never computed. W_i L_i is made from the stored
  parameters on each call: gradients and checkpoints are those of the published form, and nothing can be stale.
- Dropout before the classifier drops whole channels, as the paper's code does (transformers drops elements).

This file holds architecture alone: no losses, no files. `weights.py` reads and writes.

Shapes: B batch, K classes, C channels of a stage, D channels of the head, H W height and width, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from terrazzo.kernels.depthwise_gelu import depthwise_gelu
from terrazzo.kernels.layer_norm import layer_norm
from terrazzo.nn.blocks import classified, normalised_logits, still, upsampled_sum
from terrazzo.nn.linear import Linear
from terrazzo.nn.outputs import Output
from terrazzo.nn.precision import without_autocast

NORM_EPS = 1e-5  # every layer norm in transformers' SegFormer; its config's layer_norm_eps (1e-6) is not used


@dataclass(frozen=True)
class Size:
    """The numbers that make a SegFormer; four entries, one per stage, strides 4, 8, 16, 32."""

    depths: tuple[int, ...]
    """Blocks per stage."""
    hidden_sizes: tuple[int, ...]
    """Channels C per stage."""
    decoder_hidden_size: int
    """Channels D of the head."""
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    """Attention heads per stage."""
    reductions: tuple[int, ...] = (8, 4, 2, 1)
    """Keys and values are taken from a map this many times smaller per side."""
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4)
    """Hidden width of the Mix-FFN, in multiples of C."""
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    """Kernel of the convolution that opens a stage."""
    strides: tuple[int, ...] = (4, 2, 2, 2)
    """Stride of that convolution."""


SIZES = {
    "b0": Size((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": Size((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "b2": Size((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "b3": Size((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "b4": Size((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "b5": Size((3, 6, 40, 3), (64, 128, 320, 512), 768),
}

STEM = "segformer.encoder.patch_embeddings.0.proj.weight"  # (C, channels of the image, k, k)
CLASSIFIER = ("decode_head.classifier.weight", "decode_head.classifier.bias")  # one row per class


class SegFormer(nn.Module):
    """Image (B, C, H, W) float in [0, 1] -> logits (B, K, ceil(H / 4), ceil(W / 4))."""

    uses_all_parameters = True  # logits depend on each of them
    waits_for_nothing = True  # a GPU's pass can be recorded: `recorded.py`
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: Size,
        num_classes: int,
        *,
        channels: int = 3,
        mean: Sequence[float],
        std: Sequence[float],
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        assert len(mean) == len(std) == channels, f"{channels} channels need as many means and deviations"
        self.size, self.num_classes, self.channels = size, num_classes, channels
        self.dropout, self.drop_path = dropout, drop_path
        # True: keep one map per block, and compute the rest again in backward
        self.gradient_checkpointing = False
        self.set_normalisation(mean, std)
        self.segformer = MiT(size, channels, drop_path)
        self.decode_head = Head(size, num_classes, dropout)
        self.apply(initialise)

    def forward(self, image_BCHW: Tensor) -> Output:
        """Normalise, encode, classify. The logits have stride 4 and are not resized."""
        image = ((image_BCHW - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        stages = self.segformer.encoder(
            image,
            recompute=self.gradient_checkpointing and self.training,
            last_shift_is_lost=self.decode_head.batch_norm.training,
        )
        return Output(self.decode_head(stages))

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set what is subtracted from, and what then divides, each channel of an image in [0, 1]."""
        for name, values in (("mean", mean), ("std", std)):
            buffer = torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """The MiT encoder."""
        return self.segformer

    @property
    def head(self) -> nn.Module:
        """Everything after the encoder."""
        return self.decode_head

    def head_parameter_names(self) -> set[str]:
        """Return the names of the parameters that no encoder checkpoint holds."""
        return {name for name, _ in self.named_parameters() if name.startswith("decode_head.")}

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the encoder's parameter names as layers, first the one nearest the image: see `encoder_layers`."""
        return encoder_layers(self, self.size, "segformer.encoder")


def encoder_layers(network: nn.Module, size: Size, encoder: str) -> list[set[str]]:
    """Return the parameter names of the Encoder called `encoder` in `network`, layer by layer.

    A layer is a block; the patch embedding of a stage belongs to its first block, the norm to its last.
    """
    layers: list[set[str]] = []
    names = [name for name, _ in network.named_parameters()]
    for stage, depth in enumerate(size.depths):
        for block in range(depth):
            prefixes = [f"{encoder}.block.{stage}.{block}."]
            prefixes += [f"{encoder}.patch_embeddings.{stage}."] if block == 0 else []
            prefixes += [f"{encoder}.layer_norm.{stage}."] if block == depth - 1 else []
            layers.append({name for name in names if name.startswith(tuple(prefixes))})
    return layers


def initialise(module: nn.Module) -> None:
    """Set random weights as the paper's code does: linears normal 0.02, convolutions normal by fan-out.

    Biases are 0, norms the identity; the classifier is normal 0.01. (The paper's code cuts its normals at
    +-2, a hundred deviations, which is no cut.) Nothing is drawn for weights that are yet to come: drawing for torch's
    "meta" device imports its compiler, 4 s of every start.
    """
    if any(weight.is_meta for weight in module.parameters(recurse=False)):
        return
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, Head) and not module.classifier.weight.is_meta:
        nn.init.normal_(module.classifier.weight, std=0.01)


class MiT(nn.Module):
    """The backbone as a checkpoint names it: one level that holds the encoder."""

    def __init__(self, size: Size, channels: int, drop_path: float) -> None:
        super().__init__()
        self.encoder = Encoder(size, channels, drop_path)


class Encoder(nn.Module):
    """MiT: four stages, each a strided convolution and blocks of attention and Mix-FFN."""

    _no_split_modules = ("Block",)  # what is put together at once where the network is spread over processes

    def __init__(self, size: Size, channels: int, drop_path: float, norm_eps: float = NORM_EPS) -> None:
        """norm_eps: of every layer norm."""
        super().__init__()
        inputs = (channels, *size.hidden_sizes)
        rates = torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist()
        stages = range(len(size.depths))
        self.patch_embeddings = nn.ModuleList(
            PatchEmbedding(
                inputs[i], size.hidden_sizes[i], size.patch_sizes[i], size.strides[i], norm_eps=norm_eps
            )
            for i in stages
        )
        self.block = nn.ModuleList(
            nn.ModuleList(
                Block(
                    size.hidden_sizes[i],
                    num_heads=size.num_heads[i],
                    reduction=size.reductions[i],
                    mlp_ratio=size.mlp_ratios[i],
                    drop_path=rates[sum(size.depths[:i]) + j],
                    norm_eps=norm_eps,
                )
                for j in range(size.depths[i])
            )
            for i in stages
        )
        self.layer_norm = nn.ModuleList(LayerNorm(size.hidden_sizes[i], eps=norm_eps) for i in stages)

    def forward(
        self, image_BCHW: Tensor, recompute: bool = False, last_shift_is_lost: bool = False
    ) -> list[Tensor]:
        """Return the four stages' maps (B, H, W, C), strides 4 to 32, of a normalised image.

        last_shift_is_lost: what is added to every pixel of the last map changes nothing, as where a head of linear
        layers ends in batch statistics. No other stage sees that map, so its norm's bias then learns nothing.
        """
        maps: list[Tensor] = []
        x_BCHW = image_BCHW
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            x_BHWC = embed(x_BCHW)
            for block in blocks.children():
                x_BHWC = checkpoint(block, x_BHWC, use_reentrant=False) if recompute else block(x_BHWC)
            if last_shift_is_lost and norm is self.layer_norm[-1]:
                assert isinstance(norm, nn.LayerNorm)
                shift_C = still(norm.bias)
                maps.append(layer_norm(x_BHWC, norm.weight, shift_C, norm.eps, feeds_product=True))
            else:
                maps.append(norm(x_BHWC))
            x_BCHW = maps[-1].permute(0, 3, 1, 2)
        return maps


class LayerNorm(nn.LayerNorm):
    """torch's, in a kernel of ours on a GPU; feeds_product: matrix products or convolutions alone read the result."""

    feeds_product = True

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps, feeds_product=self.feeds_product)


class PatchEmbedding(nn.Module):
    """Overlapping patches: a strided convolution and a layer norm."""

    def __init__(self, inputs: int, outputs: int, patch_size: int, stride: int, *, norm_eps: float) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, patch_size, stride, padding=patch_size // 2)
        self.layer_norm = LayerNorm(outputs, eps=norm_eps)
        self.layer_norm.feeds_product = False  # blocks add to it

    def forward(self, x_BCHW: Tensor) -> Tensor:
        tokens: Tensor = self.layer_norm(self.proj(x_BCHW).permute(0, 2, 3, 1))
        return tokens


class Block(nn.Module):
    """x + attention(norm(x)), then x + Mix-FFN(norm(x)); in training a sample skips a branch now and then."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        reduction: int,
        mlp_ratio: int,
        drop_path: float,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.layer_norm_1 = LayerNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, num_heads, reduction, norm_eps)
        self.layer_norm_2 = LayerNorm(dim, eps=norm_eps)
        self.mlp = MixFFN(dim, dim * mlp_ratio)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = self._add(x_BHWC, self.attention(self.layer_norm_1(x_BHWC)))
        return self._add(x_BHWC, self.mlp(self.layer_norm_2(x_BHWC)))

    def _add(self, x_BHWC: Tensor, branch_BHWC: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return x_BHWC + branch_BHWC
        keep = 1.0 - self.drop_path
        kept_B111 = (torch.rand(x_BHWC.shape[0], 1, 1, 1, device=x_BHWC.device) < keep).to(
            branch_BHWC.dtype
        ) / keep
        return torch.addcmul(x_BHWC, branch_BHWC, kept_B111)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T / sqrt(d)) value; each is (B, heads, N, d), keys and values of fewer tokens.

    torch's fused kernel, but for training in bf16 on a CPU, where its backward is slow: plain products take half its
    time (8 crops of 256x320, all blocks of B0, two cores: 43 ms against 85, 2026-11). They hold the N x M weights.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(query, key, value)
    with torch.autocast("cpu", enabled=False):  # a softmax sums in float32 by itself
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        return scores.softmax(-1) @ value


class Attention(nn.Module):
    """Every token attends to a map that is `reduction` times smaller per side."""

    def __init__(self, dim: int, num_heads: int, reduction: int, norm_eps: float) -> None:
        super().__init__()
        self.num_heads, self.reduction = num_heads, reduction
        self.self = nn.ModuleDict({name: Linear(dim, dim) for name in ("query", "key", "value")})
        if reduction > 1:
            self.self["sr"] = nn.Conv2d(dim, dim, reduction, reduction)
            self.self["layer_norm"] = LayerNorm(dim, eps=norm_eps)
        self.output = nn.ModuleDict({"dense": Linear(dim, dim)})

    def forward(self, x_BHWC: Tensor) -> Tensor:
        query_BNC = self.self["query"](x_BHWC).flatten(1, 2)
        small_BNC = (self._reduce(x_BHWC) if self.reduction > 1 else x_BHWC).flatten(1, 2)
        attended = attend(
            self._heads(query_BNC),
            self._heads(self.self["key"](small_BNC)),
            self._heads(self.self["value"](small_BNC)),
        )
        out: Tensor = self.output["dense"](attended.transpose(1, 2).reshape(x_BHWC.shape))
        return out

    def _reduce(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H // r, W // r, C); a map smaller than one window gets zeros around."""
        height, width = x_BHWC.shape[1:3]
        if height < self.reduction or width < self.reduction:
            x_BHWC = F.pad(
                x_BHWC, (0, 0, 0, max(self.reduction - width, 0), 0, max(self.reduction - height, 0))
            )
        small: Tensor = self.self["layer_norm"](
            self.self["sr"](x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        )
        return small

    def _heads(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) -> (B, heads, N, C / heads), a view."""
        return x_BNC.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """Linear, depthwise 3x3 (which tells tokens where they are: its zero padding), GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dense1 = Linear(dim, hidden)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)})
        self.dense2 = Linear(hidden, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        out: Tensor = self.dense2(depthwise_gelu(self.dense1(x_BHWC), self.dwconv["dwconv"]))
        return out


class Head(nn.Module):
    """The all-MLP decoder, folded: see the top of this file."""

    def __init__(self, size: Size, num_classes: int, dropout: float) -> None:
        super().__init__()
        width = size.decoder_hidden_size
        self.dropout = dropout
        self.linear_c = nn.ModuleList(
            nn.ModuleDict({"proj": nn.Linear(dim, width)}) for dim in size.hidden_sizes
        )
        self.linear_fuse = nn.Conv2d(width * len(size.hidden_sizes), width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, maps_BHWC: list[Tensor]) -> Tensor:
        weights, bias_D = self._folded()
        base_BHWD = F.linear(maps_BHWC[0], weights[0], bias_D)
        smaller = [
            F.linear(x_BHWC, weight) for x_BHWC, weight in zip(maps_BHWC[1:], weights[1:], strict=True)
        ]
        fused_BHWD = upsampled_sum(base_BHWD, smaller)
        weight_BKD, bias_K = self._dropped(fused_BHWD.shape[0]), self.classifier.bias
        assert bias_K is not None
        if self.batch_norm.training:
            return normalised_logits(fused_BHWD, self.batch_norm, weight_BKD, bias_K)
        return classified(F.relu_(fused_BHWD), weight_BKD, bias_K)  # the norm is in the folded weights

    def _dropped(self, batch: int) -> Tensor:
        """The classifier for each image (B, K, D): in training, a dropped channel is a column of zeros."""
        weight_BKD = self.classifier.weight.flatten(1).expand(batch, -1, -1)
        if not self.training or self.dropout == 0.0:
            return weight_BKD
        kept_B1D = torch.rand(batch, 1, weight_BKD.shape[2], device=weight_BKD.device) >= self.dropout
        return weight_BKD * (kept_B1D / (1.0 - self.dropout))

    def _folded(self) -> tuple[list[Tensor], Tensor]:
        """Return E_i = W_i L_i (D, C_i) per stage and b = sum_i W_i b_i (D,); in evaluation, batch norm
        included.

        In float32 whatever autocast says: they are weights, and small.
        """
        with without_autocast(self.linear_fuse.weight.device):
            blocks = self.linear_fuse.weight.flatten(1).chunk(len(self.linear_c), dim=1)[
                ::-1
            ]  # stored stage 4 first
            projections = [layer.get_parameter("proj.weight") for layer in self.linear_c]
            biases = [layer.get_parameter("proj.bias") for layer in self.linear_c]
            weights = [block @ weight for block, weight in zip(blocks, projections, strict=True)]
            bias_D = torch.stack([block @ bias for block, bias in zip(blocks, biases, strict=True)]).sum(0)
            norm = self.batch_norm
            if norm.training:  # which subtracts what is added to every pixel
                bias_D = still(bias_D)
            else:
                scale_D = norm.weight * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
                weights = [scale_D[:, None] * weight for weight in weights]
                bias_D = (bias_D - norm.get_buffer("running_mean")) * scale_D + norm.bias
            return weights, bias_D
