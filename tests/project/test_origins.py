"""Who made a label, and which samples may validate: models are not scored against themselves."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelled import make_project
from terrazzo.errors import ProjectError
from terrazzo.project import Project

HW = (20, 30)
NAMES = tuple(f"photos/{number:02d}.png" for number in range(10))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path, hw=HW, names=NAMES) as made:
        yield made


def believe(project: Project, name: str) -> None:
    """A model's label that somebody calls finished without drawing."""
    project.prelabel(name, np.full(HW, 2, np.uint16), model="ab")
    project.set_status(name, "labelled")


def draw(project: Project, name: str, tool: str = "brush") -> None:
    mask = project.read_mask(name)
    mask[:5] = 1
    project.write_mask(name, mask, tool=tool, status="labelled")


def test_the_share_that_a_person_changed_is_counted_in_pixels(project: Project) -> None:
    believe(project, NAMES[0])
    untouched = project.origins.of(NAMES[0])
    assert (untouched.is_touched, untouched.changed, untouched.sources) == (False, 0.0, {"model:ab": 600})
    draw(project, NAMES[0])  # 5 of 20 rows
    touched = project.origins.of(NAMES[0])
    assert (touched.is_touched, touched.changed) == (True, 0.25)
    assert touched.sources == {"model:ab": 450, "manual": 150}
    draw(project, NAMES[1])
    assert project.origins.of(NAMES[1]).changed is None
    assert not project.origins.of(NAMES[2]).is_touched and project.origins.touched() == {NAMES[0], NAMES[1]}


def test_what_was_undone_or_only_accepted_is_no_persons(project: Project) -> None:
    believe(project, NAMES[0])
    draw(project, NAMES[0])
    project.undo(NAMES[0])
    draw(project, NAMES[1], tool="prelabel")
    assert project.origins.touched() == set()
    project.redo(NAMES[0])
    assert project.origins.touched() == {NAMES[0]}


def test_only_what_people_drew_validates(project: Project) -> None:
    for name in NAMES[:6]:
        believe(project, name)
    for name in NAMES[6:9]:
        draw(project, name)
    division = project.origins.divide()  # 9 are finished: a fifth is 2
    assert (division.train, division.val, division.untouched) == (7, 2, 6)
    assert set(division.chosen) < set(NAMES[6:9])
    splits = {name: project.sample(name).split for name in NAMES}
    assert [name for name in NAMES if splits[name] == "val"] == list(division.chosen)
    assert splits[NAMES[9]] is None, "not finished yet"
    assert division.text() == (
        "7 images to train, 2 to validate, all of those drawn on by people; 6 are a model's alone, and are trained on"
    )


def test_an_image_that_was_trained_on_never_validates_later(project: Project) -> None:
    for name in NAMES[:5]:
        draw(project, name)
    first = project.origins.divide()
    assert (first.train, first.val) == (4, 1)
    trained = {name for name in NAMES if project.sample(name).split == "train"}
    for name in NAMES[5:]:
        draw(project, name)
    second = project.origins.divide()
    assert (second.train, second.val) == (8, 2) and len(second.chosen) == 1
    assert all(project.sample(name).split == "train" for name in trained)
    assert project.origins.divide() == type(second)(8, 2, (), 0)


def test_a_split_that_somebody_made_stays(project: Project) -> None:
    for name in NAMES[:4]:
        draw(project, name)
    project.set_split(NAMES[:2], "val")
    assert project.origins.divide().chosen == () and project.sample(NAMES[3]).split == "train"


def test_models_alone_cannot_become_the_test_set_in_silence(project: Project) -> None:
    for name in NAMES[:6]:
        believe(project, name)
    with pytest.raises(ProjectError, match="6 of them a model's alone"):
        project.origins.divide()
    assert all(project.sample(name).split is None for name in NAMES)
    draw(project, NAMES[0])
    assert project.origins.divide().chosen == (NAMES[0],)


def test_one_label_is_not_enough(project: Project) -> None:
    draw(project, NAMES[0])
    with pytest.raises(ProjectError, match="Nothing is left to train on"):
        project.origins.divide()
