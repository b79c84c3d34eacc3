"""Loggers: which hears what, what a resumed run goes on with, what is said when one is missing or fails."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import terrazzo as tz
from terrazzo import errors
from terrazzo.board import LOGGERS, PACKAGES, Board, check_loggers
from terrazzo.recipe import load
from terrazzo.storage import read_json

PICTURE = np.zeros((4, 6, 3), np.uint8)
CALLS = list[tuple[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> CALLS:
    """What fake packages called wandb and mlflow were asked to do."""
    heard: CALLS = []

    def record(name: str, result: Any = None) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            heard.append((name, (*words, named) if named else words))
            return result

        return call

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    run = SimpleNamespace(
        id="w1",
        define_metric=record("wandb.define_metric"),
        log=record("wandb.log"),
        finish=record("wandb.finish"),
    )
    vars(wandb).update(init=record("wandb.init", run), Image=lambda picture: ("image", picture.shape))
    started = SimpleNamespace(info=SimpleNamespace(run_id="m1"))
    vars(mlflow).update(
        start_run=record("mlflow.start_run", started),
        **{name: record(f"mlflow.{name}") for name in ("log_params", "log_metrics", "log_image", "end_run")},
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return heard


def of(calls: CALLS, name: str) -> list[Any]:
    return [words for called, words in calls if called == name]


def test_wandb_hears_scalars_pictures_and_the_recipe(calls: CALLS, tmp_path: Path) -> None:
    board = Board(("wandb",), tmp_path, settings={"train": {"steps": 9}}, step=0)
    board.scalars(3, {"loss": 0.5, "lr": float("nan"), "text": "no", "flag": True}, prefix="train")
    board.picture(3, "sheet", PICTURE)
    board.close()
    ((begun,),) = of(calls, "wandb.init")
    assert begun["project"] == "terrazzo"
    assert begun["name"] == tmp_path.name
    assert begun["id"] is None
    assert begun["config"] == {"train": {"steps": 9}}
    assert of(calls, "wandb.log") == [
        ({"step": 3, "train/loss": 0.5},),
        ({"step": 3, "sheet": ("image", (4, 6, 3))},),
    ]
    assert of(calls, "wandb.finish") == [({"exit_code": 0},)]
    Board(("wandb",), tmp_path, settings={}, step=3).close(failed=True)
    assert of(calls, "wandb.init")[1][0]["id"] == "w1"
    assert of(calls, "wandb.finish")[1] == ({"exit_code": 1},)


def test_mlflow_hears_the_same_under_names_it_allows(calls: CALLS, tmp_path: Path) -> None:
    board = Board(("mlflow",), tmp_path, settings={"name": "r", "train": {"steps": 9}}, step=0)
    board.scalars(3, {"iou car (parked)": 0.5}, prefix="eval")
    board.picture(3, "sheet", PICTURE)
    board.close()
    assert of(calls, "mlflow.start_run") == [({"run_id": None, "run_name": tmp_path.name},)]
    assert of(calls, "mlflow.log_params") == [({"train.steps": 9, "name": "r"},)]
    assert of(calls, "mlflow.log_metrics") == [({"eval/iou car _parked_": 0.5}, {"step": 3})]
    assert of(calls, "mlflow.log_image")[0][1] == "pictures/step-00000003.png"
    Board(("mlflow",), tmp_path, settings={"train": {"steps": 9}}, step=3).close(failed=True)
    assert of(calls, "mlflow.start_run")[1] == ({"run_id": "m1", "run_name": None},)
    assert len(of(calls, "mlflow.log_params")) == 1  # a parameter is written once
    assert of(calls, "mlflow.end_run") == [("FINISHED",), ("FAILED",)]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "tensorboard"])
def test_a_logger_that_is_not_installed_is_named_before_anything_is_made(
    name: str, boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)  # what an import of a missing package meets
    with pytest.raises(errors.MissingExtraError) as missing:
        tz.train(
            "segformer-b0-scratch", data=boxes, out=tmp_path / "run", overrides=[f"train.loggers={name}"]
        )
    assert f"train.loggers asks for {name}, and the package is not installed." in str(missing.value)
    assert str(missing.value).endswith(f"pip install {name}")
    assert missing.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_logger_that_fails_is_left_out_and_that_is_said(calls: CALLS, tmp_path: Path) -> None:
    def no_server(*words: Any, **named: Any) -> None:
        raise ConnectionError("no route to host")

    vars(sys.modules["mlflow"])["log_metrics"] = no_server
    board = Board(("mlflow", "wandb"), tmp_path, settings={}, step=0)
    for step in (1, 2):
        board.scalars(step, {"loss": 1.0}, prefix="train")
    assert board.said == ["mlflow failed and is left out from here on: ConnectionError: no route to host"]
    assert len(of(calls, "wandb.log")) == 2
    vars(sys.modules["mlflow"])["start_run"] = no_server
    with pytest.raises(errors.TrainingError, match="The logger mlflow could not be started") as failed:
        Board(("mlflow",), tmp_path, settings={}, step=0)
    assert f"terrazzo train --resume {tmp_path} train.loggers=tensorboard" in str(failed.value)


class Line(nn.Module):
    """A network with one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 3, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.score(image_BCHW)


def test_a_run_tells_every_logger_and_resumes_with_others(calls: CALLS, boxes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    short = ["train.steps=2", "train.batch_size=1", "train.log_every=1", "train.pictures=1"]
    short += ["optim.warmup_steps=0", "data.crop_hw=32x32"]
    both = [*short, "train.loggers=wandb,mlflow"]
    own: dict[str, Any] = {"network": Line(), "device": "cpu", "quiet": True}
    run = tz.train("segformer-b0-scratch", data=boxes, out=tmp_path / "run", overrides=both, **own)
    heard = {name for words in of(calls, "wandb.log") for name in words[0]}
    assert {"step", "train/loss", "train/lr", "eval/miou", "image | truth | prediction"} <= heard
    assert [words[-1] for words in of(calls, "mlflow.log_metrics")] == [{"step": 1}, {"step": 2}, {"step": 2}]
    assert read_json(run.path / "loggers.json") == {"wandb": "w1", "mlflow": "m1"}
    assert not (run.path / "tensorboard").exists()
    tz.train(resume=run.path, overrides=["train.loggers=tensorboard"], **own)
    assert len(of(calls, "wandb.init")) == 1
    assert read_json(run.path / "loggers.json") == {"wandb": "w1", "mlflow": "m1"}


def test_the_recipe_knows_exactly_the_loggers_there_are() -> None:
    assert load("segformer-b0").train.loggers == ("tensorboard",)
    every = ",".join(LOGGERS)
    assert load("segformer-b0", [f"train.loggers={every}"]).train.loggers == tuple(LOGGERS) == tuple(PACKAGES)
    assert load("segformer-b0", ["train.loggers="]).train.loggers == ()
    check_loggers(())
    with pytest.raises(errors.RecipeError, match="train.loggers cannot be 'tensorbord'") as wrong:
        load("segformer-b0", ["train.loggers=tensorbord"])
    assert "any of tensorboard, wandb, mlflow, with commas between them" in str(wrong.value)
