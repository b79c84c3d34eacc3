"""dataset.json is read whole, and everything wrong in it is told at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from terrazzo.classes import Classes, Remap
from terrazzo.data.description import Description, read_description, write_description
from terrazzo.errors import DatasetFormatError, MissingPathError, UnreadableFileError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    classes = Classes(("road", "car"), ((1, 2, 3), (4, 5, 6)))
    whole = Description(
        classes=classes,
        remap=Remap({7: 0, 26: 1, 0: None}, 2),
        raw_names={0: "unlabeled"},
        name="Streets",
        license="CC0-1.0",
        source="here",
        channels=4,
        dtype="uint16",
        mean=(0.1, 0.2, 0.3, 0.4),
        std=(1.0, 1.0, 1.0, 1.0),
        splits={"train": "train", "val": "validation"},
        groups="^(.*)_",
        extra={"release": 3},
    )
    small = Description(classes=classes, splits={"train": ("a", "b"), "val": ("c",)})
    for description in (whole, small):
        write_description(tmp_path, description)
        assert read_description(tmp_path) == description
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "format_version": 1,
        "classes": [{"name": "road", "color": [1, 2, 3]}, {"name": "car", "color": [4, 5, 6]}],
        "splits": {"train": ["a", "b"], "val": ["c"]},
    }


@pytest.mark.parametrize(
    ("value", "sentences"),
    [
        ([], ["is not a description"]),
        ({}, ['"classes" must be a list']),
        ({"classes": [3]}, ['"classes" holds something else']),
        ({"classes": ["a"], "remaps": {}}, ["unknown key 'remaps'; did you mean 'remap'?"]),
        ({"classes": ["a"], "zzz": 1}, ["unknown key 'zzz'; keep your own under \"extra\""]),
        (
            {"classes": ["a"], "channels": "3", "dtype": "int8"},
            ["2 problems", '"channels" must be', '"dtype" must be'],
        ),
        ({"classes": ["a"], "channels": True}, ['"channels" must be a whole number above 0, not True']),
        (
            {"classes": ["a"], "channels": 3, "mean": [0.5], "std": [0.1, 0.1, 0]},
            ["1 numbers for 3", "above 0"],
        ),
        ({"classes": ["a"], "mean": [0.5]}, ['"mean" and "std" come together']),
        ({"classes": ["a"], "mean": ["x"], "std": "y"}, ['"mean" must be a list', '"std" must be a list']),
        ({"classes": ["a"], "remap": {"a": 0}}, ['"remap" must be an object whose keys are raw ids']),
        ({"classes": ["a"], "remap": {"0": 5}}, ["The remap table leaves the label space"]),
        ({"classes": ["a"], "remap": {"0": "x"}}, ["The remap table cannot be read"]),
        ({"classes": ["a", "a"]}, ["Class names must be distinct", "a more than once"]),
        (
            {"classes": ["a"], "splits": {"train": ["x", "y"], "val": ["y"]}},
            ["names 1 images more than once: y"],
        ),
        ({"classes": ["a"], "splits": {"train": ["x"], "val": "val"}}, ["only folders, or only lists"]),
        ({"classes": ["a"], "splits": []}, ['"splits" must be an object']),
        (
            {"classes": ["a"], "name": 3, "extra": 4},
            ['"name" must be text, not 3', '"extra" must be an object'],
        ),
        ({"classes": ["a"], "format_version": 2}, ["has format version 2", "pip install --upgrade terrazzo"]),
    ],
)
def test_everything_wrong_is_told_at_once(tmp_path: Path, value: Any, sentences: list[str]) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(DatasetFormatError) as caught:
        read_description(tmp_path)
    assert str(tmp_path / "dataset.json") in str(caught.value)
    for sentence in sentences:
        assert sentence in str(caught.value)


def test_a_file_that_is_absent_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"dataset\.json"):
        read_description(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UnreadableFileError, match="is not valid JSON"):
        read_description(tmp_path)
