"""What training says when memory runs out, and when its loss does not fall; and that it says nothing otherwise."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import terrazzo as tz
from terrazzo import diagnosis, errors
from terrazzo.cli import COMMANDS, main
from terrazzo.cli.parsing import find_command
from terrazzo.meter import Reading
from terrazzo.recipe import load
from terrazzo.run import Run

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
)
SHORT = {
    "train.steps": "6",
    "train.batch_size": "4",
    "train.micro_batch": "2",
    "train.log_every": "2",
    "train.save_every": "2",
    "train.precision": "f32",
    "train.pictures": "0",
    "train.loggers": "",
    "optim.warmup_steps": "0",
    "data.crop_hw": "32x64",
    "eval.every": "100",
}


class Hungry(nn.Module):
    """A tiny network that asks for too much at a step (of two micro-batches), or when it is validated."""

    def __init__(self, *, at: int | None = None, error: Exception | None = None, on: str = "train") -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.score = nn.Conv2d(8, 3, 1)
        self.gradient_checkpointing = False
        self.at, self.error, self.on, self.calls = at, error, on, 0

    def forward(self, image_BCHW: Tensor) -> Tensor:
        if self.error is not None and self.training is (self.on == "train"):
            self.calls += 1
            if self.calls == self.at:
                raise self.error
        return (
            checkpoint(self.body, image_BCHW, use_reentrant=False)
            if self.gradient_checkpointing
            else self.body(image_BCHW)
        )

    def body(self, image_BCHW: Tensor) -> Tensor:
        return self.score(self.first(image_BCHW).relu())


def train(data: Path, out: Path, network: nn.Module, *overrides: str, **own: Any) -> Run:
    settings = SHORT | dict(item.split("=", 1) for item in overrides)
    words = [f"{name}={value}" for name, value in settings.items()]
    own = {"quiet": True, **own}
    return tz.train(
        "segformer-b0-scratch", data=data, out=out, overrides=words, network=network, device="cpu", **own
    )


def reads(command: str) -> None:
    """The command line takes what the message tells to type."""
    words = shlex.split(command)
    assert words[0] == "terrazzo"
    find_command(words[1], COMMANDS).parser().read(words[2:])


# out of memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), RuntimeError(CPU_WORDS)]
)
def test_running_out_of_memory_says_what_to_change_and_what_it_would_hold(
    error: Exception, boxes: Path, tmp_path: Path
) -> None:
    with pytest.raises(errors.TrainingError) as told:
        train(boxes, tmp_path / "run", Hungry(at=2 * 3 + 2, error=error), "train.log_every=1")
    text = str(told.value)
    assert text.startswith("cpu ran out of memory at step 4 of 6.")
    assert str(error).splitlines()[0] in text
    assert "micro-batch 2 of 32x64 in f32: activations " in text
    measured = [
        (float(number), name)
        for number, name in re.findall(r"^ +([\d.,]+) MiB  ([\w.]+)=", text, re.MULTILINE)
    ]
    assert [number for number, _ in measured] == sorted(number for number, _ in measured)
    now = float(re.findall(r"activations ([\d.]+) MiB", text)[0])
    saved = {name: number for number, name in measured}
    assert set(saved) == {
        "train.micro_batch",
        "train.gradient_checkpointing",
        "train.precision",
        "data.crop_hw",
    }
    assert saved["train.micro_batch"] == pytest.approx(now / 2, rel=0.02)
    assert saved["train.gradient_checkpointing"] < now
    assert told.value.exit_code == 1
    assert "The run keeps its checkpoint of step 3." in text
    assert told.value.command is not None
    reads(told.value.command)
    run = Run.open(tmp_path / "run")
    assert run.step == 3
    resumed = tz.train(
        resume=run.path,
        network=Hungry(),
        device="cpu",
        quiet=True,
        overrides=["train.gradient_checkpointing=true"],
    )
    whole = train(boxes, tmp_path / "whole", Hungry(), "train.log_every=1")
    assert resumed.step == whole.step == 6
    for one, other in zip(resumed.history("train"), whole.history("train"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_the_numbers_are_those_counted_by_hand(boxes: Path, tmp_path: Path) -> None:
    """In floats per pixel: the image 3 and the ReLU's result 8 stay; the fused loss keeps its gradient, 3."""
    network = Hungry(at=1, error=MemoryError())
    with pytest.raises(errors.TrainingError) as told:
        train(boxes, tmp_path / "run", network, "train.batch_size=64", "train.micro_batch=0")
    held = float(re.findall(r"activations ([\d.,]+) MiB", str(told.value))[0].replace(",", ""))
    least = 64 * 32 * 64 * 4 * (3 + 8) / 2**20
    assert (
        least <= held <= least * 17 / 11
    )  # what the loss keeps is its kernel's affair: at most mask and gradient
    assert "at step 1 of 6" in str(told.value)
    assert "keeps no checkpoint; none was due yet" in str(told.value)


