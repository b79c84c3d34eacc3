"""Groups are counted on a module written here; learning rates are worked out by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from terrazzo.errors import RecipeError
from terrazzo.optim import (
    OptimConfig,
    build_optimizer,
    build_schedule,
    check_warmup,
    learning_rate,
    parameter_groups,
    shortened_warmup,
)


class Plain(nn.Module):
    """A user's module: it says nothing about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)  # weight, bias
        self.norm = nn.LayerNorm((4, 5))  # a weight and a bias of two dimensions
        self.block = nn.Linear(4, 4, bias=False)  # weight
        self.scale = nn.Parameter(torch.ones(()))  # a scalar
        self.head = nn.Linear(4, 2)  # weight, bias


class Told(Plain):
    """The same, with head and layers named."""

    def head_parameter_names(self) -> set[str]:
        return {"head.weight", "head.bias"}

    def stage_parameter_names(self) -> Sequence[Sequence[str]]:
        return [["stem.weight", "stem.bias"], ["block.weight", "norm.weight", "norm.bias"], ["head.weight"]]


def names_of(network: nn.Module, config: OptimConfig) -> dict[str, tuple[set[str], float, float]]:
    """Group name -> (parameter names, lr, weight decay)."""
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        group["name"]: ({name_of[id(p)] for p in group["params"]}, group["lr"], group["weight_decay"])
        for group in parameter_groups(network, config)
    }


# --- groups ---------------------------------------------------------------------------------------------------------


def test_a_module_that_names_no_head_has_one_group_and_one_without_decay() -> None:
    assert names_of(Plain(), OptimConfig(lr=1e-3, head_lr_factor=10, weight_decay=0.05)) == {
        "network": ({"stem.weight", "block.weight", "head.weight"}, 1e-3, 0.05),
        "network, no decay": ({"stem.bias", "norm.weight", "norm.bias", "scale", "head.bias"}, 1e-3, 0.0),
    }


def test_the_head_learns_faster_and_biases_norms_and_scalars_never_decay() -> None:
    groups = names_of(Told(), OptimConfig(lr=1e-3, head_lr_factor=10, weight_decay=0.05))
    assert groups == {
        "backbone": ({"stem.weight", "block.weight"}, 1e-3, 0.05),
        "backbone, no decay": ({"stem.bias", "norm.weight", "norm.bias", "scale"}, 1e-3, 0.0),
        "head": ({"head.weight"}, 1e-2, 0.05),
        "head, no decay": ({"head.bias"}, 1e-2, 0.0),
    }


