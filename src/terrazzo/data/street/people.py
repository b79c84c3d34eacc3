"""People: standing, walking, seen from the front, the back or the side; and the riders of bicycles."""

from terrazzo.data.street.canvas import PERSON, Canvas, Rgb, circle
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.ground import cast_disc, darken_under
from terrazzo.data.street.light import Light
from terrazzo.data.street.stand import CutOut, dark, paint

_SKIN: tuple[Rgb, ...] = (
    (0.52, 0.32, 0.23),
    (0.44, 0.25, 0.16),
    (0.27, 0.14, 0.08),
    (0.14, 0.07, 0.04),
    (0.58, 0.38, 0.28),
)
_HAIR: tuple[Rgb, ...] = (
    (0.02, 0.02, 0.02),
    (0.08, 0.05, 0.03),
    (0.20, 0.12, 0.05),
    (0.36, 0.26, 0.12),
    (0.35, 0.34, 0.33),
)
_TROUSERS: tuple[Rgb, ...] = (
    (0.03, 0.05, 0.11),
    (0.02, 0.02, 0.025),
    (0.10, 0.14, 0.22),
    (0.12, 0.12, 0.12),
    (0.30, 0.25, 0.17),
)
_ROUND = circle(12)


def draw_person(canvas: Canvas, dice: Dice, light: Light, x: float, z: float) -> None:
    """Draw a person on foot, between a child and a tall adult, with the things people wear and carry."""
    tall = dice(1.0, 1.35) if dice.chance(0.12) else dice(1.58, 1.92)
    figure = CutOut(canvas, light, PERSON, x, z, scale=tall, squeeze=dice(1.0, 1.2))
    top, trousers = (
        paint(dice),
        dark(dice.pick(_TROUSERS) if dice.chance(0.75) else paint(dice), dice(0.7, 1.3)),
    )
    skin, hair = dice.pick(_SKIN), dice.pick(_HAIR)
    sideways, walking, way = dice.chance(0.5), dice.chance(0.7), dice.side()
    stride = dice(0.10, 0.19) if walking else dice(0.02, 0.05)
    hip = 0.07 if sideways else 0.09
    shoulder = 0.085 if sideways else 0.13
    feet = (
        [(stride, 0.02), (-stride, 0.03)]
        if sideways
        else [(hip * 0.8, 0.02), (-hip * 0.8, 0.02 + 0.35 * stride)]
    )
    legs = [figure.ink(trousers), figure.ink(dark(trousers, 0.65))]
    shoe = figure.ink(dark(paint(dice), 0.6))
    sleeve, sleeve_far, hand = figure.ink(dark(top, 0.92)), figure.ink(dark(top, 0.62)), figure.ink(skin)

    def arm(side: int, part: int) -> None:
        swing = -side * stride * 1.1 if sideways else side * 0.05
        start = (0.0 if sideways else side * shoulder * 0.95, 0.80)
        elbow, wrist = (start[0] + swing * 0.5, 0.62), (start[0] + swing, 0.47)
        figure.limb(start, elbow, 0.085, 0.072, part)
        figure.limb(elbow, wrist, 0.072, 0.055, part)
        figure.blob(_ROUND, wrist, (0.026, 0.03), hand)

    arm(-1, sleeve_far)
    for foot, leg in ((feet[1], legs[1]), (feet[0], legs[0])):
        start = (0.0, 0.50) if sideways else (foot[0] * 0.75, 0.50)
        knee = ((start[0] + foot[0]) / 2 + (0.02 * way if sideways else 0.0), 0.27)
        figure.limb(start, knee, 0.135, 0.10, leg)
        figure.limb(knee, foot, 0.10, 0.065, leg)
        figure.limb(
            (foot[0] - 0.02 * way, foot[1] + 0.005),
            (foot[0] + 0.055 * way, foot[1] - 0.005),
            0.05,
            0.035,
            shoe,
        )
    hem = 0.46
    if dice.chance(0.25):  # a coat or a dress
        hem = dice(0.26, 0.38)
        figure.shape(
            [(-hip * 1.1, 0.56), (hip * 1.1, 0.56), (hip * 1.6, hem), (-hip * 1.6, hem)],
            figure.ink(dark(top, 0.9)),
        )
    body = [(-hip, 0.46), (-shoulder, 0.74), (-shoulder * 0.8, 0.82), (-0.03, 0.85), (0.03, 0.85),
            (shoulder * 0.8, 0.82), (shoulder, 0.74), (hip, 0.46)]  # fmt: skip
    figure.shape(body, figure.ink(top))
    b = figure.bright
    lit = [
        (0.02 * b, 0.46),
        (0.02 * b, 0.84),
        (b * shoulder * 0.8, 0.82),
        (b * shoulder, 0.74),
        (b * hip, 0.46),
    ]
    figure.shape(lit, figure.ink(top, facing=0.7 * b))
    if dice.chance(0.3):
        _bag(figure, dice, sideways, way, shoulder)
    arm(1, sleeve)
    figure.limb((0, 0.83), (0, 0.88), 0.05, 0.045, hand)
    figure.blob(_ROUND, (0.008 * way, 0.925), (0.052, 0.068), figure.ink(skin))
    figure.blob(_ROUND, (-0.02 * b, 0.92), (0.03, 0.055), figure.ink(dark(skin, 0.8)))
    if dice.chance(0.35):  # from behind, or a cap
        figure.blob(
            _ROUND, (0.0, 0.935), (0.056, 0.066), figure.ink(hair if dice.chance(0.7) else paint(dice))
        )
    else:
        figure.shape(
            [(-0.056, 0.93), (-0.05, 0.98), (0.0, 1.0), (0.05, 0.98), (0.056, 0.94), (0.02, 0.965)],
            figure.ink(hair),
        )
        if dice.chance(0.3):
            figure.limb((-0.04 * way, 0.97), (-0.05 * way, 0.83), 0.05, 0.05, figure.ink(dark(hair, 0.9)))


