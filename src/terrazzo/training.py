"""Training, told from top to bottom: batches in, loss, backward, step; once in a while log, look, keep.

`train` is the door; `_train` is the page. There are no hooks: whoever needs another loop copies this one. What happens
before the first step stands in `preparation.py`, what is said when something breaks in `diagnosis.py`.

The gradient of a step is that of one loss: the sum over the pixels of the *global* batch, divided by their weight,
whatever the number of processes and micro-batches. Random streams are keyed, so a stopped run goes on bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo import diagnosis
from terrazzo.asking import Asked
from terrazzo.compiled import compiled, told_not_compiled
from terrazzo.data import Dataset
from terrazzo.devices import autocast, choose_precision, loss_scaler, sent
from terrazzo.ema import MovingAverage
from terrazzo.keeping import Keeper
from terrazzo.meter import Meter, hits
from terrazzo.nn.outputs import as_output
from terrazzo.nn.sync_batch_norm import synchronise
from terrazzo.optim import build_optimizer, build_schedule
from terrazzo.preparation import Job, prepare
from terrazzo.processes import Processes, joined
from terrazzo.progress import Progress
from terrazzo.recipe import Recipe
from terrazzo.recorded import Parts, Pass, Recorded, can_record
from terrazzo.run import Run
from terrazzo.stopping import StopSignals


def train(
    recipe: "str | PathLike[str] | Recipe | None" = None,
    *,
    data: "str | PathLike[str] | Dataset | None" = None,
    out: "str | PathLike[str] | None" = None,
    overrides: Sequence[str] = (),
    network: nn.Module | None = None,
    loss: Callable[..., Any] | None = None,
    metrics: Mapping[str, Callable[..., float]] | None = None,
    overfit: int = 0,
    fold: tuple[int, int] | None = None,
    resume: "str | PathLike[str] | None" = None,
    device: str = "auto",
    seed: int | None = None,
    data_changed_ok: bool = False,
    quiet: bool = False,
) -> Run:
    """Train a network on a data set and return its run.

    recipe: a name of `terrazzo recipes`, a recipe's JSON or .py file, or a `Recipe`; overrides: "train.steps=2000" ….
    data: whatever `open_dataset` opens, or a `Dataset`. out: the run folder, made here; runs/NAME by default.
    network: one's own module, image (B, C, H, W) float32 in [0, 1] -> logits (B, K, h, w), instead of `model.name`.
    loss: one's own loss(logits (B, K, H, W), mask (B, H, W) int64 with `classes.ignore`) -> a mean, or a dict of means.
    metrics: name -> fn(pred_mask, true_mask) -> float, averaged over the validation images.
    overfit: train and validate on the first N samples without augmentation; raises TrainingError when that fails.
    fold: (2, 5) validates on the second of five parts of train and val together, cut by name, and trains on the rest.
    resume: a run folder to go on with; recipe and data are then its own.

    SIGINT, SIGTERM and a closed terminal end it after the present step with a checkpoint; `run.stopped_by` tells.
    Raises the errors of reading recipe and data, NonFiniteLossError, StorageError, RunInUseError, DataChangedError.
    """
    asked = Asked(recipe=recipe, data=data, out=out, overrides=overrides, network=network, loss=loss, metrics=metrics,
                  overfit=overfit, fold=fold, resume=resume, seed=seed, data_changed_ok=data_changed_ok)  # fmt: skip
    with joined(device) as processes:
        job = prepare(processes, asked)
        lock = job.run.locked() if processes.is_first else nullcontext()
        with lock, diagnosis.told_out_of_memory(job, processes), told_not_compiled(job):
            _train(job, processes, quiet=quiet or not processes.is_first)
        return job.run


def _train(job: Job, processes: Processes, *, quiet: bool) -> None:
    recipe, device = job.recipe, processes.device
    precision = choose_precision(recipe.train.precision, device)
    network = job.network
    if recipe.train.sync_batch_norm and processes.world > 1:
        synchronise(network)
    model = processes.wrap(network, shard=recipe.train.shard == "fsdp")  # on its device from here on
    called = compiled(model) if recipe.train.compile else model
    optimizer = build_optimizer(network, recipe.optim)
    schedule = build_schedule(optimizer, recipe.optim, job.steps)
    scaler = loss_scaler(precision, device)
    average = MovingAverage(network, recipe.train.ema) if recipe.train.ema else None
    start = job.restore(processes, network, optimizer, schedule, scaler, average)
    loader = job.loader(processes)
    keeper = Keeper(job, processes, model, optimizer, schedule, scaler, average, step=start)
    meter = Meter()

    def forward_backward(
        image_BCHW: Tensor, mask_BHW: Tensor, weight: Tensor | float
    ) -> tuple[Parts, Tensor]:
        """One micro-batch: its losses, and what it got right."""
        with autocast(precision, device):
            output = as_output(called(sent(image_BCHW, device)))
        mask_BHW = sent(mask_BHW, device)
        parts = job.loss(output, mask_BHW, weight=weight)
        total = torch.stack(list(parts.values())).sum()
        scaler.scale(total * processes.world).backward()  # the exchange takes a mean
        right = hits(output.logits, mask_BHW, ignore=job.data.classes.ignore)
        return {name: part.detach() for name, part in parts.items()}, right

    one_pass: Pass = forward_backward
    if can_record(job, processes):
        one_pass = Recorded(
            forward_backward, network.parameters(), device, micro_batches=loader.num_micro_batches
        )
    with (
        StopSignals() as stop,  # first in, last out: a launcher's SIGTERM does not cut the leaving short
        loader,
        keeper,
        Progress(total=job.steps, what="train", quiet=quiet) as progress,
    ):
        for line in (*job.said, *loader.said):
            progress.say(line)
        job.set_training_mode()
        for step in range(start, job.steps):
            weight, asked_to_stop = keeper.agree(loader, step, stop.received)
            if asked_to_stop:
                keeper.save(step)
                break
            losses: dict[str, Tensor] = {}
            with keeper.unharmed(step):
                for number, (image_BCHW, mask_BHW) in enumerate(loader.micro_batches(step)):
                    torch.manual_seed(loader.key(step, number))  # for dropout, the same after a resume
                    with processes.hold_gradients(model, hold=number < loader.num_micro_batches - 1):
                        parts, right = one_pass(image_BCHW, mask_BHW, weight)
                    losses = {name: losses.get(name, 0) + part for name, part in parts.items()}
                    meter.see(right)
            meter.add(step, losses, waited=loader.waited(step))

            done = step + 1
            is_last = done == job.steps
            says = done % recipe.train.log_every == 0 or is_last
            looks = done % recipe.eval.every == 0 or is_last
            keeps = done % recipe.train.save_every == 0 and not looks
            if device.type == "cpu" or says or looks or keeps:  # more often would empty a GPU's queue
                diagnosis.stop_if_not_finite(model, meter, job, processes, loader, schedule)
            scaler.unscale_(optimizer)
            grad_norm = processes.clip(model, recipe.train.max_grad_norm)
            lr = schedule.get_last_lr()[0]
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            if isinstance(one_pass, Recorded):
                one_pass.clear(optimizer)
            else:
                optimizer.zero_grad()
            if average is not None:
                average.update(network)

            progress.update(done, meter.brief(job.steps - done))
            if says:  # once in a while: say where we are
                keeper.log(meter.read(processes), done, lr=lr, grad_norm=float(grad_norm), progress=progress)
            if looks:  # once in a while: look honestly, then keep
                with meter.paused():
                    is_enough = keeper.look_and_save(done, progress)
                if is_enough:
                    break
            if keeps:  # once in a while: keep
                with meter.paused():
                    keeper.save(done)
        keeper.conclude(progress, loader)
