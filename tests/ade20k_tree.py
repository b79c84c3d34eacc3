"""A made-up ADE20K in the folders and names of the real ones: the benchmark's, and the full release's."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from terrazzo.data.importers import ade20k

HW = (10, 16)
FIRST = "ADE_train_00000001", "ADE_train_00000002", "ADE_val_00000001"
FULL = "ADE20K_2021_17_01/images/ADE"


def mask(number: int) -> np.ndarray:
    """All of 0-150, beginning at another one in each image."""
    return ((np.arange(HW[0] * HW[1]) + number) % 151).reshape(HW).astype(np.uint8)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.stem.encode()))  # no two alike, or the doctor would find them
    Image.fromarray(rng.integers(0, 256, (*HW, 3), dtype=np.uint8)).save(path)


def write_benchmark(root: Path) -> Path:
    """The benchmark's folders with 2 + 1 images, its list of classes, and an image of test."""
    base = root / "ADEChallengeData2016"
    for number, name in enumerate(FIRST):
        split = "validation" if "val" in name else "training"
        write_image(base / "images" / split / f"{name}.jpg")
        (base / "annotations" / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask(number)).save(base / "annotations" / split / f"{name}.png")
    rows = [f"{number} \t0.1\t7\t7\t{name}, synonym \n" for number, name in enumerate(ade20k.NAMES, start=1)]
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    write_image(root / "release_test" / "testing" / "ADE_test_00000001.jpg")
    return root


def write_full(root: Path) -> Path:
    """The full release: street/ of train and val; R, G hold the class, B the instance; parts are in the JSON too."""
    objects = [
        (401, "car, auto", 0),
        (2855, "tree", 0),
        (57, "window", 1),
        (58, "window", 0),
        (59, "window", 0),
    ]
    for split, name in (("training", "ADE_train_00016869"), ("validation", "ADE_val_00000001")):
        base = root / FULL / split / "urban" / "street"
        write_image(base / f"{name}.jpg")
        ids = np.zeros(HW, int)
        ids[2:5], ids[5:7], ids[7:] = 401, 2855, 59
        coded = np.stack([ids // 256 * 10, ids % 256, np.arange(ids.size).reshape(HW) % 256], axis=-1)
        Image.fromarray(coded.astype(np.uint8)).save(base / f"{name}_seg.png")
        Image.fromarray(coded.astype(np.uint8)).save(base / f"{name}_parts_1.png")
        listed = [{"name_ndx": n, "name": name, "parts": {"part_level": level}} for n, name, level in objects]
        (base / f"{name}.json").write_text(json.dumps({"annotation": {"object": listed}}))
    return root
