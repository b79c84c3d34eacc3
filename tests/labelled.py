"""A labelling project made for a test: three images of noise, larger than a tile, and three categories."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from terrazzo.project import Project, open_project

HW = (530, 520)  # two by two tiles, three of them narrow
NAMES = ("photos/a.png", "photos/b.png", "photos/c.png")


def write_photograph(path: Path, seed: int, *, hw: tuple[int, int] = HW, orientation: int = 1) -> Path:
    """Write an image of large blocks of colour, small on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(
        0, 256, (-(-hw[0] // 32), -(-hw[1] // 32), 3), dtype=np.uint8
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.kron(blocks, np.ones((32, 32, 1), np.uint8))[: hw[0], : hw[1]]
    Image.fromarray(pixels).save(path, exif=exif, **({"compress_level": 1} if path.suffix == ".png" else {}))
    return path


def make_project(
    folder: Path, *, hw: tuple[int, int] = HW, names: tuple[str, ...] = NAMES, **words: Any
) -> Project:
    """Make folder/street.db, its images, categories road (1), car (2, instances), unclear (3, ignored)."""
    for seed, name in enumerate(names):
        write_photograph(folder / name, seed, hw=hw)
    project = open_project(folder / "street.db", **words)
    project.add_folder(folder / "photos")
    project.categories.add("road", color=(128, 64, 128))
    project.categories.add("car", color=(0, 0, 142), has_instances=True)
    project.categories.add("unclear", is_ignore=True)
    return project


def scene(hw: tuple[int, int] = HW) -> np.ndarray:
    """Category ids: nothing above, road below, a car on it that crosses a tile's border, a corner unclear."""
    mask = np.zeros(hw, np.uint16)
    mask[hw[0] // 2 :] = 1
    mask[hw[0] // 2 + 4 : hw[0] // 2 + 12, hw[1] // 4 : hw[1] // 4 + 9] = 2
    mask[-6:, -8:] = 3
    return mask
