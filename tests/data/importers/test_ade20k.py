"""ADE20K: 0 is ignored and 1-150 become 0-149 once, by the table; the full release's colours are numbers."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ade20k_tree import FIRST, FULL, HW, mask, write_benchmark, write_full
from cityscapes_tree import zip_up
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import ade20k
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_benchmark(tmp_path / "raw")


def run(raw: Path, out: Path, *, link: bool = False, workers: int = 1, **words: Any) -> Path:
    wanted = Wanted(**{"partial": True, **words})
    return importers.run("ade20k", raw, out, wanted, link=link, workers=workers)


def test_zero_is_ignored_and_every_class_moves_down_by_one_once(raw: Path, tmp_path: Path) -> None:
    data = open_dataset(run(raw, tmp_path / "out", workers=2))
    assert {name: split.names for name, split in data.splits.items()} == {
        "train": list(FIRST[:2]),
        "val": list(FIRST[2:]),
        "test": ["ADE_test_00000001"],
    }
    seen = data["train"].read_mask(1)
    np.testing.assert_array_equal(seen, np.where(mask(1) == 0, 255, mask(1).astype(int) - 1))
    assert (data.classes.names[0], data.classes.names[149], len(data.classes)) == ("wall", "flag", 150)
    np.testing.assert_array_equal(data.remap.inverse(seen), mask(1))  # and back, for the benchmark's server
    copied = tmp_path / "out" / "train" / "masks" / f"{FIRST[0]}.png"
    original = raw / "ADEChallengeData2016" / "annotations" / "training" / f"{FIRST[0]}.png"
    assert copied.read_bytes() == original.read_bytes()
    again = open_dataset(tmp_path / "out")  # nothing is taken off a second time
    np.testing.assert_array_equal(again["train"].read_mask(1), seen)


def test_names_are_those_of_networks_or_the_first_words_of_the_list(raw: Path, tmp_path: Path) -> None:
    named = ade20k.NAMES
    assert (named[8], named[20], named[57], named[89], named[136]) == (
        *("windowpane", "car", "pillow"),
        *("television receiver", "traffic light"),
    )  # of Idx 9, 21, 58, 90 and 137 of objectInfo150.txt, where 90 begins with "television"
    assert len(set(named)) == 150
    info = raw / "ADEChallengeData2016" / "objectInfo150.txt"
    info.write_text(info.read_text().replace("wall, synonym", "rampart, bulwark"))
    assert open_dataset(run(raw, tmp_path / "theirs")).classes.names[:2] == ("rampart", "building")
    info.write_text("\n".join(info.read_text().splitlines()[:-1]))
    with pytest.raises(DatasetFormatError, match="149 lines, 149 different names"):
        run(raw, tmp_path / "short")
    info.unlink()
    assert open_dataset(run(raw, tmp_path / "ours")).classes.names == named


def test_the_zip_and_the_folder_itself_give_the_same(raw: Path, tmp_path: Path) -> None:
    first = open_dataset(run(raw, tmp_path / "first"))
    inside = open_dataset(run(raw / "ADEChallengeData2016", tmp_path / "inside"))
    assert inside["val"].names == first["val"].names
    zip_up(raw, "ADEChallengeData2016", "ADEChallengeData2016.zip")
    zip_up(raw, "release_test", "release_test.zip")
    assert open_dataset(run(raw, tmp_path / "zips")).fingerprint == first.fingerprint


def test_what_is_missing_is_listed_and_counts_are_compared(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetFormatError, match="found: train 2, val 1 images\n  expected: train 20,210, val 2,000"
    ):
        run(raw, tmp_path / "out", partial=False)
    (raw / "ADEChallengeData2016" / "annotations" / "training" / f"{FIRST[0]}.png").unlink()
    with pytest.raises(DatasetFormatError, match=f"the mask of training/{FIRST[0]}"):
        run(raw, tmp_path / "out", partial=False)
    assert open_dataset(run(raw, tmp_path / "rest"))["train"].names == [FIRST[1]]
    os.mkdir(tmp_path / "empty")
    with pytest.raises(DatasetFormatError, match=re.escape("ADEChallengeData2016.zip")):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(MissingPathError):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_the_full_release_reads_red_and_green_and_names_from_json(tmp_path: Path) -> None:
    raw = write_full(tmp_path / "raw")
    data = open_dataset(run(raw, tmp_path / "out", annotations="full"))
    assert data["train"].names == ["urban/street/ADE_train_00016869"]
    assert data.classes.names == ("window (58)", "window (59)", "car, auto", "tree")  # parts are none of them
    mask = data["train"].read_mask(0)
    assert [mask[row, 0] for row in (0, 3, 6, 9)] == [255, 2, 3, 1]
    zip_up(raw, "ADE20K_2021_17_01", "ADE20K_2021_17_01.zip")
    zipped = open_dataset(run(raw, tmp_path / "zipped", annotations="full"))
    assert zipped.fingerprint == data.fingerprint


def test_numbers_of_the_full_release_are_those_of_the_authors_table() -> None:
    pixel = np.array(
        [[[110, 39, 3], [10, 145, 9], [0, 57, 255]]], np.uint8
    )  # mapFromADE.txt: tree, car, armchair
    assert ade20k.numbers(pixel).tolist() == [[2855, 401, 57]]


def test_a_full_mask_with_a_class_that_nobody_named_is_refused(tmp_path: Path) -> None:
    raw = write_full(tmp_path / "raw")
    path = raw / FULL / "validation" / "urban" / "street" / "ADE_val_00000001_seg.png"
    Image.new("RGB", (HW[1], HW[0]), (120, 7, 0)).save(path)
    with pytest.raises(MaskValueError, match="3079"):
        run(raw, tmp_path / "out", annotations="full")
    for text in ("{", "[]", '{"annotation": {"object": 7}}', '{"annotation": {"object": [{"parts": {}}]}}'):
        (path.parent / "ADE_val_00000001.json").write_text(text)
        with pytest.raises(
            DatasetFormatError, match=re.escape("ADE_val_00000001.json does not name its objects")
        ):
            run(raw, tmp_path / "out", annotations="full")
    assert sorted(os.listdir(tmp_path)) == ["raw"]
