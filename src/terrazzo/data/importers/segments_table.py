"""A release of Segments.ai as a table of Hugging Face `datasets`, in the columns that its users know.

"segments": name, uuid, status, image, label.annotations and label.segmentation_bitmap, as release2dataset of the site's
SDK gave them until October 2025; the bitmap holds region ids. What that function lost is kept: images are the files as
they came, a missing bitmap is an empty cell and not one black pixel, a category 0 has its own name in id2label.json.
"semantic": pixel_values and label, as the walk-through made of it with get_semantic_bitmap; label holds category ids.
Images and labels are in the table as bytes, and no path of this machine is.
"""

import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from terrazzo.classes import Remap
from terrazzo.data.importers.checking import open_pair
from terrazzo.data.importers.copying import in_threads
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.planning import Pair
from terrazzo.data.importers.segments_files import Bitmap, Values
from terrazzo.data.importers.segments_json import Item, Release
from terrazzo.errors import DataError
from terrazzo.progress import track
from terrazzo.storage import write_json

FEATURES = {
    "segments": ("name", "uuid", "status", "image", "label.annotations", "label.segmentation_bitmap"),
    "semantic": ("pixel_values", "label"),
}


def write(
    folder: Path,
    workers: int,
    *,
    found: Sequence[tuple[Item, Pair]],
    release: Release,
    values: Values,
    columns: str,
    stop: Callable[[], None],
) -> dict[str, DataError]:
    """Write the table into the empty folder `folder`, for `datasets.load_from_disk`, and id2label.json beside it.

    found: the samples, a row each, in this order. workers: rows at a time; stop: ends their waiting. A few rows are in
    memory at once; until the table is whole it is on the disk twice. Returns what is wrong with the samples that are
    not in it, by name.
    """
    import datasets
    import pyarrow as pa

    from terrazzo.data.table import quiet

    features = _features(columns)
    schema = features.arrow_schema
    damaged: dict[str, DataError] = {}
    make = _semantic if columns == "semantic" else _segments
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.rows.", dir=folder.parent) as beside:
        rows = str(Path(beside, "rows.arrow"))
        with pa.OSFile(rows, "wb") as file, pa.ipc.new_stream(file, schema) as writer:
            made = in_threads(partial(_row, make=make), found, workers=workers, stop=stop)
            for (item, _), row in track(made, total=len(found), what="import"):
                if isinstance(row, DataError):
                    damaged[item.name] = row
                else:
                    writer.write_table(pa.Table.from_pylist([row], schema=schema))
        if len(damaged) == len(found):
            return damaged
        table = datasets.Dataset.from_file(rows, split=datasets.Split.TRAIN)
        table.info.description = release.description
        if "/" in release.dataset:
            table.info.homepage = f"https://segments.ai/{release.dataset}"
        with quiet():
            table.save_to_disk(str(folder))
        del table  # so that no map of the file is left
    write_json(folder / "id2label.json", _names(release, values, columns), durable=False)
    return damaged


def _features(columns: str) -> Any:
    from datasets import Features, Image, Value

    if columns == "semantic":
        return Features({"pixel_values": Image(), "label": Image()})
    annotation = {"id": Value("int32"), "category_id": Value("int32")}
    return Features(
        {
            "name": Value("string"),
            "uuid": Value("string"),
            "status": Value("string"),
            "image": Image(),
            "label.annotations": [annotation],
            "label.segmentation_bitmap": Image(),
        }
    )


def _row(
    one: tuple[Item, Pair], *, make: Callable[[Item, Pair, bytes], dict[str, Any]]
) -> dict[str, Any] | DataError:
    """A row, or what is wrong with its files."""
    item, pair = one
    try:
        image = open_pair(
            replace(pair, mask=None), Remap({}, 1)
        ).image  # the bitmap is looked at when it is read
        return make(item, pair, image)
    except DataError as error:
        return error


def _segments(item: Item, pair: Pair, image: bytes) -> dict[str, Any]:
    annotations = [{"id": region, "category_id": category} for region, category in item.regions.items()]
    return {
        "name": item.name,
        "uuid": item.uuid or None,
        "status": item.status,
        "image": {"bytes": image, "path": _file(pair, pair.image.suffix)},
        "label.annotations": annotations,
        "label.segmentation_bitmap": _tiff(pair),
    }


def _semantic(item: Item, pair: Pair, image: bytes) -> dict[str, Any]:
    assert pair.mask is not None, pair.name
    return {
        "pixel_values": {"bytes": image, "path": _file(pair, pair.image.suffix)},
        "label": {"bytes": read(pair.mask), "path": _file(pair, ".png")},
    }


def _file(pair: Pair, suffix: str) -> str:
    return PurePosixPath(pair.name).name + suffix.lower()


def _tiff(pair: Pair) -> dict[str, Any] | None:
    """The region ids as `datasets` stores what Pillow calls mode I: 32 bits, for which PNG has no form."""
    if pair.mask is None:
        return None
    import tifffile

    assert isinstance(pair.mask, Bitmap), pair.name
    ids = pair.mask.region_ids()
    pair.mask.mask(ids)  # notes or refuses regions that nobody named
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, ids.astype(np.int32), photometric="minisblack", compression="deflate", metadata=None
    )
    return {"bytes": stream.getvalue(), "path": _file(pair, ".tif")}


def _names(release: Release, values: Values, columns: str) -> Mapping[str, str]:
    """id2label: what the numbers in `label`, or in the annotations, mean."""
    names = {
        values.of[raw] if columns == "semantic" else raw: name for raw, name in release.categories.items()
    }
    if columns == "semantic" or 0 not in names:
        names = {values.unlabelled: "unlabeled", **names}
    return {str(raw): name for raw, name in sorted(names.items())}
