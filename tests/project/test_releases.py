"""Releases: for ever, compared, verified, and a data set that is trained on."""

import hashlib
import json
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from labelled import make_project, scene, write_photograph
from terrazzo.cli import main
from terrazzo.data import doctor
from terrazzo.errors import (
    DataError,
    DatasetFormatError,
    MissingPathError,
    ProjectError,
    UnknownNameError,
    UsageError,
)
from terrazzo.project import Project, manifest, open_project

A, B, C = "photos/a.png", "photos/b.png", "photos/c.png"
CLASS_OF = np.array([255, 0, 1, 255])  # nobody drew, road, car, unclear: worked by hand


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path) as made:
        made.write_mask(A, scene(), status="labelled", author="ann")
        made.write_mask(B, scene() * 0 + 1, status="labelled")
        made.set_status(B, "reviewed")
        yield made


def test_a_release_is_the_hash_of_all_it_names(project: Project) -> None:
    release = project.releases.create("v1", description="the first")
    with project.store.reading() as db:
        (data,) = db.execute("SELECT manifest FROM releases").fetchone()
    assert hashlib.sha256(data).hexdigest() == release.id
    value = json.loads(data)
    assert json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data
    first = value["samples"][0]
    assert first["sha256"] == hashlib.sha256((project.root / A).read_bytes()).hexdigest()
    assert first["tree"] == project.read_objects(A).tree_hash and first["author"] == "ann"
    assert [one["status"] for one in value["samples"]] == ["labelled", "reviewed", "todo"]
    assert value["terrazzo"] == tz.__version__ and value["parent"] is None


def test_a_release_stays_whatever_becomes_of_the_project(project: Project) -> None:
    project.releases.create("v1")
    project.write_mask(A, scene() * 0)
    project.merge_category("unclear", "road")
    project.categories.rename("car", "vehicle")
    release = project.releases["v1"]
    assert [one.name for one in release.categories] == ["road", "car", "unclear"]
    assert (release.label(release.samples[0]).mask() == scene()).all()
    assert project.releases[release.id[:8]].id == release.id
    assert project.releases.verify("v1") == []


def test_a_name_is_taken_once_and_must_be_one(project: Project) -> None:
    project.releases.create("v1")
    with pytest.raises(UsageError, match="There is a release 'v1' already, and it cannot be changed"):
        project.releases.create("v1")
    for name in ("", "../v1", "v 1", "-x", "v@1", "x" * 101):
        with pytest.raises(UsageError, match="A release cannot be called"):
            project.releases.create(name)
    with pytest.raises(UnknownNameError, match="Did you mean 'v1'"):
        project.releases["v2"]


