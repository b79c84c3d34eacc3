"""ResNet as a backbone: four stages of residual blocks, the later ones dilated so that maps stay large.

He et al. 2015 (arXiv 1512.03385); stems and shortcuts as He et al. 2018 (arXiv 1812.01187) name them; dilation after
Yu et al. 2017 (arXiv 1705.09472) and DeepLab. Written from those papers and from what published checkpoints hold;
ours, Apache-2.0. Weights have licences of their own. Names and arithmetic are OpenMMLab's:

- The stride of a bottleneck is on its 3x3 convolution (their style "pytorch", torchvision's v1.5).
- v1b has the 7x7 stem of the paper, v1c three 3x3 convolutions, v1d also pools its shortcuts before the 1x1. Its pool
  rounds sizes up and is there at stride 1 too, where it does nothing; timm leaves it out there.
- A dilated stage starts with half its dilation (`contract_dilation`), except the basic blocks' second convolution,
  which is never dilated. timm dilates that one too, so ResNet-18 and 34 agree with timm at stride 32 alone.
- `multi_grid` are the dilations of the last stage's blocks themselves, not multiples of that stage's.

Residual branches start at zero (Goyal et al. 2017): the last norm of each block has weight 0 at birth.

Shapes: B batch, C channels, H W height and width.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from terrazzo.errors import UsageError
from terrazzo.nn.backbone import Backbone
from terrazzo.nn.conv import conv_norm, initialise, statistics_kept

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)  # depths made of basic blocks; the others of bottlenecks
VARIANTS = ("v1b", "v1c", "v1d")
# output stride -> stride and dilation of each stage
STAGES = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}


class ResNet(Backbone):
    """Normalised image (B, C, H, W) -> four maps, strides 4 to `output_stride`."""

    _no_split_modules = ("BasicBlock", "Bottleneck")  # put together at once where spread over processes

    def __init__(
        self,
        depth: int,
        *,
        variant: str = "v1c",
        channels: int = 3,
        stem_channels: int = 64,
        base_channels: int = 64,
        output_stride: int = 32,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = True,
    ) -> None:
        super().__init__()
        _check(depth, variant, output_stride, multi_grid)
        self.gradient_checkpointing = False
        self.variant = variant
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth in BASIC else Bottleneck
        if variant == "v1b":
            self.conv1 = nn.Conv2d(channels, stem_channels, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(stem_channels)
        else:
            self.stem = _deep_stem(channels, stem_channels)
        inputs = stem_channels
        stages: list[nn.Sequential] = []
        widths: list[int] = []
        for stage, (stride, dilation) in enumerate(zip(*STAGES[output_stride], strict=True)):
            count = BLOCKS[depth][stage]
            first = dilation // 2 if dilation > 1 and contract_dilation else dilation
            dilations = [first] + [dilation] * (count - 1)
            if multi_grid is not None and stage == 3:
                dilations = list(multi_grid)
            planes = base_channels * 2**stage
            blocks: list[nn.Module] = []
            for position, rate in enumerate(dilations):
                step = stride if position == 0 else 1
                blocks.append(block(inputs, planes, stride=step, dilation=rate, pools=variant == "v1d"))
                inputs = planes * block.expansion
            stages.append(nn.Sequential(*blocks))
            widths.append(inputs)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = tuple(widths)
        self.strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps of the four stages."""
        x = F.max_pool2d(self._stem(image_BCHW), 3, stride=2, padding=1)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = self._run(block, x)
            maps.append(x)
        return maps

    def stage_parameter_names(self) -> list[set[str]]:
        """Return the parameter names as layers: the stem, then each block."""
        layers: dict[str, set[str]] = {"stem": set()}
        for name, _ in self.named_parameters():
            parts = name.split(".")
            layer = f"{parts[0]}.{parts[1]}" if parts[0].startswith("layer") else "stem"
            layers.setdefault(layer, set()).add(name)
        return list(layers.values())

    def _stem(self, x: Tensor) -> Tensor:
        if self.variant == "v1b":
            return F.relu_(conv_norm(x, self.conv1, self.bn1))
        for conv, norm in ((0, 1), (3, 4), (6, 7)):  # the ReLUs between them have no weights
            x = F.relu_(conv_norm(x, _conv(self.stem[conv]), self.stem[norm]))
        return x

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            y: Tensor = block(x)
            return y
        # the second pass sees the same batch again, which running statistics have counted
        again: Tensor = checkpoint(
            block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(block))
        )
        return again


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; only the first is dilated."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, *, stride: int, dilation: int, pools: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride=stride, pools=pools)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm at the end of the branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(conv_norm(x, self.conv1, self.bn1))
        y = conv_norm(y, self.conv2, self.bn2)
        return F.relu_(y.add_(_shortened(x, self.downsample)))


class Bottleneck(nn.Module):
    """1x1, 3x3 with stride and dilation, 1x1 to four times the width, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, *, stride: int, dilation: int, pools: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _shortcut(inputs, planes * self.expansion, stride=stride, pools=pools)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The norm at the end of the branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(conv_norm(x, self.conv1, self.bn1))
        y = F.relu_(conv_norm(y, self.conv2, self.bn2))
        y = conv_norm(y, self.conv3, self.bn3)
        return F.relu_(y.add_(_shortened(x, self.downsample)))


def _deep_stem(channels: int, width: int) -> nn.Sequential:
    half = width // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def _shortcut(inputs: int, outputs: int, *, stride: int, pools: bool) -> nn.Sequential | None:
    """What makes the input of a block fit its output; None where it does already."""
    if stride == 1 and inputs == outputs:
        return None
    pool: list[nn.Module] = (
        [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if pools else []
    )
    conv = nn.Conv2d(inputs, outputs, 1, stride=1 if pools else stride, bias=False)
    return nn.Sequential(*pool, conv, nn.BatchNorm2d(outputs))


def _shortened(x: Tensor, downsample: nn.Sequential | None) -> Tensor:
    if downsample is None:
        return x
    *pool, conv, norm = downsample
    for one in pool:
        x = one(x)
    return conv_norm(x, _conv(conv), norm)


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _check(depth: int, variant: str, output_stride: int, multi_grid: Sequence[int] | None) -> None:
    for what, value, choices in (
        ("depth", depth, BLOCKS),
        ("variant", variant, VARIANTS),
        ("output stride", output_stride, STAGES),
    ):
        if value not in choices:
            raise UsageError(
                f"There is no ResNet of {what} {value!r}.", expected=f"one of {', '.join(map(str, choices))}"
            )
    if multi_grid is not None and len(multi_grid) != BLOCKS[depth][3]:
        raise UsageError(
            "multi_grid does not fit the last stage.",
            found=f"{len(multi_grid)} dilations",
            expected=f"{BLOCKS[depth][3]}, one per block",
        )
