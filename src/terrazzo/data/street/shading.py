"""From parts to colours: one pass per material over the pixels that show it, then air, lens and sensor.

The mask never enters here: a pixel's class and its colour come from the same part, each on its own way. Along arrays of
N pixels: u = x / z and w = (y - eye) / z are a pixel's ray, z its depth, `footprint` the metres it covers.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from terrazzo.data.street.canvas import GROUND, LEAVES, SKY, WALL, Canvas, Rgb
from terrazzo.data.street.houses import Facade
from terrazzo.data.street.light import Light
from terrazzo.data.street.noise import TILE, Floats, lookup, noise, sensor_noise

_MATERIAL, _COLOR, _DEPTH, _PARAMETERS = 1, slice(2, 5), 5, 6  # columns of the table of parts
_Indices = NDArray[np.intp]


def shade(
    canvas: Canvas, light: Light, rng: np.random.Generator, *, textured: bool = True
) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) uint8 that the camera takes of a canvas.

    Untextured, surfaces are plain and the sensor has no noise; light, shadows and air stay.
    """
    height, width = canvas.parts().shape
    view = _View(canvas, light, rng.integers(0, TILE, 8).tolist())
    for material, give_color in ((SKY, _sky), (GROUND, _ground), (WALL, _walls), (LEAVES, _leaves)):
        at = np.flatnonzero(view.material == material)
        if len(at):
            give_color(view, at, textured)
    _add_air(view.color, view.depth, light)
    return _expose(view.color.reshape(3, height, width), canvas.samples, light, rng, textured)


class _View:
    """What the passes read and write: every colour sample's part, ray, colour and depth."""

    def __init__(self, canvas: Canvas, light: Light, shifts: list[int]) -> None:
        camera, n, parts = canvas.camera, canvas.samples, canvas.parts()
        height, width = parts.shape
        self.canvas, self.camera, self.light = canvas, camera, light
        self.shifts = shifts
        """Where in the noise this scene lies."""
        self._table, self._part = canvas.table(), parts.ravel()
        self._u = (((np.arange(width) + 0.5) / n - camera.x0) / camera.focal).astype(np.float32)
        self._w = ((camera.y0 - (np.arange(height) + 0.5) / n) / camera.focal).astype(np.float32)
        self.material = np.take(self._table[:, _MATERIAL].astype(np.int8), self._part)
        self.color = np.stack([np.take(column, self._part) for column in self._table[:, _COLOR].T])
        """(3, samples) linear; channel by channel, for numpy is slow on rows of three."""
        self.depth = np.take(self._table[:, _DEPTH], self._part)
        """(samples,) metres; 0 for what has its air already."""

    def rays(self, at: _Indices) -> tuple[Floats, Floats]:
        row, column = np.divmod(at, len(self._u))
        return self._u[column], self._w[row]

    def parameters(self, at: _Indices) -> Floats:
        """(number of parameters, N): those of the parts seen at the samples `at`."""
        return np.take(np.ascontiguousarray(self._table[:, _PARAMETERS:].T), self._part[at], axis=1)

    def noise(self, power: float, column: Floats, row: Floats, shift: int) -> Floats:
        return lookup(noise(power), column + np.float32(self.shifts[shift]), row)


def _sky(view: _View, at: _Indices, textured: bool) -> None:
    light, (u, w) = view.light, view.rays(at)
    w = np.maximum(w, 0)
    height = np.minimum(w * 1.6, 1) ** np.float32(0.7)
    sky = _rgb(light.horizon) + (_rgb(light.zenith) - _rgb(light.horizon)) * height
    if textured and light.cloudiness > 0:
        away = 1 / (w + 0.12)  # clouds lie on a plane overhead
        clouds = view.noise(1.9, u * away * 30, away * 46, 0)
        cover = np.clip((clouds + 1.6 * light.cloudiness - 0.9) * 0.8, 0, 0.92) * np.minimum(w * 6 + 0.25, 1)
        shadow = 1 + 0.10 * view.noise(1.3, u * away * 60, away * 80, 1)
        sky += (_rgb(light.cloud) * shadow - sky) * cover
    view.color[:, at] = sky
    view.depth[at] = 0


def _ground(view: _View, at: _Indices, textured: bool) -> None:
    camera, light, (u, w) = view.camera, view.light, view.rays(at)
    z = camera.height / np.maximum(-w, np.float32(1e-3))
    x = u * z - np.float32(0.5 * camera.bend) * z * z  # across the street, straightened
    view.depth[at] = z
    sun_off, sky_off = (image.ravel()[at] for image in _soft_shadows(view.canvas))
    direct = np.float32(max(light.to_sun[1], 0.0)) * (1 - sun_off) * (1 - sky_off)
    level = _rgb(light.sun) * direct + _rgb(light.ambient) * (1 - 0.75 * sky_off)
    if textured:
        level *= _paving(view, at, x, z)
    view.color[:, at] *= level


