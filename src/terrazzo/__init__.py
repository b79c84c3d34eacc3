"""terrazzo: semantic segmentation, the whole loop in one package.

    import terrazzo as tz

    data = tz.open_dataset("data/camvid")
    run = tz.train("segformer-b0", data="data/camvid", out="runs/demo")
    report = tz.evaluate("runs/demo", data="data/camvid", split="val")
    prediction = tz.load("runs/demo")("street.jpg")

Every public name stands in `_HOMES` and is fetched on first use (PEP 562), so importing terrazzo imports neither
torch nor numpy and changes nothing: no logging, no environment variables, no seeds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # for editors and type checkers; test_public_api.py holds it equal to _HOMES
    from terrazzo import data, metrics, nn, rendering
    from terrazzo.classes import Classes
    from terrazzo.data import Dataset, open_dataset
    from terrazzo.errors import TerrazzoError
    from terrazzo.evaluation import evaluate
    from terrazzo.exporting import export
    from terrazzo.hub import pull, push
    from terrazzo.inference import Predictor, load
    from terrazzo.labelling import label
    from terrazzo.prediction import Prediction
    from terrazzo.project import Project, open_project
    from terrazzo.recipe import Recipe
    from terrazzo.report import Report
    from terrazzo.run import Run
    from terrazzo.sample import Sample
    from terrazzo.serving import serve
    from terrazzo.training import train

_HOMES = {
    "Classes": "terrazzo.classes",
    "Dataset": "terrazzo.data",
    "Prediction": "terrazzo.prediction",
    "Predictor": "terrazzo.inference",
    "Project": "terrazzo.project",
    "Recipe": "terrazzo.recipe",
    "Report": "terrazzo.report",
    "Run": "terrazzo.run",
    "Sample": "terrazzo.sample",
    "TerrazzoError": "terrazzo.errors",
    "evaluate": "terrazzo.evaluation",
    "export": "terrazzo.exporting",
    "label": "terrazzo.labelling",
    "load": "terrazzo.inference",
    "open_dataset": "terrazzo.data",
    "open_project": "terrazzo.project",
    "pull": "terrazzo.hub",
    "push": "terrazzo.hub",
    "serve": "terrazzo.serving",
    "train": "terrazzo.training",
}
_ROOMS = ("data", "metrics", "nn", "rendering")  # namespaces: tz.metrics.ConfusionMatrix

__all__ = [
    "Classes",
    "Dataset",
    "Prediction",
    "Predictor",
    "Project",
    "Recipe",
    "Report",
    "Run",
    "Sample",
    "TerrazzoError",
    "data",
    "evaluate",
    "export",
    "label",
    "load",
    "metrics",
    "nn",
    "open_dataset",
    "open_project",
    "pull",
    "push",
    "rendering",
    "serve",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"terrazzo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'terrazzo' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
