"""The loop on the command line: quickstart, train, evaluate, predict."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from command_line import Terrazzo
from terrazzo.cli import main
from terrazzo.images import read_mask

SMALL = [
    "train.steps=2", "train.batch_size=2", "train.log_every=1", "train.pictures=1", "optim.warmup_steps=0",
    "data.crop_hw=32x32", "data.workers=0", "eval.every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def boxes_run(tmp_path_factory: pytest.TempPathFactory, boxes: Path) -> Path:
    """A run of two steps, made by the command line."""
    run = tmp_path_factory.mktemp("runs") / "boxes"
    assert main(["train", "segformer-b0-scratch", "--data", str(boxes), "--out", str(run), *SMALL]) == 0
    return run


def test_train_takes_overrides_and_leaves_a_run(boxes_run: Path) -> None:
    from terrazzo.run import Run

    run = Run.open(boxes_run)
    assert run.step == 2
    assert run.recipe.data.crop_hw == (32, 32)
    assert run.best is not None


def test_train_prints_where_the_run_is_and_how_good(
    terrazzo: Terrazzo, boxes: Path, boxes_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terrazzo import training
    from terrazzo.run import Run

    def finished(recipe: str, **arguments: object) -> Run:
        assert (recipe, arguments["overrides"], arguments["seed"]) == ("a", ["train.steps=2"], 7)
        return Run.open(boxes_run)

    monkeypatch.setattr(training, "train", finished)
    code, out, _ = terrazzo("train", "a", "train.steps=2", "--data", boxes, "--seed", "7")
    assert code == 0
    best = Run.open(boxes_run).best
    assert best is not None  # in percent, as tables have it
    assert out.startswith(f"{boxes_run}: 2 steps, best mIoU {100 * best['miou']:.2f} at step {best['step']}")


def test_a_stopped_training_says_how_to_go_on_and_exits_by_its_signal(
    terrazzo: Terrazzo, boxes_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from terrazzo import training
    from terrazzo.run import Run

    def stopped(*_: object, **__: object) -> Run:
        run = Run.open(boxes_run)
        run.stopped_by = 15
        return run

    monkeypatch.setattr(training, "train", stopped)
    code, out, _ = terrazzo("train", "a", "--data", "d")
    assert code == 128 + 15
    assert out == f"Stopped and saved at step 2. To go on:\n  terrazzo train --resume {boxes_run}\n"


def test_train_names_the_nearest_field_and_all_mistakes_at_once(terrazzo: Terrazzo, boxes: Path) -> None:
    code, _, err = terrazzo(
        "train", "segformer-b0", "--data", boxes, "train.stpes=2", "train.batch_size=many"
    )
    assert code == 2
    assert "train.stpes" in err
    assert "train.steps" in err
    assert "train.batch_size" in err
    code, _, err = terrazzo("train", "segformer-b0", "--data", boxes.parent / "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_evaluate_prints_a_table_or_json_that_agree(terrazzo: Terrazzo, boxes: Path, boxes_run: Path) -> None:
    code, table, _ = terrazzo("evaluate", boxes_run, "--data", boxes)
    assert code == 0
    assert all(name in table for name in ("field", "box", "sky"))
    code, out, _ = terrazzo("evaluate", boxes_run, "--data", boxes, "--json")
    report = json.loads(out)
    assert code == 0
    assert f"{100 * report['miou']:.2f}" in table
    code, _, err = terrazzo("evaluate", boxes_run, "--data", boxes, "--split", "vla")
    assert code == 2
    assert "called 'vla'." in err
    assert "Did you mean 'val'?" in err


def test_evaluate_draws_where_it_is_told(
    terrazzo: Terrazzo, boxes: Path, boxes_run: Path, tmp_path: Path
) -> None:
    code, _, _ = terrazzo(
        "evaluate", boxes_run, "--data", boxes, "--show-dir", tmp_path / "drawn", "--limit", "1", "--tta"
    )
    assert code == 0
    assert len(list((tmp_path / "drawn").rglob("*.png"))) == 1


def test_predict_writes_masks_at_the_images_size(
    terrazzo: Terrazzo, boxes: Path, boxes_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    images = boxes / "val" / "images"
    code, said, _ = terrazzo("predict", boxes_run, images, "--out", out, "--confidence")
    assert (code, said) == (0, f"3 images predicted: {out}\n")
    masks = sorted((out / "masks").iterdir())
    assert [mask.stem for mask in masks] == sorted(image.stem for image in images.iterdir())
    assert read_mask(masks[0]).shape == (48, 64)
    assert len(list((out / "confidence").iterdir())) == 3


def test_a_run_that_is_not_there_is_named(
    terrazzo: Terrazzo, boxes: Path, boxes_run: Path, tmp_path: Path
) -> None:
    code, _, err = terrazzo("predict", boxes_run.parent / "boxs", boxes, "--out", tmp_path / "o")
    assert code == 2
    assert f"Did you mean {boxes_run}?" in err


def test_quickstart_hands_its_words_over_and_tells_when_it_was_stopped(
    terrazzo: Terrazzo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from terrazzo import quickstart

    asked: list[object] = []

    def go_round(out: str, **arguments: object) -> Namespace | None:
        asked.append((out, arguments))
        return Namespace() if len(asked) > 1 else None

    monkeypatch.setattr(quickstart, "quickstart", go_round)
    code, out, _ = terrazzo("quickstart", "--out", tmp_path, "--seed", "3", "--device", "cpu")
    assert asked == [(str(tmp_path), {"device": "cpu", "seed": 3})]
    assert code == 130
    assert out == f"Stopped and saved. To go on:\n  terrazzo train --resume {tmp_path}/run\n"
    code, _, _ = terrazzo("quickstart")
    assert code == 0
    assert asked[1] == ("quickstart", {"device": "auto", "seed": 0})
