"""What stands on a sidewalk: poles with lamps, signs or signals, and the things that are in the way."""

from collections.abc import Callable, Mapping

from terrazzo.data.street.canvas import LEAVES, OBSTACLE, POLE, VEGETATION, Canvas, Rgb, circle
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.ground import cast_box, cast_disc, darken_under
from terrazzo.data.street.light import Light
from terrazzo.data.street.plants import crown, leaf_color
from terrazzo.data.street.stand import CutOut, dark, draw_box, paint

_ROUND = circle(14)
_METALS: tuple[Rgb, ...] = (
    (0.30, 0.31, 0.32),
    (0.16, 0.17, 0.17),
    (0.05, 0.05, 0.05),
    (0.05, 0.10, 0.07),
    (0.46, 0.46, 0.46),
    (0.20, 0.13, 0.08),
)
_WHITE: Rgb = (0.70, 0.70, 0.68)
_BLACK: Rgb = (0.03, 0.03, 0.03)


def draw_pole(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, kind: str) -> None:
    """Draw one of `POLES`; what hangs on a pole is pole."""
    POLES[kind](
        CutOut(canvas, light, POLE, x, z), dice, dice.pick(_METALS) if dice.chance(0.8) else paint(dice)
    )


def draw_obstacle(canvas: Canvas, dice: Dice, light: Light, x: float, z: float, kind: str) -> None:
    """Draw one of `OBSTACLES`: something that a wheelchair or a robot must drive around."""
    OBSTACLES[kind](CutOut(canvas, light, OBSTACLE, x, z), dice, paint(dice, sober=0.15, vivid=0.6))


def cast_pole(canvas: Canvas, light: Light, x: float, z: float) -> None:
    """Cast a pole's long thin shadow."""
    cast_disc(canvas, light, x, z, 0.09, 0.0, 4.0)
    darken_under(canvas, x, z, 0.25, 0.15, 0.5)


def cast_obstacle(canvas: Canvas, light: Light, x: float, z: float) -> None:
    """Cast an obstacle's shadow."""
    cast_box(
        canvas,
        light,
        ((x - 0.35, z - 0.3), (x + 0.35, z - 0.3), (x + 0.35, z + 0.3), (x - 0.35, z + 0.3)),
        0.8,
    )
    darken_under(canvas, x, z, 0.6, 0.45, 0.6)


# -- poles -------------------------------------------------------------------------------------------------------------


def _lamp(pole: CutOut, dice: Dice, color: Rgb) -> None:
    height, arm, side = dice(4.0, 6.5), dice(0.6, 1.4), dice.side()
    _shaft(pole, color, height, dice(0.20, 0.26), dice(0.13, 0.17))
    _shaft(pole, dark(color, 0.9), 0.9, 0.28, 0.26)
    pole.limb((0, height), (side * arm, height + 0.25), 0.10, 0.08, pole.ink(color))
    head = (side * (arm - 0.1), height + 0.24), (side * (arm + 0.5), height + 0.3)
    pole.limb(*head, 0.2, 0.14, pole.ink(dark(color, 0.7)))


def _sign(pole: CutOut, dice: Dice, color: Rgb) -> None:
    """One or two plates: discs, triangles, squares."""
    height = dice(2.3, 3.0)
    _shaft(pole, color, height, 0.16, 0.16)
    for level in (0.0, 0.75)[: dice.count(1, 2)]:
        y, r = height - 0.3 - level, dice(0.30, 0.40)
        white = pole.ink(_WHITE)
        accent = pole.ink(
            dice.pick(((0.5, 0.03, 0.03), (0.04, 0.12, 0.42), (0.6, 0.42, 0.04), (0.05, 0.25, 0.12)))
        )
        shape = dice.pick(("disc", "triangle", "square"))
        if shape == "disc":
            pole.blob(_ROUND, (0, y), (r, r), accent)
            pole.blob(_ROUND, (0, y), (r * 0.72, r * 0.72), white)
            pole.limb((-r * 0.4, y), (r * 0.4, y), 0.1, 0.1, accent)
        elif shape == "triangle":
            pole.shape(((-r, y - r * 0.7), (0, y + r), (r, y - r * 0.7)), accent)
            pole.shape(((-r * 0.6, y - r * 0.5), (0, y + r * 0.6), (r * 0.6, y - r * 0.5)), white)
        else:
            tall = r * dice(0.8, 1.3)
            _plate(pole, 0, y, r, tall, white)
            _plate(pole, 0, y, r * 0.88, tall * 0.88, accent)
            pole.limb((0, y - tall * 0.5), (0, y + tall * 0.5), 0.12, 0.12, white)


