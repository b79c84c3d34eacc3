"""A made-up BDD100K in the folders and names of the real one: both sets of images and three kinds of masks."""

from pathlib import Path

import numpy as np
from PIL import Image

HW = (8, 12)
NAMES = {
    "train": ["0000f77c-6257be58", "0000f77c-6257be59"],
    "val": ["7d2f7975-e0c1c5a7"],
    "test": ["c0ffee00-00000001"],
}


def ids(highest: int, unknown: bool) -> np.ndarray:
    values = np.arange(HW[0] * HW[1]).reshape(HW) % (highest + 1)
    return np.where((values == 0) & unknown, 255, values).astype(np.uint8)


def write_bdd100k(root: Path) -> Path:
    """The release's folders: both sets of images and the three kinds of masks."""
    base = root / "bdd100k"
    for split, names in NAMES.items():
        for name in names:
            for images in ("10k", "100k"):
                path = base / "images" / images / split / f"{name}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng(
                    list(name.encode())
                )  # no two alike, or the doctor would find them
                Image.fromarray(rng.integers(0, 256, (*HW, 3), dtype=np.uint8)).save(path)
            if split != "test":
                for kind, mask in (
                    ("sem_seg/masks", ids(18, True)),
                    ("drivable/masks", ids(2, False)),
                    ("ins_seg/bitmasks", bitmask()),
                ):
                    path = base / "labels" / kind / split / f"{name}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(path)
    return root


def bitmask() -> np.ndarray:
    """Background, a car whose A is 0, an occluded and truncated bicycle, a crowd of pedestrians, an ignored bus."""
    mask = np.zeros((*HW, 4), np.uint8)
    mask[1] = (3, 0, 1, 0)  # instance 256, which Pillow shows as wholly transparent
    mask[2] = (8, 8 | 4, 0, 7)
    mask[3] = (1, 2, 0, 9)
    mask[4] = (5, 8 | 1, 0, 11)
    return mask
