"""Pyramid pooling as matrix products, against the plain operations in float64: values and gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn.pyramid import pooled, pyramid_conv3x3, pyramid_conv_norm, upsampled_conv3x3

SIZES_HW = [(13, 17), (5, 1), (2, 29)]  # some have fewer pixels than there are cells
SCALES = (1, 2, 3, 6)


def plain_conv(
    features: Tensor, maps: list[Tensor], weight: Tensor, *, align_corners: bool, first: bool
) -> Tensor:
    """What the fold stands for: resize each map, join, convolve."""
    size_hw = features.shape[2:]
    wide = [F.interpolate(one, size_hw, mode="bilinear", align_corners=align_corners) for one in maps]
    return F.conv2d(torch.cat([*wide, features] if first else [features, *wide], dim=1), weight, padding=1)


def drawn(size_hw: tuple[int, int]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Features of 5 channels, four maps of 3, and the weight that takes them all to 4; float64, with gradients."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    return draw(2, 5, *size_hw), [draw(2, 3, s, s) for s in SCALES], draw(4, 5 + 4 * 3, 3, 3)


def assert_alike(ours: Tensor, plain: Tensor) -> None:
    assert ours.shape == plain.shape
    assert (ours - plain).abs().max() <= 1e-12 * max(plain.abs().max().item(), 1.0)


@pytest.mark.parametrize("maps_first", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_the_folded_convolution_is_the_plain_one(
    size_hw: tuple[int, int], align_corners: bool, maps_first: bool
):
    results = []
    for is_folded in (True, False):
        features, maps, weight = drawn(size_hw)
        if is_folded:
            y = pyramid_conv3x3(features, maps, weight, align_corners=align_corners, maps_first=maps_first)
        else:
            y = plain_conv(features, maps, weight, align_corners=align_corners, first=maps_first)
        y.square().sum().backward()
        results.append([y.detach(), *(one.grad for one in (features, weight, *maps))])
    for ours, plain in zip(*results, strict=True):
        assert_alike(ours, plain)


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_pooling_is_torchs_adaptive_pooling(size_hw: tuple[int, int]):
    results = []
    for pool in (pooled, lambda x, scales: [F.adaptive_avg_pool2d(x, s) for s in scales]):
        x = drawn(size_hw)[0]
        maps = pool(x, SCALES)
        sum(one.square().sum() for one in maps).backward()
        results.append([*(one.detach() for one in maps), x.grad])
    for ours, plain in zip(*results, strict=True):
        assert_alike(ours, plain)


def test_maps_need_not_be_square():
    x, weight = torch.rand(1, 3, 2, 5, dtype=torch.float64), torch.rand(4, 3, 3, 3, dtype=torch.float64)
    ours = upsampled_conv3x3([x], [weight], (7, 11), align_corners=False)
    assert_alike(ours, F.conv2d(F.interpolate(x, (7, 11), mode="bilinear"), weight, padding=1))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_follows_the_convolution(training: bool):
    torch.manual_seed(0)
    conv = nn.Conv2d(17, 4, 3, padding=1, bias=False).double()
    results = []
    for is_folded in (True, False):
        norm = nn.BatchNorm2d(4).double().train(training)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.3]))
            norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3, 0.4]))
            norm.running_mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))
            norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.1]))
        conv.zero_grad()
        features, maps, _ = drawn((6, 9))
        if is_folded:
            y = pyramid_conv_norm(features, maps, conv, norm, align_corners=True)
        else:
            y = norm(plain_conv(features, maps, conv.weight, align_corners=True, first=False))
        (y**3).sum().backward()
        results.append(
            [y.detach(), features.grad, conv.weight.grad.clone(), norm.weight.grad, norm.running_var]
        )
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).abs().max() <= 1e-10 * max(plain.abs().max().item(), 1.0)


def test_half_precision_stays_near_float32():
    features, maps, weight = (
        torch.rand(1, 16, 12, 20),
        [torch.rand(1, 8, s, s) for s in SCALES],
        torch.randn(4, 48, 3, 3) / 20,
    )
    full = pyramid_conv3x3(features, maps, weight, align_corners=False)
    with torch.autocast("cpu", torch.bfloat16):
        half = pyramid_conv3x3(features, maps, weight, align_corners=False)
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.02 * full.abs().max()
    cells = pooled(features.bfloat16(), SCALES)[3].float()
    assert torch.allclose(cells, F.adaptive_avg_pool2d(features, 6), rtol=0.02)
