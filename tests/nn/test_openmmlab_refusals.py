"""Checkpoints of OpenMMLab that cannot be read: a sentence that names what we do not have or what does not fit."""

from pathlib import Path

import pytest
import torch

from mmseg_checkpoint import changed, checkpoint, config, network_of, spec, their_names
from terrazzo.errors import TerrazzoError, UsageError, WeightsError
from terrazzo.nn.weights import read_model


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            config(spec(), decode_head__type="OCRHead"),
            "a head that terrazzo does not have\\.\n.*OCRHead\n.*PSPHead",
        ),
        (
            config(spec(), backbone__type="HRNet"),
            "a backbone that terrazzo does not have\\.\n.*HRNet\n.*ResNetV1c",
        ),
        (config(spec(), decode_head=[{"type": "FCNHead"}]), "cascade of heads"),
        (config(spec(), backbone__strides=(1, 1, 1, 1)), "backbone.strides with dilations"),
        (config(spec(), backbone__style="caffe"), "backbone.style"),
        (config(spec(), decode_head__norm_cfg={"eps": 0.001}), "decode_head.norm_cfg.eps = 0.001"),
        (config(spec(), test_cfg={"mode": "slide"}), "crop_size and stride"),
        (
            config(spec()).replace("'align_corners': False", "'align_corners': bool(0)"),
            "align_corners = bool\\(0\\)",
        ),
        (config(spec(), decode_head__in_index=7), "decode_head.in_index = 7"),
        ("model = (", "no Python config"),
        ("models = dict(a=1)", "describes no model\\.\n.*models"),
        (config(spec(), decode_head__dropout_ratio="much"), "decode_head.dropout_ratio = 'much'"),
    ],
)
def test_a_config_for_what_we_do_not_have_is_refused_by_name(text: str, said: str, tmp_path: Path):
    path = checkpoint(tmp_path / "a.pth", network_of(spec()), text)
    with pytest.raises(TerrazzoError, match=said) as caught:
        read_model(path)
    assert caught.value.exit_code in (1, 2)


def test_keys_that_do_not_fit_are_named_one_by_one(tmp_path: Path):
    path = checkpoint(tmp_path / "a.pth", network_of(spec()), config(spec()))
    changed(path, decode_head__bottleneck__bn__weight=None, decode_head__surprise=torch.ones(2),
            auxiliary_head__convs__0__bn__bias=torch.ones(9))  # fmt: skip
    with pytest.raises(WeightsError, match="do not fit the network Segmenter: 3 tensors") as caught:
        read_model(path)
    for line in ("head.bottleneck.bn.weight: missing", "head.surprise: not part of this network",
                 "auxiliary.convs.0.bn.bias: found (9,), expected (4,)"):  # fmt: skip
        assert line in str(caught.value)


def test_detectors_backbones_and_necks_get_a_sentence(tmp_path: Path):
    network = network_of(spec())
    backbone = {name: t for name, t in their_names(network).items() if name.startswith("backbone.")}
    detector = backbone | {"rpn_head.conv.weight": torch.ones(1), "roi_head.fc.weight": torch.ones(1)}
    torch.save(
        {"meta": {"cfg": "model = dict(type='FasterRCNN')"}, "state_dict": detector}, tmp_path / "a.pth"
    )
    with pytest.raises(WeightsError, match="is a checkpoint of a detector") as caught:
        read_model(tmp_path / "a.pth")
    assert "FasterRCNN: backbone, roi_head, rpn_head" in str(caught.value)
    torch.save(
        {name.removeprefix("backbone."): tensor for name, tensor in backbone.items()}, tmp_path / "a.pth"
    )
    with pytest.raises(WeightsError, match="holds no segmentation network") as caught:
        read_model(tmp_path / "a.pth")
    assert "model.pretrained=" in str(caught.value)
    path = checkpoint(tmp_path / "a.pth", network, config(spec()))
    with pytest.raises(WeightsError, match="a neck that terrazzo does not have"):
        read_model(changed(path, neck__lateral__weight=torch.ones(1)))


def test_tensors_of_no_sense_are_named(tmp_path: Path):
    for name in ("backbone.stem.0.weight", "backbone.layer1.0.conv2.weight", "decode_head.conv_seg.weight",
                 "decode_head.bottleneck.conv.weight", "auxiliary_head.convs.0.conv.weight"):  # fmt: skip
        for tensor in (None, torch.ones(()), torch.ones(2, 3)):
            path = checkpoint(tmp_path / "a.pth", network_of(spec()), config(spec()))
            with pytest.raises(WeightsError) as caught:
                read_model(changed(path, **{name: tensor}))
            part = (
                name.replace("decode_head", "head")
                .replace("auxiliary_head", "auxiliary")
                .replace("conv_seg", "classifier")
            )
            assert name in str(caught.value) or part in str(caught.value) or "backbone" in str(caught.value)


def test_a_head_of_unknown_parts_is_refused_without_a_config(tmp_path: Path):
    path = checkpoint(tmp_path / "x_r50-d8_.pth", network_of(spec()), None)
    with pytest.raises(WeightsError, match="a head that terrazzo does not have") as caught:
        read_model(changed(path, decode_head__gamma=torch.ones(1)))
    assert "gamma" in str(caught.value)


def test_a_config_beside_what_needs_none_is_misuse(tmp_path: Path):
    with pytest.raises(UsageError, match="needs no config"):
        read_model(tmp_path, config="x.py")
