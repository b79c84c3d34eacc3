import pytest
import torch

from terrazzo.nn.segformer import SIZES, SegFormer, Size
from terrazzo.nn.segformer_graph import SegFormerGraph, graph_form
from terrazzo.nn.two_classes import as_two_classes

SMALL = Size((1, 2, 1, 1), (16, 32, 40, 64), 24, num_heads=(1, 2, 5, 8))


def anything(size: Size, num_classes: int = 3) -> SegFormer:
    """A network none of whose biases, norms or statistics is what it starts with."""
    torch.manual_seed(0)
    network = SegFormer(size, num_classes, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        norm = network.decode_head.batch_norm
        norm.get_buffer("running_mean").normal_()
        norm.get_buffer("running_var").uniform_(0.5, 2.0)
    return network


@pytest.mark.parametrize("hw", [(64, 64), (32, 32), (71, 105)])
def test_the_form_for_graphs_is_the_same_function(hw: tuple[int, int]) -> None:
    network, image = anything(SMALL), torch.rand(2, 3, *hw)
    with torch.no_grad():
        expected, found = network(image).logits, SegFormerGraph(network)(image).logits
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_a_norm_finds_no_mean_to_take_away() -> None:
    """Of all that a root mean square stands for: only so is it the layer norm that it replaces."""
    form, means = SegFormerGraph(anything(SMALL)), []
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


def test_the_network_stays_as_it_was() -> None:
    network = anything(SMALL).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    form = SegFormerGraph(network)
    for parameter in form.parameters():
        parameter.data.zero_()
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_b0_is_the_same_function() -> None:
    network, image = anything(SIZES["b0"], 19), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, found = network(image).logits, SegFormerGraph(network)(image).logits
    assert (found - expected).abs().max() < 1e-4 * expected.std()


def test_what_a_hook_changes_is_written_as_it_stands() -> None:
    network = anything(SMALL, num_classes=1)
    assert isinstance(graph_form(network), SegFormerGraph)
    assert graph_form(as_two_classes(network)) is network
