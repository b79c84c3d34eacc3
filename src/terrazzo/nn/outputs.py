"""What every network returns: class scores, not yet resized, and what only training looks at.

Shapes: B batch, K classes, h w height and width of the score map (for SegFormer a quarter of the image's).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo.errors import UsageError


@dataclass(frozen=True)
class Output:
    """The result of one forward pass."""

    logits: Tensor
    """(B, K, h, w) class scores before softmax; the caller resizes them to the size it wants."""
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> (B, K, h', w') scores of auxiliary heads; empty in evaluation and for networks without any."""


def as_output(value: Any) -> Output:
    """Take what a network of one's own returned: an `Output`, the logits alone, or an object with `.logits`.

    Raises UsageError naming what came instead of a (B, K, h, w) tensor.
    """
    if isinstance(value, Output):
        return value
    logits = value if isinstance(value, Tensor) else getattr(value, "logits", None)
    if isinstance(logits, Tensor) and logits.ndim == 4:
        return Output(logits)
    raise UsageError(
        "The network did not return logits.",
        found=f"a tensor of shape {tuple(logits.shape)}"
        if isinstance(logits, Tensor)
        else type(value).__name__,
        expected="a tensor (batch, classes, height, width), or terrazzo.nn.outputs.Output(logits=...)",
        hint="Its forward takes one image tensor (batch, channels, height, width), float32 in [0, 1].",
    )


def as_two_classes(network: nn.Module) -> nn.Module:
    """Let a network that gives one number z per pixel answer with the scores (0, z) of two classes; returns it.

    The softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)), so cross-entropy is binary cross-entropy with logits, the
    mask is where z > 0, the confidence the larger of the two, and what comes after a network (loss, windows, scores) is
    the same for one number and for two. Parameters and their names stay. Auxiliary outputs are treated alike.
    Raises UsageError at the first image where the network gives more than one number.
    """
    if not getattr(network, "one_logit", False):
        network.register_forward_hook(_with_zeros)
        network.one_logit = True  # type: ignore[assignment]  # nn.Module types attributes as tensors or modules
    return network


def _with_zeros(network: nn.Module, given: Any, value: Any) -> Output:
    output = as_output(value)
    return Output(
        _two_scores(output.logits),
        {name: _two_scores(logits) for name, logits in output.auxiliary.items()},
    )


def _two_scores(logits_B1hw: Tensor) -> Tensor:
    """(B, 2, h, w), the first 0."""
    if logits_B1hw.shape[1] != 1:
        raise UsageError(
            "The network gives more than one number for each pixel.",
            found=f"{logits_B1hw.shape[1]} channels",
            expected="1, the score of the second of two classes",
            hint="A network with a channel for each class is used as it is, without as_two_classes.",
        )
    return torch.cat([torch.zeros_like(logits_B1hw), logits_B1hw], dim=1)
