"""Label Studio's JSON, brought in: brush strokes as run lengths, polygons and rectangles in percent.

A brush is packed bit by bit, the most significant first: how many numbers (32 bits), their width less one (5), four
lengths of runs less one (4 each); then for every run one bit (repeated, or as they come), two for which length, the
length less one, and the number or numbers. They are RGBA, row by row; where alpha is not 0, is the region. Of several
annotations of a task the last that was not cancelled is taken. Images lie below the JSON's folder, by their name, with
or without the hash that an upload put before it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DatasetFormatError, MissingPathError
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, find_image, fresh_kinds, paint
from terrazzo.images import image_size
from terrazzo.project.statuses import Status
from terrazzo.regions import as_corners, fill_polygon

KINDS = {"brushlabels": "brushlabels", "polygonlabels": "polygonlabels", "rectanglelabels": "rectanglelabels"}
HASH = re.compile(r"^[0-9a-f]{8}-")
IMAGE_KEYS = ("image", "img", "image_url", "url")


def read(src: Path, root: Path) -> Arrivals:
    """Return what the JSON file `src` brings."""
    if not src.is_file():
        raise MissingPathError(f"There is no file {src}.", expected="the JSON that Label Studio exports")
    try:
        tasks = json.loads(src.read_bytes())
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{src} is not valid JSON.", found=str(error)[:200]) from error
    if not isinstance(tasks, list) or not all(
        isinstance(one, dict) and isinstance(one.get("data"), dict) for one in tasks
    ):
        raise DatasetFormatError(
            f"{src} is no export of Label Studio.", expected='[{"data": {"image": …}, "annotations": […]}, …]'
        )
    samples, names, problems, left = [], [], [], 0
    for task in tasks:
        url = next((task["data"][key] for key in IMAGE_KEYS if isinstance(task["data"].get(key), str)), "")
        image = _image(url, src.parent)
        if image is None:
            problems.append(f"{url!r:.120}")
            continue
        done = [
            one
            for one in task.get("annotations") or ()
            if isinstance(one, dict) and not one.get("was_cancelled")
        ]
        results = [one for one in (done[-1].get("result") or ()) if isinstance(one, dict)] if done else []
        regions = [one for one in results if one.get("type") in KINDS and _label(one)]
        left += len(results) - len(regions)
        names += [_label(one) for one in regions]
        status: Status = "labelled" if done else "todo"
        samples.append(
            Arrival(image, partial(_draw, regions, image) if done else None, status, where=image.name)
        )
    if problems or not samples:
        raise DatasetFormatError(
            f"{src} names images that are not there." if problems else f"{src} holds no tasks.",
            found=", ".join(problems[:10]) + (f" ({len(problems)} in all)" if len(problems) > 10 else ""),
            expected=f"files below {src.parent}, by their name",
        )
    notes = (f"{left} results that are no region with a label are left out.",) if left else ()
    return Arrivals(fresh_kinds(names), tuple(samples), notes)


def decode_brush(packed: list[int], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the region (H, W) of a brush; ValueError for what is none of this size, before it is unpacked."""
    data = np.array(packed, dtype=np.int64)
    if data.ndim != 1 or len(data) < 8 or data.min() < 0 or data.max() > 255:
        raise ValueError("no list of bytes")
    bits = np.unpackbits(data.astype(np.uint8))
    reader = _Bits(bits)
    count, width = reader.take(32), reader.take(5) + 1
    sizes = [reader.take(4) + 1 for _ in range(4)]
    if count != size_hw[0] * size_hw[1] * 4:
        raise ValueError(
            f"{count:,} numbers for an image of {size_hw[0]} x {size_hw[1]}, which has four each pixel"
        )
    if width > 8:
        raise ValueError(f"numbers of {width} bits")
    values = np.zeros(count, dtype=np.uint8)
    place = 0
    while place < count:
        is_repeated = reader.take(1)
        length = reader.take(sizes[reader.take(2)]) + 1
        if place + length > count:
            raise ValueError("more numbers than it says")
        if is_repeated:
            values[place : place + length] = reader.take(width)
        else:
            values[place : place + length] = reader.take_many(width, length)
        place += length
    region: NDArray[np.bool_] = values.reshape(*size_hw, 4)[..., 3] != 0
    return region


class _Bits:
    """Bits, read one after the other."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits, self._place = bits, 0

    def take(self, count: int) -> int:
        return int(self.take_many(count, 1)[0])

    def take_many(self, width: int, count: int) -> NDArray[np.int64]:
        end = self._place + width * count
        if end > len(self._bits):
            raise ValueError("run lengths that break off")
        rows = self._bits[self._place : end].reshape(count, width).astype(np.int64)
        self._place = end
        numbers: NDArray[np.int64] = rows @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))
        return numbers


def _image(url: str, folder: Path) -> Path | None:
    name = PurePosixPath(unquote(url).split("?d=")[-1].split("?")[0].replace("\\", "/"))
    short = HASH.sub("", name.name)
    below = str(name).lstrip("/")
    return find_image([below, name.name, short], [folder, folder / "images"])


def _label(one: Mapping[str, Any]) -> str:
    value = one.get("value")
    labels = value.get(KINDS[one["type"]]) if isinstance(value, dict) else None
    is_one = isinstance(labels, list) and labels and isinstance(labels[0], str)
    return labels[0].strip() if is_one and labels else ""


def _draw(results: list[dict[str, Any]], image: Path) -> Drawn:
    size_hw = image_size(image)
    return paint(size_hw, _regions(results, size_hw))


def _regions(
    results: list[dict[str, Any]], size_hw: tuple[int, int]
) -> Iterator[tuple[str, object, NDArray[np.bool_]]]:
    for one in results:
        try:
            if one.get("image_rotation", 0) not in (0, None):
                raise ValueError(f"an image turned by {one['image_rotation']} degrees in the editor")
            said = one.get("original_height", size_hw[0]), one.get("original_width", size_hw[1])
            if said != size_hw:
                raise ValueError(
                    f"drawn on {said[0]} x {said[1]}, the image is {size_hw[0]} x {size_hw[1]} upright"
                )
            yield _label(one), None, _region(one["type"], one["value"], size_hw)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetFormatError(
                f"the region {one.get('id')!r:.40} cannot be painted", found=str(error)[:160]
            ) from error


def _region(kind: str, value: Mapping[str, Any], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size_hw
    if kind == "brushlabels":
        packed = value["rle"]
        if not isinstance(packed, list) or len(packed) > 8 * height * width + 65_536:
            raise ValueError("a brush that is none, or far too long")
        return decode_brush(packed, size_hw)
    region = np.zeros(size_hw, dtype=np.bool_)
    if kind == "polygonlabels":
        corners = np.asarray(value["points"], dtype=np.float64)
    else:
        if value.get("rotation"):
            raise ValueError("a rectangle that is turned")
        x, y, wide, high = (float(value[key]) for key in ("x", "y", "width", "height"))
        corners = np.array([[x, y], [x + wide, y], [x + wide, y + high], [x, y + high]])
    fill_polygon(region, as_corners((corners * [width / 100, height / 100]).ravel()))
    return region
