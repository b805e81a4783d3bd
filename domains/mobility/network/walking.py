"""Walking between places: by streets where they are known, else a straight line times a detour.

Distances are metres on foot, times seconds; what comes of a straight line is `estimated`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from domains.mobility.network.streets import (
    EARTH_METRES,
    Snapped,
    Streets,
    between,
    straight_metres,
)
from domains.mobility.network.timetable import NONE, Float64, Timetable

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

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
BESIDE_METRES = 50.0
"""A place further than this from its street is reached over ground that nobody knows."""
SEARCHES_MAX = 20_000
"""Stops from which ways to others are looked for by street; from further ones they are guessed."""
RULE_METRES_MAX = 2_000.0
"""A place to change that transfers.txt recommends may be so far."""

Pairs = dict[tuple[int, int], tuple[int, float, bool]]
"""Seconds, metres and whether they are estimated, of each change."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Stops that are reached on foot from a place, or from which it is."""

    stops: Int64
    seconds: Int64
    metres: Float64
    estimated: Bool | None = None
    """Of which the way is a straight line times DETOUR; None: of all."""

    def is_estimated(self, row: int) -> bool:
        """Whether the way to the stop of a row is guessed."""
        return self.estimated is None or bool(self.estimated[row])


NOWHERE = Reach(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))


@dataclass(frozen=True, slots=True)
class Placed:
    """Places to walk between, and where they are on the streets, if any are known."""

    longitude: Float64
    latitude: Float64
    wheelchair: bool = False
    snapped: Snapped | None = None

    def at(self, numbers: Int64) -> "Placed":
        """Some of them."""
        snapped = None if self.snapped is None else self.snapped.at(numbers)
        place = self.longitude[numbers], self.latitude[numbers]
        return Placed(*place, self.wheelchair, snapped)


@dataclass(frozen=True, slots=True)
class Walks:
    """How far places are on foot; infinite where there is no way, or none that is short enough."""

    metres: Float64
    estimated: Bool


class Walking(Protocol):
    """How one walks in a city: from a place to many."""

    @property
    def attribution(self) -> str | None:
        """Whom to name where the ways are theirs."""
        ...

    def place(self, longitude: Float64, latitude: Float64, *, wheelchair: bool = False) -> Placed:
        """Places, ready to walk between them."""
        ...

    def walks(self, origin: Placed, places: Placed, metres_max: float) -> Walks:
        """From the one place of `origin` to each of `places`."""
        ...


@dataclass(frozen=True, slots=True)
class StraightLine:
    """A straight line times DETOUR."""

    attribution: None = None

    def place(self, longitude: Float64, latitude: Float64, *, wheelchair: bool = False) -> Placed:
        """The places as they are."""
        return Placed(longitude, latitude, wheelchair)

    def walks(self, origin: Placed, places: Placed, metres_max: float) -> Walks:
        """Metres as one is likely to walk them, also beyond `metres_max`."""
        straight = straight_metres(
            origin.longitude, origin.latitude, places.longitude, places.latitude
        )
        return Walks(straight * DETOUR, np.ones(len(places.longitude), np.bool_))


STRAIGHT_LINE = StraightLine()


@dataclass(frozen=True, slots=True)
class OnStreets:
    """Ways of a network where both ends are on it, else a straight line."""

    streets: Streets

    @property
    def attribution(self) -> str | None:
        """Of the network."""
        return self.streets.attribution

    def place(self, longitude: Float64, latitude: Float64, *, wheelchair: bool = False) -> Placed:
        """The places with the nearest way of each that one can use."""
        snapped = self.streets.snap(longitude, latitude, wheelchair=wheelchair)
        return Placed(longitude, latitude, wheelchair, snapped)

    def walks(self, origin: Placed, places: Placed, metres_max: float) -> Walks:
        """The shortest ways; those beyond `metres_max` are infinite where streets are known."""
        guessed = STRAIGHT_LINE.walks(origin, places, metres_max)
        here, there = origin.snapped, places.snapped
        if here is None or there is None or not here.inside[0]:
            return guessed
        estimated = ~there.inside
        metres = np.where(estimated, guessed.metres, np.inf)
        estimated |= (there.off > BESIDE_METRES) | (here.off[0] > BESIDE_METRES)
        near = np.flatnonzero(there.inside & (guessed.metres / DETOUR <= metres_max))
        if len(near):
            targets = there.at(near)
            found = between(self.streets, here, targets)
            walked = self.streets.around(
                here, np.zeros(1), metres_max, wheelchair=origin.wheelchair
            )
            if walked is not None:
                found = np.minimum(found, walked.to(targets))
            metres[near] = np.where(found <= metres_max, found, np.inf)
        return Walks(metres, estimated)


