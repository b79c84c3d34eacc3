"""Releases given out and brought in again are the same masks; readers of others find what was labelled."""

import filecmp
import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

import terrazzo as tz
from labelled import make_project, scene, write_photograph
from terrazzo import exchange
from terrazzo.cli import labels as words
from terrazzo.cli import main
from terrazzo.data import importers
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DataError, ExistingOutputError, ProjectError, UnknownNameError, UsageError
from terrazzo.project import Project, open_project

HW = (34, 46)
A, B, C = "photos/a.png", "photos/b.png", "photos/c.png"
CLASS_OF = np.array([255, 0, 1, 255])  # nobody drew, road, car, unclear


def two_cars() -> tuple[np.ndarray, list[dict[str, object]]]:
    objects = np.zeros(HW, np.uint16)
    objects[20:], objects[22:30, 3:9], objects[22:30, 9:20] = 7, 300, 301
    return objects, [
        {"id": 7, "category_id": 1},
        {"id": 300, "category_id": 2},
        {"id": 301, "category_id": 2},
    ]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    home = tmp_path / "home"
    home.mkdir()
    with make_project(home, hw=HW) as made:
        made.write_mask(A, scene(HW), status="labelled")
        made.write_objects(B, *two_cars(), status="labelled")
        made.set_status(B, "reviewed")
        made.set_split([B], "val")
        made.set_status(C, "skipped", reason="dark")
        made.releases.create("v1", description="the first")
        yield made


def masks(data: tz.Dataset) -> dict[str, np.ndarray]:
    return {name: split.read_mask(i) for split in data.splits.values() for i, name in enumerate(split.names)}


def truth() -> dict[str, np.ndarray]:
    cars = np.array([0, 1, 2, 2])[np.searchsorted([0, 7, 300, 301], two_cars()[0])]
    return {"photos/a": CLASS_OF[scene(HW)], "photos/b": CLASS_OF[cars]}


@pytest.mark.parametrize("way", sorted(exchange.WAYS_OUT))
def test_the_same_release_gives_the_same_bytes(project: Project, tmp_path: Path, way: str) -> None:
    release = project.releases["v1"]
    one = exchange.give(release, way, tmp_path / "one")
    project.write_mask(A, scene(HW) * 0, status="labelled")
    project.categories.rename("car", "vehicle")
    with open_project(project.path) as again:
        other = exchange.give(again.releases["v1"], way, tmp_path / "other")
    files = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file())
    assert len(files) >= 3 and filecmp.cmpfiles(one, other, files, shallow=False) == (files, [], [])
    with pytest.raises(ExistingOutputError):
        exchange.give(release, way, one)


def test_a_folder_is_the_data_set_that_the_release_is(project: Project, tmp_path: Path) -> None:
    out = exchange.give(project.releases["v1"], "folder", tmp_path / "out")
    data, release = tz.open_dataset(out), tz.open_dataset(f"{project.path}@v1")
    assert data.classes == release.classes
    assert {name: split.names for name, split in data.splits.items()} == {
        "train": ["photos/a"],
        "val": ["photos/b"],
    }
    for opened in (masks(data), masks(release)):
        assert all((opened[name] == mask).all() for name, mask in truth().items())
    asis = exchange.give(project.releases["v1"], "folder", tmp_path / "as-it-is", keep_metadata=True)
    assert (asis / "train/images/photos/a.png").read_bytes() == (project.root / A).read_bytes()


def test_a_table_opens_with_datasets_and_here(project: Project, tmp_path: Path) -> None:
    out = exchange.give(project.releases["v1"], "table", tmp_path / "out")
    files = {"train": str(out / "data/train-*.parquet"), "validation": str(out / "data/validation-*.parquet")}
    table = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    row = table["train"][0]
    assert set(row) == {"pixel_values", "label"}
    assert (np.asarray(row["label"]) == scene(HW)).all()
    assert (np.asarray(row["pixel_values"]) == project.read_image(A)).all()
    assert json.loads((out / "id2label.json").read_text()) == {"0": "unlabeled", "1": "road", "2": "car",
                                                             "3": "void-unclear"}  # fmt: skip
    opened = tz.open_dataset(out)
    assert opened.classes.names == ("road", "car")
    assert (opened["train"][0].mask == truth()["photos/a"]).all()


