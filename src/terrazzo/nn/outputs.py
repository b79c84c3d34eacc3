"""What every network returns: class scores, not yet resized, and what only training looks at.

Shapes: B batch, K classes, h w height and width of the score map (for SegFormer a quarter of the image's).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

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
