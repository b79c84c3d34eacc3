"""A streamed data set is the same data set: same samples, same splits, same batches, of which only a little is here."""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import terrazzo as tz
from terrazzo import errors, remote
from terrazzo.data import folds, row_groups
from terrazzo.data.counts import class_pixels
from terrazzo.data.loader import Loader
from terrazzo.data.order import Streamed
from terrazzo.data.transforms import DataConfig, TrainTransform
from terrazzo.evaluation import measure
from terrazzo.inference import Predictor
from terrazzo.run import Run

NAMES = {"0": "field", "1": "box", "2": "sky"}
SHORT = (
    "data.stream=true", "data.shuffle_buffer=6", "data.crop_hw=32x32", "data.workers=2", "train.steps=8",
    "train.batch_size=4", "train.save_every=1", "train.keep=20", "train.precision=f32", "train.pictures=0",
    "train.loggers=[]", "train.log_every=5", "optim.warmup_steps=2", "eval.every=4", "model.dropout=0.1",
)  # fmt: skip


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def table(count: int, seed: int = 0, *, masks: bool = True) -> pa.Table:
    """Rows as `datasets` writes them: blobs of red on noise, their masks; and a column that nobody needs."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for _ in range(count):
        mask = np.zeros((32, 40), np.uint8)
        top, left = rng.integers(0, 20), rng.integers(0, 24)
        mask[top : top + 12, left : left + 12] = 1
        mask[:4], mask[-2:] = 2, 255
        image = rng.integers(0, 60, (32, 40, 3)).astype(np.uint8)
        image[mask == 1, 0] += 150
        images.append({"bytes": png(image), "path": None})
        labels.append({"bytes": png(mask), "path": None} if masks else None)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = {
        "image": pa.array(images, kind),
        "depth": pa.array([rng.bytes(4000) for _ in range(count)]),
        "label": pa.array(labels, kind),
    }
    about = {"info": {"features": {name: {"_type": "Image"} for name in ("image", "label")}}}
    return pa.table(cells).replace_schema_metadata({b"huggingface": json.dumps(about).encode()})


def publish(folder: Path) -> Path:
    """A data set in three files: 13 + 8 samples to train on, 7 to validate; row groups of 4."""
    folder.mkdir(parents=True)
    for number, (name, count) in enumerate((("train-0", 13), ("train-1", 8), ("validation", 7))):
        pq.write_table(table(count, number), folder / f"{name}.parquet", row_group_size=4)
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    return folder


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("stream") / "blobs")


@pytest.fixture
def bucket(shelf: Path) -> Iterator[str]:
    """The same data set, in memory."""
    files = fsspec.filesystem("memory")
    for path in shelf.iterdir():
        files.pipe_file(f"/bucket/blobs/{path.name}", path.read_bytes())
    yield "memory://bucket/blobs"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every part of a file that is read: its name, first byte, and length."""
    asked: list[tuple[str, int, int]] = []
    read = row_groups.read

    def noted(url: str, start: int, end: int) -> bytes:
        asked.append((url.rpartition("/")[2], start, end - start))
        return read(url, start, end)

    monkeypatch.setattr(row_groups, "read", noted)
    return asked


def assert_same_samples(one: tz.Dataset, other: tz.Dataset) -> None:
    assert {name: split.names for name, split in one.splits.items()} == {
        name: split.names for name, split in other.splits.items()
    }
    for name in one.splits:
        for a, b in zip(one[name], other[name], strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.mask, b.mask)


# opening --------------------------------------------------------------------------------------------------


def test_a_stream_is_the_data_set_that_would_be_downloaded(shelf: Path, bucket: str) -> None:
    whole = tz.open_dataset(shelf)
    here, elsewhere = tz.open_dataset(shelf, stream=True), tz.open_dataset(bucket)
    for streamed in (here, elsewhere):
        assert_same_samples(whole, streamed)
        assert streamed.classes == whole.classes
        assert streamed["val"].size_hw(3) == (32, 40)
    assert (
        elsewhere["train"].where(14, mask=True)
        == "memory://bucket/blobs/train-1.parquet, row 1, column 'label'"
    )
    assert "3 parquet files" in elsewhere.notes[-1]
    assert "8 row groups" in elsewhere.notes[-1]
    one = tz.open_dataset(f"{bucket}/train-0.parquet")
    assert len(one["train"]) + len(one["val"]) == 13
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(here["val"]))[6].image, whole["val"][6].image)


