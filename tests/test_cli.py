"""The command line: what it prints, where, and with which exit code. Commands run in this process."""

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from terrazzo import __version__, cli
from terrazzo.cli import COMMANDS, main, parsing
from terrazzo.cli.parsing import Command, Parser
from terrazzo.errors import MaskValueError, UsageError
from terrazzo.images import read_mask, write_image, write_mask

Terrazzo = Callable[..., tuple[int, str, str]]


@pytest.fixture
def terrazzo(capsys: pytest.CaptureFixture[str]) -> Terrazzo:
    """Run a command line; return exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# finding the command -------------------------------------------------------------------------------------------------


def test_help_lists_every_command_with_its_summary(terrazzo: Terrazzo) -> None:
    code, out, err = terrazzo("--help")
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert f"  {command.name} " in out
        assert command.summary in out


def test_no_words_are_a_misuse_that_shows_the_help(terrazzo: Terrazzo) -> None:
    code, out, err = terrazzo()
    assert (code, out) == (2, "")
    assert err.startswith("usage: terrazzo COMMAND")


def test_version_is_the_packages(terrazzo: Terrazzo) -> None:
    assert terrazzo("--version") == (0, f"terrazzo {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_help_that_says_how_it_is_called(terrazzo: Terrazzo, command: Command) -> None:
    code, out, err = terrazzo(command.name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: terrazzo {command.name} {command.usage}".rstrip())
    assert command.summary in out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["tarin"], "UnknownNameError: There is no command 'tarin'.|Did you mean 'train'?|terrazzo train --help"),
        (["--verbose"], "UnknownNameError: There is no option '--verbose'.|terrazzo --help"),
        (["evaluate", "m", "--dta", "x"], "There is no option '--dta'.|Did you mean '--data'|terrazzo evaluate --help"),
        (["evaluate", "m"], "UsageError: terrazzo evaluate: the following arguments are required: --data.|expected: "),
        (["evaluate", "--data", "x"], "the following arguments are required: MODEL."),
        (["evaluate", "m", "n", "--data", "x"], "terrazzo evaluate: too many words: n."),
        (["evaluate", "m", "--data"], "terrazzo evaluate: --data: expected one argument."),
        (["predict", "m", "--out", "o"], "the following arguments are required: SOURCE."),
        (["predict", "m", "s", "--out", "o", "--ids", "clas"], "no kind of ids 'clas'.|expected: one of class, raw"),
        (["predict", "m", "s", "--out", "o", "--precision", "fp16"], "no precision 'fp16'.|Did you mean 'f16'"),
        (["predict", "m", "s", "--out", "o", "--batch", "0"], "--batch: '0' is not a whole number from 1 on."),
        (["predict", "m", "s", "--out", "o", "--whole", "--windows"], "not allowed with argument"),
        (["train", "a", "--seed", "x"], "--seed: 'x' is not a whole number from 0 on."),
        (["train", "a", "b"], "UsageError: A training has one recipe.|found: a, b"),
        (["train"], "UsageError: Training needs a recipe.|terrazzo recipes"),
        (["train", "segformer-b9", "--data", "d"], "There is no recipe 'segformer-b9'.|Did you mean 'segformer-b"),
        (["recipes", "sidewlak"], "There is no recipe 'sidewlak'.|Did you mean 'sidewalk'"),
        (["import", "camvd", "s", "--out", "o"], "There is no format 'camvd'.|Did you mean 'camvid'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_misuse_exits_with_2_and_names_the_nearest(
    terrazzo: Terrazzo, words: list[str], error: str
) -> None:
    code, out, err = terrazzo(*words)
    assert (code, out) == (2, "")
    for part in error.split("|"):
        assert part in err
    assert "Traceback" not in err


def test_options_and_words_come_in_any_order() -> None:
    by_name = {command.name: command.parser() for command in COMMANDS}
    trained = by_name["train"].read(
        ["a", "train.steps=1", "--data", "d", "data.flip=0", "--out", "o", "eval.every=2"]
    )
    assert (trained.words, trained.data, trained.out) == (
        ["a", "train.steps=1", "data.flip=0", "eval.every=2"],
        "d",
        "o",
    )
    predicted = by_name["predict"].read(["m", "--out", "o", "a.png", "--confidence", "b.png"])
    assert (predicted.model, predicted.sources) == ("m", ["a.png", "b.png"])
    assert by_name["train"].read(["--resume", "r"]).words == []


def test_options_are_not_abbreviated(terrazzo: Terrazzo) -> None:
    code, _, err = terrazzo("train", "a", "--dat", "x")
    assert code == 2
    assert "There is no option '--dat'" in err


# what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command_that(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a command `act` in the place of all others."""

    def install(act: Callable[[], None]) -> None:
        def run(_: Namespace) -> None:
            act()

        command = Command("act", "", "Act.", "", lambda parser: None, run)
        monkeypatch.setattr(cli, "COMMANDS", (command,))

    return install


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MaskValueError("a.png has id 7.", found="7", command="terrazzo check d"), 1,
         "MaskValueError: a.png has id 7.\n  found: 7\n  terrazzo check d\n"),
        (UsageError("Not so."), 2, "UsageError: Not so.\n"),
        (KeyboardInterrupt(), 130, "\nStopped.\n"),
        (PermissionError(13, "Permission denied", "/data/x"), 1, "StorageError: Permission denied: /data/x\n"),
        (MemoryError(), 1, "TerrazzoError: This machine ran out of memory.\n  A smaller micro-batch"),
    ],
    ids=["failed", "misused", "stopped", "system", "memory"],
)  # fmt: skip
def test_what_went_wrong_is_told_on_standard_error(
    terrazzo: Terrazzo, command_that: Callable, error: BaseException, code: int, said: str
) -> None:
    command_that(raises(error))
    got, out, err = terrazzo("act")
    assert (got, out) == (code, "")
    assert err.startswith(said)
    assert "Traceback" not in err


