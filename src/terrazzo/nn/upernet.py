"""UPerNet: pyramid pooling on the last map, a feature pyramid from there to the first, all of it fused at its size.

Xiao et al. 2018 (arXiv 1807.10221): the part of theirs that does semantic segmentation, as OpenMMLab configures it; the
heads for parts, materials and scenes are not here. The backbone is not dilated: strides 4, 8, 16, 32. The pooled maps
are folded into the convolution over them (`pyramid.py`). Written from the paper and from published checkpoints, whose
names the parameters bear; ours, Apache-2.0.

Shapes: B batch, K classes, D channels of the head, H W size of the first map, h w of a smaller one, s cells per side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.conv import Classifier, ConvNormAct, initialise
from terrazzo.nn.pyramid import pooled, pyramid_conv_norm


class UPerHead(nn.Module):
    """Maps of a backbone, finest first -> logits (B, K, H, W) at the size of the first."""

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: int,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        """pool_scales: cells per side of the pooled maps; align_corners: in every resize inside."""
        super().__init__()
        *finer, last = in_channels
        self.align_corners, self.pool_scales = align_corners, tuple(pool_scales)
        self.psp_modules = nn.ModuleList(
            nn.ModuleDict({"1": ConvNormAct(last, channels, 1)}) for _ in self.pool_scales
        )
        self.bottleneck = ConvNormAct(last + len(self.pool_scales) * channels, channels, 3, padding=1)
        self.lateral_convs = nn.ModuleList(ConvNormAct(width, channels, 1) for width in finer)
        self.fpn_convs = nn.ModuleList(ConvNormAct(channels, channels, 3, padding=1) for _ in finer)
        self.fpn_bottleneck = ConvNormAct(len(in_channels) * channels, channels, 3, padding=1)
        self.classifier = Classifier(channels, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, H, W)."""
        x_BDhw = self._pooled(maps[-1])
        levels = [x_BDhw]
        for i in reversed(range(len(self.lateral_convs))):  # from the smallest map to the largest
            lateral_BDhw = self.lateral_convs[i](maps[i])
            x_BDhw = lateral_BDhw + self._resized(x_BDhw, lateral_BDhw)
            levels.append(self.fpn_convs[i](x_BDhw))
        finest, *coarser = reversed(levels)
        fused = torch.cat([finest, *(self._resized(level, finest) for level in coarser)], dim=1)
        logits: Tensor = self.classifier(self.fpn_bottleneck(fused))
        return logits

    def _pooled(self, x_BChw: Tensor) -> Tensor:
        parts = pooled(x_BChw, self.pool_scales, training=self.training)
        branches = zip(self.psp_modules.children(), parts, strict=True)
        cells = [branch.get_submodule("1")(x_BCss) for branch, x_BCss in branches]
        conv, norm = self.bottleneck.conv, self.bottleneck.bn
        return F.relu_(pyramid_conv_norm(x_BChw, cells, conv, norm, align_corners=self.align_corners))

    def _resized(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=self.align_corners)
