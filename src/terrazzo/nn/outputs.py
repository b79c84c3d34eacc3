"""What every network returns: class scores, not yet resized, and what only training looks at.

Shapes: B batch, K classes, h w height and width of the score map (for SegFormer a quarter of the image's).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Output:
    """The result of one forward pass."""

    logits: Tensor
    """(B, K, h, w) class scores before softmax; the caller resizes them to the size it wants."""
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> (B, K, h', w') scores of auxiliary heads; empty in evaluation and for networks without any."""
