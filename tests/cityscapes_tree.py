"""A made-up Cityscapes in the folders and names of the real one: rectangles for objects, drawn here by slicing arrays.

Every scene has the things a reader of it may get wrong: a group, a deleted object, a license plate, what lies on what.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CITIES = {"train": ("aachen", "bochum"), "val": ("frankfurt",), "test": ("berlin",)}
ROAD, BUILDING, SKY, PERSON, CAR, EGO = 7, 11, 23, 24, 26, 1  # raw ids, of cityscapesscripts' labels.py
COLORS = {0: (0, 0, 0), ROAD: (90, 90, 95), BUILDING: (120, 80, 60), SKY: (120, 170, 230), PERSON: (220, 60, 60),
          CAR: (30, 40, 200), EGO: (20, 20, 20)}  # fmt: skip
NAMES = {
    ROAD: "road",
    BUILDING: "building",
    SKY: "sky",
    PERSON: "person",
    CAR: "cargroup",
    EGO: "ego vehicle",
}
Rectangle = tuple[int, int, int, int, int]  # raw id, top, left, bottom, right, the last two included


def rectangles(number: int, size_hw: tuple[int, int]) -> list[Rectangle]:
    """The objects of a scene, from back to front."""
    height, width = size_hw
    rng = np.random.default_rng(number)
    left, walker = int(rng.integers(2, width // 2)), int(rng.integers(0, width - 6))
    horizon = height // 2
    return [
        (SKY, 0, 0, horizon - 1, width - 1),
        (BUILDING, height // 6, 0, horizon - 1, width // 3 + left // 2),
        (ROAD, horizon, 0, height - 1, width - 1),
        (CAR, horizon - 4, left, horizon + 8, left + width // 4),
        (PERSON, horizon - 8, walker, horizon + 6, walker + 4),
        (EGO, height - 3, 0, height - 1, width - 1),
    ]


def labels(number: int, size_hw: tuple[int, int]) -> np.ndarray:
    """The raw ids of a scene, (H, W) uint8."""
    mask = np.zeros(size_hw, np.uint8)
    for raw, top, left, bottom, right in rectangles(number, size_hw):
        mask[top : bottom + 1, left : right + 1] = raw
    return mask


def polygons(number: int, size_hw: tuple[int, int]) -> dict[str, object]:
    """The same scene as a polygons.json."""
    objects = [
        {"label": NAMES[raw], "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]}
        for raw, top, left, bottom, right in rectangles(number, size_hw)
    ]
    objects.append({"label": "license plate", "polygon": [[2, 2], [9, 2], [9, 9], [2, 9]]})
    objects.append({"label": "train", "deleted": 1, "polygon": [[2, 2], [9, 2], [9, 9], [2, 9]]})
    return {"imgHeight": size_hw[0], "imgWidth": size_hw[1], "objects": objects}


def write_cityscapes(
    root: Path,
    *,
    counts: dict[str, int] | None = None,
    size_hw: tuple[int, int] = (48, 96),
    form: str = "labelIds",
    kind: str = "gtFine",
) -> Path:
    """Write `counts` scenes of each split, shared out among its cities, as "labelIds" or "polygons" of gtFine or …"""
    for split, count in (counts or {"train": 4, "val": 2, "test": 1}).items():
        for number in range(count):
            city = CITIES[split][number % len(CITIES[split])]
            stem = f"{city}_{number:06d}_000019"
            image = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            seed = number + 100 * list(CITIES).index(split)
            write_image(image, labels(seed, size_hw), seed)
            target = root / kind / split / city / f"{stem}_{kind}_{form}"
            target.parent.mkdir(parents=True, exist_ok=True)
            empty = split == "test"  # as published: dummies
            if form == "polygons":
                scene = polygons(seed, size_hw)
                value = {**scene, "objects": []} if empty else scene
                target.with_suffix(".json").write_text(json.dumps(value))
            else:
                mask = labels(seed, size_hw)
                Image.fromarray(np.zeros_like(mask) if empty else mask).save(target.with_suffix(".png"))
    return root


def write_image(path: Path, mask: np.ndarray, seed: int) -> None:
    """A photograph of the scene: each class in its colour, with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.zeros((256, 3), np.uint8)
    table[list(COLORS)] = list(COLORS.values())
    noise = np.random.default_rng(seed).integers(0, 25, (*mask.shape, 3)).astype(np.uint8)
    Image.fromarray(table[mask] + noise).save(path)


def zip_up(root: Path, folder: str, name: str) -> Path:
    """Pack root/folder into root/NAME.zip, as it is published, with a licence beside, and remove the folder."""
    import shutil

    with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("license.txt", "for research")
        for path in sorted((root / folder).rglob("*")):
            archive.write(path, path.relative_to(root).as_posix())
    shutil.rmtree(root / folder)
    return root / name
