"""The ground: zones side by side along the street, markings on them, a crossing street, and the shadows there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from terrazzo.data.street.canvas import GROUND, ROAD, SIDEWALK, VEGETATION, Canvas, Rgb, circle, on_ground
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.light import Light

FAR = 95.0  # metres; the ground ends behind the last house
Place = tuple[float, float]  # (x, z) on the ground
_DEPTHS = np.geomspace(0.3, FAR, 26)  # where the bent edges of a zone get their corners

# kind: grain (strength of the noise), then per paving unit: width, length (m), joint (darkening), bond (shift of every
# other row), jitter (brightness from unit to unit)
_PAVING: dict[str, tuple[float, float, float, float, float, float]] = {
    "asphalt": (0.16, 0.0, 0.0, 0.0, 0.0, 0.0),
    "concrete": (0.08, 2.2, 2.2, 0.35, 0.0, 0.05),
    "slabs": (0.07, 0.5, 0.5, 0.40, 0.5, 0.14),
    "flags": (0.08, 0.9, 0.6, 0.45, 0.5, 0.10),
    "bricks": (0.10, 0.22, 0.11, 0.40, 0.5, 0.24),
    "cobbles": (0.16, 0.16, 0.16, 0.55, 0.5, 0.30),
    "gravel": (0.30, 0.0, 0.0, 0.0, 0.0, 0.0),
    "grass": (0.50, 0.0, 0.0, 0.0, 0.0, 0.0),
}
_DISC: tuple[Place, ...] = tuple((c, s) for c, s in circle(12).tolist())


@dataclass(frozen=True)
class Zone:
    """A strip of ground along the street."""

    left: float
    right: float
    class_id: int
    kind: str
    color: Rgb


def grey(dice: Dice, low: float, high: float, tint: float = 0.06) -> Rgb:
    """Return a grey, warmer or colder by up to `tint`."""
    level, warm = dice(low, high), dice(-tint, tint)
    return (level * (1 + warm), level, level * (1 - warm))


def paving(dice: Dice, class_id: int) -> tuple[str, Rgb]:
    """Choose what a zone of a class is made of; roads and sidewalks share materials and colours."""
    if class_id == VEGETATION:
        return "grass", dice.pick(
            ((0.09, 0.17, 0.04), (0.15, 0.20, 0.05), (0.22, 0.20, 0.08), (0.06, 0.13, 0.04))
        )
    if class_id == ROAD:
        kind = dice.pick((*("asphalt",) * 9, "cobbles", "gravel"))
        levels = 0.05, 0.28
    else:
        kind = dice.pick((*("slabs", "flags") * 4, *("bricks",) * 3, "concrete", "asphalt"))
        levels = 0.12, 0.46
    if kind == "bricks" and dice.chance(0.7):  # brick red, as houses and cars may be
        return kind, (dice(0.24, 0.42), dice(0.12, 0.20), dice(0.08, 0.13))
    if kind == "gravel" or dice.chance(0.12):  # sand
        return kind, (dice(0.30, 0.44), dice(0.25, 0.34), dice(0.17, 0.24))
    return kind, grey(dice, *levels)


def draw_zone(canvas: Canvas, zone: Zone) -> None:
    """Fill a zone from the camera to the far end of the street."""
    across = np.repeat((zone.left, zone.right), len(_DEPTHS))
    outline = on_ground(across, np.concatenate((_DEPTHS, _DEPTHS[::-1])))
    canvas.fill_world(outline, _part(canvas, zone.class_id, zone.kind, zone.color))


def draw_kerb(canvas: Canvas, x: float, side: int, color: Rgb) -> None:
    """Edge a sidewalk at `x` with a kerb: a pale stone, which is sidewalk, and the dark gutter, which is road."""
    stone, gutter = sorted((x, x + side * 0.16)), sorted((x, x - side * 0.09))
    pale: Rgb = (min(color[0] * 1.5, 0.6), min(color[1] * 1.5, 0.6), min(color[2] * 1.5, 0.6))
    draw_zone(canvas, Zone(stone[0], stone[1], SIDEWALK, "concrete", pale))
    draw_zone(canvas, Zone(gutter[0], gutter[1], ROAD, "asphalt", (0.03, 0.03, 0.03)))


def draw_crossing(canvas: Canvas, near: float, far: float, zone: Zone) -> None:
    """Let a street of the road's kind cross at depths `near` … `far`."""
    x = np.linspace(-60.0, 60.0, 25)
    outline = on_ground(np.concatenate((x, x[::-1])), np.repeat((near, far), len(x)))
    canvas.fill_world(outline, _part(canvas, zone.class_id, zone.kind, zone.color))


