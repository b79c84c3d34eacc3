"""labelme's JSON files, brought in: shapes in their order, one over the other; one label and group is one thing.

    {"shapes": [{"label", "points": [[x, y], …], "group_id", "shape_type", "mask"}], "imagePath", "imageHeight", …}

Polygons, rectangles, circles and masks are painted; lines and points have no area, and are counted aloud. The image is
the file beside the JSON, never `imageData`, which may be another. "__ignore__" and "_background_" are nobody's.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DatasetFormatError, MissingPathError
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, find_image, fresh_kinds, paint
from terrazzo.images import IMAGE_SUFFIXES, decode_mask, image_size
from terrazzo.regions import as_corners, fill_polygon

NOBODYS = ("__ignore__", "_background_")
AREAS = ("polygon", "rectangle", "circle", "mask", "oriented_rectangle", "rotation", "quadrilateral")
CIRCLE = 64  # corners


def read(src: Path, root: Path) -> Arrivals:
    """Return what the JSON files below the folder `src` bring."""
    if not src.is_dir():
        raise MissingPathError(
            f"There is no folder {src}.", expected="labelme's JSON files beside their images"
        )
    samples, names, problems, flat = [], [], [], 0
    for path in sorted(src.rglob("*.json")):
        value = _value(path)
        if value is None:
            continue
        image = find_image([str(value.get("imagePath", "")).replace("\\", "/")], [path.parent])
        beside = [path.with_suffix(suffix).name for suffix in sorted(IMAGE_SUFFIXES)]
        image = image or find_image(beside, [path.parent])
        if image is None:
            problems.append(f"{path}: no image {value.get('imagePath')!r:.80} beside it")
            continue
        shapes = [one for one in value["shapes"] if isinstance(one, dict) and one.get("label") not in NOBODYS]
        bad = [one for one in shapes if not isinstance(one.get("label"), str) or not one["label"].strip()]
        if bad:
            problems.append(f"{path}: {len(bad)} shapes without a label")
            continue
        areas = [one for one in shapes if one.get("shape_type", "polygon") in AREAS]
        flat += len(shapes) - len(areas)
        names += [one["label"].strip() for one in areas]
        samples.append(Arrival(image, partial(_draw, areas, image), where=str(path)))
    if problems or not samples:
        raise DatasetFormatError(
            f"{src} cannot be brought in as labelme's.",
            found="\n" + "\n".join(problems[:10]) if problems else "no JSON file with shapes and imagePath",
        )
    notes = (f"{flat} lines and points have no area, and are left out.",) if flat else ()
    return Arrivals(fresh_kinds(names), tuple(samples), notes)


def _value(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file of labelme; None for any other JSON."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path} is not valid JSON.", found=str(error)[:200]) from error
    is_theirs = isinstance(value, dict) and isinstance(value.get("shapes"), list) and "imagePath" in value
    return value if is_theirs else None


def _draw(shapes: list[dict[str, Any]], image: Path) -> Drawn:
    size_hw = image_size(image)
    return paint(size_hw, _regions(shapes, size_hw))


def _regions(
    shapes: list[dict[str, Any]], size_hw: tuple[int, int]
) -> Iterator[tuple[str, object, NDArray[np.bool_]]]:
    for number, one in enumerate(shapes):
        try:
            group = one.get("group_id")
            key = group if type(group) in (int, str) else None
            yield one["label"].strip(), key, _region(one, size_hw)
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise DatasetFormatError(
                f"shape {number} ({one.get('label')!r:.40}) cannot be painted", found=str(error)[:120]
            ) from error


def _region(one: Mapping[str, Any], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    region = np.zeros(size_hw, dtype=np.bool_)
    kind = one.get("shape_type", "polygon")
    points = np.asarray(one["points"], dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("points that are none")
    if kind == "mask":
        return _patch(one, points, region)
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points
        points = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    elif kind == "circle":
        center, rim = points
        angles = np.linspace(0, 2 * np.pi, CIRCLE, endpoint=False)
        points = center + float(np.hypot(*(rim - center))) * np.stack(
            [np.cos(angles), np.sin(angles)], axis=1
        )
    fill_polygon(region, as_corners(points.ravel()))
    return region


def _patch(
    one: Mapping[str, Any], points: NDArray[np.float64], region: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """A small mask in a box whose corners belong to it; what lies outside the image is cut off."""
    (x1, y1), (x2, y2) = np.rint(points).astype(np.int64).tolist()
    height, width = y2 - y1 + 1, x2 - x1 + 1
    if not 0 < height <= region.shape[0] or not 0 < width <= region.shape[1]:  # before anything is decoded
        raise ValueError(f"a mask of {height} x {width} pixels")
    text = one["mask"]
    if not isinstance(text, str) or len(text) > 16 * height * width + 65_536:
        raise ValueError("a mask that is none, or far too long")
    patch = decode_mask(base64.b64decode(text, validate=True), where="the mask")
    if patch.shape != (height, width):
        raise ValueError(f"a mask of {patch.shape} in a box of {(height, width)}")
    top, left = max(y1, 0), max(x1, 0)
    inside = patch[top - y1 : region.shape[0] - y1, left - x1 : region.shape[1] - x1] != 0
    region[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return region
