"""One training over one process or many: who I am, which device is mine, and the few things ranks say to each other.

`launcher.py` knows what torchrun, accelerate launch, srun and mpirun say, so the same command runs under all of them;
without them it is a single process and every exchange below is the identity. Gradients are averaged by torch's
DistributedDataParallel, or by `sharding.py` where no process can hold everything; nothing here knows models.

What lies on a CPU is exchanged by gloo and what lies on a GPU by nccl, so a word between processes waits for no GPU. A
mistake that one process finds ends all of them and is told once; so is the death of a process (`pulse.py`).
"""

import math
import os
import signal
import socket
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from terrazzo.devices import choose_device
from terrazzo.errors import TerrazzoError, TrainingError, UsageError
from terrazzo.launcher import Place, place
from terrazzo.pulse import Pulse
from terrazzo.sharding import Sharded

PATIENCE = timedelta(
    minutes=30
)  # for a process that lives and does not come; a dead one is noticed by its pulse


@dataclass(frozen=True)
class Processes:
    """This process among `world` that train together."""

    rank: int
    """0 … world-1; rank 0 alone writes files and speaks."""
    world: int
    """How many processes train together."""
    device: torch.device
    """The device of this process."""
    pulse: Pulse | None = None
    """The eye on the others, where there are any."""

    @property
    def is_first(self) -> bool:
        """True in the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over all processes (a new tensor on the same device)."""
        if self.world == 1:
            return tensor
        speaks = tensor.is_cuda or "gloo" in dist.get_backend_config()  # a user's group may know nccl alone
        there = tensor.clone() if speaks else tensor.to(self.device)
        dist.all_reduce(there)
        return there.to(tensor.device)

    def any(self, claim: bool) -> bool:
        """True in every process when `claim` is true in at least one."""
        return claim if self.world == 1 else bool(self.sum(torch.tensor(float(claim))) > 0)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its mean over all processes, in place; equal ones stay what they are, bit for bit."""
        listed = list(tensors)
        if self.world == 1 or not listed:
            return
        flat = torch.cat([tensor.detach().double().flatten().cpu() for tensor in listed])
        means = (self.sum(flat) / self.world).split([tensor.numel() for tensor in listed])
        for tensor, mean in zip(listed, means, strict=True):
            tensor.detach().copy_(mean.view(tensor.shape))

    def tell(self, value: Any) -> Any:
        """Return rank 0's `value` (JSON-like) in every process."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """What is done inside succeeds in every process or raises in every one; nothing inside may be an exchange.

        Each process raises its own error, or that of the first that failed; process 0 is the one that tells it.
        """
        if self.world == 1:
            yield
            return
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        told: list[TerrazzoError | None] = [None] * self.world
        dist.all_gather_object(told, None if problem is None else self._told(problem))
        first = next((error for error in told if error is not None), None)
        if first is None:
            return
        if problem is not None and not isinstance(problem, TerrazzoError):
            raise problem  # a bug is told with its traceback, by whoever has it
        raised = problem if isinstance(problem, TerrazzoError) else first
        raised.is_told = not self.is_first
        raise raised

    def _told(self, problem: Exception) -> TerrazzoError:
        """The error as the other processes raise it: with the place it comes from."""
        where = f"In process {self.rank} on {socket.gethostname()}: "
        if not isinstance(problem, TerrazzoError):
            return TrainingError(f"{where}{type(problem).__name__}: {problem}")
        error, kind = problem, type(problem)
        return kind(where + error.what, found=error.found, expected=error.expected, hint=error.hint,
                    command=error.command)  # fmt: skip

    def wait(self) -> None:
        """Return once every process has arrived here."""
        self.sum(torch.zeros(1))

    def wrap(self, network: nn.Module, *, shard: bool = False) -> nn.Module:
        """Move `network` to the device; return it so that gradients are averaged over processes, itself where one is.

        Every process gets rank 0's weights and buffers. shard: and keeps its part of them alone; what holds on to the
        parameters, such as an optimiser, is to be made afterwards. Raises RecipeError where that cannot be done.
        """
        if self.world > 1 and shard:
            return Sharded(network, self.device)
        network.to(self.device)
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            network,
            device_ids=ids,
            broadcast_buffers=False,
            # others' networks hold parameters that no logit depends on; looking for them costs a walk over the graph
            find_unused_parameters=not getattr(network, "uses_all_parameters", False),
        )

    def clip(self, model: nn.Module, max_norm: float | None) -> Tensor:
        """Scale the gradients of a wrapped network down to a norm of `max_norm`; return the norm they had."""
        if isinstance(model, Sharded):
            return model.clip(max_norm or math.inf)
        return nn.utils.clip_grad_norm_(model.parameters(), max_norm or math.inf)

    def gathered(self, model: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which this process may call the network inside `model` without the others."""
        return model.gathered() if isinstance(model, Sharded) else nullcontext()

    @contextmanager
    def rescue(self, error: Exception, *, is_idle: bool) -> Iterator[bool]:
        """Yield whether this process is to save what all had before `error`: one at most, and the others wait for it.

        That is the first in which something went wrong by itself. Where a process is gone instead, it is process 0,
        unless a GPU may have gone on without it; is_idle: no GPU has anything left to do.
        """
        if self.world == 1:
            yield True
        elif _is_lost(error) and not (self.is_first and (is_idle or self.device.type == "cpu")):
            yield False
        elif self.pulse is None:
            yield self.is_first
        else:
            with self.pulse.first() as is_first:
                yield is_first

    def hold_gradients(self, network: nn.Module, hold: bool) -> AbstractContextManager[None]:
        """Return a context in which backward does not exchange gradients; for all micro-batches but the last."""
        if hold and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()


