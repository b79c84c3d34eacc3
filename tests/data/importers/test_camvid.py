"""CamVid comes over byte for byte, whole or not at all, and its void is ignored by the table."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camvid_tree import NAMES, write_camvid
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import camvid as camvid_importer
from terrazzo.errors import (
    DatasetFormatError,
    ExistingOutputError,
    MissingPathError,
    StorageError,
    UnknownNameError,
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "raw")


@pytest.mark.parametrize("link", [False, True])
def test_files_come_over_byte_for_byte_and_ids_through_the_table(
    raw: Path, tmp_path: Path, link: bool
) -> None:
    out = importers.run("camvid", raw, tmp_path / "out" / "camvid", link=link, workers=2)
    data = open_dataset(out)
    assert {name: split.names for name, split in data.splits.items()} == NAMES
    assert data.classes.names == (
        *("sky", "building", "pole", "road", "pavement", "tree", "sign"),
        *("fence", "car", "pedestrian", "bicyclist"),
    )
    for split, names in NAMES.items():
        for position, name in enumerate(names):
            for ours, theirs in (("images", split), ("masks", f"{split}annot")):
                copied, original = out / split / ours / f"{name}.png", raw / theirs / f"{name}.png"
                assert copied.read_bytes() == original.read_bytes()
                assert copied.samefile(original) is link
            with Image.open(raw / f"{split}annot" / f"{name}.png") as mask:
                ids = np.asarray(mask)
            np.testing.assert_array_equal(data[split][position].mask, np.where(ids == 11, 255, ids))
            np.testing.assert_array_equal(
                data.remap.inverse(data[split].read_mask(position)), ids
            )  # --ids raw
    assert data.raw_names[11] == "void"
    assert "Brostow" in (data.source or "")


def test_void_can_be_kept_as_the_twelfth_class(raw: Path, tmp_path: Path) -> None:
    data = open_dataset(importers.run("camvid", raw, tmp_path / "out"), keep_void=True)
    assert data.classes.names[11] == "void"
    assert set(np.unique(data["val"].read_mask(0))) == set(range(12))


def test_a_test_split_comes_too_with_masks_or_without(raw: Path, tmp_path: Path) -> None:
    (raw / "test").mkdir()
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(raw / "test" / "t.png")
    without = open_dataset(importers.run("camvid", raw, tmp_path / "without"))
    assert without["test"].names == ["t"]
    assert not without["test"].has_masks
    (raw / "testannot").mkdir()
    Image.fromarray(np.full((6, 8), 11, np.uint8)).save(raw / "testannot" / "t.png")
    assert open_dataset(importers.run("camvid", raw, tmp_path / "with"))["test"].has_masks


def test_every_missing_path_is_listed(raw: Path, tmp_path: Path) -> None:
    (raw / "trainannot" / "0006R0_f00930.png").unlink()
    (raw / "val" / "0016E5_07959.png").unlink()
    with pytest.raises(DatasetFormatError) as caught:
        camvid_importer.find(raw)
    message = str(caught.value)
    assert message.startswith(f"{raw} is not a whole camvid download: 2 paths are missing.")
    assert f"{raw}/trainannot/0006R0_f00930.*" in message
    assert f"{raw}/val/0016E5_07959.*" in message
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetFormatError, match="4 paths are missing"):
        importers.run("camvid", tmp_path / "empty", tmp_path / "out")
    with pytest.raises(MissingPathError, match="There is no folder"):
        importers.run("camvid", tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_there_is_not_touched(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ExistingOutputError):
        importers.run("camvid", raw, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_a_disk_that_fills_up_leaves_nothing_behind(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="The disk is full"):
        importers.run("camvid", raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def test_the_raw_folder_is_only_read(raw: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    importers.run("camvid", raw, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in raw.rglob("*")} == before


def test_an_unknown_format_gets_its_nearest() -> None:
    with pytest.raises(UnknownNameError, match="There is no format 'canvid'") as caught:
        importers.run("canvid", "x", "y")
    assert "Did you mean 'camvid'?" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.camvid
def test_the_real_download_is_whole(camvid: Path, tmp_path: Path) -> None:
    pairs = camvid_importer.find(camvid)
    assert {split: len(members) for split, members in pairs.items()} == {"train": 367, "val": 101}
    few = tmp_path / "few"
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (few / folder).mkdir(parents=True)
            for path in sorted((camvid / folder).iterdir())[:3]:
                os.symlink(path, few / folder / path.name)
    out = importers.run("camvid", few, tmp_path / "out")
    data = open_dataset(out)
    assert data["train"][0].image.shape == (360, 480, 3)
    assert set(np.unique(data["val"].read_mask(0))) <= {*range(11), 255}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    said = json.loads((out / "dataset.json").read_text())
    assert said["remap"] == {**{str(i): i for i in range(11)}, "11": None}
    assert said["classes"][3] == {"name": "road", "color": [128, 64, 128]}
