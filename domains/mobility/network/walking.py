"""Walking between places: a straight line times a detour, until a network of streets is there.

Distances are metres on foot, times seconds; what comes of a straight line is `estimated`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from domains.mobility.network.timetable import NONE, Float64, Timetable

Int64 = NDArray[np.int64]

EARTH_METRES = 6371008.8
METRES_A_SECOND = 1.25
DETOUR = 1.3
"""How much longer a way on foot is than a straight line: a usual mean of towns."""
CHANGE_SECONDS = 60
"""Least time to change vehicles where transfers.txt says nothing."""
CHANGE_METRES_MAX = 500
"""How far one walks between two vehicles."""
NEIGHBOURS_MAX = 40
"""The nearest stops that one walks to from a stop; further ones in reach are passed over."""
STATION_STOPS_MAX = 200
"""Platforms of a station between which times are worked out; the rest are reached by no rule."""
TIMED, MINIMUM, IMPOSSIBLE = 1, 2, 3
"""transfer_type of transfers.txt; 0 recommends a place to change and promises no time."""
NEVER = 1 << 60


def straight_metres(
    longitude: float | Float64,
    latitude: float | Float64,
    to_longitude: Float64,
    to_latitude: Float64,
) -> Float64:
    """Great circle distances (haversine)."""
    begin, end = np.radians(latitude), np.radians(to_latitude)
    turn = np.radians(to_longitude - np.asarray(longitude))
    half = np.sin((end - begin) / 2) ** 2 + np.cos(begin) * np.cos(end) * np.sin(turn / 2) ** 2
    return np.asarray(2 * EARTH_METRES * np.arcsin(np.sqrt(np.minimum(half, 1.0))), np.float64)


@dataclass(frozen=True, slots=True)
class Reach:
    """Stops that are reached on foot from a place, or from which it is."""

    stops: Int64
    seconds: Int64
    metres: Float64


class Walking(Protocol):
    """How one walks in a city: between two places, and from a place to many."""

    @property
    def estimated(self) -> bool:
        """Whether ways are guessed rather than found."""
        ...

    def metres(
        self, longitude: float, latitude: float, to_longitude: Float64, to_latitude: Float64
    ) -> Float64:
        """Metres on foot from a place to each of others; infinite where there is no way."""
        ...


@dataclass(frozen=True, slots=True)
class StraightLine:
    """A straight line times DETOUR."""

    estimated: bool = True

    def metres(
        self, longitude: float, latitude: float, to_longitude: Float64, to_latitude: Float64
    ) -> Float64:
        """Metres as one is likely to walk them."""
        return straight_metres(longitude, latitude, to_longitude, to_latitude) * DETOUR


STRAIGHT_LINE = StraightLine()


def seconds_of(metres: Float64) -> Int64:
    """Whole seconds that a walk takes."""
    return np.ceil(metres / METRES_A_SECOND).astype(np.int64)


def reach(
    timetable: Timetable, longitude: float, latitude: float, metres_max: float,
    walking: Walking = STRAIGHT_LINE,
) -> Reach:  # fmt: skip
    """The stops within a walk of a place; a NaN place is near to none."""
    stops = timetable.stops
    band = np.degrees(metres_max / EARTH_METRES)
    near = np.flatnonzero((np.abs(stops.latitude - latitude) <= band) & (stops.location_type == 0))
    metres = walking.metres(longitude, latitude, stops.longitude[near], stops.latitude[near])
    inside = metres <= metres_max
    return Reach(near[inside].astype(np.int64), seconds_of(metres[inside]), metres[inside])


@dataclass(frozen=True, slots=True)
class Edges:
    """Changes between stops, in order of the stop that one comes to; metres are 0 within a stop."""

    origin: Int64
    target: Int64
    seconds: Int64
    metres: Float64
    targets: Int64
    """The different ones of `target`, ..."""
    begins: Int64
    """... and where each begins in it."""

    def turned(self) -> "Edges":
        """The same ways, gone from their end."""
        return edges_of(self.target, self.origin, self.seconds, self.metres)

    def relaxed(self, reached: Int64) -> tuple[Int64, Int64]:
        """The stops that a change leads to, and the earliest of `reached` plus the way there."""
        if not len(self.targets):
            return self.targets, self.targets
        times = reached[self.origin] + self.seconds
        return self.targets, np.minimum.reduceat(times, self.begins)

    def into(self, stop: int) -> slice:
        """Where the changes to a stop are."""
        low, high = np.searchsorted(self.target, (stop, stop + 1))
        return slice(int(low), int(high))


def edges_of(origin: Int64, target: Int64, seconds: Int64, metres: Float64) -> Edges:
    """Changes in order."""
    order = np.lexsort((origin, target))
    target = target[order]
    begins = np.flatnonzero(np.diff(target, prepend=-1)).astype(np.int64)
    return Edges(origin[order], target, seconds[order], metres[order], target[begins], begins)


def changes_of(timetable: Timetable, walking: Walking = STRAIGHT_LINE) -> Edges:
    """Every change of vehicles: at a stop, in a station, on foot, and as transfers.txt says.

    The later of what is added here replaces the earlier: ways on foot, then rules of transfers.txt
    between stations, then those that name a platform itself.
    """
    stops = timetable.stops
    pairs: dict[tuple[int, int], tuple[int, float]] = {}
    for origin, target, metres in _near(timetable, walking):
        seconds = max(CHANGE_SECONDS, int(np.ceil(metres / METRES_A_SECOND)))
        pairs[origin, target] = (seconds, metres)
    inside = _platforms(timetable)
    for members in inside.values():
        place = np.array(members)
        for origin in members:
            across = walking.metres(
                float(stops.longitude[origin]), float(stops.latitude[origin]),
                stops.longitude[place], stops.latitude[place],
            )  # fmt: skip
            for target, metres in zip(members, np.nan_to_num(across).tolist(), strict=True):
                seconds = max(CHANGE_SECONDS, int(np.ceil(metres / METRES_A_SECOND)))
                pairs[origin, target] = (seconds, metres)
    for stop in np.flatnonzero(stops.location_type == 0).tolist():
        pairs[stop, stop] = (CHANGE_SECONDS, 0.0)
    _rules(timetable, walking, inside, pairs)
    possible = [(a, b, s, m) for (a, b), (s, m) in pairs.items() if s < NEVER]
    whole = np.array([row[:3] for row in possible], np.int64).reshape(-1, 3)
    metres_each = np.array([row[3] for row in possible], np.float64)
    return edges_of(whole[:, 0], whole[:, 1], whole[:, 2], metres_each)


def _platforms(timetable: Timetable) -> dict[int, list[int]]:
    """The stops of each station that vehicles call at."""
    stops = timetable.stops
    inside: dict[int, list[int]] = {}
    for stop in np.flatnonzero((stops.parent != NONE) & (stops.location_type == 0)).tolist():
        members = inside.setdefault(int(stops.parent[stop]), [])
        if len(members) < STATION_STOPS_MAX:
            members.append(stop)
    return inside


def _rules(
    timetable: Timetable,
    walking: Walking,
    inside: dict[int, list[int]],
    pairs: dict[tuple[int, int], tuple[int, float]],
) -> None:
    """What transfers.txt says; a rule of a station is one of all its platforms."""
    stops, rules = timetable.stops, timetable.transfers
    named: list[tuple[int, int, int, int, int]] = []
    for row in range(len(rules.type)):
        origin, target = int(rules.from_stop[row]), int(rules.to_stop[row])
        own = int(origin not in inside) + int(target not in inside)
        named.append((own, origin, target, int(rules.type[row]), int(rules.seconds_min[row])))
    for _, origin, target, kind, seconds_min in sorted(named, key=lambda each: each[0]):
        for a in inside.get(origin, [origin]):
            for b in inside.get(target, [target]):
                across = walking.metres(
                    float(stops.longitude[a]), float(stops.latitude[a]),
                    stops.longitude[[b]], stops.latitude[[b]],
                )  # fmt: skip
                metres = 0.0 if a == b else float(np.nan_to_num(across)[0])
                walk = max(CHANGE_SECONDS, int(np.ceil(metres / METRES_A_SECOND)))
                seconds = {TIMED: seconds_min, MINIMUM: seconds_min, IMPOSSIBLE: NEVER}
                pairs[a, b] = (seconds.get(kind, max(walk, seconds_min)), metres)


def _near(timetable: Timetable, walking: Walking) -> list[tuple[int, int, float]]:
    """Pairs of stops within CHANGE_METRES_MAX on foot, the NEIGHBOURS_MAX nearest of each.

    Found in the Mercator plane, which is true to shape: a circle of the ground is one there.
    """
    stops = timetable.stops
    placed = (stops.location_type == 0) & (np.abs(stops.latitude) < 85) & ~np.isnan(stops.longitude)  # noqa: PLR2004 (Mercator ends there)
    members = np.flatnonzero(placed)
    longitude, latitude = stops.longitude[members], stops.latitude[members]
    up = np.arctanh(np.sin(np.radians(latitude)))
    points = np.asarray(shapely.points(np.radians(longitude), up))
    radius = 1.01 * CHANGE_METRES_MAX / EARTH_METRES / np.cos(np.radians(latitude))
    begin, end = shapely.STRtree(points).query(points, predicate="dwithin", distance=radius)
    found: list[tuple[int, int, float]] = []
    cuts = np.flatnonzero(np.diff(begin, prepend=-1))[1:]
    for ends, of in zip(np.split(end, cuts), np.split(begin, cuts), strict=True):
        if not len(of):
            continue
        a = int(of[0])
        metres = walking.metres(longitude[a], latitude[a], longitude[ends], latitude[ends])
        nearest = np.argsort(metres, kind="stable")[: NEIGHBOURS_MAX + 1]
        for n in nearest.tolist():
            if ends[n] != a and metres[n] <= CHANGE_METRES_MAX:
                found.append((int(members[a]), int(members[ends[n]]), float(metres[n])))
    return found
