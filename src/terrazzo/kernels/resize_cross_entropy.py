"""Cross-entropy of logits that are resized to the target's size on the way."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def resize_cross_entropy(
    logits_BKhw: "Tensor",
    target_BHW: "Tensor",
    *,
    weight_K: "Tensor | None" = None,
    ignore: int,
    label_smoothing: float = 0.0,
) -> "Tensor":
    """Sum the weighted cross-entropy over the pixels of the target that are not `ignore`; a float32 scalar."""
    return resize_cross_entropy_reference(
        logits_BKhw, target_BHW, weight_K=weight_K, ignore=ignore, label_smoothing=label_smoothing
    )


def resize_cross_entropy_reference(
    logits_BKhw: "Tensor",
    target_BHW: "Tensor",
    *,
    weight_K: "Tensor | None" = None,
    ignore: int,
    label_smoothing: float = 0.0,
) -> "Tensor":
    """The same in torch's words, holding the resized logits (B, K, H, W)."""
    import torch
    from torch.nn import functional as F

    with torch.autocast(logits_BKhw.device.type, enabled=False):
        logits = logits_BKhw if logits_BKhw.dtype == torch.float64 else logits_BKhw.float()
        full_BKHW = F.interpolate(logits, size=target_BHW.shape[-2:], mode="bilinear", align_corners=False)
        return F.cross_entropy(
            full_BKHW,
            target_BHW.long(),
            weight=None if weight_K is None else weight_K.to(logits),
            ignore_index=ignore,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
