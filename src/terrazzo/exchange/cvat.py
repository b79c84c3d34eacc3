"""CVAT for images 1.1, brought in: polygons, boxes, ellipses and masks, painted from the lowest z_order up.

A mask's run lengths go row by row inside its box, zeros first. Points, polylines, skeletons and tags have no area, and
are counted aloud. The XML is read by defusedxml: no entity is expanded, nothing outside is asked for.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DatasetFormatError, MissingExtraError, MissingPathError
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, Kind, find_image, paint
from terrazzo.project.statuses import Status
from terrazzo.regions import as_corners, fill_polygon

AREAS = ("polygon", "box", "ellipse", "mask")
MAX_BYTES = 1 << 30
MAX_SIDE = 32_768  # pixels
ELLIPSE = 64  # corners


def read(src: Path, root: Path) -> Arrivals:
    """Return what an annotations.xml brings: the file, or a folder that has it; images lie beside it or in images/."""
    path = src / "annotations.xml" if src.is_dir() else src
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", expected="CVAT's annotations.xml")
    tree = _parsed(path)
    if tree.tag != "annotations" or (tree.findtext("version") or "").strip() not in ("1.0", "1.1"):
        raise DatasetFormatError(
            f"{path} is no CVAT for images 1.1.",
            found=f"<{tree.tag}>, version {tree.findtext('version')}",
            expected="<annotations> with <version>1.1</version>",
        )
    if tree.find("track") is not None:
        raise DatasetFormatError(
            f"{path} is of a video.",
            found="<track>",
            expected="CVAT for images",
            hint='Export it as "CVAT for images".',
        )
    colors = {one.findtext("name"): one.findtext("color") for one in tree.iter("label")}
    samples, names, missing, flat = [], [], [], 0
    for one in tree.iter("image"):
        name = one.get("name", "")
        places = [name, PurePosixPath(name.replace("\\", "/")).name]
        image = find_image(places, [path.parent, path.parent / "images"])
        if image is None:
            missing.append(f"{name!r:.120}")
            continue
        areas = [shape for shape in one if shape.tag in AREAS]
        flat += sum(1 for shape in one if shape.tag not in AREAS)
        names += [shape.get("label", "") for shape in areas]
        status: Status = "labelled" if areas else "todo"
        draw = partial(_draw, areas, _size(one, name), name) if areas else None
        samples.append(Arrival(image, draw, status, where=name))
    if missing or not samples:
        more = f" ({len(missing)} in all)" if len(missing) > 10 else ""
        raise DatasetFormatError(
            f"{path} names images that are not there." if missing else f"{path} names no images.",
            found=", ".join(missing[:10]) + more if missing else "no <image>",
            expected=f"below {path.parent}, or its images/",
        )
    kinds = tuple(Kind(name, _color(colors.get(name)), has_instances=True) for name in dict.fromkeys(names))
    notes = (f"{flat} shapes without an area are left out.",) if flat else ()
    return Arrivals(kinds, tuple(samples), notes)


def _parsed(path: Path) -> Any:
    try:
        from defusedxml import ElementTree
        from defusedxml.common import DefusedXmlException
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "Reading CVAT's XML needs defusedxml.", command='pip install "terrazzo[label]"'
        ) from error
    if path.stat().st_size > MAX_BYTES:
        raise DatasetFormatError(f"{path} is too large to be read.", expected=f"at most {MAX_BYTES:,} bytes")
    try:
        return ElementTree.parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise DatasetFormatError(f"{path} is not to be trusted.", found=str(error)[:200]) from error
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetFormatError(f"{path} is not valid XML.", found=str(error)[:200]) from error


def _size(one: Any, name: str) -> tuple[int, int]:
    try:
        height, width = int(one.get("height", "")), int(one.get("width", ""))
    except ValueError:
        height = width = 0
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise DatasetFormatError(
            f"The image {name!r:.80} has a size that no image has.",
            found=f"{one.get('height')!r} x {one.get('width')!r}",
        )
    return height, width


def _draw(shapes: list[Any], size_hw: tuple[int, int], name: str) -> Drawn:
    def z_order(shape: Any) -> int:
        text = shape.get("z_order", "0")
        return int(text) if text.lstrip("-").isdigit() and len(text) < 12 else 0

    return paint(size_hw, _regions(sorted(shapes, key=z_order), size_hw))


def _regions(shapes: list[Any], size_hw: tuple[int, int]) -> Iterator[tuple[str, object, NDArray[np.bool_]]]:
    for shape in shapes:
        label = shape.get("label", "")
        try:
            group = shape.get("group_id")
            yield label, group, _region(shape, size_hw)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetFormatError(
                f"a {shape.tag} of {label!r:.40} cannot be painted", found=str(error)[:120]
            ) from error


def _region(shape: Any, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    region = np.zeros(size_hw, dtype=np.bool_)
    if shape.tag == "mask":
        return _mask(shape, region)
    if shape.tag == "polygon":
        numbers = [float(number) for pair in shape.get("points", "").split(";") for number in pair.split(",")]
    elif shape.tag == "box":
        x1, y1, x2, y2 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        numbers = [x1, y1, x2, y1, x2, y2, x1, y2]
    else:
        cx, cy, rx, ry = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        angles = np.linspace(0, 2 * np.pi, ELLIPSE, endpoint=False)
        numbers = np.stack([cx + rx * np.cos(angles), cy + ry * np.sin(angles)], axis=1).ravel().tolist()
    fill_polygon(region, as_corners(numbers))
    return region


def _mask(shape: Any, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    inside = left >= 0 and top >= 0 and left + width <= region.shape[1] and top + height <= region.shape[0]
    if width < 1 or height < 1 or not inside:
        raise ValueError(f"a mask of {height} x {width} at row {top}, column {left}, beyond its image")
    counts = [int(one) for one in shape.attrib["rle"].split(",")]
    total = sum(counts)  # of Python's whole numbers, which do not run over
    if min(counts) < 0 or total != height * width:
        raise ValueError(f"run lengths for {total:,} of {height * width:,} pixels")
    runs = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    region[top : top + height, left : left + width] = runs.reshape(height, width)
    return region


def _color(text: str | None) -> tuple[int, int, int] | None:
    text = (text or "").lstrip("#")
    if len(text) != 6 or any(c not in "0123456789abcdefABCDEF" for c in text):
        return None
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)
