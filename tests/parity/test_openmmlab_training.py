"""Twenty steps of MMSegmentation's own PSPNet, taken again by our optimiser, schedule and loss.

The truth is ../shared/golden/mmseg/training_pspnet_r50-d8: fixed, normalised batches, the learning rates and losses of
mmsegmentation 1.2.2 on a CPU in float32, and the weights before and after. The recipe is the one of a config's name.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from terrazzo.nn.losses import SegmentationLoss
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.optim import build_optimizer, build_schedule
from terrazzo.recipe import load

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"
STEPS = 20
SPEC = {
    "architecture": "pspnet",
    "backbone": {
        "kind": "resnet",
        "depth": 50,
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
    "align_corners": False,
}


def weights(moment: str) -> dict[str, torch.Tensor]:
    """The weights before or after, under our names."""
    file = GOLDEN / f"training_pspnet_r50-d8_{moment}.pth"
    tensors: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    for theirs, ours in (
        ("decode_head.", "head."),
        ("auxiliary_head.", "auxiliary."),
        ("conv_seg", "classifier"),
    ):
        tensors = {name.replace(theirs, ours): one for name, one in tensors.items()}
    return tensors


@pytest.fixture(scope="module")
def trained() -> tuple[Segmenter, np.ndarray, np.ndarray]:
    """The network after twenty steps; our (20, 4) and their (20, 4): rate, decode loss, auxiliary loss, total."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden files at {GOLDEN}")
    golden = np.load(GOLDEN / "training_pspnet_r50-d8.npz")
    recipe = load("pspnet_r50-d8_4xb2-80k_cityscapes-512x1024", [f"train.steps={STEPS}"])
    start = weights("start")
    network = assemble(SPEC, num_classes=len(start["head.classifier.weight"]), mean=(0, 0, 0), std=(1, 1, 1))
    network.load_state_dict(start)
    optimizer = build_optimizer(network, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, STEPS)
    loss = SegmentationLoss(recipe.loss, None, ignore=255)
    rows = []
    network.train()
    for images, masks in zip(golden["images"], golden["masks"], strict=True):
        mask_BHW = torch.from_numpy(masks)
        parts = loss(network(torch.from_numpy(images)), mask_BHW, weight=loss.pixel_weight(mask_BHW))
        total = torch.stack(list(parts.values())).sum()
        total.backward()
        each = [float(part.detach()) for part in (parts["cross_entropy"], parts["auxiliary"], total)]
        rows.append([schedule.lr, *each])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return network, np.array(rows), golden["lr_decode_aux_total"]


def test_the_learning_rates_are_theirs(trained: tuple[Segmenter, np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(trained[1][:, 0], trained[2][:, 0], rtol=1e-12)


def test_the_first_losses_are_theirs(trained: tuple[Segmenter, np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(trained[1][0, 1:], trained[2][0, 1:], atol=2e-5, rtol=0)


def test_a_name_says_what_this_was_trained_with() -> None:
    optim = load("pspnet_r50-d8_4xb2-80k_cityscapes-512x1024", [f"train.steps={STEPS}"]).optim
    assert replace(optim, kind="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4, no_decay="nothing") == optim
