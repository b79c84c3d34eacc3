"""What a backbone promises to the network that is built on it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Turns a normalised image (B, C, H, W) into maps (B, C_i, H_i, W_i), the finest first.

    It takes any height and width from 1 pixel on, and initialises its own weights.
    """

    out_channels: tuple[int, ...]
    """Channels C_i of each map."""
    strides: tuple[int, ...]
    """How many times smaller than the image each map is per side, rounded up."""
    gradient_checkpointing: bool
    """False at birth; True keeps one map per block in training, and computes the rest again in backward."""

    @abstractmethod
    def forward(self, image_BCHW: Tensor) -> list[Tensor]:
        """Return the maps of a normalised image."""

    @abstractmethod
    def stage_parameter_names(self) -> list[set[str]]:
        """Return the names of all parameters as layers, first the one nearest the image."""


def numbered_layers(module: nn.Module) -> list[set[str]]:
    """Return the names of all parameters as layers in the order of their making, as far as their numbers tell.

    A layer is what shares its name up to the second number in it: "stages.1.blocks.0", "encoder.layer.3". What bears
    no number (a stem, a norm at the end) belongs to the layer before it, or to the first. For networks of others.
    """
    layers: dict[str, set[str]] = {}
    early: set[str] = set()
    last = ""
    for name, _ in module.named_parameters():
        parts = name.split(".")
        numbers = [position for position, part in enumerate(parts) if part.isdigit()][:2]
        if numbers:
            last = ".".join(parts[: numbers[-1] + 1])
        if last:
            layers.setdefault(last, set()).add(name)
        else:
            early.add(name)
    if not layers:
        return [early] if early else []
    next(iter(layers.values())).update(early)
    return list(layers.values())
