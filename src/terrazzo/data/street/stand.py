"""Two ways to put a shape into the street: a flat cut-out that faces the camera, and a body with faces.

Both are drawn hundreds of times per scene with a handful of corners each, so they calculate in plain Python, which is
faster there than numpy.
"""

import math
from collections.abc import Sequence

import numpy as np

from terrazzo.data.street.canvas import Canvas, Points, Rgb
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.light import Light

Point = tuple[float, float]
Normal = tuple[float, float, float]

# Paint, cloth and plastic: each kind of thing has colours it often has, and shares all of them with the others; many
# are also masonry, asphalt or leaf colours.
_SOBER: tuple[Rgb, ...] = (
    (0.70, 0.70, 0.70),
    (0.80, 0.80, 0.78),
    (0.42, 0.43, 0.45),
    (0.22, 0.22, 0.23),
    (0.10, 0.10, 0.11),
    (0.03, 0.03, 0.035),
    (0.05, 0.10, 0.30),
)
_VIVID: tuple[Rgb, ...] = (
    (0.45, 0.04, 0.04),
    (0.58, 0.36, 0.05),
    (0.62, 0.16, 0.03),
    (0.05, 0.16, 0.42),
    (0.05, 0.22, 0.10),
)
_MUTED: tuple[Rgb, ...] = (
    (0.34, 0.10, 0.07),
    (0.20, 0.32, 0.46),
    (0.06, 0.15, 0.06),
    (0.15, 0.20, 0.08),
    (0.50, 0.40, 0.24),
    (0.26, 0.16, 0.10),
)


def paint(dice: Dice, *, sober: float = 0.4, vivid: float = 0.25) -> Rgb:
    """Return a common colour, a little lighter or darker; `sober` and `vivid` are shares, the rest is muted."""
    kind = dice()
    palette = _SOBER if kind < sober else _VIVID if kind < sober + vivid else _MUTED
    color, level = dice.pick(palette), dice(0.75, 1.25)
    return (min(color[0] * level, 0.85), min(color[1] * level, 0.85), min(color[2] * level, 0.85))


def dark(color: Rgb, level: float) -> Rgb:
    """Return a colour, darker (or lighter, above 1)."""
    return (color[0] * level, color[1] * level, color[2] * level)


