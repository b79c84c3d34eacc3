"""What runs a network: image in, logits out. What surrounds it (resize, windows, argmax) is the Predictor's, shared.

A backend is any callable of the `Backend` form. PyTorch's is here; ONNX Runtime's and OpenVINO's, which run a network
as a graph, are in `runtimes.py`, and which of them a model gets is told in `converted.py`.

Shapes: B batch, C channels, H W height and width of the image, K classes, h w of the logits.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo.devices import Precision, autocast
from terrazzo.errors import TerrazzoError
from terrazzo.nn.outputs import as_output


class Backend(Protocol):
    """A network ready to run; safe to call from several threads at once."""

    @property
    def network(self) -> nn.Module:
        """The torch module itself; a UsageError where there is none, as in an exported model."""

    @property
    def device(self) -> torch.device:
        """What it computes on."""

    @property
    def channels(self) -> int | None:
        """Channels of the image it takes; None where the network does not say."""

    @property
    def align_corners(self) -> bool:
        """Whether corners meet where its logits are resized."""

    @property
    def says(self) -> str:
        """What runs it and in which precision, such as "OpenVINO 2026.4.1, f32"."""

    def __call__(self, image_BCHW: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Return logits (B, K, h, w), not yet resized, for images (B, C, H, W) in [0, 1]; both C-contiguous."""


class TorchBackend:
    """A torch module on a device, in a precision.

    The module computes in evaluation mode and is left in the mode it was found in, submodule by submodule, so a
    network in training can be looked at between two steps.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision) -> None:
        lies = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
        # a network spread over processes takes itself apart when it is moved, even to where it is
        self.network = network if lies <= {device} else network.to(device)
        self.device, self.precision = device, precision
        self._lock = threading.Lock()
        self._running = 0
        self._modes: list[tuple[nn.Module, bool]] = []

    @property
    def channels(self) -> int | None:
        """The network's own `channels`, as terrazzo's networks have it; None for a module that does not say."""
        channels = getattr(self.network, "channels", None)
        return channels if isinstance(channels, int) else None

    @property
    def align_corners(self) -> bool:
        """The network's own `align_corners`; edges meet where it does not say."""
        return bool(getattr(self.network, "align_corners", False))

    @property
    def says(self) -> str:
        """PyTorch with its version, the device where that is not the CPU, and the precision."""
        on = "" if self.device.type == "cpu" else f" on {self.device}"
        return f"PyTorch {torch.__version__}{on}, {self.precision}"

    def __call__(self, image_BCHW: NDArray[np.float32], /) -> NDArray[np.float32]:
        """Return logits (B, K, h, w) float32 on the CPU."""
        return self.there(torch.from_numpy(image_BCHW)).cpu().contiguous().numpy()

    def there(self, image_BCHW: Tensor) -> Tensor:
        """Return logits (B, K, h, w) float32 on the device, for images that lie anywhere."""
        try:
            with self._evaluating(), torch.no_grad(), autocast(self.precision, self.device):
                return as_output(self.network(image_BCHW.to(self.device))).logits.float()
        except torch.OutOfMemoryError as error:
            batch, _, height, width = image_BCHW.shape
            raise TerrazzoError(
                f"The memory of {self.device} does not hold this pass of the network.",
                found=f"{batch} x {height}x{width} (images x height x width) at {self.precision}",
                hint="Use windows, fewer images at once, or bf16:",
                command="terrazzo predict MODEL SOURCE --windows",
            ) from error

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode while any thread is inside; the last to leave puts the modes back."""
        with self._lock:
            if self._running == 0:
                self._modes = [(module, module.training) for module in self.network.modules()]
                if any(mode for _, mode in self._modes):
                    self.network.eval()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    if any(mode for _, mode in self._modes):
                        self.network.train(self._modes[0][1])  # the door that modules may have overridden
                    for module, mode in self._modes:
                        module.training = mode
                    self._modes = []
