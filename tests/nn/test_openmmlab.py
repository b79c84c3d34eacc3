"""Checkpoints of MMSegmentation give the logits and masks it gave itself.

Truth: the golden files, which MMSegmentation 1.2.2 wrote with its logits; for other depths and widths, networks of ours
whose tensors are given its names by hand, in mmseg_checkpoint.py.
"""

import copy
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import terrazzo as tz
from mmseg_checkpoint import MEAN, STD, checkpoint, config, network_of, segformer, spec
from terrazzo.errors import MissingPathError, UsageError, WeightsError
from terrazzo.nn.openmmlab import read_checkpoint
from terrazzo.nn.weights import read_model

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden" / "mmseg"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files at ../shared/golden")
NAMES = ("deeplabv3_r50-d8", "deeplabv3plus_r50-d8", "fcn_r50-d8", "fcn_r50-d8_v0_legacy", "pspnet_r101-d8",
         "pspnet_r18-d8", "pspnet_r50-d8", "segformer_mit-b0", "upernet_r50")  # fmt: skip


# what MMSegmentation computed -------------------------------------------------------------------------------


@golden
@pytest.mark.parametrize("name", NAMES)
def test_the_logits_are_those_of_mmsegmentation(name: str):
    model = read_model(GOLDEN / f"{name}.pth")
    with np.load(GOLDEN / f"{name}.npz") as file:
        image, logits = torch.from_numpy(file["input"]), file["logits"]
    network = model.network
    assert np.allclose(np.ravel(network.mean) * 255, MEAN) and np.allclose(np.ravel(network.std) * 255, STD)
    network.set_normalisation((0.0,) * 3, (1.0,) * 3)  # the input is normalised already
    with torch.no_grad():
        found = network(image).logits.numpy()
    assert found.shape == logits.shape
    assert np.abs(found - logits).max() <= 1e-4 * logits.std()
    assert len(model.classes) == logits.shape[1]
    assert not any("unnamed" in line or "no config" in line for line in model.said)


@golden
def test_the_trained_checkpoint_gives_the_golden_mask_through_the_whole_path(camvid: Path):
    path = GOLDEN / "trained_by_mmengine_pspnet_r50-d8.pth"
    predictor = tz.load(path)
    assert predictor.classes.names[:3] == ("sky", "building", "pole")
    assert predictor.classes.colors[1] == (20, 235, 67)
    with np.load(GOLDEN / "trained_by_mmengine_pspnet_r50-d8.npz") as file:
        mask = file["mask"]
    image = next(camvid.rglob("val/0016E5_07959.png"))
    prediction = predictor(image)
    assert (prediction.mask == mask).mean() >= 0.9999


@golden
def test_both_containers_and_both_metas_say_the_same():
    new, old = (read_checkpoint(GOLDEN / f"{name}.pth") for name in ("fcn_r50-d8", "fcn_r50-d8_v0_legacy"))
    assert new.spec == old.spec and new.classes.names == old.classes.names and new.classes.names[0] == "road"
    assert old.classes.colors[1] == (1, 254, 7)  # the other names none
    assert new.preprocessing == old.preprocessing == {"resize": "sides", "resize_hw": (1024, 2048)}
    assert all(torch.equal(tensor, old.tensors[name]) for name, tensor in new.tensors.items())


# other depths, widths and configs of the same families ------------------------------------------------------

