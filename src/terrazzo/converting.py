"""A model of others in our form: read once, safely, and written as a folder that every command takes.

What it was is told in terrazzo.json: the file, its hash, and what had to be decided on reading it.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from terrazzo.nn.starting import origins_of
from terrazzo.nn.weights import read_model, save_model
from terrazzo.storage import refuse_existing, replace_folder


def convert(
    source: "str | os.PathLike[str]",
    out: "str | os.PathLike[str]",
    *,
    config: "str | os.PathLike[str] | None" = None,
) -> tuple[str, ...]:
    """Write the model in `source` as a model folder `out`, whole or not at all; return what a user should hear.

    source: a checkpoint of MMSegmentation's, a SegFormer of transformers, a model folder or a Hub id. config: the .py
    file of a checkpoint that does not hold its text. The folder predicts what the source predicts, to the last bit.
    Raises ExistingOutputError where `out` is not empty, and the errors of `load`.
    """
    out = Path(out)
    refuse_existing(out)
    model = read_model(source, config=config)
    about: dict[str, Any] = {
        "name": Path(source).name,
        "said": [one.replace(str(source), Path(source).name) for one in model.said],
    }
    if Path(source).is_file():
        about["sha256"] = _sha256(Path(source))
    licenses = model.terrazzo.get("licenses") or origins_of(source).to_json()
    with replace_folder(out) as folder:
        save_model(
            folder,
            model.network,
            classes=model.classes,
            preprocessing=model.preprocessing,
            terrazzo={**model.terrazzo, "licenses": licenses, "converted_from": about},
        )
    return model.said


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
