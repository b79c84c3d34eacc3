"""Trees, bushes and hedges: trunks that end in crowns, and crowns made of ragged, overlapping clumps of leaves."""

import math

import numpy as np

from terrazzo.data.street.canvas import LEAVES, VEGETATION, Canvas, Points, Rgb, circle
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.ground import cast_disc, darken_under
from terrazzo.data.street.light import Light
from terrazzo.data.street.stand import CutOut, Point, dark

# greens first, then autumn: reds, ochres and browns that bricks, cars and clothes have too
_LEAVES: tuple[Rgb, ...] = (
    (0.07, 0.14, 0.04),
    (0.10, 0.18, 0.05),
    (0.05, 0.10, 0.04),
    (0.14, 0.19, 0.06),
    (0.09, 0.14, 0.08),
    (0.30, 0.14, 0.05),
    (0.36, 0.24, 0.05),
    (0.24, 0.08, 0.05),
)
_RIM = circle(22)
_RAGGED = np.random.default_rng(3).uniform(-1, 1, (64, 22, 1))


def leaf_color(dice: Dice) -> Rgb:
    """Return a leaf colour: mostly green, sometimes autumn."""
    return dark(dice.pick(_LEAVES[:5] if dice.chance(0.85) else _LEAVES), dice(0.7, 1.4))


def draw_tree(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, color: Rgb) -> None:
    """Draw a street tree: trunk, a fork of branches, and a crown of clumps, the lit ones last."""
    height, wide = dice(4.5, 8.5), dice(1.3, 2.3)
    low = dice(1.9, 2.6)
    tree = CutOut(canvas, light, VEGETATION, x, z)
    bark = dice.pick(((0.10, 0.07, 0.05), (0.16, 0.13, 0.10), (0.07, 0.06, 0.05), (0.24, 0.22, 0.20)))
    thick, lean = dice(0.24, 0.42), dice(-0.2, 0.2)
    fork = (lean, low + 0.3)
    b = tree.bright * thick
    tree.limb((0, 0), fork, thick * 1.25, thick * 0.8, tree.ink(bark))
    lit = tree.ink(dark(bark, 1.35), facing=tree.bright)
    tree.limb((b * 0.22, 0), (fork[0] + b * 0.12, fork[1]), thick * 0.5, thick * 0.35, lit)
    for lean in (-0.6, 0.1, 0.7):
        tree.limb(
            fork,
            (fork[0] + lean * wide * 0.6, low + 1.5),
            thick * 0.6,
            thick * 0.3,
            tree.ink(dark(bark, 0.8)),
        )
    middle = (low + height) / 2
    _clumps(
        canvas,
        dice,
        tree,
        z,
        color,
        (fork[0], middle),
        (wide, (height - low) / 2 + 0.2),
        dice.count(9, 13) if z < 22 else 6,
    )


def draw_bush(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, color: Rgb) -> None:
    """Draw a bush that stands on the ground."""
    wide, high = dice(0.5, 1.2), dice(0.5, 0.9)
    bush = CutOut(canvas, light, VEGETATION, x, z)
    _clumps(canvas, dice, bush, z, color, (0.0, high * 0.8), (wide, high), dice.count(4, 6))


def cast_plant(canvas: Canvas, light: Light, x: float, z: float, *, is_tree: bool) -> None:
    """Cast a tree's or a bush's shadow; a crown lets some sun through by the roughness of its leaves."""
    if is_tree:
        cast_disc(canvas, light, x, z, 0.15, 0.0, 3.0)
        cast_disc(canvas, light, x, z, 1.7, 2.6, 6.0)
        darken_under(canvas, x, z, 0.45, 0.4, 0.5)
    else:
        cast_disc(canvas, light, x, z, 0.7, 0.0, 1.0)
        darken_under(canvas, x, z, 1.0, 0.6, 0.6)


def crown(dice: Dice, rough: float) -> Points:
    """Return a ragged unit circle (22, 2)."""
    return _RIM * (1 + rough * _RAGGED[dice.count(0, len(_RAGGED) - 1)])


def _clumps(
    canvas: Canvas, dice: Dice, plant: CutOut, z: float, color: Rgb, center: Point, radii: Point, count: int
) -> None:
    k = plant.pixels_per_metre
    placed = []
    for i in range(count):
        angle, out = (
            i * 2.4 + dice(-0.3, 0.3),
            math.sqrt(i / count) * 0.72,
        )  # sunflower order covers a disc evenly
        placed.append((math.sin(angle) * out, math.cos(angle) * out))
    for cx, cy in sorted(
        placed, key=lambda c: c[1] + 0.5 * plant.bright * c[0]
    ):  # the side away from the sun first
        normal = (0.6 * cx, 0.45 + 0.5 * cy, -0.6)
        lit = plant.lit(dark(color, 0.8 + 0.35 * (cy + 0.4) * dice(0.7, 1.3)), normal)
        size = dice(0.42, 0.58)
        at = (center[0] + cx * radii[0], center[1] + cy * radii[1])
        top = plant.foot_row - (at[1] + size * radii[1]) * k
        part = canvas.part(VEGETATION, lit, z, LEAVES, (top, 2 * size * radii[1] * k, 0.9))
        plant.blob(crown(dice, 0.18), at, (size * radii[0], size * radii[1]), part)
