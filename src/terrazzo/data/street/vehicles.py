"""Cars, drawn as bodies with faces so that perspective turns them rightly, and bicycles, drawn as cut-outs."""

import math
from itertools import pairwise

import numpy as np

from terrazzo.data.street.canvas import BICYCLE, CAR, PERSON, Canvas, Rgb, circle
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.ground import cast_box, cast_disc, darken_under, turned
from terrazzo.data.street.light import Light
from terrazzo.data.street.people import draw_rider
from terrazzo.data.street.stand import Body, CutOut, Point, dark, paint

# side views, from the rear bumper over the roof to the front: (metres along, metres up); then the side windows
_PROFILES: dict[str, tuple[tuple[Point, ...], tuple[Point, ...]]] = {
    "saloon": (
        ((-2.22, 0.32), (-2.28, 0.72), (-2.15, 0.96), (-1.50, 1.02), (-0.90, 1.42), (0.30, 1.45),
         (1.00, 1.00), (2.05, 0.86), (2.25, 0.62), (2.22, 0.32)),
        ((-1.35, 1.02), (-0.86, 1.36), (0.26, 1.38), (0.84, 1.00)),
    ),
    "hatchback": (
        ((-1.90, 0.32), (-1.94, 0.80), (-1.72, 1.08), (-1.35, 1.48), (0.15, 1.52), (0.90, 1.06),
         (1.75, 0.92), (1.92, 0.64), (1.90, 0.32)),
        ((-1.55, 1.06), (-1.25, 1.41), (0.12, 1.45), (0.74, 1.04)),
    ),
    "estate": (
        ((-2.25, 0.40), (-2.30, 0.90), (-2.15, 1.16), (-1.95, 1.68), (0.35, 1.74), (1.10, 1.18),
         (2.05, 1.04), (2.28, 0.76), (2.25, 0.40)),
        ((-2.00, 1.16), (-1.85, 1.60), (0.30, 1.66), (0.95, 1.16)),
    ),
    "van": (
        ((-2.42, 0.40), (-2.45, 1.00), (-2.42, 2.00), (-2.30, 2.10), (1.25, 2.10), (1.75, 1.35),
         (2.30, 1.10), (2.45, 0.75), (2.42, 0.40)),
        ((0.35, 1.30), (0.35, 1.92), (1.18, 1.92), (1.58, 1.30)),
    ),
}  # fmt: skip
Corners = tuple[tuple[float, float, float], ...]  # (along, up, across), metres
_GLASS: Rgb = (0.025, 0.03, 0.035)
_TYRE: Rgb = (0.018, 0.018, 0.02)
_ROUND = circle(14)
_RING: tuple[Point, ...] = tuple((c, s) for c, s in circle(12).tolist())
_HALF = 0.88  # half the width of a car, metres
_AXLES = (-1.32, 1.36)


def draw_car(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, yaw: float) -> None:
    """Draw a car whose front points along `yaw` (0 away from the camera, pi towards it, pi / 2 to the right)."""
    kind = dice.pick(("saloon", "saloon", "hatchback", "hatchback", "estate", "van"))
    profile, window = _PROFILES[kind]
    belt = 1.16 if kind in ("estate", "van") else 1.0
    color = paint(dice, sober=0.62, vivid=0.12)
    is_detailed = canvas.camera.rows_per_metre(z) > 5
    body = Body(canvas, light, CAR, x, z, yaw)
    for p, q in pairwise(profile):
        run, rise = q[0] - p[0], q[1] - p[1]
        length = math.hypot(run, rise)
        normal = (-rise / length, run / length, 0.0)
        strip = _strip(p, q, belt, 1.0)
        is_seen = body.face(strip, normal, color, gloss=0.25 * max(normal[1], 0.0))
        is_pane = min(p[1], q[1]) >= belt - 0.05 and abs(rise) > 0.25 and not (kind == "van" and p[0] < 0)
        if is_seen and is_pane:
            body.face(_strip(p, q, belt, 0.86), normal, _GLASS, gloss=0.30, front=0.001)
    for side in (-1.0, 1.0):
        normal = (0.0, 0.12, side)
        if body.face(_flank(profile, side, belt, 1.0), normal, color, front=0.01):
            body.face(_flank(window, side, belt, 1.005), normal, _GLASS, gloss=0.18, front=0.02)
            sill = ((-1.9, 0.32), (-1.9, 0.45), (1.9, 0.45), (1.9, 0.32))
            body.face(_flank(sill, side, belt, 1.0), normal, dark(color, 0.5), front=0.015)
            if is_detailed and kind != "van":
                at = sum(px for px, _ in window) / len(window) - 0.1
                post = ((at - 0.05, belt), (at - 0.05, 1.4), (at + 0.05, 1.4), (at + 0.05, belt))
                body.face(_flank(post, side, belt, 1.01), normal, color, front=0.03)
    body.draw()
    details = Body(canvas, light, CAR, x, z, yaw)
    are_on = dice.chance(0.3)
    if is_detailed:
        _lamps(details, profile, are_on=are_on)
    _wheels(details, is_detailed=is_detailed)
    details.draw()


