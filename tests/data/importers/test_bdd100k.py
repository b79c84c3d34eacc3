"""BDD100K: masks as published, 255 ignored; the bits and the alpha of its instance bitmasks are numbers."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bdd100k_tree import HW, NAMES, ids, write_bdd100k
from cityscapes_tree import zip_up
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import bdd100k
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_bdd100k(tmp_path / "raw")


def run(raw: Path, out: Path, *, link: bool = False, workers: int = 1, **words: Any) -> Path:
    wanted = Wanted(**{"partial": True, **words})
    return importers.run("bdd100k", raw, out, wanted, link=link, workers=workers)


def test_semantic_masks_come_over_and_unknown_is_ignored(raw: Path, tmp_path: Path) -> None:
    data = open_dataset(run(raw, tmp_path / "out", workers=2))
    assert {name: split.names for name, split in data.splits.items()} == NAMES
    assert not data["test"].has_masks
    np.testing.assert_array_equal(data["val"].read_mask(0), ids(18, True))
    assert (data.classes.names[0], data.classes.names[18]) == ("road", "bicycle")
    name = NAMES["train"][0]
    original = raw / "bdd100k" / "labels" / "sem_seg" / "masks" / "train" / f"{name}.png"
    assert (tmp_path / "out" / "train" / "masks" / f"{name}.png").read_bytes() == original.read_bytes()


def test_drivable_masks_have_a_background_that_counts(raw: Path, tmp_path: Path) -> None:
    data = open_dataset(run(raw, tmp_path / "out", annotations="drivable"))
    assert data.classes.names == ("direct", "alternative", "background")
    np.testing.assert_array_equal(data["train"].read_mask(0), ids(2, False))


def test_bits_of_instance_masks_are_read_and_alpha_destroys_nothing(raw: Path, tmp_path: Path) -> None:
    data = open_dataset(run(raw, tmp_path / "out", annotations="ins_seg"))
    assert data["val"].read_mask(0)[:, 0].tolist() == [0, 3, 8, 255, 255, 0, 0, 0]
    assert (data.classes.names[3], data.classes.names[8]) == ("car", "bicycle")
    path = raw / "bdd100k" / "labels" / "ins_seg" / "bitmasks" / "val" / f"{NAMES['val'][0]}.png"
    Image.new("RGBA", (HW[1], HW[0]), (220, 20, 60, 255)).save(path)  # somebody put the colour map there
    with pytest.raises(MaskValueError, match="categories \\[220\\]"):
        run(raw, tmp_path / "x", annotations="ins_seg")
    assert sorted(os.listdir(tmp_path)) == ["out", "raw"]


def test_zips_and_the_folder_itself_give_the_same(raw: Path, tmp_path: Path) -> None:
    first = open_dataset(run(raw, tmp_path / "first"))
    assert open_dataset(run(raw / "bdd100k", tmp_path / "inside"))["val"].names == NAMES["val"]
    zip_up(raw, "bdd100k", "bdd100k_images_10k.zip")  # holds the labels too; both are looked through
    assert open_dataset(run(raw, tmp_path / "zips")).fingerprint == first.fingerprint


def test_what_is_missing_is_listed_and_counts_are_compared(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetFormatError, match="train 2, val 1 images with masks\n  expected: train 7,000, val 1,000"
    ):
        run(raw, tmp_path / "out", partial=False)
    name = NAMES["train"][0]
    (raw / "bdd100k" / "labels" / "sem_seg" / "masks" / "train" / f"{name}.png").unlink()
    with pytest.raises(DatasetFormatError, match=f"labels/sem_seg/masks/train/{name}.png"):
        run(raw, tmp_path / "out", partial=False)
    assert open_dataset(run(raw, tmp_path / "rest"))["train"].names == NAMES["train"][1:]
    os.mkdir(tmp_path / "empty")
    with pytest.raises(DatasetFormatError, match="bdd100k_sem_seg_labels_trainval.zip"):
        run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(MissingPathError):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_colours_are_one_per_class() -> None:
    assert {kind: len(classes.colors) for kind, classes in bdd100k.CLASSES.items()} == {
        "sem_seg": 19,
        "drivable": 3,
        "ins_seg": 9,
    }
