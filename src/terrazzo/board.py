"""Where the curves and pictures of a run go besides its folder: TensorBoard (`tensorboard --logdir runs`), W&B, MLflow.

Each logger is one small class with the three methods of `Logger`. To add one: write it, and a line in `LOGGERS`.
wandb and mlflow are imported when a recipe asks for them; where they send things is for their own settings to say
(WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, …). A logger that fails on the way is left out
from then on, and that is said: metrics.jsonl in the run has everything, and a server that is down ends no training.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import MissingExtraError, TrainingError, quoted
from terrazzo.storage import read_json, write_json

MEMORY = (
    "loggers.json"  # in the run: what each logger calls it, so that a resumed run goes on in the same place
)
PACKAGES: Mapping[str, str] = {
    "tensorboard": "torch.utils.tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
}


@dataclass(frozen=True)
class Session:
    """One training as loggers see it."""

    folder: Path
    """The run folder."""
    settings: Mapping[str, Any]
    """The recipe as JSON."""
    step: int
    """The step it goes on from; 0 for a new run."""
    known_as: str | None
    """What this logger called the run when it began."""


class Logger(Protocol):
    """What a logger does with a run."""

    known_as: str | None
    """What to remember for a resumed run."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add finite numbers."""

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Add an (H, W, 3) uint8 picture."""

    def close(self, *, failed: bool) -> None:
        """Write or send what is pending."""


class Board:
    """The loggers of a run; nothing raises here once training has begun."""

    def __init__(self, names: Sequence[str], folder: Path, *, settings: Mapping[str, Any], step: int) -> None:
        known: dict[str, str] = read_json(folder / MEMORY) if (folder / MEMORY).is_file() else {}
        self.said: list[str] = []
        """Which logger was left out and why, until somebody reads it."""
        self._loggers: dict[str, Logger] = {
            name: _started(name, Session(folder, settings, step, known.get(name))) for name in names
        }
        remembered = {name: one.known_as for name, one in self._loggers.items() if one.known_as is not None}
        if remembered and remembered != known:
            write_json(folder / MEMORY, known | remembered)

    def scalars(self, step: int, values: Mapping[str, Any], *, prefix: str) -> None:
        """Add every finite number among `values` as PREFIX/NAME."""
        numbers = {
            f"{prefix}/{name}": float(value)
            for name, value in values.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
        }
        self._each(lambda logger: logger.scalars(step, numbers))

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Add an (H, W, 3) uint8 picture."""
        self._each(lambda logger: logger.picture(step, name, picture))

    def close(self, *, failed: bool = False) -> None:
        """Write or send what is pending."""
        self._each(lambda logger: logger.close(failed=failed))

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:
                del self._loggers[name]
                self.said.append(
                    f"{name} failed and is left out from here on: {type(error).__name__}: {error}"
                )


def check_loggers(names: Sequence[str]) -> None:
    """Raise MissingExtraError for the first logger whose package is not installed."""
    for name in names:
        try:
            import_module(PACKAGES[name])
        except ImportError as error:
            raise MissingExtraError(
                f"train.loggers asks for {name}, and the package is not installed.",
                found=str(error),
                hint="Install it, or train without it (metrics.jsonl in the run has the same numbers):",
                command=f"pip install {name}",
            ) from error


class TensorBoard:
    """Event files in tensorboard/ of the run; what a resumed run wrote after its step is purged."""

    known_as: str | None = None

    def __init__(self, session: Session) -> None:
        make = import_module("torch.utils.tensorboard").SummaryWriter
        purged = session.step + 1 if session.step else None
        self._writer = make(str(session.folder / "tensorboard"), purge_step=purged)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases, over our own step: what a resumed run logs again lies on what was there."""

    def __init__(self, session: Session) -> None:
        self._wandb = import_module("wandb")
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "terrazzo"),
            name=session.folder.name,
            id=session.known_as,
            resume="allow",
            dir=str(session.folder),
            config=dict(session.settings),
        )
        self._run.define_metric("*", step_metric="step")
        self.known_as: str | None = str(self._run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self._run.log({"step": step, name: self._wandb.Image(picture)})

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """A run of MLflow."""

    def __init__(self, session: Session) -> None:
        self._mlflow = import_module("mlflow")
        run = self._mlflow.start_run(
            run_id=session.known_as, run_name=None if session.known_as else session.folder.name
        )
        self.known_as: str | None = str(run.info.run_id)
        if session.known_as is None:  # a parameter is written once
            self._mlflow.log_params(dict(_flat(session.settings)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        allowed = {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in values.items()}
        self._mlflow.log_metrics(allowed, step=step)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self._mlflow.log_image(picture, f"pictures/step-{step:08d}.png")

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


LOGGERS: Mapping[str, Callable[[Session], Logger]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def _started(name: str, session: Session) -> Logger:
    try:
        return LOGGERS[name](session)
    except Exception as error:
        raise TrainingError(
            f"The logger {name} could not be started.",
            found=f"{type(error).__name__}: {error}",
            hint="Set it up as its own documentation says, then go on; or without it:",
            command=f"terrazzo train --resume {quoted(session.folder)} train.loggers=tensorboard",
        ) from error


def _flat(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """("train.steps", 2000) … of nested settings."""
    return [
        (f"{name}.{inner}", item)
        for name, value in settings.items()
        if isinstance(value, Mapping)
        for inner, item in value.items()
    ] + [(name, value) for name, value in settings.items() if not isinstance(value, Mapping)]