def seconds_of(metres: Float64) -> Int64:
    """Whole seconds that a walk takes."""
    return np.ceil(metres / METRES_A_SECOND).astype(np.int64)


def one(longitude: float, latitude: float) -> tuple[Float64, Float64]:
    """A single place as arrays."""
    return np.array([longitude]), np.array([latitude])


def reach(
    timetable: Timetable, longitude: float, latitude: float, metres_max: float,
    walking: Walking = STRAIGHT_LINE, placed: Placed | None = None, *, wheelchair: bool = False,
) -> Reach:  # fmt: skip
    """The stops within a walk of a place; a NaN place is near to none. `placed`: all stops."""
    stops = timetable.stops
    straight = straight_metres(longitude, latitude, stops.longitude, stops.latitude)
    near = np.flatnonzero((straight <= metres_max) & (stops.location_type == 0))
    if placed is None:
        there = walking.place(stops.longitude[near], stops.latitude[near], wheelchair=wheelchair)
    else:
        there = placed.at(near)
    here = walking.place(*one(longitude, latitude), wheelchair=wheelchair)
    walks = walking.walks(here, there, metres_max)
    inside = walks.metres <= metres_max
    metres = walks.metres[inside]
    return Reach(near[inside].astype(np.int64), seconds_of(metres), metres, walks.estimated[inside])


@dataclass(frozen=True, slots=True)
class Edges:
    """Changes between stops, in order of the stop that one comes to; metres are 0 within a stop."""

    origin: Int64
    target: Int64
    seconds: Int64
    metres: Float64
    estimated: Bool
    targets: Int64
    """The different ones of `target`, ..."""
    begins: Int64
    """... and where each begins in it."""

    def turned(self) -> "Edges":
        """The same ways, gone from their end."""
        return edges_of(self.target, self.origin, self.seconds, self.metres, self.estimated)

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


def edges_of(
    origin: Int64, target: Int64, seconds: Int64, metres: Float64, estimated: Bool
) -> Edges:
    """Changes in order."""
    order = np.lexsort((origin, target))
    target = target[order]
    begins = np.flatnonzero(np.diff(target, prepend=-1)).astype(np.int64)
    return Edges(
        origin[order], target, seconds[order], metres[order], estimated[order], target[begins],
        begins,
    )  # fmt: skip


def changes_of(
    timetable: Timetable, walking: Walking = STRAIGHT_LINE, placed: Placed | None = None
) -> Edges:
    """Every change of vehicles: at a stop, in a station, on foot, and as transfers.txt says.

    The later of what is added here replaces the earlier: ways on foot, then those in a station
    (which no map of streets shows whole), then rules of transfers.txt between stations, then those
    that name a platform itself. `placed`: all stops, as `walking` placed them.
    """
    stops = timetable.stops
    if placed is None:
        placed = walking.place(stops.longitude, stops.latitude)
    pairs: Pairs = {}
    for origin, target, metres, estimated in _near(timetable, walking, placed):
        pairs[origin, target] = (_change_seconds(metres), metres, estimated)
    inside = _platforms(timetable)
    for members in inside.values():
        place = np.array(members)
        for origin in members:
            across = STRAIGHT_LINE.walks(placed.at(np.array([origin])), placed.at(place), np.inf)
            for target, metres in zip(members, np.nan_to_num(across.metres).tolist(), strict=True):
                pairs[origin, target] = (_change_seconds(metres), metres, True)
    for stop in np.flatnonzero(stops.location_type == 0).tolist():
        pairs[stop, stop] = (CHANGE_SECONDS, 0.0, False)
    _rules(timetable, walking, placed, inside, pairs)
    possible = [(a, b, *rest) for (a, b), rest in pairs.items() if rest[0] < NEVER]
    whole = np.array([row[:3] for row in possible], np.int64).reshape(-1, 3)
    return edges_of(
        whole[:, 0], whole[:, 1], whole[:, 2],
        np.array([row[3] for row in possible], np.float64),
        np.array([row[4] for row in possible], np.bool_),
    )  # fmt: skip


