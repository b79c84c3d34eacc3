"""U-Net against itself written out, its names, and images of any size and number of channels."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.nn import ModelConfig, build
from terrazzo.nn.unet import UNet


def tiny(channels: int = 3) -> UNet:
    torch.manual_seed(0)
    network = UNet(channels=channels, base_channels=4, num_stages=3)
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5), norm.bias.data.normal_()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("is_training", [False, True])
def test_the_maps_are_those_of_the_network_written_out(is_training: bool) -> None:
    network = tiny().train(is_training)
    image = torch.randn(2, 3, 12, 16)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def block(name: str, x: Tensor) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        mean, var, gamma, beta = (
            state[f"{name}.bn.{one}"] for one in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, gamma, beta, is_training))

    def twice(name: str, x: Tensor) -> Tensor:
        return block(f"{name}.convs.1", block(f"{name}.convs.0", x))

    def up(number: int, x: Tensor, skip: Tensor) -> Tensor:
        larger = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        larger = block(f"decoder.{number}.upsample.interp_upsample.1", larger)
        return twice(f"decoder.{number}.conv_block", torch.cat([skip, larger], 1))

    down0 = twice("encoder.0.0", image)
    down1 = twice("encoder.1.1", F.max_pool2d(down0, 2))
    down2 = twice("encoder.2.1", F.max_pool2d(down1, 2))
    up1 = up(1, down2, down1)
    up0 = up(0, up1, down0)
    for found, expected in zip(network(image), (up0, up1, down2), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 7])
@pytest.mark.parametrize("size_hw", [(5, 9), (1, 1), (8, 8)])
def test_any_channels_and_sides_give_maps_at_strides_1_2_4(channels: int, size_hw: tuple[int, int]) -> None:
    network = tiny(channels).eval()
    height, width = size_hw
    shapes = [tuple(x.shape[1:]) for x in network(torch.rand(1, channels, height, width))]
    assert shapes == [(4 * s, -(-height // s), -(-width // s)) for s in (1, 2, 4)]


def test_padding_does_not_change_what_lies_far_from_it() -> None:
    network = tiny().eval()
    image = torch.rand(1, 3, 64, 64)
    whole, cut = network(image)[0], network(image[:, :, :63, :61])[0]
    assert torch.allclose(whole[:, :, :32, :32], cut[:, :, :32, :32], atol=1e-5)


def test_gradients_and_statistics_are_the_same_with_checkpointing() -> None:
    image = torch.rand(2, 3, 12, 12)
    states = []
    for is_on in (False, True):
        network = tiny().train()
        network.gradient_checkpointing = is_on
        sum(x.square().mean() for x in network(image)).backward()
        grads = {name: p.grad for name, p in network.named_parameters()}
        states.append(grads | dict(network.named_buffers()))
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], atol=1e-6), name


def test_the_full_width_has_the_size_of_its_layers_counted_by_hand() -> None:
    with torch.device("meta"):
        network = build(ModelConfig("unet"), num_classes=2)

    def twice(inputs: int, outputs: int) -> int:  # two 3x3 convolutions, each with weight and bias of a norm
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs

    down = sum(twice(i, o) for i, o in ((3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)))
    up = sum(2 * o * o + 2 * o + twice(2 * o, o) for o in (64, 128, 256, 512))
    head = 9 * 64 * 64 + 2 * 64 + 64 * 2 + 2
    auxiliary = 9 * 128 * 64 + 2 * 64 + 64 * 2 + 2
    assert sum(p.numel() for p in network.parameters()) == down + up + head + auxiliary
    assert network.head.classifier.weight.shape == (2, 64, 1, 1)
