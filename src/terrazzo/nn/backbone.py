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
