"""A made-up release of Segments.ai in the layout of its documentation; bitmaps are written by hand, byte by byte."""

import json
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from terrazzo.data import Dataset, importers, open_dataset
from terrazzo.data.importers.planning import Wanted
from terrazzo.data.scenes import SCENE_CLASSES
from terrazzo.sample import Sample

HW = (20, 30)  # not square, so that an image on its side is seen
CATEGORIES: list[dict[str, Any]] = [
    {"id": 1, "name": "road", "color": [128, 64, 128], "has_instances": False, "attributes": []},
    {"id": 300, "name": "robot", "color": [220, 20, 60], "has_instances": True, "attributes": []},
    {"id": 7, "name": "void-sky", "color": [0, 0, 0], "has_instances": False},
]
REGIONS = {
    1: 1,
    300: 300,
    70_000: 300,
    16_777_215: 7,
}  # region -> category; one, two and three bytes, and all ones


def regions() -> np.ndarray:
    """Region ids of a scene: nothing above, a road, two robots, and one pixel of the largest id there is."""
    ids = np.zeros(HW, np.uint32)
    ids[8:] = 1
    ids[10:14, 3:8], ids[10:14, 20:26] = 300, 70_000
    ids[19, 29] = 16_777_215
    return ids


def categories() -> np.ndarray:
    """What `regions` become, worked by hand: category ids, 0 where nobody drew."""
    ids = np.zeros(HW, np.uint32)
    ids[8:] = 1
    ids[10:14, 3:8] = ids[10:14, 20:26] = 300
    ids[19, 29] = 7
    return ids


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bitmap(ids: np.ndarray, *, alpha: int | None = 255) -> bytes:
    """The PNG of region ids: red holds the lowest byte; RGBA, or RGB where alpha is None."""
    height, width = ids.shape
    rows = bytearray()
    for row in ids.tolist():
        rows.append(0)  # no filter
        for region in row:
            rows += bytes([region & 255, region >> 8 & 255, region >> 16 & 255])
            rows += b"" if alpha is None else bytes([alpha])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if alpha is None else 6, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(rows))), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def photograph(path: Path, seed: int, *, hw: tuple[int, int] = HW, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def annotations(named: dict[int, int]) -> list[dict[str, Any]]:
    return [
        {"id": region, "track_id": region, "category_id": category, "attributes": {}}
        for region, category in named.items()
    ]


def label(url: str | None, named: dict[int, int], status: str = "LABELED") -> dict[str, Any]:
    return {
        "label_status": status,
        "attributes": {
            "format_version": "0.1",
            "annotations": annotations(named),
            "segmentation_bitmap": {"url": url},
            "image_attributes": {},
        },
    }


def sample(name: str, image: str, labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": f"uuid of {name}",
        "name": name,
        "metadata": {},
        "attributes": {"image": {"url": image}},
        "labels": labels,
    }


def write_segments(root: Path) -> Path:
    """Write a release, its images and its bitmaps below `root`; returns the JSON file.

    day1/a.jpg LABELED, b.jpg REVIEWED with nothing drawn, c.png VERIFIED; d.jpg PRELABELED, e.jpg without a label,
    f.jpg REJECTED. The labelset "predictions" has d.jpg alone.
    """
    names = ("day1/a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg", "f.jpg")
    for seed, name in enumerate(names):
        photograph(root / "images" / name, seed)
    (root / "bitmaps").mkdir()
    (root / "bitmaps" / "scene.png").write_bytes(bitmap(regions()))
    (root / "bitmaps" / "nothing.png").write_bytes(bitmap(np.zeros(HW, np.uint32)))
    scene = ("bitmaps/scene.png", REGIONS)
    ground_truth = {
        "day1/a.jpg": label(*scene),
        "b.jpg": label("bitmaps/nothing.png", {}, "REVIEWED"),
        "c.png": label(*scene, "VERIFIED"),
        "d.jpg": label(*scene, "PRELABELED"),
        "e.jpg": None,
        "f.jpg": label(*scene, "REJECTED"),
    }
    samples = [
        sample(
            name,
            f"images/{name}",
            {"ground-truth": ground_truth[name], "predictions": label(*scene) if name == "d.jpg" else None},
        )
        for name in names
    ]
    value = {
        "name": "v1.0",
        "description": "",
        "created_at": "2024-07-09 10:20:19.888887+00:00",
        "dataset": {
            "name": "crossings",
            "owner": "jane",
            "description": "Crossings, from a robot.",
            "task_type": "segmentation-bitmap",
            "task_attributes": {
                "format_version": "0.1",
                "categories": CATEGORIES,
                "image_attributes": [],
            },
            "labelsets": [
                {"name": "ground-truth", "description": ""},
                {"name": "predictions", "description": ""},
            ],
            "samples": samples,
        },
    }
    path = root / "crossings-v1.0.json"
    path.write_text(json.dumps(value))
    return path


def write_release_of(samples: Iterable[Sample], path: Path) -> Path:
    """Write a release of images with their masks: a region for each class that occurs, numbered beyond 16 bits."""
    path.parent.mkdir(parents=True)
    names, entries = SCENE_CLASSES.names, []
    for number, one in enumerate(samples):
        assert one.mask is not None
        Image.fromarray(one.image).save(path.parent / f"{number}.jpg")
        region_of = {int(i): 66_000 + 7 * number + int(i) for i in np.unique(one.mask)}
        ids = np.vectorize(region_of.get)(one.mask)
        ids[:2, :2] = 0  # a corner that nobody labelled
        (path.parent / f"{number}.png").write_bytes(bitmap(ids))
        named = {region: i + 1 for i, region in region_of.items()}
        entries.append(
            sample(f"{number}.jpg", f"{number}.jpg", {"ground-truth": label(f"{number}.png", named)})
        )
    categories = [{"id": i + 1, "name": name, "color": list(color), "has_instances": False}
                  for i, (name, color) in enumerate(zip(names, SCENE_CLASSES.colors, strict=True))]  # fmt: skip
    about = {"name": "robot", "owner": "user", "description": "", "task_type": "segmentation-bitmap"}
    about |= {"task_attributes": {"format_version": "0.1", "categories": categories}, "samples": entries}
    about |= {"labelsets": [{"name": "ground-truth", "description": ""}]}
    release = {
        "name": "v1.0",
        "description": "",
        "created_at": "2024-07-09 10:20:19.888887+00:00",
        "dataset": about,
    }
    path.write_text(json.dumps(release))
    return path


CLASS_OF = {0: 255, 1: 0, 300: 1, 7: 255}  # road, robot; void-sky and what nobody drew are ignored
TRUTH = np.vectorize(CLASS_OF.get)(categories())


def run(release: Path, **words: Any) -> Dataset:
    """Import a release beside its folder, and open it."""
    return open_dataset(importers.run("segments", release, release.parent.parent / "out", Wanted(**words)))


def change(release: Path, edit: Callable[[Any], object]) -> Path:
    """Edit the data set in a release."""
    value = json.loads(release.read_text())
    edit(value["dataset"])
    release.write_text(json.dumps(value))
    return release


def first(dataset: Any) -> Any:
    """The label of day1/a.jpg."""
    return dataset["samples"][0]["labels"]["ground-truth"]["attributes"]


def masks(data: Dataset) -> dict[str, np.ndarray]:
    """Class ids of every image, by name."""
    return {
        name: split.read_mask(place)
        for split in data.splits.values()
        for place, name in enumerate(split.names)
    }


def left_beside(release: Path) -> list[str]:
    """What lies beside the release's folder."""
    return sorted(path.name for path in release.parent.parent.iterdir())
