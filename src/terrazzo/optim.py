"""The optimiser and its learning rates: parameter groups, layer decay, warm-up and schedule.

The learning rate at step s is a pure function of s, so that a resumed training needs nothing but its step. The schedule
moves once per optimiser step; it is never given to `accelerator.prepare`, which would move it once per process.
What a network knows about itself it tells by two methods, both optional: `head_parameter_names()`, the parameters that
start from random and learn faster, and `stage_parameter_names()`, the backbone's parameters layer by layer.
torch is imported where it is needed, so that a recipe can be read without it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from terrazzo.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda", "mps")  # where torch >= 2.6 has one-pass AdamW
WARMUP_SHARE = 10  # a tenth of a short training is warm-up enough


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its learning rates: `recipe.optim`."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """The optimiser: AdamW (Loshchilov & Hutter 2019), or SGD with momentum."""
    lr: float = 6e-5
    """Peak learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """The head learns this many times faster; a network that names no head has none."""
    weight_decay: float = 0.01
    """Decay of weights; no_decay says what it spares."""
    no_decay: Literal["vectors", "layer_norms", "nothing"] = "vectors"
    """What does not decay: vectors, that is biases, norms and the like; layer norms alone; or nothing."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay of the mean and of the squared gradient."""
    momentum: float = 0.9
    """SGD's momentum."""
    schedule: Literal["poly", "constant"] = "poly"
    """After the warm-up: fall as (1 - progress) ** poly_power, or stay."""
    poly_power: float = 1.0
    """The exponent of poly; 1 falls in a straight line."""
    min_lr_factor: float = 0.0
    """poly falls to this share of the peak."""
    min_lr: float = 0.0
    """poly falls to this learning rate in every group, whatever its peak; 0 leaves it to min_lr_factor."""
    warmup_steps: int = 0
    """Steps of linear warm-up from warmup_factor to the peak."""
    warmup_factor: float = 1e-6
    """The share of the peak at step 0 of a warm-up."""
    arrives: Literal["after", "at"] = "after"
    """Warm-up and poly arrive one step after their last, so that none is wasted; or at their last, as MMEngine's do."""
    layer_decay: float = 1.0
    """Each layer of the backbone learns at this share of the rate of the one above it; 1 is off."""


@runtime_checkable
class HasHead(Protocol):
    """A network that knows which of its parameters are the head's."""

    def head_parameter_names(self) -> Collection[str]:
        """Return names as `named_parameters()` gives them."""
        ...


@runtime_checkable
class HasStages(Protocol):
    """A network that knows the order of its backbone."""

    def stage_parameter_names(self) -> Sequence[Collection[str]]:
        """Return the backbone's names as layers, the one nearest to the image first."""
        ...


