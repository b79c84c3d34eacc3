"""A model at work in a labelling project: attached, asked what it sees, and what it says laid beside the labels.

    from terrazzo import prelabelling

    with tz.open_project("street.db") as project:
        print(prelabelling.plan("runs/demo", project).text())
        prelabelling.attach(project, "runs/demo")
        prelabelling.predict(project)
        print(project.next())

One forward pass for an image gives the class map, the confidence and the features that say how unlike others it is.
Where nobody drew, the prediction becomes the label, prelabelled; what a person drew is never touched. A sample is one
transaction, so work that was stopped goes on where it was. The page does no more than call this.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo.errors import DataError, MissingPathError, TerrazzoError, UsageError
from terrazzo.inference import RECIPE, Predictor, ahead, load
from terrazzo.nn.files import WEIGHTS_FILES, model_folder
from terrazzo.nn.segformer import SegFormer
from terrazzo.project import Project, comparing
from terrazzo.project.comparing import refresh
from terrazzo.project.models import Attached, Mapped, Match
from terrazzo.project.queue import SEED
from terrazzo.report import EVALUATION
from terrazzo.run import Run
from terrazzo.storage import read_json

HASH = (
    16  # hex digits of a sha256 by which a model is known; enough to tell models apart, short enough to read
)
GRAPHS = (".onnx", ".xml")
LARGE = 2_000_000  # pixels from which an image is looked at in windows, whatever the recipe says
DECODED_AHEAD = 2  # images that are read while the network works
Source = str | PathLike[str]


@dataclass(frozen=True)
class Plan:
    """What a model would be in a project, before anything is changed."""

    hash: str
    """What it is known by."""
    name: str
    """The last part of its path."""
    path: str
    """Where it lies."""
    matches: tuple[Match, ...]
    """Its classes, by class id, and the categories of the same names."""
    report: dict[str, Any] | None = None
    """Its own validation, where it has one."""

    @property
    def missing(self) -> list[str]:
        """The classes that no category is called by."""
        return [one.name for one in self.matches if one.category_id is None]

    def text(self) -> str:
        """Return the table, a line for each class."""
        width = max(len(one.name) for one in self.matches)
        lines = [f"{self.name} ({self.hash}): {len(self.matches)} classes"]
        for one in self.matches:
            told = f"category {one.category_id}" if one.category_id is not None else "no such category"
            hint = f"; {one.similar!r} is written otherwise" if one.similar else ""
            lines.append(f"  {one.name:<{width}}  {told}{hint}")
        return "\n".join(lines)


@dataclass
class Predicted:
    """What became of a round of predictions."""

    model: str
    """The model's hash."""
    samples: int = 0
    """How many it looked at."""
    prelabelled: int = 0
    """Of how many it became the label."""
    is_cancelled: bool = False
    """True where somebody stopped it; what was predicted stays."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(sample, reason) of those that could not be looked at."""


def plan(source: Source, project: Project) -> Plan:
    """Return what a model's classes would be in the project; nothing is changed. source: whatever `load` takes."""
    predictor = load(source, backend="torch") if not _is_graph(source) else load(source)
    return _planned(source, predictor, project)


def attach(
    project: Project,
    source: Source,
    *,
    add: Sequence[str] | None = None,
    mapping: Mapped | None = None,
    author: str | None = None,
) -> Attached:
    """Attach a model to a project; its classes are the categories of the same names.

    add: classes that become new categories; None: all, where the project has no category yet, else none. mapping:
    {class: category id, or None} beyond equal names. What is neither is left out: the model's pixels of it are 0. A
    model that is attached already, and of which nothing new is said, keeps what its classes were mapped to.
    Raises what `load` raises, UsageError and UnknownNameError for a mapping that cannot be.
    """
    made = plan(source, project)
    if add is None and mapping is None:
        living = {one.id for one in project.categories}
        before = [one.mapping for one in project.models.all() if one.hash == made.hash]
        mapping = {name: number for one in before for name, number in one.items() if number in living}
    chosen = made.missing if add is None and not len(project.categories) else list(add or ())
    return project.models.attach(
        made.hash,
        name=made.name,
        path=made.path,
        classes=[(one.name, one.color) for one in made.matches],
        add=chosen,
        mapping=mapping,
        report=made.report,
        author=author,
    )