class CutOut:
    """A flat figure that faces the camera, drawn in metres: x to the right of its foot, y up."""

    def __init__(
        self,
        canvas: Canvas,
        light: Light,
        class_id: int,
        x: float,
        z: float,
        *,
        scale: float = 1.0,
        squeeze: float = 1.0,
    ) -> None:
        camera, fine = canvas.camera, canvas.fine
        u, v = camera.foot(x, z)
        k = camera.rows_per_metre(z) * scale
        self.canvas, self.light, self.at, self._class_id, self._depth = canvas, light, (x, z), class_id, z
        self._u, self._v, self._ku, self._kv = u * fine, v * fine, k * squeeze * fine, -k * fine
        self._shaded = canvas.is_shaded(x, z)
        self.pixels_per_metre = k
        self.foot_row = v
        self.bright = 1.0 if light.to_sun[0] >= 0 else -1.0
        """The side the sun stands on: 1 right, -1 left."""

    def ink(self, color: Rgb, *, facing: float = 0.0) -> int:
        """Return a part of this colour; `facing` -1 … 1 turns its surface to the left or right."""
        normal = (0.8 * facing, 0.3, -math.sqrt(max(0.91 - 0.64 * facing * facing, 0.0)))
        return self.canvas.part(
            self._class_id, self.light.on(color, normal, shaded=self._shaded), self._depth
        )

    def lit(self, color: Rgb, normal: Normal) -> Rgb:
        """Return the light of a surface of this figure."""
        return self.light.on(color, normal, shaded=self._shaded)

    def shape(self, points: Sequence[Point], part: int) -> None:
        """Fill a polygon in metres."""
        u, v, ku, kv = self._u, self._v, self._ku, self._kv
        self.canvas.fill_list([c for x, y in points for c in (u + ku * x, v + kv * y)], part)

    def limb(self, p: Point, q: Point, p_wide: float, q_wide: float, part: int) -> None:
        """Draw a straight limb between two points, so wide at either end."""
        dx, dy = q[0] - p[0], q[1] - p[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length / 2, dx / length / 2
        px, py, qx, qy = nx * p_wide, ny * p_wide, nx * q_wide, ny * q_wide
        corners = (
            (p[0] + px, p[1] + py),
            (q[0] + qx, q[1] + qy),
            (q[0] - qx, q[1] - qy),
            (p[0] - px, p[1] - py),
        )
        self.shape(corners, part)

    def blob(self, points: Points, center: Point, radii: Point, part: int) -> None:
        """Fill points (N, 2) of a unit circle, stretched to `radii`."""
        scale = np.array((self._ku * radii[0], self._kv * radii[1]))
        shift = (self._u + self._ku * center[0], self._v + self._kv * center[1])
        self.canvas.fill_list((points * scale + shift).ravel().tolist(), part)

    def veil(self, points: Points | Sequence[Point], color: Rgb, amount: float) -> None:
        """Give a polygon to this thing's class and leave what is behind it visible (spokes)."""
        fine_N2 = np.asarray(points) * (self._ku, self._kv) + (self._u, self._v)
        self.canvas.see_through(
            fine_N2, self._class_id, color=self.lit(color, (0.0, 0.3, -0.95)), amount=amount
        )


class Body:
    """A solid thing in its own frame: (along, up, across), turned by `yaw` (0: its front points away from the camera).

    Faces are added in any order, each with its outward normal; those that look away are dropped, the others are drawn
    far to near.
    """

    def __init__(self, canvas: Canvas, light: Light, class_id: int, x: float, z: float, yaw: float) -> None:
        self._canvas, self._light, self._class_id, self._x, self._z = canvas, light, class_id, x, z
        self._cos, self._sin = math.cos(yaw), math.sin(yaw)
        self._shaded = canvas.is_shaded(x, z)
        self._eye = (-x * self._sin - z * self._cos, canvas.camera.height, -x * self._cos + z * self._sin)
        self._faces: list[tuple[float, int, list[float]]] = []

    def is_seen(self, point: tuple[float, float, float], normal: Normal) -> bool:
        """True when a face through `point` looks towards the camera."""
        eye = self._eye
        return (
            (eye[0] - point[0]) * normal[0]
            + (eye[1] - point[1]) * normal[1]
            + (eye[2] - point[2]) * normal[2]
        ) > 0

    def face(
        self,
        corners: Sequence[tuple[float, float, float]],
        normal: Normal,
        color: Rgb,
        *,
        gloss: float = 0.0,
        front: float = 0.0,
    ) -> bool:
        """Add a face if it is seen, and say so; `gloss` mirrors that share of sky, `front` draws it that much later."""
        if not self.is_seen(corners[0], normal):
            return False
        light, cos, sin = self._light, self._cos, self._sin
        turned = (normal[0] * sin + normal[2] * cos, normal[1], normal[0] * cos - normal[2] * sin)
        lit = light.on(color, turned, shaded=self._shaded)
        if gloss:
            sky, keep = light.zenith if normal[1] > 0.8 else light.horizon, 1 - gloss
            lit = (
                keep * lit[0] + gloss * sky[0],
                keep * lit[1] + gloss * sky[1],
                keep * lit[2] + gloss * sky[2],
            )
        self._add(corners, lit, front)
        return True

    def glow(self, corners: Sequence[tuple[float, float, float]], color: Rgb, *, front: float = 0.0) -> None:
        """Add a face that has its own light, or none at all."""
        self._add(corners, color, front)

    def draw(self) -> None:
        """Draw the faces added so far, far to near."""
        for _, part, fine in sorted(self._faces, key=lambda face: -face[0]):
            self._canvas.fill_list(fine, part)

    def _add(self, corners: Sequence[tuple[float, float, float]], color: Rgb, front: float) -> None:
        camera, fine = self._canvas.camera, self._canvas.fine
        cos, sin, bend = self._cos, self._sin, 0.5 * camera.bend
        flat, total = [], 0.0
        for along, up, across in corners:
            x = self._x + across * cos + along * sin
            z = max(self._z + along * cos - across * sin, 0.2)
            scale = camera.focal / z
            flat.append((camera.x0 + scale * (x + bend * z * z)) * fine)
            flat.append((camera.y0 + scale * (camera.height - up)) * fine)
            total += z
        part = self._canvas.part(self._class_id, color, self._z)
        self._faces.append((total / len(corners) - front, part, flat))


def draw_box(
    canvas: Canvas,
    light: Light,
    class_id: int,
    *,
    at: Point,
    size: tuple[float, float, float],
    color: Rgb,
    yaw: float = 0.0,
    lift: float = 0.0,
    taper: float = 1.0,
) -> None:
    """Draw an upright box: `size` is (length along, width across, height), `taper` the size of its top."""
    body = Body(canvas, light, class_id, *at, yaw)
    a, c, low, high = size[0] / 2, size[1] / 2, lift, lift + size[2]
    corners = ((-a, -c), (a, -c), (a, c), (-a, c))
    for i, normal in enumerate(((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0))):
        (a0, c0), (a1, c1) = corners[i], corners[(i + 1) % 4]
        side = ((a0, low, c0), (a0 * taper, high, c0 * taper), (a1 * taper, high, c1 * taper), (a1, low, c1))
        body.face(side, normal, color)
    body.face([(a0 * taper, high, c0 * taper) for a0, c0 in corners], (0.0, 1.0, 0.0), color, front=0.01)
    body.draw()