def test_a_device_out_of_memory_is_told_without_a_traceback(
    terrazzo: Terrazzo, command_that: Callable
) -> None:
    import torch

    command_that(raises(torch.OutOfMemoryError("CUDA out of memory")))
    code, _, err = terrazzo("act")
    assert code == 1
    assert err.startswith("TerrazzoError: The device ran out of memory.")
    assert "terrazzo train … train.micro_batch=1" in err


def test_a_bug_of_ours_shows_where_and_asks_for_a_report(terrazzo: Terrazzo, command_that: Callable) -> None:
    command_that(raises(KeyError("here")))
    code, out, err = terrazzo("act")
    assert (code, out) == (1, "")
    assert "KeyError: 'here'" in err
    assert "Traceback" in err
    assert err.endswith("command you typed, and what this prints:\n  terrazzo env\n")


def test_a_traceback_of_a_mistake_is_there_for_who_asks(
    terrazzo: Terrazzo, command_that: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_TRACEBACK", "1")
    command_that(raises(UsageError("Not so.")))
    code, _, err = terrazzo("act")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("UsageError: Not so.\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise on Windows")
def test_a_reader_who_left_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "terrazzo", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_console_that_knows_only_ascii_is_no_error() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "terrazzo", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: terrazzo COMMAND ?\n")


def test_readers_of_numbers_refuse_what_is_none() -> None:
    assert [parsing.count("12"), parsing.whole_number("0")] == [12, 0]
    for text in ("0", "-1", "1.5", "x", "", "²"):
        with pytest.raises(Exception, match="is not a whole number from 1 on"):
            parsing.count(text)


def test_a_parser_is_fresh_for_each_call() -> None:
    command = COMMANDS[0]
    assert isinstance(command.parser(), Parser)
    assert command.parser() is not command.parser()


# recipes, models, env ------------------------------------------------------------------------------------------------


def test_recipes_lists_each_with_its_promise(terrazzo: Terrazzo) -> None:
    from terrazzo import recipe

    code, out, _ = terrazzo("recipes")
    assert code == 0
    for name in recipe.names():
        assert f"{name} " in out
        assert recipe.promise(name).splitlines()[0] in out


def test_recipes_like_lists_those_alone(terrazzo: Terrazzo) -> None:
    _, out, _ = terrazzo("recipes", "--like", "SCRATCH")
    listed = [line.split(" ")[0] for line in out.split("\n\n")[0].splitlines()]
    assert "segformer-b0-scratch" in listed
    assert "segformer-b5" not in listed
    _, out, _ = terrazzo("recipes", "--like", "zzz")
    assert out == "No recipe is like 'zzz'; all of them: terrazzo recipes\n"


def test_recipes_like_lists_config_names_with_their_published_scores(terrazzo: Terrazzo) -> None:
    name = "pspnet_r101-d8_4xb2-80k_cityscapes-512x1024"
    _, out, _ = terrazzo("recipes", "--like", "pspnet")
    [line] = [line for line in out.splitlines() if line.split(" ")[0] == name]
    published = "79.76 mIoU published (81.01 with scales and flip, 77.94 in the walk-through's log)"
    assert line.split(" ", 1)[1].strip() == f"{published}; not reproduced here"
    code, out, _ = terrazzo("recipes", "pspnet_r101-d8_512x1024_80k_cityscapes")  # as 0.x spelled it
    assert code == 0
    assert out.startswith(f"MMSegmentation's config {name}, by its name.")
    assert "averaged over all pixels, ignored ones included (loss.average=all)" in " ".join(out.split())
    assert f"\n{name}: PSPNet on ResNet-101 as in MMSegmentation; {published}, not reproduced here." in out
    code, _, error = terrazzo("recipes", "pspnet_r102-d8_512x1024_80k_cityscapes")
    assert code == 2
    assert "There is no backbone 'r102'." in error


def test_a_recipe_is_shown_whole_and_its_json_is_a_recipe(terrazzo: Terrazzo, tmp_path: Path) -> None:
    from terrazzo import recipe

    _, out, _ = terrazzo("recipes", "segformer-b0")
    assert out.startswith(recipe.promise("segformer-b0"))
    assert all(leaf.name in out for leaf in recipe.fields() if "." in leaf.name)
    _, out, _ = terrazzo("recipes", "segformer-b0", "--json")
    (tmp_path / "mine.json").write_text(out, encoding="utf-8")
    assert recipe.load(tmp_path / "mine.json") == recipe.load("segformer-b0")


def test_models_count_parameters_and_name_licences(terrazzo: Terrazzo) -> None:
    _, out, _ = terrazzo("models", "--json")
    models = {model["name"]: model for model in json.loads(out)}
    # transformers counts 3,752,694 with ADE20K's 150 classes; a class is 256 weights and a bias
    assert models["segformer-b0"]["parameters"] == 3_752_694 - (150 - 19) * 257
    assert models["segformer-b0"]["weights"][0]["source"] == "nvidia/mit-b0"
    assert "non-commercial" in models["segformer-b0"]["weights"][0]["license"]
    assert [models[name]["commercial"] for name in ("segformer-b0", "pspnet", "nearfar", "huggingface")] == [
        "no",
        "yes",
        "yes",
        "unknown",
    ]
    _, out, _ = terrazzo("models")
    assert "segformer-b5" in out
    assert "Apache-2.0" in out


def test_env_says_what_a_bug_report_needs(terrazzo: Terrazzo, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MY_SECRET", "hunter2")
    _, out, _ = terrazzo("env", "--json")
    said = json.loads(out)
    assert said["terrazzo"] == __version__
    assert said["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert said["processor"]["usable_cores"] >= 1
    assert said["processor"]["torch_threads"] == torch.get_num_threads()
    assert 0.1 < said["memory"]["total_gib"] < 1e6
    assert said["variables"]["CUDA_VISIBLE_DEVICES"] == ""
    assert "hunter2" not in out
    assert str(Path.home()) not in out
    _, out, _ = terrazzo("env")
    assert out.split()[:2] == ["terrazzo", __version__]
    assert f"{torch.get_num_threads()} threads" in out


# data in -------------------------------------------------------------------------------------------------------------


def test_formats_in_the_help_are_those_there_are() -> None:
    from terrazzo.cli.datasets import FORMATS
    from terrazzo.data.importers import IMPORTERS

    assert tuple(IMPORTERS) == FORMATS


@pytest.fixture
def raw_camvid(tmp_path: Path) -> Path:
    """CamVid's layout with 2 + 1 images of 48x64; 11 is void."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            name = f"0001TP_{number:06d}.png"
            (tmp_path / "raw" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / f"{split}annot").mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            write_image(tmp_path / "raw" / split / name, image)
            write_mask(
                tmp_path / "raw" / f"{split}annot" / name, rng.integers(0, 12, (48, 64)).astype(np.uint8)
            )
    return tmp_path / "raw"


def test_import_says_what_came_in_and_what_to_type_next(
    terrazzo: Terrazzo, raw_camvid: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "camvid"
    code, out, _ = terrazzo("import", "camvid", raw_camvid, "--out", out_folder)
    assert code == 0
    assert "train 2, val 1" in out
    assert out.endswith(f"Next:\n  terrazzo check {out_folder}\n")
    code, out, err = terrazzo("import", "camvid", raw_camvid, "--out", out_folder)
    assert (code, out) == (2, "")
    assert err.startswith("ExistingOutputError: ")
    code, _, err = terrazzo("import", "camvid", tmp_path / "nowhere", "--out", tmp_path / "x")
    assert code in (1, 2)
    assert "nowhere" in err
    assert not (tmp_path / "x").exists()


def test_check_names_the_command_that_mends_and_it_does(terrazzo: Terrazzo, boxes_of_my_own: Path) -> None:
    (boxes_of_my_own / "train" / "masks" / "003.png").unlink()
    code, out, err = terrazzo("check", boxes_of_my_own)
    assert (code, err) == (1, "")
    assert "1 image has no mask." in out
    command = next(line.strip() for line in out.splitlines() if line.strip().startswith("terrazzo fix "))
    code, out, _ = terrazzo(*shlex.split(command)[1:])
    assert code == 0
    assert "left out" in out
    assert "003" in out
    mended = Path(shlex.split(command)[-1])
    code, out, _ = terrazzo("check", mended)
    assert code == 0
    assert "train 7 images, val 3 images" in out
    assert (boxes_of_my_own / "train" / "images" / "003.png").exists()


def test_check_speaks_json(terrazzo: Terrazzo, boxes: Path) -> None:
    code, out, _ = terrazzo("check", boxes, "--json")
    assert code == 0
    assert json.loads(out)["images"] == {"train": 8, "val": 3}


def test_fix_does_nothing_that_was_not_asked_for(terrazzo: Terrazzo, boxes: Path, tmp_path: Path) -> None:
    code, _, err = terrazzo("fix", boxes, "--out", tmp_path / "copy")
    assert code == 2
    assert err.startswith("UsageError: Nothing to mend was named.")
    code, _, err = terrazzo("fix", boxes, "--out", tmp_path / "copy", "--ignore-ids", "1,x")
    assert code == 2
    assert "--ignore-ids: 'x' is not a whole number from 0 on." in err
    assert not (tmp_path / "copy").exists()


def test_every_remedy_has_its_flag(terrazzo: Terrazzo) -> None:
    from dataclasses import fields

    from terrazzo.data.repair import Remedies

    _, out, _ = terrazzo("fix", "--help")
    for remedy in fields(Remedies):
        assert f"--{remedy.name.replace('_', '-')}" in out.split()


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


# the loop ------------------------------------------------------------------------------------------------------------

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
    assert out.startswith(f"{boxes_run}: 2 steps, best 0.")


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
