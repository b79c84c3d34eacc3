"""Where arithmetic stays in the precision of its tensors, whatever autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off inside. The meta device, on which shapes are computed, has none to turn off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
