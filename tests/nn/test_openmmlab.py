"""Checkpoints of MMSegmentation: the logits and masks it gave itself, and a sentence for all that we cannot read.

Truth: the golden files, which MMSegmentation 1.2.2 wrote with its logits; for other depths and widths, networks of ours
whose tensors are given its names here, by hand.
"""

import copy
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import terrazzo as tz
from terrazzo.classes import Classes
from terrazzo.errors import MissingPathError, TerrazzoError, UsageError, WeightsError
from terrazzo.nn.openmmlab import read_checkpoint
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.starting import load_pretrained
from terrazzo.nn.weights import read_model

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden" / "mmseg"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files at ../shared/golden")
NAMES = ("deeplabv3_r50-d8", "deeplabv3plus_r50-d8", "fcn_r50-d8", "fcn_r50-d8_v0_legacy", "pspnet_r101-d8",
         "pspnet_r18-d8", "pspnet_r50-d8", "segformer_mit-b0", "upernet_r50")  # fmt: skip
CLASSES = ("road", "car", "sky")
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


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

RESNET = {"kind": "resnet", "depth": 18, "variant": "v1c", "stem_channels": 8, "base_channels": 4, "output_stride": 8,
          "multi_grid": None, "contract_dilation": True}  # fmt: skip
AUXILIARY = {"channels": 4, "in_index": 2, "num_convs": 1, "concat_input": False}
PSP = {"channels": 6, "in_index": 3, "pool_scales": [1, 2, 3, 6]}
HEAD_TYPES = {"fcn": "FCNHead", "unet": "FCNHead", "pspnet": "PSPHead", "deeplabv3": "ASPPHead", "upernet": "UPerHead",
              "deeplabv3plus": "DepthwiseSeparableASPPHead", "segformer-conv": "SegformerHead"}  # fmt: skip
STAGES = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2)), 32: ((1, 2, 2, 2), (1, 1, 1, 1))}


