"""Train on this: a release, a process of its own, where it is, and how it ends."""

import json
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import terrazzo as tz
from prelabelled import write_scene_project
from terrazzo.errors import ProjectError, TrainingError, UnknownNameError, UsageError
from terrazzo.labelling import training
from terrazzo.labelling.training import Stand
from terrazzo.project import Project

TINY = ["data.crop_hw=32x32", "train.batch_size=2", "train.log_every=1", "train.pictures=0", "data.workers=0"]


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with write_scene_project(tmp_path, 5, labelled=5) as made:
        yield made


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program in the place of Python's, so that what is asked of it is seen without a training."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script}\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(file))


def test_a_training_that_is_stopped_is_saved_and_resumable(project: Project) -> None:
    stands: list[Stand] = []
    result = training.train(
        project,
        overrides=[*TINY, "train.steps=100000", "eval.every=100000"],
        on_stand=stands.append,
        is_cancelled=lambda: bool(stands) and stands[-1].step >= 1,
    )
    assert result["is_cancelled"] and result["has_model"] and result["release"] == "v1"
    run = tz.Run.open(result["run"])
    assert run.path == project.path.parent / "runs" / "street-v1" and run.step >= 1
    assert run.data["fingerprint"] == project.releases["v1"].id
    assert (
        project.releases["v1"]
        .manifest["description"]
        .startswith("To train on: 4 images to train, 1 to validate")
    )
    assert stands[-1].steps == 100_000 and stands[-1].loss is not None and "left" in stands[-1].text()


def test_the_command_is_one_that_anybody_could_type(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, "exit 0")
    project.models.attach("ab12cd34", name="x", path=str(tmp_path / "photos"), classes=[("road", (1, 2, 3))])
    said = training.train(
        project, release="first", minutes=2.5, start="ab12cd34", overrides=["train.batch_size=2"]
    )
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [
        "-m", "terrazzo", "train", "segformer-b0-scratch", "--data", f"{project.path}@first",
        "--out", str(tmp_path / "runs" / "street-first"), "train.batch_size=2",
        f"model.pretrained={tmp_path / 'photos'}", "--budget", "2.5m",
    ]  # fmt: skip
    assert said["release"] == "first" and "first" in project.releases and not said["has_model"]
    (tmp_path / "runs" / "street-first").mkdir()
    training.train(project, release="first")
    assert len(project.releases) == 1, "a release that is there is trained on again"
    assert str(tmp_path / "runs" / "street-first-2") in (tmp_path / "asked").read_text().split()


def test_a_training_that_failed_says_its_last_words(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(
        tmp_path,
        monkeypatch,
        "echo noise; echo 'RecipeError: train.steps is 0.' >&2; echo '  expected: 1' >&2; exit 2",
    )
    with pytest.raises(
        TrainingError, match=r"found: RecipeError: train.steps is 0.\n +expected: 1\n"
    ) as told:
        training.train(project)
    assert "noise" not in str(told.value) and "The release v1 is made, and stays." in str(told.value)


def test_a_child_that_does_not_end_is_ended(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, f"trap '' INT; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done")
    monkeypatch.setattr(training, "PATIENCE", 0.3)
    result = training.train(project, is_cancelled=(tmp_path / "pid").exists)
    assert result["is_cancelled"] and not result["has_model"]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


@pytest.mark.parametrize(
    "override",
    [
        "model.pretrained=/etc/passwd", "train.loggers=wandb", "--data", "train.steps", "data.crop_hw=1;rm",
        "train.steps=$(id)", "name=x", "model.init=user/name", 7,
    ],
)  # fmt: skip
def test_files_and_addresses_are_for_the_command_line(project: Project, override: object) -> None:
    with pytest.raises(UsageError, match="cannot be given here"):
        training.train(project, overrides=[override])  # type: ignore[list-item]
    assert not len(project.releases)


def test_what_cannot_be_trained_is_said_before_anything_is_made(project: Project) -> None:
    with pytest.raises(UnknownNameError):
        training.train(project, recipe="./evil.py")
    with pytest.raises(UnknownNameError):
        training.train(project, start="0123456789")
    for minutes in (0, -1, 1e9, float("nan")):
        with pytest.raises(UsageError, match="a day at most"):
            training.train(project, minutes=minutes)
    assert not len(project.releases) and not (project.path.parent / "runs").exists()


def test_nobody_validates_on_what_models_made(tmp_path: Path) -> None:
    with write_scene_project(tmp_path, 3) as project:
        project.categories.add("road")
        for one in project.samples.all():
            project.prelabel(one.name, project.read_mask(one.name) + 1, model="ab")
            project.set_status(one.name, "labelled")
        with pytest.raises(ProjectError, match="No finished label may validate"):
            training.train(project)
        assert not len(project.releases)


def test_the_form_offers_what_fits(project: Project) -> None:
    project.releases.create("v7")
    project.releases.create("v7b")
    form = training.form(project)
    assert form["release"] == "v8" and form["finished"] == form["touched"] == 5 and form["val"] == 0
    assert form["overrides"][0] == "data.crop_hw=32x32" and form["recipe"] == "segformer-b0-scratch"
    assert training.next_name([]) == "v1"


def test_where_a_training_is_follows_from_its_files(tmp_path: Path) -> None:
    assert training.read_stand(tmp_path).text() == "getting ready"
    (tmp_path / "recipe.json").write_text(json.dumps({"train": {"steps": 400}}))
    lines = [
        {"kind": "train", "step": 50, "loss": 1.5, "seconds_per_step": 0.5},
        {"kind": "eval", "step": 100, "miou": 0.25},
        {"kind": "note", "step": 100, "text": "…"},
        {"kind": "train", "step": 150, "loss": 0.75, "seconds_per_step": 0.24},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "train", "st')
    stand = training.read_stand(tmp_path)
    assert stand == Stand(150, 400, 0.75, 0.25, 100, 0.24) and stand.share == 0.375
    assert stand.text() == "step 150 of 400, loss 0.750, 25.0 mIoU at step 100, 1:00 left"
