"""A model at work in a project: what it says is kept, becomes the label where nobody drew, and is never in the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import terrazzo as tz
from prelabelled import HW, write_model, write_scene_project
from terrazzo import prelabelling
from terrazzo.classes import Classes
from terrazzo.data.scenes import SCENE_CLASSES
from terrazzo.errors import DataError, MissingPathError, UsageError
from terrazzo.project import Project

NAMES = [f"photos/{number:04d}.png" for number in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with write_scene_project(tmp_path) as made:
        yield made


def said(model: Path, project: Project, name: str) -> np.ndarray:
    """What the model says, by the predictor alone: its class ids are this project's category ids less one."""
    return tz.load(model)(project.read_image(name)).mask + 1


def test_a_prediction_becomes_the_label_where_nobody_drew(model: Path, project: Project) -> None:
    one = prelabelling.attach(project, model)
    assert [category.name for category in project.categories] == list(SCENE_CLASSES.names)
    assert one.hash == prelabelling.hash_of(model) and one.name == "first"
    heard: list[float] = []
    result = prelabelling.predict(project, progress=lambda share, says: heard.append(share))
    assert (result.samples, result.prelabelled, result.failed) == (4, 4, [])
    assert heard == sorted(heard) and heard[-1] == 1.0
    for name in NAMES:
        truth = tz.load(model)(project.read_image(name), confidence=True)
        offer = project.predictions.get(name, one.labelset)
        assert (project.read_mask(name) == truth.mask + 1).all() and (offer.mask == truth.mask + 1).all()
        assert truth.confidence is not None and (offer.confidence == truth.confidence).all()
        assert project.sample(name).status == "prelabelled"
        assert {a.source for a in project.read_objects(name).annotations} == {f"model:{one.hash}"}
    place = project.next()
    assert place is not None and "in doubt over the least certain tenth" in place.why
    assert sorted(one.name for one in project.queue.page("diversity")) == NAMES
    assert all(one.score is not None for one in project.queue.page("diversity"))


def test_what_a_person_drew_is_never_touched(model: Path, project: Project) -> None:
    prelabelling.attach(project, model)
    sky = project.categories["sky"].id
    drawn = np.zeros(HW, np.uint16)
    drawn[:9] = sky
    project.write_mask(NAMES[0], drawn, tool="brush")
    before = project.read_objects(NAMES[0]).tree_hash
    result = prelabelling.predict(project)
    assert (result.samples, result.prelabelled) == (4, 3)
    assert project.read_objects(NAMES[0]).tree_hash == before
    assert project.sample(NAMES[0]).status == "in_progress"
    labelset = project.models.all()[0].labelset
    truth = said(model, project, NAMES[0])
    pairs = project.queue.measures(labelset)[NAMES[0]].pairs
    assert pairs == {
        (sky, int(n)): int(count) for n, count in zip(*np.unique(truth[:9], return_counts=True), strict=True)
    }


def test_work_that_was_stopped_goes_on_where_it_was(model: Path, project: Project) -> None:
    prelabelling.attach(project, model)
    asked = iter([False, False, True])
    result = prelabelling.predict(project, is_cancelled=lambda: next(asked))
    assert result.is_cancelled and result.samples == 2
    assert prelabelling.predict(project).samples == 2
    assert prelabelling.predict(project).samples == 0
    assert prelabelling.predict(project, names=[NAMES[1]], again=True).samples == 1


def test_classes_of_no_category_are_left_out_or_added_as_somebody_says(model: Path, project: Project) -> None:
    project.categories.add("road")
    plan = prelabelling.plan(model, project)
    assert plan.missing == [name for name in SCENE_CLASSES.names if name != "road"]
    assert "road        category 1" in plan.text() and "sky         no such category" in plan.text()
    one = prelabelling.attach(project, model)
    assert [category.name for category in project.categories] == ["road"]
    prelabelling.predict(project)
    truth = said(model, project, NAMES[0]) == SCENE_CLASSES.names.index("road") + 1
    assert (project.predictions.get(NAMES[0], one.labelset).mask == truth).all()
    prelabelling.attach(project, model, mapping={"sidewalk": 1})
    assert prelabelling.attach(project, model).mapping["sidewalk"] == 1, "what was said stays"
    again = prelabelling.attach(project, model, add=["sky"])
    assert again.mapping["sidewalk"] is None, "until something else is said"
    assert again.mapping["sky"] == project.categories["sky"].id == 2 and again.mapping["car"] is None


