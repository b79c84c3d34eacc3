"""PASCAL VOC comes over by its lists, as indices and never as colours; SBD's masks join train and nothing else."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import voc
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingExtraError, TerrazzoError
from voc_tree import HW, NAMES, mask, palette, sbd_mask, write_sbd, write_voc


def base_of(raw: Path) -> Path:
    return raw / "VOCdevkit" / "VOC2012"


def test_colours_are_those_of_the_development_kit() -> None:
    assert [channel for raw in range(256) for channel in voc.color_of(raw)] == palette()
    assert voc.CLASSES.colors[15] == (192, 128, 128)  # a person, as everybody knows it
    assert voc.color_of(255) == (224, 224, 192)


@pytest.mark.parametrize("link", [False, True])
def test_indices_come_over_and_the_border_is_ignored(tmp_path: Path, link: bool) -> None:
    raw = write_voc(tmp_path / "raw")
    out = importers.run("voc", raw, tmp_path / "out", link=link, workers=2)
    data = open_dataset(out)
    assert {
        name: tuple(split.names) for name, split in data.splits.items()
    } == NAMES  # what no list names stays
    assert data.classes.names[:2] == ("background", "aeroplane")
    assert len(data.classes) == 21
    np.testing.assert_array_equal(data["train"].read_mask(1), mask(1))  # 255 is the ignore value here too
    original = base_of(raw) / "SegmentationClass" / "2007_000039.png"
    copied = out / "train" / "masks" / "2007_000039.png"
    assert copied.read_bytes() == original.read_bytes()
    assert copied.samefile(original) is link
    assert json.loads((out / "dataset.json").read_text())["raw_names"] == {"255": "border"}


@pytest.mark.parametrize("place", ["VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_folder_may_be_pointed_to_at_any_depth(tmp_path: Path, place: str) -> None:
    raw = write_voc(tmp_path / "raw")
    assert len(open_dataset(importers.run("voc", raw / place, tmp_path / "out"))["train"]) == 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_masks_saved_as_colours_are_mapped_back_by_the_palette(tmp_path: Path, mode: str) -> None:
    raw = write_voc(tmp_path / "raw")
    path = base_of(raw) / "SegmentationClass" / "2007_000033.png"
    with Image.open(path) as image:
        image.convert(mode).save(path)
    data = open_dataset(importers.run("voc", raw, tmp_path / "out"))
    np.testing.assert_array_equal(data["val"].read_mask(0), mask(0))


def test_colours_that_are_not_vocs_are_counted_and_refused(tmp_path: Path) -> None:
    raw = write_voc(tmp_path / "raw")
    path = base_of(raw) / "SegmentationClass" / "2007_000033.png"
    colors = np.array(palette(), np.uint8).reshape(-1, 3)[mask(0)]
    colors[0, :3] = (96, 64, 64)  # half person, half background: somebody resized it
    Image.fromarray(colors).save(path)
    with pytest.raises(MaskValueError, match=re.escape("(96, 64, 64) (3 pixels)")):
        importers.run("voc", raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def test_sbd_joins_train_and_leaves_val_alone(tmp_path: Path) -> None:
    raw = write_sbd(write_voc(tmp_path / "raw"))
    data = open_dataset(importers.run("voc", raw, tmp_path / "out", Wanted(annotations="sbd")))
    assert data["train"].names == [
        "2007_000032",
        "2007_000039",
        "2008_000002",
    ]  # not 2007_000033, which is in val
    assert tuple(data["val"].names) == NAMES["val"]
    np.testing.assert_array_equal(data["train"].read_mask(0), mask(0))  # VOC's own mask where there is one
    np.testing.assert_array_equal(data["train"].read_mask(2), sbd_mask())
    np.testing.assert_array_equal(data["val"].read_mask(0), mask(0))
    assert "Hariharan" in json.loads((tmp_path / "out" / "dataset.json").read_text())["source"]


def test_prepared_pngs_of_sbd_and_their_list_need_no_scipy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_voc(tmp_path / "raw")
    (base_of(raw) / "SegmentationClassAug").mkdir()
    for name in ("2007_000032", "2007_000033", "2007_000039", "2008_000002"):
        Image.fromarray(sbd_mask()).save(base_of(raw) / "SegmentationClassAug" / f"{name}.png")
    write_sbd(write_voc(tmp_path / "matlab"))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    data = open_dataset(importers.run("voc", raw, tmp_path / "all", Wanted(annotations="sbd")))
    assert data["train"].names == ["2007_000032", "2007_000039", "2008_000002"]
    np.testing.assert_array_equal(data["train"].read_mask(0), sbd_mask())
    np.testing.assert_array_equal(data["val"].read_mask(0), mask(0))
    (base_of(raw) / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("2008_000002\n2007_000039\n")
    listed = open_dataset(importers.run("voc", raw, tmp_path / "listed", Wanted(annotations="sbd")))
    assert sorted(listed["train"].names) == ["2007_000039", "2008_000002"]
    with pytest.raises(MissingExtraError, match=re.escape('pip install "terrazzo[sbd]"')):
        importers.run("voc", tmp_path / "matlab", tmp_path / "x", Wanted(annotations="sbd"))


def test_without_sbd_it_is_said_what_to_download(tmp_path: Path) -> None:
    raw = write_voc(tmp_path / "raw")
    with pytest.raises(DatasetFormatError, match="There are no masks of SBD beside") as caught:
        importers.run("voc", raw, tmp_path / "out", Wanted(annotations="sbd"))
    assert "tar -xf benchmark.tgz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\x00" * 4000, b"x" * (1 << 21)])
def test_damaged_matlab_files_are_told(tmp_path: Path, content: bytes) -> None:
    raw = write_sbd(write_voc(tmp_path / "raw"))
    (raw / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000002.mat").write_bytes(content)
    with pytest.raises(DatasetFormatError, match="2008_000002.mat is no mask of SBD"):
        importers.run("voc", raw, tmp_path / "out", Wanted(annotations="sbd"))
    assert not (tmp_path / "out").exists()


def test_bytes_of_a_matlab_file_gone_wrong_never_crash(tmp_path: Path) -> None:
    write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000002.mat"
    good, rng = path.read_bytes(), np.random.default_rng(3)
    read = 0
    for _ in range(100):
        broken = bytearray(good)
        for place in rng.integers(0, len(good), 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        try:
            read += voc.read_mat(path).shape == HW
        except TerrazzoError:
            continue
    assert read < 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("../../secret\n", "'../../secret'"),
        ("/etc/passwd\n", "'/etc/passwd'"),
        ("2007_000032 1\n", "'2007_000032 1'"),
        ("2007_000032\n2007_000032\n", "'2007_000032' is there more than once"),
    ],
)
def test_lists_of_anything_but_names_are_refused(tmp_path: Path, content: str, message: str) -> None:
    raw = write_voc(tmp_path / "raw")
    (base_of(raw) / "ImageSets" / "Segmentation" / "train.txt").write_text(content)
    with pytest.raises(DatasetFormatError, match=re.escape(message)):
        importers.run("voc", raw, tmp_path / "out")


def test_an_image_in_train_and_val_is_refused(tmp_path: Path) -> None:
    raw = write_voc(tmp_path / "raw")
    (base_of(raw) / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000033\n2007_000032\n")
    with pytest.raises(DatasetFormatError, match="1 images are in train and in val"):
        importers.run("voc", raw, tmp_path / "out")


def test_what_is_missing_is_listed_or_with_partial_left_out(tmp_path: Path) -> None:
    raw = write_voc(tmp_path / "raw")
    (base_of(raw) / "JPEGImages" / "2007_000032.jpg").unlink()
    (base_of(raw) / "SegmentationClass" / "2007_000033.png").unlink()
    with pytest.raises(DatasetFormatError) as caught:
        importers.run("voc", raw, tmp_path / "out")
    assert "2 paths are missing" in str(caught.value)
    assert "JPEGImages/2007_000032.jpg" in str(caught.value)
    assert "SegmentationClass/2007_000033.png" in str(caught.value)
    data = open_dataset(importers.run("voc", raw, tmp_path / "out", Wanted(partial=True)))
    assert data["train"].names == ["2007_000039"]


def test_the_tar_as_downloaded_gets_the_command_that_unpacks_it(tmp_path: Path) -> None:
    (tmp_path / "VOCtrainval_11-May-2012.tar").write_bytes(b"")
    with pytest.raises(DatasetFormatError, match=re.escape("tar -xf VOCtrainval_11-May-2012.tar")):
        importers.run("voc", tmp_path, tmp_path / "out")
    write_voc(tmp_path)
    write_voc(tmp_path / "two", year="VOC2007")
    os.rename(tmp_path / "two" / "VOCdevkit" / "VOC2007", tmp_path / "VOCdevkit" / "VOC2007")
    with pytest.raises(DatasetFormatError, match="holds several years of PASCAL VOC"):
        importers.run("voc", tmp_path, tmp_path / "out")


def test_the_test_split_has_masks_where_all_of_them_are_there(tmp_path: Path) -> None:
    raw = write_voc(tmp_path / "raw")
    (base_of(raw) / "ImageSets" / "Segmentation" / "test.txt").write_text("2008_000002\n")
    assert not open_dataset(importers.run("voc", raw, tmp_path / "without"))["test"].has_masks
    Image.fromarray(mask(2)).save(base_of(raw) / "SegmentationClass" / "2008_000002.png")
    assert open_dataset(importers.run("voc", raw, tmp_path / "with"))["test"].has_masks