class Mixed(nn.Module):
    """A convolution with batch norm, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LayerNorm(4)


@pytest.mark.parametrize(
    ("no_decay", "spared"),
    [
        ("vectors", {"conv.bias", "bn.weight", "bn.bias", "norm.weight", "norm.bias"}),
        ("layer_norms", {"norm.weight", "norm.bias"}),
        ("nothing", set()),
    ],
)
def test_what_weight_decay_spares(no_decay: str, spared: set[str]) -> None:
    config = OptimConfig(lr=1.0, weight_decay=0.05, no_decay=no_decay)  # type: ignore[arg-type]
    groups = names_of(Mixed(), config).values()
    assert {name for names, _, decay in groups if decay == 0 for name in names} == spared
    assert {decay for _, _, decay in groups} <= {0.0, 0.05}
    assert set().union(*(names for names, _, _ in groups)) == {name for name, _ in Mixed().named_parameters()}


def test_layer_decay_slows_layers_by_their_depth_and_leaves_the_head_alone() -> None:
    groups = names_of(Told(), OptimConfig(lr=1.0, head_lr_factor=10, weight_decay=0.05, layer_decay=0.5))
    rates = {name: lr for names, lr, _ in groups.values() for name in names}
    assert rates == {
        "stem.weight": 0.25,  # 0.5 ** 2: two layers from the image to the head
        "stem.bias": 0.25,
        "block.weight": 0.5,
        "norm.weight": 0.5,
        "norm.bias": 0.5,
        "scale": 1.0,  # in no layer
        "head.weight": 10.0,
        "head.bias": 10.0,
    }
    assert groups["layer 0, no decay"][2] == 0.0
    assert groups["layer 1"][2] == 0.05


def test_frozen_parameters_are_in_no_group() -> None:
    network = Told()
    network.stem.requires_grad_(False)
    names = set().union(*(names for names, _, _ in names_of(network, OptimConfig()).values()))
    assert names == {name for name, _ in network.named_parameters()} - {"stem.weight", "stem.bias"}


def test_segformer_groups_hold_every_parameter_once() -> None:
    from terrazzo.nn import ModelConfig, build

    network = build(ModelConfig(name="segformer-b0"), num_classes=3)
    groups = parameter_groups(network, OptimConfig(layer_decay=0.9))
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    slowest = min(group["lr"] for group in groups)
    assert slowest == pytest.approx(6e-5 * 0.9**8)  # B0 has 2 + 2 + 2 + 2 blocks
    head = [p for group in groups if group["name"].startswith("head") for p in group["params"]]
    assert {id(p) for p in head} == {id(p) for p in network.decode_head.parameters()}


def test_nothing_to_train_is_told() -> None:
    network = Plain().requires_grad_(False)
    with pytest.raises(RecipeError) as caught:
        parameter_groups(network, OptimConfig())
    assert str(caught.value).splitlines()[:2] == [
        "Plain has no parameter to train.",
        "  found: 8 parameters, all frozen",
    ]


def test_layer_decay_without_layers_is_told() -> None:
    with pytest.raises(RecipeError, match=r"optim\.layer_decay is 0\.9, and Plain names no layers\."):
        parameter_groups(Plain(), OptimConfig(layer_decay=0.9))


# --- the optimiser --------------------------------------------------------------------------------------------------


def adamw_by_hand(
    weight: float, grads: list[float], *, lr: float, decay: float, betas: tuple[float, float]
) -> float:
    """Algorithm 2 of Loshchilov & Hutter 2019 on one number, in float64."""
    mean = square = 0.0
    for step, grad in enumerate(grads, start=1):
        mean = betas[0] * mean + (1 - betas[0]) * grad
        square = betas[1] * square + (1 - betas[1]) * grad**2
        direction = (mean / (1 - betas[0] ** step)) / ((square / (1 - betas[1] ** step)) ** 0.5 + 1e-8)
        weight -= lr * decay * weight + lr * direction
    return weight


def test_adamw_takes_the_papers_steps_with_each_groups_rate_and_decay() -> None:
    network = Told().double()
    config = OptimConfig(lr=0.01, head_lr_factor=10, weight_decay=0.1, betas=(0.8, 0.9))
    optimizer = build_optimizer(network, config)
    names = {
        "stem.weight": (0.01, 0.1),
        "stem.bias": (0.01, 0.0),
        "head.weight": (0.1, 0.1),
        "head.bias": (0.1, 0.0),
    }
    watched = {name: dict(network.named_parameters())[name] for name in names}
    before = {name: parameter.flatten()[0].item() for name, parameter in watched.items()}
    grads = [0.5, -0.25, 2.0]
    for grad in grads:
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, grad)
        optimizer.step()
    for name, (lr, decay) in names.items():
        by_hand = adamw_by_hand(before[name], grads, lr=lr, decay=decay, betas=(0.8, 0.9))
        assert watched[name].flatten()[0].item() == pytest.approx(by_hand, rel=1e-9), name


def test_sgd_has_momentum() -> None:
    network = nn.Linear(1, 1, bias=False).double()
    optimizer = build_optimizer(network, OptimConfig(kind="sgd", lr=0.1, momentum=0.9, weight_decay=0.0))
    start = network.weight.item()
    for grad in (1.0, 1.0):
        network.weight.grad = torch.full_like(network.weight, grad)
        optimizer.step()
    assert network.weight.item() == pytest.approx(start - 0.1 * 1 - 0.1 * 1.9)


def test_the_fused_kernel_runs_where_every_parameter_can() -> None:
    assert build_optimizer(Plain(), OptimConfig()).defaults["fused"] is True
    assert build_optimizer(Plain().to("meta"), OptimConfig()).defaults["fused"] is None


# --- the schedule ---------------------------------------------------------------------------------------------------

POLY = OptimConfig(lr=1.0, schedule="poly", poly_power=1.0, warmup_steps=4, warmup_factor=0.2)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.2),
        (1, 0.4),  # 0.2 + 0.8 * 1 / 4
        (3, 0.8),
        (4, 1.0),  # the peak
        (5, 0.9),  # 1 - 1 / 10 of what is left after the warm-up
        (9, 0.5),
        (13, 0.1),  # the last step still learns
        (14, 0.0),
        (15, 0.0),
    ],
)
def test_warm_up_rises_in_a_line_then_poly_falls(step: int, expected: float) -> None:
    assert learning_rate(step, 1.0, POLY, 14) == pytest.approx(expected, abs=1e-12)


def test_poly_bends_by_its_power_and_stops_at_its_floor() -> None:
    config = replace(POLY, warmup_steps=0, poly_power=2.0, min_lr_factor=0.1)
    by_hand = {0: 1.0, 5: 0.1 + 0.9 * 0.25, 9: 0.1 + 0.9 * 0.01, 10: 0.1, 99: 0.1}
    assert {step: learning_rate(step, 1.0, config, 10) for step in by_hand} == pytest.approx(by_hand)


def test_segformers_paper_rates() -> None:
    config = OptimConfig(lr=6e-5, warmup_steps=1500, warmup_factor=1e-6)
    rates = [learning_rate(step, config.lr, config, 160_000) for step in (0, 750, 1500, 80_750)]
    assert rates == pytest.approx([6e-11, 3e-5, 6e-5, 3e-5], rel=1e-5)


def test_constant_stays_after_its_warm_up() -> None:
    config = replace(POLY, schedule="constant")
    assert [learning_rate(step, 1.0, config, 14) for step in (0, 2, 4, 13, 1000)] == pytest.approx(
        [0.2, 0.6, 1, 1, 1]
    )


def test_every_group_keeps_its_proportion() -> None:
    optimizer = build_optimizer(Told(), replace(POLY, head_lr_factor=10.0))
    schedule = build_schedule(optimizer, POLY, 14)
    seen = []
    for _ in range(14):
        seen.append((schedule.lr, *schedule.get_last_lr()))
        optimizer.step()
        schedule.step()
    for step, (lr, *rates) in enumerate(seen):
        by_hand = 0.2 + 0.2 * step if step < 4 else (14 - step) / 10
        assert lr == pytest.approx(by_hand)
        assert rates == pytest.approx([by_hand, by_hand, 10 * by_hand, 10 * by_hand])


def test_a_schedule_goes_on_from_its_step_alone() -> None:
    config = replace(POLY, head_lr_factor=10.0)
    straight = build_optimizer(Told(), config)
    first = build_schedule(straight, config, 14)
    for _ in range(6):
        first.step()
    state = json.loads(json.dumps(first.state_dict()))
    assert state == {"step": 6}

    again = build_optimizer(Told(), config)
    again.load_state_dict(straight.state_dict())  # its groups carry the rates of step 6
    second = build_schedule(again, config, 14)  # and the peaks beside them
    second.load_state_dict(state)
    for _ in range(8):
        assert second.get_last_lr() == first.get_last_lr()  # to the last bit
        first.step()
        second.step()
    assert second.get_last_lr() == [0.0] * 4


def test_a_warm_up_longer_than_the_training_is_told() -> None:
    optimizer = build_optimizer(Plain(), POLY)
    with pytest.raises(RecipeError) as caught:
        build_schedule(optimizer, replace(POLY, warmup_steps=1500), 200)
    assert str(caught.value) == (
        "optim.warmup_steps is 1500, and the training ends after 200 steps.\n"
        "  expected: a warm-up that is shorter than the training; a tenth of it is plenty, so\n"
        "  optim.warmup_steps=20"
    )
    assert caught.value.exit_code == 2
    check_warmup(replace(POLY, warmup_steps=0), 1)  # none is always short enough


@pytest.mark.parametrize(("steps", "expected"), [(5, 4), (4, 0), (40, 4), (1, 0)])
def test_a_warm_up_is_shortened_to_a_tenth_where_it_does_not_fit(steps: int, expected: int) -> None:
    assert shortened_warmup(POLY, steps) == replace(POLY, warmup_steps=expected)  # POLY has 4 steps of it
    check_warmup(shortened_warmup(POLY, steps), steps)


def test_a_floor_in_rates_is_the_same_for_every_group() -> None:
    config = replace(POLY, warmup_steps=0, poly_power=2.0, min_lr=0.1)
    assert learning_rate(5, 1.0, config, 10) == pytest.approx(0.1 + 0.9 * 0.25)
    assert learning_rate(5, 10.0, config, 10) == pytest.approx(0.1 + 9.9 * 0.25)
    assert [learning_rate(10, peak, config, 10) for peak in (1.0, 10.0)] == pytest.approx([0.1, 0.1])
    assert learning_rate(5, 0.05, config, 10) == 0.05  # a peak below the floor stays


def mmengine(
    base: float, *, steps: int, warmup: int, start: float, power: float, floor: float
) -> list[float]:
    """MMEngine's LinearLR and PolyLR one after the other, each step from the one before, as it chains them."""
    rates: list[float] = []
    count = max(warmup - 1, 1)
    for step in range(warmup):
        grows = (1 - start) / (count * start + (step - 1) * (1 - start)) if step else 0.0
        rates.append(rates[-1] * (1 + grows) if step else base * start)
    rates.append(rates[-1] if rates else base)
    count = steps - warmup - 1
    for step in range(1, steps - warmup):
        rates.append((rates[-1] - floor) * (1 - 1 / (count - step + 1)) ** power + floor)
    return rates


@pytest.mark.parametrize(
    ("base", "warmup", "power", "floor"), [(0.01, 0, 0.9, 1e-4), (6e-5, 15, 1.0, 0.0), (6e-4, 15, 1.0, 0.0)]
)
def test_rates_that_arrive_at_their_last_step_are_mmengines(
    base: float, warmup: int, power: float, floor: float
) -> None:
    config = OptimConfig(
        lr=base, poly_power=power, min_lr=floor, warmup_steps=warmup, warmup_factor=0.01, arrives="at"
    )
    ours = [learning_rate(step, base, config, 100) for step in range(100)]
    theirs = mmengine(base, steps=100, warmup=warmup, start=0.01, power=power, floor=floor)
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-15)