def test_opening_reads_footers_and_the_first_row_group_alone(
    bucket: str, requests: list[tuple[str, int, int]]
) -> None:
    data = tz.open_dataset(bucket)
    assert [name for name, _, _ in requests[:3]].sort() == ["train-0", "train-1", "validation"].sort()
    rest = requests[3:]
    assert {name for name, _, _ in rest} == {
        "train-0.parquet"
    }  # channels and dtype are those of the first image
    before = len(requests)
    assert len(data.fingerprint) == 64
    assert len(requests) == before


def test_bytes_of_other_columns_are_not_asked_for(
    bucket: str, requests: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "GAP", 0)
    data = tz.open_dataset(bucket)
    requests.clear()
    data["val"][0]
    footer = pq.read_metadata(io.BytesIO(remote.read(f"{bucket}/validation.parquet")))
    chunks = [footer.row_group(0).column(number) for number in range(5)]
    needed = sum(one.total_compressed_size for one in chunks if not one.path_in_schema.startswith("depth"))
    assert sum(length for _, _, length in requests) == needed
    requests.clear()
    data["train"].read_mask(20)  # the last row group of train-1: its masks alone
    assert [name for name, _, _ in requests] == ["train-1.parquet"]
    assert sum(length for _, _, length in requests) < needed / 4


def test_a_walk_reads_each_row_group_once(bucket: str, requests: list[tuple[str, int, int]]) -> None:
    data = tz.open_dataset(bucket)
    requests.clear()
    assert len(list(data["train"])) == 21
    assert len(requests) == len({(name, start) for name, start, _ in requests})
    assert len(data["train"].records._both) <= row_groups.RECENT


def test_the_fingerprint_is_that_of_footers_and_places(tmp_path: Path, shelf: Path) -> None:
    first = tz.open_dataset(publish(tmp_path / "one"), stream=True).fingerprint
    assert tz.open_dataset(shelf, stream=True).fingerprint == first  # another folder, the same files
    pq.write_table(table(7, seed=9), tmp_path / "one" / "validation.parquet", row_group_size=4)
    assert tz.open_dataset(tmp_path / "one", stream=True).fingerprint != first


# splits, folds, counts ------------------------------------------------------------------------------------


def test_a_val_split_made_of_a_stream_keeps_row_groups_whole(tmp_path: Path) -> None:
    pq.write_table(table(40), tmp_path / "all.parquet", row_group_size=4)
    (tmp_path / "id2label.json").write_text(json.dumps(NAMES))
    data = tz.open_dataset(tmp_path, stream=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 32, "val": 8}
    shards = [set(data[name].shard_of.tolist()) for name in ("train", "val")]
    assert not shards[0] & shards[1]
    assert any(note.endswith("32 train, 8 val, row groups kept whole.") for note in data.notes)
    again = tz.open_dataset(tmp_path, stream=True, split_manifest=data.split_manifest)
    assert_same_samples(data, again)


def test_folds_of_a_stream_keep_row_groups_whole_and_can_be_streamed(bucket: str) -> None:
    fold = folds.folded(tz.open_dataset(bucket), (2, 3))
    assert len(fold["train"]) + len(fold["val"]) == 28
    shards = [set(fold[name].shard_of.tolist()) for name in ("train", "val")]
    assert not shards[0] & shards[1]
    assert len(shards[0] | shards[1]) == 8
    fold["val"].expect(range(len(fold["val"])))
    assert fold["val"].bytes_of(range(len(fold["val"]))) > 1000
    whole = {sample.image.tobytes() for name in ("train", "val") for sample in tz.open_dataset(bucket)[name]}
    assert {sample.image.tobytes() for name in ("train", "val") for sample in fold[name]} == whole


