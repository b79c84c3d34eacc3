"""The exponential moving average of a network's weights (Polyak and Juditsky 1992; EMA as in Tarvainen 2017)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from terrazzo.sharding import local


class MovingAverage:
    """A float32 copy of every weight and floating buffer that follows the network slowly.

    Of a network that is spread over processes, a copy of this process's parts.
    The decay grows as min(decay, (1 + n) / (10 + n)) over the n updates so far, so a short training is averaged too.
    Saved checkpoints hold the average as their model; what training goes on from stands beside it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in _floating(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move every average towards the network's present value."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = _floating(network)
        torch._foreach_lerp_([self.tensors[name] for name in now], list(now.values()), 1 - decay)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Lend the averages to `network` and give it its own values back at the end."""
        own = {name: tensor.detach().clone() for name, tensor in _floating(network).items()}
        _write(network, self.tensors)
        try:
            yield
        finally:
            _write(network, own)


@torch.no_grad()
def _write(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in _floating(network).items():
        tensor.copy_(tensors[name])


def _floating(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: local(tensor) for name, tensor in network.state_dict().items() if tensor.is_floating_point()
    }
