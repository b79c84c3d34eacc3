"""A network spread over the processes: each keeps one part in N of every weight, gradient and optimiser state.

Torch's `fully_shard` (FSDP2; the idea is stage 3 of ZeRO, Rajbhandari et al. 2020) puts a block's weights together when
the block is needed and lets go of them afterwards. It is called here directly, on CPUs as on GPUs, so what tests run is
what trains. `accelerate` would call the same function after choosing the same blocks, and refuses CPUs.

Blocks are the modules whose class a network, or a part of it, lists in `_no_split_modules`: the convention of
transformers, which accelerate follows too. What is in no block is one further group.

A weight is a DTensor while it is spread. Only `whole` and `gathered` exchange anything. Torch's FSDP is imported when
a network is spread (half a second, sympy with it): trainings that hold everything never do.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

from terrazzo.errors import RecipeError
from terrazzo.nn.outputs import Output, as_output


class Sharded(nn.Module):
    """Calls `network` with its weights put together; afterwards `network.parameters()` are this process's parts.

    Every process gets rank 0's weights and buffers; they move to `device` block by block. Gradients are means over the
    processes, exchanged in each backward: what several passes would save in exchanges they would cost in memory.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        """Raises RecipeError for a network that cannot be spread."""
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import init_device_mesh

        super().__init__()
        _check(network, device)
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                there = tensor.detach().to(device)
                dist.broadcast(there, src=0)
                tensor.copy_(there)
        for parameter in network.parameters():
            parameter.data = parameter.data.contiguous()
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.inner = _Plain(network)
        for block in blocks(network):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        fully_shard(self.inner, mesh=mesh, reshard_after_forward=False)
        root, *units = modules = _sharded_modules(self)
        # what backward fetches ahead is said here: by itself torch would go by the calls of the last validation too,
        # and those differ from process to process
        for before, unit in zip([*units[:1], *units], units, strict=False):
            unit.set_modules_to_backward_prefetch([before])
        root.set_modules_to_backward_prefetch([modules[-1]])
        if device.type == "cpu":  # gloo knows sums, and no means
            for module in modules:
                module.set_force_sum_reduction_for_comms(True)

    def forward(self, image_BCHW: Tensor) -> Output:
        """Return what the network returns."""
        logits, auxiliary = self.inner(image_BCHW)
        return Output(logits, auxiliary)

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients down to a norm of `max_norm`, as `clip_grad_norm_` does; return the norm they had."""
        parts = [local(one.grad) for one in self.parameters() if one.grad is not None]
        squares = torch.stack([one.float().square().sum() for one in parts]).sum()
        dist.all_reduce(squares)
        norm = squares.sqrt()
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for one in parts:
            one.mul_(scale)
        return norm

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, every process holds all weights and may call the network as often as it likes, on its own.

        For validation, where processes see different numbers of windows. Weights are not to be changed inside.
        """
        modules = _sharded_modules(self)
        for module in modules:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in modules:
                module.reshard()
                module.set_reshard_after_forward(module is not modules[0], recurse=False)  # but the root


class _Plain(nn.Module):
    """The network, returning a tuple: hooks are set on tensors that lie in tuples and dicts."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        output = as_output(self.network(image_BCHW))
        return output.logits, dict(output.auxiliary)


def blocks(network: nn.Module) -> list[nn.Module]:
    """Return the modules that are put together one at a time, inner ones before those around them."""
    names = {name for part in network.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    found = [part for part in network.modules() if type(part).__name__ in names and part is not network]
    return found[::-1]


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a spread tensor, which shares its memory; any other as it is."""
    spread = _as_spread(tensor)
    part: Tensor = tensor if spread is None else spread.to_local()
    return part


def whole(tensor: Tensor) -> Tensor:
    """Return all of a spread tensor, in every process; any other as it is. An exchange: all processes call it."""
    spread = _as_spread(tensor)
    full: Tensor = tensor if spread is None else spread.full_tensor()
    return full


def part_of(full: Tensor, like: Tensor) -> Tensor:
    """Return the part of the tensor `full`, which every process has, that `local(like)` is to hold."""
    spread = _as_spread(like)
    if spread is None:
        return full
    assert [placement.is_shard(0) for placement in spread.placements] == [True], spread.placements
    chunks = full.chunk(spread.device_mesh.size(), dim=0)
    rank = spread.device_mesh.get_local_rank()
    return chunks[rank] if rank < len(chunks) else full[:0]


def _as_spread(tensor: Tensor) -> "DTensor | None":
    """The tensor itself where it is spread; none is before torch's module of spread tensors was imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return tensor if module is not None and isinstance(tensor, module.DTensor) else None


def _sharded_modules(model: nn.Module) -> "list[FSDPModule]":
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _check(network: nn.Module, device: torch.device) -> None:
    from torch.distributed.fsdp import FSDPModule

    if device.type == "cpu" and not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RecipeError(
            f"torch {torch.__version__} spreads a network over GPUs only.",
            found="train.shard=fsdp on CPUs",
            command="train.shard=none",
        )
    scalars = [name for name, parameter in network.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise RecipeError(
            f"{type(network).__name__} cannot be spread over processes.",
            found=f"train.shard=fsdp, and parameters without dimensions: {', '.join(scalars[:5])}",
            hint="Give each the shape (1,), or hold the whole network in every process:",
            command="train.shard=none",
        )
