"""Networks assembled from specs: what a spec says, what is saved with it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from terrazzo.classes import Classes
from terrazzo.errors import RecipeError, UnknownNameError, UsageError, WeightsError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.conv import ConvNormAct, conv_norm
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.specs import RESNETS, SPECS, backbone_spec
from terrazzo.nn.weights import read_model, save_model

CLASSES = Classes(("road", "sky", "car"))
SPEC: dict[str, Any] = {
    "architecture": "pspnet",
    "backbone": {
        "kind": "resnet",
        "depth": 18,
        "variant": "v1c",
        "stem_channels": 8,
        "base_channels": 8,
        "output_stride": 8,
        "multi_grid": None,
        "contract_dilation": True,
    },
    "head": {"channels": 16, "in_index": 3, "pool_scales": [1, 2, 3, 6]},
    "auxiliary": {"channels": 8, "in_index": 2, "num_convs": 1, "concat_input": False},
    "dropout": 0.0,
    "align_corners": True,
}


def tiny(**settings: Any) -> Segmenter:
    torch.manual_seed(0)
    return assemble(SPEC, num_classes=3, **settings)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model of three classes and two channels in a folder of its own."""
    folder = tmp_path / "model"
    folder.mkdir()
    network = tiny(channels=2, mean=(0.1, 0.2), std=(0.3, 0.4))
    network.train()(torch.rand(2, 2, 32, 32))  # running statistics of its own
    save_model(folder, network, classes=CLASSES, preprocessing={"resize": "original"})
    return folder


def respecified(folder: Path, **changes: Any) -> Path:
    """The folder with entries of its spec replaced."""
    path = folder / "terrazzo.json"
    value = json.loads(path.read_text())
    value["network"]["spec"] |= changes
    path.write_text(json.dumps(value))
    return folder


# saved and read -----------------------------------------------------------------------------------------


def test_a_folder_alone_gives_the_network_back(saved: Path):
    loaded = read_model(saved).network
    assert isinstance(loaded, Segmenter)
    assert loaded.spec == SPEC
    assert loaded.align_corners is True
    assert loaded.mean.flatten().tolist() == pytest.approx([0.1, 0.2])
    assert loaded.std.flatten().tolist() == pytest.approx([0.3, 0.4])
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    tensors = load_file(saved / "model.safetensors")
    assert loaded.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.state_dict().items())


def test_reading_draws_no_random_numbers(saved: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    read_model(saved)
    assert torch.equal(torch.rand(3), expected)


def test_a_spec_of_tomorrow_is_refused_in_words(saved: Path):
    with pytest.raises(WeightsError, match="describes a network that terrazzo does not build") as caught:
        read_model(respecified(saved, architecture="pspnet2"))
    assert "There is no architecture 'pspnet2'." in str(caught.value)
    assert "Did you mean 'pspnet'" in str(caught.value)


def test_a_spec_that_does_not_fit_its_weights_lists_what(saved: Path):
    with pytest.raises(WeightsError, match="do not fit the network Segmenter: ") as caught:
        read_model(respecified(saved, head={**SPEC["head"], "channels": 24}))
    assert "head.psp_modules.0.1.conv.weight: found (16, 64, 1, 1), expected (24, 64, 1, 1)" in str(
        caught.value
    )


def test_a_spec_of_absurd_width_costs_no_memory(saved: Path):
    """It is compared with the weights before anything is allocated."""
    with pytest.raises(WeightsError):
        read_model(respecified(saved, head={**SPEC["head"], "channels": 10**7}))


# specs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "psp"}, r"There is no architecture 'psp'\."),
        ({"backbone": {"kind": "resnext"}}, r"There is no kind of backbone 'resnext'\."),
        (
            {"backbone": {"kind": "resnet"}},
            r"The backbone \(resnet\) cannot be built .*\n  found: no 'depth'",
        ),
        ({"head": {"chanels": 16, "channels": 16}}, r"'chanels': did you mean 'channels'\?"),
        ({"head": {"channels": -3}}, r"The head of pspnet cannot be built\.\n  found: channels=-3"),
        ({"head": {"channels": "wide"}}, r"The head of pspnet cannot be built\."),
        (
            {"auxiliary": {"channels": 8, "in_index": 2, "num_convs": 2**63}},
            r"auxiliary head cannot be built\.\n  found: num_convs=9,223,372,.*\n  expected: num_convs up to 64",
        ),
        ({"auxiliary": {"channels": 8, "in_index": 7}}, r"The auxiliary head cannot be built\."),
        ({"backbone": {"kind": "resnet", "depth": 51}}, r"There is no ResNet of depth 51\."),
    ],
)
def test_a_wrong_spec_is_refused_in_words(changes: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said), torch.device("meta"):
        assemble({**SPEC, **changes}, num_classes=3)


