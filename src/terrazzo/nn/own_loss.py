"""A user's own loss, in the form the training loop wants."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from terrazzo.errors import UsageError
from terrazzo.nn.outputs import Output


class OwnLoss:
    """A user's loss(logits (B, K, H, W), mask (B, H, W)) in the form the loop wants.

    What it returns is taken as a mean over the images it saw; micro-batches and processes are averaged by images.
    """

    def __init__(self, function: Callable[..., Any], *, align_corners: bool = False) -> None:
        self.function, self.align_corners = function, align_corners

    def pixel_weight(self, mask: Tensor) -> float:
        """Images, not pixels: a user's loss does its own averaging inside an image."""
        return 1.0 if mask.ndim == 2 else float(mask.shape[0])

    def __call__(self, output: Output, mask_BHW: Tensor, *, weight: Tensor | float) -> dict[str, Tensor]:
        logits = output.logits.float()
        if logits.shape[-2:] != mask_BHW.shape[-2:]:
            size_hw = mask_BHW.shape[-2:]
            logits = F.interpolate(logits, size_hw, mode="bilinear", align_corners=self.align_corners)
        value = self.function(logits, mask_BHW.long())
        parts = dict(value) if isinstance(value, Mapping) else {"loss_own": value}
        wrong = [n for n, part in parts.items() if not isinstance(part, Tensor) or part.numel() != 1]
        if wrong:
            raise UsageError(
                "The loss returned something that is not a scalar.",
                found=", ".join(f"{name}: {type(parts[name]).__name__}" for name in wrong),
                expected="a scalar tensor, the mean over the batch, or a dict of them",
            )
        share = mask_BHW.shape[0] / weight if weight else 0.0
        return {name: part.reshape(()) * share for name, part in parts.items()}
