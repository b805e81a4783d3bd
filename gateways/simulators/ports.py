"""Ships of the demo city: AIS position and static reports along lanes, at anchor and at berth."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from random import Random

from core.clock import MICROSECONDS
from domains.ports import wire
from gateways.simulators.city import METRES_PER_DEGREE, dice, offset

SHIPS = 60
BERTHED, ANCHORED = 20, 10
METRES_A_KNOT_SECOND = 0.514444
MMSI_FIRST = 431_900_101
UNDER_WAY, AT_ANCHOR, MOORED, FISHING = 0, 1, 5, 7
MOVING_SECONDS, STILL_SECONDS, STATIC_SECONDS = 10, 60, 360

Point = tuple[float, float]

HARBOUR_MOUTH: Point = (138.5270, 35.0330)
# Each lane runs from the harbour to where ships leave the picture, and back.
LANES: tuple[tuple[Point, ...], ...] = (
    ((138.5020, 35.0240), (138.5120, 35.0290), HARBOUR_MOUTH, (138.5700, 35.0300),
     (138.6100, 34.9300), (138.5900, 34.7600), (138.4200, 34.5200)),
    ((138.5010, 35.0270), (138.5140, 35.0320), HARBOUR_MOUTH, (138.5800, 35.0250),
     (138.6800, 34.9700), (138.7450, 34.9250)),
    ((138.5060, 35.0210), (138.5150, 35.0300), HARBOUR_MOUTH, (138.5700, 35.0500),
     (138.6400, 35.0850), (138.6900, 35.1150)),
    ((138.5000, 35.0300), (138.5160, 35.0350), (138.5500, 35.0450), (138.6000, 35.0500),
     (138.6400, 34.9900), (138.6200, 34.8800), (138.6500, 34.7000), (138.6000, 34.5000)),
)  # fmt: skip
FISHING_GROUNDS: tuple[Point, ...] = (
    (138.6000, 35.0000), (138.6300, 34.9400), (138.5900, 35.0700), (138.6700, 35.0400),
    (138.6000, 34.8600), (138.7000, 34.9900),
)  # fmt: skip
ANCHORAGE: Point = (138.5480, 35.0480)
QUAY: tuple[Point, Point] = ((138.4985, 35.0200), (138.5010, 35.0330))
FIRST_NAMES = (
    "SUZUKAZE", "ASAGIRI", "MINAMO", "KAIRYU", "TOMOE", "HAGOROMO",
    "SHIOKAZE", "FUJINAMI", "AKEBONO", "MIHO", "SAKURA", "YUNAGI",
)  # fmt: skip
LAST_NAMES = ("MARU", "MARU NO.3", "MARU NO.8", "PIONEER", "EXPRESS")
DESTINATIONS = ("JP SMZ", "JP TYO", "JP NGO", "JP YOK", "KR PUS", "CN SHA")


@dataclass(frozen=True, slots=True)
class Ship:
    """One made-up ship. `lane` is None for one that lies still or fishes around `place`."""

    mmsi: int
    name: str
    kind: int
    length_metres: int
    speed_knots: float
    status: int
    place: Point
    lane: tuple[Point, ...] | None
    phase_metres: float

    @property
    def report_seconds(self) -> int:
        """How often it tells its position."""
        return STILL_SECONDS if self.status in (MOORED, AT_ANCHOR) else MOVING_SECONDS


@cache
def ships() -> tuple[Ship, ...]:
    """The fleet: at berth, at anchor, fishing, and on the lanes."""
    random = dice(1)
    fleet = []
    for index in range(SHIPS):
        name = f"{FIRST_NAMES[index % 12]} {LAST_NAMES[index // 12]}"
        status, lane, place, speed, kind = _role(index, random)
        fleet.append(
            Ship(
                mmsi=MMSI_FIRST + index * 7,
                name=name,
                kind=kind,
                length_metres=18 if kind == 30 else random.randrange(70, 300, 5),  # noqa: PLR2004
                speed_knots=speed,
                status=status,
                place=place,
                lane=lane,
                phase_metres=random.uniform(0, 150_000),
            )
        )
    return tuple(fleet)


def _role(index: int, random: Random) -> tuple[int, tuple[Point, ...] | None, Point, float, int]:
    """(status, lane, place, knots, AIS ship type) by number."""
    if index < BERTHED:
        share = index / (BERTHED - 1)
        begin, end = QUAY
        place = (begin[0] + (end[0] - begin[0]) * share, begin[1] + (end[1] - begin[1]) * share)
        return MOORED, None, place, 0.0, random.choice((70, 71, 80, 60))
    if index < BERTHED + ANCHORED:
        place = offset(*ANCHORAGE, random.uniform(-2500, 2500), random.uniform(-1200, 1200))
        return AT_ANCHOR, None, place, 0.0, random.choice((70, 80))
    if index % 3 == 0:
        place = random.choice(FISHING_GROUNDS)
        return FISHING, None, place, random.uniform(2.5, 5.0), 30
    lane = LANES[index % len(LANES)]
    return UNDER_WAY, lane, lane[0], random.uniform(8.0, 17.0), random.choice((70, 71, 60, 80))


@dataclass(frozen=True, slots=True)
class Fix:
    """Where a ship is, and how it moves: degrees, degrees true, knots."""

    longitude: float
    latitude: float
    course: float
    knots: float


def fix_at(ship: Ship, time_us: int) -> Fix:
    """The ship's position at a time."""
    seconds = time_us / MICROSECONDS
    if ship.lane is not None:
        return _on_lane(ship, seconds)
    if ship.status == FISHING:
        return _around(ship, seconds)
    # At berth or anchor: a few metres of swing, so that the map shows a live ship.
    radius = 2.0 if ship.status == MOORED else 40.0
    angle = (seconds / 900 + ship.mmsi) % math.tau
    place = offset(*ship.place, radius * math.sin(angle), radius * math.cos(angle))
    return Fix(*place, math.degrees(angle), 0.0)


