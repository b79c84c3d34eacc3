"""Labels: what is written comes back; who writes on what others changed is merged or refused, and nothing is lost."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from labelled import HW, make_project, scene
from terrazzo.errors import (
    DamagedLabelError,
    DatasetFormatError,
    MaskValueError,
    ProjectError,
    StaleRevisionError,
    UsageError,
)
from terrazzo.project import Project, open_project
from terrazzo.project.operations import Operation
from terrazzo.project.tiles import TILE, cut

A, B = "photos/a.png", "photos/b.png"
TOP, BOTTOM = (0, 0), (1, 0)  # places of tiles


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path)
    made.write_mask(A, scene(), author="ann")
    yield made
    made.close()


def tile_of(project: Project, place: tuple[int, int], revision: int | None = None) -> np.ndarray:
    row, column = place
    whole = project.read_objects(A, revision).object_map
    return whole[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE].copy()


def drawn(project: Project, place: tuple[int, int], value: int, *, at: int = 0) -> np.ndarray:
    tile = tile_of(project, place, 1)
    tile[:3, at : at + 5] = value
    return tile


def test_a_mask_comes_back_as_it_was_written(project: Project) -> None:
    back = project.read_mask(A)
    assert back.dtype == np.uint16 and (back == scene()).all()
    assert (project.read_mask(A, 0) == 0).all()
    assert (project.read_mask(B) == 0).all() and project.sample(B).head == 0


def test_a_mask_becomes_one_object_for_each_category(project: Project) -> None:
    label = project.read_objects(A)
    assert [(one.id, one.category_id, one.source) for one in label.annotations] == [
        (1, 1, "manual"), (2, 2, "manual"), (3, 3, "manual")
    ]  # fmt: skip
    assert label.revision == 1 and len(label.tree_hash) == 64


def test_objects_whose_pixels_keep_their_category_stay_when_a_mask_is_written(project: Project) -> None:
    two_cars = np.zeros(HW, np.uint16)
    two_cars[:9], two_cars[20:29], two_cars[40:] = 7, 8, 5
    objects = [{"id": 7, "category_id": 2, "source": "sam", "attributes": {"parked": True}},
               {"id": 8, "category_id": 2}, {"id": 5, "category_id": 1}]  # fmt: skip
    project.write_objects(B, two_cars, objects)
    mask = project.read_mask(B)
    mask[20:24], mask[30:35] = 1, 2  # a car loses half of itself to the road, a third one appears
    project.write_mask(B, mask, source="superpixel")
    label = project.read_objects(B)
    expected = two_cars.copy()
    expected[20:24], expected[30:35] = 5, 1
    assert (label.object_map == expected).all()
    assert [(one.id, one.category_id, one.source) for one in label.annotations] == [
        (1, 2, "superpixel"), (5, 1, "manual"), (7, 2, "sam"), (8, 2, "manual")
    ]  # fmt: skip
    assert label.annotations[2].attributes == {"parked": True}


def test_equal_labels_have_equal_hashes_and_share_their_tiles(project: Project) -> None:
    project.write_mask(B, scene())
    with project.store.reading() as db:
        count = db.execute("SELECT count(*) FROM tiles").fetchone()[0]
    assert project.read_objects(A).tree_hash == project.read_objects(B).tree_hash
    assert count == len({tile.tobytes() for _, tile in cut(scene())}) == 4


def test_changes_of_different_tiles_merge(project: Project) -> None:
    first = project.write(A, Operation(1, {TOP: drawn(project, TOP, 2)}))
    second = project.write(A, Operation(1, {BOTTOM: drawn(project, BOTTOM, 0)}))
    assert (first.revision, first.is_merged, second.revision, second.is_merged) == (2, False, 3, True)
    expected = scene()
    expected[:3, :5], expected[TILE : TILE + 3, :5] = 2, 0
    assert (project.read_mask(A) == expected).all()


def test_changes_of_one_tile_are_refused_with_what_stands_and_kept(project: Project) -> None:
    project.write(A, Operation(1, {TOP: drawn(project, TOP, 2)}, author="ann"))
    mine = drawn(project, TOP, 3, at=10)
    with pytest.raises(StaleRevisionError, match="was changed by somebody else, in the same place") as caught:
        project.write(A, Operation(1, {TOP: mine}, author="ben"))
    assert (caught.value.current, caught.value.branch) == (2, 3)
    assert (tile_of(project, TOP) == drawn(project, TOP, 2)).all()
    assert (tile_of(project, TOP, 3) == mine).all()
    assert [(one.number, one.parent, one.kind, one.author) for one in project.revisions(A)] == [
        (3, 1, "branch", "ben"), (2, 1, "write", "ann"), (1, 0, "write", "ann")
    ]  # fmt: skip


def test_the_same_change_by_two_is_no_conflict(project: Project) -> None:
    tile = drawn(project, TOP, 2)
    first = project.write(A, Operation(1, {TOP: tile}))
    second = project.write(A, Operation(1, {TOP: tile}))
    assert first.tree_hash == second.tree_hash


def test_two_new_cars_of_one_number_are_two_cars_but_the_road_is_one(project: Project) -> None:
    there = [one.to_json() for one in project.read_objects(A).annotations]
    car = [*there, {"id": 9, "category_id": 2}]
    project.write(A, Operation(1, {TOP: drawn(project, TOP, 9)}, car))
    with pytest.raises(StaleRevisionError):
        project.write(A, Operation(1, {BOTTOM: drawn(project, BOTTOM, 9)}, car))
    base = project.sample(A).head
    sky = project.categories.add("sky")
    both = [*car, {"id": 10, "category_id": sky.id}]
    for place in (TOP, BOTTOM):
        tile = tile_of(project, place, base)
        tile[5, 5] = 10
        project.write(A, Operation(base, {place: tile}, both))
    assert (project.read_mask(A)[[5, TILE + 5], [5, 5]] == sky.id).all()


def test_drawing_on_an_object_that_another_deleted_is_refused(project: Project) -> None:
    without = [one for one in project.read_objects(A).annotations if one.id != 3]
    blank = {place: np.where(tile == 3, 0, tile) for place, tile in cut(project.read_objects(A).object_map)}
    project.write(A, Operation(1, blank, without))
    with pytest.raises(StaleRevisionError):
        project.write(A, Operation(1, {TOP: drawn(project, TOP, 3)}))


def test_an_operation_that_comes_again_is_answered_again_and_not_done_again(project: Project) -> None:
    operation = Operation(1, {TOP: drawn(project, TOP, 2)}, client_id="page", seq=7, tool="brush", ms=420)
    first = project.write(A, operation)
    project.write(A, Operation(2, {TOP: drawn(project, TOP, 3)}))
    again = project.write(A, operation)
    assert (again.revision, again.tree_hash, again.is_replay) == (first.revision, first.tree_hash, True)
    assert (tile_of(project, TOP) == drawn(project, TOP, 3)).all()
    assert [(one.tool, one.ms) for one in project.revisions(A)][1] == ("brush", 420)
    with pytest.raises(UsageError, match="used the number 7 twice, for two operations"):
        project.write(A, Operation(3, {TOP: drawn(project, TOP, 2)}, client_id="page", seq=7))


def test_a_refusal_that_comes_again_is_the_same_refusal(project: Project) -> None:
    project.write(A, Operation(1, {TOP: drawn(project, TOP, 2)}))
    for _ in range(2):
        with pytest.raises(StaleRevisionError) as caught:
            project.write(A, Operation(1, {TOP: drawn(project, TOP, 3)}, client_id="page", seq=1))
        assert (caught.value.current, caught.value.branch) == (2, 3)
    assert len(project.revisions(A)) == 3


@pytest.mark.parametrize(
    ("operation", "error", "sentence"),
    [
        (lambda p: Operation(1, {TOP: drawn(p, TOP, 99)}), MaskValueError, "found: 99 (15 pixels)"),
        (lambda p: Operation(1, {(5, 5): np.zeros((2, 2), np.uint16)}), UsageError, "has no tile (5, 5)"),
        (lambda p: Operation(1, {TOP: np.zeros((9, 9), np.uint16)}), MaskValueError, "found: shape (9, 9), uint16"),
        (lambda p: Operation(1, {TOP: drawn(p, TOP, 1).astype(float)}), MaskValueError, "float64"),
        (lambda p: Operation(1, {TOP: drawn(p, TOP, 1).astype(int) - 1}), MaskValueError, "found: -1 to"),
        (lambda p: Operation(8, {}), UsageError, "has no revision 8"),
        (lambda p: Operation(1, {}, [{"id": 1, "category_id": 77}]), MaskValueError, "do not name"),
        (lambda p: Operation(1, {}, [{"id": n, "category_id": 77} for n in (1, 2, 3)]), DatasetFormatError,
         "object 1 of category 77, which there is none of"),
        (lambda p: Operation(1, {}, [{"id": n, "category_id": 1} for n in (1, 2, 3)]), DatasetFormatError,
         "objects 1 and 2 are both 'road', which has no instances"),
        (lambda p: Operation(1, {}, [{"id": 0, "category_id": 1}, {"id": 2, "category_id": 1, "source": "me"}, 5]),
         DatasetFormatError, "an object with id 0, not 1-65,535\n  object 2 from 'me'\n  5, which is no annotation"),
        (lambda p: Operation(1, {}, client_id="x", seq=-1), UsageError, "whole number from 0 on"),
        (lambda p: Operation(1, {}, client_id="x" * 999), UsageError, "a text of up to 200 characters"),
    ],
)  # fmt: skip
def test_what_makes_no_label_is_refused_and_nothing_changes(
    project: Project, operation, error, sentence
) -> None:
    with pytest.raises(error) as caught:
        project.write(A, operation(project))
    assert sentence in str(caught.value)
    assert project.sample(A).head == 1 and len(project.revisions(A)) == 1


def test_a_mask_of_unknown_categories_or_of_another_size_is_refused(project: Project) -> None:
    with pytest.raises(
        MaskValueError, match=r"found: 9 \(4 pixels\)\n  expected: 0 \(nobody drew\), 1 \(road\)"
    ):
        project.write_mask(A, np.pad(np.full((2, 2), 9), ((0, HW[0] - 2), (0, HW[1] - 2))))
    with pytest.raises(MaskValueError, match=r"expected: shape \(530, 520\)"):
        project.write_mask(A, scene().T)


def damage(project: Project, change: str) -> None:
    """Let the disk lose or turn the tile that has the car in it, as a dying disk does; then open the project anew."""
    project.close()
    db = sqlite3.connect(project.path)
    db.execute("DROP TRIGGER tiles_last")
    heaviest = "(SELECT hash FROM tiles ORDER BY length(data) DESC LIMIT 1)"
    db.execute(f"{change} WHERE hash = {heaviest}")
    db.commit()
    db.close()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM tiles", "it is missing"),
        ("UPDATE tiles SET data = x'00112233'", "incorrect header check"),
        ("UPDATE tiles SET data = substr(data, 1, length(data) - 9)", "bytes or more instead of"),
        ("UPDATE tiles SET data = (SELECT data FROM tiles ORDER BY length(data) LIMIT 1)", "instead of"),
    ],
)  # fmt: skip
def test_a_damaged_tile_is_an_error_and_never_an_empty_label(
    project: Project, change: str, found: str
) -> None:
    project.write_mask(A, scene() * 0 + 1)
    project.write_mask(A, scene())
    damage(project, change)
    with open_project(project.path) as opened:
        with pytest.raises(
            DamagedLabelError, match=rf"photos/a.png' \(revision 3\), tile \(0, 0\)(.|\n)*{found}"
        ):
            opened.read_mask(A)
        with pytest.raises(DamagedLabelError):  # read-only: what is left of it is not written over
            opened.write(A, Operation(3, {BOTTOM: np.zeros((18, 512), np.uint16)}))
        with pytest.raises(DamagedLabelError):
            opened.write_mask(A, scene())
        with pytest.raises(DamagedLabelError):
            opened.undo(A) and opened.restore(A, 1)
        assert opened.sample(A).head in (3, 4)
        opened.restore(A, 2)
        assert (opened.read_mask(A) == 1).all()
        opened.write_mask(A, scene() * 0 + 3)


def test_a_damaged_list_of_objects_is_an_error_too(project: Project) -> None:
    project.close()
    db = sqlite3.connect(project.path)
    db.execute("UPDATE documents SET data = x'789c0300000001'")
    db.commit()
    db.close()
    with open_project(project.path) as opened, pytest.raises(DamagedLabelError, match="cannot be read"):
        opened.read_mask(A)


def test_what_was_just_drawn_can_be_labelled_but_not_reviewed_at_once(project: Project) -> None:
    project.write_mask(A, scene(), status="labelled")
    with pytest.raises(ProjectError, match="cannot be reviewed at once"):
        project.write_mask(A, scene(), status="reviewed")
    assert project.sample(A).status == "labelled"
