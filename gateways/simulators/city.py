"""Where things stand in the demo city: a street grid on the plain, fields inland, lanes at sea."""

import math
from dataclasses import dataclass
from functools import cache
from random import Random

from core.clock import MICROSECONDS

SEED = 35_138
METRES_PER_DEGREE = 111_195.0

# The grid's north-east corner, by the harbour; it runs west and south from there, turned a little
# to follow the shore.
GRID_CORNER = (138.4868, 35.0440)
GRID_TURN_DEGREES = -7.0
COLUMNS, ROWS = 16, 21
COLUMN_METRES, ROW_METRES = 250.0, 235.0
JITTER_METRES = 35.0
INTERSECTIONS = 300


@dataclass(frozen=True, slots=True)
class Crossing:
    """One signalised intersection; `column` counts avenues from the shore, `row` streets south."""

    number: int
    column: int
    row: int
    longitude: float
    latitude: float
    name: str

    @property
    def district(self) -> int:
        """Which of the four district controllers serves it: 0 to 3, north-east first."""
        return (2 if self.row >= ROWS // 2 else 0) + (1 if self.column >= COLUMNS // 2 else 0)


def offset(
    longitude: float, latitude: float, east_metres: float, north_metres: float
) -> tuple[float, float]:
    """The point so many metres east and north (plane near the point, good to some kilometres)."""
    per_longitude = METRES_PER_DEGREE * math.cos(math.radians(latitude))
    return (longitude + east_metres / per_longitude, latitude + north_metres / METRES_PER_DEGREE)


def turned(east: float, north: float, degrees: float) -> tuple[float, float]:
    """A vector turned clockwise."""
    angle = math.radians(degrees)
    return (
        east * math.cos(angle) + north * math.sin(angle),
        north * math.cos(angle) - east * math.sin(angle),
    )


def dice(number: int) -> Random:
    """Random numbers that are the same on every run: a city is drawn with them, no secret."""
    return Random(SEED * 1_000_003 + number)  # noqa: S311


def noise(number: int, slot: int) -> float:
    """An even number in -1..1 for a device and a moment: the same whenever it is asked for."""
    mixed = (number * 0x9E3779B1 ^ slot * 0x85EBCA77) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return (mixed ^ mixed >> 15) / 0x7FFFFFFF - 1.0


def hour_of_day(time_us: int) -> float:
    """Hours since midnight in Japan (UTC+9, no summer time)."""
    return (time_us / MICROSECONDS / 3600 + 9) % 24


def day_wave(time_us: int, peak_hour: float) -> float:
    """-1..1 over a day, highest at the peak hour."""
    return math.cos((hour_of_day(time_us) - peak_hour) / 24 * math.tau)


@cache
def crossings() -> tuple[Crossing, ...]:
    """The signalised intersections of the grid, numbered from 1001; some corners have no signal."""
    random = dice(0)
    places = [(column, row) for row in range(ROWS) for column in range(COLUMNS)]
    kept = sorted(random.sample(places, INTERSECTIONS), key=lambda place: (place[1], place[0]))
    found = []
    for index, (column, row) in enumerate(kept):
        east = -column * COLUMN_METRES + random.uniform(-JITTER_METRES, JITTER_METRES)
        north = -row * ROW_METRES + random.uniform(-JITTER_METRES, JITTER_METRES)
        longitude, latitude = offset(*GRID_CORNER, *turned(east, north, GRID_TURN_DEGREES))
        name = f"Minato {column + 1}-{row + 1}"
        found.append(
            Crossing(1001 + index, column, row, round(longitude, 7), round(latitude, 7), name)
        )
    return tuple(found)