def cast_car(canvas: Canvas, light: Light, x: float, z: float, yaw: float) -> None:
    """Cast a car's shadow, and the dark under it."""
    for amount, a, c in ((0.35, 2.35, 1.25 * _HALF), (0.8, 2.1, _HALF)):
        outline = turned(((-a, -c), (a, -c), (a, c), (-a, c)), x, z, yaw)
        canvas.darken(outline, amount)
    cast_box(canvas, light, outline, 1.35)


def draw_bicycle(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, *, ridden: bool) -> None:
    """Draw a bicycle, parked or ridden; its rider is a person. One sees through its wheels, and they are bicycle."""
    way = dice.side()
    squeeze = dice(0.7, 1.0) if dice.chance(0.8) else dice(0.3, 0.6)
    bike = CutOut(canvas, light, BICYCLE, x, z, scale=dice(1.0, 1.1), squeeze=squeeze)
    color = paint(dice)
    frame, tyre, metal = bike.ink(color), bike.ink(_TYRE), bike.ink((0.35, 0.35, 0.36))
    rear, front, crank = (-0.54 * way, 0.35), (0.54 * way, 0.35), (-0.06 * way, 0.32)
    seat, head = (-0.22 * way, 0.86), (0.38 * way, 0.86)
    thick = 0.055
    for hub in (rear, front):
        bike.veil(_ROUND * 0.35 + hub, (0.20, 0.20, 0.21), 0.55)
        rim = np.concatenate((_ROUND * 0.37, _ROUND[:1] * 0.37, _ROUND[:1] * 0.295, _ROUND[::-1] * 0.295))
        bike.blob(rim, hub, (1.0, 1.0), tyre)
        first = dice(0, 0.7)
        for spoke in range(4):
            dx, dy = (
                0.29 * math.cos(first + spoke * math.pi / 4),
                0.29 * math.sin(first + spoke * math.pi / 4),
            )
            bike.limb((hub[0] - dx, hub[1] - dy), (hub[0] + dx, hub[1] + dy), 0.012, 0.012, metal)
        bike.blob(_ROUND, hub, (0.05, 0.05), metal)
    bike.veil((crank, seat, head), color, 0.5)
    for p, q in (
        (rear, crank),
        (rear, seat),
        (crank, seat),
        (crank, head),
        (seat, head),
        (front, (0.36 * way, 0.98)),
    ):
        bike.limb(p, q, thick, thick, frame)
    bike.limb(seat, (seat[0] - 0.03 * way, 0.98), 0.035, 0.035, metal)
    bike.limb((seat[0] - 0.16 * way, 0.99), (seat[0] + 0.12 * way, 0.99), 0.10, 0.05, tyre)
    bike.limb((0.36 * way, 0.98), (0.30 * way, 1.10), 0.04, 0.04, metal)
    bike.limb((0.24 * way, 1.11), (0.44 * way, 1.09), 0.06, 0.06, tyre)
    bike.blob(_ROUND, crank, (0.09, 0.09), metal)
    if dice.chance(0.4):  # panniers or a basket
        bag, is_rear = bike.ink(dark(paint(dice), 0.8)), dice.chance(0.6)
        at, low = (rear[0], 0.42) if is_rear else (front[0] * 1.05, 0.80)
        bike.shape(((at - 0.17, low), (at - 0.2, low + 0.3), (at + 0.2, low + 0.3), (at + 0.17, low)), bag)
    else:
        bike.limb((rear[0], 0.73), (rear[0] + 0.3 * way, 0.76), 0.04, 0.04, metal)
    if ridden:
        rider = CutOut(canvas, light, PERSON, x, z, scale=dice(1.0, 1.1), squeeze=max(squeeze, 0.6))
        draw_rider(rider, dice, way)


