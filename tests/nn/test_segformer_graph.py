"""SegFormers in OpenVINO's form: the same logits with both heads, with other heads, with OpenMMLab's weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from terrazzo.nn.openmmlab import read_checkpoint
from terrazzo.nn.segformer import SIZES, SegFormer, Size
from terrazzo.nn.segformer_graph import SegFormerGraph, graph_form
from terrazzo.nn.segmenter import Segmenter, assemble
from terrazzo.nn.two_classes import as_two_classes

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"
SMALL = Size((1, 2, 1, 1), (16, 32, 40, 64), 24, num_heads=(1, 2, 5, 8))


def anything(size: Size, num_classes: int = 3) -> SegFormer:
    """A network none of whose biases, norms or statistics is what it starts with."""
    torch.manual_seed(0)
    network = SegFormer(size, num_classes, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)).eval()
    stir(network)
    return network


def on_mit(architecture: str, *, align_corners: bool = False, **head: Any) -> Segmenter:
    """A head on the small encoder, with OpenMMLab's eps, as little at its start as `anything`."""
    torch.manual_seed(0)
    fields = ("depths", "hidden_sizes", "num_heads", "reductions", "mlp_ratios", "patch_sizes", "strides")
    spec = {
        "architecture": architecture,
        "backbone": {"kind": "mit", **{field: list(getattr(SMALL, field)) for field in fields}},
        "head": {"channels": 24, **head},
        "auxiliary": None,
        "dropout": 0.1,
        "align_corners": align_corners,
    }
    network = assemble(spec, num_classes=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)).eval()
    stir(network)
    return network


def stir(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.get_buffer("running_mean").normal_()
                norm.get_buffer("running_var").uniform_(0.5, 2.0)


def agree(network: nn.Module, image_BCHW: torch.Tensor) -> None:
    form = graph_form(network)
    assert isinstance(form, SegFormerGraph)
    with torch.no_grad():
        expected, found = network(image_BCHW).logits, form(image_BCHW).logits
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.parametrize("hw", [(64, 64), (32, 32), (71, 105)])
def test_the_form_for_graphs_is_the_same_function(hw: tuple[int, int]) -> None:
    agree(anything(SMALL), torch.rand(2, 3, *hw))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("hw", [(64, 64), (32, 32), (71, 105)])
def test_openmmlabs_form_is_the_same_function(hw: tuple[int, int], align_corners: bool) -> None:
    agree(on_mit("segformer-conv", align_corners=align_corners), torch.rand(2, 3, *hw))


@pytest.mark.parametrize("architecture", ["pspnet", "upernet", "fcn"])
def test_other_heads_stay_as_they_are_on_an_encoder_in_this_form(architecture: str) -> None:
    head: dict[str, Any] = (
        {"num_convs": 1, "concat_input": False, "in_index": 3} if architecture == "fcn" else {}
    )
    agree(on_mit(architecture, **head), torch.rand(2, 3, 71, 105))


@pytest.mark.parity
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no checkpoints of OpenMMLab at ../shared/golden/mmseg")
def test_the_form_of_openmmlabs_weights_gives_their_logits() -> None:
    checkpoint = read_checkpoint(GOLDEN / "segformer_mit-b0.pth")
    network = assemble(checkpoint.spec, num_classes=150, mean=(0, 0, 0), std=(1, 1, 1)).eval()
    network.load_state_dict(checkpoint.tensors)
    with np.load(GOLDEN / "segformer_mit-b0.npz") as golden:
        image, expected = torch.from_numpy(golden["input"]), torch.from_numpy(golden["logits"])
    with torch.no_grad():
        logits = SegFormerGraph(network)(image).logits
    assert (logits - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("is_openmmlabs", [False, True])
def test_a_norm_finds_no_mean_to_take_away(is_openmmlabs: bool) -> None:
    """Of all that a root mean square stands for: only so is it the layer norm that it replaces."""
    form = SegFormerGraph(on_mit("segformer-conv") if is_openmmlabs else anything(SMALL))
    means: list[torch.Tensor] = []
    for module in form.modules():
        if type(module).__name__ == "RootMeanSquare":
            module.register_forward_pre_hook(
                lambda _, inputs: means.append(inputs[0].mean(-1).abs().max() / inputs[0].std())
            )
    with torch.no_grad():
        form(torch.rand(1, 3, 64, 96))
    assert (
        len(means) == 2 * 4 + 3 * 5 - 1
    )  # two of a stage, three of a block but for the last, which reduces nothing
    assert max(means) < 1e-5


@pytest.mark.parametrize("architecture", [None, "segformer-conv", "pspnet"])
def test_the_network_stays_as_it_was(architecture: str | None) -> None:
    network = (anything(SMALL) if architecture is None else on_mit(architecture)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    form = SegFormerGraph(network)
    for parameter in form.parameters():
        parameter.data.zero_()
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_b0_is_the_same_function() -> None:
    agree(anything(SIZES["b0"], 19), torch.rand(1, 3, 64, 64))


def test_what_a_hook_changes_is_written_as_it_stands() -> None:
    network = anything(SMALL, num_classes=1)
    assert isinstance(graph_form(network), SegFormerGraph)
    assert graph_form(as_two_classes(network)) is network
