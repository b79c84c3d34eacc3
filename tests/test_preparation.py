"""Before the first step: folds through training, resuming and evaluating; how samples get to the device."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import terrazzo as tz
from terrazzo import errors, preparation
from terrazzo.asking import Asked
from terrazzo.cli import main
from terrazzo.data import folds
from terrazzo.data.loader import Loader
from terrazzo.processes import Processes
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


def said(
    recipe: str, data: Path, out: Path, capsys: pytest.CaptureFixture[str], *overrides: str
) -> list[str]:
    """The lines of a short training of one layer."""
    short = ["train.pictures=0", "train.loggers=[]", "data.crop_hw=32x32", "data.resize=original", *overrides]
    tz.train(recipe, data=data, out=out, overrides=short, network=Line(), device="cpu")
    return capsys.readouterr().err.splitlines()


def test_a_training_too_short_for_its_warm_up_gets_a_shorter_one_and_says_so(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "warm-up of {} steps instead of 1,500: a tenth of so short a training"
    epochs = ["train.epochs=3", "train.batch_size=2"]  # of 8 images: 12 steps
    assert line.format(1) in said("segformer-b0", boxes, tmp_path / "epochs", capsys, *epochs)
    assert Run.open(tmp_path / "epochs").recipe.optim.warmup_steps == 1
    assert line.format(0) in said(
        "segformer-b0", boxes, tmp_path / "steps", capsys, "train.steps=2", SHORT[1]
    )
    with pytest.raises(errors.RecipeError, match="the training ends after 12 steps"):
        said("segformer-b0", boxes, tmp_path / "asked", capsys, *epochs, "optim.warmup_steps=12")
    fits = said(
        "segformer-b0", boxes, tmp_path / "fits", capsys, "train.steps=2", SHORT[1], "optim.warmup_steps=1"
    )
    assert not [one for one in fits if "warm-up" in one]


def test_a_config_name_trains_and_says_what_is_other_than_there(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "configs" / "pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py"
    config.parent.mkdir()
    config.write_text("_base_ = './x.py'\n")
    lines = said(
        str(config), boxes, tmp_path / "run", capsys, "train.steps=4", "train.save_every=1", "train.keep=0"
    )
    for told in (
        "made for Cityscapes with 19 classes; here are the 3 of boxes, and scores cannot be compared with those "
        "published",
        f"{config} is taken by its name; what is written in it is not read",
        "8 images per step as 4 GPUs x 2; here 1 process x 8 in micro-batches of 2",
    ):
        assert told in lines
    run = Run.open(tmp_path / "run")
    assert run.recipe.name == config.stem
    assert [folder.name for folder in run.checkpoints] == [
        f"step-{step:08d}" for step in (1, 2, 3, 4)
    ]  # every one


def test_a_config_name_of_another_data_set_is_refused_with_the_word_to_go_on(
    boxes_of_my_own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = boxes_of_my_own / "dataset.json"
    names = [{"name": f"class {number}"} for number in range(150)]
    about.write_text(json.dumps({"format_version": 1, "name": "ade20k", "classes": names}))
    words = ["train", "pspnet_r18-d8_4xb2-80k_cityscapes-512x1024", "--data", str(boxes_of_my_own)]
    assert main([*words, "--out", str(tmp_path / "run"), "train.steps=2"]) == 2
    told = capsys.readouterr().err
    assert "is the config for Cityscapes, and the data set is ADE20K." in told
    assert "made_for=null" in told
    assert not (tmp_path / "run").exists()


def test_8_bit_images_go_to_a_gpu_as_bytes_and_deeper_ones_do_not(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(
        recipe="segformer-b0-scratch", data=boxes, out=tmp_path / "run", overrides=SHORT, network=Line()
    )
    job = preparation.prepare(Processes(0, 1, torch.device("cpu")), asked)
    monkeypatch.setattr(preparation, "Loader", lambda split, **options: options)

    def handed(device: str) -> tuple[bool, torch.device | None]:
        options: Any = job.loader(Processes(0, 1, torch.device(device)))
        return options["for_gpu"], options["colour_on"]

    assert handed("cpu") == (False, None)
    assert handed("cuda") == (True, torch.device("cuda"))
    job.data = replace(job.data, dtype="uint16")
    assert handed("cuda") == (True, None)


def test_a_training_on_bytes_has_the_losses_of_one_on_floats(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*SHORT, "train.log_every=1", "train.micro_batch=1"]

    def losses(out: Path) -> list[float]:
        own: dict[str, Any] = {"network": Line(), "device": "cpu", "quiet": True}
        run = tz.train("segformer-b0-scratch", data=boxes, out=out, overrides=overrides, **own)
        lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    def by_bytes(*given: Any, **options: Any) -> Loader:
        return Loader(*given, **options | {"colour_on": torch.device("cpu")})

    plain = losses(tmp_path / "floats")
    monkeypatch.setattr(preparation, "Loader", by_bytes)
    assert losses(tmp_path / "bytes") == pytest.approx(plain, abs=1e-6)
    assert len(plain) == 3  # of two steps and of the validation
