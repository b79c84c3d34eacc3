"""Winograd's convolution against the plain one: exact in float64, a digit less in float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from terrazzo.kernels import winograd
from terrazzo.nn.conv import ConvNormAct
from terrazzo.nn.pyramid import pyramid_conv3x3


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size_hw", [(16, 32), (13, 18), (1, 1), (3, 40)])
def test_it_is_the_plain_convolution(size_hw: tuple[int, int], dilation: int):
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size_hw, dtype=torch.float64)
    weight, bias = torch.randn(7, 5, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    for b in (bias, None):
        plain = F.conv2d(x, weight, b, padding=dilation, dilation=dilation)
        ours = winograd.conv3x3(x, weight, b, dilation=dilation)
        assert ours.shape == plain.shape
        assert ours.is_contiguous(memory_format=torch.channels_last) or 1 in ours.shape
        assert (ours - plain).abs().max() < 1e-11


@pytest.mark.parametrize("tiles", [1, 7, 20])
def test_a_map_in_pieces_is_the_whole_map_and_memory_is_used_again(
    monkeypatch: pytest.MonkeyPatch, tiles: int
):
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 2, 21, 30, 5, dtype=torch.float64), torch.randn(7, 5, 3, 3).double()
    monkeypatch.setattr(winograd, "TILES_AT_ONCE", tiles)
    filter = winograd.Filter.of(weight, dilation=2)
    room = filter.room((21, 30))
    assert room.shape[2] * room.shape[3] <= max(tiles, 4)  # a line of tiles at least
    kept = [filter.convolve(x.numpy(), room=room) for x in maps]
    for x, found in zip(maps, kept, strict=True):
        plain = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=2, dilation=2).permute(0, 2, 3, 1)
        assert (torch.from_numpy(found) - plain).abs().max() < 1e-11


def test_float32_loses_about_one_digit():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 128, 32, 48).relu(), torch.randn(128, 128, 3, 3) / 34
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    plain = (F.conv2d(x, weight, padding=1) - exact).abs().max() / exact.std()
    ours = (winograd.conv3x3(x, weight) - exact).abs().max() / exact.std()
    assert ours < 1e-4
    assert ours < 100 * plain


def test_it_is_taken_where_it_pays_and_nowhere_else():
    x, weight = torch.zeros(1, 256, 40, 40), torch.zeros(256, 256, 3, 3)
    with torch.no_grad():
        assert winograd.pays(x, weight, dilation=1)
        assert not winograd.pays(x[:, :64], weight[:, :64], dilation=1)  # few channels
        assert not winograd.pays(x[..., :8, :8], weight, dilation=1)  # few tiles
        assert not winograd.pays(x, weight, dilation=36)  # tiles that are mostly padding
        assert not winograd.pays(x.bfloat16(), weight.bfloat16(), dilation=1)
        assert not winograd.pays(x.to("meta"), weight, dilation=1)
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.pays(x, weight, dilation=1)
    assert not winograd.pays(x, weight, dilation=1)  # gradients are wanted


def test_bricks_and_pyramids_take_it_for_inference(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    brick = ConvNormAct(256, 256, 3, padding=2, dilation=2).eval()
    nn.init.normal_(brick.bn.bias)
    x, weight, cells = torch.rand(1, 256, 48, 56), torch.randn(256, 264, 3, 3) / 48, torch.rand(1, 8, 2, 2)
    taken: list[int] = []
    conv3x3 = winograd.conv3x3

    def watched(*args: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        taken.append(dilation)
        return conv3x3(*args, dilation=dilation)

    monkeypatch.setattr(winograd, "conv3x3", watched)
    for forward in (brick, lambda x: pyramid_conv3x3(x, [cells], weight, align_corners=False)):
        plain = forward(x)  # gradients are wanted
        with torch.no_grad():
            assert torch.allclose(forward(x), plain, atol=1e-4)
    assert taken == [2, 1]
