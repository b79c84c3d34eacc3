"""OpenMMLab's SegFormer: the published logits, the plain form of the folded fusion, sizes by backbone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from terrazzo.errors import UnknownNameError
from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segformer_conv import SegFormerConvHead
from terrazzo.nn.segmenter import assemble

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"
NARROW = {  # of the golden file: 8 channels where the published encoder has 32
    "architecture": "segformer-conv",
    "backbone": {
        "kind": "mit",
        "depths": [2, 2, 2, 2],
        "hidden_sizes": [8, 16, 40, 64],
        "num_heads": [1, 2, 5, 8],
        "reductions": [8, 4, 2, 1],
        "mlp_ratios": [4, 4, 4, 4],
        "patch_sizes": [7, 3, 3, 3],
        "strides": [4, 2, 2, 2],
    },
    "head": {"channels": 32},
    "auxiliary": None,
    "dropout": 0.1,
    "align_corners": False,
}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no checkpoints of OpenMMLab at ../shared/golden/mmseg")
def test_logits_are_those_of_openmmlab() -> None:
    stored = torch.load(GOLDEN / "segformer_mit-b0.pth", map_location="cpu", weights_only=True)["state_dict"]
    network = assemble(NARROW, num_classes=150, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    tensors = (one for name, tensor in stored.items() for one in split(name, tensor))
    network.load_state_dict(dict(renamed(name, tensor) for name, tensor in tensors))
    with np.load(GOLDEN / "segformer_mit-b0.npz") as golden, torch.no_grad():
        logits = network(torch.from_numpy(golden["input"])).logits
        expected = torch.from_numpy(golden["logits"])
    assert logits.shape == (1, 150, 24, 32)
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()


def split(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """The stacked projection as three."""
    if ".in_proj_" not in name:
        return [(name, tensor)]
    parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
    return [(name.replace("attn.attn.in_proj_", f"attention.self.{part}."), one) for part, one in parts]


def renamed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Our name, and linear layers as matrices."""
    for pattern, replacement in (
        (r"^decode_head\.", "head."),
        (r"conv_seg", "classifier"),
        (r"layers\.(\d)\.0\.projection", r"encoder.patch_embeddings.\1.proj"),
        (r"layers\.(\d)\.0\.norm", r"encoder.patch_embeddings.\1.layer_norm"),
        (r"layers\.(\d)\.1\.(\d+)\.", r"encoder.block.\1.\2."),
        (r"layers\.(\d)\.2\.", r"encoder.layer_norm.\1."),
        (r"\.norm([12])\.", r".layer_norm_\1."),
        (r"attn\.attn\.out_proj", "attention.output.dense"),
        (r"attn\.sr", "attention.self.sr"),
        (r"attn\.norm", "attention.self.layer_norm"),
        (r"ffn\.layers\.0", "mlp.dense1"),
        (r"ffn\.layers\.1", "mlp.dwconv.dwconv"),
        (r"ffn\.layers\.4", "mlp.dense2"),
    ):
        name = re.sub(pattern, replacement, name)
    return name, tensor.flatten(1) if re.search(r"mlp\.dense\d\.weight", name) else tensor


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("is_training", [False, True])
def test_the_fusion_is_one_convolution_over_all_maps(align_corners: bool, is_training: bool) -> None:
    torch.manual_seed(0)
    head = SegFormerConvHead((3, 5, 7), 4, dropout=0.0, align_corners=align_corners, channels=6).train(
        is_training
    )
    for norm in (module for module in head.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5), norm.bias.data.normal_()
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    maps = [torch.randn(2, 3, 12, 10), torch.randn(2, 5, 6, 5), torch.randn(2, 7, 3, 3)]

    def block(x: Tensor, module: torch.nn.Module) -> Tensor:
        norm = module.bn
        mean, var = norm.running_mean.clone(), norm.running_var.clone()
        x = F.conv2d(x, module.conv.weight)
        return F.relu(F.batch_norm(x, mean, var, norm.weight, norm.bias, is_training))

    levels = [
        F.interpolate(block(x, conv), (12, 10), mode="bilinear", align_corners=align_corners)
        for x, conv in zip(maps, head.convs, strict=True)
    ]
    expected = head.classifier(block(torch.cat(levels, 1), head.fusion_conv))
    assert torch.allclose(head(maps), expected, atol=1e-5)


@pytest.mark.parametrize(("backbone", "millions"), [(None, 3.72), ("mit_b1", 13.7), ("mit_b5", 81.97)])
def test_its_sizes_go_by_the_backbone(backbone: str | None, millions: float) -> None:
    """Millions of parameters with 19 classes, counted from its layers: 256 channels in every head."""
    with torch.device("meta"):
        network = build(ModelConfig("segformer-conv", backbone=backbone), num_classes=19)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_an_unknown_encoder_gets_its_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="mit_b1"):
        build(ModelConfig("segformer-conv", backbone="mitb1"), num_classes=2)
