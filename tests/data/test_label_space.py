"""Raw names become classes and ignore by tables worked by hand."""

import numpy as np
import pytest

from terrazzo.data import label_space
from terrazzo.errors import DatasetFormatError, UnknownNameError

SIDEWALK = {0: "unlabeled", 1: "road", 2: "car", 31: "void-dynamic", 34: "void-unclear"}


def test_void_names_become_ignore_and_are_told() -> None:
    space = label_space.from_raw_names(SIDEWALK)
    assert space.classes.names == ("road", "car")
    assert space.remap.to_class == {0: None, 1: 0, 2: 1, 31: None, 34: None, 255: None}
    assert space.remap(np.array([[0, 1, 2, 31, 34, 255]]), where="x").tolist() == [[255, 0, 1, 255, 255, 255]]
    assert space.raw_names == SIDEWALK
    assert space.notes == (
        "Ignored, not trained and not scored: unlabeled, void-dynamic, void-unclear (3 of 5 names). "
        "--keep-void keeps them as classes.",
    )


def test_kept_void_names_are_classes() -> None:
    space = label_space.from_raw_names(SIDEWALK, keep_void=True)
    assert space.classes.names == tuple(SIDEWALK.values())
    assert space.remap.to_class == {0: 0, 1: 1, 2: 2, 31: 3, 34: 4, 255: None}
    assert space.notes == ()
    assert space.remap.inverse(np.array([[4, 255, 0]], np.uint8)).tolist() == [[34, 255, 0]]


def test_a_table_keeps_its_colours_when_void_classes_leave() -> None:
    colors = ((1, 1, 1), (2, 2, 2), (3, 3, 3))
    table = {7: 0, 8: 1, 9: 2, 24: 2, 0: None}
    space = label_space.settle(["road", "void", "car"], colors, table)
    assert space.classes.names == ("road", "car")
    assert space.classes.colors == ((1, 1, 1), (3, 3, 3))
    assert space.remap.to_class == {
        0: None,
        7: 0,
        8: None,
        9: 1,
        24: 1,
    }  # 255 is not in it: an error, not ignored


def test_ids_that_a_table_ignores_can_be_kept_by_name() -> None:
    table = {0: 0, 1: 1, 11: None, 12: None, 13: None}
    names = {11: "void", 12: "unlabeled", 13: "void"}
    space = label_space.settle(["sky", "road"], (), table, raw_names=names, keep_void=True)
    assert space.classes.names == ("sky", "road", "void", "unlabeled")
    assert space.remap.to_class == {0: 0, 1: 1, 11: 2, 12: 3, 13: 2}
    assert len(set(space.classes.colors)) == 4
    assert space.notes == ("Kept as classes, as asked: void, unlabeled.",)


def test_only_void_names_are_all_kept_and_told() -> None:
    space = label_space.from_raw_names({0: "void", 1: "unknown"})
    assert space.classes.names == ("void", "unknown")
    assert "all are kept as classes" in space.notes[0]


def test_more_than_255_names_ignore_65535_too_when_void_leaves() -> None:
    names = {i: f"thing {i}" for i in range(256)} | {256: "void"}
    space = label_space.from_raw_names(names)
    assert len(space.classes) == 256
    assert space.remap.to_class[65535] is None
    assert space.remap.to_class[255] == 255


def test_merged_classes_share_an_id_and_a_colour() -> None:
    space = label_space.from_raw_names({0: "road", 1: "car", 2: "sky", 3: "truck", 4: "unlabeled"})
    merged = label_space.merge(space, ["car+truck=vehicle"])
    assert merged.classes.names == ("road", "vehicle", "sky")
    assert merged.classes.colors == space.classes.colors[:3]
    assert merged.remap.to_class == {0: 0, 1: 1, 2: 2, 3: 1, 4: None, 255: None}
    assert merged.notes[-1] == "Merged: car+truck=vehicle. 3 classes remain of 4."
    into = label_space.merge(space, ["truck=car"])
    assert into.classes.names == ("road", "car", "sky")
    assert into.remap.to_class[3] == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'truck'"):
        label_space.merge(space, ["car+truk=vehicle"])
    with pytest.raises(DatasetFormatError, match="The merge 'vehicle' cannot be read"):
        label_space.merge(space, ["vehicle"])