def test_the_command_line_tells_it_and_leaves_with_1(
    boxes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "terrazzo.preparation.build", lambda *words, **named: Hungry(at=1, error=MemoryError())
    )
    words = [
        "train",
        "segformer-b0-scratch",
        "--data",
        str(boxes),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    assert main([*words, *(f"{name}={value}" for name, value in SHORT.items())]) == 1
    said = capsys.readouterr().err
    assert "MemoryShortageError: cpu ran out of memory at step 1 of 6." in said
    assert "Traceback" not in said


def test_a_validation_that_runs_out_of_memory_costs_no_step(boxes: Path, tmp_path: Path) -> None:
    network = Hungry(at=1, error=torch.OutOfMemoryError("CUDA out of memory."), on="eval")
    with pytest.raises(errors.TrainingError, match="in the validation after step 6 of 6") as told:
        train(boxes, tmp_path / "run", network)
    assert "images are looked at whole, 1 at a time" in str(told.value)
    assert "The run keeps its checkpoint of step 6." in str(told.value)
    assert told.value.command is not None
    assert "eval.inference=windows" in told.value.command
    reads(told.value.command)
    assert Run.open(tmp_path / "run").step == 6


def test_other_failures_are_told_as_ever(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train(
            boxes,
            tmp_path / "run",
            Hungry(at=1, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        )


def test_a_step_that_fails_costs_none_of_those_before(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such axis") as told:
        train(boxes, tmp_path / "run", Hungry(at=2 * 3 + 2, error=ValueError("no such axis")))
    assert Run.open(tmp_path / "run").step == 3
    going_on = f"terrazzo train --resume {tmp_path / 'run'}"
    assert told.value.__notes__ == [f"The run keeps its checkpoint of step 3. To go on:\n  {going_on}"]


# a loss that does not fall ----------------------------------------------------------------------------------

LONG = (
    "train.steps=220",
    "train.batch_size=1",
    "train.micro_batch=0",
    "train.log_every=20",
    "eval.every=1000",
)


def notes(run: Run) -> list[str]:
    return [entry["text"] for entry in run.history("note")]


def test_a_loss_that_does_not_fall_gets_one_line_with_the_command_to_try(
    boxes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stuck = train(
        boxes, tmp_path / "a run", Hungry(), *LONG, "train.save_every=1000", "optim.lr=1e-12", quiet=False
    )
    said = capfd.readouterr().err
    assert said.count("the loss has not fallen in 200 steps") == 1
    (line,) = notes(stuck)
    assert "\n" not in line
    command = line.partition("try that first: ")[2]
    assert "--overfit 4" in command
    assert f"'{stuck.path}/recipe.json'" in command
    reads(command)
    words = shlex.split(command)
    assert load(words[2]).optim.lr == 1e-12  # overrides included


def test_a_loss_that_falls_is_left_alone(boxes: Path, tmp_path: Path) -> None:
    run = train(boxes, tmp_path / "run", Hungry(), *LONG, "train.save_every=1000", "optim.lr=3e-2")
    assert notes(run) == []
    losses = [entry["loss"] for entry in run.history("train")]
    assert losses[-1] < 0.9 * losses[0]


def test_when_and_what_counts_as_fallen(boxes: Path) -> None:
    assert [diagnosis.judges_fall(done, 500) for done in (150, 199, 200)] == [False, False, True]
    assert [diagnosis.judges_fall(done, 20_000) for done in (200, 3999, 4000)] == [False, False, True]

    class Asked:
        overfit = 0
        data = tz.open_dataset(boxes)
        run = Run(Path("runs/x"), load("segformer-b0-scratch"), {"source": "boxes"})

    def say(*losses: float, **more: Any) -> str | None:
        asked: Any = Asked()
        return diagnosis.not_falling([{"loss": loss, **more} for loss in losses], asked, 400)

    assert say(1.1, 1.0, 1.2, 1.1) is not None
    assert say(1.1, 1.0, 1.0, 1.0) is None
    assert say(1.1, 1.1, 1.1) is None  # too few lines to tell
    assert (
        say(0.5, 0.5, 0.5, 0.5, cross_entropy=0.5) is None
    )  # below half of ln 3: it had fallen before, by model.init
    assert say(1.0, 1.1, 0.2, 0.3, 1.2, 1.1, 1.2, 1.3) is not None  # fell and came back


@pytest.mark.parametrize(
    ("waited", "steps", "cache", "says"),
    [
        (0.05, 10_000, "auto", None),  # a twentieth
        (0.2, 100, "auto", None),  # a fifth, of 20 seconds
        (
            0.2,
            10_000,
            "auto",
            r"20 % of a step is spent waiting for data, 33:\d\d until the end: try .*data.cache=memory",
        ),
        (0.2, 10_000, "memory", r"20 % .*: (try data.workers=\d+$|a faster disk)"),
    ],
)
def test_waiting_for_data_is_said_with_what_to_change(
    boxes: Path, waited: float, steps: int, cache: str, says: str | None
) -> None:
    recipe = load("segformer-b0-scratch", [f"train.steps={steps}", f"data.cache={cache}"])
    split = tz.open_dataset(boxes)["train"]
    job: Any = SimpleNamespace(
        recipe=recipe, steps=steps, overfit=0, train_split=split, data=SimpleNamespace(channels=3)
    )
    reading = Reading({"loss": 1.0}, accuracy=0.5, seconds=1.0, waited=waited)
    said = diagnosis.waiting_for_data(reading, job, 10)
    assert (said is None) if says is None else (said is not None and re.match(says, said)), said


@pytest.mark.parametrize(
    ("form", "overrides", "is_named"),
    [
        ("jpg", ["data.scale=0.2,0.6"], True),  # 0.4 at the middle: 2.5 times smaller
        ("jpg", ["data.scale=0.2,1"], False),  # 1.7 times
        ("jpg", ["data.resize=short", "data.resize_hw=32x32", "data.scale=0.5,1.5"], True),  # 100 to 32
        ("jpg", ["data.scale=0.2,0.6", "data.scaled_decoding=true"], False),  # it is on
        ("png", ["data.scale=0.2,0.6"], False),
    ],
)
def test_jpegs_finer_than_crops_need_are_named_where_data_are_waited_for(
    tmp_path: Path, form: str, overrides: list[str], is_named: bool
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / "train" / folder).mkdir(parents=True)
    Image.new("RGB", (140, 100), (90, 60, 30)).save(tmp_path / "train" / "images" / f"a.{form}")
    Image.new("L", (140, 100), 1).save(tmp_path / "train" / "masks" / "a.png")
    (tmp_path / "dataset.json").write_text('{"classes": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}]}')
    recipe = load("segformer-b0-scratch", ["train.steps=10000", *overrides])
    split = tz.open_dataset(tmp_path)["train"]
    job: Any = SimpleNamespace(
        recipe=recipe, steps=10_000, overfit=0, train_split=split, data=SimpleNamespace(channels=3)
    )
    said = diagnosis.waiting_for_data(Reading({}, accuracy=0.5, seconds=1.0, waited=0.2), job, 10)
    assert said is not None
    assert ("data.scaled_decoding=true (JPEGs" in said) == is_named
    assert ("data.cache=" in said) == ("data.scaled_decoding=true" not in overrides)