def _soft_shadows(canvas: Canvas) -> tuple[Floats, Floats]:
    """Shares of sun and of sky kept off (h, w): shadows with soft edges."""
    sun, sky = canvas.shadow_images()
    soft_sun, soft_sky = ImageFilter.BoxBlur(0.5 * canvas.samples), ImageFilter.BoxBlur(1.2 * canvas.samples)
    full = np.float32(255)
    return np.asarray(sun.filter(soft_sun)) / full, np.asarray(sky.filter(soft_sky)) / full


def _paving(view: _View, at: _Indices, x: Floats, z: Floats) -> Floats:
    """Brightness (N,) around 1 of the ground at (x, z): grain, stains, blades of grass, units and their joints."""
    camera = view.camera
    grain, wide, long, joint, bond, jitter, grass = view.parameters(at)
    footprint = z / camera.focal
    along: Floats = footprint * z / camera.height  # metres that a pixel covers away from the camera
    fine = grain * (0.35 + 0.65 * np.minimum(0.03 / footprint, 1))
    texture = 1 + fine * view.noise(0.0, x * 38, z * 30, 2)
    texture += (0.5 * grain + 0.05) * view.noise(1.2, x * 14, z * 9, 3)
    texture += grass * 0.35 * view.noise(0.6, x * 22, z * 12, 4)
    paved = np.flatnonzero(wide > 0)
    if len(paved):
        wide, long, joint, footprint, along = (v[paved] for v in (wide, long, joint, footprint, along))
        across, away = x[paved] / wide, z[paved] / long
        row = np.floor(away)
        across += bond[paved] * row
        column = np.floor(across)
        gap = np.minimum(0.012 + 0.03 * wide, 0.04)
        clear_side = np.clip(wide / footprint * 0.35 - 0.4, 0, 1)  # joints finer than a pixel melt away
        clear_end = np.clip(long / along * 0.5 - 0.6, 0, 1)
        is_side = across - column < (gap + 0.5 * footprint) / wide
        is_end = away - row < (gap + 0.5 * along) / long
        lines = np.maximum(is_side * clear_side, is_end * clear_end)
        unit = view.noise(0.0, column * 7, row * 13, 5) * np.minimum(clear_side, clear_end + 0.2)
        texture[paved] *= (1 - joint * lines) * (1 + 0.7 * jitter[paved] * unit)
    return np.maximum(texture, 0.1)


def _walls(view: _View, at: _Indices, textured: bool) -> None:
    camera, (u, w) = view.camera, view.rays(at)
    plane_x, plane_z, distance, along_x, along_z, start, number = view.parameters(at)
    z = np.clip(distance / (plane_x * u + plane_z), 0.2, 200)
    view.depth[at] = z
    if not textured:
        return
    s, t = along_x * u * z + along_z * z + start, camera.height + w * z  # metres along the wall, and up it
    look = Facade(
        *np.take(np.array(view.canvas.facades, dtype=np.float32).T, number.astype(np.int32), axis=1)
    )
    footprint = z / camera.focal
    a, b = s / look.bay, (t - look.first) / look.storey
    bay, storey = np.floor(a), np.floor(b)
    a, b = a - bay - 0.5, b - storey - 0.5
    is_storey = (b > -0.6) & (t > look.first) & (look.first + (storey + 1) * look.storey < look.top + 0.4)
    has_windows = look.wide > 0
    out_a, out_b = np.abs(a) - look.wide, np.abs(b) - look.tall
    is_shop = (look.shop > 0) & (t < look.first - 0.75) & (t > 0.35) & (np.abs(a) < 0.42)
    is_pane = (is_storey & (out_a < 0) & (out_b < 0)) | is_shop
    thick_a, thick_b = look.frame + 0.6 * footprint / look.bay, look.frame + 0.6 * footprint / look.storey
    is_frame = is_storey & has_windows & (out_a < thick_a) & (out_b < thick_b)
    is_sill = is_frame & (b < -look.tall)
    texture = _masonry(view, look, s, t, footprint)
    texture = np.where(has_windows & (t > look.top - 0.28), texture * 1.18, texture)  # cornice
    texture = np.where(is_frame, look.frame_level, texture)
    texture = np.where(is_sill, np.maximum(look.frame_level, 1.0) * 1.1, texture)
    wall = view.color[:, at]
    lit = wall * np.maximum(texture, 0.15)
    unit = lookup(noise(0.0), bay * 5 + look.accident, storey * 11 + look.accident)
    share = is_pane * np.clip(
        0.8 * look.wide * look.bay / footprint, 0, 1
    )  # far away a window melts into its wall
    view.color[:, at] = lit + (_glass(view.light, look, unit, b, wall) - lit) * share


