"""PSPNet's head: the map beside its averages over 1, 4, 9 and 36 cells, then a 3x3 convolution over all of it.

Zhao et al. 2017 (arXiv 1612.01105). The head is OpenMMLab's form: the branches keep `channels` each (the paper's a
quarter of the map's), and the auxiliary head is an FCN on the third stage. What differs from theirs is the way, never
the function: the upsampled averages are not made, `pyramid.py` folds them into the convolution. Written from the paper
and published checkpoints, whose names the parameters bear; ours, Apache-2.0.

Shapes: B batch, C D channels in and out, K classes, h w size of the map.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.conv import Classifier, ConvNormAct, initialise
from terrazzo.nn.pyramid import pooled, pyramid_conv_norm


class PSPHead(nn.Module):
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
        pool_scales: Sequence[int] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        self.in_index, self.align_corners, self.pool_scales = in_index, align_corners, tuple(pool_scales)
        inputs = in_channels[in_index]
        self.psp_modules = nn.ModuleList(
            nn.ModuleDict({"1": ConvNormAct(inputs, channels, 1)}) for _ in self.pool_scales
        )
        self.bottleneck = ConvNormAct(inputs + channels * len(self.pool_scales), channels, 3, padding=1)
        self.classifier = Classifier(channels, num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        x_BChw = maps[self.in_index]
        cells = [
            narrow(x_BCss)
            for narrow, x_BCss in zip(
                self._narrowing(), pooled(x_BChw, self.pool_scales, training=self.training), strict=True
            )
        ]
        y_BDhw = pyramid_conv_norm(
            x_BChw, cells, self.bottleneck.conv, self.bottleneck.bn, align_corners=self.align_corners
        )
        logits: Tensor = self.classifier(F.relu_(y_BDhw))
        return logits

    def _narrowing(self) -> list[ConvNormAct]:
        return [module for module in self.psp_modules.modules() if isinstance(module, ConvNormAct)]
