"""U-Net as a backbone: down four times, up again, and at every size what was there on the way down is looked at again.

Ronneberger et al. 2015, arXiv 1505.04597, in OpenMMLab's form "s5-d16": convolutions are padded, so maps keep their
size (the paper's shrink); batch norm after each; the way up is bilinear and a 1x1 convolution, where the paper has a
transposed convolution. An FCN head reads the finest map, an auxiliary one the map below it. Written from the paper and
from published configs, whose names the parameters bear; no checkpoint of theirs was at hand to compare with. Ours,
Apache-2.0.

Any number of channels: microscopy has one, satellites have many. Any size of image: sides that 16 does not divide are
padded at the right and the bottom with what normalisation makes 0, and the maps cut back.

Shapes: B batch, C channels, H W height and width.
"""

from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from terrazzo.nn.backbone import Backbone
from terrazzo.nn.conv import ConvNormAct, conv_norm, initialise, normalised, statistics_kept


class UNet(Backbone):
    """Normalised image (B, C, H, W) -> maps of the way up, strides 1 to 16, of base_channels to 16 times as many."""

    def __init__(self, *, channels: int = 3, base_channels: int = 64, num_stages: int = 5) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        widths = [base_channels * 2**stage for stage in range(num_stages)]
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), Convs(widths[stage - 1], widths[stage]))
            if stage
            else nn.Sequential(Convs(channels, widths[0]))
            for stage in range(num_stages)
        )
        self.decoder = nn.ModuleList(Up(deep, fine) for fine, deep in pairwise(widths))
        self.out_channels = tuple(widths)
        self.strides = tuple(2**stage for stage in range(num_stages))
        self.apply(initialise)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps, the finest first."""
        height, width = image_BCHW.shape[2:]
        x = padded(image_BCHW, self.strides[-1])
        skips = []
        for stage in self.encoder:
            x = self._run(stage, x)
            skips.append(x)
        maps = [skips.pop()]
        for up in reversed(self.decoder):
            maps.append(self._run(up, maps[-1], skips.pop()))
        maps.reverse()
        return [cut(x, height, width, stride) for x, stride in zip(maps, self.strides, strict=True)]

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the parameter names as layers: the stages down, then those up."""
        prefixes = [f"encoder.{stage}." for stage in range(len(self.encoder))]
        prefixes += [f"decoder.{stage}." for stage in reversed(range(len(self.decoder)))]
        names = [name for name, _ in self.named_parameters()]
        return [{name for name in names if name.startswith(prefix)} for prefix in prefixes]

    def _run(self, block: nn.Module, *inputs: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            y: Tensor = block(*inputs)
            return y
        again: Tensor = checkpoint(
            block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block))
        )
        return again


class Convs(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvNormAct(inputs, outputs, 3, padding=1), ConvNormAct(outputs, outputs, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return y


class Up(nn.Module):
    """Twice the size, half the channels; joined with the map of that size from the way down, and convolved twice."""

    def __init__(self, deep: int, fine: int) -> None:
        super().__init__()
        self.conv_block = Convs(2 * fine, fine)
        self.upsample = Enlarge(deep, fine)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.conv_block(torch.cat([skip, self.upsample(x)], dim=1))
        return y


class Enlarge(nn.Module):
    """Bilinear to twice the size, 1x1 convolution, batch norm, ReLU.

    The convolution and, outside training, the norm go first, at a quarter of the cost: bilinear weights sum to one, so
    they commute with it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.interp_upsample = nn.Sequential(upsample, ConvNormAct(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        upsample, block = self.interp_upsample
        assert isinstance(block, ConvNormAct)
        if block.bn.training:
            return F.relu_(normalised(upsample(block.conv(x)), block.bn))
        return F.relu_(upsample(conv_norm(x, block.conv, block.bn)))


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Return x with zeros at the right and the bottom, so that `multiple` divides its sides."""
    height, width = x_BCHW.shape[2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x_BCHW, (0, right, 0, below)) if below or right else x_BCHW


def cut(map_BCHW: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Return of a padded image's map at `stride` the part that the height x width image covers."""
    return map_BCHW[:, :, : -(-height // stride), : -(-width // stride)]
