"""DeepLabV3 and V3+: the same map seen at several dilations beside its mean; V3+ then refines it at stride 4.

Chen et al. 2017 (arXiv 1706.05587) and 2018 (arXiv 1802.02611). The heads are OpenMMLab's form: the branches are fused
by a 3x3 convolution (the papers: 1x1), V3+ runs on a ResNet rather than Xception, and only its dilated branches and its
decoder are depthwise separable, each half with norm and ReLU. What differs from theirs is the way, never the function:
the mean is not spread over the map, `pyramid.py` folds it into the convolution. Written from the papers and published
checkpoints, whose names the parameters bear; ours, Apache-2.0.

Shapes: B batch, C D channels in and out, K classes, h w size of the deepest map, H W of the finest.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.conv import Classifier, ConvNormAct, initialise
from terrazzo.nn.pyramid import pooled, pyramid_conv_norm


class DeepLabV3Head(nn.Module):
    """Maps of a backbone -> logits (B, K, h, w) at the size of the one it reads."""

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: int,
        in_index: int = 3,
        dilations: Sequence[int] = (1, 12, 24, 36),
    ) -> None:
        """dilations: of the branches; 1 is a 1x1 convolution."""
        super().__init__()
        self.in_index, self.align_corners = in_index, align_corners
        inputs = in_channels[in_index]
        self.image_pool = nn.ModuleDict({"1": ConvNormAct(inputs, channels, 1)})
        self.aspp_modules = nn.ModuleList(_branch(inputs, channels, rate) for rate in dilations)
        self.bottleneck = ConvNormAct((1 + len(dilations)) * channels, channels, 3, padding=1)
        self.classifier = Classifier(channels, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        y_BDhw = fused(self, maps[self.in_index])
        logits: Tensor = self.classifier(y_BDhw)
        return logits


class DeepLabV3PlusHead(nn.Module):
    """Maps of a backbone -> logits (B, K, H, W) at the size of the finest."""

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: int,
        c1_channels: int,
        in_index: int = 3,
        dilations: Sequence[int] = (1, 12, 24, 36),
    ) -> None:
        """c1_channels: to which the finest map is narrowed. dilations: of the branches; 1 is a 1x1 convolution."""
        super().__init__()
        self.in_index, self.align_corners = in_index, align_corners
        inputs = in_channels[in_index]
        self.image_pool = nn.ModuleDict({"1": ConvNormAct(inputs, channels, 1)})
        self.aspp_modules = nn.ModuleList(
            SeparableConv(inputs, channels, dilation=rate) if rate > 1 else _branch(inputs, channels, rate)
            for rate in dilations
        )
        self.bottleneck = ConvNormAct((1 + len(dilations)) * channels, channels, 3, padding=1)
        self.c1_bottleneck = ConvNormAct(in_channels[0], c1_channels, 1)
        self.sep_bottleneck = nn.Sequential(
            SeparableConv(channels + c1_channels, channels), SeparableConv(channels, channels)
        )
        self.classifier = Classifier(channels, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W)."""
        fine_BCHW = self.c1_bottleneck(maps[0])
        coarse_BDhw = fused(self, maps[self.in_index])
        coarse_BDHW = F.interpolate(
            coarse_BDhw, fine_BCHW.shape[2:], mode="bilinear", align_corners=self.align_corners
        )
        logits: Tensor = self.classifier(self.sep_bottleneck(torch.cat([coarse_BDHW, fine_BCHW], dim=1)))
        return logits


class SeparableConv(nn.Module):
    """A 3x3 convolution per channel, then a 1x1 over channels; norm and ReLU after each."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = ConvNormAct(
            in_channels, in_channels, 3, padding=dilation, dilation=dilation, groups=in_channels
        )
        self.pointwise_conv = ConvNormAct(in_channels, out_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H, W)."""
        y_BDHW: Tensor = self.pointwise_conv(self.depthwise_conv(x_BCHW))
        return y_BDHW


def fused(head: DeepLabV3Head | DeepLabV3PlusHead, x_BChw: Tensor) -> Tensor:
    """Return the map as all branches see it, fused to `channels` (B, D, h, w): the mean first, then each dilation."""
    (mean_BC11,) = pooled(x_BChw, [1], training=head.training)
    seen = torch.cat([branch(x_BChw) for branch in head.aspp_modules], dim=1)
    fuse = head.bottleneck
    y_BDhw = pyramid_conv_norm(
        seen,
        [head.image_pool["1"](mean_BC11)],
        fuse.conv,
        fuse.bn,
        align_corners=head.align_corners,
        maps_first=True,
    )
    return F.relu_(y_BDhw)


def _branch(in_channels: int, channels: int, dilation: int) -> ConvNormAct:
    if dilation == 1:
        return ConvNormAct(in_channels, channels, 1)
    return ConvNormAct(in_channels, channels, 3, padding=dilation, dilation=dilation)
