"""What lies in a model folder, as far as a card tells it: read once, and nothing is asked of anybody else."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from terrazzo.cards.pictures import EXAMPLE, FOLDER, PREDICTIONS
from terrazzo.classes import Classes
from terrazzo.licences import Ledger, ledger_of
from terrazzo.report import EVALUATION, Report
from terrazzo.storage import read_json


@dataclass(frozen=True)
class ModelFolder:
    """What lies in the folder."""

    folder: Path
    """Where it lies."""
    repo_id: str
    """What it will be called on the Hub, "user/name"."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """terrazzo.json; {} for a model that transformers saved."""
        return self._json("terrazzo.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; {} where transformers does not open it."""
        return self._json("config.json")

    @cached_property
    def report(self) -> Report | None:
        """The validation of these weights."""
        file = self.folder / EVALUATION
        return Report.open(file) if file.is_file() else None

    @property
    def ledger(self) -> Ledger:
        """What it was made from."""
        return ledger_of(self.about)

    @property
    def classes(self) -> Classes | None:
        """The classes, where something names them."""
        if "classes" in self.about:
            return Classes.from_json(self.about["classes"])
        names = self.config.get("id2label")
        return Classes(tuple(str(names[key]) for key in sorted(names, key=int))) if names else None

    @property
    def name(self) -> str:
        """The name without the user's."""
        return self.repo_id.split("/")[-1]

    @property
    def network(self) -> str | None:
        """The architecture in words."""
        recipe = self.part("recipe", "model")
        name = recipe.get("name")
        if name == "huggingface" or name is None:
            return next(iter(self.config.get("architectures") or ()), None)
        backbone = recipe.get("backbone")
        return f"{name} on {backbone}" if backbone else str(name)

    @property
    def auto_class(self) -> str | None:
        """The class of transformers that opens it; None where none does."""
        named = str(next(iter(self.config.get("architectures") or ()), ""))
        kinds = ("SemanticSegmentation", "UniversalSegmentation")
        return next((f"AutoModelFor{kind}" for kind in kinds if named.endswith(f"For{kind}")), None)

    @property
    def pictures(self) -> list[str]:
        """The pictures in the folder, as the card names them."""
        names = [PREDICTIONS, *(f"{FOLDER}/{EXAMPLE.format(number)}" for number in range(1, 10))]
        return [name for name in names if (self.folder / name).is_file()]

    def part(self, *path: str) -> dict[str, Any]:
        """An object inside terrazzo.json; {} where it is not there."""
        value: Any = self.about
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value if isinstance(value, dict) else {}

    def _json(self, name: str) -> dict[str, Any]:
        value = read_json(self.folder / name) if (self.folder / name).is_file() else {}
        return value if isinstance(value, dict) else {}
