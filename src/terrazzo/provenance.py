"""terrazzo.json of a trained model: what it is, what it was trained on and how, what it scored, whose it is.

A model folder is meant to be passed on, so what is said here holds elsewhere too: no path of this machine is in it.
`recipe.json` and `data.json` of the run keep those.
"""

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from terrazzo import __version__
from terrazzo.data import Dataset
from terrazzo.data.dataset import Split
from terrazzo.environment import model_of
from terrazzo.licences import Ledger, ledger_of, public
from terrazzo.preparation import Job
from terrazzo.recipe import Recipe
from terrazzo.report import Report

PACKAGES = ("torch", "numpy", "transformers", "timm")  # of which results depend on the versions
SIZES = 16  # training images whose sizes are taken down, spread over the split


def of_model(
    job: Job, *, step: int, report: Report | None, device: torch.device, processes: int
) -> dict[str, Any]:
    """Return what terrazzo.json says besides the network; report: the validation of these very weights."""
    ledger = ledger_of(job.run.data)
    return {
        "recipe": shared(job.recipe, ledger).to_json(),
        "classes": job.data.classes.to_json(),
        "remap": job.data.remap.to_json(),
        "channels": job.data.channels,
        "data": _data(job),
        "training": {
            "step": step,
            "steps": job.steps,
            "overfit": job.overfit,
            "device": model_of(str(device)),
            "processes": processes,
            "versions": {"terrazzo": __version__, "python": platform.python_version(), **_versions()},
        },
        "metrics": report.scalars() if report is not None else None,
        "own": job.run.data.get("own", {}),
        "licenses": ledger.to_json(),
    }


def shared(recipe: Recipe, ledger: Ledger) -> Recipe:
    """Return the recipe without what only this machine can find: weights and data of its own."""
    known = {one.name for one in ledger.weights} | {"timm"}
    pretrained, init = (one if one in known else None for one in (recipe.model.pretrained, recipe.model.init))
    default = recipe.default_data
    is_elsewhere = default is not None and public(default) and not Path(default).exists()
    return replace(
        recipe,
        model=replace(recipe.model, pretrained=pretrained, init=init),
        default_data=default if is_elsewhere else None,
    )


def hub_id(dataset: Dataset) -> dict[str, str] | None:
    """Return {"id", "revision"} of a data set that was opened on the Hub."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40})", dataset.location)
    return {"id": found[1], "revision": found[2]} if found else None


def _data(job: Job) -> dict[str, Any]:
    data, train = job.data, job.train_split
    manifest: Mapping[str, Any] = data.split_manifest or {}
    splits = [train] if job.eval_split in (None, train) else [train, job.eval_split]
    return {
        "name": data.name,
        "source": data.source if data.source is not None and public(data.source) else None,
        "hub": hub_id(data),
        "fingerprint": job.run.data["fingerprint"],
        "license": data.license,
        "images": {split.name: len(split) for split in splits if split is not None},
        "made": {name: manifest.get(name) for name in ("seed", "fraction", "groups", "fold")} if manifest else None,
        "sizes": _sizes(train),
    }  # fmt: skip


def _sizes(split: Split) -> list[list[int]]:
    """[height, width] of some images of a split; of none that would have to be fetched."""
    if split.shard_of is not None:
        return []
    chosen = sorted({round(place) for place in np.linspace(0, len(split) - 1, SIZES).tolist()})
    return [list(split.size_hw(index)) for index in chosen]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