def cast_bicycle(canvas: Canvas, light: Light, x: float, z: float, *, ridden: bool) -> None:
    """Cast a bicycle's thin shadow, and its rider's."""
    corners = ((x - 0.85, z - 0.05), (x + 0.85, z - 0.05), (x + 0.85, z + 0.05), (x - 0.85, z + 0.05))
    cast_box(canvas, light, corners, 0.5)
    darken_under(canvas, x, z, 0.9, 0.15, 0.4)
    if ridden:
        cast_disc(canvas, light, x, z, 0.25, 0.5, 1.7)


def _waist(up: float, belt: float) -> float:
    """Half the width of a car at a height: cabins lean in above the belt line."""
    return _HALF - 0.30 * max(up - belt, 0.0)


def _strip(p: Point, q: Point, belt: float, share: float) -> Corners:
    """The face across the car between two points of its profile; `share` < 1 shrinks it to a pane."""
    (pa, pu), (qa, qu) = p, q
    trim = (1 - share) / 2
    a0, u0, a1, u1 = (
        pa + trim * (qa - pa),
        pu + trim * (qu - pu),
        qa - trim * (qa - pa),
        qu - trim * (qu - pu),
    )
    c0, c1 = _waist(u0, belt) * share, _waist(u1, belt) * share
    return (a0, u0, -c0), (a0, u0, c0), (a1, u1, c1), (a1, u1, -c1)


def _flank(outline: tuple[Point, ...], side: float, belt: float, out: float) -> Corners:
    """An outline (along, up) laid on the left or right side of a car."""
    return tuple((along, up, side * _waist(up, belt) * out) for along, up in outline)


def _lamps(body: Body, profile: tuple[Point, ...], *, are_on: bool) -> None:
    """Lamps, plate and bumper on the rear and the front: faces between the two lowest points of the profile there."""
    dull: tuple[Rgb, Rgb] = ((0.30, 0.01, 0.01), (0.62, 0.62, 0.58))  # rear, front
    bright: tuple[Rgb, Rgb] = ((0.85, 0.04, 0.03), (0.95, 0.93, 0.85))
    for end, (low, high) in enumerate(((profile[0], profile[1]), (profile[-1], profile[-2]))):
        normal, metre = (-1.0 if end == 0 else 1.0, 0.0, 0.0), 1 / (high[1] - low[1])
        for side in (-1.0, 1.0):
            lamp = _panel(low, high, 1 - 0.2 * metre, 1.0, side * 0.82, side * 0.50)
            if are_on and body.is_seen(lamp[0], normal):
                body.glow(lamp, bright[end])
            else:
                body.face(lamp, normal, dull[end])
        body.face(_panel(low, high, 0.3, 0.3 + 0.12 * metre, -0.26, 0.26), normal, (0.66, 0.64, 0.50))
        body.face(_panel(low, high, 0.0, 0.08 * metre, -0.86, 0.86), normal, (0.03, 0.03, 0.03))


def _panel(low: Point, high: Point, start: float, end: float, left: float, right: float) -> Corners:
    """A panel across the car on the edge `low`-`high` of its profile, between two shares of it."""
    (a0, u0), (a1, u1) = (
        (low[0] + s * (high[0] - low[0]), low[1] + s * (high[1] - low[1])) for s in (start, end)
    )
    return (a0, u0, left), (a1, u1, left), (a1, u1, right), (a0, u0, right)


def _wheels(body: Body, *, is_detailed: bool) -> None:
    for side in (-1.0, 1.0):
        normal, out = (0.0, 0.0, side), side * (_HALF + 0.01)
        if body.is_seen((0.0, 0.4, out), normal):
            rings = ((0.36, (0.008, 0.008, 0.008)), (0.32, _TYRE), (0.19, (0.30, 0.30, 0.31)))
            for along in _AXLES:
                for over, (radius, color) in enumerate(rings if is_detailed else rings[1:]):
                    ring = [(along + radius * c, 0.33 + radius * s, out) for c, s in _RING]
                    body.face(ring, normal, color, front=0.001 * over)
        else:  # the tyres of the far side show under the car
            for along in _AXLES:
                rear, front, at = along - 0.3, along + 0.3, side * 0.75
                body.glow(((rear, 0.02, at), (front, 0.02, at), (front, 0.3, at), (rear, 0.3, at)), _TYRE)
