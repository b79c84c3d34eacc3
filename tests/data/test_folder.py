"""Folders open without guessing; whatever would have to be guessed is told with the file to write."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from terrazzo.classes import Classes, Remap
from terrazzo.data import open_dataset
from terrazzo.data.description import Description, write_description
from terrazzo.errors import DataError, DatasetFormatError, UnreadableFileError
from terrazzo.images import write_image, write_mask

RNG = np.random.default_rng(3)
IDS = np.array([[0, 1, 2, 255], [2, 2, 1, 0], [0, 0, 1, 255]], np.uint8)


def fill(folder: Path, names: Iterable[str], *, masks: str | None = "masks", suffix: str = ".png") -> None:
    for name in names:
        write_image(
            folder / "images" / f"{name}{suffix}",
            RNG.integers(0, 256, (3, 4, 3), dtype=np.uint8),
            durable=False,
        )
        if masks is not None:
            write_mask(folder / masks / f"{name}.png", IDS, durable=False)


def names_file(root: Path, text: str = "sky\nroad\ncar\n") -> None:
    (root / "classes.txt").write_text(text)


def error_of(root: Path) -> str:
    with pytest.raises(DatasetFormatError) as caught:
        open_dataset(root)
    return str(caught.value)


def test_the_folder_may_be_the_one_we_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, ["deep/a", "b"])
    monkeypatch.chdir(tmp_path)
    assert error_of(Path()).startswith(". does not say what its ids mean.")
    names_file(tmp_path)
    data = open_dataset(".")
    assert sorted(data["train"].names + data["val"].names) == ["b", "deep/a"]
    assert data["train"][0].mask is not None
    assert data.location == str(tmp_path)
    (tmp_path / "masks/b.png").unlink()
    assert error_of(Path()).startswith("1 files in . have no partner.")


def test_our_form_opens_with_everything_it_says(tmp_path: Path) -> None:
    fill(tmp_path / "train", ["b", "deep/a"], suffix=".jpg")
    fill(tmp_path / "val", ["c"])
    fill(tmp_path / "test", ["d", "e"], masks=None)
    classes = Classes(("road", "car"), ((1, 2, 3), (4, 5, 6)))
    table = Remap({0: None, 1: 0, 2: 1, 255: None}, 2)
    write_description(
        tmp_path,
        Description(classes=classes, remap=table, name="Streets", license="CC0-1.0", source="made up"),
    )
    data = open_dataset(tmp_path)
    assert (data.name, data.license, data.source, data.location) == (
        "Streets",
        "CC0-1.0",
        "made up",
        str(tmp_path),
    )
    assert data.classes == classes
    assert list(data.splits) == ["train", "val", "test"]
    assert data["train"].names == ["b", "deep/a"]
    assert data["test"].names == ["d", "e"]
    assert not data["test"].has_masks
    assert data["test"][0].mask is None
    sample = data["train"][1]
    assert sample.name == "deep/a"
    assert sample.mask is not None
    assert sample.mask.tolist() == [[255, 0, 1, 255], [1, 1, 0, 255], [255, 255, 0, 255]]
    assert (data.channels, data.dtype, data.mean[0], data.std[2]) == (3, "uint8", 0.485, 0.225)
    assert data.notes == ()
    assert data.split_manifest is None
    assert data["train"].where(1) == str(tmp_path / "train/images/deep/a.jpg")
    assert data["train"].where(1, mask=True) == str(tmp_path / "train/masks/deep/a.png")


def test_split_folders_may_be_declared_by_any_name(tmp_path: Path) -> None:
    fill(tmp_path / "north", ["a"])
    fill(tmp_path / "south", ["b"])
    classes = Classes(("sky", "road", "car"))
    write_description(tmp_path, Description(classes=classes, splits={"train": "south", "val": "north"}))
    data = open_dataset(tmp_path)
    assert (data["train"].names, data["val"].names) == (["b"], ["a"])


def test_splits_may_be_lists_of_names(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b", "c"])
    classes = Classes(("sky", "road", "car"))
    write_description(tmp_path, Description(classes=classes, splits={"train": ("c", "a"), "val": ("b",)}))
    data = open_dataset(tmp_path)
    assert (data["train"].names, data["val"].names) == (["a", "c"], ["b"])
    assert data["val"][0].name == "b"
    write_description(tmp_path, Description(classes=classes, splits={"train": ("c", "x"), "val": ("b",)}))
    assert 'lists 1 images in "splits" that are not there.\n  found: missing: x' in error_of(tmp_path)


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "val"), ("training", "validation"), ("Train", "valid")],
)
def test_split_folders_are_known_by_their_names(tmp_path: Path, train: str, val: str) -> None:
    fill(tmp_path / train, ["a"])
    fill(tmp_path / val, ["b"], masks="labels")
    names_file(tmp_path)
    data = open_dataset(tmp_path)
    assert {name: split.names for name, split in data.splits.items()} == {"train": ["a"], "val": ["b"]}
    assert data.classes.names == ("sky", "road", "car")


def test_splits_inside_images_and_masks_are_splits_and_not_mixed(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a", "train/b", "val/c"])
    names_file(tmp_path)
    data = open_dataset(tmp_path)
    assert {name: split.names for name, split in data.splits.items()} == {"train": ["a", "b"], "val": ["c"]}
    assert data["val"].where(0, mask=True) == str(tmp_path / "masks/val/c.png")


def test_a_folder_without_splits_is_split_once_and_the_split_is_told(tmp_path: Path) -> None:
    fill(tmp_path, [f"drive{i % 3}/{i}" for i in range(12)])
    names_file(tmp_path)
    data = open_dataset(tmp_path)
    assert (len(data["train"]), len(data["val"])) == (10, 2)
    assert data.notes == ("No val split: made one by name, seed 0: 10 train, 2 val.",)
    assert data.split_manifest is not None
    assert data.split_manifest["splits"] == {"train": data["train"].names, "val": data["val"].names}


def test_groups_in_dataset_json_stay_together(tmp_path: Path) -> None:
    fill(tmp_path, [f"drive{i % 4}/{i}" for i in range(12)])
    write_description(tmp_path, Description(classes=Classes(("sky", "road", "car")), groups="^(drive.)/"))
    data = open_dataset(tmp_path)
    sides = [{name.split("/")[0] for name in data[split].names} for split in ("train", "val")]
    assert sides[0].isdisjoint(sides[1])
    assert "groups by '^(drive.)/' kept together" in data.notes[0]


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("classes.txt", "sky\nroad\n\ncar\n", {0: "sky", 1: "road", 2: "car"}),
        ("classes.txt", "\ufeff0 sky\n2: car\n1\troad\n", {0: "sky", 1: "road", 2: "car"}),
        ("classes.json", '["sky", "road", "car"]', {0: "sky", 1: "road", 2: "car"}),
        (
            "classes.json",
            '[{"name": "sky", "color": [9, 8, 7]}, {"name": "road"}, {"name": "car"}]',
            {0: "sky"},
        ),
        ("classes.json", '{"sky": 0, "road": 1, "car": 2}', {2: "car"}),
        ("id2label.json", '{"0": "sky", "1": "road", "2": "car"}', {1: "road"}),
    ],
)
def test_class_names_come_from_a_file_of_any_usual_form(
    tmp_path: Path, file: str, text: str, expected: dict[int, str]
) -> None:
    fill(tmp_path, ["a", "b"])
    (tmp_path / file).write_text(text, encoding="utf-8")
    data = open_dataset(tmp_path)
    assert data.classes.names == ("sky", "road", "car")
    assert expected.items() <= dict(data.raw_names).items()
    if "color" in text:
        assert data.classes.colors[0] == (9, 8, 7)


def test_a_file_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    names_file(tmp_path, "\n")
    assert "names no class" in error_of(tmp_path)
    (tmp_path / "classes.json").write_text('[["sky"]]')
    assert "does not name classes" in error_of(tmp_path)


def test_missing_class_names_are_told_with_the_ids_seen_and_the_file_to_write(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    message = error_of(tmp_path)
    assert message == (
        f"{tmp_path} does not say what its ids mean.\n"
        "  found: 4 ids in 2 of 2 masks: 0, 1, 2, 255\n"
        f"  expected: the names in {tmp_path}/classes.txt, one per line: the first line names id 0, the last id 2\n"
        "  255 is ignored and needs no name. For example:\n"
        f"  printf 'class0\\nclass1\\nclass2\\n' > {tmp_path}/classes.txt"
    )
    if os.name != "nt":
        os.system(message.splitlines()[-1].strip())  # the command that it gives opens the folder
        assert open_dataset(tmp_path).classes.names == ("class0", "class1", "class2")


def test_a_binary_mask_without_names_is_pointed_out(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", np.zeros((2, 2, 3), np.uint8))
    write_mask(tmp_path / "masks/a.png", np.array([[0, 255], [0, 0]], np.uint8))
    assert "0 and 255 alone look like a binary mask" in error_of(tmp_path)


def test_unpaired_files_are_all_listed(tmp_path: Path) -> None:
    fill(tmp_path / "train", [f"{i:02d}" for i in range(14)], masks=None)
    fill(tmp_path / "val", ["a", "b"])
    write_mask(tmp_path / "train/masks/00.png", IDS)
    (tmp_path / "val/images/a.png").unlink()
    names_file(tmp_path)
    message = error_of(tmp_path)
    assert message.startswith(f"14 files in {tmp_path} have no partner.\n")
    assert "train: images without a mask: 01, 02, 03, 04, 05, 06, 07, 08, 09, 10, … (13 in all)" in message
    assert "val: masks without an image: a" in message
    assert message.endswith(f"terrazzo check {tmp_path}")


def test_masks_with_an_ending_of_their_own_are_recognised_in_the_advice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.png", np.zeros((3, 4, 3), np.uint8))
        write_mask(tmp_path / f"masks/{name}_mask.png", IDS)
    names_file(tmp_path)
    assert "Every such mask has '_mask' after its image's name: rename the masks without it." in error_of(
        tmp_path
    )


def test_two_files_of_one_name_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    fill(tmp_path, ["a"], suffix=".jpg")
    names_file(tmp_path)
    assert "files of one name" in error_of(tmp_path)


def test_hidden_and_other_files_are_not_data_and_linked_folders_are(tmp_path: Path) -> None:
    fill(tmp_path / "data", ["a", "b"])
    names_file(tmp_path / "data")
    (tmp_path / "data/images/.DS_Store").write_text("x")
    (tmp_path / "data/images/._a.png").write_text("x")
    (tmp_path / "data/masks/notes.txt").write_text("x")
    fill(tmp_path / "more", ["c"])
    (tmp_path / "data/images/far").symlink_to(tmp_path / "more/images")
    (tmp_path / "data/masks/far").symlink_to(tmp_path / "more/masks")
    (tmp_path / "more/images/loop").symlink_to(tmp_path / "data/images")
    data = open_dataset(tmp_path / "data")
    assert sorted(data["train"].names + data["val"].names) == ["a", "b", "far/c"]


def test_images_alone_are_told_where_masks_go(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], masks=None)
    message = error_of(tmp_path)
    assert f"{tmp_path} has images and no masks." in message
    assert message.endswith(f"of the same name, into {tmp_path}/masks.")
    fill(tmp_path / "x/train", ["a"])
    fill(tmp_path / "x/val", ["b"], masks=None)
    names_file(tmp_path / "x")
    assert f"The split 'val' of {tmp_path}/x has images and no masks." in error_of(tmp_path / "x")


def test_folders_that_are_ambiguous_or_unknown_are_told(tmp_path: Path) -> None:
    (tmp_path / "leftImg8bit").mkdir()
    message = error_of(tmp_path)
    assert f"{tmp_path} is not a data set that terrazzo knows.\n  found: leftImg8bit/" in message
    assert f"terrazzo import FORMAT {tmp_path} --out DIR" in message
    fill(tmp_path / "two", ["a"])
    fill(tmp_path / "two", ["a"], masks="labels")
    assert "has more than one folder that may hold the masks.\n  found: masks, labels" in error_of(
        tmp_path / "two"
    )
    fill(tmp_path / "three/val", ["a"])
    fill(tmp_path / "three/validation", ["a"])
    assert "has two folders for one split.\n  found: val and validation are both 'val'" in error_of(
        tmp_path / "three"
    )
    (tmp_path / "four/images").mkdir(parents=True)
    names_file(tmp_path / "four")
    assert f"{tmp_path}/four holds no images." in error_of(tmp_path / "four")
    fill(tmp_path / "five", ["a"])
    write_description(tmp_path / "five", Description(classes=Classes(("a",)), splits={"train": "nowhere"}))
    assert f"There is no folder {tmp_path}/five/nowhere/images." in error_of(tmp_path / "five")


def test_a_first_image_that_is_damaged_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    names_file(tmp_path)
    (tmp_path / "images/a.png").write_bytes((tmp_path / "images/a.png").read_bytes()[:50])
    (tmp_path / "images/b.png").write_bytes((tmp_path / "images/b.png").read_bytes()[:50])
    with pytest.raises(UnreadableFileError, match=r"images/[ab]\.png cannot be read"):
        open_dataset(tmp_path)


def test_dataset_json_itself_may_be_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"])
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["sky", "road", "car"]}))
    assert open_dataset(tmp_path / "dataset.json").location == str(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("classes.txt", b"sky\nroad\xff\ncar\n", "cannot be read as text"),
        ("id2label.json", b'{"0": "sky", "1": 1}', "does not name classes.\n  found: 1: 1"),
        ("id2label.json", '{"0": "sky", "²": "road"}'.encode(), "does not name classes"),
        ("id2label.json", b'{"0": "sky", "00": "road"}', "names id 0 more than once.\n  found: sky, road"),
        ("classes.json", b'{"sky": 0, "road": 0}', "names id 0 more than once.\n  found: sky, road"),
        ("classes.json", b'{"sky": true, "road": 0}', "does not name classes"),
        ("classes.json", b'[{"name": "sky", "id": 1.5}]', "does not name classes"),
        ("classes.json", b'[{"name": "sky", "id": Infinity}]', "does not name classes"),
        ("classes.json", b'[{"name": "sky", "id": [1]}]', "does not name classes"),
        ("classes.json", b'[{"name": "sky", "color": 7}]', "A colour is three whole numbers"),
        ("classes.json", b'[{"name": "sky", "id": 1}, {"name": "road"}]', "names id 1 more than once"),
    ],
)
def test_a_file_of_names_that_is_none_is_told(
    tmp_path: Path, file: str, content: bytes, sentence: str
) -> None:
    fill(tmp_path, ["a", "b"])
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path)
    assert sentence in str(caught.value)
