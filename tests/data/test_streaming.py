"""A streamed data set is the same data set: same samples, same splits, same counts, of which only a little is read."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import terrazzo as tz
from streamed import NAMES, assert_same_samples, png, publish, table
from terrazzo import errors, remote
from terrazzo.data import folds, row_groups
from terrazzo.data.counts import class_pixels

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
