"""NearFar: a small network for small images and little data, whose blocks look near and far by turns.

Ours. An encoder down to stride 16, no further, since a 360x480 image has little left there, so its last stage sees the
whole scene by dilation instead: every other block is dilated, by more and more; neighbouring blocks that are not fill
the gaps between the places that a dilated one looks at. A decoder then goes back up to stride 4 or 2, where poles are.
With 11 classes it has 1.4 million parameters.

The ideas are others', the arithmetic is written here: blocks of 1x1, grouped 3x3 and 1x1 convolutions beside a shortcut
(RegNet, Radosavovic et al. 2020, arXiv 2003.13678); dilations up to where they see the whole image in a network that
is trained from nothing (RegSeg, Gao 2021, arXiv 2111.09957), which has two of them side by side in a block where we
have one; channels weighed by what is in the whole image (squeeze and excitation, Hu et al. 2017, arXiv 1709.01507);
shortcuts that are averaged before they shrink (He et al. 2018, arXiv 1812.01187); maps added from coarse to fine (FPN,
Lin et al. 2016, arXiv 1612.03144). There are no published weights, and it needs none.

Any number of channels and any size of image: odd sides are rounded up at every stride.

Shapes: B batch, C D channels in and out, K classes, H W height and width.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from terrazzo.nn.backbone import Backbone
from terrazzo.nn.conv import Classifier, ConvNormAct, initialise, statistics_kept


class NearFar(Backbone):
    """Normalised image (B, C, H, W) -> maps at strides 2, 4, 8 and 16, of `widths` channels."""

    waits_for_nothing = True

    def __init__(
        self,
        *,
        channels: int = 3,
        widths: Sequence[int],
        depths: Sequence[int],
        dilations: Sequence[int],
        group_channels: int,
        squeeze: int,
    ) -> None:
        """widths: of the stem and the three stages. depths: blocks of each stage. dilations: of the last one's blocks.

        group_channels: as many channels see each other in a 3x3 convolution; it divides the stages' widths. squeeze:
        what the whole image tells is put in a `squeeze`-th of the channels, in the last stage.
        """
        super().__init__()
        stem, *stages = widths
        if len(stages) != 3 or len(depths) != 3 or len(dilations) != depths[-1] or min(depths) < 1:
            raise ValueError("one stem and three stages, and a dilation for each block of the last")
        self.gradient_checkpointing = False
        self.stem = ConvNormAct(channels, stem, 3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        inputs = stem
        for number, (width, depth) in enumerate(zip(stages, depths, strict=True)):
            is_last = number == len(stages) - 1
            blocks = []
            for position, dilation in enumerate(dilations if is_last else [1] * depth):
                stride = 1 if position else 2
                hidden = width // squeeze if is_last else 0
                blocks.append(
                    Block(inputs, width, stride, dilation, groups=width // group_channels, hidden=hidden)
                )
                inputs = width
            self.stages.append(nn.Sequential(*blocks))
        self.out_channels = tuple(widths)
        self.strides = (2, 4, 8, 16)
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, Block):  # residual branches start at zero (Goyal et al. 2017)
                nn.init.zeros_(module.shrink.bn.weight)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps, the finest first."""
        maps = [self.stem(image_BCHW.contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            x = maps[-1]
            for block in stage.children():
                x = self._run(block, x)
            maps.append(x)
        return maps

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the parameter names as layers: the stem, then each block."""
        layers: dict[str, set[str]] = {}
        for name, _ in self.named_parameters():
            layer = ".".join(name.split(".")[:3]) if name.startswith("stages.") else "stem"
            layers.setdefault(layer, set()).add(name)
        return list(layers.values())

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            y: Tensor = block(x)
            return y
        again: Tensor = checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block))
        )
        return again


class Block(nn.Module):
    """1x1, grouped and perhaps dilated 3x3, channels weighed, 1x1, beside a shortcut."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, dilation: int, *, groups: int, hidden: int
    ) -> None:
        super().__init__()
        self.expand = ConvNormAct(inputs, outputs, 1)
        self.look = ConvNormAct(
            outputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups
        )
        self.weigh = Weigh(outputs, hidden) if hidden else None
        self.shrink = ConvNormAct(outputs, outputs, 1, activation=False)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else None
        fits = stride == 1 and inputs == outputs
        self.shortcut = None if fits else ConvNormAct(inputs, outputs, 1, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.look(self.expand(x))
        if self.weigh is not None:
            y = self.weigh(y)
        y = self.shrink(y)
        if self.pool is not None:
            x = self.pool(x)
        if self.shortcut is not None:
            x = self.shortcut(x)
        return F.relu_(y.add_(x))


class Weigh(nn.Module):
    """Every channel times a number in [0, 1] that is made of all channels' means over the image."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean_BC11 = x_BCHW.mean((2, 3), keepdim=True)
        return x_BCHW * self.excite(F.relu_(self.squeeze(mean_BC11))).sigmoid()


class NearFarHead(nn.Module):
    """Maps of a backbone, the finest first -> logits (B, K, h, w) at the size of map `finest`.

    From the coarsest map up: resize, add what the next finer map says, and look at it once more.
    """

    waits_for_nothing = True

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        dropout: float,
        align_corners: bool = False,
        channels: Sequence[int],
    ) -> None:
        """channels: of the head at each map it reads, the finest first; as many of the coarsest maps are read."""
        super().__init__()
        self.align_corners, self.first = align_corners, len(in_channels) - len(channels)
        read = list(in_channels[self.first :])
        finer = list(zip(read[:-1], channels[:-1], strict=True))
        self.coarsest = ConvNormAct(read[-1], channels[-1], 1)
        self.enter = nn.ModuleList(ConvNormAct(inputs, width, 1) for inputs, width in finer)
        self.narrow = nn.ModuleList(
            ConvNormAct(deep, width, 1) for deep, width in zip(channels[1:], channels[:-1], strict=True)
        )
        self.look = nn.ModuleList(ConvNormAct(width, width, 3, padding=1) for _, width in finer)
        self.classifier = Classifier(channels[0], num_classes, dropout=dropout)
        self.apply(initialise)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, K, h, w)."""
        *finer, last = maps[self.first :]
        x_BDhw = self.coarsest(last)
        for level in reversed(range(len(finer))):
            entered_BDhw = self.enter[level](finer[level])
            coarse_BDhw = self.narrow[level](x_BDhw)
            resized = F.interpolate(
                coarse_BDhw, entered_BDhw.shape[2:], mode="bilinear", align_corners=self.align_corners
            )
            x_BDhw = self.look[level](entered_BDhw + resized)
        logits: Tensor = self.classifier(x_BDhw)
        return logits
