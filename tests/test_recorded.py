"""A micro-batch recorded on a GPU: when it is, and that nothing comes out differently."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import terrazzo as tz
from terrazzo import recipe as recipes
from terrazzo.evaluation import evaluate
from terrazzo.nn.losses import LossConfig, SegmentationLoss
from terrazzo.processes import Processes
from terrazzo.recorded import can_record

FEW = ["train.steps=8", "train.batch_size=4", "data.crop_hw=32x32", "train.pictures=0", "optim.warmup_steps=2",
       "train.save_every=4", "eval.every=8", "train.log_every=4", "train.keep=0", "train.loggers="]  # fmt: skip


def job(**changes: Any) -> Any:
    recipe = recipes.load("segformer-b0-scratch", changes.pop("overrides", ()))
    network = SimpleNamespace(waits_for_nothing=True)
    loss = SegmentationLoss(recipe.loss, None, 255)
    return SimpleNamespace(**{"recipe": recipe, "network": network, "loss": loss} | changes)


def on(device: str, world: int = 1) -> Processes:
    return Processes(0, world, torch.device(device))


def test_a_step_is_recorded_on_one_gpu_where_sizes_are_fixed_and_nothing_waits() -> None:
    assert can_record(job(), on("cuda"))
    assert not can_record(job(), on("cpu"))
    assert not can_record(job(), on("cuda", world=2))
    for override in ("train.cuda_graph=false", "data.augment=false", "train.gradient_checkpointing=true"):
        assert not can_record(job(overrides=[override]), on("cuda")), override
    assert not can_record(job(network=nn.Linear(1, 1)), on("cuda"))
    assert not can_record(
        job(loss=SegmentationLoss(replace(LossConfig(), lovasz=1.0), None, 255)), on("cuda")
    )
    assert not can_record(job(loss=lambda *_: None), on("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("micro_batch", [0, 2])
def test_a_recorded_training_is_the_same_bit_for_bit_and_so_is_a_resumed_one(
    boxes: Path, tmp_path: Path, micro_batch: int
) -> None:
    recipe, few = "segformer-b0-scratch", [*FEW, f"train.micro_batch={micro_batch}"]
    about = {"data": boxes, "device": "cuda", "quiet": True}
    recorded = tz.train(recipe, out=tmp_path / "recorded", overrides=few, **about)
    plain = tz.train(recipe, out=tmp_path / "plain", overrides=[*few, "train.cuda_graph=false"], **about)
    first, second = (load_file(run.newest() / "model.safetensors") for run in (recorded, plain))
    assert all(torch.equal(first[name], second[name]) for name in second)
    for folder in (recorded.path / "checkpoints").glob("step-*8"):
        folder.rename(tmp_path / folder.name)  # as if it had been stopped after step 4
    again = tz.train(resume=recorded.path, device="cuda", quiet=True)
    resumed = load_file(again.newest() / "model.safetensors")
    assert all(torch.equal(resumed[name], second[name]) for name in second)


@pytest.mark.gpu
def test_a_gpu_predicts_and_counts_as_the_cpu_does(boxes: Path, tiny_model: Path) -> None:
    sides = [tz.load(tiny_model, backend="torch", device=device) for device in ("cpu", "cuda")]
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    here, there = (side(image, confidence=True) for side in sides)
    assert (here.mask == there.mask).mean() >= 0.999
    assert here.confidence is not None and there.confidence is not None
    assert np.abs(here.confidence.astype(int) - there.confidence).max() <= 2
    first, second = (evaluate(side, data=boxes, quiet=True) for side in sides)
    assert np.abs(first.counts - second.counts).sum() <= 0.002 * first.counts.sum()
