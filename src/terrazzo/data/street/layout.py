"""What stands where: a street is laid out across (zones), along (houses, trees, poles, cars), and then peopled.

Positions are metres from the camera: x across the street, z along it. The same street is drawn at all sizes of one
shape.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from terrazzo.data.street.canvas import ROAD, SIDEWALK, VEGETATION, Camera, Canvas, Rgb
from terrazzo.data.street.dice import Dice
from terrazzo.data.street.furniture import (
    OBSTACLES,
    POLES,
    cast_obstacle,
    cast_pole,
    draw_obstacle,
    draw_pole,
)
from terrazzo.data.street.ground import (
    Zone,
    cast_box,
    draw_crossing,
    draw_kerb,
    draw_markings,
    draw_patches,
    draw_zone,
    grey,
    paving,
)
from terrazzo.data.street.houses import MASONRY, ROOFS, House, draw_house, draw_skyline
from terrazzo.data.street.light import Light
from terrazzo.data.street.people import cast_person, draw_person
from terrazzo.data.street.plants import cast_plant, draw_bush, draw_tree, leaf_color
from terrazzo.data.street.vehicles import cast_bicycle, cast_car, draw_bicycle, draw_car

SKYLINE = 90.0  # metres to the houses and trees that close the view


@dataclass
class Street:
    """The street across: the road in the middle, and what lies beside it on either side."""

    road: Zone
    zones: list[Zone]
    """All zones, left to right, the road among them."""
    sidewalks: list[Zone]
    walls: tuple[float, float]
    """Where houses begin on the left and on the right."""
    crossing: tuple[float, float] | None
    """A crossing street: (near, far)."""
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    """(x, z, radius) of what stands already."""

    def is_free(self, x: float, z: float, radius: float) -> bool:
        """True when nothing stands within `radius` of (x, z)."""
        return all((x - a) ** 2 + (z - b) ** 2 * 0.5 > (radius + r) ** 2 for a, b, r in self.taken)

    def crosses(self, near: float, far: float) -> bool:
        """True when a stretch of the street meets the crossing."""
        return self.crossing is not None and far > self.crossing[0] - 0.5 and near < self.crossing[1] + 0.5


@dataclass(frozen=True)
class Thing:
    """One thing to draw: everything behind `depth` is drawn before it."""

    depth: float
    draw: Callable[[], None]


def draw_street(canvas: Canvas, dice: Dice, light: Light, street: Street) -> None:
    """Draw a street: its ground, then all that stands on it from far to near."""
    for zone in street.zones:
        draw_zone(canvas, zone)
    stone = grey(dice, 0.16, 0.34)
    for zone in street.sidewalks:
        if zone.left == street.road.right:
            draw_kerb(canvas, zone.left, 1, stone)
        elif zone.right == street.road.left:
            draw_kerb(canvas, zone.right, -1, stone)
    zebra = None
    if street.crossing is not None:
        draw_crossing(canvas, *street.crossing, street.road)
        zebra = street.crossing[0] - 3.2 if dice.chance(0.5) else None
    elif dice.chance(0.25):
        zebra = dice(4, 12)
    draw_markings(canvas, dice, street.road, zebra=zebra)
    draw_patches(canvas, dice, street.zones[1:-1])
    draw_skyline(canvas, dice, light, SKYLINE)
    houses = [house for side in (-1, 1) for house in _houses(dice, street, side)]
    for house in houses:
        near, far, out = house.near, house.far, house.side * house.depth
        corners = ((house.x, near), (house.x, far), (house.x + out, far), (house.x + out, near))
        cast_box(canvas, light, corners, house.height)
    canvas.keep_shade()
    things = [Thing(house.far, partial(draw_house, canvas, dice, light, house)) for house in houses]
    things += _peopled(_Stage(canvas, dice, light, street))
    for thing in sorted(things, key=lambda thing: -thing.depth):
        thing.draw()


def lay_out(dice: Dice) -> tuple[Street, float]:
    """Return a street, and how far (across) the camera stands from the middle of its road, already subtracted."""
    half = dice(2.3, 3.8)
    sides = (True, True) if dice.chance(0.72) else ((True, False) if dice.chance(0.5) else (False, True))
    widths = [dice(2.0, 4.2) if present else 0.0 for present in sides]
    road_kind, road_color = paving(dice, ROAD)
    walk_kind, walk_color = paving(dice, SIDEWALK)
    strips = [dice(0.7, 1.5) if dice.chance(0.22) else 0.0 for _ in sides]
    yards = [dice(0.8, 4.0) if dice.chance(0.45) or not present else 0.0 for present in sides]
    on_road = dice.chance(0.3)
    if on_road:
        eye = dice(-0.5, 0.5) * half
    else:
        side = 0 if (sides[0] and (dice.chance(0.5) or not sides[1])) else 1
        eye = (-1 if side == 0 else 1) * (half + strips[side] + widths[side] * dice(0.35, 0.65))
    grass_kind, grass_color = paving(dice, VEGETATION)
    road = Zone(-half - eye, half - eye, ROAD, road_kind, road_color)
    zones, sidewalks, walls = [road], [], []
    for side in (0, 1):
        way = -1 if side == 0 else 1
        x = way * half - eye
        grass, walk = (VEGETATION, grass_kind, grass_color), (SIDEWALK, walk_kind, walk_color)
        for wide, surface in ((strips[side], grass), (widths[side], walk), (yards[side], grass)):
            if wide <= 0:
                continue
            left, right = (x, x + wide) if way > 0 else (x - wide, x)
            zone = Zone(left, right, *surface)
            zones.insert(len(zones) if way > 0 else 0, zone)
            if surface is walk:
                sidewalks.append(zone)
            x += way * wide
        walls.append(x)
    zones.insert(0, Zone(-80.0, walls[0], VEGETATION, grass_kind, grass_color))  # gardens behind the houses
    zones.append(Zone(walls[1], 80.0, VEGETATION, grass_kind, grass_color))
    crossing = None
    if dice.chance(0.3):
        near = dice(9, 24)
        crossing = (near, near + 2 * half)
    return Street(road, zones, sidewalks, (walls[0], walls[1]), crossing), eye


def place_camera(dice: Dice, size_hw: tuple[int, int], eye: float) -> Camera:
    """Return a camera at eye height (a robot's, a rider's, a pedestrian's), turned a little towards the road."""
    height, width = size_hw
    across = math.sqrt(height * width) * 0.5 + min(height, width) * 0.5  # between square and any other shape
    focal = across * dice(0.85, 1.15)
    towards = -0.10 * math.copysign(1.0, eye) if abs(eye) > 2 else 0.0  # the road lies there: look at it
    x0 = width * (0.5 - towards * dice(-0.3, 2.2) + dice(-0.12, 0.12))
    y0 = height * dice(0.33, 0.5)
    bend = dice(-0.012, 0.012) if dice.chance(0.55) else 0.0
    return Camera(size_hw, focal, x0, y0, dice(1.15, 1.9), bend)


def _houses(dice: Dice, street: Street, side: int) -> list[House]:
    """Line one side of the street with houses, gaps and low walls."""
    wall = street.walls[0 if side < 0 else 1]
    houses, z = [], dice(-6.0, 2.0)
    terrace = dice(0.55, 1.0)  # how densely built
    while z < 62:
        long = dice(5, 15)
        if street.crosses(z, z + long) and street.crossing is not None:
            stop = street.crossing[0] - 0.6
            if stop - z < 3:
                z = street.crossing[1] + dice(0.5, 2)
                continue
            long = stop - z
        color = dice.pick(MASONRY)
        level = dice(0.8, 1.2)
        color = (color[0] * level, color[1] * level, color[2] * level)
        setback = side * (dice(0.0, 1.5) if dice.chance(0.3) else 0.0)
        is_brick = dice.chance(0.55)
        if dice.chance(terrace):
            height, deep = 1.0 + 3.1 * dice.count(1, 5), dice(7, 12)
            roof, tiles = dice(1.5, 3.5) if dice.chance(0.6) else 0.0, dice.pick(ROOFS)
            at = (side, wall + setback, z, z + long)
            houses.append(House(*at, height, deep, roof, color, tiles, has_windows=True, is_brick=is_brick))
        elif dice.chance(0.6):  # a garden wall
            at = (side, wall, z, z + long)
            houses.append(
                House(*at, dice(0.9, 2.0), 0.3, 0.0, color, color, has_windows=False, is_brick=is_brick)
            )
        z += long + (dice(1.0, 5.0) if dice.chance(0.25) else 0.0)
    return houses


@dataclass
class _Stage:
    """A street while things are set down on it, none inside another, most of them in view."""

    canvas: Canvas
    dice: Dice
    light: Light
    street: Street
    things: list[Thing] = field(default_factory=list)
    seen: list[tuple[float, float]] = field(default_factory=list)
    """(column, half the width) of what `spot` found places for."""

    def add(
        self, draw: Callable[..., None], x: float, z: float, *more: object, reach: float, **named: object
    ) -> None:
        """Have a thing drawn at (x, z), if any of its `reach` metres to either side is in view."""
        camera = self.canvas.camera
        margin = reach * camera.rows_per_metre(z)
        if -margin < camera.column(x, z) < camera.size_hw[1] + margin:
            draw = partial(draw, self.canvas, self.dice, self.light, x, z, *more, **named)
            self.things.append(Thing(z, draw))

    def spot(self, zones: list[Zone], near: float, far: float, radius: float) -> tuple[float, float] | None:
        """Take a free place (x, z) in one of `zones` that the camera sees; None after sixteen tries.

        The first twelve look for one where nothing else that was set down like this is in front or behind.
        """
        camera, dice = self.canvas.camera, self.dice
        for attempt in range(16):
            zone = dice.pick(zones)
            room = min(radius * 0.6, (zone.right - zone.left) / 3)
            z = near + (far - near) * dice() ** 1.25
            x = dice(zone.left + room, zone.right - room)
            u, metre = camera.column(x, z), camera.rows_per_metre(z)
            if not 0.25 * metre < u < camera.size_hw[1] - 0.25 * metre or not self.street.is_free(
                x, z, radius
            ):
                continue
            half = 0.8 * radius * metre
            if attempt < 12 and any(abs(u - other) < half + wide for other, wide in self.seen):
                continue
            self.street.taken.append((x, z, radius))
            self.seen.append((u, half))
            return x, z
        return None


def _peopled(stage: _Stage) -> list[Thing]:
    """Set down cars, trees, poles, bicycles, obstacles and people, and return them."""
    canvas, dice, light, street = stage.canvas, stage.dice, stage.light, stage.street
    _park_cars(stage)
    _plant(stage)
    _raise_poles(stage)
    walks = street.sidewalks
    for _ in range(dice.count(1, 2)):
        is_ridden = dice.chance(0.3)
        place = stage.spot([street.road] if is_ridden and dice.chance(0.5) else walks, 2.8, 6.5, 0.7)
        if place is not None:
            cast_bicycle(canvas, light, *place, ridden=is_ridden)
            stage.add(draw_bicycle, *place, reach=1.0, ridden=is_ridden)
    for _ in range(dice.count(1, 3)):
        place = stage.spot(walks, 2.6, 6.5, 0.5)
        if place is not None:
            cast_obstacle(canvas, light, *place)
            stage.add(draw_obstacle, *place, dice.pick(tuple(OBSTACLES)), reach=1.0)
    for _ in range(dice.count(2, 4)):
        place = stage.spot([street.road] if dice.chance(0.15) else walks, 2.6, 7.0, 0.35)
        if place is not None:
            cast_person(canvas, light, *place)
            stage.add(draw_person, *place, reach=1.0)
    return stage.things


def _park_cars(stage: _Stage) -> None:
    """Park rows of cars at the kerbs and let a few drive, one across at a crossing."""
    dice, street, road = stage.dice, stage.street, stage.street.road
    places: list[tuple[float, float, float]] = []
    for side, away in ((-1, math.pi), (1, 0.0)):  # traffic keeps right
        kerb = road.left + 1.05 if side < 0 else road.right - 1.05
        if abs(kerb) < 1.4 or not dice.chance(0.62):  # the camera itself stands there
            continue
        density, z = dice(0.4, 0.85), dice(4.2, 8.0)
        while z < 24:
            if dice.chance(density) and not street.crosses(z - 2.5, z + 2.5):
                places.append((kerb + dice(-0.1, 0.1), z, away + dice(-0.04, 0.04)))
            z += dice(5.2, 6.4)
    for _ in range(dice.count(0, 2) if places else dice.count(1, 3)):
        lane = dice.side()
        x = (road.left + road.right) / 2 + lane * (road.right - road.left) * 0.22
        z = dice(6.5, 16)
        if abs(x) > 1.2 or z > 9:
            places.append((x, z, (math.pi if lane < 0 else 0.0) + dice(-0.06, 0.06)))
    if street.crossing is not None and dice.chance(0.5):
        places.append((dice(-5, 5), sum(street.crossing) / 2, dice.side() * math.pi / 2))
    for x, z, yaw in places:
        if all(abs(x - a) > 1.0 + r or abs(z - b) > 3.9 + r for a, b, r in street.taken):
            street.taken.append((x, z, 1.0))
            cast_car(stage.canvas, stage.light, x, z, yaw)
            stage.add(draw_car, x, z, yaw, reach=2.6)


def _plant(stage: _Stage) -> None:
    """Plant a row of trees on a side or two, and bushes where there is grass or a wall."""
    dice, street = stage.dice, stage.street
    color = leaf_color(dice)
    for side in (-1, 1):
        beside = [zone for zone in street.zones[1:-1] if (zone.left + zone.right) * side > 0]
        grass = [zone for zone in beside if zone.class_id == VEGETATION]
        edge = street.walls[0 if side < 0 else 1]
        if dice.chance(0.5):
            row = dice.pick(grass) if grass else None
            x = (row.left + row.right) / 2 if row else edge - side * 0.6
            z, step = dice(5, 11), dice(6, 12)
            while z < 40:
                if not street.crosses(z - 1, z + 1) and dice.chance(0.85) and street.is_free(x, z, 0.4):
                    street.taken.append((x, z, 0.4))
                    cast_plant(stage.canvas, stage.light, x, z, is_tree=True)
                    shade: Rgb = (color[0] * dice(0.8, 1.2), color[1] * dice(0.85, 1.15), color[2])
                    stage.add(draw_tree, x, z, shade, reach=3.0)
                z += step * dice(0.8, 1.2)
        for _ in range(dice.count(1, 6) if grass else dice.count(0, 3)):
            lawn = dice.pick(grass) if grass else None
            x = dice(lawn.left, lawn.right) if lawn else edge - side * 0.45
            z = dice(3.5, 26)
            if not street.crosses(z - 1, z + 1) and street.is_free(x, z, 0.5):
                street.taken.append((x, z, 0.5))
                cast_plant(stage.canvas, stage.light, x, z, is_tree=False)
                stage.add(draw_bush, x, z, leaf_color(dice), reach=1.5)


def _raise_poles(stage: _Stage) -> None:
    """Raise poles along the kerbs: a near one in view, then more at intervals."""
    dice, street = stage.dice, stage.street
    for zone in street.sidewalks if dice.chance(0.5) else street.sidewalks[::-1]:
        x = zone.left + 0.35 if zone.left >= street.road.right else zone.right - 0.35
        z, step = dice(2.8, 6.0), dice(6.0, 11.0)
        kind = dice.pick(tuple(POLES))
        while z < 15:
            if abs(x) > 0.5 and not street.crosses(z, z) and street.is_free(x, z, 0.25):
                street.taken.append((x, z, 0.25))
                cast_pole(stage.canvas, stage.light, x, z)
                stage.add(draw_pole, x, z, kind if dice.chance(0.6) else dice.pick(tuple(POLES)), reach=2.0)
            z += step * dice(0.8, 1.2)