def test_classes_are_counted_from_the_masks_alone(
    shelf: Path, bucket: str, requests: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tz.open_dataset(bucket)
    requests.clear()
    counted = class_pixels(data["train"], 3, ignore=255)
    for one, other in zip(counted, class_pixels(tz.open_dataset(shelf)["train"], 3, ignore=255), strict=True):
        assert one.tolist() == other.tolist()
    assert (
        len(requests) == 5
    )  # of six row groups; the first image was looked at on opening, its row group is here
    assert sum(length for _, _, length in requests) < 21 * 400
    monkeypatch.setattr("terrazzo.data.counts.MOST", 8)
    some, _ = class_pixels(data["train"], 3, ignore=255)
    masks = [data["train"].read_mask(i) for i in (*range(4), *range(12, 13))]  # every third row group
    assert some.sum() == sum(int((mask != 255).sum()) for mask in masks)


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


class Dots(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.drop = nn.Dropout(0.1)
        self.score = nn.Conv2d(8, 3, 1)

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        return self.score(self.drop(self.features(image_BCHW - 0.5).relu()))


def train(data: object, out: Path, *overrides: str, **own: Any) -> Run:
    words = {"network": Dots(), "device": "cpu", "quiet": True, **own}
    chosen = dict(item.split("=", 1) for item in (*SHORT, *overrides))
    said = [f"{name}={value}" for name, value in chosen.items()]
    return tz.train("segformer-b0-scratch", data=data, out=out, overrides=said, **words)


TRAIN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_streaming import train
train({data!r}, Path({run!r}))
"""


def test_a_streamed_training_that_is_killed_goes_on_bit_for_bit(shelf: Path, tmp_path: Path) -> None:
    unstopped = train(shelf, tmp_path / "unstopped")
    script = TRAIN.format(tests=str(Path(__file__).parent), data=str(shelf), run=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "killed" / "checkpoints"
    while process.poll() is None and not (checkpoints / "step-00000003").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said
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


# what is wrong --------------------------------------------------------------------------------------------


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data = publish(tmp_path / "blobs")
    other = table(4).drop_columns(["label"]).append_column("label", pa.array([b"x"] * 4))
    pq.write_table(other, data / "train-2.parquet")
    with pytest.raises(errors.DatasetFormatError, match="do not have the same columns") as differ:
        tz.open_dataset(data, stream=True)
    assert "1 of 4 differ" in str(differ.value)
    assert "train-2.parquet: image (struct" in str(differ.value)
    assert "label (binary)" in str(differ.value)
    (data / "train-2.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(errors.UnreadableFileError, match=r"train-2.parquet cannot be read as parquet"):
        tz.open_dataset(data, stream=True)


def test_columns_that_nobody_knows_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(3).rename_columns(["photo", "depth", "label"]), path)
    with pytest.raises(errors.DatasetFormatError, match="no image column") as unknown:
        tz.open_dataset(path, stream=True)
    assert "photo (Image)" in str(unknown.value) or "photo (struct)" in str(unknown.value)
    pq.write_table(table(3, masks=False), path)
    with pytest.raises(errors.DatasetFormatError, match="no mask in any row"):
        tz.open_dataset(path, stream=True)
    pq.write_table(table(3), path)
    with pytest.raises(errors.DatasetFormatError, match="does not say what its ids mean"):
        tz.open_dataset(path, stream=True)


def test_a_place_without_parquet_is_told(bucket: str) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/other/a.png", b"")
    with pytest.raises(errors.DatasetFormatError, match="There is no data set in memory://bucket/other"):
        tz.open_dataset("memory://bucket/other")


def test_a_test_split_without_masks_stays_one(tmp_path: Path) -> None:
    data = publish(tmp_path / "blobs")
    pq.write_table(table(3, masks=False), data / "test.parquet")
    opened = tz.open_dataset(data, stream=True)
    assert not opened["test"].has_masks
    assert opened["test"][2].mask is None


def test_more_than_fits_in_memory_is_refused(shelf: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("terrazzo.preparation.free_memory", lambda: 1000)
    with pytest.raises(errors.RecipeError, match="do not fit in memory") as told:
        train(shelf, tmp_path / "run")
    assert "data.shuffle_buffer=1" in str(told.value)


# on the Hub -----------------------------------------------------------------------------------------------

ON_THE_HUB = """
import json, os, sys
import terrazzo as tz
from terrazzo.errors import TerrazzoError
data = tz.open_dataset("user/blobs", stream=True)
print(json.dumps([data.location, data.license, {n: len(s) for n, s in data.splits.items()},
                  data["train"][14].image.tolist(), data.fingerprint]))
try:
    tz.open_dataset("user/pictures", stream=True)
except TerrazzoError as error:
    print(json.dumps(str(error)))
kept = [name for _, _, names in os.walk(os.environ["HF_HOME"]) for name in names if name.endswith(".parquet")]
print(json.dumps(kept))
"""


def test_a_stream_from_the_hub_is_pinned_and_nothing_of_it_is_kept(tmp_path: Path, shelf: Path) -> None:
    publish(tmp_path / "hub" / "user" / "blobs")
    (tmp_path / "hub" / "user" / "blobs" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    pictures = tmp_path / "hub" / "user" / "pictures" / "train"
    pictures.mkdir(parents=True)
    (pictures / "a.png").write_bytes(png(np.zeros((4, 4, 3), np.uint8)))
    (pictures.parent / "id2label.json").write_text(json.dumps(NAMES))
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "hub_server.py"), str(tmp_path / "hub")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    try:
        there = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        there |= {"HF_ENDPOINT": server.stdout.readline().strip(), "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", ON_THE_HUB], env=there, capture_output=True, text=True, timeout=100
        )
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    assert done.returncode == 0, done.stderr
    (location, license, splits, image, fingerprint), refused, kept = map(json.loads, done.stdout.splitlines())
    assert location == "user/blobs@0123456789abcdef0123456789abcdef01234567"
    assert license == "cc-by-nc-4.0"
    assert splits == {"train": 21, "val": 7}
    assert image == tz.open_dataset(shelf)["train"][14].image.tolist()
    assert fingerprint != tz.open_dataset(shelf, stream=True).fingerprint  # the Hub names its blobs
    assert "user/pictures on the Hugging Face Hub cannot be streamed." in refused
    assert "user/pictures@refs/convert/parquet data.stream=true" in refused
    assert kept == []


# plain folders elsewhere ----------------------------------------------------------------------------------


@pytest.fixture
def far_boxes(boxes: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for path in boxes.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/boxes/{path.relative_to(boxes).as_posix()}", path.read_bytes())
    yield "memory://bucket/boxes"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_folder_elsewhere_is_the_same_data_set(boxes: Path, far_boxes: str) -> None:
    here, far = tz.open_dataset(boxes), tz.open_dataset(far_boxes)
    assert_same_samples(here, far)
    assert far.classes == here.classes
    assert far["val"].where(1, mask=True) == "memory://bucket/boxes/val/masks/001.png"
    before = far.fingerprint
    fsspec.filesystem("memory").pipe_file("/bucket/boxes/val/masks/001.png", b"other")
    assert tz.open_dataset(far_boxes).fingerprint != before
    with pytest.raises(errors.UnreadableFileError, match="memory://bucket/boxes/val/masks/001.png"):
        tz.open_dataset(far_boxes)["val"][1]
    fsspec.filesystem("memory").rm("/bucket/boxes/val/masks/001.png")
    with pytest.raises(
        errors.DatasetFormatError, match="1 files in memory://bucket/boxes/val have no partner"
    ):
        tz.open_dataset(far_boxes)


def test_a_data_set_in_an_archive_is_the_same(boxes: Path, shelf: Path, tmp_path: Path) -> None:
    for folder in (boxes, shelf):
        archive = shutil.make_archive(str(tmp_path / folder.name), "zip", folder.parent, folder.name)
        here = tz.open_dataset(folder)
        assert_same_samples(here, tz.open_dataset(f"zip://{folder.name}::{archive}"))
        inside = shutil.make_archive(str(tmp_path / "inside"), "zip", folder)
        assert_same_samples(here, tz.open_dataset(f"zip://::{inside}"))
    assert len(tz.open_dataset(f"zip://train-0.parquet::{inside}")["train"]) == 10  # of 13, three set aside


def test_images_elsewhere_are_predicted_to_a_folder_here(far_boxes: str, boxes: Path, tmp_path: Path) -> None:
    from terrazzo.images import read_mask
    from terrazzo.predicting import predict

    predictor = Predictor(Dots().eval(), tz.open_dataset(boxes).classes, device="cpu")
    far = predict(predictor, f"{far_boxes}/val/images", out=tmp_path / "far", quiet=True)
    here = predict(predictor, boxes / "val" / "images", out=tmp_path / "here", quiet=True)
    assert [path.name for path in far] == [path.name for path in here]
    for one, other in zip(far, here, strict=True):
        np.testing.assert_array_equal(read_mask(one), read_mask(other))
    with pytest.raises(errors.UsageError, match="written to a folder on this machine"):
        predict(predictor, boxes / "val" / "images", out="memory://bucket/out")


def test_the_doctor_reads_what_lies_elsewhere(far_boxes: str, bucket: str) -> None:
    from terrazzo.data.examination import examine

    for url, count in ((far_boxes, 11), (bucket, 28)):
        cases = examine(url, workers=1).cases
        assert len(cases) == count
        assert not [
            case for case in cases if case.seen.problem or case.labelled is None or case.labelled.problem
        ]
