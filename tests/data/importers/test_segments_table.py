"""A release as a table has the columns that release2dataset gave, and those that the walk-through made of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from segments_tree import (
    REGIONS,
    TRUTH,
    annotations,
    bitmap,
    categories,
    change,
    first,
    left_beside,
    regions,
    run,
    write_segments,
)
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import (
    DatasetFormatError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.region_ids import category_map


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "raw")


def table(release: Path, columns: str, **words: Any) -> Any:
    out = importers.run(
        "segments", release, release.parent.parent / "out", Wanted(columns=columns, **words), workers=2
    )
    shutil.rmtree(release.parent)  # whatever opens now has its bytes in it
    return datasets.load_from_disk(str(out))


def test_its_columns_are_those_of_release2dataset(release: Path) -> None:
    photographs = {path.name: path.read_bytes() for path in release.parent.glob("images/**/*.*")}
    rows = table(release, "segments", status=("all",))
    assert rows.column_names == [
        *("name", "uuid", "status", "image"),
        *("label.annotations", "label.segmentation_bitmap"),
    ]
    assert rows["name"][:] == ["day1/a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg", "f.jpg"]
    assert rows["status"][2:5] == ["VERIFIED", "PRELABELED", "UNLABELED"]
    assert rows[0]["uuid"] == "uuid of day1/a.jpg"
    assert rows[0]["label.annotations"] == [{"id": r, "category_id": c} for r, c in REGIONS.items()]
    np.testing.assert_array_equal(np.array(rows[0]["label.segmentation_bitmap"]), regions())
    assert not np.array(rows[1]["label.segmentation_bitmap"]).any()
    assert rows[4]["label.annotations"] == []
    assert rows[4]["label.segmentation_bitmap"] is None  # not one black pixel
    stored = rows.cast_column("image", datasets.Image(decode=False))["image"][:]
    assert {one["path"]: one["bytes"] for one in stored} == photographs
    names = json.loads((release.parent.parent / "out" / "id2label.json").read_text())
    assert names == {"0": "unlabeled", "1": "road", "7": "void-sky", "300": "robot"}


def test_the_walk_through_on_these_columns_gives_the_semantic_ones(release: Path) -> None:
    whole = importers.run("segments", release, release.parent.parent / "whole", Wanted(columns="segments"))
    rows = datasets.load_from_disk(str(whole))
    semantic = table(release, "semantic")
    assert semantic.column_names == ["pixel_values", "label"]
    for one, other in zip(rows, semantic, strict=True):
        mapped = category_map(np.array(one["label.segmentation_bitmap"]), one["label.annotations"])
        np.testing.assert_array_equal(np.array(other["label"]), mapped)
        np.testing.assert_array_equal(np.array(other["pixel_values"]), np.array(one["image"]))
    np.testing.assert_array_equal(np.array(semantic[0]["label"]), categories())


def test_the_semantic_columns_open_as_a_data_set(release: Path) -> None:
    table(release, "semantic")
    data = open_dataset(release.parent.parent / "out")
    assert data.classes.names == ("road", "robot")
    np.testing.assert_array_equal(data["train"].read_mask(0), TRUTH)


def test_the_columns_with_region_ids_are_no_data_set_and_say_why(release: Path) -> None:
    table(release, "segments")
    with pytest.raises(
        DatasetFormatError, match=r"no mask column(.|\n)*category_map(.|\n)*--columns semantic"
    ):
        open_dataset(release.parent.parent / "out")


def test_a_table_names_no_path_of_this_machine(release: Path) -> None:
    table(release, "segments")
    for path in (release.parent.parent / "out").iterdir():
        assert str(release.parent.parent).encode() not in path.read_bytes()


def test_a_table_is_whole_or_absent(release: Path) -> None:
    (release.parent / "bitmaps" / "scene.png").write_bytes(bitmap(regions())[:-40])
    for columns in ("segments", "semantic"):
        with pytest.raises(UnreadableFileError, match="2 of 3 pairs are damaged"):
            importers.run("segments", release, release.parent.parent / "out", Wanted(columns=columns))
        assert left_beside(release) == ["raw"]
    with pytest.raises(UsageError, match="set of columns 'segment'(.|\n)*Did you mean 'segments'"):
        run(release, columns="segment")


def test_a_table_has_nothing_to_link(release: Path) -> None:
    with pytest.raises(UsageError, match="as bytes"):
        importers.run(
            "segments", release, release.parent.parent / "out", Wanted(columns="semantic"), link=True
        )


def test_a_table_keeps_category_0_and_its_name(release: Path) -> None:
    def to_zero(dataset: Any) -> None:
        dataset["task_attributes"]["categories"] = [{"id": 0, "name": "road"}]
        first(dataset)["annotations"] = annotations(dict.fromkeys(REGIONS, 0))
        del dataset["samples"][1:]

    out = release.parent.parent
    importers.run("segments", change(release, to_zero), out / "a", Wanted(columns="segments"))
    assert json.loads((out / "a" / "id2label.json").read_text()) == {"0": "road"}
    importers.run("segments", release, out / "b", Wanted(columns="semantic"))
    assert json.loads((out / "b" / "id2label.json").read_text()) == {"0": "road", "255": "unlabeled"}
    drawn = np.array(datasets.load_from_disk(str(out / "b"))[0]["label"])
    np.testing.assert_array_equal(drawn, np.where(regions() == 0, 255, 0))
