"""Training: what it leaves behind, that it goes on exactly where it was, and what it says when it cannot."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

import terrazzo as tz
from killable import Small, train_or_go_on
from terrazzo import errors
from terrazzo.recipe import Recipe, load
from terrazzo.run import Run
from warm import start

SHORT = (
    "train.steps=12",
    "train.batch_size=4",
    "train.log_every=4",
    "train.save_every=4",
    "train.precision=f32",
    "optim.warmup_steps=2",
    "data.crop_hw=32x48",
    "eval.every=6",
)


class Dots(nn.Module):
    """A network of one's own: every pixel by its colour and its neighbours'."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.score = nn.Conv2d(16, classes, 1)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.score(F.relu(self.features(image_BCHW - 0.5)))


def dots() -> Dots:
    torch.manual_seed(7)
    return Dots()


class Wide(Dots):
    """The same with weights that take a few hundred KiB."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4000, 3, stride=8, padding=1)
        self.score = nn.Conv2d(4000, 3, 1)


def settings(*overrides: str) -> list[str]:
    """SHORT, with these instead where both speak of a field."""
    return [
        f"{name}={value}" for name, value in dict(item.split("=", 1) for item in (*SHORT, *overrides)).items()
    ]


def train(
    data: Path, out: Path, *overrides: str, recipe: "str | Recipe" = "segformer-b0-scratch", **own: Any
) -> Run:
    return tz.train(
        recipe, data=data, out=out, overrides=settings(*overrides), device="cpu", quiet=True, **own
    )


def weights_of(run: Run, step: int, file: str = "model.safetensors") -> dict[str, Tensor]:
    return load_file(run.path / "checkpoints" / f"step-{step:08d}" / file)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, such as {different[:3]}"


# what it leaves behind -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    more = ("train.steps=40", "eval.every=20", "train.log_every=10", "optim.lr=1e-2", "train.save_every=1000")
    return train(boxes, tmp_path_factory.mktemp("runs") / "learned", *more, network=dots())


def test_a_network_learns_and_the_logged_score_is_the_one_evaluate_finds(learned: Run, boxes: Path) -> None:
    evaluated = learned.history("eval")
    assert [entry["step"] for entry in evaluated] == [20, 40]
    assert evaluated[-1]["miou"] > 0.8 > evaluated[0]["loss"] > evaluated[-1]["loss"]
    report = tz.evaluate(learned.path, data=boxes, network=Dots(), quiet=True)
    assert learned.best is not None
    assert report.miou == pytest.approx(learned.best["miou"], abs=1e-12)


def test_a_run_holds_its_recipe_its_data_and_its_pictures(learned: Run, boxes: Path) -> None:
    assert Recipe.from_json(json.loads((learned.path / "recipe.json").read_text())) == learned.recipe
    data = json.loads((learned.path / "data.json").read_text())
    assert data["fingerprint"] == tz.open_dataset(boxes).fingerprint
    assert data["own"]["network"].endswith("Dots")
    with Image.open(learned.path / "pictures" / "step-00000040.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width > picture.height / 3
    assert list((learned.path / "tensorboard").glob("events.*"))
    assert [entry["step"] for entry in learned.history("train")] == [10, 20, 30, 40]


def test_tensorboard_has_scalars_and_pictures(learned: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(learned.path / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    assert {"train/loss", "train/lr", "eval/miou", "eval/loss"} <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Images("image | truth | prediction")] == [20, 40]


# loss of the global batch ---------------------------------------------------------------------------------


def test_micro_batches_add_up_to_the_batch(boxes: Path, tmp_path: Path) -> None:
    whole = train(boxes, tmp_path / "whole", "optim.kind=sgd", "optim.lr=0.05", network=dots())
    parts = train(
        boxes, tmp_path / "parts", "optim.kind=sgd", "optim.lr=0.05", "train.micro_batch=1", network=dots()
    )
    one, other = weights_of(whole, 12), weights_of(parts, 12)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-5, atol=1e-6)


def test_one_step_is_that_of_cross_entropy_over_labelled_pixels(boxes: Path, tmp_path: Path) -> None:
    """The truth by torch alone: one SGD step on the whole training split, unaugmented, mean over labelled pixels."""
    plain = (
        "train.steps=1",
        "optim.warmup_steps=0",
        "train.batch_size=8",
        "train.micro_batch=2",
        "data.augment=false",
    )
    bare = (
        "optim.kind=sgd",
        "optim.lr=0.1",
        "optim.momentum=0",
        "optim.weight_decay=0",
        "optim.head_lr_factor=1",
    )
    loss = ("loss.class_weights=none", "train.max_grad_norm=null", "optim.schedule=constant", "train.ema=0")
    run = train(boxes, tmp_path / "run", *plain, *bare, *loss, network=dots())
    network = dots()
    samples = list(tz.open_dataset(boxes)["train"])
    images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) / 255 for sample in samples])
    masks = torch.stack([torch.from_numpy(np.asarray(sample.mask)).long() for sample in samples])
    logits = F.interpolate(network(images), masks.shape[1:], mode="bilinear", align_corners=False)
    F.cross_entropy(logits, masks, ignore_index=255).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        expected = (parameter - 0.1 * parameter.grad).detach()
        torch.testing.assert_close(weights_of(run, 1)[name], expected, rtol=1e-5, atol=1e-6)


# going on -------------------------------------------------------------------------------------------------

EXACT = (
    "train.batch_size=5",  # 8 images: an epoch ends inside a step
    "train.micro_batch=1",
    "train.ema=0.9",
    "train.precision=bf16",
    "train.keep=20",
    "train.save_every=1",
    "train.pictures=1",
    "data.workers=2",
    "data.rare_images=1",
    "data.rare_crops=0.5",
    "loss.ohem=0.5",
    "loss.ohem_min_kept=200",
    "loss.dice=0.5",
    "loss.lovasz=0.2",
)


@pytest.fixture(scope="module")
def unstopped(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(boxes, tmp_path_factory.mktemp("runs") / "unstopped", *EXACT, network=Small())


def assert_equal_runs(one: Run, other: Run, step: int = 12) -> None:
    for file in ("model.safetensors", "training.safetensors", "optimizer.safetensors"):
        assert_same(weights_of(one, step, file), weights_of(other, step, file))
    scores = [[(e["step"], e["miou"], e["loss"]) for e in run.history("eval")] for run in (one, other)]
    assert scores[0] == scores[1]
    assert one.best == other.best


def test_a_stopped_run_saves_and_goes_on_bit_for_bit(unstopped: Run, boxes: Path, tmp_path: Path) -> None:
    def stop_in_the_first_validation(pred: np.ndarray, truth: np.ndarray) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.0

    own = {"stop": stop_in_the_first_validation}
    stopped = train(boxes, tmp_path / "run", *EXACT, network=Small(), metrics=own)
    assert stopped.stopped_by == signal.SIGTERM
    assert stopped.step == 6
    resumed = tz.train(resume=stopped.path, network=Small(), device="cpu", quiet=True)
    assert resumed.stopped_by is None
    assert_equal_runs(unstopped, resumed)


@pytest.mark.parametrize(("kills", "steps"), [(3, 12), pytest.param(20, 120, marks=pytest.mark.long)])
def test_a_killed_run_goes_on_bit_for_bit(
    kills: int, steps: int, unstopped: Run, boxes: Path, tmp_path: Path
) -> None:
    """SIGKILL at random moments, and every other time while a checkpoint is being written; each step is saved."""
    run, exact = tmp_path / "run", (*EXACT, f"train.steps={steps}")
    if steps != unstopped.step:
        unstopped = train(boxes, tmp_path / "unstopped", *exact, network=Small())
    drawn = random.Random(kills)
    killed = cut_short = 0
    for _ in range(10 * kills):
        if not (run / "recipe.json").exists():  # killed before there was a run
            shutil.rmtree(run, ignore_errors=True)
        process = start(train_or_go_on, boxes, run, settings(*exact), said=tmp_path / "said")
        if killed < kills:
            at = newest_step(run) + drawn.choice((1, 1, 1, 2))
            while process.is_alive() and newest_step(run) < at:  # a moment within the work, not the imports
                time.sleep(0.005)
            if killed % 2:
                while process.is_alive() and not being_written(run):
                    time.sleep(0.0005)
            else:
                time.sleep(drawn.random() * 0.1)
            process.kill()
            killed += 1
        process.join(120)
        cut_short += bool(being_written(run))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
    assert killed == kills
    assert process.exitcode == 0
    assert cut_short or kills < 20
    assert not being_written(run)  # what was cut short is swept away
    assert_equal_runs(unstopped, Run.open(run), steps)


def being_written(run: Path) -> list[str]:
    """What lies among the checkpoints and is none."""
    return [entry.name for entry in run.glob("checkpoints/*") if not entry.name.startswith("step-")]


def newest_step(run: Path) -> int:
    return max((int(folder.name[5:]) for folder in (run / "checkpoints").glob("step-????????")), default=0)


def test_a_truncated_checkpoint_is_noticed_and_the_one_before_is_used(
    unstopped: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(unstopped.path, copy)
    (copy / "checkpoints" / "step-00000012" / "optimizer.safetensors").write_bytes(b"cut short")
    shutil.rmtree(copy / "checkpoints" / "step-00000011")
    run = tz.train(resume=copy, network=Small(), device="cpu")
    assert "step-00000012 cannot be used (optimizer.safetensors has 9 bytes of" in capfd.readouterr().err
    assert_equal_runs(unstopped, run)


def test_resume_refuses_changed_data_another_recipe_and_other_settings(
    boxes_of_my_own: Path, tmp_path: Path
) -> None:
    run = train(boxes_of_my_own, tmp_path / "run", "train.steps=4", "eval.every=4", network=dots())
    with pytest.raises(errors.RunError, match="is a run of another recipe") as other:
        tz.train("segformer-b0", resume=run.path)
    assert "segformer-b0-scratch" in str(other.value)
    with pytest.raises(errors.RecipeError, match="A resumed run keeps its recipe") as setting:
        tz.train(resume=run.path, overrides=["optim.lr=1"])
    assert f"model.init={run.path} optim.lr=1" in str(setting.value)
    image = boxes_of_my_own / "train" / "images" / "000.png"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(image)
    with pytest.raises(errors.DataChangedError, match="has changed since the run began") as changed:
        tz.train(resume=run.path, network=dots())
    assert f"terrazzo train --resume {run.path} --data-changed-ok" in str(changed.value)
    assert tz.train(resume=run.path, network=dots(), data_changed_ok=True, quiet=True).step == 4


def test_a_second_training_in_the_same_folder_is_refused(learned: Run) -> None:
    with learned.locked(), pytest.raises(errors.RunInUseError, match="Another training writes to"):
        tz.train(resume=learned.path, network=Dots())


def test_going_on_with_a_finished_run_says_that_nothing_is_left(
    learned: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tz.train(resume=learned.path, network=Dots(), device="cpu").step == 40
    assert "all 40 steps were done before; nothing is left to do" in capfd.readouterr().err


def test_a_run_folder_is_never_overwritten(learned: Run, boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ExistingOutputError, match="There is a run in") as there:
        train(boxes, learned.path, network=dots())
    assert there.value.exit_code == 2
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(errors.ExistingOutputError, match="is not empty and holds no run"):
        train(boxes, tmp_path, network=dots())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


# what goes wrong ------------------------------------------------------------------------------------------


def test_nan_names_step_images_learning_rate_and_layer(boxes: Path, tmp_path: Path) -> None:
    class Breaks(Dots):
        calls = 0

        def forward(self, image_BCHW: Tensor) -> Tensor:
            self.calls += self.training
            if self.calls == 6:
                with torch.no_grad():
                    self.score.weight[0] = float("nan")
            return super().forward(image_BCHW)

    with pytest.raises(errors.NonFiniteLossError) as told:
        train(boxes, tmp_path / "run", network=Breaks())
    text = str(told.value)
    assert "The loss is no longer a number at step 6, seen within 1 step (learning rate " in text
    assert "cross_entropy is nan; first layer with such a result: score.weight (its weights)" in text
    assert "batch: 00" in text
    assert "The run keeps its checkpoint of step 4." in text
    assert told.value.exit_code == 1
    assert Run.open(tmp_path / "run").step == 4


def test_a_corrupt_image_stops_training_with_the_step_saved(boxes_of_my_own: Path, tmp_path: Path) -> None:
    image = boxes_of_my_own / "train" / "images" / "003.png"
    whole = image.read_bytes()
    dataset = tz.open_dataset(boxes_of_my_own)
    assert dataset.fingerprint
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(errors.UnreadableFileError, match="003.png"):
        train(
            boxes_of_my_own, tmp_path / "run", "loss.class_weights=none", "train.batch_size=1", network=dots()
        )
    run = Run.open(tmp_path / "run")
    position = run.step  # the image comes in the first epoch: its position is the number of steps before it
    assert 0 <= position < 8
    order = np.random.default_rng([run.recipe.train.seed, 0]).permutation(8)
    assert order[position] == 3
    skipping = ("data.on_unreadable=skip", "loss.class_weights=none", "train.batch_size=1")
    assert train(boxes_of_my_own, tmp_path / "skips", *skipping, network=dots()).step == 12


def test_a_full_disk_leaves_the_last_checkpoint_whole(boxes: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits need a Unix")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk(pred: np.ndarray, truth: np.ndarray) -> float:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, limit[1]))
        return 0.0

    try:
        with pytest.raises(errors.StorageError, match="The disk is full") as full:
            train(
                boxes, tmp_path / "run", "train.pictures=0", network=Wide(), metrics={"fill": fill_the_disk}
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "What was there before is intact." in str(full.value)
    run = Run.open(tmp_path / "run")
    assert [folder.name for folder in (run.path / "checkpoints").iterdir()] == ["step-00000004"]
    assert run.newest() is not None
    assert tz.train(resume=run.path, network=Wide(), device="cpu", quiet=True).step == 12


# a handful, and one's own parts ----------------------------------------------------------------------------


def test_a_handful_is_memorised(boxes: Path, tmp_path: Path) -> None:
    run = train(boxes, tmp_path / "run", overfit=2, recipe="segformer-b0-scratch")
    last = run.history("eval")[-1]
    assert last["miou"] >= 0.95
    assert last["step"] <= 300


def test_a_broken_loss_is_found_by_overfitting(boxes: Path, tmp_path: Path) -> None:
    def upside_down(logits: Tensor, mask: Tensor) -> Tensor:
        return -F.cross_entropy(logits, mask, ignore_index=255).clamp(max=5.0)

    with pytest.raises(
        errors.TrainingError, match="Something is wrong: 2 images could not be memorised"
    ) as wrong:
        train(boxes, tmp_path / "run", overfit=2, network=dots(), loss=upside_down)
    assert "Do the masks belong to their images" in str(wrong.value)


def test_own_loss_and_metric_are_used_and_named(boxes: Path, tmp_path: Path) -> None:
    def dice(logits: Tensor, mask: Tensor) -> dict[str, Tensor]:
        assert logits.shape[-2:] == mask.shape[-2:]
        return {
            "half": F.cross_entropy(logits, mask, ignore_index=255) / 2,
            "other": logits.square().mean() / 10,
        }

    def share_of_box(pred: np.ndarray, truth: np.ndarray) -> float:
        return float((pred == 1).mean())

    run = train(boxes, tmp_path / "run", network=dots(), loss=dice, metrics={"box share": share_of_box})
    entry = run.history("train")[-1]
    assert entry["loss"] == pytest.approx(entry["half"] + entry["other"])
    assert 0 <= run.history("eval")[-1]["box share"] <= 1
    own = json.loads((run.path / "data.json").read_text())["own"]
    assert own["loss"].endswith("dice")
    assert own["box share"].endswith("share_of_box")


def test_a_loss_that_is_no_scalar_is_told(boxes: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="The loss returned something that is not a scalar"):
        train(boxes, tmp_path / "run", network=dots(), loss=lambda logits, mask: logits)


def test_early_stopping_ends_after_patience(boxes: Path, tmp_path: Path) -> None:
    frozen = ("optim.lr=1e-12", "train.patience=2", "eval.every=2", "train.steps=100")
    run = train(boxes, tmp_path / "run", *frozen, network=dots())
    assert [entry["step"] for entry in run.history("eval")] == [2, 4, 6]


def test_a_frozen_backbone_keeps_its_weights_and_a_run_can_start_another(
    boxes: Path, boxes_of_my_own: Path, tmp_path: Path
) -> None:
    about = json.loads((boxes_of_my_own / "dataset.json").read_text())
    terms = {"name": "sealed", "license": "CC-BY-NC-4.0"}
    (boxes_of_my_own / "dataset.json").write_text(json.dumps(about | terms))
    other = train(boxes_of_my_own, tmp_path / "other", "train.steps=2", "optim.warmup_steps=0")
    run = train(boxes, tmp_path / "run", "train.steps=4", f"model.init={other.path}", "model.freeze=backbone")
    licenses = run.data["licenses"]
    assert (licenses["weights"], licenses["data"], licenses["commercial"]) == (None, None, "no")
    assert [one["name"] for one in licenses["from"]["data"]] == ["boxes", "sealed"]
    notice = "not for commercial use: it was trained on sealed (CC-BY-NC-4.0)"
    for one in (other, run):
        assert [entry["text"] for entry in one.history("note")] == [notice]
    saved = json.loads((run.best_folder() / "terrazzo.json").read_text())
    assert saved["licenses"] == licenses
    assert str(tmp_path) not in json.dumps(saved)  # though it starts from a run there
    before, after = weights_of(other, 2), weights_of(run, 4)
    encoder = [name for name in before if name.startswith("segformer.")]
    assert_same({name: before[name] for name in encoder}, {name: after[name] for name in encoder})
    assert not torch.equal(before["decode_head.classifier.weight"], after["decode_head.classifier.weight"])


def test_merged_classes_are_trained_as_one(boxes: Path, tmp_path: Path) -> None:
    run = train(
        boxes,
        tmp_path / "run",
        "train.steps=2",
        "optim.warmup_steps=0",
        "data.merge=field+box=ground",
        network=Dots(2),
    )
    assert [entry["name"] for entry in run.data["classes"]] == ["ground", "sky"]
    assert run.recipe.data.merge == ("field+box=ground",)


def test_gradient_checkpointing_changes_memory_and_nothing_else(boxes: Path, tmp_path: Path) -> None:
    exact = ("train.steps=2", "optim.warmup_steps=0", "train.batch_size=2", "model.drop_path=0.2")
    plain = train(boxes, tmp_path / "plain", *exact)
    again = train(boxes, tmp_path / "again", *exact, "train.gradient_checkpointing=true")
    for name, tensor in weights_of(plain, 2).items():
        torch.testing.assert_close(weights_of(again, 2)[name], tensor, rtol=1e-5, atol=1e-7)
    with pytest.raises(errors.RecipeError, match="Dots cannot compute its activations twice"):
        train(boxes, tmp_path / "none", "train.gradient_checkpointing=true", network=dots())


def test_training_without_recipe_or_data_says_what_to_type(boxes: Path) -> None:
    with pytest.raises(errors.UsageError, match="Training needs a recipe"):
        tz.train(data=boxes)
    with pytest.raises(errors.UsageError, match="Training needs a data set"):
        tz.train("segformer-b0-scratch")
    with pytest.raises(errors.MissingPathError):
        tz.train("segformer-b0-scratch", data="no/such/folder")
    assert load("segformer-b0-scratch", ()).name == "segformer-b0-scratch"