def test_segments_form_goes_out_and_comes_back_object_by_object(project: Project, tmp_path: Path) -> None:
    out = exchange.give(project.releases["v1"], "segments", tmp_path / "out")
    value = json.loads((out / "v1.json").read_text())
    statuses = [
        (one["labels"]["ground-truth"] or {}).get("label_status") for one in value["dataset"]["samples"]
    ]
    assert statuses == ["LABELED", "REVIEWED", "SKIPPED"]
    pixels = np.asarray(Image.open(out / "bitmaps/photos/b.png")).astype(int)  # another reader
    assert (pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2] == two_cars()[0]).all()
    assert (pixels[..., 3] == 255).all()
    data = tz.open_dataset(importers.run("segments", out / "v1.json", tmp_path / "imported", Wanted()))
    assert (masks(data)["photos/a"][scene(HW) == 2] == data.classes.names.index("car")).all()
    with open_project(tmp_path / "again.db") as again:
        exchange.bring(again, "segments", out / "v1.json")
        names = {name: f"out/images/{name}" for name in (A, B, C)}
        assert (again.read_mask(names[A]) == scene(HW)).all()
        cars = again.read_objects(names[B])
        assert len(cars.annotations) == 3
        for number in (300, 301):
            assert len(np.unique(cars.object_map[two_cars()[0] == number])) == 1
        assert [again.sample(names[name]).status for name in (A, B, C)] == ["labelled", "reviewed", "skipped"]
        assert [(one.name, one.color, one.has_instances) for one in again.categories] == [
            (one.name, one.color, one.has_instances) for one in project.categories
        ]


def test_coco_panoptic_goes_out_and_comes_back(project: Project, tmp_path: Path) -> None:
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    out = exchange.give(project.releases["v1"], "coco-panoptic", tmp_path / "out")
    value = json.loads((out / "annotations/panoptic_val.json").read_text())
    assert {one["name"]: one["isthing"] for one in value["categories"]} == {"road": 0, "car": 1}
    (annotation,) = value["annotations"]
    pixels = np.asarray(Image.open(out / "annotations/panoptic_val" / annotation["file_name"])).astype(int)
    ids = pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    assert (ids == two_cars()[0]).all()
    for one in annotation["segments_info"]:  # pycocotools measures what we say of each
        runs = coco_mask.encode(np.asfortranarray(ids == one["id"]).astype(np.uint8))
        assert int(coco_mask.area(runs)) == one["area"]
        assert coco_mask.toBbox(runs).tolist() == one["bbox"]
    index = COCO()
    regions = [{**one, "image_id": annotation["image_id"]} for one in annotation["segments_info"]]
    index.dataset = {**value, "annotations": regions}
    index.createIndex()
    assert sorted(index.getAnnIds(catIds=[2])) == [300, 301]
    data = tz.open_dataset(importers.run("coco", out, tmp_path / "imported", Wanted(annotations="panoptic")))
    found = masks(data)
    assert (found["photos-a"] == truth()["photos/a"]).all() and (
        found["photos-b"] == truth()["photos/b"]
    ).all()
    with open_project(tmp_path / "again.db") as again:
        exchange.bring(again, "coco", out)
        assert len(again.read_objects("out/val/photos-b.png").annotations) == 3


def test_hostile_names_become_numbers_and_never_paths(tmp_path: Path) -> None:
    names = ("photos/a:b*?.png", "photos/CON.png", "photos/con.PNG", "photos/-rf.png", "photos/Ünïcode ☂.png",
             "photos/..hidden", "photos/ok.png")  # fmt: skip
    with make_project(tmp_path, hw=HW, names=names[:5] + names[6:]) as project:
        for one in project.samples.all():
            project.write_mask(one.name, scene(HW), status="labelled")
        project.releases.create("v1")
        for way in exchange.WAYS_OUT:
            out = exchange.give(project.releases["v1"], way, tmp_path / way)
            stems = [path.stem for path in out.rglob("*.png")]
            assert not [stem for stem in stems if set(stem) & set('<>:"|?*\\☂') or stem.lower() == "con"]
        assert len(masks(tz.open_dataset(tmp_path / "folder"))) == 6


