"""SegFormer by its own laws; tests/parity holds it against transformers."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from terrazzo.nn import ModelConfig, build
from terrazzo.nn.segformer import SIZES, Block, Head, SegFormer, Size

TINY = Size((1, 2, 1, 1), (8, 16, 24, 32), 24, num_heads=(1, 2, 3, 4))
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def tiny(num_classes: int = 5, *, dropout: float = 0.0, drop_path: float = 0.0, seed: int = 0) -> SegFormer:
    torch.manual_seed(seed)
    return SegFormer(TINY, num_classes, mean=MEAN, std=STD, dropout=dropout, drop_path=drop_path)


def published_head(head: Head, maps_BHWC: list[Tensor]) -> Tensor:
    """The head as the paper draws it: project, upsample, concatenate (stage 4 first), fuse, norm, classify."""
    height, width = maps_BHWC[0].shape[1:3]
    projected = []
    for layer, x_BHWC in zip(head.linear_c, maps_BHWC, strict=True):
        x_BDHW = layer["proj"](x_BHWC).permute(0, 3, 1, 2)
        projected.append(F.interpolate(x_BDHW, (height, width), mode="bilinear", align_corners=False))
    fused = head.linear_fuse(torch.cat(projected[::-1], dim=1))
    return head.classifier(F.relu(head.batch_norm(fused)))


def maps_of(size: Size, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sides = ((11, 14), (6, 7), (3, 4), (2, 2))
    return [
        torch.randn(2, *hw, channels, dtype=dtype, generator=generator, requires_grad=True)
        for hw, channels in zip(sides, size.hidden_sizes, strict=True)
    ]


def lively_head(seed: int = 0) -> Head:
    """A head in float64 whose norm and biases are not at their trivial start."""
    torch.manual_seed(seed)
    head = Head(TINY, 5, dropout=0.0).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    head.batch_norm.running_mean.normal_()
    head.batch_norm.running_var.uniform_(0.5, 2.0)
    return head


@pytest.mark.parametrize("training", [True, False])
def test_the_folded_head_is_the_published_head(training: bool):
    results = []
    for forward in (lambda head, maps: head(maps), published_head):
        head, maps = lively_head().train(training), maps_of(TINY)
        logits = forward(head, maps)
        logits.square().sum().backward()
        results.append(
            {"logits": logits, **{f"map {i}": x.grad for i, x in enumerate(maps)}}
            | {name: parameter.grad for name, parameter in head.named_parameters()}
            | {name: buffer.double() for name, buffer in head.named_buffers()}
        )
    ours, published = results
    for name, expected in published.items():
        scale = max(
            expected.abs().max().item(), 1e-6
        )  # a bias before a batch norm has no gradient but rounding
        assert (ours[name] - expected).abs().max() <= 1e-10 * scale + 1e-12, name


def test_the_fold_is_never_stale():
    head, maps = lively_head().eval(), [x.detach() for x in maps_of(TINY)]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    with torch.no_grad():
        before = head(maps)
    head.train()(maps).square().mean().backward()  # moves the running statistics
    optimizer.step()
    head.eval()
    with torch.no_grad():
        after = head(maps)
        assert torch.allclose(after, published_head(head, maps), atol=1e-10)
        assert not torch.allclose(after, before)
        head.load_state_dict(lively_head(seed=3).state_dict())
        assert torch.allclose(head(maps), published_head(lively_head(seed=3).eval(), maps), atol=1e-10)


def test_a_frozen_batch_norm_keeps_its_statistics_while_the_rest_learns():
    head, maps = lively_head().train(), maps_of(TINY)
    head.batch_norm.eval()
    kept = head.batch_norm.running_mean.clone()
    logits = head(maps)
    assert torch.equal(head.batch_norm.running_mean, kept)
    assert torch.allclose(logits, published_head(head, maps), atol=1e-10)


def test_dropout_drops_whole_channels_and_keeps_the_mean():
    head = Head(TINY, 5, dropout=0.25).train()
    head.classifier.weight.data.fill_(1.0)
    torch.manual_seed(0)
    draws = torch.cat([head._dropped(batch=8) for _ in range(250)])  # (2000, 5, 24)
    assert draws.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(draws, draws[:, :1].expand_as(draws))  # every class loses the same channels
    assert draws.mean().item() == pytest.approx(1.0, abs=0.01)
    assert torch.equal(head.eval()._dropped(batch=2), torch.ones(2, 5, 24))


def test_drop_path_leaves_a_branch_out_for_a_whole_sample_or_doubles_it():
    torch.manual_seed(0)
    block = Block(8, num_heads=1, reduction=2, mlp_ratio=2, drop_path=0.5).train()
    x = torch.randn(64, 4, 4, 8)
    attention = block.attention(block.layer_norm_1(x))
    middles = {"skipped": x, "kept": x + 2 * attention}  # kept branches are divided by 1 - 0.5
    outcomes = {
        (first, second): middle + factor * block.mlp(block.layer_norm_2(middle))
        for first, middle in middles.items()
        for second, factor in (("skipped", 0), ("kept", 2))
    }
    y = block(x)
    seen = Counter(
        next(name for name, outcome in outcomes.items() if torch.allclose(y[i], outcome[i], atol=1e-5))
        for i in range(64)
    )
    assert len(seen) == 4  # each of the four fates, about 16 times
    assert min(seen.values()) >= 5


def test_stochastic_depth_grows_in_a_straight_line_over_the_blocks():
    network = tiny(drop_path=0.4)
    rates = [block.drop_path for block in network.modules() if isinstance(block, Block)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_randomness_comes_from_the_generator_alone():
    network, image = tiny(dropout=0.5, drop_path=0.5).train(), torch.rand(2, 3, 40, 40)
    drawn = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        drawn.append(network(image).logits)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    network.eval()
    assert torch.equal(network(image).logits, network(image).logits)


def test_images_are_normalised_inside():
    """A network with mean and deviation sees what one without sees of an image normalised beforehand."""
    plain = SegFormer(TINY, 5, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    network = tiny().eval()
    plain.load_state_dict(network.state_dict())  # mean and std are not in it
    image = torch.rand(1, 3, 48, 40)
    normalised = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    assert torch.allclose(network(image).logits, plain(normalised).logits, atol=1e-6)
    assert "mean" not in network.state_dict() and "std" not in network.state_dict()


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 70), (29, 31), (33, 64), (97, 65)])
def test_logits_have_a_quarter_of_any_image_size_rounded_up(size_hw: tuple[int, int]):
    network = tiny().eval()
    logits = network(torch.rand(1, 3, *size_hw)).logits
    assert logits.shape == (1, 5, math.ceil(size_hw[0] / 4), math.ceil(size_hw[1] / 4))
    assert torch.isfinite(logits).all()


class CountingCopies(TorchDispatchMode):
    """Counts the tensors of a map's size that are written only to change their layout."""

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest, self.copies = smallest, Counter[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("clone", "copy_", "contiguous", "_to_copy") and args[0].numel() >= self.smallest:
            self.copies[f"{name} {tuple(args[0].shape)}"] += 1
        return result


def test_the_encoder_never_copies_a_map_to_change_its_layout():
    network = tiny().train()
    image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with CountingCopies(smallest=2 * 2 * 2 * 32) as counting:  # the smallest stage's map
        maps = network.backbone.encoder(image)
    assert all(x_BHWC.is_contiguous() for x_BHWC in maps)
    # the heads' outputs are gathered once per block with more than one head; nothing else is
    allowed = {name: count for name, count in counting.copies.items() if not name.startswith("clone")}
    assert not allowed, allowed
    assert counting.copies.total() <= sum(TINY.depths), counting.copies


def test_initial_weights_are_those_of_the_paper():
    torch.manual_seed(0)
    network = build(ModelConfig("segformer-b1"), num_classes=19)
    seen = Counter[str]()
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            expected = 0.02
        elif name.endswith("classifier"):
            expected = 0.01
        elif isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels / module.groups))
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            assert torch.equal(weight, torch.ones_like(weight)), name
            expected = None
        else:
            continue
        if expected is not None:
            few = 4 / math.sqrt(2 * weight.numel())  # four standard errors of an estimated deviation
            assert weight.std().item() == pytest.approx(expected, rel=few), name
        if module.bias is not None:
            assert not module.bias.any(), name
        seen[type(module).__name__] += 1
    assert seen.keys() == {"Linear", "Conv2d", "LayerNorm", "BatchNorm2d"}


