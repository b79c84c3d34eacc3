"""Several processes train what one trains, score what one scores, and end together, with a sentence.

The cases are in ranks.py; gloo, two or three processes of one thread on this machine.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import terrazzo as tz
from terrazzo.run import Run

RANKS = Path(__file__).parent / "ranks.py"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONWARNINGS": "default"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, boxes: Path) -> Path:
    """Half of the images nearly all ignored, so that the halves of a batch often weigh very differently."""
    root = Path(shutil.copytree(boxes, tmp_path_factory.mktemp("data") / "uneven"))
    for file in sorted((root / "train" / "masks").iterdir())[::2]:
        mask = np.array(Image.open(file))
        mask[8:], mask[:, 8:] = 255, 255
        Image.fromarray(mask).save(file)
    return root


class Ranks:
    """The process whose children the cases are."""

    def __init__(self, data: Path, errors: Path) -> None:
        self.errors = errors
        with errors.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(RANKS), str(data)],
                env=ONE_THREAD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
            )  # fmt: skip
        self.early: list[str] = json.loads(self._answer())
        """What is heavy and was imported with terrazzo.training."""

    def run(self, folder: Path, *cases: str) -> None:
        """Do the cases, and leave in the folder what comes of them."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join([str(folder), *cases]) + "\n")
        self.process.stdin.flush()
        assert self._answer() == "done\n"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Ranks]:
    started = Ranks(data, tmp_path_factory.mktemp("ranks") / "stderr")
    yield started
    started.end()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path, ranks: Ranks) -> Path:
    """What the cases left behind."""
    root = tmp_path_factory.mktemp("processes")
    write_many(root / "many", data)
    (root / "out").mkdir()
    write_shards(root / "shards", data)
    cases = ("1:sgd 2:sgd 1:streamed 2:streamed 1:adamw 2:adamw 2:sharded 1:whole 1:parts 2:parts 2:spread 2:plain "
             "1:score 2:score 3:score 2:scaler 2:killed 2:silent 2:broken 2:stumbles 2:starved 2:alone 2:judged "
             "2:taken 2:elsewhere 2:slurm 1:theirs 2:theirs 1:idle 2:idle")  # fmt: skip
    ranks.run(root / "out", *cases.split())
    return root / "out"


def write_many(root: Path, data: Path) -> None:
    """101 validation images of three sizes, cut from one."""
    shutil.copytree(data, root)
    for kind in ("images", "masks"):
        whole = np.array(Image.open(root / "val" / kind / "000.png"))
        for number in range(101):
            part = np.roll(whole, number, axis=1)[: 30 + number % 3, : 40 - number % 2]
            Image.fromarray(part).save(root / "val" / kind / f"{number:03d}.png")


def write_shards(root: Path, data: Path) -> None:
    """The same images as parquet, in row groups of two."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir()
    for split in ("train", "val"):
        cells = {
            column: [
                {"bytes": file.read_bytes(), "path": None} for file in sorted((data / split / kind).iterdir())
            ]
            for column, kind in (("image", "images"), ("label", "masks"))
        }
        pq.write_table(pa.table(cells), root / f"{split}.parquet", row_group_size=2)
    (root / "id2label.json").write_text(json.dumps({"0": "field", "1": "box", "2": "sky"}))


def codes(folder: Path, case: str) -> list[int]:
    found: list[int] = json.loads((folder / "codes.json").read_text())[case]
    return found


def said(folder: Path, case: str) -> list[str]:
    return [file.read_text() for file in sorted(folder.glob(f"{case}.*.err"))]


def finished(folder: Path, case: str) -> Run:
    assert set(codes(folder, case)) == {0}, "\n".join(said(folder, case))
    return Run.open(folder / case)


def tensors(run: Run, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    newest = run.newest()
    assert newest is not None
    return load_file(newest / file)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of an entry, relative to the largest entry of its tensor, or to 0.01 where that is less.

    A bias before a norm has no gradient but rounding, and is nothing but rounding itself.
    """
    assert one.keys() == other.keys()
    return max(float((one[n] - other[n]).abs().max() / other[n].abs().max().clamp(min=0.01))
               for n in one if one[n].is_floating_point())  # fmt: skip


