"""train.compile: the same curve, the same checkpoints, and words where the compiler is missing or fails."""

import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import terrazzo as tz
from terrazzo import compiled, errors, preparation, training
from terrazzo.nn.losses import SegmentationLoss
from terrazzo.processes import Processes
from terrazzo.recipe import load
from terrazzo.recorded import can_record
from terrazzo.run import Run

FEW = ("train.steps=4", "train.batch_size=2", "train.log_every=1", "train.save_every=2", "train.precision=f32",
       "train.pictures=0", "train.loggers=", "train.keep=0", "train.ema=0.9", "optim.warmup_steps=1",
       "data.crop_hw=32x48", "data.workers=0", "eval.every=4")  # fmt: skip
ON = "train.compile=true"


class Dots(nn.Module):
    """A network of one's own with batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.score = nn.Conv2d(8, 3, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.score(F.dropout(F.relu(self.norm(self.features(image_BCHW))), 0.2, self.training))


@pytest.fixture(scope="module")
def has_compiler() -> None:
    try:
        compiled.check_compiler(torch.device("cpu"))
    except errors.TrainingError as error:
        pytest.skip(f"torch.compile does not work here: {error.found}")


def train(data: Path, out: Path, *overrides: str, network: nn.Module | None = None) -> Run:
    about: dict[str, Any] = {"data": data, "device": "cpu", "quiet": True, "network": network or Dots()}
    return tz.train("segformer-b0-scratch", out=out, overrides=[*FEW, *overrides], **about)


def losses(run: Run) -> list[float]:
    return [entry["loss"] for entry in run.history("train")]


@pytest.mark.usefixtures("has_compiler")
def test_a_compiled_training_has_the_curve_and_the_files_of_a_plain_one_and_goes_on(
    boxes: Path, tmp_path: Path
) -> None:
    plain, run = train(boxes, tmp_path / "plain"), train(boxes, tmp_path / "compiled", ON)
    assert losses(run) == pytest.approx(losses(plain), rel=1e-5) and len(losses(run)) == 4
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(side.newest() / file) for side in (run, plain))
        assert one.keys() == other.keys()
        for name in other:
            torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)
    whole = load_file(run.newest() / "model.safetensors")
    shutil.rmtree(run.path / "checkpoints" / "step-00000004")  # as if it had been stopped after step 2
    again = tz.train(resume=run.path, device="cpu", quiet=True, network=Dots())
    assert losses(again) == losses(run) and len(losses(again)) == 4
    resumed = load_file(again.newest() / "model.safetensors")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.usefixtures("has_compiler")
def test_training_calls_what_was_compiled_and_validation_the_network_itself(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {True: 0, False: 0}
    make = compiled.compiled

    def counted(model: nn.Module) -> Any:
        inner = make(model)

        def called(image_BCHW: Tensor) -> Any:
            counts[model.training] += 1
            return inner(image_BCHW)

        return called

    monkeypatch.setattr(training, "compiled", counted)
    train(boxes, tmp_path / "run", ON)
    assert counts == {True: 4, False: 0}
    train(boxes, tmp_path / "plain")
    assert counts == {True: 4, False: 0}


def test_without_a_compiler_nothing_begins(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found in CXX\nand much more")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(errors.TrainingError, match="torch.compile does not work here on cpu") as caught:
        train(boxes, tmp_path / "run", ON)
    assert caught.value.found == "No working C++ compiler found in CXX"
    assert caught.value.command == "train.compile=false"
    assert not (tmp_path / "run").exists()


def test_a_network_that_cannot_be_compiled_is_told_and_trains_without(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def breaks(model: nn.Module) -> Any:
        def called(_: Tensor) -> Any:
            raise BackendCompilerFailed(breaks, ValueError("no lowering for this\nand a page of code"), None)

        return called

    monkeypatch.setattr(preparation, "check_compiler", lambda _: None)
    monkeypatch.setattr(training, "compiled", breaks)
    with pytest.raises(errors.TrainingError, match="torch.compile cannot compile Dots") as caught:
        train(boxes, tmp_path / "run", ON)
    assert "no lowering for this" in str(caught.value) and "a page of code" not in str(caught.value)
    words = shlex.split(caught.value.command or "")
    assert words == ["terrazzo", "train", "--resume", str(tmp_path / "run"), "train.compile=false"]
    run = tz.train(resume=tmp_path / "run", overrides=words[-1:], device="cpu", quiet=True, network=Dots())
    assert run.step == 4 and losses(run) == losses(train(boxes, tmp_path / "plain"))


def test_a_spread_network_is_not_compiled() -> None:
    with pytest.raises(errors.RecipeError, match="spread over processes"):
        load("segformer-b0-scratch", [ON, "train.shard=fsdp"])


def test_what_is_compiled_is_not_recorded_as_a_graph() -> None:
    parts = {"network": SimpleNamespace(waits_for_nothing=True)}
    gpu = Processes(0, 1, torch.device("cuda"))
    for overrides, is_recorded in (([], True), ([ON], False)):
        recipe = load("segformer-b0-scratch", overrides)
        job: Any = SimpleNamespace(recipe=recipe, loss=SegmentationLoss(recipe.loss, None, 255), **parts)
        assert can_record(job, gpu) is is_recorded