def parameter_groups(network: "nn.Module", config: OptimConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters of `network` by learning rate and weight decay.

    Returns groups as torch.optim takes them: "params", "lr", "weight_decay", and for people "name" ("head, no decay").
    Vectors, scalars, biases and the parameters of norms do not decay, unless config.no_decay says otherwise. The head
    learns at lr x head_lr_factor.
    Of L layers, layer i (0 nearest to the image) learns at lr x layer_decay ** (L - i); what is in no layer learns
    at lr (BEiT, Bao et al. 2022). Frozen parameters are left out. Raises RecipeError when nothing is left, or when
    layer_decay has no layers to act on.
    """
    head = set(network.head_parameter_names()) if isinstance(network, HasHead) else set()
    named = network.stage_parameter_names() if isinstance(network, HasStages) else []
    layers = [names for layer in named if (names := set(layer) - head)]
    if config.layer_decay != 1 and not layers:
        raise RecipeError(
            f"optim.layer_decay is {config.layer_decay}, and {type(network).__name__} names no layers.",
            hint="Give it a method stage_parameter_names() that returns the parameter names of each layer, or use",
            command="optim.layer_decay=1",
        )
    places = dict.fromkeys(head, ("head", config.head_lr_factor))
    for position, names in enumerate(layers):
        factor = config.layer_decay ** (len(layers) - position)
        places |= dict.fromkeys(names, (f"layer {position}" if factor != 1 else "backbone", factor))
    undecayed = _without_decay(network, config.no_decay)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        place, factor = places.get(name, ("backbone" if head or layers else "network", 1.0))
        label = f"{place}, no decay" if name in undecayed else place
        empty = {"name": label, "params": [], "lr": config.lr * factor}
        group = groups.setdefault(
            label, empty | {"weight_decay": 0.0 if name in undecayed else config.weight_decay}
        )
        group["params"].append(parameter)
    if not groups:
        raise RecipeError(
            f"{type(network).__name__} has no parameter to train.",
            found=f"{sum(1 for _ in network.parameters())} parameters, all frozen",
            hint="Every parameter has requires_grad=False; model.freeze=none thaws the backbone.",
        )
    return list(groups.values())


def _without_decay(network: "nn.Module", spared: Literal["vectors", "layer_norms", "nothing"]) -> set[str]:
    from torch import nn

    if spared == "nothing":
        return set()
    norms = (nn.LayerNorm, nn.RMSNorm)  # may have weights of several dimensions; the other norms' are vectors
    undecayed: set[str] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_vector = parameter.ndim <= 1 or name == "bias"
            if isinstance(module, norms) or (is_vector and spared == "vectors"):
                undecayed.add(f"{prefix}.{name}" if prefix else name)
    return undecayed


def build_optimizer(network: "nn.Module", config: OptimConfig) -> "Optimizer":
    """Build the optimiser over `parameter_groups(network, config)`; call it once the network is on its device.

    AdamW's fused kernels are used where every parameter lies on a device that has them: one pass over the parameters
    where the plain loop makes a dozen. The choice depends on the device alone, so that a resumed training makes it
    again. SGD has little to fuse, and unfused its rounding is that of published trainings.
    """
    from torch.optim import SGD, AdamW

    groups = parameter_groups(network, config)
    if config.kind == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum)
    parameters = [parameter for group in groups for parameter in group["params"]]
    is_fused = all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    fused = True if is_fused else None  # None lets torch choose between foreach and the plain loop
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)


def learning_rate(step: int, peak: float, config: OptimConfig, steps: int) -> float:
    """Return the learning rate at `step` (0-based), in a training of `steps`, of a group that peaks at `peak`.

    Warm-up is linear and reaches the peak at step == warmup_steps; poly falls from there and would reach its floor at
    step == steps, one past the last: floor + (peak - floor) (1 - progress) ** poly_power. The floor is min_lr where it
    is given, but never above the peak, else peak x min_lr_factor. With arrives="at" warm-up and poly arrive one step
    sooner, at the last step they have: MMEngine's LinearLR and PolyLR in closed form.
    """
    sooner = int(config.arrives == "at")
    if step < config.warmup_steps:
        share = min(step / max(config.warmup_steps - sooner, 1), 1.0)
        return peak * (config.warmup_factor + (1 - config.warmup_factor) * share)
    if config.schedule == "constant":
        return peak
    progress = min((step - config.warmup_steps) / max(steps - sooner - config.warmup_steps, 1), 1.0)
    floor = min(config.min_lr, peak) or peak * config.min_lr_factor
    return float(floor + (peak - floor) * (1 - progress) ** config.poly_power)


class Schedule:
    """Sets the learning rate of every group of an optimiser to `learning_rate(step)` of its peak."""

    def __init__(self, optimizer: "Optimizer", config: OptimConfig, steps: int) -> None:
        self.optimizer, self.config, self.steps = optimizer, config, steps
        self.peak_lrs = [
            float(group.setdefault("initial_lr", group["lr"])) for group in optimizer.param_groups
        ]
        self.at(0)

    def at(self, step: int) -> None:
        """Set the learning rates of `step`: all that a resumed training needs."""
        self.current = step
        for group, peak in zip(self.optimizer.param_groups, self.peak_lrs, strict=True):
            group["lr"] = learning_rate(step, peak, self.config, self.steps)

    def step(self) -> None:
        """Go on to the next step; call it once after each `optimizer.step()`."""
        self.at(self.current + 1)

    @property
    def lr(self) -> float:
        """The learning rate of the backbone now."""
        return learning_rate(self.current, self.config.lr, self.config, self.steps)

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group now."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        """Return {"step": s}; plain JSON."""
        return {"step": self.current}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to the step that `state_dict` told."""
        self.at(state["step"])


def build_schedule(optimizer: "Optimizer", config: OptimConfig, steps: int) -> Schedule:
    """Build the schedule of a training of `steps` steps, at step 0; RecipeError when the warm-up does not fit in it."""
    check_warmup(config, steps)
    return Schedule(optimizer, config, steps)


def check_warmup(config: OptimConfig, steps: int) -> None:
    """Raise RecipeError unless the warm-up ends before the training does."""
    if config.warmup_steps and config.warmup_steps >= steps:
        raise RecipeError(
            f"optim.warmup_steps is {config.warmup_steps}, and the training ends after {steps} steps.",
            expected="a warm-up that is shorter than the training; a tenth of it is plenty, so",
            command=f"optim.warmup_steps={steps // WARMUP_SHARE}",
        )


def shortened_warmup(config: OptimConfig, steps: int) -> OptimConfig:
    """Return the config with a warm-up of a tenth of the training where it would be as long as the training."""
    if config.warmup_steps < max(steps, 1):
        return config
    return replace(config, warmup_steps=steps // WARMUP_SHARE)