def test_an_image_that_is_not_the_released_one_ends_the_export_and_leaves_nothing(
    project: Project, tmp_path: Path
) -> None:
    write_photograph(project.root / A, 99, hw=HW)
    for way in exchange.WAYS_OUT:
        with pytest.raises(DataError, match="has changed since it was labelled"):
            exchange.give(project.releases["v1"], way, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_the_command_exports_and_imports(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (tuple(exchange.WAYS_IN), tuple(exchange.WAYS_OUT)) == (words.WAYS_IN, words.WAYS_OUT)
    path, out = str(project.path), str(tmp_path / "out")
    assert main(["release", path, "export", "v1", "--format", "folder", "--out", out]) == 0
    assert capsys.readouterr().out == f"Exported: {out}\n"
    assert main(["release", str(tmp_path / "new.db"), "import", out, "--format", "data-set"]) == 0
    assert "2 labels, 2 new images\n  new categories: road, car" in capsys.readouterr().out
    assert main(["release", str(tmp_path / "other.db"), "import", str(tmp_path), "--format", "labelme"]) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "home",
        "new.db",
        "out",
    ]  # no empty project is left
    capsys.readouterr()
    assert main(["release", path, "export", "v1", "--out", out]) == 2
    assert "export needs --format" in capsys.readouterr().err
    assert main(["release", path, "list", "--out", out]) == 2
    assert "--out is a word of export" in capsys.readouterr().err
    with pytest.raises(UnknownNameError, match="There is no format 'cocoo'"):
        exchange.give(project.releases["v1"], "cocoo", out)


def test_what_images_say_beside_their_pixels_is_not_given_away(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (50.0, 52.0, 47.9), 3: "E", 4: (4.0, 42.0, 1.2)})
    (folder / "photos").mkdir(parents=True)
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(
        folder / "photos/place.jpg", exif=exif
    )
    with open_project(folder / "street.db") as project:
        project.add_folder(folder / "photos")
        project.categories.add("road")
        project.write_mask("photos/place.jpg", np.ones((4, 4), np.uint16), status="labelled")
        project.releases.create("v1")
        for form in exchange.WAYS_OUT:
            out = exchange.give(project.releases["v1"], form, tmp_path / form)
            whole = b"".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file())
            assert b"\xff\xd8\xff" in whole, "the image is there"
            assert b"Exif" not in whole or not _places(whole), form
        given = Image.open(tmp_path / "segments" / "images" / "photos" / "place.jpg")
        assert given.getexif()[0x0112] == 6 and not given.getexif().get_ifd(0x8825)
        assert (np.asarray(given) == np.asarray(Image.open(folder / "photos/place.jpg"))).all()


def _places(data: bytes) -> list[object]:
    start = data.index(b"\xff\xd8\xff")
    return list(Image.open(io.BytesIO(data[start:])).getexif().get_ifd(0x8825))


def test_a_release_that_was_withdrawn_is_neither_given_away_nor_trained_on(
    project: Project, tmp_path: Path
) -> None:
    before = project.releases["v1"]
    project.releases.withdraw("v1", reason="faces", author="ann")
    for attempt in (
        lambda: exchange.give(project.releases["v1"], "folder", tmp_path / "out"),
        lambda: tz.open_dataset(f"{project.path}@v1"),
    ):
        with pytest.raises(ProjectError, match="The release v1 was withdrawn.\n  found: by ann at .*: faces"):
            attempt()
    assert not (tmp_path / "out").exists()
    again = project.releases["v1"]
    assert (again.id, again.manifest) == (before.id, before.manifest) and project.releases.verify("v1") == []
    with pytest.raises(UsageError, match="was withdrawn already"):
        project.releases.withdraw("v1")
    deed = project.audit(most=1)[0]
    assert (deed.action, deed.author, deed.detail["reason"]) == ("release withdrawn", "ann", "faces")
    with pytest.raises(sqlite3.IntegrityError, match="a withdrawal stays"), project.store.transaction() as db:
        db.execute("DELETE FROM withdrawals")


def test_a_dry_run_tells_what_would_come_and_nothing_came(project: Project, tmp_path: Path) -> None:
    src = exchange.give(project.releases["v1"], "folder", project.root / "given", keep_metadata=True)
    told = exchange.bring(project, "data-set", src, dry_run=True)
    counts = project.counts()
    assert (
        told.samples and told.labels and not set(told.samples) & {one.name for one in project.samples.all()}
    )
    done = exchange.bring(project, "data-set", src)
    assert (done.samples, done.labels) == (told.samples, told.labels)
    assert sum(project.counts().values()) == sum(counts.values()) + len(told.samples)