def spec(architecture: str = "pspnet", head: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    own = {key: changes.pop(key) for key in list(changes) if key in RESNET}
    return {"architecture": architecture, "backbone": RESNET | own, "head": head or PSP, "auxiliary": AUXILIARY,
            "dropout": 0.1, "align_corners": False} | changes  # fmt: skip


def network_of(spec: dict[str, Any], num_classes: int = 3, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = assemble(spec, num_classes=num_classes).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


MIT_NAMES = r"backbone\.encoder\.(patch_embeddings|block|layer_norm)\."


def their_names(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as MMSegmentation calls and shapes them."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        name = re.sub(r"^head\.", "decode_head.", name)
        name = re.sub(r"^auxiliary\.", "auxiliary_head.", name).replace(".classifier.", ".conv_seg.")
        tensors[name] = tensor
    found = {name: tensor for name, tensor in tensors.items() if not re.match(MIT_NAMES, name)}
    for name, tensor in tensors.items():
        if not re.match(MIT_NAMES, name):
            continue
        part = name.split(".")
        stage, rest = part[3], ".".join(part[4:])
        if part[2] == "patch_embeddings":
            found[
                f"backbone.layers.{stage}.0.{rest.replace('proj', 'projection').replace('layer_norm', 'norm')}"
            ] = tensor
        elif part[2] == "layer_norm":
            found[f"backbone.layers.{stage}.2.{rest}"] = tensor
        else:
            found.update(
                _their_block(
                    f"backbone.layers.{stage}.1.{part[4]}", ".".join(part[5:]), tensor, tensors, name
                )
            )
    return found


def _their_block(
    block: str, rest: str, tensor: Tensor, tensors: dict[str, Tensor], name: str
) -> dict[str, Tensor]:
    kind = rest.rpartition(".")[2]
    if ".query." in rest:  # query, key and value lie in one
        parts = [tensors[name.replace(".query.", f".{one}.")] for one in ("query", "key", "value")]
        return {f"{block}.attn.attn.in_proj_{kind}": torch.cat(parts)}
    if ".key." in rest or ".value." in rest:
        return {}
    renamed = {"layer_norm_1": "norm1", "layer_norm_2": "norm2", "attention.output.dense": "attn.attn.out_proj",
               "attention.self.sr": "attn.sr", "attention.self.layer_norm": "attn.norm", "mlp.dense1": "ffn.layers.0",
               "mlp.dwconv.dwconv": "ffn.layers.1", "mlp.dense2": "ffn.layers.4"}  # fmt: skip
    new = renamed[rest.rpartition(".")[0]]
    is_conv = new in ("ffn.layers.0", "ffn.layers.4") and kind == "weight"
    return {f"{block}.{new}.{kind}": tensor[:, :, None, None] if is_conv else tensor}


def config(spec: dict[str, Any], num_classes: int = 3, **more: Any) -> str:
    """A config of 1.x as text, with what a spec says that no tensor tells."""
    backbone, head = spec["backbone"], spec["head"]
    strides, dilations = STAGES.get(backbone.get("output_stride", 32), STAGES[32])
    told: dict[str, Any] = {"type": "MixVisionTransformer", "num_heads": backbone.get("num_heads")}
    if backbone["kind"] == "resnet":
        told = {"type": "ResNetV1c", "depth": backbone["depth"], "strides": strides, "dilations": dilations,
                "contract_dilation": True, "multi_grid": backbone["multi_grid"]}  # fmt: skip
    if backbone["kind"] == "unet":
        told, head = {"type": "UNet", "base_channels": 4}, head | {"in_index": 4}
    model = {
        "type": "EncoderDecoder",
        "data_preprocessor": {"type": "SegDataPreProcessor", "bgr_to_rgb": True, "mean": MEAN, "std": STD},
        "backbone": told,
        "decode_head": {"type": HEAD_TYPES[spec["architecture"]], "align_corners": spec["align_corners"],
                        "dropout_ratio": spec["dropout"], "num_classes": num_classes,
                        **{key: head[key] for key in ("pool_scales", "dilations", "in_index") if key in head}},
        "test_cfg": {"mode": "whole"},
    }  # fmt: skip
    for path, value in more.items():
        place: Any = model
        *way, last = path.split("__")
        for step in way:
            place = place.setdefault(step, {})
        place[last] = value
    return f"model = {model!r}\n"


def checkpoint(
    path: Path, network: nn.Module, text: str | None, *, names: Any = CLASSES, **more: Any
) -> Path:
    meta: dict[str, Any] = {"mmengine_version": "0.10.7", "seed": 0}
    if text is not None:
        meta["cfg"] = text
    if names is not None:
        meta["dataset_meta"] = {"classes": tuple(names), "palette": [[i, i, i] for i in range(len(names))]}
    torch.save({"meta": meta, "state_dict": their_names(network)} | more, path)
    return path


MIT = {"kind": "mit", "depths": [2, 2, 2, 2], "hidden_sizes": [4, 8, 20, 32], "num_heads": [1, 2, 5, 8],
       "reductions": [8, 4, 2, 1], "mlp_ratios": [4, 4, 4, 4], "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2],
       "norm_eps": 1e-6, "drop_path": 0.1}  # fmt: skip


def segformer(*depths: int) -> dict[str, Any]:
    return {"architecture": "segformer-conv", "backbone": MIT | {"depths": list(depths)}, "head": {"channels": 6},
            "auxiliary": None, "dropout": 0.1, "align_corners": False}  # fmt: skip


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


# what cannot be read is named -------------------------------------------------------------------------------


def changed(path: Path, **tensors: Tensor | None) -> Path:
    """The same checkpoint with tensors replaced, added, or (None) removed; __ stands for a dot."""
    value = torch.load(path, weights_only=True)
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del value["state_dict"][key]
        else:
            value["state_dict"][key] = tensor
    torch.save(value, path)
    return path


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


def test_bad_files_get_a_sentence_and_an_exit_code(boxes_checkpoint: Path, boxes: Path, capsys: Any):
    from terrazzo.cli import main

    whole = boxes_checkpoint.read_bytes()
    for content, said in (
        (whole[: len(whole) // 2], "it is cut short"),
        (b"<html>not found</html>", "perhaps the page of a download that failed"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ):
        boxes_checkpoint.write_bytes(content)
        assert main(["evaluate", str(boxes_checkpoint), "--data", str(boxes)]) == 1
        assert re.search(said, capsys.readouterr().err), said


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


# starting from one ------------------------------------------------------------------------------------------


def test_a_training_starts_from_one_rows_matched_by_name(tmp_path: Path):
    theirs = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", theirs, config(spec()))
    network = network_of(spec(), 2, seed=1)
    before = copy.deepcopy(network.state_dict())
    report = load_pretrained(network, path, classes=Classes(("Sky", "tree")))
    assert torch.equal(network.head.classifier.weight[0], theirs.head.classifier.weight[2])
    assert torch.equal(network.head.classifier.weight[1], before["head.classifier.weight"][1])
    assert torch.equal(network.auxiliary.classifier.bias[0], theirs.auxiliary.classifier.bias[2])
    assert torch.equal(network.backbone.layer3[0].conv2.weight, theirs.backbone.layer3[0].conv2.weight)
    assert torch.equal(network.head.bottleneck.conv.weight, theirs.head.bottleneck.conv.weight)
    assert (
        report
        == f"{path}: loaded the backbone and head; 1 of 2 classes reused by name (Sky), from random weights: tree"
    )


def test_the_backbone_of_another_architecture_starts_a_training(tmp_path: Path):
    theirs = network_of(spec())
    path = checkpoint(tmp_path / "a.pth", theirs, config(spec()))
    other = spec("fcn", {"channels": 6, "in_index": 3, "num_convs": 2, "concat_input": True}, auxiliary=None)
    network = network_of(other, 3, seed=1)
    head = copy.deepcopy(network.head.state_dict())
    report = load_pretrained(network, path, classes=Classes(CLASSES))
    assert (
        report
        == f"{path}: loaded the backbone; its head is of another kind, so the head starts from random weights"
    )
    assert all(torch.equal(tensor, head[name]) for name, tensor in network.head.state_dict().items())
    assert torch.equal(network.backbone.layer4[0].bn1.running_var, theirs.backbone.layer4[0].bn1.running_var)
    with pytest.raises(WeightsError, match="do not fit the network Segmenter"):
        load_pretrained(network_of(spec(depth=34)), path, classes=Classes(CLASSES))


# the doors --------------------------------------------------------------------------------------------------


@pytest.fixture
def boxes_checkpoint(tmp_path: Path) -> Path:
    return checkpoint(
        tmp_path / "boxes.pth", network_of(spec()), config(spec()), names=("field", "box", "sky")
    )


def test_convert_writes_what_predicts_the_same(
    boxes_checkpoint: Path, boxes: Path, tmp_path: Path, capsys: Any
):
    from terrazzo.cli import main

    out = tmp_path / "ours"
    assert main(["convert", str(boxes_checkpoint), "--out", str(out)]) == 0
    assert "Converted:" in capsys.readouterr().out
    image = next((boxes / "val" / "images").iterdir())
    theirs, ours = tz.load(boxes_checkpoint), tz.load(out)
    assert np.array_equal(theirs.logits(image), ours.logits(image))
    assert theirs.classes == ours.classes and theirs.eval == ours.eval and theirs.data == ours.data
    assert main(["convert", str(boxes_checkpoint), "--out", str(out)]) == 2  # nothing is overwritten
    assert "already there" in capsys.readouterr().err
    assert (
        main(
            [
                "convert",
                str(changed(boxes_checkpoint, decode_head__gamma=torch.ones(1))),
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 1
    )
    assert not (tmp_path / "b").exists()


def test_evaluate_and_predict_take_one(boxes_checkpoint: Path, boxes: Path, tmp_path: Path, capsys: Any):
    from terrazzo.cli import main

    assert main(["evaluate", str(boxes_checkpoint), "--data", str(boxes)]) == 0
    assert "box" in capsys.readouterr().out
    assert (
        main(["predict", str(boxes_checkpoint), str(boxes / "val" / "images"), "--out", str(tmp_path / "p")])
        == 0
    )
    capsys.readouterr()
    value = torch.load(boxes_checkpoint, weights_only=True)
    del value["meta"]["dataset_meta"], value["meta"]["cfg"]
    torch.save(value, boxes_checkpoint)
    (tmp_path / "c.py").write_text(config(spec()))
    call = ["evaluate", str(boxes_checkpoint), "--data", str(boxes)]
    assert main(call) == 1
    assert "Pass the config it was trained with" in capsys.readouterr().err
    assert main([*call, "--config", str(tmp_path / "c.py")]) == 0
    assert "unnamed; they were taken in the order of the data set's" in capsys.readouterr().out


def test_another_count_of_classes_than_the_data_sets_is_told(boxes: Path, tmp_path: Path):
    path = checkpoint(tmp_path / "a.pth", network_of(spec(), 5), config(spec(), 5), names="abcde")
    with pytest.raises(UsageError, match="do not have the same classes") as caught:
        tz.evaluate(path, data=boxes, quiet=True)
    assert "model: 5 classes" in str(caught.value) and "3 classes" in str(caught.value)


def test_a_file_that_is_not_there_gets_its_nearest_and_is_not_looked_for_on_the_hub(boxes_checkpoint: Path):
    with pytest.raises(MissingPathError, match="There is no weights file .*boxs.pth") as caught:
        tz.load(boxes_checkpoint.with_name("boxs.pth"))
    assert f"Did you mean {boxes_checkpoint}?" in str(caught.value)
    with pytest.raises(MissingPathError, match="There is no weights file runs/best.pth"):
        load_pretrained(network_of(spec()), "runs/best.pth", classes=Classes(CLASSES))


def test_a_config_beside_what_needs_none_is_misuse(tmp_path: Path):
    with pytest.raises(UsageError, match="needs no config"):
        read_model(tmp_path, config="x.py")


def test_the_text_of_this_file_is_no_config_of_ours():
    """Guards the helper above: its text is read back as what it says."""
    from terrazzo.nn.config_text import read_config_text

    model = read_config_text(textwrap.dedent(config(spec())), where="it")["model"]
    assert model["backbone"]["strides"] == (1, 2, 1, 1)
