"""Nothing in the JSON of a release is trusted: whatever it says, there are words or a data set."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segments_tree import (
    REGIONS,
    TRUTH,
    bitmap,
    change,
    first,
    label,
    left_beside,
    masks,
    photograph,
    regions,
    run,
    sample,
    write_segments,
)
from terrazzo.cli import main
from terrazzo.data import importers
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import (
    DatasetFormatError,
    MissingPathError,
    TerrazzoError,
)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "raw")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(task_type="pointcloud-cuboid"), "another task(.|\n)*'pointcloud-cuboid'"),
        (lambda d: d.update(samples=[]), "no samples"),
        (lambda d: d.update(samples="x"), "no list of objects"),
        (lambda d: d.update(samples={"a": 1}), "no list of objects"),
        (lambda d: d.update(task_attributes=None), "no list of categories"),
        (lambda d: d["task_attributes"].update(categories=[]), "no list of categories"),
        (lambda d: d["task_attributes"]["categories"][0].update(id="1"), "a category with id '1'"),
        (lambda d: d["task_attributes"]["categories"][0].update(id=1 << 31), "a category with id 2147483648"),
        (lambda d: d["task_attributes"]["categories"][0].update(id=7), "two categories with id 7"),
        (
            lambda d: d["task_attributes"]["categories"][0].update(name="robot "),
            "1, 300 are all called 'robot'",
        ),
        (lambda d: d["task_attributes"]["categories"][0].update(name="\x1b[2J"), r"the name '\\x1b\[2J'"),
        (lambda d: d["task_attributes"]["categories"][0].update(name=" "), "category 1 with the name ' '"),
        (
            lambda d: first(d)["annotations"][0].update(category_id=9),
            "regions of category 9, which is not listed",
        ),
        (lambda d: first(d)["annotations"][0].update(id=-1), "'day1/a.jpg': an annotation with id -1"),
        (lambda d: first(d).update(annotations=7), "'day1/a.jpg': 7, which is no annotation"),
        (lambda d: d["samples"][1].update(name="day1/A.jpg"), r"two samples called 'day1/a\.jpg'"),
        (lambda d: d["samples"][1].update(name="day1"), "sample 'day1' is a folder of another"),
        (lambda d: d["samples"][1].update(name=None), "sample 1 with the name None"),
        *[
            (
                lambda d, name=name: d["samples"][1].update(name=name),
                "sample 1 with the name .*no file can have",
            )
            for name in (
                "../b.jpg",
                "/b.jpg",
                "a//b",
                "a/",
                "",
                "C:b.jpg",
                "a\\b.jpg",
                ".b.jpg",
                "a\nb",
                "ü" * 150,
            )
        ],
    ],
)
def test_a_release_that_cannot_be_is_refused_in_words(
    release: Path, edit: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(DatasetFormatError, match=words):
        run(change(release, edit))
    assert left_beside(release) == ["raw"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"dataset": 3}', "[" * 100_000, "\ufeff{}", "1" * 5000]
)
def test_what_is_no_release_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DatasetFormatError, match=r"r\.json is not"):
        importers.run("segments", tmp_path / "r.json", tmp_path / "out")


def test_a_folder_and_nothing_are_told(release: Path) -> None:
    with pytest.raises(MissingPathError, match=r"is a folder(.|\n)*crossings-v1\.0\.json"):
        run(release.parent)
    with pytest.raises(MissingPathError, match="There is no file"):
        importers.run("segments", release.parent / "none.json", release.parent.parent / "out")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/etc/hostname", "is no relative path"),
        ("C:\\a.png", "is no relative path"),
        ("bitmaps\\scene.png", "is no relative path"),
        ("../raw/bitmaps/scene.png", "leaves the folder"),
        ("bitmaps/../../x.png", "leaves the folder"),
        ("bitmaps/link.png", "is a link that leaves the folder"),
        ("file:///etc/hostname", "is an address that is not read here"),
        ("s3://bucket/a.png", "is an address that is not read here"),
        ("ftp://host/a.png", "is an address that is not read here"),
        ("http://[x/a.png", "is no address"),
        ("bitmaps/\x00.png", "is no place"),
    ],
)
def test_files_are_read_from_the_releases_folder_only(release: Path, url: str, why: str) -> None:
    outside = release.parent.parent / "outside.png"
    outside.write_bytes(bitmap(regions()))
    (release.parent / "bitmaps" / "link.png").symlink_to(outside)
    for part in ("image", "bitmap"):

        def point(dataset: Any, part: str = part) -> None:
            where = dataset["samples"][0]["attributes"]["image"] if part == "image" else None
            (where or first(dataset)["segmentation_bitmap"]).update(url=url)

        with pytest.raises(DatasetFormatError, match=f"where nothing is read from(.|\n)*{why}"):
            run(change(release, point), download=True)


def test_missing_files_are_listed_or_left_out_as_asked(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release.parent / "images" / "b.jpg").unlink()
    change(release, lambda d: first(d)["segmentation_bitmap"].update(url="bitmaps/gone.png"))
    with pytest.raises(DatasetFormatError, match=r"2 paths(.|\n)*bitmaps/gone\.png\n.*images/b\.jpg"):
        run(release)
    assert set(masks(run(release, partial=True))) == {"c"}
    assert "2 files are named and not there; their samples are left out." in capsys.readouterr().err
    (release.parent / "bitmaps" / "scene.png").unlink()
    (release.parent / "bitmaps" / "nothing.png").unlink()
    with pytest.raises(DatasetFormatError, match="4 paths are missing"):  # two samples share the scene
        importers.run("segments", release, release.parent.parent / "all", Wanted(status=("all",)))


def test_samples_that_differ_in_their_suffix_alone_keep_it(release: Path) -> None:
    photograph(release.parent / "images" / "b.png", 7)

    def add(dataset: Any) -> None:
        labels = {"ground-truth": label("bitmaps/scene.png", REGIONS)}
        dataset["samples"] += [
            sample("b.png", "images/b.png", labels),
            sample("v1.0", "images/b.png", labels),
        ]

    found = masks(run(change(release, add)))
    assert set(found) == {"day1/a", "b.jpg", "b.png", "c", "v1.0"}
    np.testing.assert_array_equal(found["b.png"], TRUTH)


def test_files_without_a_suffix_are_known_by_what_they_hold(release: Path) -> None:
    (release.parent / "images" / "b.jpg").rename(release.parent / "images" / "0000")
    change(release, lambda d: d["samples"][1]["attributes"]["image"].update(url="images/0000"))
    run(release)
    assert (release.parent.parent / "out" / "train" / "images" / "b.jpg").is_file()


def test_the_command_takes_its_words(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(release.parent.parent / "out")
    words = ["import", "segments", str(release), "--out", out, "--status", "prelabeled, rejected"]
    assert main([*words, "--columns", "segments"]) == 0
    assert f"load_from_disk({out!r})" in capsys.readouterr().out
    assert main(["import", "camvid", str(release.parent), "--out", out + "2", "--download"]) == 2
    assert "camvid does not know" in capsys.readouterr().err


def test_every_field_mutated_gives_words_or_a_plan(release: Path) -> None:
    """Field by field: nothing but our own errors."""
    value = json.loads(release.read_text())
    del value["dataset"]["samples"][1:]
    tried = refused = 0

    def visit(holder: Any, key: Any) -> None:
        nonlocal tried, refused
        kept = holder[key]
        for strange in (None, [], {"a": 1}, -1, 1e300, "x" * 300, "../x"):
            holder[key] = strange
            release.write_text(json.dumps(value))
            tried += 1
            try:
                importers.plan("segments", release, Wanted(), ExitStack())
            except TerrazzoError:
                refused += 1
        holder[key] = kept

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            visit(node, key)
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(value)
    assert tried > 300
    assert 100 < refused < tried