def _change_seconds(metres: float) -> int:
    return max(CHANGE_SECONDS, int(np.ceil(metres / METRES_A_SECOND)))


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
    timetable: Timetable, walking: Walking, placed: Placed, inside: dict[int, list[int]],
    pairs: Pairs,
) -> None:  # fmt: skip
    """What transfers.txt says; a rule of a station is one of all its platforms."""
    parent, rules = timetable.stops.parent, timetable.transfers
    named: list[tuple[int, int, int, int, int]] = []
    for row in range(len(rules.type)):
        origin, target = int(rules.from_stop[row]), int(rules.to_stop[row])
        own = int(origin not in inside) + int(target not in inside)
        named.append((own, origin, target, int(rules.type[row]), int(rules.seconds_min[row])))
    searches = 0
    for _, origin, target, kind, seconds_min in sorted(named, key=lambda each: each[0]):
        for a in inside.get(origin, [origin]):
            for b in inside.get(target, [target]):
                # Who times a change has walked it; within a station no street leads.
                timed = kind in {TIMED, MINIMUM, IMPOSSIBLE}
                indoors = timed or a == b or (parent[a] != NONE and parent[a] == parent[b])
                searches += not indoors
                port = STRAIGHT_LINE if indoors or searches > SEARCHES_MAX else walking
                ends = placed.at(np.array([a])), placed.at(np.array([b]))
                found = port.walks(*ends, RULE_METRES_MAX)
                metres = 0.0 if a == b else float(np.nan_to_num(found.metres, posinf=np.inf)[0])
                if np.isinf(metres):
                    pairs.pop((a, b), None)
                    continue
                walk = _change_seconds(metres)
                seconds = {TIMED: seconds_min, MINIMUM: seconds_min, IMPOSSIBLE: NEVER}
                lasting = seconds.get(kind, max(walk, seconds_min))
                pairs[a, b] = (lasting, metres, a != b and bool(found.estimated[0]))


def _near(
    timetable: Timetable, walking: Walking, placed: Placed
) -> list[tuple[int, int, float, bool]]:
    """Pairs of stops within CHANGE_METRES_MAX on foot, the NEIGHBOURS_MAX nearest of each.

    Found in the Mercator plane, which is true to shape: a circle of the ground is one there.
    """
    stops = timetable.stops
    usable = (stops.location_type == 0) & (np.abs(stops.latitude) < 85) & ~np.isnan(stops.longitude)  # noqa: PLR2004 (Mercator ends there)
    members = np.flatnonzero(usable)
    up = np.arctanh(np.sin(np.radians(stops.latitude[members])))
    points = np.asarray(shapely.points(np.radians(stops.longitude[members]), up))
    radius = 1.01 * CHANGE_METRES_MAX / EARTH_METRES / np.cos(np.radians(stops.latitude[members]))
    begin, end = shapely.STRtree(points).query(points, predicate="dwithin", distance=radius)
    found: list[tuple[int, int, float, bool]] = []
    cuts = np.flatnonzero(np.diff(begin, prepend=-1))[1:]
    for number, (ends, of) in enumerate(
        zip(np.split(end, cuts), np.split(begin, cuts), strict=True)
    ):
        if not len(of):
            continue
        a, others = int(members[of[0]]), members[ends]
        port = walking if number < SEARCHES_MAX else STRAIGHT_LINE
        walks = port.walks(placed.at(np.array([a])), placed.at(others), CHANGE_METRES_MAX)
        nearest = np.argsort(walks.metres, kind="stable")[: NEIGHBOURS_MAX + 1]
        for n in nearest.tolist():
            if others[n] != a and walks.metres[n] <= CHANGE_METRES_MAX:
                row = (a, int(others[n]), float(walks.metres[n]), bool(walks.estimated[n]))
                found.append(row)
    return found