# two processes train what one trains ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["model.safetensors", "training.safetensors"]
)  # the moving average; the weights
def test_two_processes_reach_the_weights_of_one(folder: Path, file: str) -> None:
    one, two = (tensors(finished(folder, case), file) for case in ("sgd-1", "sgd-2"))
    assert "decode_head.batch_norm.running_var" in one
    assert largest_difference(two, one) < 1e-5


def test_two_processes_that_stream_reach_the_weights_of_one(folder: Path) -> None:
    one, two = finished(folder, "streamed-1"), finished(folder, "streamed-2")
    assert largest_difference(tensors(two), tensors(one)) < 1e-5
    scores = [[entry["miou"] for entry in run.history("eval")] for run in (one, two)]
    assert len(scores[0]) == 2
    assert np.allclose(*scores, atol=1e-3)
    assert "stream: 8 samples in 4 row groups, read in 2 lanes" in "".join(said(folder, "streamed-2"))


@pytest.mark.parametrize("other", ["adamw-2", "sharded-2"])
def test_with_adamw_losses_and_logits_agree(folder: Path, other: str) -> None:
    one, two = finished(folder, "adamw-1"), finished(folder, other)
    losses = [[entry["loss"] for entry in run.history("train")] for run in (one, two)]
    assert len(losses[0]) == 50
    assert losses[0][-1] < losses[0][0]
    assert np.allclose(losses[0], losses[1], rtol=1e-4, atol=0)
    sys.path.insert(0, str(RANKS.parent))
    from ranks import Small

    networks = [tz.load(run.newest(), network=Small(), device="cpu").network.eval() for run in (one, two)]
    samples = list(tz.open_dataset(one.data["source"])["val"])
    image = torch.stack([torch.from_numpy(sample.image.copy()).permute(2, 0, 1) / 255 for sample in samples])
    with torch.no_grad():
        logits = [network(image).logits for network in networks]
    assert float((logits[1] - logits[0]).abs().max() / logits[0].std()) < 1e-3


@pytest.mark.parametrize("other", ["parts-1", "parts-2", "spread-2"])
def test_with_frozen_batch_norm_four_passes_are_one(folder: Path, other: str) -> None:
    whole, parts = (tensors(finished(folder, case), "training.safetensors") for case in ("whole-1", other))
    assert largest_difference(parts, whole) < 1e-5


def test_a_spread_run_is_kept_whole_and_goes_on_in_any_number(
    folder: Path, ranks: Ranks, tmp_path: Path
) -> None:
    """From step 10 on: what two held in parts one holds whole, and the other way round."""
    whole = finished(folder, "whole-1")
    for world, start in ((1, finished(folder, "spread-2")), (2, whole)):
        shutil.copytree(start.path, tmp_path / f"onward-{world}")
        shutil.rmtree(tmp_path / f"onward-{world}" / "checkpoints" / "step-00000015")
    ranks.run(tmp_path, "1:onward", "2:onward")
    for world in (1, 2):
        run = finished(tmp_path, f"onward-{world}")
        assert run.step == 15
        for file in ("model.safetensors", "training.safetensors"):
            assert largest_difference(tensors(run, file), tensors(whole, file)) < 1e-5
        sizes = [
            {name: one.shape for name, one in tensors(each, "optimizer.safetensors").items()}
            for each in (run, whole)
        ]
        assert sizes[0] == sizes[1]


def test_who_spreads_nothing_does_not_wait_for_fsdp(ranks: Ranks) -> None:
    """Half a second, and sympy: imported where a network is spread."""
    assert ranks.early == []


def test_a_network_of_transformers_is_spread_as_it_is(folder: Path) -> None:
    pytest.importorskip("transformers")
    one, two = (tensors(finished(folder, f"theirs-{world}"), "training.safetensors") for world in (1, 2))
    assert largest_difference(two, one) < 1e-5


def test_a_parameter_that_no_logit_depends_on_is_no_obstacle(folder: Path) -> None:
    one, two = (tensors(finished(folder, f"idle-{world}"), "training.safetensors") for world in (1, 2))
    assert torch.equal(two["idle"], torch.ones(3))
    assert largest_difference(two, one) < 1e-5