@contextmanager
def joined(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that the launcher started, and leave them at the end; alone without a launcher.

    device: "auto", "cpu", "cuda", "cuda:1", "mps". Raises UsageError when it is not there, and TrainingError when
    another process is gone. An error that another process tells has `is_told` set.
    """
    is_joined = dist.is_initialized()  # by the user's script, whose group it stays
    mine = Place(dist.get_rank(), dist.get_world_size(), _local_rank()) if is_joined else place()
    rank, world = mine.rank, mine.world
    chosen = choose_device(device, local_rank=mine.local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if is_joined or world == 1:
        yield Processes(rank, world, chosen)
        return
    if chosen.type == "mps":
        raise UsageError("An Apple GPU trains alone.", found=f"{world} processes", hint="CPUs can be several:",
                         command="terrazzo train … --device cpu")  # fmt: skip
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        is_told = "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ  # srun leaves it to us
        where = "env://" if is_told else f"tcp://{mine.address}:{mine.port}"
        store, rank, world = next(rendezvous(where, rank, world, timeout=PATIENCE))
        # torchrun's store outlives a restart, with the addresses of processes that are no more
        attempt = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        dist.init_process_group(backend, store=attempt, rank=rank, world_size=world, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"Process {rank} of {world} did not find the others.",
            found=str(error).partition("\n")[0],
            expected=f"all {world} at {mine.address}:{mine.port}",
            hint="Has each machine been started, with the same address, and does no firewall lie between them?",
        ) from error
    pulse = Pulse(mine, name=Processes(rank, world, chosen).tell(uuid.uuid4().hex))
    processes = Processes(rank, world, chosen, pulse)
    try:
        processes.wait()
        pulse.start()
        with _without_torch_talk():
            yield processes
        processes.wait()
    except BaseException as error:
        _stay_for_the_end()
        told = _as_told(error, pulse)
        pulse.stop()
        dist.destroy_process_group()
        pulse.linger()
        if told is error:
            raise
        raise told from error
    pulse.stop()
    dist.destroy_process_group()


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", dist.get_rank()))


def _as_told(error: BaseException, pulse: Pulse) -> BaseException:
    """The error to raise: a sentence where an exchange failed; marked as told where another process has the word."""
    raised = TrainingError(pulse.sentence()) if _is_lost(error) else error
    if not isinstance(raised, TerrazzoError):
        pulse.claim()
    elif not raised.is_told:
        raised.is_told = not pulse.claim()
    else:
        pulse.leave()
    return raised


def _is_lost(error: BaseException) -> bool:
    """True for what gloo, nccl and the store say when the other end is gone: plain RuntimeErrors, some of them."""
    signs = ("gloo", "connection closed by peer", "nccl")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in signs)
    )


@contextmanager
def _without_torch_talk() -> Iterator[None]:
    """Torch tells every process of a renamed argument, of layouts that cost nothing, and of views nobody writes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        warnings.filterwarnings(
            "ignore", message="Grad strides do not match bucket view", category=UserWarning
        )
        warnings.filterwarnings(
            "ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning
        )
        yield


def _stay_for_the_end() -> None:
    """A launcher sends SIGTERM when a process is gone: what is on its way out here is to be told first, by the caller.

    So the signal stays ignored; launchers send SIGKILL to what has not ended half a minute later.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