def _signal(pole: CutOut, dice: Dice, color: Rgb) -> None:
    height = dice(2.8, 3.6)
    _shaft(pole, color, height, 0.20, 0.18)
    _plate(pole, 0, height - 0.45, 0.2, 0.5, pole.ink((0.02, 0.02, 0.02)))
    on = dice.count(0, 2)
    lamps: tuple[Rgb, ...] = ((0.75, 0.03, 0.02), (0.7, 0.4, 0.02), (0.05, 0.6, 0.25))
    for i, lamp in enumerate(lamps):
        part = pole.ink(dark(lamp, 1.0 if i == on else 0.12))
        pole.blob(_ROUND, (0.0, height - 0.15 - 0.3 * i), (0.11, 0.11), part)


def _mast(pole: CutOut, dice: Dice, color: Rgb) -> None:
    """A wooden mast, perhaps with cross-arms."""
    height = dice(6, 8)
    _shaft(pole, dice.pick(((0.20, 0.13, 0.08), (0.14, 0.11, 0.08), (0.36, 0.34, 0.31))), height, 0.30, 0.22)
    for level in (0.3, 0.9)[: dice.count(0, 2)]:
        pole.limb((-0.8, height - level), (0.8, height - level), 0.11, 0.11, pole.ink((0.10, 0.08, 0.06)))


def _shaft(pole: CutOut, color: Rgb, height: float, low: float, high: float) -> None:
    """A round shaft: one side in the light, the other away from it."""
    b = pole.bright
    pole.limb((0, 0), (0, height), low, high, pole.ink(color))
    lit, unlit = pole.ink(dark(color, 1.15), facing=0.9 * b), pole.ink(dark(color, 0.7), facing=-0.9 * b)
    pole.limb((b * low * 0.27, 0), (b * high * 0.27, height), low * 0.45, high * 0.45, lit)
    pole.limb((-b * low * 0.36, 0), (-b * high * 0.36, height), low * 0.26, high * 0.26, unlit)


# -- obstacles ---------------------------------------------------------------------------------------------------------


def _bin(thing: CutOut, dice: Dice, color: Rgb) -> None:
    tall, yaw = dice(0.9, 1.25), dice(-0.5, 0.5)
    _solid(thing, (0.55, 0.55, tall), color, yaw=yaw, taper=1.15)
    _solid(thing, (0.68, 0.68, 0.09), dark(paint(dice), 0.8), yaw=yaw, lift=tall)
    _plate(thing, -0.24, 0.07, 0.06, 0.07, thing.ink((0.02, 0.02, 0.02)))


def _cone(thing: CutOut, dice: Dice, color: Rgb) -> None:
    tall = dice(0.6, 0.95)
    _plate(thing, 0, 0.03, 0.30, 0.03, thing.ink((0.55, 0.13, 0.03)))
    thing.shape(((-0.21, 0.06), (-0.04, tall), (0.04, tall), (0.21, 0.06)), thing.ink((0.70, 0.17, 0.03)))
    for low in (0.30, 0.62):
        wide, y0, y1 = 0.21 - 0.17 * low, low * tall, (low + 0.17) * tall
        thing.shape(((-wide, y0), (-wide + 0.03, y1), (wide - 0.03, y1), (wide, y0)), thing.ink(_WHITE))


def _barrier(thing: CutOut, dice: Dice, color: Rgb) -> None:
    """A road-works barrier: two feet, and planks with slanting stripes; what is seen between them is barrier."""
    half, white, grey = dice(0.6, 0.85), thing.ink(_WHITE), thing.ink((0.20, 0.20, 0.20))
    red = thing.ink(dice.pick(((0.55, 0.05, 0.03), (0.60, 0.30, 0.03))))
    for x in (-half * 0.75, half * 0.75):
        thing.limb((x, 0), (x, 1.0), 0.08, 0.08, grey)
        thing.limb((x - 0.25, 0.04), (x + 0.25, 0.04), 0.09, 0.09, grey)
    thing.veil(((-half, 0.30), (-half, 1.0), (half, 1.0), (half, 0.30)), (0.25, 0.25, 0.25), 0.4)
    for low, high in ((0.70, 1.02), (0.30, 0.52)):
        _plate(thing, 0, (low + high) / 2, half, (high - low) / 2, white)
        for i in range(5):
            x = -half + (i + 0.15) * half * 0.4
            over, wide = min(x + 0.12, half), half * 0.2
            thing.shape(((x, low), (over, high), (min(over + wide, half), high), (x + wide, low)), red)


def _box(thing: CutOut, dice: Dice, color: Rgb) -> None:
    """Cardboard, one or two."""
    size, yaw = (dice(0.5, 0.9), dice(0.5, 0.9), dice(0.4, 0.8)), dice(-0.5, 0.5)
    card = dice.pick(((0.36, 0.25, 0.14), (0.42, 0.31, 0.19), color))
    _solid(thing, size, card, yaw=yaw)
    if dice.chance(0.6):
        _solid(thing, (0.45, 0.45, 0.35), dark(card, 1.15), yaw=-yaw, lift=size[2])


