"""How far what is disclosed is reduced: one ladder of five levels, of time and place together.

One ladder, because the least strict of several grants must be one of them: with time and place
apart, taking back one of two grants could show a time more exactly than before. Places are cells of
the standard grid square code (JIS X 0410), whose centre is told.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Level:
    """One step: `seconds` of time, and a cell's height and width in degrees; zeros are exact."""

    name: str
    seconds: int
    latitude_degrees: float
    longitude_degrees: float


LEVELS = (
    Level("exact", 0, 0.0, 0.0),
    Level("minute", 60, 3 / 3600, 4.5 / 3600),  # 100 m: a tenth of the standard grid square
    Level("quarter", 900, 15 / 3600, 22.5 / 3600),  # 500 m: half of it
    Level("hour", 3600, 30 / 3600, 45 / 3600),  # 1 km: the standard grid square
    Level("day", 86400, 5 / 60, 7.5 / 60),  # 10 km: the secondary grid square
)
"""From exact to coarsest, as consent.level has them. One observation is shown of each step of time
that is over: its last one. Steps nest, and are counted from midnight in Japan."""
NUMBERS = {level.name: number for number, level in enumerate(LEVELS)}
