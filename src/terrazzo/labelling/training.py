"""Train on this: a release is made, `terrazzo train` runs on it in a process of its own, and the run is attached.

The server knows no torch for it and is not slowed by it: it starts the command that anybody could type, reads the run's
metrics.jsonl, and asks it to stop as a Ctrl-C does, after which the run is saved and can be resumed. The release is
made before, the split that validates with it (`project.origins.divide`): what is trained on is what stood there then.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from terrazzo.errors import TrainingError, UsageError, unknown_name
from terrazzo.progress import duration
from terrazzo.project import Project
from terrazzo.project.statuses import FINISHED
from terrazzo.storage import read_json

RECIPES = (
    "segformer-b0-scratch",
    "segformer-b0",
)  # the first is sensible on a CPU, and needs no weights of others
STEPS = 600  # where nobody says how long
MINUTES = 24 * 60  # at most
OVERRIDE = re.compile(r"(train|data|model|loss|optim|eval)\.[a-z_]+=[\w.,:x-]{1,100}")
NOT_FROM_A_PAGE = (
    "model.pretrained",
    "model.init",
    "train.loggers",
    "train.save_every",
)  # files and addresses
ASKED = 0.3  # seconds between two looks at the run
PATIENCE = 120.0  # seconds for a step and a checkpoint, after a training was asked to stop
TOLD = 4000  # characters of what a training said last, when it failed

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Stand:
    """Where a training is."""

    step: int
    """Steps taken."""
    steps: int
    """Of how many."""
    loss: float | None = None
    """The last reading."""
    miou: float | None = None
    """Of the last validation."""
    miou_step: int = 0
    """When that was."""
    seconds: float | None = None
    """Per step."""

    @property
    def share(self) -> float:
        """How far it is, in [0, 1]."""
        return self.step / self.steps if self.steps else 0.0

    def text(self) -> str:
        """Return a sentence for people."""
        if not self.step:
            return "getting ready"
        parts = [f"step {self.step:,} of {self.steps:,}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.3f}")
        if self.miou is not None:
            parts.append(f"{100 * self.miou:.1f} mIoU at step {self.miou_step:,}")
        if self.seconds is not None and self.step < self.steps:
            parts.append(f"{duration(self.seconds * (self.steps - self.step))} left")
        return ", ".join(parts)


def form(project: Project) -> dict[str, Any]:
    """Return what a page asks before a training: what there is to choose, and what is chosen where nobody does."""
    finished = [one for one in project.samples.all() if one.status in FINISHED]
    touched = project.origins.touched()
    sizes = sorted((one.height, one.width) for one in finished)
    height, width = sizes[len(sizes) // 2] if sizes else (256, 320)
    crop = f"{min(256, height)}x{min(320, width)}"
    return {
        "recipes": list(RECIPES),
        "recipe": RECIPES[0],
        "overrides": [f"data.crop_hw={crop}", f"train.steps={STEPS}", f"eval.every={STEPS // 4}"],
        "release": next_name(project.releases.names()),
        "finished": len(finished),
        "touched": sum(one.name in touched for one in finished),
        "val": sum(one.split == "val" for one in finished),
        "models": [{"hash": one.hash, "name": one.name} for one in project.models.all()],
    }


def train(
    project: Project,
    *,
    recipe: str = RECIPES[0],
    overrides: Sequence[str] = (),
    release: str | None = None,
    minutes: float | None = None,
    start: str | None = None,
    author: str | None = None,
    progress: Progress = lambda share, says: None,
    is_cancelled: Callable[[], bool] = lambda: False,
    on_stand: Callable[[Stand], None] = lambda stand: None,
) -> dict[str, Any]:
    """Train on a release of the project in a process of its own; returns {"run", "release", "miou", "is_cancelled", …}.

    recipe: one of RECIPES. overrides: "train.steps=600" …; such as name files or addresses are refused. release: one
    there is, or the name of one to make; None: the next v1, v2 …. minutes: instead of steps, what it may take.
    start: an attached model whose weights it begins with. on_stand: called with where it is when that changes.
    Raises UsageError and UnknownNameError before anything is made, ProjectError where no sample may validate,
    TrainingError with the last words of a training that failed.
    """
    check(project, recipe=recipe, overrides=overrides, minutes=minutes, start=start)
    name = release or next_name(project.releases.names())
    said = ""
    if name not in project.releases:
        said = project.origins.divide(author=author).text()
        made = project.releases.create(name, description=f"To train on: {said}", author=author)
        name = made.name
    out = _free(project.path.parent / "runs", f"{project.name}-{name}")
    words = [recipe, "--data", f"{project.path}@{name}", "--out", str(out), *overrides]
    if start is not None:
        from terrazzo.prelabelling import weights_of

        words.append(f"model.pretrained={weights_of(project.models[start].path)}")
    if minutes is not None:
        words += ["--budget", f"{minutes:g}m"]
    with _child([sys.executable, "-m", "terrazzo", "train", *words]) as (process, log):
        stopped_at: float | None = None
        last: Stand | None = None
        while process.poll() is None:
            stand = read_stand(out)
            if stand != last:
                last = stand
                on_stand(stand)
            measuring = "measuring a few steps" if minutes is not None and not stand.steps else stand.text()
            progress(stand.share, "stopping after this step" if stopped_at is not None else measuring)
            if is_cancelled() and stopped_at is None:
                stopped_at = time.monotonic()
                process.send_signal(signal.SIGINT)
            if stopped_at is not None and time.monotonic() - stopped_at > PATIENCE:
                process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(ASKED)
        stand = read_stand(out)
        on_stand(stand)
        is_stopped = stopped_at is not None
        if process.returncode and not is_stopped:
            raise TrainingError(
                "The training failed.",
                found=_last_words(log),
                hint=f"The release {name} is made, and stays." + _kept(out),
            )
    return {
        "run": str(out),
        "release": name,
        "said": said,
        "step": stand.step,
        "miou": stand.miou,
        "is_cancelled": is_stopped,
        "has_model": (out / "checkpoints").is_dir() and any((out / "checkpoints").iterdir()),
    }


def check(
    project: Project,
    *,
    recipe: str = RECIPES[0],
    overrides: Sequence[str] = (),
    minutes: float | None = None,
    start: str | None = None,
) -> None:
    """Raise UsageError or UnknownNameError for what cannot be trained so, and what a page may not ask for."""
    if recipe not in RECIPES:
        raise unknown_name("recipe", str(recipe), RECIPES)
    for one in overrides:
        if (
            not isinstance(one, str)
            or not OVERRIDE.fullmatch(one)
            or one.partition("=")[0] in NOT_FROM_A_PAGE
        ):
            raise UsageError(
                f"The override {one!r:.80} cannot be given here.",
                expected="such as train.steps=600; files and addresses are for the command line",
            )
    if minutes is not None and not (isinstance(minutes, int | float) and 0 < minutes <= MINUTES):
        raise UsageError("A training takes some minutes, a day at most.", found=f"{minutes!r:.40}")
    if start is not None:
        project.models[start]


def next_name(names: Sequence[str]) -> str:
    """Return v1, or the number after the highest there is."""
    numbers = [int(one[1:]) for one in names if re.fullmatch(r"v\d{1,9}", one)]
    return f"v{max(numbers, default=0) + 1}"


def read_stand(run: Path) -> Stand:
    """Return where the training in a run folder is, by its files; nothing yet where there is none."""
    try:
        steps = int(read_json(run / "recipe.json")["train"]["steps"] or 0)
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, LookupError, TypeError, ValueError):
        return Stand(0, 0)
    except Exception as error:  # a file that is being written
        if type(error).__name__ in ("UnreadableFileError", "MissingPathError"):
            return Stand(0, 0)
        raise
    stand = Stand(0, steps)
    for line in lines:
        with suppress(ValueError, LookupError, TypeError):  # the last one may be cut short
            stand = _further(stand, json.loads(line))
    return stand


def _further(stand: Stand, line: dict[str, Any]) -> Stand:
    step = int(line["step"])
    if line["kind"] == "eval":
        return Stand(max(step, stand.step), stand.steps, stand.loss, line.get("miou"), step, stand.seconds)
    if line["kind"] != "train":
        return stand
    return Stand(
        step, stand.steps, line.get("loss"), stand.miou, stand.miou_step, line.get("seconds_per_step")
    )


@contextmanager
def _child(command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[bytes]", BinaryIO]]:
    """A process and what it says, ended with us.

    It is of a session of its own: a Ctrl-C in the terminal would reach it beside our own signal, and the second one
    ends a training without saving. A server that is killed leaves it to train on; its run is whole.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # it saves first
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _last_words(log: BinaryIO) -> str:
    log.seek(0)
    text = log.read().decode("utf-8", "replace")
    begins = [match.start() for match in re.finditer(r"^\w*Error: ", text, re.MULTILINE)]
    return text[begins[-1] if begins else max(0, len(text) - TOLD) :][:TOLD].strip()


def _kept(out: Path) -> str:
    return (
        f" What was trained lies in {out.parent.name}/{out.name}." if (out / "recipe.json").is_file() else ""
    )


def _free(parent: Path, name: str) -> Path:
    """parent/name, or parent/name-2 …: the first that is not there."""
    number = 1
    while (folder := parent / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    parent.mkdir(parents=True, exist_ok=True)
    return folder
