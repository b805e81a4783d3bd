"""What is around a point: distances, walking, and the port by which each mode says what it has."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consent.gate import PermittedConnection
from domains.mobility.network.names import Languages
from domains.mobility.network.timetable import Float64
from domains.mobility.network.walking import METRES_A_SECOND, Walking

EARTH_METRES = 6_371_008.8
FURTHER_METRES = 1_000.0
"""A way may be so much longer than three times the radius; what is further counts as no way."""


@dataclass(frozen=True, slots=True)
class Around:
    """A circle that somebody asks about, when, and in which languages."""

    longitude: float
    latitude: float
    radius_metres: float
    at: datetime
    languages: Languages
    limit: int


@dataclass(frozen=True, slots=True)
class Found:
    """One station or vehicle that can be used."""

    id: str
    """`feed:id`."""
    mode: str
    """`bicycle`, `scooter`, `car`, ..., as GBFS names form factors."""
    kind: str
    """`station` or `vehicle`."""
    name: str | None
    longitude: float
    latitude: float
    available: dict[str, Any]
    """What can be had: `vehicles`, `docks`, `by_type`, `range_metres`, ... as the mode knows."""
    time: datetime
    """When this was so."""


Source = Callable[[PermittedConnection, Around], list[Found]]
"""What a mode has around a point, at most `limit`; it need not be sorted or cut to the circle."""


def metres(
    longitudes: Float64, latitudes: Float64, longitude: float, latitude: float
) -> NDArray[np.float64]:
    """Great-circle distances on the mean sphere; NaN where a place is."""
    x = np.radians(longitudes - longitude)
    y, y0 = np.radians(latitudes), np.radians(latitude)
    half = np.sin((y - y0) / 2) ** 2 + np.cos(y) * np.cos(y0) * np.sin(x / 2) ** 2
    distance: NDArray[np.float64] = 2 * EARTH_METRES * np.arcsin(np.sqrt(np.minimum(half, 1)))
    return distance


def walk(walking: Walking, around: Around, places: list[dict[str, Any]]) -> None:
    """Add to each place how long one walks there, and whether that is a guess."""
    here = walking.place(np.array([around.longitude]), np.array([around.latitude]))
    there = walking.place(
        np.array([each["longitude"] for each in places], np.float64),
        np.array([each["latitude"] for each in places], np.float64),
    )
    walks = walking.walks(here, there, 3 * around.radius_metres + FURTHER_METRES)
    for each, far, guess in zip(
        places, walks.metres.tolist(), walks.estimated.tolist(), strict=True
    ):
        each["walking_seconds"] = round(far / METRES_A_SECOND) if math.isfinite(far) else None
        each["estimated"] = guess
