"""Backbones of timm: its own feature maps, images of any size, and what it is not asked."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from terrazzo.errors import MissingExtraError, RecipeError, UnknownNameError, UsageError, WeightsError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.specs import upernet
from terrazzo.nn.timm_backbone import TimmBackbone, TimmWeights, backbone_tensors, timm_weights

timm = pytest.importorskip("timm", reason="timm is not installed: pip install timm")

NAMES = ["test_convnext", "swin_tiny_patch4_window7_224", "test_resnet", "test_vit"]


@pytest.fixture(scope="module", params=NAMES)
def backbone(request: pytest.FixtureRequest) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name=request.param).eval()


def test_maps_are_timms_own_channels_first(backbone: TimmBackbone) -> None:
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        theirs, ours = backbone.body(image)[-4:], backbone(image)
    assert len(ours) == 4
    for x, y, channels, stride in zip(ours, theirs, backbone.out_channels, backbone.strides, strict=True):
        assert x.shape == (1, channels, 64 // stride, 96 // stride)
        assert torch.equal(x, y.permute(0, 3, 1, 2) if y.shape[1] != channels else y)


def test_sides_that_it_does_not_take_are_padded_and_its_maps_cut_back(backbone: TimmBackbone) -> None:
    image = torch.rand(1, 3, 45, 70)
    with torch.no_grad():
        maps = backbone(image)
        below, right = -45 % backbone.multiple, -70 % backbone.multiple
        whole = backbone(torch.nn.functional.pad(image, (0, right, 0, below)))
    for x, y, stride in zip(maps, whole, backbone.strides, strict=True):
        assert x.shape[2:] == (-(-45 // stride), -(-70 // stride))
        assert torch.allclose(x, y[:, :, : x.shape[2], : x.shape[3]], atol=1e-5)


def test_layers_hold_every_parameter_once(backbone: TimmBackbone) -> None:
    layers = backbone.stage_parameter_names()
    names = [name for layer in layers for name in layer]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    assert len(layers) > 4


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels_go_through_its_first_convolution(channels: int) -> None:
    maps = TimmBackbone(name="test_convnext", channels=channels).eval()(torch.rand(1, channels, 32, 32))
    assert [x.shape[2] for x in maps] == [8, 4, 2, 1]


def test_it_is_dilated_where_timm_can() -> None:
    with torch.device("meta"):
        backbone = TimmBackbone(name="test_convnext", output_stride=8)
        network = build(ModelConfig("pspnet", backbone="timm/test_convnext"), num_classes=3)
    assert backbone.strides == (4, 8, 8, 8)
    assert network.backbone.strides == (4, 8, 8, 8)


def test_a_whole_network_learns_on_it_and_sees_images_of_stride_32_s_odd_sizes() -> None:
    torch.manual_seed(0)
    spec = upernet(ModelConfig("upernet", backbone="timm/test_convnext", drop_path=0.2))
    assert spec["backbone"] == {
        "kind": "timm",
        "name": "test_convnext",
        "output_stride": 32,
        "drop_path": 0.2,
    }
    network = assemble(spec | {"head": {"channels": 8}}, num_classes=3).train()
    network.gradient_checkpointing = True
    output = network(torch.rand(2, 3, 37, 33))
    assert output.logits.shape == (2, 3, 10, 9)
    (output.logits.square().mean() + output.auxiliary["auxiliary"].square().mean()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "output_stride", "sentence"),
    [
        ("swin_tiny_patch4_window7_224", 8, "swin_tiny_patch4_window7_224 cannot be dilated to stride 8."),
        ("dla34", 16, "dla34 cannot be dilated to stride 16."),
        ("nest_tiny", 0, "nest_tiny takes images of one size alone."),
        ("shvit_s1", 0, "shvit_s1 gives 3 feature maps, and the heads here read 4."),
    ],
)
def test_what_it_cannot_do_is_said_in_words(name: str, output_stride: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence), torch.device("meta"):
        TimmBackbone(name=name, output_stride=output_stride)


def test_a_backbone_timm_does_not_know_gets_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match=r"There is no backbone of timm 'convnxt_tiny'\.") as caught:
        build(ModelConfig("upernet", backbone="timm/convnxt_tiny"), num_classes=2)
    assert "convnext_tiny" in str(caught.value)


def test_without_timm_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r'pip install "terrazzo\[timm\]"'):
        TimmBackbone(name="test_convnext")


def test_weights_go_where_timm_puts_them(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_convnext", num_classes=10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    about = {
        "architecture": "test_convnext",
        "pretrained_cfg": {"license": "cc-by-nc-4.0", "mean": [0.5] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(about))
    weights = timm_weights(tmp_path)
    assert weights.license == "cc-by-nc-4.0"
    assert weights.mean == (0.5, 0.5, 0.5)

    backbone = TimmBackbone(name="test_convnext").eval()
    backbone.load_state_dict(backbone_tensors("test_convnext", weights))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_intermediates(image, intermediates_only=True)
        for x, y in zip(backbone(image), expected, strict=True):
            assert torch.allclose(x, y, atol=1e-5)


def test_weights_of_another_network_are_refused() -> None:
    weights = TimmWeights("elsewhere", {"conv1.weight": torch.zeros(3)}, None, (0.5,), (0.5,))
    with pytest.raises(WeightsError, match="The weights in elsewhere do not fit timm's test_convnext"):
        backbone_tensors("test_convnext", weights)


def test_an_output_stride_that_is_none_is_a_mistake_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="output_stride"):
        build(ModelConfig("pspnet", backbone="timm/test_convnext", output_stride=7), num_classes=2)
