"""Synthetic street scenes: drawn sidewalks with exact masks, for first steps, for tests, and where there is no data.

Ten classes under changing light, in perspective, with occlusion, cast shadows, texture and camera noise. Colours are
shared between classes on purpose (a red house and a red car; grey road, sidewalk, sky), so colour and position do not
give the classes away: logistic regression on RGB stays below 0.40 mIoU, on RGB, position and a 9x9 mean below 0.50.
A network that sees shapes learns them in minutes. They are drawings: what a network scores here says nothing about
photographs. `street/` does the drawing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Classes, Mask, Remap
from terrazzo.data.dataset import Split
from terrazzo.data.description import Description, write_description
from terrazzo.errors import UsageError
from terrazzo.images import refuse_existing, replace_folder, write_image, write_mask
from terrazzo.sample import Sample

SCENE_CLASSES = Classes(
    ("sky", "building", "road", "sidewalk", "vegetation", "car", "person", "pole", "bicycle", "obstacle"),
    (
        (96, 160, 220),
        (120, 104, 96),
        (92, 72, 132),
        (226, 110, 196),
        (104, 158, 62),
        (28, 56, 178),
        (222, 40, 64),
        (238, 222, 92),
        (0, 190, 190),
        (246, 138, 30),
    ),
)
VAL_FIRST = 1_000_000  # scenes of this index and above are held out: no count of training scenes reaches them
_SMALLEST, _LARGEST = (
    16,
    1 << 14,
)  # pixels per side: below, nothing can be made out; above, Pillow's canvas is too wide
_SAMPLED_TWICE = 45_000  # pixels: images up to 180x250 are drawn at twice their size, for smooth edges


def scene(index: int, *, seed: int = 0, size_hw: tuple[int, int] = (128, 192)) -> Sample:
    """Return the scene `index` of the world `seed`: image (H, W, 3) uint8 RGB, mask (H, W) uint8.

    The same (index, seed, size) gives the same scene. About 13 ms at 128x128, 33 ms at 360x480, on one core.
    """
    _check(size_hw, index, seed)
    image, mask = _draw(index, seed, (int(size_hw[0]), int(size_hw[1])))
    return Sample(image, mask, _name(index))


def scenes(count: int, *, seed: int = 0, size_hw: tuple[int, int] = (128, 192), first: int = 0) -> Split:
    """Return a split of `count` scenes, from index `first` on, each drawn when it is read; nothing is written.

    Held-out scenes: `first=scenes.VAL_FIRST`.
    """
    _check(size_hw, first, seed)
    if count < 1:
        raise UsageError(f"{count} scenes cannot be drawn.", expected="a count of at least 1")
    records = SceneRecords(first, count, seed, (int(size_hw[0]), int(size_hw[1])))
    identity = Remap.identity(len(SCENE_CLASSES))
    return Split("scenes", records, classes=SCENE_CLASSES, remap=identity, channels=3, dtype="uint8")


def write_scenes(
    out: Path | str, *, train: int = 200, val: int = 50, size_hw: tuple[int, int] = (128, 192), seed: int = 0
) -> Path:
    """Write a data set of scenes as a folder (train and val), whole or not at all, and return it.

    An existing `out` that holds something is refused: ExistingOutputError.
    """
    out = Path(out)
    refuse_existing(out)
    with replace_folder(out) as folder:
        for name, count, first in (("train", train, 0), ("val", val, VAL_FIRST)):
            (folder / name / "images").mkdir(parents=True)
            (folder / name / "masks").mkdir()
            for sample in scenes(count, seed=seed, size_hw=size_hw, first=first):
                assert sample.mask is not None
                path = folder / name / "images" / f"{sample.name}.png"
                write_image(path, sample.image, durable=False)
                path = folder / name / "masks" / path.name
                write_mask(path, sample.mask, SCENE_CLASSES.palette, durable=False)
        write_description(folder, _describe(train, val, size_hw, seed))
    return out


@dataclass(frozen=True)
class SceneRecords:
    """Scenes as `Split` reads them: named, and drawn on demand."""

    first: int
    """Index of the first scene."""
    count: int
    """How many."""
    seed: int
    """Of the world they are taken from."""
    image_hw: tuple[int, int]
    """(height, width) of every scene."""

    @property
    def names(self) -> tuple[str, ...]:
        """scene_000000, scene_000001, …"""
        return tuple(_name(self.first + i) for i in range(self.count))

    @property
    def has_masks(self) -> bool:
        """Always."""
        return True

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, 3) uint8."""
        assert channels in (None, 3)
        return _draw(self.first + index, self.seed, self.image_hw)[0].copy()

    def mask(self, index: int) -> NDArray[Any]:
        """Return the mask (H, W) uint8."""
        return _draw(self.first + index, self.seed, self.image_hw)[1].copy()

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width)."""
        return self.image_hw

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return what names a scene to a person."""
        return f"{'mask of ' if mask else ''}{_name(self.first + index)} (seed {self.seed})"

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return one hash per scene: of what it is drawn from, and of this version of the drawing."""
        import hashlib

        about = f"terrazzo scenes 1 seed {self.seed} size {self.image_hw}"
        return [hashlib.sha256(f"{about} {self.first + i}".encode()).hexdigest() for i in indices]


@lru_cache(maxsize=4)  # a split reads the image, then the mask
def _draw(
    index: int, seed: int, size_hw: tuple[int, int], *, textured: bool = True
) -> tuple[NDArray[np.uint8], Mask]:
    """Draw a scene: image and mask; untextured, every part has one colour and the sensor no noise."""
    from terrazzo.data.street.canvas import Canvas
    from terrazzo.data.street.dice import Dice
    from terrazzo.data.street.layout import draw_street, lay_out, place_camera
    from terrazzo.data.street.light import draw_light
    from terrazzo.data.street.shading import shade

    dice = Dice(seed, index)
    street, eye = lay_out(dice)
    light = draw_light(dice)
    camera = place_camera(dice, size_hw, eye)
    canvas = Canvas(camera, samples=2 if size_hw[0] * size_hw[1] <= _SAMPLED_TWICE else 1)
    draw_street(canvas, dice, light, street)
    image = shade(canvas, light, np.random.default_rng([seed, index, 1]), textured=textured)
    return image, canvas.mask()


def _name(index: int) -> str:
    return f"scene_{index:06d}"


def _check(size_hw: tuple[int, int], index: int, seed: int) -> None:
    if len(size_hw) != 2 or not all(_SMALLEST <= side <= _LARGEST for side in size_hw):
        raise UsageError(
            f"Scenes of size {tuple(size_hw)} cannot be drawn.",
            expected=f"(height, width), each {_SMALLEST} to {_LARGEST} pixels",
        )
    if index < 0 or seed < 0:
        raise UsageError(f"Scene {index} of seed {seed} does not exist.", expected="numbers from 0 on")


def _describe(train: int, val: int, size_hw: tuple[int, int], seed: int) -> Description:
    return Description(
        SCENE_CLASSES,
        name="street scenes",
        license="CC0-1.0",
        source="drawn by terrazzo: synthetic, no photographs",
        channels=3,
        dtype="uint8",
        extra={"scenes": {"seed": seed, "train": train, "val": val, "size_hw": list(size_hw)}},
    )