def _around(ship: Ship, seconds: float) -> Fix:
    radius = 900.0 + ship.mmsi % 700
    speed = ship.speed_knots * METRES_A_KNOT_SECOND
    angle = ((speed * seconds + ship.phase_metres) / radius) % math.tau
    place = offset(*ship.place, radius * math.sin(angle), radius * math.cos(angle))
    return Fix(*place, (math.degrees(angle) + 90) % 360, ship.speed_knots)


def _on_lane(ship: Ship, seconds: float) -> Fix:
    """Out and back along the lane at an even speed."""
    lane = ship.lane or ()
    legs = [(a, b, distance_metres(a, b)) for a, b in pairwise(lane)]
    total = sum(length for _, _, length in legs)
    travelled = ship.speed_knots * METRES_A_KNOT_SECOND * seconds + ship.phase_metres
    along = travelled % (2 * total)
    back = along > total
    left = 2 * total - along if back else along
    begin, end, length = legs[-1]
    for begin, end, length in legs:  # noqa: B007 (the leg it ends on is what is looked for)
        if left <= length:
            break
        left -= length
    share = min(1.0, left / length)
    course = bearing_degrees(begin, end)
    return Fix(
        begin[0] + (end[0] - begin[0]) * share,
        begin[1] + (end[1] - begin[1]) * share,
        (course + 180) % 360 if back else course,
        ship.speed_knots,
    )


def distance_metres(begin: Point, end: Point) -> float:
    """Between two points some kilometres apart."""
    east = (end[0] - begin[0]) * math.cos(math.radians((begin[1] + end[1]) / 2))
    return math.hypot(east, end[1] - begin[1]) * METRES_PER_DEGREE


def bearing_degrees(begin: Point, end: Point) -> float:
    """Degrees true from one point to a near one."""
    east = (end[0] - begin[0]) * math.cos(math.radians((begin[1] + end[1]) / 2))
    return math.degrees(math.atan2(east, end[1] - begin[1])) % 360


def position_line(ship: Ship, time_us: int) -> str:
    """The ship's AIS position report with its time in a tag block."""
    fix = fix_at(ship, time_us)
    return wire.position_report(
        ship.mmsi,
        longitude=fix.longitude,
        latitude=fix.latitude,
        speed_knots=fix.knots,
        course=fix.course,
        heading=fix.course,
        status=ship.status,
        moment_us=time_us,
        channel="AB"[ship.mmsi % 2],
    )


def static_lines(ship: Ship, time_us: int) -> list[str]:
    """The ship's static and voyage report: two lines that belong together."""
    half = ship.length_metres // 2
    return wire.static_report(
        ship.mmsi,
        ship.name,
        callsign=f"7J{ship.mmsi % 10_000:04d}",
        imo=0 if ship.kind == 30 else 9_800_000 + ship.mmsi % 10_000,  # noqa: PLR2004
        ship_type=ship.kind,
        dimensions=(
            half,
            ship.length_metres - half,
            ship.length_metres // 14,
            ship.length_metres // 14,
        ),
        draught=round(ship.length_metres / 28, 1),
        destination=DESTINATIONS[ship.mmsi % len(DESTINATIONS)],
        moment_us=time_us,
        sequence=ship.mmsi // 7 % 10,
    )
