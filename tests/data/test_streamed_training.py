"""A training on a stream: the same batches however it is read, and a run that goes on after it was stopped."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import terrazzo as tz
from streamed import NAMES, Dots, publish, table, train
from terrazzo import errors, remote
from terrazzo.data.loader import Loader
from terrazzo.data.order import Streamed
from terrazzo.data.transforms import DataConfig, TrainTransform
from terrazzo.evaluation import measure
from terrazzo.inference import Predictor
from terrazzo.run import Run
from warm import start

# batches --------------------------------------------------------------------------------------------------


def loaders(data: tz.Dataset, world: int, **options: Any) -> list[Loader]:
    split = data["train"]
    order = Streamed(split.shard_of, seed=1, batch_size=4, shuffle_buffer=8)
    config = DataConfig(crop_hw=(16, 16))
    transform = TrainTransform(config, ignore=255, mean=(0.5, 0.5, 0.5))
    return [
        Loader(split, transform=transform, batch_size=4, seed=1, order=order, expect=split.expect,
               foresight=8 // world, cache="none", rank=rank, world=world, pixel_weight=lambda mask: 1.0, **options)
        for rank in range(world)
    ]  # fmt: skip


def test_a_batch_is_the_same_with_one_two_and_four_processes_and_however_it_is_read(
    shelf: Path, bucket: str
) -> None:
    def batches(data: tz.Dataset, world: int, steps: range, workers: int) -> list[torch.Tensor]:
        ranks = loaders(data, world, workers=workers)
        taken = [
            torch.cat([image for rank in ranks for image, _ in rank.micro_batches(step)]) for step in steps
        ]
        for rank in ranks:
            rank.close()
        return taken

    alone = batches(tz.open_dataset(bucket), 1, range(12), 0)
    for world, workers in ((1, 3), (2, 1), (4, 0)):
        for one, other in zip(
            alone, batches(tz.open_dataset(bucket), world, range(12), workers), strict=True
        ):
            assert torch.equal(one, other)
    [late] = batches(
        tz.open_dataset(shelf, stream=True), 2, range(9, 10), 0
    )  # resumed there, nothing replayed
    assert torch.equal(late, alone[9])


def test_an_epoch_reads_each_row_group_about_once_and_holds_few(
    tmp_path: Path, requests: list[tuple[str, int, int]]
) -> None:
    pq.write_table(table(160), tmp_path / "train.parquet", row_group_size=4)
    pq.write_table(table(2), tmp_path / "val.parquet")
    (tmp_path / "id2label.json").write_text(json.dumps(NAMES))
    [one, other] = (
        loaders(tz.open_dataset(tmp_path, stream=True), 1)
        + loaders(tz.open_dataset(tmp_path, stream=True), 2)[:1]
    )
    for loader, limit in ((one, 40), (other, 20)):
        requests.clear()
        most = 0
        for step in range(40):
            list(loader.micro_batches(step))
            most = max(most, len(loader._split.records._both))
        loader.close()
        fetched = [start for name, start, _ in requests if name == "train.parquet"]
        assert limit - 1 <= len(set(fetched)) <= limit + 10  # the second epoch's first come ahead
        assert len(fetched) <= limit + 12
        assert most <= 10  # of 40


# training -------------------------------------------------------------------------------------------------


def test_a_streamed_training_that_is_killed_goes_on_bit_for_bit(shelf: Path, tmp_path: Path) -> None:
    unstopped = train(shelf, tmp_path / "unstopped")
    process = start(train, shelf, tmp_path / "killed", said=tmp_path / "said")
    checkpoints = tmp_path / "killed" / "checkpoints"
    while process.is_alive() and not (checkpoints / "step-00000003").exists():
        time.sleep(0.002)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
    killed = Run.open(tmp_path / "killed")
    assert 3 <= killed.step < 8
    resumed = tz.train(resume=killed.path, network=Dots(), device="cpu", quiet=True)
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (
            load_file(run.path / "checkpoints" / "step-00000008" / file) for run in (unstopped, resumed)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert unstopped.best == resumed.best

    whole = tz.evaluate(resumed.path, data=shelf, network=Dots(), stream=False, quiet=True)
    streamed = tz.evaluate(resumed.path, data=shelf, network=Dots(), quiet=True)
    assert whole.counts.tolist() == streamed.counts.tolist()
    assert whole.num_images == 7
    assert "Streamed" in str(streamed.notes)


def test_shares_of_a_validation_add_up_and_read_row_groups_of_their_own(
    bucket: str, requests: list[tuple[str, int, int]]
) -> None:
    data = tz.open_dataset(bucket)
    predictor = Predictor(Dots().eval(), data.classes, device="cpu")
    alone = measure(predictor, data["train"])
    fetched = []
    parts = []
    for rank in range(3):
        requests.clear()
        parts.append(measure(predictor, tz.open_dataset(bucket)["train"], rank=rank, world=3))
        fetched.append(len([name for name, _, length in requests if length < 60_000]))
    assert sum(part.counts for part in parts).tolist() == alone.counts.tolist()
    assert sum(part.num_images for part in parts) == 21


def test_a_file_that_changed_since_the_run_began_is_refused(tmp_path: Path) -> None:
    data = publish(tmp_path / "blobs")
    short = ("train.steps=2", "optim.warmup_steps=0", "eval.every=2", "data.stream=false")
    run = train(tz.open_dataset(data, stream=True), tmp_path / "run", *short)
    assert tz.train(
        resume=run.path, network=Dots(), device="cpu", quiet=True
    ).recipe.data.stream  # opened so again
    pq.write_table(table(8, seed=5), data / "train-1.parquet", row_group_size=4)
    with pytest.raises(errors.DataChangedError, match="has changed since the run began"):
        tz.train(resume=run.path, network=Dots(), device="cpu", quiet=True)
    opened = tz.open_dataset(data, stream=True)
    (data / "train-1.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        errors.DataChangedError, match=r"train-1.parquet was changed while it was read"
    ) as changed:
        opened["train"][20]
    assert "found: 4 bytes" in str(changed.value)


@pytest.mark.parametrize("silenced", ["train-0", "validation"])
def test_a_place_that_falls_silent_leaves_a_run_that_goes_on(
    silenced: str, bucket: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """In a step, and in a validation."""
    monkeypatch.setattr(remote, "WAITS", (0,))
    store = type(fsspec.filesystem("memory"))
    whole, fetched = store.cat_file, []

    def silent(self: Any, path: str, start: int | None = None, end: int | None = None, **words: Any) -> bytes:
        if silenced in path and (tmp_path / "run").exists():  # opened, so what is read now are samples
            fetched.append(path)
            if len(fetched) > (0 if silenced == "validation" else 4):
                raise ConnectionResetError("the line went dead")
        return whole(self, path, start, end, **words)

    monkeypatch.setattr(store, "cat_file", silent)
    with (
        pytest.warns(
            RuntimeWarning,
            match=f"{silenced}.parquet: ConnectionResetError: the line went dead; trying again",
        ),
        pytest.raises(errors.UnreachableError) as told,
    ):
        train(
            bucket,
            tmp_path / "run",
            "loss.class_weights=none",
            "data.workers=0",
            "train.steps=16",
            "eval.every=16",
            "train.save_every=100",
        )
    monkeypatch.undo()
    run = Run.open(tmp_path / "run")
    assert 0 < run.step < 16 or (silenced == "validation" and run.step == 16)
    text = str(told.value)
    assert f"memory://bucket/blobs/{silenced}.parquet cannot be reached." in text
    assert f"The run is saved at step {run.step}. When the place answers again:" in text
    assert f"terrazzo train --resume {run.path}" in text
    assert tz.train(resume=run.path, network=Dots(), device="cpu", quiet=True).step == 16


def test_a_handful_of_a_stream_is_its_first_rows(
    bucket: str, tmp_path: Path, requests: list[tuple[str, int, int]], monkeypatch: Any
) -> None:
    monkeypatch.setattr("terrazzo.preparation.OVERFIT_STEPS", 12)
    monkeypatch.setattr("terrazzo.keeping.OVERFIT_MIOU", 0.0)
    run = train(bucket, tmp_path / "run", overfit=2)
    assert run.step > 0
    footers = 3
    assert {(name, start) for name, start, _ in requests[footers:]} == {
        ("train-0.parquet", 4)
    }  # one row group


def test_more_than_fits_in_memory_is_refused(shelf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("terrazzo.preparation.free_memory", lambda: 1000)
    with pytest.raises(errors.RecipeError, match="do not fit in memory") as told:
        train(shelf, tmp_path / "run")
    assert "data.shuffle_buffer=1" in str(told.value)
