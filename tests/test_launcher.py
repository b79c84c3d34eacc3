"""Which process of how many this is, from what launchers leave in the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from terrazzo.errors import UsageError
from terrazzo.launcher import PORTS, Place, place

SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[03-05,9]"}  # fmt: skip


def test_alone_without_a_launcher() -> None:
    assert place({}) == Place(rank=0, world=1, local_rank=0, attempt=None)


def test_torchrun_and_accelerate() -> None:
    said = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "1234"}
    assert place(said) == Place(3, 4, 1, "first", 1234)
    assert place({**said, "TORCHELASTIC_RUN_ID": "demo"}).attempt == "demo"
    assert place({**said, **SRUN}) == place(said)  # torchrun under srun counts itself


def test_srun() -> None:
    mine = place(SRUN)
    assert (mine.rank, mine.world, mine.local_rank, mine.address) == (5, 16, 1, "gpu03")
    assert mine.port in PORTS
    assert place({**SRUN, "SLURM_PROCID": "0"}).port == mine.port
    assert place({**SRUN, "SLURM_STEP_ID": "1"}).port != mine.port
    assert mine.attempt == "slurm/4711/0"
    assert place({**SRUN, "MASTER_ADDR": "other", "MASTER_PORT": "99"}).port == 99


@pytest.mark.parametrize(
    ("folded", "first"),  # as `scontrol show hostnames` unfolds them
    [
        ("login1", "login1"),
        ("login1,gpu2", "login1"),
        ("gpu[03-05,9]", "gpu03"),
        ("gpu[7,9-11],login1", "gpu7"),
        ("rack[2-3]node[08-09]-ib", "rack2node08-ib"),
    ],
)
def test_the_first_machine_of_a_folded_list(folded: str, first: str) -> None:
    assert place({**SRUN, "SLURM_STEP_NODELIST": folded}).address == first


def test_a_batch_script_is_one_process_whatever_it_asked_for() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[1-2]"}
    assert place(batch).world == 1


def test_mpirun_needs_to_be_told_where_the_first_process_is() -> None:
    said = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    with pytest.raises(UsageError, match="none knows where the first one is") as told:
        place(said)
    assert "export MASTER_ADDR=127.0.0.1 MASTER_PORT=29500" in str(told.value)
    assert place({**said, "MASTER_ADDR": "first"}) == Place(1, 2, 1, "first", 29_500)


def test_accelerate_launch_for_real(boxes: Path, tmp_path: Path) -> None:
    """It starts two processes where it is asked to by `--multi_gpu`; with `--cpu` it starts one, which is refused."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    words = ["-m", "terrazzo", "train", "segformer-b0-scratch", "--data", str(boxes), "--device", "cpu",
             "train.steps=2", "train.batch_size=2", "train.pictures=0", "optim.warmup_steps=0", "data.crop_hw=32x32",
             "data.workers=0", "train.loggers="]  # fmt: skip
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    two, one = (
        subprocess.Popen(
            [*launch, *kind, *words, "--out", str(tmp_path / kind[0].strip("-"))],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        )
        for kind in (["--multi_gpu", "--main_process_port", "0"], ["--cpu"])
    )  # fmt: skip
    refused, trained = one.communicate(timeout=300)[0], two.communicate(timeout=300)[0]
    assert one.returncode != 0
    assert "UsageError: accelerate launch was asked for several processes and started one." in refused
    assert two.returncode == 0, trained
    assert "2 processes; the run is" in trained
    assert trained.count("step 2/2") == 1
