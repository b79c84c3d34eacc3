"""The JSON files of COCO, which hold what anybody wrote: read whole, checked whole, all problems at once.

Refused: paths that leave the folder, doubled ids and names, sizes that no image has, annotations of images or
categories that are not listed. Whether a shape can be painted is seen when it is.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NoReturn

from terrazzo.data.importers.coco_masks import MAX_ID, SHOWN
from terrazzo.data.importers.downloads import Origin, read
from terrazzo.errors import DatasetFormatError

MAX_SIDE = 32_768  # pixels
MAX_PIXELS = 1 << 28


def parsed(origin: Origin) -> Any:
    try:
        return json.loads(read(origin))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DatasetFormatError(
            f"{origin} is not valid JSON.",
            found=str(error)[:200],
            hint="Download it again from where it is published.",
        ) from error


def checked(value: Any, annotations: str, *, where: str) -> dict[str, Any]:
    """{"images", "categories": {id: name}, "objects": {image id: annotations}} of a JSON that may hold anything."""
    keys = ("images", "annotations", "categories")
    if not isinstance(value, dict) or not all(
        isinstance(value.get(key), list) and all(isinstance(one, dict) for one in value[key]) for key in keys
    ):
        _refuse(where, ["no lists of objects under images, annotations and categories"])
    problems: list[str] = []
    for one in value["images"]:
        height, width = one.get("height"), one.get("width")
        if type(one.get("id")) not in (int, str):
            problems.append(f"an image with id {one.get('id')!r:.40}")
        elif _leaves(one.get("file_name")):
            problems.append(
                f"image {one['id']!r:.40}: file name {one.get('file_name')!r:.80} leaves the folder"
            )
        elif type(height) is not int or type(width) is not int or not _fits(height, width):
            problems.append(f"image {one['id']!r:.40}: {height!r:.20} x {width!r:.20} pixels")
    for one in value["categories"]:
        if type(one.get("id")) is not int or not 0 <= one["id"] <= MAX_ID:
            problems.append(f"a category with id {one.get('id')!r:.40}, not 0-{MAX_ID}")
        elif not isinstance(one.get("name"), str) or not one["name"].strip() or not one["name"].isprintable():
            problems.append(f"category {one['id']} with the name {one.get('name')!r:.80}")
    if problems:
        _refuse(where, problems)
    problems += [f"two images with id {i!r:.40}" for i in _twice(one["id"] for one in value["images"])]
    stems = (str(PurePosixPath(one["file_name"]).with_suffix("")) for one in value["images"])
    problems += [f"two images called {name!r:.80}" for name in _twice(stems)]
    problems += [f"two categories with id {i}" for i in _twice(one["id"] for one in value["categories"])]
    problems += [
        f"two categories called {n!r:.80}" for n in _twice(one["name"] for one in value["categories"])
    ]
    if not value["categories"]:
        problems.append("no categories")
    images = {one["id"] for one in value["images"]}
    categories = {one["id"]: one["name"] for one in value["categories"]}
    objects: dict[Any, list[Any]] = defaultdict(list)
    for one in value["annotations"]:
        called = f"annotation {one.get('id', one.get('file_name'))!r:.40}"
        if type(one.get("image_id")) not in (int, str) or one["image_id"] not in images:
            problems.append(f"{called} is of image {one.get('image_id')!r:.40}, which is not listed")
            continue
        segments = [one]
        if annotations == "panoptic":
            segments = one.get("segments_info", ())
            if not isinstance(segments, list) or not all(
                isinstance(s, dict) and type(s.get("id")) is int for s in segments
            ):
                problems.append(f"{called} has no segments_info")
                continue
            if _leaves(one.get("file_name")):
                problems.append(f"{called}: file name {one.get('file_name')!r:.80} leaves the folder")
            if one["image_id"] in objects:
                problems.append(f"{called} is the second of its image")
        strange = {
            repr(s.get("category_id"))[:40]
            for s in segments
            if not _is_known(s.get("category_id"), categories)
        }
        if strange:
            problems.append(f"{called} is of category {', '.join(sorted(strange))}, which is not listed")
        objects[one["image_id"]].append(one)
    if problems:
        _refuse(where, problems)
    return {"images": value["images"], "categories": categories, "objects": objects}


def _refuse(where: str, problems: list[str]) -> NoReturn:
    more = [f"… {len(problems)} problems in all"] if len(problems) > SHOWN else []
    raise DatasetFormatError(
        f"{where} is not to be trusted, or no annotations of COCO.",
        found="\n" + "\n".join(problems[:SHOWN] + more),
        expected='{"images": [{"id", "file_name", "height", "width"}], "categories": [{"id", "name"}], "annotations": '
        "[…]}",
    )


def _is_known(category: Any, categories: Mapping[int, str]) -> bool:
    return type(category) is int and category in categories


def _leaves(name: Any) -> bool:
    """True for what is no plain path below a folder."""
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or name.startswith("/")
        or any(c in name for c in "\\:")
    ):
        return True
    return any(part in ("", ".", "..") for part in name.split("/"))


def _fits(height: int, width: int) -> bool:
    return 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_PIXELS


def _twice(values: Iterable[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