FAMILIES = {
    "mit b5": segformer(3, 6, 40, 3),
    "upernet r101": spec("upernet", {"channels": 6, "pool_scales": [1, 2, 3, 6]}, depth=101, output_stride=32),
    "u-net": {"architecture": "unet", "backbone": {"kind": "unet", "base_channels": 4}, "dropout": 0.1,
              "head": {"channels": 4, "in_index": 0, "num_convs": 1, "concat_input": False}, "align_corners": False,
              "auxiliary": {"channels": 3, "in_index": 1, "num_convs": 1, "concat_input": False}},
    "r101b 769 align_corners": spec(depth=101, variant="v1b", align_corners=True),
    "r152 v1d d16": spec(depth=152, variant="v1d", output_stride=16),
    "r34 v1d": spec(depth=34, variant="v1d"),
    "r18 fcn": spec("fcn", {"channels": 6, "in_index": 3, "num_convs": 2, "concat_input": True}, auxiliary=None),
    "deeplabv3 d16 multi grid": spec("deeplabv3", {"channels": 4, "in_index": 3, "dilations": [1, 6, 12, 18]},
                                     depth=34, output_stride=16, multi_grid=[1, 2, 4]),
    "deeplabv3plus r18b": spec("deeplabv3plus", {"channels": 4, "c1_channels": 2, "in_index": 3,
                                                  "dilations": [1, 12, 24, 36]}, variant="v1b"),
    }  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_other_depths_and_widths_come_back_as_they_were(family: str, tmp_path: Path):
    told = FAMILIES[family]
    network = network_of(told, 5)
    path = checkpoint(tmp_path / "iter_80000.pth", network, config(told, 5), names="abcde")
    model = read_model(path)
    assert model.network.spec == told
    image = torch.rand(1, 3, 65, 49)
    with torch.no_grad():
        assert torch.equal(model.network(image).logits, network(image).logits)
    assert model.classes.names == tuple("abcde")
    assert model.said == ()


def test_windows_sizes_and_ade20ks_ids(tmp_path: Path):
    told = spec(align_corners=True)
    network = network_of(told, 150)
    text = config(told, 150, test_cfg={"mode": "slide", "crop_size": (769, 769), "stride": (513, 513)})
    text += "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(2049, 1025), keep_ratio=True)]))"
    names = [f"class {number}" for number in range(150)]
    path = checkpoint(tmp_path / "a.pth", network, text, names=names)
    value = torch.load(path, weights_only=True)
    value["meta"]["dataset_meta"]["reduce_zero_label"] = True
    torch.save(value, path)
    predictor = tz.load(path)
    assert predictor.eval.inference == "windows"
    assert (predictor.eval.window_hw, predictor.eval.stride_hw) == ((769, 769), (513, 513))
    assert (predictor.data.resize, predictor.data.resize_hw) == ("sides", (1025, 2049))
    assert predictor.network.align_corners is True
    assert predictor.remap is not None
    assert predictor.remap.inverse(np.array([[0, 149, 255]], np.uint8)).tolist() == [[1, 150, 0]]


OLD = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(type='ResNetV1c', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
                  strides=(1, 2, 1, 1), norm_cfg=norm_cfg, norm_eval=False, style='pytorch', contract_dilation=True),
    decode_head=dict(type='PSPHead', in_channels=16, in_index=3, channels=6, pool_scales=(1, 2, 3, 6),
                     dropout_ratio=0.1, num_classes=3, norm_cfg=norm_cfg, align_corners=False))
test_cfg = dict(mode='slide', crop_size=(64, 48), stride=(32, 24))
img_norm_cfg = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], to_rgb=True)
data = dict(samples_per_gpu=2, test=dict(type='CityscapesDataset', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(64, 32), flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
        dict(type='ImageToTensor', keys=['img']), dict(type='Collect', keys=['img'])])]))
