"""Camera and canvas. The canvas keeps, for every pixel, the number of the part that is seen there.

Things are drawn far to near, so the last part drawn at a pixel is the one in front: occlusion for free. A part is a row
in a table (class, colour, depth, material, parameters of its texture); colours are computed once, afterwards, for the
pixels that are seen. Pillow fills the polygons, on a grid `fine` times finer than the image, because its vertices are
whole numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[
    np.float64
]  # (N, 2) image points (u right, v down) or (N, 3) world points (x right, y up, z away), metres
Rgb = tuple[float, float, float]  # linear light, 0-1

SKY, FLAT, GROUND, WALL, LEAVES = range(5)  # materials: how a part's pixels get their texture
NUM_PARAMETERS = 7  # of a material, the widest is WALL
NEAR = 0.35  # metres; nothing nearer than this is drawn

# the ten classes, in id order
SKY_ID, BUILDING, ROAD, SIDEWALK, VEGETATION, CAR, PERSON, POLE, BICYCLE, OBSTACLE = range(10)


@dataclass(frozen=True)
class Camera:
    """A pinhole above the street, looking along z; the street may bend away to one side."""

    size_hw: tuple[int, int]
    focal: float
    """In pixels."""
    x0: float
    """Column of the vanishing point."""
    y0: float
    """Row of the horizon."""
    height: float
    """Metres over the ground."""
    bend: float
    """1 / radius of the street, in 1/m; positive bends right."""

    def project(self, world_N3: Points) -> Points:
        """Return image points (N, 2) of street points (N, 3); x is measured across the street, so it bends too."""
        z = world_N3[:, 2]
        scale = self.focal / z
        image_N2 = np.empty((len(z), 2))
        image_N2[:, 0] = self.x0 + scale * (world_N3[:, 0] + 0.5 * self.bend * z * z)
        image_N2[:, 1] = self.y0 + scale * (self.height - world_N3[:, 1])
        return image_N2

    def foot(self, x: float, z: float) -> tuple[float, float]:
        """Return the image point of one place on the ground."""
        return self.column(x, z), self.y0 + self.focal * self.height / z

    def column(self, x: float, z: float) -> float:
        """Return the image column of a point `x` across and `z` away."""
        return self.x0 + self.focal * (x + 0.5 * self.bend * z * z) / z

    def rows_per_metre(self, z: float) -> float:
        """Return how many pixels one metre covers at depth `z`."""
        return self.focal / z


class Canvas:
    """The image of part numbers and the table of parts; part 0 is the sky."""

    def __init__(self, camera: Camera, *, samples: int) -> None:
        self.camera = camera
        self.samples = samples
        """Colour samples per pixel and axis: 2 smooths the edges of small images."""
        self.fine = 2 * samples
        height, width = camera.size_hw
        self._image = Image.new("I", (width * self.fine, height * self.fine), 0)
        self._draw = ImageDraw.Draw(self._image)
        size = (width * samples, height * samples)
        self._sun, self._dark = Image.new("L", size, 0), Image.new("L", size, 0)
        self._shade = self._sun
        self._draw_sun, self._draw_dark = ImageDraw.Draw(self._sun), ImageDraw.Draw(self._dark)
        self._rows: list[tuple[float, ...]] = []
        self.facades: list[tuple[float, ...]] = []
        """Texture parameters of walls; the last parameter of a WALL part is an index into these."""
        self.part(SKY_ID, (0.0, 0.0, 0.0), 1e6, SKY)

    def part(
        self, class_id: int, color: Rgb, depth: float, material: int = FLAT, parameters: Sequence[float] = ()
    ) -> int:
        """Add a part to the table and return its number, to be given to `fill`."""
        padding = (0.0,) * (NUM_PARAMETERS - len(parameters))
        self._rows.append((class_id, material, *color, depth, *parameters, *padding))
        return len(self._rows) - 1

    def fill(self, image_N2: Points, part: int) -> None:
        """Fill a polygon of image points with a part."""
        self.fill_list((image_N2 * self.fine).ravel().tolist(), part)

    def fill_list(self, fine: list[float], part: int) -> None:
        """Fill a polygon u, v, u, v, … given on the fine grid: image points times `fine`."""
        self._draw.polygon(fine, fill=part)

    def fill_world(self, world_N3: Points, part: int) -> None:
        """Fill a polygon of street points with a part; what lies behind the camera is cut off."""
        seen = clip_near(world_N3)
        if len(seen) > 2:
            self.fill(self.camera.project(seen), part)

    def see_through(self, points: Points, class_id: int, *, color: Rgb, amount: float) -> None:
        """Give a polygon (N, 2) on the fine grid to `class_id`; what is behind stays visible, veiled by `color`."""
        (low_u, low_v), (high_u, high_v) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        width, height = self._image.size
        left, top = max(math.floor(low_u), 0), max(math.floor(low_v), 0)
        right, bottom = min(math.ceil(high_u) + 1, width), min(math.ceil(high_v) + 1, height)
        if right <= left or bottom <= top:
            return
        box = (left, top, right, bottom)
        stencil = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
        ImageDraw.Draw(stencil).polygon((points - (left, top)).ravel().tolist(), fill=1)
        inside = np.asarray(stencil) > 0
        seen = np.array(self._image.crop(box))
        for behind in np.unique(seen[inside]).tolist():
            _, material, *rest = self._rows[behind]
            veiled = [(1 - amount) * c + amount * k for c, k in zip(rest[:3], color, strict=True)]
            self._rows.append((class_id, material, *veiled, *rest[3:]))
            seen[inside & (seen == behind)] = len(self._rows) - 1
        self._image.paste(Image.fromarray(seen), box[:2])

    def cast(self, ground: Sequence[tuple[float, float]]) -> None:
        """Keep the sun from a polygon on the ground, given as (x, z)."""
        seen = self._project_ground(ground)
        if len(seen) > 4:
            self._draw_sun.polygon(seen, fill=255)

    def darken(self, ground: Sequence[tuple[float, float]], amount: float) -> None:
        """Keep a share of the sky's light from a polygon on the ground, given as (x, z), as under a car."""
        seen = self._project_ground(ground)
        if len(seen) > 4:
            self._draw_dark.polygon(seen, fill=int(255 * amount))

    def is_shaded(self, x: float, z: float) -> bool:
        """True where the ground at (x, z) lies in the shadow of what had been cast when `keep_shade` was called."""
        u, v = self.camera.foot(x, z)
        column, row = int(u * self.samples), int(v * self.samples)
        width, height = self._shade.size
        return 0 <= column < width and 0 <= row < height and bool(self._shade.getpixel((column, row)))

    def keep_shade(self) -> None:
        """Keep the shadows cast so far, those of houses, as the ones that things stand in."""
        self._shade = self._sun.copy()

    def _project_ground(self, ground: Sequence[tuple[float, float]]) -> list[float]:
        """Image points u, v, u, v, … on the grid of colour samples, what lies behind the camera cut off."""
        camera, n = self.camera, self.samples
        flat: list[float] = []
        before_x, before_z = ground[-1]
        for x, z in ground:
            ends = [(x, z)] if z >= NEAR else []
            if (z >= NEAR) != (before_z >= NEAR):
                share = (NEAR - before_z) / (z - before_z)
                ends.insert(0, (before_x + share * (x - before_x), NEAR))
            for end_x, end_z in ends:
                scale = n * camera.focal / end_z
                flat.append(n * camera.x0 + scale * (end_x + 0.5 * camera.bend * end_z * end_z))
                flat.append(n * camera.y0 + scale * camera.height)
            before_x, before_z = x, z
        return flat

    def shadow_images(self) -> tuple[Image.Image, Image.Image]:
        """Return (sun kept off, sky kept off), mode L, at the size of the colour samples."""
        return self._sun, self._dark

    def table(self) -> NDArray[np.float32]:
        """Return the table of parts: class, material, r, g, b, depth, parameters."""
        return np.array(self._rows, dtype=np.float32)

    def parts(self) -> NDArray[np.int32]:
        """Return the part seen at every colour sample."""
        return np.asarray(self._image)[1::2, 1::2]

    def mask(self) -> NDArray[np.uint8]:
        """Return the class (H, W) seen at the middle of every pixel."""
        half = self.fine // 2
        classes = np.array([row[0] for row in self._rows], dtype=np.uint8)
        return classes[np.asarray(self._image)[half :: self.fine, half :: self.fine]]


def clip_near(world_N3: Points, near: float = NEAR) -> Points:
    """Cut a polygon of world points at the near plane; returns (M, 3), M = 0 when all of it lies behind."""
    if min(world_N3[:, 2].tolist()) >= near:
        return world_N3
    kept: list[Any] = []
    for i in range(len(world_N3)):
        here, before = world_N3[i], world_N3[i - 1]
        if (here[2] >= near) != (before[2] >= near):
            kept.append(before + (here - before) * ((near - before[2]) / (here[2] - before[2])))
        if here[2] >= near:
            kept.append(here)
    return np.array(kept).reshape(-1, 3)


def on_ground(x_N: Points, z_N: Points) -> Points:
    """Return the world points (N, 3) of places on the ground."""
    world_N3 = np.zeros((len(x_N), 3))
    world_N3[:, 0] = x_N
    world_N3[:, 2] = z_N
    return world_N3


def circle(count: int) -> Points:
    """Return `count` points (count, 2) of the unit circle."""
    angle = np.arange(count) * (2 * math.pi / count)
    return np.stack((np.cos(angle), np.sin(angle)), axis=1)
