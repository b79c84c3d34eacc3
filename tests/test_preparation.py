"""Before the first step: folds through training, resuming and evaluating."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import terrazzo as tz
from terrazzo import errors
from terrazzo.cli import main
from terrazzo.data import folds
from terrazzo.run import Run

SHORT = [
    "train.steps=2",
    "train.batch_size=2",
    "train.pictures=0",
    "optim.warmup_steps=0",
    "data.crop_hw=32x32",
]


class Line(nn.Module):
    """A network with one layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.score = nn.Conv2d(3, 3, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.score(image_BCHW)


@pytest.fixture(scope="module")
def second_of_four(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "fold"
    own: dict[str, Any] = {"network": Line(), "device": "cpu", "quiet": True}
    return tz.train("segformer-b0-scratch", data=boxes, out=out, overrides=SHORT, fold=(2, 4), **own)


def test_evaluate_scores_exactly_the_fold_the_run_held_out(second_of_four: Run, boxes: Path) -> None:
    expected = folds.folded(tz.open_dataset(boxes), (2, 4))
    assert second_of_four.data["split_manifest"]["fold"] == [2, 4]
    assert second_of_four.data["splits"]["val"] == expected["val"].names
    assert second_of_four.best is not None
    for data in (boxes, tz.open_dataset(boxes)):
        report = tz.evaluate(second_of_four.path, data=data, network=Line(), quiet=True)
        assert report.num_images == len(expected["val"])
        assert report.miou == pytest.approx(second_of_four.best["miou"], abs=1e-12)
        assert any(note.startswith("Fold 2 of 4, as the run stored it") for note in report.notes)


def test_a_fold_is_resumed_with_its_own_images(second_of_four: Run) -> None:
    again = tz.train(resume=second_of_four.path, fold=(2, 4), network=Line(), device="cpu", quiet=True)
    assert again.data["splits"] == second_of_four.data["splits"]
    with pytest.raises(errors.RunError, match="was not trained on that fold") as other:
        tz.train(resume=second_of_four.path, fold=(3, 4), network=Line())
    assert "expected: fold 2/4" in str(other.value)


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        ("0/5", "There is no fold 0 of 5."),
        ("6/5", "There is no fold 6 of 5."),
        ("2/12", "12 folds need 12 labelled images."),
        ("2", "argument --fold: '2' is no fold such as 2/5"),
        ("a/5", "'a' is not a whole number"),
    ],
)
def test_the_command_line_refuses_folds_that_are_none(
    fold: str, words: str, boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--out", str(tmp_path / "run")]
    assert main(["train", "segformer-b0-scratch", "--data", str(boxes), *run, "--fold", fold, *SHORT]) == 2
    assert words.removeprefix("argument ") in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
