"""What every entry of MODELS keeps, and what a network of one's own may return.

All entries are built on the meta device at full width. One of each family also computes, narrow where it has a spec.
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import UnknownNameError, UsageError
from terrazzo.nn import MODELS, ModelConfig, build
from terrazzo.nn.outputs import Output, as_output
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.specs import SPECS
from terrazzo.nn.weights import read_model, save_model

COMPUTED = {
    "segformer-b0": 4,
    "fcn": 8,
    "pspnet": 8,
    "deeplabv3": 8,
    "deeplabv3plus": 4,
    "upernet": 4,
    "unet": 1,
    "segformer-conv": 4,
    "nearfar": 4,
}  # name -> stride of its logits


@pytest.mark.parametrize("name", sorted(MODELS))
def test_builds_without_memory_and_knows_its_parts(name: str, tmp_path: Path):
    if name == "huggingface":  # tests/nn/test_huggingface.py holds it to the rest of the contract
        pytest.importorskip("transformers")
        (tmp_path / "config.json").write_text('{"model_type": "mobilevit"}')
    config = ModelConfig(name, pretrained=str(tmp_path) if name == "huggingface" else None)
    with torch.device("meta"):
        network = build(config, num_classes=7, channels=4, mean=(0.5,) * 4, std=(0.2,) * 4)
    names = {parameter for parameter, _ in network.named_parameters()}
    head, layers = network.head_parameter_names(), network.stage_parameter_names()
    backbone = {parameter for layer in layers for parameter in layer}
    assert (network.num_classes, network.channels) == (7, 4)
    assert network.mean.shape == network.std.shape == (1, 4, 1, 1)
    assert head | backbone == names
    assert not head & backbone
    assert sum(map(len, layers)) == len(backbone), "a parameter stands in two layers"
    heads = [network.head, *([network.auxiliary] if getattr(network, "auxiliary", None) is not None else [])]
    assert {id(p) for one in heads for p in one.parameters()} == {id(network.get_parameter(n)) for n in head}
    assert {id(p) for p in network.backbone.parameters()} == {id(network.get_parameter(n)) for n in backbone}
    assert network.gradient_checkpointing is False
    assert not {"mean", "std"} & network.state_dict().keys()


@pytest.mark.parametrize("name", sorted(COMPUTED))
@pytest.mark.parametrize(("num_classes", "channels"), [(5, 1), (1, 4)])
def test_learns_from_any_number_of_classes_and_channels(name: str, num_classes: int, channels: int):
    network = small(name, num_classes, channels).train()
    image = torch.rand(2, channels, 45, 38)
    output = network(image)
    assert isinstance(output, Output)
    stride = COMPUTED[name]
    assert output.logits.shape == (2, num_classes, math.ceil(45 / stride), math.ceil(38 / stride))
    assert output.logits.dtype == torch.float32
    outputs = (output.logits, *output.auxiliary.values())
    assert all(one.shape[:2] == (2, num_classes) for one in outputs)
    sum(one.square().mean() for one in outputs).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{parameter_name} is not used"
        assert torch.isfinite(parameter.grad).all(), parameter_name


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_a_constant_image_gives_finite_logits(name: str):
    network = small(name)
    for image in (torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)):
        assert torch.isfinite(network.eval()(image).logits).all()
        assert torch.isfinite(network.train()(image).logits).all()


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_an_image_gives_the_same_in_any_batch_and_memory_layout(name: str):
    network = small(name).eval()
    image = torch.rand(3, 3, 50, 41)
    with torch.no_grad():
        together = network(image).logits
        alone = torch.cat([network(one[None]).logits for one in image])
        relaid = network(image.contiguous(memory_format=torch.channels_last)).logits
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, relaid, atol=1e-5)


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_training_is_right_on_a_network_that_was_copied_in_place(name: str):
    """Two steps with the same weights and numbers give the same loss, whatever the network held before."""
    image, losses = torch.rand(2, 3, 32, 32), []
    state = small(name, seed=1).state_dict()
    for seed in (0, 5):
        network = small(name, seed=seed).train()
        network(image)  # leaves running statistics behind
        network.load_state_dict(state)
        torch.manual_seed(0)
        losses.append(network(image).logits.square().mean().item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_bfloat16_autocast_stays_near_float32(name: str):
    network, image = small(name).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        full = network(image).logits
        with torch.autocast("cpu", torch.bfloat16):
            half = network(image).logits.float()
    assert (half - full).abs().max() < 0.1 * full.std()
    with torch.autocast("cpu", torch.bfloat16):
        output = network.train()(image)
    sum(one.float().square().mean() for one in (output.logits, *output.auxiliary.values())).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_saved_and_read_it_is_the_same_network(name: str, tmp_path: Path):
    classes = Classes(("road", "sky", "person", "car"))
    network = small(name, 4).eval()
    save_model(tmp_path, network, classes=classes, preprocessing={"resize": "original"})
    loaded = read_model(tmp_path)
    image = torch.rand(1, 3, 40, 56)
    assert torch.equal(loaded.network(image).logits, network(image).logits)
    assert loaded.classes == classes
    assert not loaded.network.training


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_one_small_image_is_a_batch_to_train_on(name: str):
    """Pooled to one cell it gives batch norm a single value per channel, from which no deviation can be had."""
    network = small(name).train()
    network(torch.rand(1, 3, 33, 20)).logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert all(torch.isfinite(buffer).all() for buffer in network.buffers())


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_any_size_of_image_has_logits(name: str):
    network, stride = small(name).eval(), COMPUTED[name]
    for height, width in [(1, 1), (3, 70), (33, 64)]:
        with torch.no_grad():
            logits = network(torch.rand(1, 3, height, width)).logits
        assert logits.shape == (1, 5, math.ceil(height / stride), math.ceil(width / stride))
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", sorted(SPECS))
def test_auxiliary_logits_are_for_training_alone(name: str):
    network, image = small(name), torch.rand(2, 3, 32, 32)
    assert network.auxiliary is None or network.train()(image).auxiliary.keys() == {"auxiliary"}
    assert not network.eval()(image).auxiliary


@pytest.mark.parametrize("name", sorted(SPECS))
def test_corners_meet_where_the_recipe_says_so(name: str):
    """The network tells loss and predictor; and its own maps are resized so, where it resizes any."""
    torch.manual_seed(0)
    config = ModelConfig(name, align_corners=True)
    spec = narrow(SPECS[name](config))
    network = assemble(spec, num_classes=3).eval()
    assert network.align_corners is True
    assert network.spec == spec
    other = assemble({**spec, "align_corners": False}, num_classes=3).eval()
    assert other.align_corners is False
    other.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 64, 80)
    same = torch.allclose(network(image).logits, other(image).logits, atol=1e-7)
    assert same == (name in ("fcn", "deeplabv3", "unet"))  # a mean spread over the map has no corners


@pytest.mark.parametrize("name", sorted(COMPUTED))
def test_can_be_exported_with_torch(name: str):
    network, image = small(name).eval(), torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        program = torch.export.export(LogitsOf(network), (image,), strict=False)
        exported = program.module()(image)
    assert torch.allclose(exported, network(image).logits, atol=1e-5)


def test_an_unknown_model_gets_its_nearest_names():
    with pytest.raises(UnknownNameError, match=r"There is no model 'segfomer-b0'\.") as caught:
        build(ModelConfig("segfomer-b0"), num_classes=2)
    assert "Did you mean 'segformer-b0'" in str(caught.value)


@pytest.mark.parametrize(
    "value_of", [lambda x: x, lambda x: Output(x), lambda x: SimpleNamespace(logits=x, loss=None)]
)
def test_a_network_of_ones_own_may_return_logits_in_three_forms(value_of: Callable[[Tensor], object]):
    logits = torch.rand(2, 3, 4, 4)
    assert as_output(value_of(logits)).logits is logits


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.rand(2, 3, 4), r"found: a tensor of shape \(2, 3, 4\)"),
        ({"out": torch.rand(2, 3, 4, 4)}, "found: dict"),
        (None, "found: NoneType"),
    ],
)
def test_anything_else_a_network_returns_is_refused_in_words(value: object, found: str):
    with pytest.raises(UsageError, match=r"The network did not return logits\.") as caught:
        as_output(value)
    assert caught.match(found)


def small(name: str, num_classes: int = 5, channels: int = 3, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    normalisation = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    if name not in SPECS:
        return build(ModelConfig(name), num_classes=num_classes, channels=channels, **normalisation)
    return assemble(
        narrow(SPECS[name](ModelConfig(name))), num_classes=num_classes, channels=channels, **normalisation
    )


def narrow(spec: dict[str, Any]) -> dict[str, Any]:
    """The same network with few channels everywhere."""
    backbone, head = dict(spec["backbone"]), {**spec["head"], "channels": 16}
    if backbone["kind"] == "resnet":
        backbone |= {"depth": 18, "stem_channels": 8, "base_channels": 8}
    elif backbone["kind"] == "mit":
        backbone |= {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_heads": [1, 2, 3, 4]}
    elif backbone["kind"] == "unet":
        backbone["base_channels"] = 8
    elif backbone["kind"] == "nearfar":
        backbone |= {"widths": [8, 8, 16, 16], "depths": [1, 1, 2], "dilations": [1, 2], "group_channels": 4}
        head["channels"] = [8, 8, 16]
    if "c1_channels" in head:
        head["c1_channels"] = 4
    auxiliary = spec["auxiliary"] and {**spec["auxiliary"], "channels": 8}
    return {**spec, "backbone": backbone, "head": head, "auxiliary": auxiliary}


class LogitsOf(nn.Module):
    """What exporters take: one tensor in, one tensor out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.network(image_BCHW).logits
        return logits
