"""What is said where a name leads to no data set: is it misspelt, is it published in a form that has to be imported?"""

from collections.abc import Mapping
from pathlib import Path

from terrazzo.errors import DatasetFormatError, MissingPathError, nearest

PUBLISHED_AS_SCRIPTS: Mapping[
    str, str
] = {  # Hub names whose data come by a Python script, which is never run
    "scene_parse_150": "ade20k",
    "scene_parse150": "ade20k",
    "ade20k": "ade20k",
    "cityscapes": "cityscapes",
    "camvid": "camvid",
    "pascal_voc": "voc",
    "bdd100k": "bdd100k",
}


def missing(source: str, found: str | None = None) -> MissingPathError:
    """Build the error for a path that is not there; names what is there and looks alike."""
    path = Path(source).expanduser()
    beside = path.parent if path.parent.is_dir() else Path()
    near = nearest(path.name, [entry.name for entry in beside.iterdir() if not entry.name.startswith(".")])
    return MissingPathError(
        f"There is no data set {source}.",
        found=found or f"no such folder in {beside.resolve()}",
        expected='a folder, a .parquet file, or a data set on the Hub as "user/name"',
        hint=f"Did you mean {' or '.join(str(beside / name) for name in near)}?" if near else None,
    )


def script_data_set(source: str, importer: str | None = None) -> DatasetFormatError:
    """Build the error for a data set that is published as a Python script; names its importer where there is one."""
    importer = importer or PUBLISHED_AS_SCRIPTS.get(source.split("@")[0].split("/")[-1].lower())
    return DatasetFormatError(
        f"{source} is published as a Python script, which is never run.",
        expected="images and masks, or a table (parquet)",
        hint="Download the data themselves from their publisher, then import them once:",
        command=f"terrazzo import {importer or 'FORMAT'} PATH --out data/{importer or 'NAME'}",
    )