def test_plain_batch_norm_keeps_the_mean_of_the_processes(folder: Path) -> None:
    kept = tensors(finished(folder, "plain-2"), "training.safetensors")
    each = [torch.load(folder / f"plain-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name in ("running_mean", "running_var"):
        assert torch.equal(each[0][name], each[1][name])
        assert torch.equal(each[0][name], kept[f"decode_head.batch_norm.{name}"])


def test_an_overflow_in_one_process_is_skipped_in_all(folder: Path) -> None:
    assert codes(folder, "scaler-2") == [0, 0], said(folder, "scaler-2")


@pytest.mark.parametrize("world", [2, 3])
def test_101_images_are_scored_alike_by_any_number_of_processes(folder: Path, world: int) -> None:
    assert codes(folder, f"score-{world}") == [0] * world, said(folder, f"score-{world}")
    alone = json.loads((folder / "score-1.0.json").read_text())
    for rank in range(world):
        found = json.loads((folder / f"score-{world}.{rank}.json").read_text())
        assert found["counts"] == alone["counts"]
        assert found["share"] == pytest.approx(alone["share"], abs=1e-12)


def test_another_number_of_processes_goes_on_with_the_same_samples(
    folder: Path, ranks: Ranks, tmp_path: Path
) -> None:
    orders: dict[int, list[Any]] = {}
    for world in (1, 2):
        shutil.rmtree(tmp_path / "to-resume", ignore_errors=True)
        shutil.copytree(folder / "plain-2", tmp_path / "to-resume")
        ranks.run(tmp_path, f"{world}:resumed")
        run = Run.open(tmp_path / "to-resume")
        assert codes(tmp_path, f"resumed-{world}") == [0] * world, said(tmp_path, f"resumed-{world}")
        assert run.step == 10
        lines = [json.loads(line) for line in (tmp_path / f"order-{world}.jsonl").read_text().splitlines()]
        orders[world] = [
            [step, sorted(i for one in lines if one[0] == step for i in one[1])] for step in range(6, 10)
        ]
    assert orders[1] == orders[2]
    assert "1 process instead of 2: the same samples in the same order" in said(tmp_path, "resumed-1")[0]
    assert "instead of" not in said(tmp_path, "resumed-2")[0]


# ending together ------------------------------------------------------------------------------------------------


def test_only_process_0_speaks(folder: Path) -> None:
    first, second = said(folder, "sgd-2")
    assert "2 processes; the run is" in first
    assert second == ""


def test_a_killed_process_ends_the_others_with_a_sentence(folder: Path) -> None:
    assert codes(folder, "killed-2") == [1, -signal.SIGKILL]
    assert Run.open(folder / "killed-2").step == 2  # saved by the process that was left
    text = said(folder, "killed-2")[0]
    assert "TrainingError: One of the 2 processes is gone; the others have ended." in text
    assert f"terrazzo train --resume {folder / 'killed-2'}" in text
    assert "Traceback" not in text


def test_a_process_that_falls_silent_is_noticed(folder: Path) -> None:
    assert codes(folder, "silent-2")[0] == 1
    assert "TrainingError: Process 1 of 2 is gone; the others have ended." in said(folder, "silent-2")[0]
    from terrazzo import pulse

    assert pulse.SILENCE + pulse.GRACE + 2 * pulse.BEAT < 60


def test_an_error_of_one_process_is_told_once(folder: Path) -> None:
    assert codes(folder, "broken-2") == [1, 1]
    first, second = said(folder, "broken-2")
    assert "TerrazzoError: The loss of process 1 will not be computed." in second
    assert "Error" not in first
    assert "Traceback" not in first + second


def test_a_process_that_fails_in_a_step_saves_the_steps_before(folder: Path) -> None:
    assert codes(folder, "stumbles-2") == [1, 1]
    text = "".join(said(folder, "stumbles-2"))
    assert text.count("Error") == 1
    assert "TerrazzoError: Process 1 stumbles.\n  The run keeps its checkpoint of step 10. To go on:" in text
    assert f"terrazzo train --resume {folder / 'stumbles-2'}" in text
    left, whole = Run.open(folder / "stumbles-2"), finished(folder, "sgd-2")
    assert [checkpoint.name for checkpoint in left.checkpoints] == ["step-00000010"]
    for file in ("model.safetensors", "training.safetensors", "optimizer.safetensors"):
        found = tensors(left, file)
        expected = load_file(whole.path / "checkpoints" / "step-00000010" / file)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_processes_without_memory_save_once_and_tell_one_error(folder: Path) -> None:
    assert codes(folder, "starved-2") == [1, 1]
    text = "".join(said(folder, "starved-2"))
    assert (
        len(re.findall(r"^\w*Error: ", text, re.MULTILINE)) == 1
    )  # torch may chatter of lines that were cut
    assert "MemoryShortageError: cpu ran out of memory at step 3 of 4." in text
    assert "The run keeps its checkpoint of step 2." in text
    assert Run.open(folder / "starved-2").step == 2


def test_a_failed_validation_of_one_process_costs_no_steps(folder: Path) -> None:
    assert codes(folder, "judged-2") == [1, 1]
    assert "TerrazzoError: Process 1 cannot judge." in "".join(said(folder, "judged-2"))
    assert Run.open(folder / "judged-2").step == 2


def test_where_no_process_holds_everything_the_last_checkpoint_is_named(folder: Path) -> None:
    assert codes(folder, "alone-2") == [1, 1]
    text = "".join(said(folder, "alone-2"))
    assert "TerrazzoError: Process 1 stumbles.\n  The run keeps its checkpoint of step 2. To go on:" in text
    assert "Traceback" not in text


def test_an_error_in_preparation_ends_all_and_is_told_by_process_0(folder: Path) -> None:
    assert codes(folder, "taken-2") == [2, 2]
    first, second = said(folder, "taken-2")
    assert first.count("is not empty and holds no run") == 1
    assert second == ""
    assert codes(folder, "elsewhere-2") == [2, 2]
    first, second = said(folder, "elsewhere-2")
    assert "MissingPathError: In process 1 on " in first
    assert second == ""
    assert not (folder / "elsewhere").exists()


def test_slurm_alone_starts_processes_that_find_each_other(folder: Path) -> None:
    assert codes(folder, "slurm-2") == [0, 0], said(folder, "slurm-2")
    first, second = said(folder, "slurm-2")
    assert "2 processes; the run is" in first
    assert second == ""
    run = Run.open(folder / "slurm")
    assert run.step == 3
    assert json.loads((run.path / "env.json").read_text())["launch"].startswith("slurm/")


def test_torchrun_begins_again_after_a_death_and_goes_on(data: Path, tmp_path: Path) -> None:
    """The command line under torchrun: process 1 is killed after the first checkpoint, and the run is finished."""
    run = tmp_path / "run"
    words = ["train", "segformer-b0-scratch", "--data", str(data), "--out", str(run), "--device", "cpu",
             "train.steps=8", "train.batch_size=2", "train.save_every=1", "train.log_every=1", "train.pictures=0",
             "train.precision=f32", "optim.warmup_steps=2", "data.crop_hw=32x32", "data.workers=0"]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                "--max-restarts", "1", "-m", "terrazzo", *words]  # fmt: skip
    with (tmp_path / "said").open("w") as stream:
        process = subprocess.Popen(torchrun, env=ONE_THREAD, stdout=stream, stderr=stream)
        try:
            deadline = time.monotonic() + 300
            while not list(run.glob("checkpoints/step-????????")) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            os.kill(worker(process.pid, rank=1), signal.SIGKILL)
            process.wait(timeout=300)
        finally:
            process.kill()
    text = (tmp_path / "said").read_text()
    assert process.returncode == 0, text
    assert text.count("TrainingError: One of the 2 processes is gone") == 1
    assert text.count("going on from step ") == 1
    assert text.count("step 8/8") == 1
    assert Run.open(run).step == 8
    assert [entry["step"] for entry in Run.open(run).history("train")] == list(range(1, 9))


def worker(parent: int, *, rank: int) -> int:
    """The process among torchrun's that has this rank."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no process of rank {rank}")


def test_the_page_about_processes_spells_commands_as_they_are_read() -> None:
    from terrazzo.cli import COMMANDS
    from terrazzo.cli.parsing import find_command

    page = (RANKS.parent.parent / "docs" / "how-to" / "several-gpus-and-machines.md").read_text(
        encoding="utf-8"
    )
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [
        line for block in blocks for line in block.replace("\\\n", " ").splitlines() if "-m terrazzo" in line
    ]
    assert len(lines) == 8
    for line in lines:
        launcher, _, words = line.partition(" -m terrazzo ")
        find_command(shlex.split(words)[0], COMMANDS).parser().read(shlex.split(words)[1:])
        if "torchrun" in launcher:
            from torch.distributed.run import parse_args

            parse_args([*shlex.split(launcher.partition("torchrun ")[2]), "-m", "terrazzo"])
