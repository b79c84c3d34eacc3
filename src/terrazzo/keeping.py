"""What a training leaves behind on the way: log lines, validations, pictures, checkpoints, the best one.

Only process 0 writes; all of them validate, each its share of the images.
"""

import math
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from terrazzo import checkpoint, diagnosis, memory, provenance
from terrazzo.board import Board
from terrazzo.data.loader import Loader
from terrazzo.devices import peak_memory
from terrazzo.ema import MovingAverage
from terrazzo.errors import TerrazzoError, UnreachableError, quoted
from terrazzo.evaluation import Report, measure
from terrazzo.images import write_image
from terrazzo.inference import Predictor
from terrazzo.meter import Reading
from terrazzo.nn import weights
from terrazzo.optim import Schedule
from terrazzo.preparation import OVERFIT_MIOU, Job
from terrazzo.processes import Processes
from terrazzo.progress import Progress
from terrazzo.rendering import contact_sheet
from terrazzo.report import EVALUATION

EXAMPLES = 3  # images of the validation that are kept beside the pictures


class Keeper:
    """Holds what a checkpoint is made of and decides what is kept. model: the network as `processes.wrap` made it."""

    def __init__(
        self,
        job: Job,
        processes: Processes,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        scaler: torch.amp.GradScaler,
        average: MovingAverage | None,
        *,
        step: int,
    ) -> None:
        self.job, self.processes, self.model, self.network = job, processes, model, job.network
        self._buffers = [buffer.detach().clone() for buffer in job.network.buffers()]
        self.optimizer, self.schedule, self.scaler, self.average = optimizer, schedule, scaler, average
        self.saved_step = step
        self.is_judged = diagnosis.judges_fall(step, job.steps)
        self.has_read = self.is_told_of_data = False
        self.report: Report | None = None
        self.board: Board | None = None
        if processes.is_first:
            settings = job.recipe.to_json()
            self.board = Board(job.recipe.train.loggers, job.run.path, settings=settings, step=step)
        if processes.is_first and job.is_resumed:
            job.run.rewind(step)

    def agree(self, loader: Loader, step: int, received: int | None) -> tuple[float, bool]:
        """Return the weight of the global batch of `step`, and whether a process was asked to stop; the same in all.

        Where a process cannot read its samples, the checkpoint of this step is made and each process raises.
        """
        self.job.reached = step
        problem: TerrazzoError | None = None
        weight = torch.zeros((), dtype=torch.float64)
        try:
            weight = loader.weight(step)
        except TerrazzoError as error:
            problem = error
        mine = torch.tensor(
            [float(weight), float(received is not None), float(problem is not None)], dtype=torch.float64
        )
        total, stopped, failed = self.processes.sum(mine).tolist()
        if failed:
            self.save(step)
            try:
                with self.processes.agreed():
                    if isinstance(problem, UnreachableError):
                        raise self._told_how_to_go_on(problem) from problem
                    if problem is not None:
                        raise problem
            except UnreachableError:
                raise
            except TerrazzoError as error:
                self._say_what_is_kept(error)
                raise
        if stopped:
            self.job.run.stopped_by = received or signal.SIGTERM
        return total, stopped > 0

    def _told_how_to_go_on(self, problem: UnreachableError) -> UnreachableError:
        return UnreachableError(
            problem.what,
            found=problem.found,
            hint=f"The run is saved at step {self.job.run.step}. When the place answers again:",
            command=f"terrazzo train --resume {quoted(self.job.run.path)}",
        )

    @contextmanager
    def unharmed(self, step: int) -> Iterator[None]:
        """What fails inside, where gradients are computed, costs none of the `step` steps before: they are saved."""
        self._copy(self.network.buffers(), self._buffers)
        try:
            yield
        except Exception as error:
            with suppress(Exception):
                self._copy(self._buffers, self.network.buffers())
                self._rescue(step, error, is_idle=False)
            raise

    def log(self, reading: Reading, done: int, *, lr: float, grad_norm: float, progress: Progress) -> None:
        """Say and write where training is after `done` steps."""
        if not self.processes.is_first:
            return
        memory = peak_memory(self.processes.device)
        line = reading.line(done, self.job.steps, lr=lr, grad_norm=grad_norm, memory=memory)
        progress.say(line)
        values = {**reading.losses, "lr": lr, "grad_norm": grad_norm, "seconds_per_step": reading.seconds,
                  "accuracy": reading.accuracy, "data_seconds": reading.waited,
                  "data_share": reading.waited / max(reading.seconds, 1e-9), "memory_bytes": memory}  # fmt: skip
        self.job.run.log("train", done, values)
        assert self.board is not None
        self.board.scalars(done, values, prefix="train")
        while self.board.said:
            progress.say(self.board.said.pop(0))
        if (
            self.has_read and not self.is_told_of_data
        ):  # the first reading pays for what is read and compiled once
            advice = diagnosis.waiting_for_data(reading, self.job, done)
            if advice is not None:
                self.is_told_of_data = True
                progress.say(advice)
                self.job.run.log("note", done, {"text": advice})
        self.has_read = True
        if not self.is_judged and diagnosis.judges_fall(done, self.job.steps):  # once in a training
            self.is_judged = True
            if advice := diagnosis.not_falling(self.job.run.history("train"), self.job, done):
                progress.say(advice)
                self.job.run.log("note", done, {"text": advice})

    def look_and_save(self, done: int, progress: Progress) -> bool:
        """Validate, draw, save; return whether training may end here (memorised, or no better for too long)."""
        run, job = self.job.run, self.job
        if job.eval_split is None:
            self.save(done)
            return False
        self._level()
        predictor = self._predictor()
        began = time.perf_counter()
        with self._looking(done):
            self.report = report = measure(
                predictor,
                job.eval_split,
                loss=job.loss,
                metrics=job.metrics,
                rank=self.processes.rank,
                world=self.processes.world,
                reduce=self.processes.sum,
            )
            measured = time.perf_counter()
            if self.processes.is_first:
                self._draw(done, predictor)
        if self.processes.is_first:
            values = report.scalars()
            times = {"images": len(job.eval_split), "seconds": measured - began,
                     "drawing_seconds": time.perf_counter() - measured}  # fmt: skip
            progress.say(f"validation at step {done}\n{report.table()}")
            run.log("eval", done, {**values, **times})
            assert self.board is not None
            self.board.scalars(done, values, prefix="eval")
        self.save(done, score=report.miou)
        if self.processes.is_first:
            run.keep_best(done, report.miou)
        if job.overfit:
            return report.miou >= OVERFIT_MIOU
        return self.processes.tell(self._is_patience_over())

    @contextmanager
    def _looking(self, done: int) -> Iterator[None]:
        """Validate inside: with the averaged weights where there are such; failing costs none of the steps before."""
        self.job.reached, self.job.is_looking = done, True
        averaged = self.average.applied(self.network) if self.average is not None else nullcontext()
        try:
            with averaged, self.processes.gathered(self.model):
                yield
        except Exception as error:
            with suppress(Exception):
                self._rescue(done, error, is_idle=True)
            if isinstance(error, UnreachableError):
                raise self._told_how_to_go_on(error) from error
            raise
        self.job.is_looking = False

    def save(self, done: int, *, score: float | None = None) -> None:
        """Make the checkpoint of `done` steps, unless it is there."""
        if done == self.saved_step and score is None:
            return
        self._level()
        began = time.perf_counter()
        taken = self._taken() if self.job.is_sharded else None  # an exchange
        with self.processes.agreed():
            if self.processes.is_first:
                self._write(done, taken or self._taken(), score)
                self.job.run.log("save", done, {"seconds": time.perf_counter() - began})
        self.saved_step = done

    def _rescue(self, done: int, error: Exception, *, is_idle: bool) -> None:
        """Save the `done` steps before an error, from this process alone: others wait for it, or are gone.

        Each process holds everything, so whichever fails can do it, unless the network is spread over them. Batch norm
        that is not synchronised keeps this process's own statistics.
        """
        if memory.is_out_of_memory(error):
            traceback.clear_frames(error.__traceback__)  # they hold the activations
        try:
            with self.processes.rescue(error, is_idle=is_idle) as is_mine:
                if is_mine and done != self.saved_step and not self.job.is_sharded:
                    self._write(done, self._taken(), None)
        finally:
            self._say_what_is_kept(error)

    def _say_what_is_kept(self, error: Exception) -> None:
        if self.job.run.step:
            command = f"terrazzo train --resume {quoted(self.job.run.path)}"
            error.add_note(f"{diagnosis.kept(self.job)} To go on:\n  {command}")

    def conclude(self, progress: Progress, loader: Loader) -> None:
        """Say how it ended and what comes next; raises TrainingError when a handful could not be memorised."""
        run, job = self.job.run, self.job
        if loader.skipped:
            listed = ", ".join(sorted(loader.skipped)[:10])
            progress.say(f"{len(loader.skipped)} unreadable images were skipped: {listed}")
        if run.stopped_by is not None:
            progress.say(f"stopped at step {self.saved_step} of {job.steps}, saved. To go on:")
            progress.say(f"  terrazzo train --resume {quoted(run.path)}")
            return
        if job.overfit and self.report is not None:
            images, miou = len(job.train_split), self.report.miou
            if not miou >= OVERFIT_MIOU:
                loss = math.nan if self.report.loss is None else self.report.loss
                raise diagnosis.did_not_overfit(
                    images=images, steps=self.saved_step, miou=miou, loss=loss, target=OVERFIT_MIOU
                )
            progress.say(f"memorised {images} images: {miou:.3f} mIoU after {self.saved_step} steps")
        elif self.processes.is_first and run.best is not None:
            progress.say(
                f"best mIoU {100 * run.best['miou']:.2f} at step {run.best['step']}: {run.best_folder()}"
            )

    def _taken(self) -> checkpoint.Snapshot:
        is_kept = self.processes.is_first or not self.job.is_sharded
        return checkpoint.snapshot(self.network, self.optimizer, self.average, is_kept=is_kept)

    def _write(self, done: int, taken: checkpoint.Snapshot, score: float | None) -> None:
        job, data = self.job, self.job.recipe.data

        report = None if score is None or self.report is None else self._named(self.report)

        def write(folder: Path) -> None:
            weights.save_model(
                folder,
                self.network,
                classes=job.data.classes,
                preprocessing={
                    "resize": data.resize,
                    "resize_hw": data.resize_hw,
                    "interpolation": data.interpolation,
                    "rounding": data.rounding,
                    "dtype": job.data.dtype,
                },
                terrazzo=provenance.of_model(
                    job,
                    step=done,
                    report=report,
                    device=self.processes.device,
                    processes=self.processes.world,
                ),
                tensors=taken.model,
            )
            if report is not None:
                report.save(folder / EVALUATION)
            taken.write_training_state(folder)

        state = {
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates if self.average is not None else 0,
            "miou": score,
            "processes": self.processes.world,
        }
        job.run.save(done, write, state=state)

    def _named(self, report: Report) -> Report:
        """The report with the names of what was scored."""
        return replace(report, data=self.job.data.name, fingerprint=self.job.run.data["fingerprint"])

    def _level(self) -> None:
        """Give every process the mean of all processes' running statistics, where batch norm is not synchronised.

        What is validated is then what is saved, and what every process goes on from. A mean of running means is linear:
        it comes to the same however often it is taken.
        """
        averages = self.average.tensors if self.average is not None else {}
        for tensors in (self.network.state_dict(), averages):
            names = [name for name, _ in self.network.named_buffers() if name in tensors]
            self.processes.average(tensors[name] for name in names if tensors[name].is_floating_point())

    @staticmethod
    @torch.no_grad()
    def _copy(source: Iterable[Tensor], target: Iterable[Tensor]) -> None:
        for one, other in zip(source, target, strict=True):
            other.copy_(one)

    def _predictor(self) -> Predictor:
        job = self.job
        return Predictor(
            self.network,
            job.data.classes,
            data=job.recipe.data,
            eval=job.recipe.eval,
            device=self.processes.device,
        )

    def _draw(self, done: int, predictor: Predictor) -> None:
        """Draw image | truth | prediction of the same few samples at each validation."""
        split, count = self.job.eval_split, self.job.recipe.train.pictures
        if not count or split is None:
            return
        chosen = [round(i * (len(split) - 1) / max(count - 1, 1)) for i in range(min(count, len(split)))]
        samples = [split[i] for i in chosen]
        sheets = [predictor(sample.image).beside(sample.mask) for sample in samples]
        sheet = np.asarray(contact_sheet(sheets, columns=1, cell=1200).convert("RGB"))
        folder = self.job.run.path / "pictures"
        write_image(folder / f"step-{done:08d}.png", sheet)
        for number, sample in enumerate(
            samples[:EXAMPLES], start=1
        ):  # what a page that tries the model begins with
            if sample.image.dtype == np.uint8 and sample.image.shape[2] == 3:
                example = folder / f"example-{number}.jpg"
                if not example.exists():
                    write_image(example, sample.image)
        assert self.board is not None
        self.board.picture(done, "image | truth | prediction", sheet)

    def _is_patience_over(self) -> bool:
        patience, best = self.job.recipe.train.patience, self.job.run.best
        if not self.processes.is_first or not patience or best is None:
            return False
        since = [entry for entry in self.job.run.history("eval") if entry["step"] > best["step"]]
        return len(since) >= patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.board is not None:
            self.board.close(failed=error is not None)
            self.job.run.said.extend(self.board.said)