def test_a_spec_needs_all_its_parts():
    with pytest.raises(
        UsageError, match=r"The network cannot be built from its spec\.\n  found: no 'auxiliary'"
    ):
        assemble({key: value for key, value in SPEC.items() if key != "auxiliary"}, num_classes=3)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_specs_of_recipes_are_json(name: str):
    spec = SPECS[name](ModelConfig(name))
    assert json.loads(json.dumps(spec)) == spec


# parameters in millions with 19 classes, auxiliary head included: published model sizes, or counted from
# the configs where none is published
@pytest.mark.parametrize(
    ("name", "backbone", "millions"),
    [("pspnet", "resnet50_v1c", 48.97), ("deeplabv3", "resnet50_v1c", 68.1), ("fcn", "resnet50_v1c", 49.49),
     ("deeplabv3plus", "resnet50_v1c", 43.58)],
)  # fmt: skip
def test_full_width_networks_are_as_large_as_published(name: str, backbone: str, millions: float):
    with torch.device("meta"):
        network = build(ModelConfig(name, backbone=backbone), num_classes=19)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.02)


def test_a_recipe_chooses_backbone_and_stride():
    config = ModelConfig("deeplabv3", backbone="resnet101_v1d", output_stride=16, align_corners=True)
    with torch.device("meta"):
        network = build(config, num_classes=2)
        logits = network.eval()(torch.rand(1, 3, 65, 97)).logits
    assert network.backbone.strides == (4, 8, 16, 16)
    assert logits.shape == (1, 2, 5, 7)
    assert network.spec["head"]["dilations"] == [1, 6, 12, 18]
    assert network.align_corners is True


@pytest.mark.parametrize("name", ["pspnet", "fcn", "deeplabv3", "deeplabv3plus"])
def test_heads_of_dilated_maps_take_a_backbone_of_one_stride(name: str):
    config = ModelConfig(name, backbone="mit_b0", output_stride=32)
    network = build(config, num_classes=3).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).logits.shape[:2] == (1, 3)
    if name.startswith("deeplab"):  # of the published rates, those for a map at stride 32
        assert SPECS[name](config)["head"]["dilations"] == [1, 3, 6, 9]


@pytest.mark.parametrize("name", sorted(RESNETS))
def test_every_resnet_has_a_name(name: str):
    spec = backbone_spec(name, 32, ModelConfig())
    assert f"resnet{spec['depth']}_{spec['variant']}" == name


def test_an_unknown_backbone_gets_its_nearest_names():
    with pytest.raises(UnknownNameError, match=r"There is no backbone 'resnet50'\.") as caught:
        build(ModelConfig("pspnet", backbone="resnet50"), num_classes=3)
    assert "resnet50_v1c" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("backbone", "resnet50_v1c"), ("output_stride", 16), ("align_corners", True)]
)
def test_a_segformer_has_no_backbone_or_corners_to_choose(field: str, value: object):
    with pytest.raises(RecipeError, match=f"segformer-b0 has no {field} to choose") as caught:
        build(ModelConfig("segformer-b0", **{field: value}), num_classes=3)
    assert f"found: model.{field}={value}" in str(caught.value)


# the brick ----------------------------------------------------------------------------------------------


def test_outside_training_the_norm_is_folded_exactly():
    torch.manual_seed(0)
    brick = ConvNormAct(6, 9, 3, padding=2, dilation=2, groups=3).double().eval()
    with torch.no_grad():
        for tensor in (brick.bn.weight, brick.bn.bias, brick.bn.running_mean):
            tensor.normal_()
        brick.bn.running_var.uniform_(0.5, 2.0)
    image = torch.randn(2, 6, 11, 8, dtype=torch.float64)
    results = []
    for forward in (brick, lambda x: brick.bn(brick.conv(x)).relu()):
        brick.zero_grad()
        x = image.clone().requires_grad_()
        y = forward(x)
        y.square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in brick.parameters())])
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).abs().max() <= 1e-11 * plain.abs().max()


def test_one_value_per_channel_is_normalised_by_running_statistics():
    conv, norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    kept = norm.running_mean.clone()
    x = torch.rand(1, 3, 1, 1)
    trained = conv_norm(x, conv, norm.train())
    assert torch.allclose(trained, norm.eval()(conv(x)), atol=1e-6)
    assert torch.equal(norm.running_mean, kept)
    two = torch.rand(2, 3, 1, 1)  # two values have a deviation
    assert torch.allclose(conv_norm(two, conv, norm.train()), norm(conv(two)), atol=1e-6)
    assert not torch.equal(norm.running_mean, kept)


@pytest.mark.parametrize("size_hw", [(9, 14), (1, 1)])  # many pixels, and fewer than weights
def test_however_many_threads_a_1x1_convolution_is_the_same(size_hw: tuple[int, int]):
    torch.manual_seed(0)
    brick, x = ConvNormAct(6, 4, 1).eval(), torch.rand(2, 6, *size_hw)
    nn.init.normal_(brick.bn.bias)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                results.append(brick(x))
    finally:
        torch.set_num_threads(threads)
    plain = brick.bn(brick.conv(x)).relu()
    assert all(torch.allclose(one, plain, atol=1e-6) for one in results)
