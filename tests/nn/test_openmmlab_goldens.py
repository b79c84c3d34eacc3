"""Heads on ResNets against MMSegmentation 1.2.2: its weights, its inputs, its logits (see the goldens' README)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.weights import load_tensors

FOLDER = Path(os.environ.get("TERRAZZO_GOLDEN", Path(__file__).parents[3] / "shared" / "golden" / "mmseg"))
GOLDENS = {
    "fcn_r50-d8": ("fcn", 50),
    "pspnet_r18-d8": ("pspnet", 18),
    "pspnet_r50-d8": ("pspnet", 50),
    "pspnet_r101-d8": ("pspnet", 101),
    "deeplabv3_r50-d8": ("deeplabv3", 50),
    "deeplabv3plus_r50-d8": ("deeplabv3plus", 50),
}

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason="no goldens at ../shared/golden/mmseg or $TERRAZZO_GOLDEN"
    ),
]


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """MMSegmentation's names to ours."""
    pairs = (("decode_head.", "head."), ("auxiliary_head.", "auxiliary."), (".conv_seg.", ".classifier."))
    names = {}
    for name in tensors:
        ours = name
        for theirs, here in pairs:
            ours = ours.replace(theirs, here)
        names[ours] = tensors[name]
    return names


def spec_of(architecture: str, depth: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The spec of a golden, its widths taken from the tensors."""
    head: dict[str, Any] = {"channels": tensors["head.classifier.weight"].shape[1]}
    if architecture == "deeplabv3plus":
        head["c1_channels"] = len(tensors["head.c1_bottleneck.bn.weight"])
    return {
        "architecture": architecture,
        "backbone": {
            "kind": "resnet",
            "depth": depth,
            "variant": "v1c",
            "stem_channels": len(tensors["backbone.stem.6.weight"]),
            "base_channels": len(tensors["backbone.layer1.0.conv1.weight"]),
            "output_stride": 8,
        },
        "head": head,
        "auxiliary": {
            "channels": tensors["auxiliary.classifier.weight"].shape[1],
            "in_index": 2,
            "num_convs": 1,
            "concat_input": False,
        },
        "dropout": 0.1,
        "align_corners": False,
    }


def golden(name: str) -> tuple[Segmenter, Tensor, Tensor]:
    """Our network with MMSegmentation's weights, its normalised input, and its logits."""
    tensors = renamed(torch.load(FOLDER / f"{name}.pth", weights_only=True, map_location="cpu")["state_dict"])
    truth = np.load(FOLDER / f"{name}.npz")
    network = assemble(
        spec_of(*GOLDENS[name], tensors), num_classes=19, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    load_tensors(network, tensors, where=name)  # all of them, and nothing else
    return network.eval(), torch.from_numpy(truth["input"]), torch.from_numpy(truth["logits"])


@pytest.mark.parametrize("name", GOLDENS)
def test_logits_are_those_of_mmsegmentation(name: str):
    network, image, logits = golden(name)
    with torch.no_grad():
        ours = network(image).logits
    assert ours.shape == logits.shape
    assert (ours - logits).abs().max() <= 1e-4 * logits.std()
