"""A made-up PASCAL VOC in the folders, names and file forms of the real one, and SBD's Matlab files beside it."""

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = {"train": ("2007_000032", "2007_000039"), "val": ("2007_000033",)}
SBD_NAMES = (
    "2007_000032",
    "2007_000033",
    "2008_000002",
)  # one of train, one of val, one that VOC did not label
HW = (24, 32)


def palette() -> list[int]:
    """The 256 colours of VOC's PNGs, as its development kit's VOClabelcolormap.m spreads the bits of an id."""
    colors = []
    for raw in range(256):
        rest, color = raw, [0, 0, 0]
        for shift in range(7, -1, -1):
            for channel in range(3):
                color[channel] |= (rest >> channel & 1) << shift
            rest >>= 3
        colors += color
    return colors


def mask(number: int) -> np.ndarray:
    """Background, a person (15) with a border (255) around it, and a car (7)."""
    ids = np.zeros(HW, np.uint8)
    ids[4:20, 4 + number : 16 + number] = 255
    ids[5:19, 5 + number : 15 + number] = 15
    ids[18:23, 22:30] = 7
    return ids


def write_voc(root: Path, *, year: str = "VOC2012") -> Path:
    """Write 2 + 1 photographs with palette masks, and one more photograph that no list names."""
    base = root / "VOCdevkit" / year
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name in (*NAMES["train"], *NAMES["val"], "2008_000002"):
        Image.fromarray(rng.integers(0, 256, (*HW, 3), dtype=np.uint8)).save(
            base / "JPEGImages" / f"{name}.jpg"
        )
    for split, names in NAMES.items():
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(
            "".join(f"{name}\n" for name in names)
        )
        for number, name in enumerate(names):
            image = Image.fromarray(mask(number), mode="P")
            image.putpalette(palette())
            image.save(base / "SegmentationClass" / f"{name}.png")
    (base / "ImageSets" / "Segmentation" / "trainval.txt").write_text(
        "\n".join(sum(NAMES.values(), ())) + "\n"
    )
    return root


def write_sbd(root: Path) -> Path:
    """Write benchmark_RELEASE beside VOCdevkit, its masks by scipy; they have no border."""
    from scipy.io import savemat

    folder = root / "benchmark_RELEASE" / "dataset" / "cls"
    folder.mkdir(parents=True)
    for name in SBD_NAMES:
        ids = sbd_mask()
        truth = {"Segmentation": ids, "CategoriesPresent": np.unique(ids[ids > 0])}
        savemat(folder / f"{name}.mat", {"GTcls": truth}, do_compression=True)
    return root


def sbd_mask() -> np.ndarray:
    """A cat (8) on the background."""
    ids = np.zeros(HW, np.uint8)
    ids[2:12, 3:20] = 8
    return ids