def test_an_image_that_is_gone_is_noted_and_the_others_go_on(model: Path, project: Project) -> None:
    prelabelling.attach(project, model)
    (project.root / NAMES[1]).unlink()
    result = prelabelling.predict(project)
    assert result.samples == 3 and result.failed == [(NAMES[1], f"The image of {NAMES[1]!r} is gone.")]
    with pytest.raises(DataError, match="is gone"):
        prelabelling.predict(project, names=[NAMES[1]])


def test_a_model_that_was_changed_since_is_not_taken_for_the_one_attached(
    model: Path, project: Project, tmp_path: Path
) -> None:
    moving = write_model(tmp_path / "moving", seed=1)
    prelabelling.attach(project, moving)
    (moving / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="not the one that was attached"):
        prelabelling.predict(project)
    project.models.detach("moving")
    with pytest.raises(UsageError, match="No model is attached"):
        prelabelling.predict(project)
    with pytest.raises(MissingPathError):
        prelabelling.attach(project, tmp_path / "nowhere")


def test_two_models_are_compared_where_nobody_drew(model: Path, project: Project, tmp_path: Path) -> None:
    first = prelabelling.attach(project, model)
    prelabelling.predict(project)
    second = prelabelling.attach(project, write_model(tmp_path / "second", seed=1))
    prelabelling.predict(project)
    assert project.queue.labelset() == second.labelset
    a, b = (project.predictions.get(NAMES[2], one.labelset).mask for one in (first, second))
    share = float((a != b).mean())
    place = next(one for one in project.queue.page("disagreement") if one.name == NAMES[2])
    assert place.score == pytest.approx(share)
    assert (project.read_mask(NAMES[2]) == b).all(), "the newer model's, while nobody drew"


def test_a_label_drawn_after_the_prediction_is_compared_when_the_queues_are_made_anew(
    model: Path, project: Project
) -> None:
    one = prelabelling.attach(project, model)
    prelabelling.predict(project)
    truth = said(model, project, NAMES[3])
    other = np.where(truth == 1, 2, 1).astype(np.uint16)
    project.write_mask(NAMES[3], other, tool="brush", status="labelled")
    prelabelling.refresh(project, one.labelset)
    measured = project.queue.measures(one.labelset)[NAMES[3]]
    assert sum(measured.pairs.values()) == truth.size and all(a != b for a, b in measured.pairs)
    assert project.queue.page("disagreement")[0].name == NAMES[3]


def test_large_images_are_looked_at_in_the_recipes_windows(
    model: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    real = tz.Predictor.with_eval
    monkeypatch.setattr(
        tz.Predictor,
        "with_eval",
        lambda self, look: (
            looks.append(look) or real(self, replace(look, window_hw=(16, 16), stride_hw=(16, 16)))
        ),
    )
    monkeypatch.setattr(prelabelling, "LARGE", 1000)  # 32 x 32 is more
    one = prelabelling.attach(project, model)
    prelabelling.predict(project, names=NAMES[:1])
    assert [look.inference for look in looks] == ["whole", "windows"] and not any(look.flip for look in looks)
    predictor = tz.load(model)
    windows = real(predictor, replace(looks[1], window_hw=(16, 16), stride_hw=(16, 16)))
    truth = windows(project.read_image(NAMES[0])).mask + 1
    assert (project.predictions.get(NAMES[0], one.labelset).mask == truth).all()
    assert (truth != said(model, project, NAMES[0])).any(), "windows see something else here"


def test_two_classes_alone_and_other_categories_than_classes(project: Project, tmp_path: Path) -> None:
    project.categories.add("crack")
    project.categories.add("wall")
    model = write_model(tmp_path / "two", classes=Classes(("wall", "crack"), ((0, 0, 0), (9, 9, 9))))
    one = prelabelling.attach(project, model)
    prelabelling.predict(project, names=NAMES[:1])
    truth = np.array([2, 1])[tz.load(model)(project.read_image(NAMES[0])).mask]
    assert (project.predictions.get(NAMES[0], one.labelset).mask == truth).all()