def _cabinet(thing: CutOut, dice: Dice, color: Rgb) -> None:
    grey: Rgb = (0.30, 0.31, 0.28)
    _solid(thing, (0.45, 0.95, dice(1.0, 1.4)), dice.pick((color, grey)), yaw=dice(-0.25, 0.25))
    thing.limb((0.0, 0.15), (0.0, 0.95), 0.03, 0.03, thing.ink(_BLACK))


def _hydrant(thing: CutOut, dice: Dice, color: Rgb) -> None:
    red = dice.pick(((0.45, 0.04, 0.03), (0.55, 0.38, 0.03), color))
    thing.limb((0, 0), (0, 0.66), 0.34, 0.34, thing.ink(red))
    thing.limb(
        (0.085 * thing.bright, 0),
        (0.085 * thing.bright, 0.66),
        0.17,
        0.17,
        thing.ink(red, facing=0.8 * thing.bright),
    )
    thing.blob(_ROUND, (0.0, 0.68), (0.17, 0.13), thing.ink(red))
    thing.limb((-0.28, 0.48), (0.28, 0.48), 0.15, 0.15, thing.ink(dark(red, 0.8)))
    _plate(thing, 0, 0.04, 0.23, 0.04, thing.ink(dark(red, 0.7)))


def _bags(thing: CutOut, dice: Dice, color: Rgb) -> None:
    for x, size in ((-0.32, 0.36), (0.34, 0.38), (0.02, 0.44)):
        cloth: Rgb = dice.pick(
            ((0.02, 0.02, 0.025), (0.06, 0.10, 0.22), (0.45, 0.45, 0.44), (0.10, 0.09, 0.08))
        )
        thing.blob(crown(dice, 0.08), (x, size * 0.85), (size, size * 0.9), thing.ink(cloth))
        gleam = (x + 0.12 * thing.bright, size * 1.1)
        thing.blob(crown(dice, 0.1), gleam, (size * 0.35, size * 0.4), thing.ink(dark(cloth, 1.9)))


def _planter(thing: CutOut, dice: Dice, color: Rgb) -> None:
    """A tub; what grows in it is vegetation."""
    stone = dice.pick(((0.42, 0.40, 0.37), (0.30, 0.14, 0.09), (0.14, 0.10, 0.07)))
    _solid(thing, (0.8, 1.1, 0.55), stone, yaw=dice(-0.25, 0.25), taper=1.08)
    green, k, z = leaf_color(dice), thing.pixels_per_metre, thing.at[1]
    for x, y in ((-0.25, 0.72), (0.28, 0.70), (0.0, 0.82)):
        lit = thing.lit(dark(green, dice(0.8, 1.2)), (0.0, 0.6, -0.7))
        leaves = (thing.foot_row - (y + 0.3) * k, 0.6 * k, 0.9)
        thing.blob(
            crown(dice, 0.25), (x, y), (0.32, 0.28), thing.canvas.part(VEGETATION, lit, z, LEAVES, leaves)
        )


def _bench(thing: CutOut, dice: Dice, color: Rgb) -> None:
    """A bench; what is seen through it is bench."""
    wood = dice.pick(((0.24, 0.13, 0.06), (0.34, 0.22, 0.12), (0.12, 0.14, 0.10)))
    thing.veil(((-0.75, 0.0), (-0.75, 0.8), (0.75, 0.8), (0.75, 0.0)), (0.06, 0.06, 0.06), 0.35)
    for x in (-0.65, 0.65):
        thing.limb((x, 0), (x, 0.85), 0.08, 0.06, thing.ink((0.05, 0.05, 0.055)))
    for y, level in ((0.80, 1.0), (0.65, 0.9), (0.44, 1.15), (0.38, 0.7)):
        thing.limb((-0.8, y), (0.8, y), 0.11, 0.11, thing.ink(dark(wood, level)))


def _solid(
    thing: CutOut,
    size: tuple[float, float, float],
    color: Rgb,
    *,
    yaw: float = 0.0,
    lift: float = 0.0,
    taper: float = 1.0,
) -> None:
    draw_box(
        thing.canvas,
        thing.light,
        OBSTACLE,
        at=thing.at,
        size=size,
        color=color,
        yaw=yaw,
        lift=lift,
        taper=taper,
    )


def _plate(thing: CutOut, x: float, y: float, half_wide: float, half_high: float, part: int) -> None:
    left, right, low, high = x - half_wide, x + half_wide, y - half_high, y + half_high
    thing.shape(((left, low), (left, high), (right, high), (right, low)), part)


POLES: Mapping[str, Callable[[CutOut, Dice, Rgb], None]] = {
    "lamp": _lamp,
    "sign": _sign,
    "signal": _signal,
    "mast": _mast,
}
OBSTACLES: Mapping[str, Callable[[CutOut, Dice, Rgb], None]] = {
    "bin": _bin,
    "cone": _cone,
    "barrier": _barrier,
    "box": _box,
    "cabinet": _cabinet,
    "hydrant": _hydrant,
    "bags": _bags,
    "planter": _planter,
    "bench": _bench,
}
