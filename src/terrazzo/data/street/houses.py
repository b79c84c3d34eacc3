"""What closes the street: houses with walls, roofs and windows, low walls and fences, and the skyline at its far end.

A house stands along the street on [near, far]; its street wall is a straight plane between its two (bent) corners, and
its front wall faces the camera. Walls keep their plane, so shading can ask which point of the wall a pixel shows.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from terrazzo.data.street.canvas import BUILDING, FLAT, LEAVES, NEAR, VEGETATION, WALL, Canvas, Points, Rgb
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.light import Light

# masonry: brick reds, sands, ochres, greys, whites, and the odd painted house
MASONRY: tuple[Rgb, ...] = (
    (0.34, 0.11, 0.07),
    (0.26, 0.10, 0.07),
    (0.42, 0.20, 0.12),
    (0.50, 0.38, 0.22),
    (0.58, 0.47, 0.30),
    (0.30, 0.30, 0.30),
    (0.18, 0.19, 0.20),
    (0.42, 0.42, 0.44),
    (0.66, 0.65, 0.62),
    (0.72, 0.70, 0.66),
    (0.22, 0.30, 0.36),
    (0.30, 0.38, 0.28),
    (0.58, 0.34, 0.26),
)
ROOFS: tuple[Rgb, ...] = (
    (0.30, 0.10, 0.06),
    (0.20, 0.08, 0.06),
    (0.09, 0.09, 0.10),
    (0.16, 0.15, 0.15),
    (0.24, 0.16, 0.11),
)


@dataclass(frozen=True)
class House:
    """A building on one side of the street."""

    side: int
    """-1 left, 1 right."""
    x: float
    """Where its street wall stands."""
    near: float
    far: float
    height: float
    depth: float
    """How far it reaches away from the street."""
    roof: float
    """Height of a pitched roof over the eaves; 0 is flat."""
    color: Rgb
    roof_color: Rgb
    has_windows: bool
    is_brick: bool


class Facade(NamedTuple):
    """The texture of a house's walls, in metres; `shading` reads one per pixel, so the fields are arrays there."""

    bay: Any
    """From one window's middle to the next."""
    storey: Any
    first: Any
    """Where the lowest row of windows begins."""
    wide: Any
    """Half a window, as a share of a bay; below 0 there are none."""
    tall: Any
    """Half a window, as a share of a storey."""
    frame: Any
    """As a share of a bay."""
    frame_level: Any
    """Brightness of frames against the wall."""
    brick: Any
    """Strength of the pattern of bricks; 0 is plaster."""
    top: Any
    """Height of the eaves."""
    shop: Any
    """1 where the ground floor is shop windows."""
    pane: Any
    """Brightness of a room seen through glass."""
    mirror: Any
    """How much sky a pane reflects."""
    accident: Any
    """Where in the noise this house's accidents begin."""
    dirt: Any


def draw_facade(dice: Dice, house: House) -> Facade:
    """Choose what the walls of a house look like."""
    shop = house.has_windows and dice.chance(0.4)
    return Facade(
        bay=dice(1.5, 3.2),
        storey=dice(2.7, 3.5),
        first=dice(3.0, 4.0) if shop else dice(0.4, 1.0),
        wide=dice(0.24, 0.36) if house.has_windows else -1.0,
        tall=dice(0.24, 0.36),
        frame=dice(0.02, 0.05),
        frame_level=dice(0.55, 1.9),
        brick=dice(0.25, 0.45) if house.is_brick else 0.0,
        top=house.height,
        shop=1.0 if shop else 0.0,
        pane=dice(0.01, 0.07),
        mirror=dice(0.5, 1.0),
        accident=dice(0, 511),
        dirt=dice(0.06, 0.16),
    )