def predict(
    project: Project,
    model: str | None = None,
    *,
    names: Sequence[str] | None = None,
    again: bool = False,
    device: str = "auto",
    seed: int = SEED,
    progress: Callable[[float, str], None] | None = None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Predicted:
    """Let a model look at samples, keep what it says, and make the queues anew.

    model: hash, labelset or name of an attached one; the last one where None. names: those samples; all where None.
    again: those too that it has seen already. progress: called with a share in [0, 1] and a sentence. is_cancelled:
    asked before each sample. seed: of the tenth of the queues that is drawn at random. Images of more than 2 megapixels
    are looked at in the recipe's windows. An image that cannot be read is noted, and the others go on; UsageError where
    no model is attached, DataError where the model is not the one that was attached any more, or nothing could be read.
    """
    one = project.models.newest() if model is None else project.models[model]
    if one is None:
        raise UsageError("No model is attached to the project.", hint="Attach a run first.")
    wanted = [sample.name for sample in project.samples.all()] if names is None else list(names)
    if not again:
        seen = _seen(project, one.labelset)
        wanted = [name for name in wanted if name not in seen]
    result = Predicted(one.hash)
    say = progress or (lambda share, says: None)
    if wanted:
        say(0.0, f"loading {one.name}")
        predictor = _opened(one, device)
        _look(project, one, predictor, wanted, result, say, is_cancelled)
    say(1.0, "putting the samples in order")
    refresh(project, one.labelset, seed=seed)
    return result


def hash_of(source: Source) -> str:
    """Return what a model is known by: the beginning of a sha256 over the files of its weights, hex."""
    folder = weights_of(source)
    suffixes = (*WEIGHTS_FILES, *GRAPHS)
    files = [folder] if folder.is_file() else [file for file in folder.iterdir() if file.suffix in suffixes]
    if (folder / "model.safetensors").is_file():  # an optimiser's state beside it is not the model
        files = [file for file in files if file.name.startswith("model")]
    total = hashlib.sha256()
    for file in sorted(files):
        beside = file.with_suffix(".bin") if file.suffix == ".xml" else file
        with open(beside, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:HASH]


def _look(
    project: Project,
    one: Attached,
    predictor: Predictor,
    names: Sequence[str],
    result: Predicted,
    say: Callable[[float, str], None],
    is_cancelled: Callable[[], bool],
) -> None:
    """Predict the samples one after the other, the next ones decoded meanwhile."""
    table = one.table(project.categories.all(deleted=True))
    plain = replace(predictor.eval, scales=(1.0,), flip=False)  # one look
    whole, windows = predictor.with_eval(plain), predictor.with_eval(replace(plain, inference="windows"))
    first: TerrazzoError | None = None

    def read(name: str) -> tuple[str, NDArray[Any] | TerrazzoError]:
        try:
            return name, project.read_image(name)
        except TerrazzoError as error:
            return name, error

    with _features(predictor) as features:
        for done, (name, image) in enumerate(ahead(read, names, depth=DECODED_AHEAD)):
            if is_cancelled():
                result.is_cancelled = True
                return
            say(done / len(names), f"{done:,} of {len(names):,}: {name}")
            try:
                if isinstance(image, TerrazzoError):
                    raise image
                size = image.shape[0] * image.shape[1]
                prediction = (windows if size > LARGE else whole)(image, confidence=True)
                assert prediction.confidence is not None
                offered, pooled = table[prediction.mask], features()
                with project.store.transaction():
                    written = project.predictions.add(name, offered, prediction.confidence, model=one.hash)
                    comparing.note(project, name, one.labelset, offered, prediction.confidence, pooled)
            except DataError as error:
                first = first or error
                result.failed.append((name, error.what))
                features()
                continue
            result.samples += 1
            result.prelabelled += written is not None
    if first is not None and not result.samples:
        raise first


def _seen(project: Project, labelset: str) -> set[str]:
    with project.store.reading() as db:
        rows = db.execute(
            "SELECT name FROM predictions JOIN samples ON samples.id = sample WHERE labelset = ?", (labelset,)
        ).fetchall()
    return {row[0] for row in rows}


def _opened(one: Attached, device: str) -> Predictor:
    """Load an attached model; DataError where what lies there has other weights by now."""
    try:
        found = hash_of(one.path)
    except FileNotFoundError:
        found = "nothing"
    if found != one.hash:
        raise DataError(
            f"The model {one.name} is not the one that was attached.",
            found=f"weights with hash {found} in {one.path}",
            expected=one.hash,
            hint="What it said is kept under its hash. Attach the model that lies there now, as another one.",
        )
    return load(one.path, backend="torch", device=device) if not _is_graph(one.path) else load(one.path)


def _planned(source: Source, predictor: Predictor, project: Project) -> Plan:
    folder = weights_of(source)
    classes = list(zip(predictor.classes.names, predictor.classes.colors, strict=True))
    evaluation = folder / EVALUATION
    report = read_json(evaluation) if folder.is_dir() and evaluation.is_file() else None
    path = Path(source)
    where = str(path.resolve()) if path.exists() else str(source)
    return Plan(hash_of(source), path.resolve().name, where, tuple(project.models.plan(classes)), report)


def weights_of(source: Source) -> Path:
    """Return the file or folder of a model's weights: of a run, its best checkpoint."""
    path = Path(source)
    if (path / RECIPE).is_file():
        return Run.open(path).best_folder()
    if path.is_file():
        return path
    if not path.is_dir() and path.is_absolute():
        raise MissingPathError(f"There is no model at {path}.")
    return model_folder(source)


def _is_graph(source: Source) -> bool:
    """True for an exported model: it has no torch network."""
    path = Path(source)
    return path.suffix in GRAPHS or any((path / f"network{suffix}").is_file() for suffix in GRAPHS)


@contextmanager
def _features(predictor: Predictor) -> Iterator[Callable[[], NDArray[np.float32] | None]]:
    """Yield what returns the pooled features of the images seen since it was last asked; None where there are none.

    They are the mean of the encoder's last map over its pixels (over windows too), caught where it passes.
    """
    caught: list[NDArray[np.float32]] = []
    module, is_bhwc = _encoder(predictor)

    def catch(module: nn.Module, inputs: Any, output: Any) -> None:
        found = getattr(output, "last_hidden_state", output)
        found = list(found.values()) if isinstance(found, dict) else found
        last = found[-1] if isinstance(found, list | tuple) else found
        if isinstance(last, Tensor) and last.ndim in (3, 4):
            dims = (1,) if last.ndim == 3 else (1, 2) if is_bhwc else (2, 3)
            caught.append(last.detach().float().mean(dim=dims).mean(dim=0).cpu().numpy())

    def pooled() -> NDArray[np.float32] | None:
        mean = np.mean(caught, axis=0) if caught else None
        caught.clear()
        return mean

    handle = module.register_forward_hook(catch) if module is not None else None
    try:
        yield pooled
    finally:
        if handle is not None:
            handle.remove()


def _encoder(predictor: Predictor) -> tuple[nn.Module | None, bool]:
    """The module that makes the features, and whether its maps are (B, H, W, C); None for an exported graph."""
    try:
        network = predictor.network
    except UsageError:
        return None, False
    if isinstance(network, SegFormer):
        return network.segformer.encoder, True
    backbone = getattr(network, "backbone", None)
    return (
        backbone if isinstance(backbone, nn.Module) and not isinstance(backbone, nn.ModuleList) else None
    ), False