# millions of parameters with 150 classes: Xie et al. 2021, table 1 (they round, and count the whole network)
PUBLISHED = {"b0": 3.8, "b1": 13.7, "b2": 27.5, "b3": 47.3, "b4": 64.1, "b5": 84.7}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_sizes_are_those_of_the_paper(name: str):
    with torch.device("meta"):
        network = build(ModelConfig(f"segformer-{name}"), num_classes=150)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name], abs=0.1)
    assert SIZES[name].hidden_sizes == network.size.hidden_sizes


def test_layers_and_head_hold_every_parameter_once_nearest_the_image_first():
    network = tiny()
    layers, head = network.stage_parameter_names(), network.head_parameter_names()
    names = [name for layer in layers for name in layer] + sorted(head)
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())
    assert len(layers) == sum(TINY.depths)
    assert "segformer.encoder.patch_embeddings.0.proj.weight" in layers[0]
    assert "segformer.encoder.layer_norm.3.weight" in layers[-1]


def test_a_frozen_backbone_gets_no_gradient_and_no_noise():
    network = build(ModelConfig("segformer-b0", freeze="backbone", drop_path=0.5), num_classes=3).train()
    network(torch.rand(1, 3, 32, 32)).logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert all(parameter.grad is not None for parameter in network.head.parameters())
    assert all(block.drop_path == 0 for block in network.modules() if isinstance(block, Block))


def test_gradient_checkpointing_changes_nothing_but_memory():
    image = torch.rand(2, 3, 48, 48)
    gradients = []
    for checkpointing in (False, True):
        network = tiny(dropout=0.3, drop_path=0.5).train()
        network.gradient_checkpointing = checkpointing
        torch.manual_seed(3)
        network(image).logits.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, expected in gradients[0].items():
        assert torch.equal(gradients[1][name], expected), name
