"""A made-up COCO in the folders, names and JSON of the real one; run lengths are written by pycocotools."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as reference

HW = (20, 30)  # not square, so that rows taken for columns are seen
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
SETS = {"train2017": ("000000000009", "000000000025", "000000000030"), "val2017": ("000000000139",)}


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[top:bottom, left:right] = True
    return mask


def polygon(top: int, left: int, bottom: int, right: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def packed(mask: np.ndarray) -> dict[str, Any]:
    """The compressed form."""
    runs = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def unpacked(mask: np.ndarray) -> dict[str, Any]:
    """The plain form: column by column, zeros first."""
    flat = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()}


def scene() -> tuple[list[dict[str, Any]], np.ndarray]:
    """The annotations of an image, listed so that painting in their order would be wrong, and its category ids."""
    crowd = box(1, 1, 8, 12)
    objects = [
        {"category_id": 90, "segmentation": [polygon(6, 8, 8, 10)], "area": 4, "iscrowd": 0},
        {
            "category_id": 1,
            "segmentation": [polygon(4, 4, 18, 14), polygon(2, 20, 6, 26)],
            "area": 1,
            "iscrowd": 0,
        },
        {"category_id": 18, "segmentation": packed(box(10, 10, 16, 28)), "area": 9e9, "iscrowd": 0},
        {"category_id": 1, "segmentation": unpacked(crowd), "area": 77, "iscrowd": 1},
    ]
    ids = np.zeros(HW, np.uint8)
    ids[crowd] = 255
    ids[4:18, 4:14] = 1
    ids[2:6, 20:26] = 1
    ids[10:16, 10:28] = 18  # 108 pixels, the person's 164
    ids[6:8, 8:10] = 90
    return objects, ids


def write_photographs(root: Path) -> list[dict[str, Any]]:
    listed = []
    for place, names in SETS.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            rng = np.random.default_rng(int(name))
            Image.fromarray(rng.integers(0, 256, (*HW, 3), dtype=np.uint8)).save(root / place / f"{name}.jpg")
            listed.append(
                {"id": int(name), "file_name": f"{name}.jpg", "height": HW[0], "width": HW[1], "set": place}
            )
    return listed


def write_instances(root: Path) -> Path:
    """Every first image of a set has the scene; the others are negatives."""
    listed = write_photographs(root)
    (root / "annotations").mkdir(exist_ok=True)
    for place, names in SETS.items():
        objects = [{"id": i, "image_id": int(names[0]), **one} for i, one in enumerate(scene()[0])]
        value = {"images": [one for one in listed if one["set"] == place], "annotations": objects}
        value["categories"] = CATEGORIES  # type: ignore[assignment]
        (root / "annotations" / f"instances_{place}.json").write_text(json.dumps(value))
    return root


SEGMENT_IDS = {3: 1, 70_000: 18, 300: 90}  # segment -> category; beyond 16 bits, as they are


def write_panoptic(root: Path) -> Path:
    """A person, a dog, a crowd of toothbrushes, and void."""
    listed = write_photographs(root)
    for place, names in SETS.items():
        (root / "annotations" / f"panoptic_{place}").mkdir(parents=True, exist_ok=True)
        segments = np.zeros(HW, np.int64)
        segments[2:9], segments[9:12], segments[12:15] = 3, 70_000, 300
        colors = np.stack([segments % 256, segments // 256 % 256, segments // 65_536], axis=-1).astype(
            np.uint8
        )
        info = [{"id": s, "category_id": c, "iscrowd": int(c == 90)} for s, c in SEGMENT_IDS.items()]
        found = []
        for name in names:
            Image.fromarray(colors).save(root / "annotations" / f"panoptic_{place}" / f"{name}.png")
            found.append({"image_id": int(name), "file_name": f"{name}.png", "segments_info": info})
        images = [one for one in listed if one["set"] == place]
        value = {"images": images, "annotations": found, "categories": CATEGORIES}
        (root / "annotations" / f"panoptic_{place}.json").write_text(json.dumps(value))
    return root


def write_stuff(root: Path) -> Path:
    """The maps of stuff and things beside the photographs, as their zip unpacks."""
    write_photographs(root)
    for place, names in SETS.items():
        for name in names:
            ids = np.full(HW, 181, np.uint8)  # wood, 182
            ids[:5], ids[5:7], ids[7] = 0, 255, 12  # person, nothing, stop sign
            Image.fromarray(ids).save(root / place / f"{name}.png")
    return root
