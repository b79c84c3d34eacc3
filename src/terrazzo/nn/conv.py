"""Convolution, batch norm, ReLU: the brick of convolutional networks; and the classifier on top.

Outside training a batch norm multiplies and shifts each channel by constants, so it goes into the weights of the
convolution before it, and a pass over the map is saved. The weights are folded on each call, from the stored
parameters: gradients and checkpoints are those of the plain form, and nothing can be stale.

Shapes: B batch, C D channels in and out, K classes, H W height and width.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from terrazzo.kernels import winograd


class ConvNormAct(nn.Module):
    """A convolution without bias, batch norm, and ReLU where `activation`; parameters are conv.weight and bn.*."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, H', W')."""
        y_BDHW = conv_norm(x_BCHW, self.conv, self.bn)
        return F.relu_(y_BDHW) if self.activation else y_BDHW


class Classifier(nn.Conv2d):
    """Logits of a map: one weight per class and channel. In training whole channels are dropped before it."""

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__(in_channels, num_classes, 1)
        self.dropout = dropout

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, H, W)."""
        return super().forward(F.dropout2d(x_BCHW, self.dropout, self.training))


def conv_norm(x_BCHW: Tensor, conv: nn.Conv2d, norm: nn.Module) -> Tensor:
    """Return norm(conv(x)), which nobody else holds: it may be changed in place. conv has no bias.

    norm: a batch norm. Outside training it is folded into the weights, unless they are more than the map's pixels.
    """
    if norm.training:
        return normalised(conv(x_BCHW), norm)
    if conv.weight.numel() > x_BCHW.numel():  # a small map is sooner multiplied than many weights
        y_BDHW: Tensor = norm(conv(x_BCHW))
        return y_BDHW
    weight, bias_D = folded(conv.weight, norm)
    (dilation, _), (stride, _) = conv.dilation, conv.stride
    is_plain = conv.kernel_size == (3, 3) and conv.padding == conv.dilation and stride == conv.groups == 1
    if is_plain and winograd.pays(x_BCHW, weight, dilation=dilation):
        return winograd.conv3x3(x_BCHW, weight, bias_D, dilation=dilation)
    if conv.kernel_size == (1, 1) and stride == conv.groups == 1 and _is_alone(x_BCHW):
        return F.linear(x_BCHW.permute(0, 2, 3, 1), weight.flatten(1), bias_D).permute(0, 3, 1, 2)
    return F.conv2d(x_BCHW, weight, bias_D, conv.stride, conv.padding, conv.dilation, conv.groups)


def _is_alone(x: Tensor) -> bool:
    """Whether one CPU thread computes, for which torch 2.15 has a slow 1x1 convolution that leaves channels-last."""
    return x.device.type == "cpu" and torch.get_num_threads() == 1 and not torch.is_grad_enabled()


def folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (D, …) and bias (D,) of a convolution followed by `norm` outside training."""
    assert isinstance(norm, _BatchNorm), type(norm)
    scale_D = norm.weight * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
    shape = (-1, *(1,) * (weight.ndim - 1))
    return weight * scale_D.view(shape), norm.bias - norm.get_buffer("running_mean") * scale_D


def normalised(x_BDHW: Tensor, norm: nn.Module) -> Tensor:
    """Return norm(x). A batch of one value per channel has no deviation: the running statistics serve it.

    (One image pooled to one cell is such a batch; torch refuses it. A norm that is synchronised sees more values.)
    """
    assert isinstance(norm, _BatchNorm), type(norm)
    if norm.training and x_BDHW.numel() == x_BDHW.shape[1] and not _sees_others(norm):
        scale_D, shift_D = folded(torch.ones_like(norm.weight), norm)
        return x_BDHW * scale_D.view(1, -1, 1, 1) + shift_D.view(1, -1, 1, 1)
    y_BDHW: Tensor = norm(x_BDHW)
    return y_BDHW


def _sees_others(norm: nn.Module) -> bool:
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return type(norm) is not nn.BatchNorm2d and joined and torch.distributed.get_world_size() > 1


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let the batch norms inside remember nothing of what they see: for a pass that is computed a second time."""
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [norm.get_buffer("num_batches_tracked").clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(count)


def initialise(module: nn.Module) -> None:
    """Set random weights, as OpenMMLab does: convolutions normal by fan-out (He et al. 2015), the classifier normal
    0.01.

    Biases are 0, norms the identity. For `network.apply(initialise)`.
    """
    if isinstance(module, Classifier):
        nn.init.normal_(module.weight, std=0.01)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, _BatchNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
