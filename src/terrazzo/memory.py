"""What a training step holds in memory, measured: the activations that forward keeps for backward.

Autograd hands every tensor it keeps to `saved_tensors_hooks`; the bytes of their distinct storages, weights left out,
are what a step needs beyond weights, gradients and optimiser state. They are measured on the network and device at
hand, on two or three images, and are a fixed part (weights that autocast has cast) plus a part per image. That is
exact; what a kernel takes for a moment on the way is not in it. Nothing here trains, or changes the network.
"""

# B batch, C channels, H W height width

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from terrazzo.devices import Precision

Size = tuple[int, int]  # (height, width)
LossOf = Callable[
    [Tensor, Tensor, Precision], Tensor
]  # image (B, C, H, W), mask (B, H, W), precision -> the loss

WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "not enough memory")  # of RuntimeErrors
HALF = 0.5**0.5  # of each side, for half the area
GRAIN = 32  # crops are offered in multiples of it, as the deepest maps are 1/32 of what a network sees
SMALLER = (
    1,
    2,
    4,
)  # where even one look does not fit, sides are divided by these and the bytes scaled by the area


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch, numpy and Python raise when an allocation fails, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


@dataclass(frozen=True)
class Setting:
    """What decides how much a step holds."""

    micro_batch: int
    """Images per forward pass."""
    seen_hw: Size
    """Height and width of what the network sees."""
    checkpointing: bool
    """Whether activations are computed twice."""
    precision: Precision
    """Of the forward pass."""

    def __str__(self) -> str:
        height, width = self.seen_hw
        again = ", checkpointed" if self.checkpointing else ""
        return f"micro-batch {self.micro_batch} of {height}x{width} in {self.precision}{again}"


@dataclass(frozen=True)
class Option:
    """One thing to change."""

    override: str
    """As it is typed: "train.micro_batch=4"."""
    setting: Setting
    """What a step is then."""
    effect: str
    """What it means for the result."""


def options(setting: Setting, *, share: int, can_checkpoint: bool, is_cropped: bool) -> list[Option]:
    """Return what could be changed to hold less; share: the images of a step in this process."""
    found: list[Option] = []
    divisors = [n for n in range(1, setting.micro_batch // 2 + 1) if share % n == 0]
    if divisors:
        less = replace(setting, micro_batch=divisors[-1])
        found.append(Option(f"train.micro_batch={divisors[-1]}", less, "the same result, slower"))
    if can_checkpoint and not setting.checkpointing:
        twice = replace(setting, checkpointing=True)
        found.append(Option("train.gradient_checkpointing=true", twice, "the same result, slower"))
    if setting.precision == "f32":
        half = replace(setting, precision="bf16")
        found.append(Option("train.precision=bf16", half, "another rounding"))
    height, width = (max(GRAIN, int(side * HALF) // GRAIN * GRAIN) for side in setting.seen_hw)
    if is_cropped and (height, width) != setting.seen_hw:
        small = replace(setting, seen_hw=(height, width))
        found.append(
            Option(f"data.crop_hw={height}x{width}", small, "another training: less is seen around a pixel")
        )
    return found


def held_bytes(work: Callable[[], object], *, but: Iterable[Tensor] = ()) -> int:
    """Return the bytes of the distinct storages that autograd keeps when `work` runs, those of `but` left out."""
    known = {_key(tensor) for tensor in but}
    kept: dict[int, Tensor] = {}  # holding them keeps their addresses from being used again

    def note(tensor: Tensor) -> Tensor:
        alone = tensor.detach()  # the tensor itself would hold the graph that holds it
        if _key(alone) not in known:
            kept.setdefault(_key(alone), alone)
        return alone

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = work()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del result
    return total


def activation_bytes(
    network: nn.Module, loss_of: LossOf, setting: Setting, *, channels: int, device: torch.device
) -> int:
    """Return the bytes that a micro-batch of `setting` holds between forward and backward.

    loss_of: the network's loss for an image and a mask; called with two images, and three, or one if that is all.
    Mode, buffers and checkpointing of the network are afterwards as they were. Where that does not fit either, smaller
    images are measured and scaled by their area; raises what the allocation raised when nothing fits.
    """
    few = min(setting.micro_batch, 2)
    for smaller in SMALLER:
        height, width = (max(1, side // smaller) for side in setting.seen_hw)
        area = setting.seen_hw[0] * setting.seen_hw[1] / (height * width)
        try:
            first = _look(network, loss_of, setting, (few, channels, height, width), device)
            if setting.micro_batch == few:
                return round(first * area)
            more = _look(network, loss_of, setting, (few + 1, channels, height, width), device)
            return round((first + (setting.micro_batch - few) * (more - first)) * area)
        except (RuntimeError, MemoryError) as error:
            if smaller == SMALLER[-1] or not is_out_of_memory(error):
                raise
    raise AssertionError("the last of SMALLER returns or raises")


def _look(
    network: nn.Module, loss_of: LossOf, setting: Setting, shape: tuple[int, ...], device: torch.device
) -> int:
    image_BCHW = torch.rand(shape, device=device)
    mask_BHW = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64, device=device)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    was = getattr(network, "gradient_checkpointing", None)
    if was is not None:
        setattr(network, "gradient_checkpointing", setting.checkpointing)  # noqa: B010  (typed as a tensor)
    try:
        with torch.enable_grad():
            return held_bytes(
                lambda: loss_of(image_BCHW, mask_BHW, setting.precision),
                but=[*network.parameters(), *network.buffers()],
            )
    finally:
        if was is not None:
            setattr(network, "gradient_checkpointing", was)  # noqa: B010
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])


def state_bytes(network: nn.Module, *, per_weight: int) -> int:
    """Return the bytes of weights, and of `per_weight` further numbers for each that is trained."""
    weights = sum(one.numel() * one.element_size() for one in network.parameters())
    trained = sum(one.numel() * one.element_size() for one in network.parameters() if one.requires_grad)
    return weights + per_weight * trained


def mib(count: int) -> str:
    """Return "1,234 MiB"; "0.5 MiB" below ten."""
    value = count / 2**20
    return f"{value:,.0f} MiB" if value >= 10 else f"{value:.2f} MiB"


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