def draw_house(canvas: Canvas, dice: Dice, light: Light, house: House) -> None:
    """Draw roof, front wall and street wall."""
    camera = canvas.camera
    near = max(house.near, NEAR + 0.05)
    if house.far <= near:
        return
    far = house.far
    bend = 0.5 * camera.bend
    x0, x1 = house.x + bend * near * near, house.x + bend * far * far  # the corners of the street wall, bent
    canvas.facades.append(draw_facade(dice, house))
    facade = float(len(canvas.facades) - 1)
    out = house.side * house.depth
    top, ridge = house.height, house.height + house.roof
    middle = house.x + out / 2
    if house.roof > 0:
        slope = math.hypot(house.depth / 2, house.roof)
        normal = (-house.side * house.roof / slope, house.depth / 2 / slope, 0.0)
        part = canvas.part(BUILDING, light.on(house.roof_color, normal), (near + far) / 2, FLAT)
        eaves = [[house.x, top, near], [house.x, top, far]]
        canvas.fill_world(np.array([*eaves, [middle, ridge, far], [middle, ridge, near]]), part)
    if house.near > NEAR + 0.5:
        front = [
            [house.x, 0, near],
            [house.x, top, near],
            [house.x + out, top, near],
            [house.x + out, 0, near],
        ]
        if house.roof > 0:
            front.insert(2, [middle, ridge, near])
        color = light.on(house.color, (0.0, 0.0, -1.0))
        plane = (0.0, 1.0, near, 1.0, 0.0, -x0, facade)  # z = near; s runs along x
        part = canvas.part(BUILDING, color, near, WALL, plane)
        canvas.fill_world(np.array(front, dtype=float), part)
    # the plane through both corners: x - slope * z = x0 - slope * near; s runs along the wall
    slope = (x1 - x0) / (far - near)
    length = math.hypot(1.0, slope)
    color = light.on(house.color, (-house.side / length, 0.0, house.side * slope / length))
    plane = (1.0, -slope, x0 - slope * near, 0.0, length, -near * length, facade)
    part = canvas.part(BUILDING, color, 0.0, WALL, plane)
    # already bent: project without bending again
    canvas.fill(
        _project_straight(canvas, [[x0, 0, near], [x0, top, near], [x1, top, far], [x1, 0, far]]), part
    )


def draw_skyline(canvas: Canvas, dice: Dice, light: Light, depth: float) -> None:
    """Close the view far away with roofs and tree tops, and fill the ground behind the houses up to them."""
    camera = canvas.camera
    width = camera.size_hw[1]
    scale = camera.rows_per_metre(depth)
    base = camera.y0 + scale * camera.height + 1
    u = -0.05 * width
    while u < 1.05 * width:
        wide = dice(6, 26) * scale
        if dice.chance(0.6):
            color = light.on(dice.pick(MASONRY), (0.0, 0.2, -0.95))
            house = House(1, 0, 1, 2, dice(4, 16), 10, 0, color, color, has_windows=True, is_brick=False)
            canvas.facades.append(draw_facade(dice, house))
            # the plane z = depth, as for a front wall
            plane = (0.0, 1.0, depth, 1.0, 0.0, 500.0, float(len(canvas.facades) - 1))
            part = canvas.part(BUILDING, color, depth, WALL, plane)
            top = base - house.height * scale
            points = [[u, base], [u, top], [u + wide, top], [u + wide, base]]
            if dice.chance(0.4):
                points.insert(2, [u + wide / 2, top - dice(1, 3.5) * scale])
            canvas.fill(np.array(points), part)
        else:
            green = dice.pick(((0.05, 0.10, 0.03), (0.09, 0.13, 0.05), (0.07, 0.11, 0.06)))
            high = dice(4, 11) * scale
            part = canvas.part(
                VEGETATION, light.on(green, (0.0, 0.5, -0.8)), depth, LEAVES, (base - high, high, 0.5)
            )
            steps = np.linspace(0, math.pi, 16)
            rough = np.array([dice(0.8, 1.1) for _ in steps])
            across, up = u + wide * (0.5 - 0.6 * np.cos(steps) * rough), base - high * np.sin(steps) * rough
            canvas.fill(np.concatenate((np.stack((across, up), axis=1), [[u + wide, base], [u, base]])), part)
        u += wide * dice(0.7, 1.0)


def _project_straight(canvas: Canvas, corners: list[list[float]]) -> Points:
    camera = canvas.camera
    points = np.array(corners)
    scale = camera.focal / points[:, 2]
    return np.stack(
        (camera.x0 + scale * points[:, 0], camera.y0 + scale * (camera.height - points[:, 1])), axis=1
    )
