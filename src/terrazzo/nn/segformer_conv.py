"""SegFormer as OpenMMLab builds it: the same encoder, and a head of convolutions with batch norm at every stage.

Xie et al. 2021 (arXiv 2105.15203). It is another network than the published one (`segformer.py`), and neither's weights
fit the other: every stage has its own norm and ReLU before the maps meet, they meet finest first, and every layer norm
has eps 1e-6. The encoder is ours and bears our names; the head bears theirs. Ours, Apache-2.0; their published
checkpoints start from NVIDIA's encoder, which is for non-commercial research and evaluation.

Resizing and 1x1 convolutions commute, so the convolution over all four maps is computed on each at its own size and the
results are added: fuse(concat_i(up(x_i))) = sum_i up(W_i x_i). No map of 4 D channels is made.

Shapes: B batch, K classes, C channels of a stage, D channels of the head, H W size of the first map, h w of another.
"""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.backbone import Backbone
from terrazzo.nn.conv import Classifier, ConvNormAct, folded, initialise, normalised
from terrazzo.nn.segformer import Encoder, Size, encoder_layers
from terrazzo.nn.segformer import initialise as initialise_encoder

NORM_EPS = 1e-6  # of every layer norm; transformers' SegFormer has 1e-5


class MiT(Backbone):
    """Normalised image (B, C, H, W) -> the four stages' maps, strides 4, 8, 16, 32, in channels-last memory."""

    def __init__(
        self,
        *,
        depths: Sequence[int],
        hidden_sizes: Sequence[int],
        num_heads: Sequence[int],
        reductions: Sequence[int],
        mlp_ratios: Sequence[int],
        patch_sizes: Sequence[int],
        strides: Sequence[int],
        channels: int = 3,
        drop_path: float = 0.0,
        norm_eps: float = NORM_EPS,
    ) -> None:
        """The sequences are the fields of `segformer.Size`, one entry per stage."""
        super().__init__()
        self.gradient_checkpointing = False
        per_stage = (depths, hidden_sizes, num_heads, reductions, mlp_ratios, patch_sizes, strides)
        depths, hidden_sizes, num_heads, reductions, mlp_ratios, patch_sizes, strides = map(tuple, per_stage)
        self.size = Size(depths, hidden_sizes, 0, num_heads, reductions, mlp_ratios, patch_sizes, strides)
        self.encoder = Encoder(self.size, channels, drop_path, norm_eps)
        self.out_channels = self.size.hidden_sizes
        self.strides = tuple(accumulate(self.size.strides, mul))
        self.apply(initialise_encoder)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps of the four stages."""
        maps_BHWC = self.encoder(image_BCHW, recompute=self.gradient_checkpointing and self.training)
        return [x_BHWC.permute(0, 3, 1, 2) for x_BHWC in maps_BHWC]

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the parameter names as layers: each block, with its stage's patch embedding and norm."""
        return encoder_layers(self, self.size, "encoder")


class SegFormerConvHead(nn.Module):
    """Maps of a backbone, finest first -> logits (B, K, H, W) at the size of the first."""

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: int,
    ) -> None:
        """align_corners: in every resize inside."""
        super().__init__()
        self.align_corners = align_corners
        self.convs = nn.ModuleList(ConvNormAct(width, channels, 1) for width in in_channels)
        self.fusion_conv = ConvNormAct(len(in_channels) * channels, channels, 1)
        self.classifier = Classifier(channels, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W)."""
        conv, norm = self.fusion_conv.conv, self.fusion_conv.bn
        weight, bias_D = (conv.weight, None) if norm.training else folded(conv.weight, norm)
        weights = weight.chunk(len(self.convs), dim=1)
        total_BDHW = F.conv2d(self.convs[0](maps[0]), weights[0], bias_D)
        for i in range(1, len(maps)):
            smaller_BDhw = F.conv2d(self.convs[i](maps[i]), weights[i])
            total_BDHW.add_(self._resized(smaller_BDhw, total_BDHW))
        if norm.training:
            total_BDHW = normalised(total_BDHW, norm)
        logits: Tensor = self.classifier(F.relu_(total_BDHW))
        return logits

    def _resized(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners)
