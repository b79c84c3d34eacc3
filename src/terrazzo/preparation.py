"""Everything before the first step of a training: what was asked for becomes a `Job`, or an error in words.

Only process 0 makes the run folder. Weights, recipe and data that do not fit together are refused here, before the
first image is read.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from terrazzo import checkpoint, environment
from terrazzo.asking import (
    Asked,
    begun_before,
    overridden,
    recipe_named,
    recipe_of_resumed,
    shorter_warmup,
    taken_by_name,
    with_room_for_warmup,
)
from terrazzo.board import check_loggers
from terrazzo.compiled import check_compiler
from terrazzo.data import Dataset, open_dataset
from terrazzo.data.cache import free_memory
from terrazzo.data.counts import class_pixels
from terrazzo.data.dataset import Split
from terrazzo.data.decoded import key_of
from terrazzo.data.folds import check_fold, folded
from terrazzo.data.loader import Loader, processes_here
from terrazzo.data.order import Streamed
from terrazzo.data.sampling import Rarity, rarity
from terrazzo.data.transforms import TrainTransform
from terrazzo.ema import MovingAverage
from terrazzo.errors import (
    DataChangedError,
    RecipeError,
    RunError,
    TrainingError,
    UsageError,
    quoted,
    unknown_name,
)
from terrazzo.evaluation import Loss
from terrazzo.launcher import place
from terrazzo.licences import Ledger, Origin, ledger_of
from terrazzo.nn import ModelConfig, build, starting, weights
from terrazzo.nn.losses import SegmentationLoss, chosen_weights
from terrazzo.nn.own_loss import OwnLoss
from terrazzo.optim import Schedule
from terrazzo.processes import Processes
from terrazzo.recipe import Recipe
from terrazzo.recipes import openmmlab
from terrazzo.run import Run, free_folder, read_state

OVERFIT_STEPS = 300  # within which a handful of images must be memorised
OVERFIT_MIOU = 0.95


@dataclass
class Job:
    """What a training needs."""

    run: Run
    recipe: Recipe
    data: Dataset
    train_split: Split
    eval_split: Split | None
    network: nn.Module
    loss: Loss
    metrics: Mapping[str, Callable[..., float]]
    steps: int
    is_own_network: bool
    overfit: int
    is_resumed: bool
    rare: Rarity = field(default_factory=Rarity)
    """How often each image comes, and where crops are aimed."""
    said: list[str] = field(default_factory=list)
    """What was decided on the way, one line each."""
    reached: int = 0
    """How many steps are done; kept up to date, for whoever has to say where it broke."""
    is_looking: bool = False
    """True while a validation goes on."""
    is_sharded: bool = False
    """True where no process holds the whole network."""

    def loader(self, processes: Processes) -> Loader:
        """Return the loader of this process's share of every step."""
        recipe = self.recipe
        stream, ignore = self._streamed(processes), self.data.classes.ignore
        is_gpu = processes.device.type == "cuda"
        if stream and recipe.data.cache == "disk":
            self.said.append("data.cache=disk keeps nothing of a stream; data.cache=memory does")
        return Loader(
            self.train_split,
            order=stream or self.rare.order(recipe.train.seed),
            expect=self.train_split.expect if stream else None,
            foresight=-(-recipe.data.shuffle_buffer // processes.world) if stream else 0,
            transform=TrainTransform(
                recipe.data, ignore=ignore, mean=self.data.mean, odds_K=self.rare.odds_K
            ),
            batch_size=recipe.train.batch_size,
            micro_batch=recipe.train.micro_batch,
            seed=recipe.train.seed,
            workers=recipe.data.workers,
            cache="none" if stream and recipe.data.cache in ("auto", "disk") else recipe.data.cache,
            cache_key=lambda: cache_key(self.data, self.train_split),
            rank=processes.rank,
            world=processes.world,
            pixel_weight=self.loss.pixel_weight,
            on_unreadable=recipe.data.on_unreadable,
            for_gpu=is_gpu,
            colour_on=processes.device if is_gpu and self.data.dtype == "uint8" else None,
        )

    def _streamed(self, processes: Processes) -> Streamed | None:
        """The order of a stream, which says on the way what it will hold; None for data that lie here."""
        recipe, shards = self.recipe, self.train_split.shard_of
        if shards is None:
            return None
        order = Streamed(
            shards,
            seed=recipe.train.seed,
            batch_size=recipe.train.batch_size,
            shuffle_buffer=recipe.data.shuffle_buffer,
        )
        self.said.append(_told_stream(order, self.train_split, recipe, processes))
        return order

    def set_training_mode(self) -> None:
        """Put the network into training mode; a frozen backbone stays as it was trained, batch norm included."""
        self.network.train()
        if self.recipe.model.freeze == "backbone":
            frozen = self.network.backbone
            assert isinstance(frozen, nn.Module)
            frozen.eval()

    def restore(
        self,
        processes: Processes,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        scaler: torch.amp.GradScaler,
        average: MovingAverage | None,
    ) -> int:
        """Put everything back to the newest whole checkpoint and return its step; 0 for a new run."""
        newest: Path | None = None
        with processes.agreed():
            if self.is_resumed and processes.is_first:  # one process chooses, so that all go on from the same
                newest = self.run.newest()
        folder = processes.tell(newest)
        self.said.extend(self.run.said)
        if folder is None:
            return 0
        with processes.agreed():
            state = read_state(folder)
            tensors = weights.model_tensors(folder, network)
            checkpoint.read_training_state(folder, network, optimizer, average, tensors)
            schedule.at(state["step"])
            scaler.load_state_dict(state["scaler"])
        if average is not None:
            average.updates = state["average_updates"]
        self.said.append(
            f"going on from step {state['step']}"
            if state["step"] < self.steps
            else f"all {self.steps:,} steps were done before; nothing is left to do"
        )
        before, now = state.get("processes", processes.world), processes.world
        if before != now:
            self.said.append(
                f"{now} process{'es' if now > 1 else ''} instead of {before}: the same samples in the same order, "
                "augmented alike; dropout, and batch norm that is not synchronised, follow how the batch is cut"
            )
        return int(state["step"])


def prepare(processes: Processes, asked: Asked) -> Job:
    """Resolve what `train` was asked for; an error of one process is raised in all of them."""
    begun: Path | None = None
    with processes.agreed():
        if asked.resume is None and processes.is_first:
            begun = begun_before(asked)
    begun = processes.tell(begun)
    if begun is not None:
        asked = replace(asked, recipe=None, overrides=(), resume=begun)
    with processes.agreed():
        job = _job(asked)
        job.is_sharded = _is_sharded(job, processes)
        if job.recipe.train.compile:
            check_compiler(processes.device)
            job.said.append(
                "train.compile: the network is compiled at the first step, which takes a minute or two"
            )
    _make_folder(processes, job, is_named=asked.out is not None)
    if processes.pulse is not None:
        processes.pulse.command = f"terrazzo train --resume {quoted(job.run.path)}"
    counts = ", ".join(f"{name} {len(split):,}" for name, split in job.data.splits.items())
    job.said += openmmlab.notes(job.recipe, processes=processes.world)
    job.said.append(
        f"{job.recipe.name} on {job.data.name} ({counts} images, {len(job.data.classes)} classes): {job.steps:,} "
        f"steps of {job.recipe.train.batch_size} images on {processes.device}"
        + (f", {processes.world} processes" if processes.world > 1 else "")
        + f"; the run is {job.run.path}"
    )
    return job


def cache_key(data: Dataset, split: Split) -> str:
    """Return what the decoded samples of a split depend on; they lie under it on the disk."""
    hashes = split.hashes(location=data.location)
    return key_of(split.names, hashes, data.remap, data.classes, data.channels, data.dtype)


def _job(asked: Asked) -> Job:
    """Resolve everything that needs no other process and writes nothing; the folder of a new run is made afterwards."""
    overfit, fold, network, loss = asked.overfit, asked.fold, asked.network, asked.loss
    if overfit < 0:
        raise UsageError("--overfit takes a number of images.", found=str(overfit), expected="1 or more")
    resumed = Run.open(asked.resume) if asked.resume is not None else None
    if fold is not None:
        _check_fold(fold, resumed)
    recipe, overrides = asked.recipe, asked.overrides
    base = resumed.recipe if resumed else recipe_named(recipe)
    chosen = recipe_of_resumed(resumed, asked) if resumed else overridden(base, overrides, seed=asked.seed)
    check_loggers(chosen.train.loggers)
    source: Any = (
        asked.data if asked.data is not None else resumed.data["source"] if resumed else chosen.default_data
    )
    if source is None:
        raise UsageError("Training needs a data set.", hint="Name a folder, a saved data set or a Hub id:",
                         command=f"terrazzo train {chosen.name} --data DATA")  # fmt: skip
    manifest = resumed.data["split_manifest"] if resumed else None
    opened = open_dataset(
        source, keep_void=chosen.data.keep_void, stream=chosen.data.stream, split_manifest=manifest
    )
    if not chosen.data.stream and any(one.shard_of is not None for one in opened.splits.values()):
        chosen = replace(chosen, data=replace(chosen.data, stream=True))  # opened so; to be found again so
    dataset = opened.merged(chosen.data.merge)
    if fold is not None and resumed is None:
        dataset = folded(dataset, fold)
    said = [*dataset.notes, *openmmlab.fits(chosen, data_name=dataset.name, num_classes=len(dataset.classes))]
    said += taken_by_name(recipe)
    if resumed:
        _check_same_data(resumed, dataset, asked.data_changed_ok)
        overfit = int(resumed.data.get("overfit", 0))
    train_split, eval_split = _splits(dataset, chosen, overfit)
    if overfit and not resumed:
        chosen = _overfitting(chosen, len(train_split))
    steps = chosen.num_steps(len(train_split))
    if resumed is None and not overfit:
        chosen = with_room_for_warmup(chosen, steps, overrides)
        said += shorter_warmup(base, chosen, overrides)
    rare = rarity(train_split, chosen.data, location=dataset.location)
    said += rare.said
    torch.manual_seed(chosen.train.seed)  # the initial weights
    built = network if network is not None else build(
        _placed(chosen.model, resumed), num_classes=len(dataset.classes), channels=dataset.channels,
        mean=dataset.mean, std=dataset.std)  # fmt: skip
    starts: list[str] = []
    if resumed is None and network is None:
        named = (chosen.model.pretrained, chosen.model.init)
        starts = [_model_folder(start) for start in named if start is not None]
        said += [starting.load_pretrained(built, start, classes=dataset.classes) for start in starts]
    if chosen.train.gradient_checkpointing:
        _turn_on_checkpointing(built)
    pixels = resumed.data.get("class_pixels") if resumed else _class_pixels(chosen, train_split, dataset)
    ledger = _ledger(built, starts, dataset, is_own=network is not None)
    said += [] if resumed else ledger.notices()
    own = {"network": network, "loss": loss, **(asked.metrics or {})}
    record = _data_record(dataset, source, overfit, pixels) | {
        "own": {name: qualified_name(part) for name, part in own.items() if part is not None},
        "licenses": ledger.to_json(),
    }
    run = resumed or Run(Path(asked.out) if asked.out is not None else Path("runs"), chosen, record)
    run.recipe = chosen
    return Job(
        run=run,
        recipe=chosen,
        data=dataset,
        train_split=train_split,
        eval_split=eval_split,
        network=built,
        loss=_loss(chosen, loss, pixels, dataset, align_corners=bool(getattr(built, "align_corners", False))),
        metrics=asked.metrics or {},
        steps=steps,
        is_own_network=network is not None,
        overfit=overfit,
        is_resumed=resumed is not None,
        rare=rare,
        said=said,
    )


def _ledger(network: nn.Module, starts: list[str], dataset: Dataset, *, is_own: bool) -> Ledger:
    """What the trained weights are made from; whose a network of one's own is, nobody but its author knows."""
    if is_own:
        return Ledger((Origin(qualified_name(network), None),)).after(dataset.name, dataset.license)
    parts = [starting.origins_of(start, network) for start in starts]
    weights = tuple(one for part in parts for one in part.weights)
    data = tuple(one for part in parts for one in part.data)
    return Ledger(weights, data).after(dataset.name, dataset.license)


def _check_fold(fold: tuple[int, int], resumed: Run | None) -> None:
    number, count = check_fold(fold)
    stored = ((resumed.data["split_manifest"] or {}) if resumed else {}).get("fold")
    if resumed and stored != [number, count]:
        raise RunError(
            f"{resumed.path} was not trained on that fold.",
            found=f"--fold {number}/{count}",
            expected="no fold" if stored is None else "fold {}/{}".format(*stored),
            hint="A run goes on with its own images:",
            command=f"terrazzo train --resume {quoted(resumed.path)}",
        )


def _splits(dataset: Dataset, recipe: Recipe, overfit: int) -> tuple[Split, Split | None]:
    if "train" not in dataset.splits:
        raise unknown_name("split", "train", dataset.splits)
    train_split = dataset["train"]
    if not train_split.has_masks:
        raise TrainingError(
            f"The training split of {dataset.name} has no masks.", hint="Label it, or import its masks."
        )
    if overfit:
        few = train_split.subset(range(min(overfit, len(train_split))))
        return few, few
    name = recipe.eval.split
    if name not in dataset.splits:
        raise unknown_name("split", name, dataset.splits, command="terrazzo train … eval.split=NAME")
    return train_split, dataset[name] if dataset[name].has_masks else None


def _overfitting(recipe: Recipe, images: int) -> Recipe:
    """The recipe for memorising a handful: no augmentation, no noise, no decay, every image in each step."""
    return replace(
        recipe,
        model=replace(recipe.model, dropout=0.0, drop_path=0.0),
        data=replace(recipe.data, augment=False, workers=0, rare_images=0.0, rare_crops=0.0,
                     scaled_decoding=False),
        loss=replace(recipe.loss, class_weights="none", weights=(), label_smoothing=0.0),
        optim=replace(recipe.optim, lr=max(recipe.optim.lr, 1e-3), head_lr_factor=1.0, weight_decay=0.0,
                      schedule="poly", warmup_steps=10),
        train=replace(recipe.train, steps=OVERFIT_STEPS, epochs=None, batch_size=images, micro_batch=0, ema=0.0,
                      save_every=OVERFIT_STEPS, patience=0),
        eval=replace(recipe.eval, every=50),
    )  # fmt: skip


def _turn_on_checkpointing(network: nn.Module) -> None:
    if not hasattr(network, "gradient_checkpointing"):
        raise RecipeError(
            f"{type(network).__name__} cannot compute its activations twice.",
            found="train.gradient_checkpointing=true",
            hint="A network that can has an attribute gradient_checkpointing. To save memory otherwise:",
            command="train.micro_batch=1",
        )
    setattr(network, "gradient_checkpointing", True)  # noqa: B010  (nn.Module types it as a tensor)


def _told_stream(order: Streamed, split: Split, recipe: Recipe, processes: Processes) -> str:
    """Say what a stream holds in memory in this process; RecipeError where that is more than is free."""
    share = recipe.train.batch_size // processes.world
    mine = range(processes.rank * share, (processes.rank + 1) * share)
    batches = range(-(-2 * recipe.data.shuffle_buffer // recipe.train.batch_size))
    seen = {order(batch * recipe.train.batch_size + place)[1] for batch in batches for place in mine}
    held, free = split.bytes_of(sorted(seen)), free_memory() // processes_here(processes.world)
    if held > free:
        raise RecipeError(
            "The row groups that a stream shuffles do not fit in memory.",
            found=f"{held / 2**30:.1f} GiB for data.shuffle_buffer={recipe.data.shuffle_buffer}, in each process",
            expected=f"at most {free / 2**30:.1f} GiB, which are free",
            hint="Fewer samples shuffled together, or smaller row groups in the files, take less:",
            command=f"data.shuffle_buffer={max(1, recipe.data.shuffle_buffer // 4)}",
        )
    return (
        f"stream: {len(split):,} samples in {order.num_shards:,} row groups, read in {order.lanes} "
        f"lane{'' if order.lanes == 1 else 's'}; up to {held / 2**20:,.0f} MiB of them in this process's memory"
    )


def _class_pixels(recipe: Recipe, split: Split, dataset: Dataset) -> list[list[int]] | None:
    if recipe.loss.class_weights == "none":
        return None
    return [c.tolist() for c in class_pixels(split, len(dataset.classes), ignore=dataset.classes.ignore)]


def _loss(
    recipe: Recipe,
    own: Callable[..., Any] | None,
    pixels: list[list[int]] | None,
    dataset: Dataset,
    *,
    align_corners: bool,
) -> Loss:
    if own is not None:
        return OwnLoss(own, align_corners=align_corners)

    counted = pixels or [[], []]  # counted whenever a formula asks for it
    weights_K = chosen_weights(recipe.loss, len(dataset.classes), lambda: (counted[0], counted[1]))
    return SegmentationLoss(recipe.loss, weights_K, dataset.classes.ignore, align_corners=align_corners)


def _is_sharded(job: Job, processes: Processes) -> bool:
    """Whether the network is to be spread over the processes; RecipeError where that is asked for elsewhere."""
    if job.recipe.train.shard == "none":
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            raise RecipeError(
                "accelerate launch was asked to spread the network over the processes, and the recipe was not.",
                found="--use_fsdp, or an accelerate config that says so, and train.shard=none",
                hint="The recipe says so:",
                command="train.shard=fsdp",
            )
        return False
    if processes.world == 1:
        job.said.append("train.shard=fsdp: one process holds everything; it takes several to share")
        return False
    return True


def _make_folder(processes: Processes, job: Job, *, is_named: bool) -> None:
    """Make the folder of a new run, in process 0; the others write nothing and need not see it."""
    if job.is_resumed:
        return
    run = job.run
    with processes.agreed():
        if processes.is_first:
            run.path = run.path if is_named else free_folder(run.path, job.recipe.name)
            env = environment.describe() | {
                "device": str(processes.device),
                "processes": processes.world,
                "launch": place().attempt,
            }
            Run.create(run.path, job.recipe, data=run.data, env=env)
            for notice in ledger_of(run.data).notices():
                run.log("note", 0, {"text": notice})
    run.path = processes.tell(run.path)


def _check_same_data(run: Run, dataset: Dataset, data_changed_ok: bool) -> None:
    if dataset.fingerprint == run.data["fingerprint"] or data_changed_ok:
        return
    raise DataChangedError(
        f"The data set of {run.path} has changed since the run began.",
        found=f"fingerprint {dataset.fingerprint[:16]} in {run.data['source']}",
        expected=run.data["fingerprint"][:16],
        hint="Going on would mix two data sets in one run. Put the data back, start a new run, or if you mean it:",
        command=f"terrazzo train --resume {quoted(run.path)} --data-changed-ok",
    )


def _data_record(
    dataset: Dataset, source: Any, overfit: int, pixels: list[list[int]] | None
) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "source": str(dataset.location if isinstance(source, Dataset) else source),
        "fingerprint": dataset.fingerprint,
        "classes": dataset.classes.to_json(),
        "remap": dataset.remap.to_json(),
        "channels": dataset.channels,
        "dtype": str(dataset.dtype),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "license": dataset.license,
        "splits": {name: list(split.names) for name, split in dataset.splits.items()},
        "split_manifest": dataset.split_manifest,
        "class_pixels": pixels,
        "overfit": overfit,
    }


def qualified_name(part: Any) -> str:
    """Return "module.Name" of a user's own network, loss or metric."""
    kind = part if hasattr(part, "__qualname__") else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def _placed(model: ModelConfig, resumed: Run | None) -> ModelConfig:
    """`model` as it is built: a run stands for its best checkpoint; a resumed network of transformers for itself."""
    pretrained, init = (None if one is None else _model_folder(one) for one in (model.pretrained, model.init))
    newest = resumed.newest() if resumed is not None and model.name == "huggingface" else None
    if newest is not None:
        pretrained = str(newest)  # what it started from may be gone
    return replace(model, pretrained=pretrained, init=init)


def _model_folder(source: str) -> str:
    """A run stands for its best checkpoint."""
    is_run = (Path(source) / "recipe.json").is_file()
    return str(Run.open(source).best_folder()) if is_run else source
