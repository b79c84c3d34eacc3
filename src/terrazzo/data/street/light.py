"""Sun, sky and air: what colour light has, and how bright a surface is under it. Colours are linear, 0-1."""

import math
from dataclasses import dataclass

from terrazzo.data.street.canvas import Rgb
from terrazzo.data.street.dice import Dice


@dataclass(frozen=True)
class Light:
    """The light of one scene."""

    sun: Rgb
    """Colour and strength of direct light; black under an overcast sky."""
    ambient: Rgb
    """Colour and strength of the sky's light."""
    to_sun: tuple[float, float, float]
    """Unit vector (x right, y up, z away) towards the sun."""
    zenith: Rgb
    horizon: Rgb
    cloud: Rgb
    cloudiness: float
    """0 clear … 1 covered."""
    haze_m: float
    """Metres after which 63 % of a surface's colour is the air's."""
    exposure: float
    balance: Rgb
    """White balance of the camera, a factor per channel."""

    def on(self, color: Rgb, normal: tuple[float, float, float], *, shaded: bool = False) -> Rgb:
        """Return the light that a matt surface of `color` sends back; `normal` is its unit vector."""
        to_sun, sun, ambient = self.to_sun, self.sun, self.ambient
        direct = normal[0] * to_sun[0] + normal[1] * to_sun[1] + normal[2] * to_sun[2]
        if shaded or direct < 0:
            direct = 0.0
        sky = 0.72 + 0.28 * normal[1]
        return (
            color[0] * (sun[0] * direct + ambient[0] * sky),
            color[1] * (sun[1] * direct + ambient[1] * sky),
            color[2] * (sun[2] * direct + ambient[2] * sky),
        )

    @property
    def shadow_per_metre(self) -> tuple[float, float]:
        """How far (x, z) on the ground the shadow of one metre of height falls."""
        x, y, z = self.to_sun
        return -x / y, -z / y


def draw_light(dice: Dice) -> Light:
    """Return the light of a clear, partly clouded, overcast, hazy or low-sun day."""
    weather = dice.pick(("clear", "clear", "clouds", "clouds", "overcast", "haze", "low"))
    azimuth = dice(0, 2 * math.pi)
    elevation = math.radians(dice(14, 26) if weather == "low" else dice(26, 62))
    to_sun = (
        math.cos(elevation) * math.cos(azimuth),
        math.sin(elevation),
        math.cos(elevation) * math.sin(azimuth),
    )
    tint = dice(-1, 1)
    balance = (1 + 0.10 * tint, 1 + 0.02 * dice(-1, 1), 1 - 0.12 * tint)
    exposure = dice(0.85, 1.3)
    if weather == "overcast":
        grey = dice(0.45, 0.85)
        sky = (grey, grey * dice(0.99, 1.04), grey * dice(1.0, 1.1))
        sun, ambient = (0.06, 0.06, 0.06), (0.78, 0.80, 0.84)
        zenith, horizon, cloud = sky, (sky[0] * 1.1, sky[1] * 1.1, sky[2] * 1.1), (0.62 * grey,) * 3
        cloudiness, haze = dice(0.6, 1.0), dice(70, 300)
    elif weather == "haze":
        white = dice(0.65, 0.92)
        sun, ambient = (0.42, 0.40, 0.36), (0.58, 0.58, 0.58)
        zenith, horizon = (white * 0.86, white * 0.92, white), (white, white * 0.98, white * 0.93)
        cloud, cloudiness, haze = (white,) * 3, dice(0, 0.4), dice(55, 120)
    elif weather == "low":
        sun, ambient = (1.15, 0.80, 0.46), (0.36, 0.38, 0.48)
        zenith = (dice(0.16, 0.34), dice(0.24, 0.36), dice(0.42, 0.56))
        horizon = (dice(0.8, 0.98), dice(0.5, 0.72), dice(0.3, 0.5))
        cloud, cloudiness, haze = (0.85, 0.55, 0.42), dice(0, 0.7), dice(80, 240)
    else:
        blue = dice(0.6, 1.15)
        sun, ambient = (0.96, 0.90, 0.78), (0.38, 0.43, 0.53)
        zenith = (0.09 * blue, 0.26 * blue, 0.56 * blue)
        horizon = (dice(0.42, 0.68), dice(0.58, 0.76), dice(0.74, 0.92))
        cloud = (0.9, 0.9, 0.92)
        cloudiness = dice(0.0, 0.25) if weather == "clear" else dice(0.4, 0.8)
        haze = dice(110, 500)
    return Light(sun, ambient, to_sun, zenith, horizon, cloud, cloudiness, haze, exposure, balance)
