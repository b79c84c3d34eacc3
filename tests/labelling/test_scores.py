"""What labels are worth: the formula by hand, and what is counted into it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelled import make_project
from terrazzo.labelling import scores
from terrazzo.project import Project
from terrazzo.project.measures import Measure

A, B, C = "photos/a.png", "photos/b.png", "photos/c.png"
HW = (20, 30)
REPORT = {"miou": 0.7, "per_class": {"road": {"iou": 0.9}, "car": {"iou": 0.5}, "tram": {"iou": None}}}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with make_project(tmp_path, hw=HW) as made:
        mask = np.ones(HW, np.uint16)  # 400 px of road, 200 of nothing
        mask[:, 20:] = 0
        made.write_mask(A, mask, status="labelled")
        classes = [(name, (1, 2, 3)) for name in ("road", "car", "tram")]
        made.models.attach("ab", name="x", path="x", classes=classes, report=REPORT)
        for name, seen in (
            (A, {1: (600, 99.0)}),
            (B, {1: (600, 600.0)}),
            (C, {1: (300, 600.0), 2: (40, 20.0)}),
        ):
            pairs = {(1, 1): 380, (1, 2): 20} if name == A else {}
            one = Measure(600, 0.1, seen, pairs)
            made.queue.note(name, "model:ab", one, revision=0, against="label" if name == A else None)
        yield made


def test_the_gain_by_hand() -> None:
    assert scores.gain(0.5, 100, 300, classes=2) == pytest.approx(0.125)  # 0.5 / 2 x (1 - sqrt(1/4))
    assert scores.gain(0.9, 0, 7, classes=5) == pytest.approx(0.02)  # nothing labelled: all of its error
    assert scores.gain(0.2, 500, 0, classes=5) == scores.gain(0.2, 0, 0, classes=5) == 0.0
    assert scores.gain(1.0, 5, 5, classes=1) == 0.0


def test_what_waits_is_counted_with_the_models_doubt_and_only_where_nobody_drew(project: Project) -> None:
    road, car = sorted(scores.worths(project, project.models["ab"]), key=lambda one: one.category_id)
    assert (road.name, road.labelled, road.waiting, road.doubted) == ("road", 400, 900, 1200.0)
    assert road.gain == pytest.approx(0.1 / 2 * (1 - (400 / 1600) ** 0.5)) == 0.025
    assert (car.labelled, car.waiting, car.doubted, car.best) == (0, 40, 20.0, C)
    assert car.gain == pytest.approx(0.25)  # nothing labelled of it: all of 0.5 / 2
    assert [one.name for one in scores.worths(project, project.models["ab"])] == ["car", "road"]


def test_a_class_that_the_validation_does_not_have_comes_last_without_a_number(project: Project) -> None:
    project.categories.add("tram")
    model = project.models["ab"]
    project.models.attach("ab", name="x", path="x", classes=list(model.classes), report=REPORT)
    last = scores.worths(project, project.models["ab"])[-1]
    assert (last.name, last.iou, last.gain) == ("tram", None, None)


def test_scores_count_what_is_unlabelled_and_what_labels_and_model_say(project: Project) -> None:
    told = scores.scores(project)
    assert told["pixels"] == {"samples": 3, "pixels": 1800, "labelled": 400, "unlabelled": 1400}
    assert told["confusion"] == [[1, 1, 380], [1, 2, 20]] and told["images"] == 1
    assert told["model"] == {"hash": "ab", "name": "x", "miou": 0.7}
    assert told["worths"][0]["best_id"] == project.sample(C).id and "sqrt(L / (L + W))" in told["formula"]
    project.models.detach("ab")
    assert scores.scores(project)["model"] is None
