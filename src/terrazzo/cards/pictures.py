"""The pictures of a card, put into the folder that is shared; no file is copied that may hold more than its pixels.

Where a data set's licence forbids passing it on, nothing is put there: a picture of its images is a part of it.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np

from terrazzo import rendering
from terrazzo.data import Dataset
from terrazzo.images import write_image
from terrazzo.licences import ledger_of, read
from terrazzo.storage import read_json

FOLDER = "pictures"
PREDICTIONS = f"{FOLDER}/predictions.png"  # image | truth | prediction
SHEET = f"{FOLDER}/split-{{}}.jpg"  # of the n-th split, whose own name may be anything
LEGEND = f"{FOLDER}/classes.png"
EXAMPLE = "example-{}.jpg"  # images of the validation, for a widget
SHOWN = 6  # samples of a split on its sheet
CELL = 480  # pixels: what each of them is shrunk to


def pictures(source: "str | os.PathLike[str] | Dataset", out: "str | os.PathLike[str]") -> tuple[str, ...]:
    """Put the pictures of a model or a data set into out/pictures; return their names as a card in `out` says them.

    source: a checkpoint of a run, a model folder that was shared before, or a Dataset. A run's are those of that
    checkpoint's own validation; where there was none, or its pictures are gone, there are none.
    """
    out = Path(out)
    if isinstance(source, Dataset):
        return () if read(source.license).redistribution == "no" else _sheets(source, out)
    found = _of_model(Path(source))
    for name, file in found.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, out / name)
    return tuple(found)


def _of_model(folder: Path) -> dict[str, Path]:
    """{name in the shared folder: file}."""
    about = read_json(folder / "terrazzo.json") if (folder / "terrazzo.json").is_file() else {}
    if any(one.licence.redistribution == "no" for one in ledger_of(about).data):
        return {}
    if (folder / FOLDER).is_dir():  # shared before
        files = sorted((folder / FOLDER).iterdir())
        return {f"{FOLDER}/{file.name}": file for file in files if _is_ours(file.name)}
    there = folder.parent.parent / FOLDER
    sheet = there / f"{folder.name}.png"
    found = {PREDICTIONS: sheet} if sheet.is_file() else {}
    examples = sorted(there.glob(EXAMPLE.format("*"))) if there.is_dir() else []
    return found | {f"{FOLDER}/{file.name}": file for file in examples if _is_ours(file.name)}


def _is_ours(name: str) -> bool:
    return name == Path(PREDICTIONS).name or re.fullmatch(r"example-\d\.jpg", name) is not None


def _sheets(dataset: Dataset, out: Path) -> tuple[str, ...]:
    """A sheet of overlays for each split with masks, and of bare images for the others."""
    names = []
    for number, split in enumerate(dataset.splits.values()):
        chosen = sorted({round(place) for place in np.linspace(0, len(split) - 1, SHOWN).tolist()})
        drawn = []
        for index in chosen:
            sample = split[index]
            plain = rendering.display(sample.image)
            drawn.append(
                plain
                if sample.mask is None
                else rendering.overlay(sample.image, sample.mask, dataset.classes)
            )
        sheet = rendering.contact_sheet(drawn, columns=min(3, len(drawn)), cell=CELL)
        name = SHEET.format(number)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(out / name, np.asarray(sheet.convert("RGB")))
        names.append(name)
    legend = rendering.legend(dataset.classes, height=600)
    write_image(out / LEGEND, np.asarray(legend.convert("RGB")))
    return (*names, LEGEND)
