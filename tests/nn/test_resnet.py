"""ResNets against timm's with the same weights, and by their own laws."""

import pytest
import torch
from torch import Tensor, nn

from terrazzo.errors import UsageError
from terrazzo.nn.resnet import BLOCKS, STAGES, ResNet

SIZE_HW = (45, 70)


def lively(network: nn.Module) -> None:
    """Move norms from their trivial start, so that no branch is zero and no statistic idle."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "weight")) and tensor.ndim == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.5)
            elif name.endswith(("running_mean", "bias")) and tensor.ndim == 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)


def timms_name(name: str) -> str:
    """timm calls the deep stem conv1 and bn1, and everything else as we do."""
    if name.startswith("stem."):
        _, position, rest = name.split(".")
        return f"bn1.{rest}" if position == "7" else f"conv1.{position}.{rest}"
    return name


def both(timms: str, depth: int, variant: str, output_stride: int) -> tuple[list[Tensor], list[Tensor]]:
    """The maps of our ResNet and of timm's, for the same image and weights."""
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")
    torch.manual_seed(0)
    ours = ResNet(depth, variant=variant, output_stride=output_stride).eval()
    lively(ours)
    theirs = timm.create_model(
        timms, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4), output_stride=output_stride
    ).eval()
    theirs.load_state_dict({timms_name(name): tensor for name, tensor in ours.state_dict().items()})
    image = torch.randn(1, 3, *SIZE_HW)
    with torch.no_grad():
        return ours(image), theirs(image)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("timms", "depth", "variant", "output_stride"),
    [
        ("resnet18", 18, "v1b", 32),
        ("resnet34d", 34, "v1d", 32),
        ("resnet50", 50, "v1b", 8),
        ("resnet50c", 50, "v1c", 16),
        ("resnet50d", 50, "v1d", 32),
    ],
)
def test_maps_are_those_of_timm(timms: str, depth: int, variant: str, output_stride: int):
    ours, theirs = both(timms, depth, variant, output_stride)
    for our, their in zip(ours, theirs, strict=True):
        assert our.shape == their.shape
        assert (our - their).abs().max() <= 1e-4 * their.std()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("timms", "depth", "variant"),
    [("resnet18", 18, "v1b"), ("resnet50d", 50, "v1d")],
    ids=["timm dilates the second convolution of a basic block", "timm pools 2x2 where nothing shrinks"],
)
def test_where_timm_differs_as_the_page_says(timms: str, depth: int, variant: str):
    ours, theirs = both(timms, depth, variant, 8)
    assert (ours[1] - theirs[1]).abs().max() <= 1e-4 * theirs[1].std()  # before any dilation they agree
    assert (ours[3] - theirs[3]).abs().max() > 0.1 * theirs[3].std()


# millions of parameters without the classifier: torchvision's published counts minus 2048 x 1000 + 1000 or 512 x ...
PARAMETERS = {18: 11_689_512 - 513_000, 34: 21_797_672 - 513_000, 50: 25_557_032 - 2_049_000,
              101: 44_549_160 - 2_049_000, 152: 60_192_808 - 2_049_000}  # fmt: skip


@pytest.mark.parametrize("depth", sorted(BLOCKS))
def test_parameters_are_as_many_as_published(depth: int):
    with torch.device("meta"):
        network = ResNet(depth, variant="v1b")
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[depth]


@pytest.mark.parametrize("output_stride", sorted(STAGES))
@pytest.mark.parametrize("variant", ["v1b", "v1c", "v1d"])
def test_maps_are_as_small_as_the_strides_say_whatever_the_image(variant: str, output_stride: int):
    network = narrow(18, variant=variant, output_stride=output_stride, channels=2).eval()
    for height, width in [(1, 1), (33, 47), (64, 5)]:
        maps = network(torch.rand(1, 2, height, width))
        for one, channels, stride in zip(maps, network.out_channels, network.strides, strict=True):
            assert one.shape == (1, channels, -(-height // stride), -(-width // stride))
            assert torch.isfinite(one).all()


def dilations(network: ResNet) -> list[list[int]]:
    """Dilation of every convolution that has one, by stage."""
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [
        [m.dilation[0] for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for stage in stages
    ]


def test_dilated_stages_begin_with_half_their_dilation():
    assert dilations(narrow(50, output_stride=8)) == [[1] * 3, [1] * 4, [1, 2, 2, 2, 2, 2], [2, 4, 4]]
    assert dilations(narrow(50, output_stride=16)) == [[1] * 3, [1] * 4, [1] * 6, [1, 2, 2]]
    whole = narrow(50, output_stride=8, contract_dilation=False)
    assert dilations(whole) == [[1] * 3, [1] * 4, [2] * 6, [4, 4, 4]]


def test_a_basic_blocks_second_convolution_is_never_dilated():
    assert dilations(narrow(18, output_stride=8))[2:] == [[1, 1, 2, 1], [2, 1, 4, 1]]


def test_multi_grid_sets_the_dilations_of_the_last_stage():
    assert dilations(narrow(101, output_stride=16, multi_grid=[1, 2, 4]))[3] == [1, 2, 4]


def test_gradient_checkpointing_changes_neither_gradients_nor_running_statistics():
    image, results = torch.rand(2, 3, 40, 33), []
    for is_on in (False, True):
        network = narrow(18, output_stride=8).train()
        lively(network)
        network.gradient_checkpointing = is_on
        sum(one.square().mean() for one in network(image)).backward()
        results.append(
            {name: parameter.grad for name, parameter in network.named_parameters()}
            | dict(network.named_buffers())
        )
    for name, plain in results[0].items():
        assert torch.equal(results[1][name], plain), name


def test_residual_branches_start_at_zero():
    """A fresh block without a shortcut gives what it gets (all of it is positive)."""
    network = narrow(50).train()
    x = torch.rand(2, 32, 8, 8)
    assert torch.equal(network.layer1[1](x), x)


def test_layers_go_from_the_stem_to_the_last_block_and_hold_everything_once():
    network = narrow(34)
    layers = network.stage_parameter_names()
    assert len(layers) == 1 + sum(BLOCKS[34])
    assert "stem.0.weight" in layers[0]
    assert "layer4.2.bn2.bias" in layers[-1]
    names = [name for layer in layers for name in layer]
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"depth": 20}, r"There is no ResNet of depth 20\."),
        ({"variant": "v2"}, r"There is no ResNet of variant 'v2'\."),
        ({"output_stride": 4}, r"There is no ResNet of output stride 4\."),
        (
            {"multi_grid": [1, 2]},
            r"multi_grid does not fit the last stage\.\n  found: 2 dilations\n  expected: 3",
        ),
    ],
)
def test_what_does_not_exist_is_said_in_words(wrong: dict[str, object], what: str):
    with pytest.raises(UsageError, match=what):
        narrow(**{"depth": 50, **wrong})


def narrow(depth: int, **rest: object) -> ResNet:
    torch.manual_seed(0)
    return ResNet(depth, **{"stem_channels": 8, "base_channels": 8, **rest})