def test_a_release_is_whole_or_absent(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("terrazzo.project.audit.note", fails)  # the last thing that is done
    with pytest.raises(KeyboardInterrupt):
        project.releases.create("v1")
    assert project.releases.names() == []
    monkeypatch.undo()
    assert project.releases.create("v1").parent is None


def test_nothing_is_nothing_to_release(tmp_path: Path) -> None:
    with open_project(tmp_path / "street.db") as project, pytest.raises(ProjectError, match="has no images"):
        project.releases.create("v1")


def test_a_diff_says_what_is_new_and_counts_the_pixels(project: Project) -> None:
    project.releases.create("v1")
    mask = scene()
    mask[:2, :10] = 2
    project.write_mask(A, mask, status="labelled")
    write_photograph(project.root / "photos" / "d.png", 5, hw=(10, 10))
    project.add_folder(project.root / "photos")
    project.categories.add("sky")
    project.categories.recolor("car", (1, 2, 3))
    project.releases.create("v2")
    diff = project.releases.diff("v2")
    assert (diff.old, diff.new, diff.added, diff.removed, diff.changed) == (
        "v1",
        "v2",
        ("photos/d.png",),
        (),
        (A,),
    )
    road = int((scene() == 1).sum()) + scene().size
    cars = int((scene() == 2).sum())
    blank = int((scene() == 0).sum()) + scene().size  # photos/c.png has no label
    assert diff.pixels == {"unlabelled": (blank, blank - 20 + 100), "road": (road, road), "car": (cars, cars + 20),
                           "unclear": (48, 48), "sky": (0, 0)}  # fmt: skip
    assert diff.categories == ("category 'sky' is new", "category 'car': color [0, 0, 142] -> [1, 2, 3]")
    back = project.releases.diff("v1", "v2")
    assert back.removed == ("photos/d.png",)
    assert manifest.changes(None, project.releases["v1"].manifest)[0] == [A, B, C]


def test_verify_names_every_image_and_tile_that_is_not_what_it_was(project: Project) -> None:
    project.releases.create("v1")
    assert project.releases.verify("v1") == []
    write_photograph(project.root / A, 99)
    (project.root / C).unlink()
    project.close()
    db = sqlite3.connect(project.path)
    heaviest = "WHERE hash = (SELECT hash FROM tiles ORDER BY length(data) DESC LIMIT 1)"
    db.execute(f"UPDATE tiles SET data = x'00' {heaviest}")
    db.execute(f"UPDATE tiles SET counts = x'0100000001000000' {heaviest}")
    db.commit()
    db.close()
    with open_project(project.path) as opened:
        told = "\n".join(opened.releases.verify("v1"))
    assert "The image of 'photos/a.png' has changed since it was labelled" in told
    assert "The image of 'photos/c.png' is gone" in told
    assert "The label of 'photos/a.png' (v1), tile (0, 0) cannot be read" in told
    assert "is counted wrongly" in told
    assert "photos/b.png' is gone" not in told


def test_a_manifest_that_was_changed_is_no_release_any_more(project: Project) -> None:
    project.releases.create("v1")
    project.close()
    db = sqlite3.connect(project.path)
    db.execute("DROP TRIGGER releases_stay")
    other = "CAST(replace(CAST(manifest AS TEXT), 'labelled', 'reviewed') AS BLOB)"
    db.execute(f"UPDATE releases SET manifest = {other}")
    db.commit()
    db.close()
    with open_project(project.path) as opened:
        assert "is damaged" in opened.releases.verify("v1")[0]
        with pytest.raises(ProjectError, match="is damaged"):
            opened.releases["v1"]


# -- as a data set -------------------------------------------------------------------------------------------------


def test_a_release_opens_as_a_data_set(project: Project) -> None:
    release = project.releases.create("v1")
    project.write_mask(A, scene() * 0)  # later than the release
    data = tz.open_dataset(f"{project.path}@v1")
    assert data.classes.names == ("road", "car") and data.classes.colors[0] == (128, 64, 128)
    assert data.fingerprint == release.id
    assert sorted(name for split in data.splits.values() for name in split.names) == ["photos/a", "photos/b"]
    assert "1 samples of the release are not labelled yet, and left out." in data.notes
    by_name = {
        name: (split, place) for split in data.splits.values() for place, name in enumerate(split.names)
    }
    split, place = by_name["photos/a"]
    sample = pickle.loads(pickle.dumps(split))[place]
    assert (sample.image == project.read_image(A)).all()
    assert (sample.mask == CLASS_OF[scene()]).all()
    kept = tz.open_dataset(f"{project.path}@v1")
    assert kept.fingerprint == data.fingerprint
    assert tz.data.open_dataset(f"{project.path}@v1", keep_void=True).classes.names == (
        "road",
        "car",
        "unclear",
    )


def test_a_release_is_read_while_others_go_on_labelling(project: Project) -> None:
    project.releases.create("v1")
    project.close()
    data = tz.open_dataset(f"{project.path}@v1")
    split = next(one for one in data.splits.values() if "photos/a" in one.names)
    place = split.names.index("photos/a")
    assert (split.read_mask(place) == CLASS_OF[scene()]).all()
    noise = np.random.default_rng(0)
    with open_project(project.path) as page:
        for _ in range(5):
            page.write_mask(A, noise.integers(0, 4, scene().shape).astype(np.uint16))
            assert (split.read_mask(place) == CLASS_OF[scene()]).all()
    assert (split.read_mask(place) == CLASS_OF[scene()]).all()


def test_splits_are_those_of_the_release(project: Project) -> None:
    project.set_split([B], "val")
    project.releases.create("v1")
    data = tz.open_dataset(f"{project.path}@v1")
    assert {name: split.names for name, split in data.splits.items()} == {
        "train": ["photos/a"],
        "val": ["photos/b"],
    }
    assert data.split_manifest is None


def test_an_image_that_changed_since_is_not_trained_on(project: Project) -> None:
    project.releases.create("v1")
    data = tz.open_dataset(f"{project.path}@v1")
    write_photograph(project.root / A, 99)
    with pytest.raises(DataError, match="has changed since it was labelled"):
        _ = [sample for split in data.splits.values() for sample in split]


def test_what_is_no_release_is_told_in_words(project: Project, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetFormatError, match=r"is a labelling project(.|\n)*no releases(.|\n)*terrazzo release"
    ):
        tz.open_dataset(project.path)
    project.releases.create("v1")
    with pytest.raises(DatasetFormatError, match="releases: v1\n  expected: .*street.db@v1"):
        tz.open_dataset(project.path)
    with pytest.raises(DatasetFormatError, match="is a labelling project"):
        doctor.check(project.path)
    assert doctor.check(f"{project.path}@v1").ok
    with pytest.raises(UnknownNameError, match="There is no release 'v9'"):
        tz.open_dataset(f"{project.path}@v9")
    with pytest.raises(MissingPathError, match="There is no file"):
        tz.open_dataset(f"{tmp_path / 'other.db'}@v1")
    project.set_status(A, "in_progress")
    project.set_status(B, "in_progress")
    project.releases.create("v2")
    with pytest.raises(DatasetFormatError, match="has no finished labels"):
        tz.open_dataset(f"{project.path}@v2")


# -- on the command line -------------------------------------------------------------------------------------------


def test_the_command_creates_lists_shows_compares_and_verifies(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(project.path)
    assert main(["release", path, "list"]) == 0
    assert "No releases yet" in capsys.readouterr().out
    assert main(["release", path, "create", "v1", "--description", "the first"]) == 0
    assert f"--data {path}@v1" in capsys.readouterr().out
    assert main(["release", path, "show", "v1"]) == 0
    shown = capsys.readouterr().out
    assert (
        "labelled 1, reviewed 1, todo 1" in shown and "the first" in shown and "48 pixels  unclear" in shown
    )
    assert main(["release", path, "show", "v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "v1"
    assert main(["release", path, "diff", "v1"]) == 0
    assert main(["release", path, "list"]) == 0
    assert "3 samples" in capsys.readouterr().out
    assert main(["release", path, "verify", "v1"]) == 0
    (project.root / A).unlink()
    assert main(["release", path, "verify", "v1"]) == 1
    assert "The image of 'photos/a.png' is gone" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["create"], 2, "create takes the name of one release."),
        (["list", "v1"], 2, "list takes no name."),
        (["diff", "a", "b", "c"], 2, "diff takes one or two releases."),
        (["verfiy", "v1"], 2, "Did you mean 'verify'"),
        (["show", "v1"], 2, "There is no release 'v1'"),
    ],
)
def test_misuse_is_told(project: Project, capsys: pytest.CaptureFixture[str], words, code, sentence) -> None:
    assert main(["release", str(project.path), *words]) == code
    assert sentence in capsys.readouterr().err
