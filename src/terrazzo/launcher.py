"""Who started this process, and which of how many it is: what torchrun, accelerate, srun and mpirun leave in the
environment. Without any of them it is alone.

    torchrun, accelerate launch    RANK, WORLD_SIZE, LOCAL_RANK
    srun                           SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID
    mpirun                         OMPI_COMM_WORLD_RANK … of Open MPI, PMI_RANK … of MPICH and Intel MPI

A batch script has Slurm's variables too, and is one process whatever they say: only what `srun` starts is a step with
tasks of its own. Nothing here imports torch.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from terrazzo.errors import UsageError

NAMES = (  # rank, processes, rank on this machine; the first that are there count, so torchrun under srun is torchrun
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)
PORTS = range(20_000, 30_000)  # below those that systems hand out by themselves, from 32768 on


@dataclass(frozen=True)
class Place:
    """One process among those that were started together."""

    rank: int = 0
    """0 … world-1."""
    world: int = 1
    """How many were started."""
    local_rank: int = 0
    """The same among those on this machine: which of its GPUs is meant."""
    address: str = "127.0.0.1"
    """The machine of rank 0."""
    port: int = 29_500
    """Where it listens there."""
    attempt: str | None = None
    """Names this start; the same after the launcher began again, or the job was requeued. None where nobody would."""


def place(environment: Mapping[str, str] | None = None) -> Place:
    """Return the place of this process, from `os.environ` unless another environment is given.

    Raises UsageError where a launcher started several and did not say where the first one is, and where one was asked
    for several and started this one alone.
    """
    said = os.environ if environment is None else environment
    for rank, world, local in NAMES:
        if rank in said and world in said:
            local_rank = int(said.get(local, "0"))
            break
    else:
        _check_not_left_alone(said)
        return Place()
    count, is_step = int(said[world]), rank == "SLURM_PROCID"
    address = said.get("MASTER_ADDR") or (_first_machine(said) if is_step else None)
    if address is None and count > 1:
        raise UsageError(
            f"{count} processes were started, and none knows where the first one is.",
            found=f"{rank}, {world} and no MASTER_ADDR in the environment",
            hint="On one machine:",
            command="export MASTER_ADDR=127.0.0.1 MASTER_PORT=29500",
        )
    port = int(said["MASTER_PORT"]) if said.get("MASTER_PORT") else _port(said) if is_step else 29_500
    return Place(int(said[rank]), count, local_rank, address or "127.0.0.1", port, _attempt(said, is_step))


def _attempt(said: Mapping[str, str], is_step: bool) -> str | None:
    if is_step:
        return f"slurm/{said.get('SLURM_JOB_ID')}/{said.get('SLURM_STEP_ID')}"
    name = said.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # torchrun without --standalone or --rdzv-id: known by its own process
        return f"{socket.gethostname()}/{os.getppid()}"
    return name


def _first_machine(said: Mapping[str, str]) -> str | None:
    """The first of "gpu[03-05,9],login1": Slurm writes the names of machines folded."""
    folded = said.get("SLURM_STEP_NODELIST") or said.get("SLURM_JOB_NODELIST")
    if not folded:
        return None
    first = re.split(r",(?![^\[]*\])", folded)[0]  # at the first comma that is in no bracket
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first)


def _port(said: Mapping[str, str]) -> int:
    """The same in every process of a step, and hardly that of another step on the same machine."""
    job, step = (int(said.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return PORTS[(7 * job + step) % len(PORTS)]


def _check_not_left_alone(said: Mapping[str, str]) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process where no mpirun is named, and says nothing."""
    if "ACCELERATE_USE_CPU" in said and "MASTER_ADDR" in said:
        raise UsageError(
            "accelerate launch was asked for several processes and started one.",
            found="a CPU launch without --mpirun_hostfile",
            hint="On CPUs accelerate leaves that to mpirun. torchrun does it by itself:",
            command="torchrun --standalone --nproc-per-node 2 -m terrazzo train … --device cpu",
        )
