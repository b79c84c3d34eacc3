"""Curves and pictures of a run for TensorBoard: `tensorboard --logdir runs`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Board:
    """Writes scalars and pictures under `folder`; what a resumed run wrote after `step` is purged."""

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def scalars(self, step: int, values: Mapping[str, Any], *, prefix: str) -> None:
        """Add every finite number among `values` as PREFIX/NAME."""
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Add an (H, W, 3) uint8 picture."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        self._writer.close()
