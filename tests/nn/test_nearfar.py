"""NearFar against itself written out, and what its shape is for."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from terrazzo.errors import UsageError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.nearfar import NearFar, NearFarHead
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.specs import nearfar


def tiny(channels: int = 3) -> NearFar:
    torch.manual_seed(0)
    network = NearFar(
        channels=channels,
        widths=[4, 8, 8, 12],
        depths=[1, 2, 2],
        dilations=[1, 2],
        group_channels=4,
        squeeze=4,
    )
    settle(network)
    return network


def settle(network: nn.Module) -> None:
    """Norms that do something: at birth those of the residual branches are 0."""
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5), norm.bias.data.normal_()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)


@pytest.mark.parametrize("is_training", [False, True])
def test_maps_and_logits_are_those_of_the_network_written_out(is_training: bool) -> None:
    network = tiny().train(is_training)
    torch.manual_seed(1)
    head = NearFarHead((4, 8, 8, 12), 5, dropout=0.0, channels=[6, 8, 10])
    settle(head)
    head.train(is_training)
    image = torch.randn(2, 3, 21, 34)  # odd at every stride
    state = {name: one.clone() for name, one in [*network.named_parameters(), *network.named_buffers()]}
    state |= {name: one.clone() for name, one in [*head.named_parameters(), *head.named_buffers()]}

    def block(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        groups, padding = x.shape[1] // weight.shape[1], dilation * (weight.shape[2] // 2)
        x = F.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
        mean, var, gamma, beta = (
            state[f"{name}.bn.{one}"] for one in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, gamma, beta, is_training)

    def residual(name: str, x: Tensor, stride: int, dilation: int = 1) -> Tensor:
        y = block(f"{name}.expand", x).relu()
        y = block(f"{name}.look", y, stride, dilation).relu()
        if f"{name}.weigh.squeeze.weight" in state:
            few, many = (
                (state[f"{name}.weigh.{one}.weight"][:, :, 0, 0], state[f"{name}.weigh.{one}.bias"])
                for one in ("squeeze", "excite")
            )
            share = torch.sigmoid(F.linear(F.linear(y.mean((2, 3)), *few).relu(), *many))
            y = y * share[:, :, None, None]
        y = block(f"{name}.shrink", y)
        if stride == 2:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        if f"{name}.shortcut.conv.weight" in state:
            x = block(f"{name}.shortcut", x)
        return (x + y).relu()

    half = block("stem", image, stride=2).relu()
    quarter = residual("stages.0.0", half, 2)
    eighth = residual("stages.1.1", residual("stages.1.0", quarter, 2), 1)
    last = residual("stages.2.1", residual("stages.2.0", eighth, 2), 1, dilation=2)
    maps = network(image)
    for found, expected in zip(maps, (half, quarter, eighth, last), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)

    x = block("coarsest", last).relu()
    for level, finer in ((1, eighth), (0, quarter)):
        coarse = block(f"narrow.{level}", x).relu()
        coarse = F.interpolate(coarse, finer.shape[2:], mode="bilinear", align_corners=False)
        x = block(f"look.{level}", block(f"enter.{level}", finer).relu() + coarse).relu()
    expected = F.conv2d(x, state["classifier.weight"], state["classifier.bias"])
    assert torch.allclose(head(maps), expected, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 7])
@pytest.mark.parametrize("size_hw", [(5, 9), (1, 1), (32, 48)])
def test_any_channels_and_sides_give_maps_at_strides_2_to_16(channels: int, size_hw: tuple[int, int]) -> None:
    network = tiny(channels).eval()
    height, width = size_hw
    shapes = [tuple(x.shape[1:]) for x in network(torch.rand(1, channels, height, width))]
    strides = zip(network.out_channels, network.strides, strict=True)
    assert shapes == [(c, -(-height // s), -(-width // s)) for c, s in strides]


def test_dilated_blocks_see_the_whole_image() -> None:
    """Without what the mean over the image tells: a far corner's pixel reaches the middle of a 360x480 image."""
    torch.manual_seed(0)
    spec = {
        name: value for name, value in nearfar(ModelConfig("nearfar"))["backbone"].items() if name != "kind"
    }
    reach = {}
    for name, dilations in (("as it is", spec["dilations"]), ("near alone", [1] * len(spec["dilations"]))):
        network = NearFar(**spec | {"dilations": dilations}).eval()
        settle(network)
        for block in network.stages[-1]:
            block.weigh = None
        image = torch.rand(1, 3, 360, 480, requires_grad=True)
        network(image)[-1][0, :, 11, 15].sum().backward()
        reach[name] = bool(image.grad[0, :, :8, :8].abs().max() > 0)
    assert reach == {"as it is": True, "near alone": False}


def test_gradients_and_statistics_are_the_same_with_checkpointing() -> None:
    image = torch.rand(2, 3, 20, 20)
    states = []
    for is_on in (False, True):
        network = tiny().train()
        network.gradient_checkpointing = is_on
        sum(x.square().mean() for x in network(image)).backward()
        states.append(
            {name: p.grad for name, p in network.named_parameters()} | dict(network.named_buffers())
        )
    for name, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][name], atol=1e-6), name


def test_with_eleven_classes_it_has_under_a_million_and_a_half_parameters() -> None:
    with torch.device("meta"):
        network = build(ModelConfig("nearfar"), num_classes=11)
    total = sum(p.numel() for p in network.parameters())
    auxiliary = sum(p.numel() for p in network.auxiliary.parameters())
    assert auxiliary == 9 * 96 * 64 + 2 * 64 + 64 * 11 + 11
    assert (total, total - auxiliary) == (1_472_006, 1_415_867)


def test_its_training_may_be_recorded_and_that_of_networks_never_tried_may_not() -> None:
    with torch.device("meta"):
        ours, fcn = (build(ModelConfig(name), num_classes=3) for name in ("nearfar", "fcn"))
    assert ours.waits_for_nothing
    assert not fcn.waits_for_nothing  # its head is nearfar's auxiliary one; its ResNet was not tried


def test_a_spec_that_does_not_fit_is_refused() -> None:
    spec = nearfar(ModelConfig("nearfar"))
    for backbone, words in (
        ({"dilations": [1, 2]}, "a dilation for each block"),
        ({"widths": [32, 48, 96]}, "one stem and three stages"),
        ({"widths": [32, 48, 96, 1 << 20]}, "widths=1,048,576"),
        ({"depths": [2, 4, 100_000], "dilations": [1] * 100_000}, "depths=100,000"),
    ):
        with pytest.raises(UsageError, match=r"The backbone \(nearfar\) cannot be built\.") as caught:
            assemble({**spec, "backbone": spec["backbone"] | backbone}, num_classes=3)
        assert words in str(caught.value)
