"""A run: the folder of what happened in one training, and the only place that knows its layout.

    runs/demo/
      recipe.json                 the resolved recipe; accepted wherever a recipe is
      data.json                   what it was trained on: source, fingerprint, classes, table, splits by name
      env.json                    versions and machine
      metrics.jsonl               one JSON object a line: {"kind": "train" | "eval" | "save" | "note", "step": …}
      checkpoints/step-00002000/  a model folder (transformers opens it where it can), with evaluation.json where it was
                                  validated, optimizer.safetensors, state.json
      best.json                   {"step": …, "miou": …}
      plan.json                   of a training with --budget: what was measured and planned, and what it took
      pictures/  tensorboard/     image | truth | prediction at each validation, and a few of those images

A checkpoint is one folder, written beside and renamed; `state.json` lists every file with its size and sha256, so a
truncated or missing piece is noticed and the previous checkpoint is used, said aloud. Nothing is ever unpickled.
The newest `keep` checkpoints and the best one stay; all of them where `keep` is 0.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.errors import (
    CheckpointError,
    ExistingOutputError,
    MissingPathError,
    RunError,
    RunInUseError,
    quoted,
)
from terrazzo.images import append_line, read_json, replace_folder, replacing, write_json
from terrazzo.recipe import Recipe

FORMAT_VERSION = 1  # of state.json; a newer one is refused, never guessed
STATE = "state.json"


@dataclass
class Run:
    """What happened in one training, on disk."""

    path: Path
    """The run folder."""
    recipe: Recipe
    """The resolved recipe."""
    data: dict[str, Any]
    """data.json: what the run was trained on."""
    said: list[str] = field(default_factory=list)
    """What was noticed on the way and is worth repeating at the end."""
    stopped_by: int | None = None
    """The signal number that ended training early, if one did."""

    @classmethod
    def create(cls, path: Path, recipe: Recipe, *, data: dict[str, Any], env: dict[str, Any]) -> "Run":
        """Make the run folder; raises ExistingOutputError when there is a run in it already."""
        if (path / "recipe.json").exists():
            raise ExistingOutputError(
                f"There is a run in {path} already.",
                hint="Choose another folder with --out, or go on with that run:",
                command=f"terrazzo train --resume {quoted(path)}",
            )
        if path.exists() and any(entry.name != "training.lock" for entry in path.iterdir()):
            raise ExistingOutputError(
                f"{path} is not empty and holds no run.",
                hint="Choose another folder with --out; nothing was changed.",
            )
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        write_json(path / "env.json", env)
        write_json(path / "data.json", data)
        write_json(path / "recipe.json", recipe.to_json())  # last: its presence says that this is a run
        return cls(path, recipe, data)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Open an existing run; raises MissingPathError when there is none."""
        folder = Path(path)
        if not (folder / "recipe.json").is_file():
            raise MissingPathError(
                f"There is no run in {folder}.",
                found="no recipe.json there" if folder.is_dir() else "no such folder",
                expected="a folder that `terrazzo train` made",
            )
        return cls(
            folder, Recipe.from_json(read_json(folder / "recipe.json")), read_json(folder / "data.json")
        )

    # what is in it ------------------------------------------------------------------------------------

    @property
    def best(self) -> dict[str, Any] | None:
        """{"step": …, "miou": …} of the best validation so far, or None before the first."""
        file = self.path / "best.json"
        value = read_json(file) if file.is_file() else None
        is_known = (
            isinstance(value, dict) and type(value.get("step")) is int and _is_number(value.get("miou"))
        )
        if value is not None and not is_known:
            raise RunError(
                f"{file} does not say which checkpoint is the best.",
                found=str(value)[:80],
                expected='{"step": 2000, "miou": 0.71}',
                hint="Without the file, the newest checkpoint is used, and the next validation is the best.",
            )
        return value

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoint folders, oldest first; leftovers of a killed writer are not among them."""
        return sorted((self.path / "checkpoints").glob("step-????????"))

    @property
    def step(self) -> int:
        """The step of the newest whole checkpoint; 0 when there is none."""
        newest = self.newest()
        return 0 if newest is None else step_of(newest)

    def newest(self) -> Path | None:
        """Return the newest checkpoint that is whole; damaged ones are passed over and remembered in `said`."""
        for folder in reversed(self.checkpoints):
            problem = damage(folder)
            if problem is None:
                return folder
            line = f"{folder.name} cannot be used ({problem}); the one before it is."
            if line not in self.said:
                self.said.append(line)
        return None

    def best_folder(self) -> Path:
        """Return the model folder with the best mIoU, else the newest; raises CheckpointError when there is none."""
        best = self.best
        if best is not None:
            folder = self._folder(best["step"])
            if damage(folder) is None:
                return folder
        newest = self.newest()
        if newest is None:
            raise CheckpointError(
                f"The run {self.path} has no checkpoint yet.",
                found=f"{len(self.checkpoints)} checkpoint folders, none of them whole",
                hint="Training saves at each validation and when it is stopped. Start it again:",
                command=f"terrazzo train --resume {quoted(self.path)}",
            )
        return newest

    def history(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, oldest first; only those of `kind` where it is given."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []
        entries = [entry for entry in map(_parse, lines) if entry is not None]
        return [entry for entry in entries if kind is None or entry.get("kind") == kind]

    # what is written to it ------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process; raises RunInUseError while another training does. Freed by a crash too."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / "training.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunInUseError(
                f"Another training writes to {self.path}.",
                hint="Wait for it, stop it, or choose another folder with --out; nothing was changed.",
            ) from None
        try:
            self._sweep()
            yield
        finally:
            lock.release()

    def log(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        line = {"kind": kind, "step": step, **{name: _plain(value) for name, value in values.items()}}
        append_line(self.path / "metrics.jsonl", json.dumps(line))

    def save(self, step: int, write: Callable[[Path], None], *, state: Mapping[str, Any]) -> Path:
        """Make a checkpoint of `step`: `write(folder)` fills it, `state` (JSON) goes beside; then prune.

        Written beside, fsynced, renamed. Raises StorageError when the disk is full; older checkpoints are intact.
        """
        folder = self._folder(step)
        with replace_folder(folder) as beside:
            write(beside)
            files = {file.name: _stamp(file) for file in sorted(beside.iterdir())}
            whole = {"format_version": FORMAT_VERSION, "step": step, "files": files, **state}
            (beside / STATE).write_text(json.dumps(whole, indent=1), encoding="utf-8")
            for file in beside.iterdir():  # safetensors makes files that their owner alone may read
                file.chmod((beside / STATE).stat().st_mode)
        self._prune()
        return folder

    def keep_best(self, step: int, score: float) -> bool:
        """Note `step` as the best if its mIoU `score` beats the one so far (nan never does); return whether it did."""
        best = self.best
        if score != score:
            return False
        if best is not None and best["miou"] >= score:
            return False
        write_json(self.path / "best.json", {"step": step, "miou": score})
        return True

    def rewind(self, step: int) -> None:
        """Forget what was logged, and which best was found, after `step`: training goes on from there."""
        kept = [json.dumps(entry) for entry in self.history() if entry["step"] <= step]
        with replacing(self.path / "metrics.jsonl") as beside:
            beside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        for folder in self.checkpoints:
            if step_of(folder) > step:
                shutil.rmtree(folder)
        best = self.best
        if best is not None and best["step"] > step:
            scored = [
                entry
                for entry in self.history("eval")
                if _is_number(entry.get("miou")) and self._folder(entry["step"]).is_dir()
            ]
            (self.path / "best.json").unlink()
            if scored:
                first = max(scored, key=lambda entry: entry["miou"])
                write_json(self.path / "best.json", {"step": first["step"], "miou": first["miou"]})

    def _folder(self, step: int) -> Path:
        return self.path / "checkpoints" / f"step-{step:08d}"

    def _prune(self) -> None:
        keep, best = self.recipe.train.keep, self.best
        if not keep:
            return
        newest = self.checkpoints[-keep:]
        for folder in self.checkpoints:
            if folder not in newest and (best is None or step_of(folder) != best["step"]):
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a killed writer left beside the checkpoints."""
        for entry in (self.path / "checkpoints").iterdir():
            if not (entry.name.startswith("step-") and entry.name[5:].isdigit()):
                shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink()

    def _repr_html_(self) -> str:
        import html

        best = self.best
        score = f"best mIoU {100 * best['miou']:.2f} at step {best['step']}" if best else "not evaluated yet"
        return (
            f"<b>{html.escape(self.recipe.name)}</b> in <code>{html.escape(str(self.path))}</code>: {score}"
        )


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder in a few words, None when it is whole.

    Raises CheckpointError for one that a newer terrazzo wrote: it is not damaged, we are too old.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        files = {
            str(name): (int(stamp["size"]), str(stamp["sha256"])) for name, stamp in state["files"].items()
        }
        is_newer = state.get("format_version", 0) > FORMAT_VERSION
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"{STATE} is missing or cut short"
    if is_newer:
        raise CheckpointError(
            f"{folder} was written by a newer terrazzo.",
            found=f"format {state['format_version']}",
            expected=f"format {FORMAT_VERSION} or older",
            command="pip install --upgrade terrazzo",
        )
    for name, (size, digest) in files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} bytes of {size:,}"
        if _digest(file) != digest:
            return f"{name} was changed after it was written"
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """Return state.json of a whole checkpoint; raises CheckpointError with what is wrong."""
    problem = damage(folder)
    if problem is not None:
        raise CheckpointError(f"The checkpoint {folder} cannot be used.", found=problem)
    state: dict[str, Any] = read_json(folder / STATE)
    return state


def free_folder(parent: Path, name: str) -> Path:
    """Return parent/name, or parent/name-2, -3 … : the first that does not exist."""
    for number in range(1, 10_000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
    raise RunError(f"{parent} has ten thousand runs called {name}.", hint="Choose a folder with --out.")


def _stamp(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):  # the last line of a killed run may be cut short
        return None
    return entry if isinstance(entry, dict) and type(entry.get("step")) is int else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _plain(value: Any) -> Any:
    """Return a JSON value; NaN and infinities become null, since JSON has no word for them."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