def _masonry(view: _View, look: Facade, s: Floats, t: Floats, footprint: Floats) -> Floats:
    """Brightness (N,) around 1 of a wall: dirt, bricks and mortar, splashes at its foot."""
    texture = 1 + look.dirt * lookup(noise(1.3), s * 12 + look.accident, t * 12)
    texture += 0.05 * view.noise(0.0, s * 30, t * 30, 6)
    brick_w, brick_h = 0.24, 0.085  # metres, with their mortar
    clear = np.clip(brick_h / footprint * 0.6 - 0.25, 0, 1) * look.brick
    laid = np.flatnonzero(clear > 0.01)
    if len(laid):
        row = t[laid] / brick_h
        course = np.floor(row)
        along = s[laid] / brick_w + 0.5 * course
        brick = np.floor(along)
        is_mortar = (row - course < 0.2) | (along - brick < 0.09)
        unit = 0.6 * lookup(noise(0.0), brick * 3 + look.accident[laid], course * 7)
        texture[laid] += clear[laid] * np.where(is_mortar, 0.9, unit)
    texture *= 1 - 0.35 * np.exp(-np.maximum(t, 0) * 2.2)
    return texture


def _glass(light: Light, look: Facade, unit: Floats, b: Floats, wall: Floats) -> Floats:
    """Colour (3, N) of panes: a dark room, some sky in the glass, here and there a curtain."""
    sky = _rgb(light.horizon) * 0.6 + _rgb(light.zenith) * 0.4
    mirrored = look.pane + 0.10 * look.mirror * (1 + 0.8 * unit) * np.clip(0.6 + 0.6 * b, 0.2, 1.2)
    curtain = 0.25 * (unit > 1.25)
    return mirrored * sky + 0.4 * look.pane + curtain * wall


def _leaves(view: _View, at: _Indices, textured: bool) -> None:
    if not textured:
        return
    u, w = view.rays(at)
    top, size, amount = view.parameters(at)[:3]
    x, y = u * view.depth[at], w * view.depth[at]
    down = (view.camera.y0 - w * view.camera.focal - top) / np.maximum(size, 1)
    leaf = view.noise(0.35, x * 26, y * 26, 4) + 0.5 * view.noise(0.0, x * 40, y * 40, 7)
    level = (1.25 - 0.5 * np.clip(down, 0, 1)) * (1 + 0.42 * amount * leaf)
    view.color[:, at] *= np.clip(level, 0.12, 2.2)


def _add_air(color: Floats, depth: Floats, light: Light) -> None:
    """Let the air between camera and surface add its own colour, in place."""
    through = np.exp(depth * np.float32(-1 / light.haze_m))
    air = _rgb(light.horizon) * np.float32(0.85)
    color -= air
    color *= through
    color += air


def _expose(
    color: Floats, samples: int, light: Light, rng: np.random.Generator, textured: bool
) -> NDArray[np.uint8]:
    """Take the picture: average the samples of a pixel, expose, darken the corners, add noise, quantise."""
    if samples == 2:
        color = color[:, 0::2] + color[:, 1::2]
        color = (color[:, :, 0::2] + color[:, :, 1::2]) * np.float32(0.25)
    color *= _rgb(light.balance)[..., None] * np.float32(light.exposure)
    image = np.sqrt(np.clip(color, 0, 1))  # close enough to the sRGB curve
    height, width = image.shape[1:]
    top, left = rng.integers(0, TILE, 2).tolist()
    strength, vignette = np.float32(rng.uniform(0.003, 0.015)), np.float32(rng.uniform(0.0, 0.12))
    if textured:
        image += sensor_noise(height, width, top, left) * (strength * (0.6 + image))
        y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
        image *= 1 - vignette * (y[:, None] ** 2 + x**2)
    taken = np.ascontiguousarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
    if textured and samples == 1:  # a lens's softness, which small images have from being sampled twice
        taken = np.asarray(Image.fromarray(taken).filter(ImageFilter.GaussianBlur(0.45)))
    return taken


def _rgb(color: Rgb) -> Floats:
    """A colour (3, 1)."""
    return np.array(color, dtype=np.float32)[:, None]
