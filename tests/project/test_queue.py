"""Models that are attached, and the queues made of what they say."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelled import make_project
from terrazzo.errors import UnknownNameError, UsageError
from terrazzo.project import Project, open_project
from terrazzo.project.measures import Area, Measure
from terrazzo.project.orders import ORDERS

A, B, C = "photos/a.png", "photos/b.png", "photos/c.png"
CLASSES = (("road", (1, 2, 3)), ("car", (4, 5, 6)), ("tram", (7, 8, 9)))
HW = (20, 30)
SEED = 2  # with which none of the three is drawn at random


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path, hw=HW) as made:
        yield made


def note(project: Project, name: str, value: float, *, labelset: str = "model:ab", **words: object) -> None:
    project.queue.note(
        name, labelset, Measure(600, value, {1: (600, value * 60)}, {}), revision=0, against=None
    )


def test_classes_become_categories_by_equal_names_alone(project: Project) -> None:
    plan = project.models.plan((*CLASSES, ("Road", (0, 0, 0))))
    assert [(one.name, one.category_id, one.similar) for one in plan] == [
        ("road", 1, None), ("car", 2, None), ("tram", None, None), ("Road", None, "road")
    ]  # fmt: skip
    one = project.models.attach("ab12", name="x", path="runs/x", classes=CLASSES)
    assert one.mapping == {"road": 1, "car": 2, "tram": None} and one.labelset == "model:ab12"
    assert one.table(project.categories.all(deleted=True)).tolist() == [1, 2, 0]


def test_missing_classes_are_added_only_where_somebody_says_so(project: Project) -> None:
    one = project.models.attach("ab12", name="x", path="runs/x", classes=CLASSES, add=["tram"])
    assert (
        project.categories["tram"].color == (7, 8, 9) and one.mapping["tram"] == project.categories["tram"].id
    )
    again = project.models.attach(
        "ab12", name="x", path="runs/x", classes=CLASSES, mapping={"tram": 2, "car": None}
    )
    assert again.mapping == {"road": 1, "car": None, "tram": 2} and len(project.models) == 1
    with pytest.raises(UsageError, match="no category of this project"):
        project.models.attach("cd", name="y", path="y", classes=CLASSES, mapping={"car": 77})
    with pytest.raises(UnknownNameError):
        project.models.attach("cd", name="y", path="y", classes=CLASSES, add=["trm"])
    assert len(project.models) == 1


def test_the_table_follows_categories_that_are_merged(project: Project) -> None:
    one = project.models.attach("ab12", name="x", path="runs/x", classes=CLASSES, add=["tram"])
    project.merge_category("tram", "car")
    assert one.table(project.categories.all(deleted=True)).tolist() == [1, 2, 2]
    project.categories.rename("road", "carriageway")
    assert one.table(project.categories.all(deleted=True)).tolist() == [1, 2, 2]


def test_a_detached_model_leaves_the_list_and_its_queues(project: Project) -> None:
    project.models.attach("ab", name="x", path="runs/x", classes=CLASSES)
    note(project, A, 0.5)
    project.queue.rank("model:ab", seed=SEED)
    assert project.queue.labelset() == "model:ab" and project.models["x"].hash == "ab"
    project.models.detach("ab")
    assert project.models.all() == [] and project.models.newest() is None and project.queue.labelset() == ""
    assert [place.score for place in project.queue.page("uncertainty", labelset="model:ab")] == [None] * 3


def test_pages_follow_the_queue_and_end_with_what_no_model_saw(project: Project) -> None:
    project.models.attach("ab", name="x", path="runs/x", classes=CLASSES)
    note(project, B, 0.25)
    note(project, C, 0.75)
    assert project.queue.rank("model:ab", seed=SEED)["uncertainty"] == 2
    first = project.queue.page("uncertainty", limit=2)
    assert [(place.name, place.score) for place in first] == [(C, 0.75), (B, 0.25)]
    assert first[0].why == "75% in doubt over the least certain tenth of its pixels, most in 'road'"
    rest = project.queue.page("uncertainty", after=first[-1].cursor)
    assert [(place.name, place.score, place.why) for place in rest] == [(A, None, "not predicted yet")]
    assert project.queue.page("uncertainty", after=rest[0].cursor) == []
    assert [place.name for place in project.queue.page("uncertainty", search="B.PNG")] == [B]
    assert len(project.queue.page("random")) == 3
    with pytest.raises(UnknownNameError):
        project.queue.page("uncertanty")
    for cursor in ("", "x", "p", "p-1", "p1;"):
        with pytest.raises(UsageError, match="none of ours"):
            project.queue.page("rare", after=cursor)


def test_next_skips_what_is_done_or_held_and_goes_round(project: Project) -> None:
    project.models.attach("ab", name="x", path="runs/x", classes=CLASSES)
    for name, value in ((A, 0.9), (B, 0.5), (C, 0.1)):
        note(project, name, value)
    project.queue.rank("model:ab", seed=SEED)
    found = [project.next(after=after) for after in (None, A, C)]
    assert [one.name for one in found if one is not None] == [A, B, A]
    project.leases.take(B, "page-2")
    assert project.next(after=A).name == C  # type: ignore[union-attr]
    project.leases.give_back(B, "page-2")
    project.write_mask(A, np.ones(HW, np.uint16), status="labelled")
    assert project.next().name == B  # type: ignore[union-attr]
    for name in (B, C):
        project.set_status(name, "skipped")
    assert project.next() is None


def test_rare_counts_what_people_labelled_and_diversity_what_is_covered(project: Project) -> None:
    project.models.attach("ab", name="x", path="runs/x", classes=CLASSES)
    mask = np.ones(HW, np.uint16)
    mask[:2] = 2
    project.write_mask(A, mask, status="labelled")
    project.prelabel(B, np.full(HW, 2, np.uint16), model="ab")  # what a model made is not labelled
    assert project.queue.labelled() == {1: 540, 2: 60, 3: 0}
    for name, seen, feature in ((A, 1, (1, 0)), (B, 1, (1, 0.1)), (C, 2, (0, 1))):
        one = Measure(600, 0.1, {seen: (600, 1.0)}, {})
        project.queue.note(name, "model:ab", one, revision=0, against=None, features=np.array(feature))
    project.queue.rank("model:ab", seed=SEED)
    rare = project.queue.page("rare")
    assert rare[0].name == C and rare[0].why == "would bring 91% of all pixels of 'car'"  # 600 of 660
    diverse = project.queue.page("diversity")
    assert [place.name for place in diverse] == [C, B, A]
    assert diverse[0].why.endswith(f"distance 1.00, nearest {A}")


def test_disagreements_are_listed_by_weight_and_verdicts_stay(project: Project) -> None:
    project.models.attach("ab", name="x", path="runs/x", classes=CLASSES)
    areas = (Area(3, 4, 2, 5, 6, 30, 1, 2, 0.9), Area(9, 9, 9, 2, 2, 200, 2, 1, 0.8))
    one = Measure(600, 0.1, {1: (600, 1.0)}, {(1, 1): 370, (1, 2): 30, (2, 1): 200}, areas)
    project.queue.note(A, "model:ab", one, revision=0, against="label")
    found = project.queue.disagreements("model:ab")
    assert [(place.sample, place.area) for place in found] == [(A, areas[1]), (A, areas[0])]
    project.queue.decide("model:ab", A, 9, 9, "label")
    project.queue.note(A, "model:ab", one, revision=1, against="label")
    assert [place.area for place in project.queue.disagreements("model:ab")] == [areas[0]]
    assert len(project.queue.disagreements("model:ab", is_open=False)) == 2
    assert project.queue.disagreements("model:ab", pair=(2, 1)) == []
    assert project.queue.contradicting("model:ab", 2, 1) == [(A, 200)]
    with pytest.raises(UsageError, match="no disagreement at"):
        project.queue.decide("model:ab", A, 1, 1, "model")
    with pytest.raises(UnknownNameError):
        project.queue.decide("model:ab", A, 9, 9, "both")
    project.queue.rank("model:ab", seed=SEED)
    assert project.queue.page("disagreement")[0].why == (
        "38.3% of its pixels differ from the label, most 'car' seen as 'road'"
    )


def test_a_label_that_changed_since_makes_its_measure_stale(project: Project) -> None:
    project.prelabel(A, np.ones(HW, np.uint16), model="ab")
    assert project.queue.stale("model:ab") == [A]
    project.queue.note(
        A, "model:ab", Measure(600, 0.1, {}, {}), revision=project.sample(A).head, against=None
    )
    assert project.queue.stale("model:ab") == []
    project.write_mask(A, np.full(HW, 2, np.uint16))
    assert project.queue.stale("model:ab") == [A]


def test_a_project_of_the_first_format_gets_its_queues(tmp_path: Path) -> None:
    from terrazzo.project import schema

    db = sqlite3.connect(tmp_path / "old.db")
    db.executescript(schema.STEPS[0])
    db.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    db.execute("PRAGMA user_version = 1")
    db.close()
    with open_project(tmp_path / "old.db") as project:
        assert project.models.all() == [] and project.queue.page("random") == []


def test_pages_of_ten_thousand_samples_are_quick(tmp_path: Path) -> None:
    with open_project(tmp_path / "many.db") as project, project.store.transaction() as db:
        db.executemany(
            "INSERT INTO samples (name, path, sha256, bytes, mtime_ns, height, width, orientation) "
            "VALUES (?1, ?1, '', 0, 0, 20, 30, 1)",
            [(f"{number:05d}.jpg",) for number in range(10_000)],
        )
        db.executemany(
            "INSERT INTO queue SELECT 'model:ab', ?, id, id, 1.0, '', 0 FROM samples",
            [(order,) for order in ORDERS],
        )
    with open_project(tmp_path / "many.db") as project:
        began, cursor = time.perf_counter(), None
        for _ in range(3):
            page = project.queue.page("rare", labelset="model:ab", after=cursor)
            cursor = page[-1].cursor
        assert [page[0].name, page[-1].name] == ["00200.jpg", "00299.jpg"]
        assert time.perf_counter() - began < 3 * 0.2