"""


def test_configs_of_0x_and_of_another_file(tmp_path: Path):
    network = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", network, None)
    (tmp_path / "old.py").write_text(OLD)
    model = tz.load(path, config=tmp_path / "old.py")
    assert np.allclose(np.ravel(model.network.mean) * 255, [1, 2, 3])
    assert np.allclose(np.ravel(model.network.std) * 255, [4, 5, 6])
    assert (model.eval.window_hw, model.eval.stride_hw) == ((64, 48), (32, 24))
    assert (model.data.resize, model.data.resize_hw) == ("sides", (32, 64))
    with pytest.raises(WeightsError, match="holds no config, and its tensors do not tell how far") as caught:
        tz.load(path)
    assert "config=" in str(caught.value) and "--config CONFIG.py" in str(caught.value)
    (tmp_path / "part.py").write_text("_base_ = ['../_base_/models/pspnet_r50-d8.py']\n")
    with pytest.raises(UsageError, match="part.py builds on other configs"):
        tz.load(path, config=tmp_path / "part.py")
    with pytest.raises(MissingPathError, match="There is no config"):
        tz.load(path, config=tmp_path / "none.py")


def test_without_a_config_what_is_assumed_is_said(tmp_path: Path):
    network = network_of(spec(align_corners=True))
    path = checkpoint(tmp_path / "pspnet_r50-d8_769x769_40k_cityscapes.pth", network, None, names=None)
    model = read_model(path)
    assert model.network.spec == spec(align_corners=True)
    assert model.classes.names == (
        "LABEL_0",
        "LABEL_1",
        "LABEL_2",
    )  # never Cityscapes, whatever the name says
    assert model.preprocessing["window_hw"] == (769, 769)
    said = "\n".join(model.said)
    for part in (
        "output stride 8, by the name",
        "align_corners true",
        "windows of 769x769",
        "ImageNet's mean",
        "unnamed",
    ):
        assert part in said


def test_weights_for_bgr_are_turned_round(tmp_path: Path):
    network = network_of(spec())
    turned = copy.deepcopy(network)
    with torch.no_grad():
        turned.backbone.stem[0].weight.copy_(network.backbone.stem[0].weight.flip(1))
    text = config(spec(), data_preprocessor={"mean": MEAN[::-1], "std": STD[::-1], "bgr_to_rgb": False})
    model = read_model(checkpoint(tmp_path / "a.pth", turned, text))
    image = torch.rand(1, 3, 40, 40)
    assert torch.equal(model.network(image).logits, network(image).logits)
    assert torch.equal(model.network.mean, network.mean)
    assert any("blue first" in line for line in model.said)


def test_one_sigmoid_row_becomes_two_classes(tmp_path: Path):
    network = network_of(spec(auxiliary=None), 1)
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():  # so that about half of the pixels are above the threshold
        network.head.classifier.bias += (
            0.01 + float(torch.logit(torch.tensor(0.3))) - network(image).logits.median()
        )
    text = config(spec(auxiliary=None), 2, decode_head__out_channels=1, decode_head__threshold=0.3)
    model = read_model(checkpoint(tmp_path / "a.pth", network, text, names=("no", "yes")))
    with torch.no_grad():
        wanted = torch.sigmoid(network(image).logits)[:, 0] > 0.3
        assert torch.equal(model.network(image).logits.argmax(1) == 1, wanted)
    assert 0 < wanted.sum() < wanted.numel()
    assert any("one sigmoid became two classes" in line for line in model.said)


def test_wrappers_and_averages_are_taken_off(tmp_path: Path):
    network = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", network, config(spec()))
    value = torch.load(path, weights_only=True)
    tensors = {f"module.{name}": tensor for name, tensor in value["state_dict"].items()}
    tensors |= {"module.data_preprocessor.mean": torch.zeros(3, 1, 1)}
    ema = {"ema_backbone_stem_0_weight": torch.zeros(2)}
    torch.save({**value, "state_dict": tensors | ema, "ema_state_dict": {}}, path)
    model = read_model(path)
    image = torch.rand(1, 3, 40, 40)
    assert torch.equal(model.network(image).logits, network(image).logits)
    assert len(model.said) == 2 and "ema_" in model.said[0]


def test_other_auxiliary_heads_are_left_out_aloud(tmp_path: Path):
    network = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", network, config(spec()))
    value = torch.load(path, weights_only=True)
    tensors = {
        name.replace("auxiliary_head.", "auxiliary_head.0."): t for name, t in value["state_dict"].items()
    }
    torch.save({**value, "state_dict": tensors}, path)
    model = read_model(path)
    assert model.network.auxiliary is None
    assert any("auxiliary heads are left out" in line for line in model.said)


def test_the_text_of_this_file_is_no_config_of_ours():
    """Guards the helper of these tests: its text is read back as what it says."""
    from terrazzo.nn.config_text import read_config_text

    model = read_config_text(textwrap.dedent(config(spec())), where="it")["model"]
    assert model["backbone"]["strides"] == (1, 2, 1, 1)
