"""Images, categories, statuses, leases, issues, predictions: each keeps to its words."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelled import make_project, scene, write_photograph
from terrazzo.data.importers.segments_json import STATUSES as THEIRS
from terrazzo.errors import (
    DamagedLabelError,
    DataError,
    DatasetFormatError,
    MaskValueError,
    MissingPathError,
    ProjectError,
    ProjectInUseError,
    UnknownNameError,
    UsageError,
)
from terrazzo.project import Project, open_project, statuses
from terrazzo.project.leases import TTL, Leases

A, B, C = "photos/a.png", "photos/b.png", "photos/c.png"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path) as made:
        yield made


# -- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_image(tmp_path: Path, orientation: int) -> None:
    write_photograph(tmp_path / "turned.jpg", 0, hw=(24, 40), orientation=orientation)
    with open_project(tmp_path / "street.db") as project:
        project.add_images([tmp_path / "turned.jpg"])
        one = project.sample("turned.jpg")
        assert (
            one.size_hw
            == ((24, 40) if orientation < 5 else (40, 24))
            == project.read_image("turned.jpg").shape[:2]
        )
        assert one.orientation == orientation


def test_adding_twice_adds_once(project: Project) -> None:
    assert project.add_folder(project.root / "photos") == []
    write_photograph(project.root / "photos" / "new.jpg", 9)
    assert project.add_folder(project.root / "photos", split="val") == ["photos/new.jpg"]
    assert project.sample("photos/new.jpg").split == "val" and len(project) == 4


def test_what_cannot_be_added_is_listed_whole_and_nothing_is_added(project: Project, tmp_path: Path) -> None:
    outside = write_photograph(tmp_path.parent / f"{tmp_path.name}-outside.png", 1, hw=(8, 8))
    good = write_photograph(tmp_path / "good.png", 1, hw=(8, 8))
    (tmp_path / "photos" / "link.png").symlink_to(outside)
    (tmp_path / "text.png").write_text("no image")
    bomb = bytearray(good.read_bytes())
    bomb[16:24] = (1 << 30).to_bytes(4) * 2
    (tmp_path / "bomb.png").write_bytes(bomb)
    odd = write_photograph(tmp_path / "line\nbreak.png", 1, hw=(8, 8))
    bad = [outside, tmp_path / "photos" / "link.png", tmp_path / "text.png", tmp_path / "bomb.png", odd,
           tmp_path / "photos" / ".." / ".." / outside.name, tmp_path / "gone.png"]  # fmt: skip
    with pytest.raises(DataError) as caught:
        project.add_images([good, *bad])
    told = str(caught.value)
    assert told.startswith("7 of 8 images cannot be added; none was.")
    for words in (
        "lies outside the project's root",
        "link.png' leads out of the project's root",
        "text.png",
        "bomb.png",
        "break.png' is a name that cannot be shown",
        "gone.png cannot be read",
    ):
        assert words in told
    assert len(project) == 3
    os.unlink(outside)


def test_an_image_that_changed_or_went_under_its_label_is_told_and_the_label_stays(project: Project) -> None:
    project.write_mask(A, scene())
    assert project.samples.state(project.sample(A)) == "there"
    path = project.root / A
    os.utime(path, ns=(1, 1))
    assert project.samples.state(project.sample(A)) == "there"  # touched is not changed
    write_photograph(path, 77)
    assert project.samples.state(project.sample(A)) == "changed"
    with pytest.raises(DataError, match=r"The image of 'photos/a.png' has changed since it was labelled"):
        project.read_image(A)
    with pytest.raises(DataError, match=r"photos/a.png has changed since it was labelled"):
        project.add_images([path])
    path.unlink()
    assert project.samples.state(project.sample(A)) == "missing"
    with pytest.raises(DataError, match=r"The image of 'photos/a.png' is gone"):
        project.read_image(A)
    assert (project.read_mask(A) == scene()).all()


def test_an_image_that_nobody_drew_on_may_change(project: Project) -> None:
    write_photograph(project.root / B, 77, hw=(60, 50))
    project.add_images([project.root / B])
    assert project.sample(B).size_hw == (60, 50)


def test_a_link_that_is_bent_later_is_refused_when_it_is_read(project: Project, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-secret.png"
    (project.root / A).rename(outside)
    (project.root / A).symlink_to(outside)
    with pytest.raises(ProjectError, match="leads out of the project's root"):
        project.read_image(A)
    outside.unlink()


def test_names_get_their_nearest(project: Project) -> None:
    with pytest.raises(
        UnknownNameError, match=r"There is no sample 'photos/d.png'(.|\n)*Did you mean 'photos/"
    ):
        project.read_mask("photos/d.png")
    (project.root / "empty").mkdir()
    with pytest.raises(MissingPathError, match="There are no images in"):
        project.add_folder(project.root / "empty")


# -- categories ----------------------------------------------------------------------------------------------------


def test_renaming_and_recoloring_change_no_label(project: Project) -> None:
    before = project.write_mask(A, scene()).tree_hash
    project.categories.rename("road", "carriageway")
    project.categories.recolor("carriageway", (1, 2, 3))
    assert project.categories["carriageway"].color == (1, 2, 3)
    assert project.read_objects(A).tree_hash == before
    with pytest.raises(UsageError, match="There is a category 'car' already"):
        project.categories.rename("carriageway", "car")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "x" * 201, "\x1b[31m"])
def test_names_that_cannot_be_shown_are_refused(project: Project, name: str) -> None:
    with pytest.raises(UsageError, match="needs a name that can be shown"):
        project.categories.add(name)


def test_a_name_may_hold_what_a_page_must_escape(project: Project) -> None:
    name = "<img src=x onerror=alert(1)>'; DROP TABLE tiles; --"
    assert project.categories.add(name).name == name == project.categories[name].name


def test_a_used_category_is_not_deleted_but_merged_by_a_plan_that_says_what_it_touches(
    project: Project,
) -> None:
    mask = scene()
    project.write_mask(A, mask)
    project.write_mask(B, mask * 0 + 1)
    with pytest.raises(UsageError, match=r"'unclear' is used(.|\n)*1 objects of 48 pixels in photos/a.png"):
        project.delete_category("unclear")
    planned = project.plan_merge("unclear", "road")
    assert (planned.samples, planned.objects, planned.pixels) == ((A,), 1, 48)
    assert (project.read_mask(A) == mask).all()  # a plan changes nothing
    assert project.merge_category("unclear", "road") == planned
    assert (project.read_mask(A) == np.where(mask == 3, 1, mask)).all()
    assert [one.id for one in project.read_objects(A).annotations] == [1, 2]  # the road is one
    assert (project.read_mask(A, 1) == mask).all() and project.sample(B).head == 1
    assert [one.name for one in project.categories] == ["road", "car"]
    assert project.categories.add("new").id == 4  # 3 is never given again


def test_an_open_page_that_still_draws_with_a_merged_category_draws_with_its_heir(project: Project) -> None:
    project.write_mask(A, scene())
    old = project.read_objects(A)
    project.merge_category("unclear", "road")
    project.write_objects(A, old.object_map, old.annotations)
    assert (project.read_mask(A) == np.where(scene() == 3, 1, scene())).all()
    project.restore(A, 1)
    assert (project.read_mask(A) == np.where(scene() == 3, 1, scene())).all()
    project.write_mask(A, scene() * 0)
    project.delete_category("car")
    with pytest.raises(DatasetFormatError, match="object 2 of 'car', which was deleted"):
        project.write_objects(A, old.object_map, old.annotations)


# -- statuses ------------------------------------------------------------------------------------------------------


def test_statuses_are_segments_ais_one_to_one() -> None:
    assert set(statuses.TO_SEGMENTS) == set(statuses.STATUSES) == set(statuses.NEXT)
    assert len(set(statuses.TO_SEGMENTS.values())) == len(statuses.STATUSES)
    assert set(statuses.FROM_SEGMENTS) == set(THEIRS)
    assert all(statuses.FROM_SEGMENTS[theirs] == ours for ours, theirs in statuses.TO_SEGMENTS.items())


def test_a_label_goes_its_way_and_whoever_draws_puts_it_in_progress(project: Project) -> None:
    project.write_mask(A, scene(), author="ann")
    for status, reason in (("labelled", None), ("rejected", "the kerb"), ("in_progress", None), ("labelled", None),
                           ("reviewed", None)):  # fmt: skip
        project.set_status(A, status, reason=reason, author="ben")
    assert project.counts() | {"todo": 2} == {**dict.fromkeys(statuses.STATUSES, 0), "reviewed": 1, "todo": 2}
    project.write_mask(A, scene() * 0)
    assert project.sample(A).status == "in_progress"
    deeds = [one for one in project.audit() if one.action == "status"]
    assert [(one.author, one.detail["new"]) for one in deeds][1:3] == [
        ("ben", "reviewed"),
        ("ben", "labelled"),
    ]
    assert deeds[4].detail["reason"] == "the kerb" and deeds[4].sample == A


@pytest.mark.parametrize("wrong", ["reviewed", "rejected"])
def test_steps_that_are_not_allowed_name_those_that_are(project: Project, wrong: str) -> None:
    with pytest.raises(
        ProjectError, match=rf"cannot go from todo to {wrong}.\n  found: todo\n  expected: from there:"
    ):
        project.set_status(A, wrong, reason="because")
    with pytest.raises(UnknownNameError, match="Did you mean 'labelled'"):
        project.set_status(A, "labeled")


def test_a_rejection_needs_a_reason(project: Project) -> None:
    project.set_status(A, "labelled")
    with pytest.raises(UsageError, match="needs a reason"):
        project.set_status(A, "rejected")


# -- leases, issues, predictions -----------------------------------------------------------------------------------


def test_a_lease_keeps_others_away_until_it_ends_or_is_taken_over(project: Project) -> None:
    clock = [1000.0]
    leases = Leases(project.store, lambda: clock[0])
    leases.take(A, "page 1", author="ann")
    clock[0] += 20
    leases.take(A, "page 1", author="ann")  # renewed
    with pytest.raises(
        ProjectInUseError, match=r"Somebody else is drawing on 'photos/a.png'.\n  found: ann, for 60 s"
    ):
        leases.take(A, "page 2")
    leases.take(B, "page 2")
    clock[0] += TTL + 0.1
    assert leases.of(A) is None
    leases.take(A, "page 2", author="ben")
    taken = leases.take(A, "page 1", author="ann", take_over=True)
    assert leases.of(A) == taken
    assert project.audit(most=1)[0].action == "lease taken over"
    leases.give_back(A, "page 2")
    assert leases.of(A) == taken
    leases.give_back(A, "page 1")
    assert leases.of(A) is None


def test_a_lease_from_before_the_machine_was_started_anew_is_none(project: Project) -> None:
    Leases(project.store, lambda: 1e6).take(A, "page 1")
    assert Leases(project.store, lambda: 5.0).of(A) is None  # it would last for eleven days


def test_a_wall_clock_that_jumps_moves_no_lease(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.leases.take(A, "page 1")
    monkeypatch.setattr("time.time", lambda: 0.0)
    held = project.leases.of(A)
    assert held is not None and held.seconds > TTL - 30


def test_people_talk_about_a_pixel_until_it_is_resolved(project: Project) -> None:
    issue = project.issues.add(A, 519, 529, "<b>is this</b> road?", author="ann")
    project.issues.reply(issue.id, "no", author="ben")
    said = [(one.author, one.text) for one in project.issues.of(A)[0].comments]
    assert said == [("ann", "<b>is this</b> road?"), ("ben", "no")]
    assert project.issues.of(B) == []
    assert project.issues.resolve(issue.id, author="ann").resolved_by == "ann"
    assert project.issues.of() == [] and len(project.issues.of(resolved=True)) == 1
    with pytest.raises(UsageError, match=r"no pixel \(520, 0\)(.|\n)*x from 0 to 519, y from 0 to 529"):
        project.issues.add(A, 520, 0, "outside")
    with pytest.raises(UsageError, match="There is no issue 9"):
        project.issues.reply(9, "what?")


def test_a_prediction_becomes_the_label_only_where_nobody_drew(project: Project) -> None:
    project.write_mask(A, scene())
    guess = scene() * 0 + 1
    confidence = np.arange(guess.size, dtype=np.uint32).reshape(guess.shape).astype(np.uint8)
    assert not project.prelabel(A, guess, confidence, model="ab12")
    assert project.prelabel(B, guess, confidence, model="ab12")
    assert project.prelabel(B, guess * 2, model="cd34")  # the next model, still nobody
    assert (project.read_mask(A) == scene()).all() and project.sample(A).status == "in_progress"
    assert (project.read_mask(B) == 2).all() and project.sample(B).status == "prelabelled"
    assert [one.source for one in project.read_objects(B).annotations] == ["model:cd34"]
    offer = project.predictions.get(A, "model:ab12")
    assert (offer.mask == guess).all() and (offer.confidence == confidence).all()
    assert project.predictions.labelsets(B) == ["model:ab12", "model:cd34"]
    project.write_mask(B, guess)
    assert not project.prelabel(B, guess * 2, model="ef56")
    with pytest.raises(MaskValueError, match="ids that are no category"):
        project.prelabel(C, guess * 9, model="ab12")
    with pytest.raises(UsageError, match="A model is known by its hash"):
        project.prelabel(A, guess, model="../model")
    with pytest.raises(MaskValueError, match="The confidence for"):
        project.prelabel(C, guess, confidence[:5], model="ab12")


def test_a_damaged_prediction_is_an_error(project: Project) -> None:
    project.prelabel(A, scene(), model="ab12")
    with project.store.transaction() as db:
        db.execute("UPDATE predictions SET confidence = categories")
    with pytest.raises(
        DamagedLabelError, match="The prediction 'model:ab12' for 'photos/a.png' cannot be read"
    ):
        project.predictions.get(A, "model:ab12")