def draw_rider(figure: CutOut, dice: Dice, way: int) -> None:
    """Draw the person on a bicycle; `figure` stands where the bicycle does, `way` is where it heads."""
    top, trousers, skin = paint(dice), dice.pick(_TROUSERS), dice.pick(_SKIN)
    hip, neck = (-0.22 * way, 0.98), (0.10 * way, 1.46)
    far, near, sleeve = figure.ink(dark(trousers, 0.65)), figure.ink(trousers), figure.ink(dark(top, 0.85))
    up = dice.chance(0.5)
    for knee, foot, part in (
        ((0.16 * way, 0.80), (0.02 * way, 0.42), far),
        ((0.12 * way, 0.62 + 0.1 * up), (-0.04 * way, 0.22), near),
    ):
        figure.limb(hip, knee, 0.19, 0.14, part)
        figure.limb(knee, foot, 0.14, 0.09, part)
        figure.limb(foot, (foot[0] + 0.14 * way, foot[1] - 0.02), 0.08, 0.06, figure.ink((0.03, 0.03, 0.03)))
    figure.limb((hip[0], hip[1] - 0.06), neck, 0.30, 0.34, figure.ink(top))
    figure.limb(
        (hip[0] + 0.05 * figure.bright, hip[1]),
        (neck[0] + 0.05 * figure.bright, neck[1]),
        0.13,
        0.15,
        figure.ink(top, facing=0.7 * figure.bright),
    )
    figure.limb((neck[0], neck[1] - 0.06), (0.30 * way, 1.18), 0.12, 0.10, sleeve)
    figure.limb((0.30 * way, 1.18), (0.44 * way, 1.04), 0.10, 0.08, sleeve)
    figure.blob(_ROUND, (0.46 * way, 1.04), (0.05, 0.05), figure.ink(skin))
    head = (0.20 * way, 1.62)
    figure.limb((neck[0], neck[1]), head, 0.10, 0.09, figure.ink(skin))
    figure.blob(_ROUND, head, (0.10, 0.125), figure.ink(skin))
    helmet = paint(dice) if dice.chance(0.6) else dice.pick(_HAIR)
    figure.shape(
        [
            (head[0] - 0.125, 1.64),
            (head[0] - 0.09, 1.74),
            (head[0], 1.78),
            (head[0] + 0.09, 1.74),
            (head[0] + 0.12, 1.66),
        ],
        figure.ink(helmet),
    )


def cast_person(canvas: Canvas, light: Light, x: float, z: float, height: float = 1.7) -> None:
    """Cast a person's shadow."""
    cast_disc(canvas, light, x, z, 0.22, 0.0, height)
    darken_under(canvas, x, z, 0.38, 0.22, 0.55)


def _bag(figure: CutOut, dice: Dice, sideways: bool, way: int, shoulder: float) -> None:
    part = figure.ink(dark(paint(dice), 0.8))
    if sideways:
        figure.shape(
            [(-0.06 * way, 0.80), (-0.15 * way, 0.77), (-0.15 * way, 0.58), (-0.05 * way, 0.56)], part
        )
    else:
        side = dice.side()
        figure.shape(
            [
                (side * shoulder, 0.52),
                (side * (shoulder + 0.07), 0.52),
                (side * (shoulder + 0.08), 0.38),
                (side * (shoulder - 0.02), 0.38),
            ],
            part,
        )
