"""One training over one process or many: who I am, which device is mine, and the few things ranks say to each other.

Reads what `torchrun`, `accelerate launch` and Slurm's own variables put into the environment (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR), so the same command runs under all of them; without them it is a single process and every
exchange below is the identity. Gradients are averaged by torch's DistributedDataParallel; nothing here knows models.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from terrazzo.devices import choose_device

SILENCE = timedelta(seconds=45)  # a rank that says nothing for so long is taken for dead; the others end


@dataclass(frozen=True)
class Processes:
    """This process among `world` that train together."""

    rank: int
    """0 … world-1; rank 0 alone writes files and speaks."""
    world: int
    """How many processes train together."""
    device: torch.device
    """The device of this process."""

    @property
    def is_first(self) -> bool:
        """True in the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over all processes (a new tensor on the same device)."""
        if self.world == 1:
            return tensor
        there = tensor.to(self.device)
        dist.all_reduce(there)
        return there.to(tensor.device)

    def any(self, claim: bool) -> bool:
        """True in every process when `claim` is true in at least one."""
        return claim if self.world == 1 else bool(self.sum(torch.tensor(float(claim))) > 0)

    def tell(self, value: Any) -> Any:
        """Return rank 0's `value` (JSON-like) in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Return once every process has arrived here."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return `network` so that its gradients are averaged over processes; itself when there is one."""
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def hold_gradients(self, network: nn.Module, hold: bool) -> AbstractContextManager[None]:
        """Return a context in which backward does not exchange gradients; for all micro-batches but the last."""
        if hold and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that the launcher started, and leave them at the end; alone without a launcher.

    device: "auto", "cpu", "cuda", "cuda:1", "mps". Raises UsageError when it is not there.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = choose_device(device, local_rank=int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    starts_group = world > 1 and not dist.is_initialized()
    if starts_group:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=rank, world_size=world, timeout=SILENCE)
    try:
        yield Processes(rank, world, chosen)
    finally:
        if starts_group:
            dist.destroy_process_group()
