"""UPerNet: the published logits, and the plain form of its folded pyramid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segmenter import assemble
from terrazzo.nn.upernet import UPerHead

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no checkpoints of OpenMMLab at ../shared/golden/mmseg")
def test_logits_are_those_of_openmmlab() -> None:
    stored = torch.load(GOLDEN / "upernet_r50.pth", map_location="cpu", weights_only=True)["state_dict"]
    tensors = {
        name.replace("decode_head.", "head.")
        .replace("auxiliary_head.", "auxiliary.")
        .replace("conv_seg", "classifier"): tensor
        for name, tensor in stored.items()
    }
    network = assemble(NARROW, num_classes=19, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    network.load_state_dict(tensors)
    with np.load(GOLDEN / "upernet_r50.npz") as golden, torch.no_grad():
        logits = network(torch.from_numpy(golden["input"])).logits
        expected = torch.from_numpy(golden["logits"])
    assert logits.shape == (1, 19, 25, 33)
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()


NARROW = {  # of the golden file: 8 channels where the published network has 64
    "architecture": "upernet",
    "backbone": {"kind": "resnet", "depth": 50, "variant": "v1c", "stem_channels": 8, "base_channels": 8},
    "head": {"channels": 16},
    "auxiliary": {"channels": 8, "in_index": 2, "num_convs": 1, "concat_input": False},
    "dropout": 0.1,
    "align_corners": False,
}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("is_training", [False, True])
def test_the_head_is_its_plain_form_written_out(align_corners: bool, is_training: bool) -> None:
    torch.manual_seed(0)
    head = UPerHead(
        (6, 8, 10), 4, dropout=0.0, align_corners=align_corners, channels=5, pool_scales=(1, 2, 3)
    )
    head.train(is_training)
    for norm in (module for module in head.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5), norm.bias.data.normal_()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    maps = [torch.randn(2, 6, 13, 18), torch.randn(2, 8, 7, 9), torch.randn(2, 10, 4, 5)]
    assert torch.allclose(head(maps), written_out(head, maps, align_corners), atol=1e-4)


def written_out(head: UPerHead, maps: list[Tensor], align_corners: bool) -> Tensor:
    def block(name: str, x: Tensor, padding: int = 0) -> Tensor:
        module = head.get_submodule(name)
        norm = module.bn
        x = F.conv2d(x, module.conv.weight, padding=padding)
        mean, var = norm.running_mean.clone(), norm.running_var.clone()
        return F.relu(F.batch_norm(x, mean, var, norm.weight, norm.bias, norm.training))

    def to(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=align_corners)

    last = maps[2]
    cells = [
        to(block(f"psp_modules.{i}.1", F.adaptive_avg_pool2d(last, s)), last) for i, s in enumerate((1, 2, 3))
    ]
    p2 = block("bottleneck", torch.cat([last, *cells], 1), 1)
    p1 = block("lateral_convs.1", maps[1])
    p1 = p1 + to(p2, p1)
    p0 = block("lateral_convs.0", maps[0])
    p0 = p0 + to(p1, p0)
    levels = [block("fpn_convs.0", p0, 1), to(block("fpn_convs.1", p1, 1), p0), to(p2, p0)]
    return head.classifier(block("fpn_bottleneck", torch.cat(levels, 1), 1))


def test_an_undilated_backbone_is_the_usual_one() -> None:
    with torch.device("meta"):
        network = build(ModelConfig("upernet"), num_classes=19)
    assert network.backbone.strides == (4, 8, 16, 32)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(66.4, abs=0.1)  # mmseg's model analysis: 66.4 M with its auxiliary head


@pytest.mark.parametrize("size_hw", [(33, 65), (31, 47), (1, 40)])
def test_sides_that_32_does_not_divide_need_no_care(size_hw: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = assemble(NARROW, num_classes=3).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, 3, *size_hw)).logits
    assert logits.shape == (1, 3, -(-size_hw[0] // 4), -(-size_hw[1] // 4))
    assert torch.isfinite(logits).all()
