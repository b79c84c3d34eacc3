"""Data as people have it: drives with raw ids, photographs painted in colours, cracks in white on black."""

from pathlib import Path

import numpy as np
from PIL import Image

HW = (24, 32)
RAW = np.array([0, 7, 8, 24, 26, 27], np.uint8)  # unlabeled, road, sidewalk, person, car, truck
COLORS = ((128, 64, 128), (107, 142, 35), (70, 130, 180), (0, 0, 0))
TABLE = "128 64 128\tfield\n107 142 35\ttree\n70 130 180\tsky\n0 0 0\tvoid\n"


def areas(number: int, kinds: int) -> np.ndarray:
    """(H, W) of 0 … kinds - 1, all of them, in blocks of 8 pixels."""
    small = np.random.default_rng(number).permutation(np.arange(12) % kinds).reshape(3, 4)
    return np.kron(small, np.ones((8, 8), int)).astype(np.uint8)


def write_pair(photo: Path, label: Path, mask: np.ndarray) -> None:
    """A photograph, brighter where the mask's values are higher, and the mask."""
    for path in (photo, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    grey = mask if mask.ndim == 2 else mask[..., 1]
    Image.fromarray(np.stack([grey // 2 + 40, grey // 3 + 60, 255 - grey], axis=-1)).save(photo, quality=95)
    Image.fromarray(mask).save(label)


def write_drives(root: Path) -> Path:
    """train/frames/sun/001_frame.jpg with train/labels/sun/001_label.png, raw ids; two folders have a 001."""
    for split, count in (("train", 3), ("val", 1)):
        for weather in ("rain", "sun"):
            for number in range(1, count + 1):
                photo = root / split / "frames" / weather / f"{number:03d}_frame.jpg"
                label = root / split / "labels" / weather / f"{number:03d}_label.png"
                write_pair(photo, label, RAW[areas(10 * count + number + len(weather), len(RAW))])
    return root


def write_paintings(root: Path) -> Path:
    """photos/1.jpg with painted/1_mask.png, RGB, and colors.txt; no splits."""
    for number in range(1, 6):
        colored = np.array(COLORS, np.uint8)[areas(number, len(COLORS))]
        write_pair(root / "photos" / f"{number}.jpg", root / "painted" / f"{number}_mask.png", colored)
    (root / "colors.txt").write_text(TABLE)
    return root


def write_cracks(root: Path) -> Path:
    """images/1.jpg with masks/1.png, 0 and 255; the last mask is cut off."""
    for number in range(1, 7):
        mask = np.uint8(255) * areas(number, 2)
        write_pair(root / "images" / f"{number}.jpg", root / "masks" / f"{number}.png", mask)
    last = root / "masks" / "6.png"
    last.write_bytes(last.read_bytes()[:-20])
    return root