def draw_markings(canvas: Canvas, dice: Dice, road: Zone, *, zebra: float | None) -> None:
    """Paint a dashed or full middle line, edge lines and a zebra crossing on the road; paint stays road."""
    white = _part(
        canvas, ROAD, "asphalt", dice.pick(((0.62, 0.62, 0.60), (0.62, 0.62, 0.60), (0.60, 0.45, 0.10)))
    )
    middle, half = (road.left + road.right) / 2, (road.right - road.left) / 2
    style = dice.pick(("dashed", "dashed", "full", "none"))
    if style == "full":
        _stripe(canvas, white, middle, 0.07, 0.3, 60.0)
    elif style == "dashed":
        start, dash, gap = dice(-2, 1), dice(1.4, 3.2), dice(1.6, 4.0)
        for i in range(12):
            z = start + i * (dash + gap)
            _stripe(canvas, white, middle, 0.07, z, z + dash)
    if dice.chance(0.35):
        for side in (-1, 1):
            _stripe(canvas, white, middle + side * (half - 0.3), 0.05, 0.3, 60.0)
    if zebra is not None:
        pitch = 1.0
        for i in range(int(2 * half / pitch)):
            _stripe(canvas, white, road.left + 0.5 + i * pitch, 0.25, zebra, zebra + 2.6)


def draw_patches(canvas: Canvas, dice: Dice, zones: list[Zone]) -> None:
    """Repair the ground here and there: patches, manholes, stains, each of its zone's class."""
    for _ in range(dice.count(2, 7)):
        zone = dice.pick(zones)
        if zone.kind == "grass" or zone.right - zone.left < 0.9:
            continue
        z, x = 2.0 + 16 * dice() ** 1.5, dice(zone.left + 0.35, zone.right - 0.35)
        level = dice(0.55, 1.35)
        color = (zone.color[0] * level, zone.color[1] * level, zone.color[2] * level)
        room = min(x - zone.left, zone.right - x)
        if dice.chance(0.5):
            shape = np.array(_DISC) * min(room, dice(0.25, 0.55))
        else:
            shape = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (
                min(room, dice(0.3, 1.3)),
                dice(0.4, 2.0),
            )
        canvas.fill_world(
            on_ground(x + shape[:, 0], z + shape[:, 1]), _part(canvas, zone.class_id, "asphalt", color)
        )


def cast_box(canvas: Canvas, light: Light, corners: Sequence[Place], height: float) -> None:
    """Cast the shadow of an upright thing that stands on a convex outline of (x, z)."""
    _cast_swept(canvas, light, corners, 0.0, height)


def cast_disc(
    canvas: Canvas, light: Light, x: float, z: float, radius: float, low: float, high: float
) -> None:
    """Cast the shadow of something round between the heights `low` and `high`."""
    _cast_swept(canvas, light, [(x + radius * c, z + radius * s) for c, s in _DISC], low, high)


def darken_under(canvas: Canvas, x: float, z: float, radius_x: float, radius_z: float, amount: float) -> None:
    """Darken the ground where a thing touches it."""
    canvas.darken([(x + radius_x * c, z + radius_z * s) for c, s in _DISC], amount)


def turned(points: Sequence[Place], x: float, z: float, yaw: float) -> list[Place]:
    """Turn ground points (along, across) by `yaw` (0 along the street) and set them down at (x, z)."""
    c, s = math.cos(yaw), math.sin(yaw)
    return [(x + across * c + along * s, z + along * c - across * s) for along, across in points]


def _cast_swept(canvas: Canvas, light: Light, outline: Sequence[Place], low: float, high: float) -> None:
    """Cast a convex outline swept from the shadow of `low` to that of `high`.

    Every corner goes to one end or the other, as its side of the outline leads or trails the movement.
    """
    dx, dz = light.shadow_per_metre
    (ax, az), (bx, bz), (cx, cz) = outline[:3]
    turn = (bx - ax) * (cz - bz) - (bz - az) * (cx - bx)
    swept = []
    for i, (x, z) in enumerate(outline):
        (before_x, before_z), (after_x, after_z) = outline[i - 1], outline[(i + 1) % len(outline)]
        leads = ((after_z - before_z) * dx - (after_x - before_x) * dz) * turn > 0
        height = high if leads else low
        swept.append((x + dx * height, z + dz * height))
    canvas.cast(swept)


def _stripe(canvas: Canvas, part: int, x: float, half: float, near: float, far: float) -> None:
    z = np.geomspace(max(near, 0.3), max(far, 0.31), 2 if far - near < 6 else 24)
    canvas.fill_world(on_ground(np.repeat((x - half, x + half), len(z)), np.concatenate((z, z[::-1]))), part)


def _part(canvas: Canvas, class_id: int, kind: str, color: Rgb) -> int:
    grass = 1.0 if kind == "grass" else 0.0
    return canvas.part(class_id, color, 0.0, GROUND, (*_PAVING[kind], grass))
