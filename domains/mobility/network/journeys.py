"""From a place to a place: on foot, by public transport, by shared bike. Pure.

What the search finds becomes legs that follow each other; times are epoch seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from domains.mobility.network import bikes as bikes_module
from domains.mobility.network import walking
from domains.mobility.network.bikes import Bikes, BikeWay
from domains.mobility.network.modes import types_of
from domains.mobility.network.patterns import Bool
from domains.mobility.network.raptor import Option, Query, Raptor, Ride
from domains.mobility.network.timetable import NONE, Int8, Timetable
from domains.mobility.network.walking import Edges, Reach, Walking
from domains.mobility.realtime.overlay import Overlay

SEARCHES_MAX = 6
"""Searches for one answer: each begins just after the first departure of the one before."""
ACCESSIBLE, INACCESSIBLE = 1, 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a journey begins or ends, or a leg does; `stop` is its number, or NONE."""

    longitude: float
    latitude: float
    name: str = ""
    id: str | None = None
    stop: int = NONE
    stops: tuple[int, ...] = ()
    """The stops that are this place: one is there without a walk."""

    @property
    def at(self) -> tuple[float, float]:
        """Longitude and latitude."""
        return self.longitude, self.latitude

    @property
    def own(self) -> Reach:
        """The stops that are this place."""
        stops = np.array(self.stops, np.int64)
        return Reach(stops, np.zeros(len(stops), np.int64), np.zeros(len(stops), np.float64))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for."""

    origin: Place
    destination: Place
    time: int
    arrive_by: bool = False
    walk_metres_max: float = 1_000.0
    """Of each walk."""
    transfers_max: int = 4
    wheelchair: str = "false"
    """`true`: trips and stops that are known to be accessible; `prefer`: not known not to be."""
    modes: frozenset[str] = frozenset({"transit", "walk"})
    limit: int = 3

    @property
    def step_free(self) -> bool:
        """Whether ways with steps are to be walked round."""
        return self.wheelchair != "false"


@dataclass(frozen=True, slots=True)
class Way:
    """A walk, or a ride on a shared bike."""

    mode: str
    origin: Place
    target: Place
    departure: int
    arrival: int
    metres: float
    estimated: bool = True
    """Whether it is a guess along a straight line."""


Leg = Way | Ride


@dataclass(frozen=True, slots=True)
class Journey:
    """Legs that follow each other; `departure` and `arrival` are those of the whole."""

    departure: int
    arrival: int
    legs: tuple[Leg, ...]

    @property
    def rides(self) -> tuple[Ride, ...]:
        """The legs by public transport."""
        return tuple(leg for leg in self.legs if isinstance(leg, Ride))

    @property
    def walking_metres(self) -> float:
        """All that is walked."""
        return sum(leg.metres for leg in self.legs if isinstance(leg, Way) and leg.mode == "walk")


def by_street(journey: Journey) -> bool:
    """Whether some of it is walked along streets that are known."""
    return any(isinstance(leg, Way) and not leg.estimated for leg in journey.legs)


def place_of_stops(timetable: Timetable, numbers: Sequence[int]) -> Place:
    """The place of a stop, station or entrance (in each version of its feed that has it)."""
    stops = timetable.stops
    own: list[int] = []
    for number in numbers:
        if stops.location_type[number] == 0:
            own.append(number)
        own += np.flatnonzero((stops.parent == number) & (stops.location_type == 0)).tolist()
    last = numbers[-1]
    return Place(
        float(stops.longitude[last]), float(stops.latitude[last]), stops.names[last],
        stops.ids.texts[last], last, tuple(own),
    )  # fmt: skip


def place_of_stop(timetable: Timetable, number: int) -> Place:
    """A stop as the end of a leg."""
    stops = timetable.stops
    at = float(stops.longitude[number]), float(stops.latitude[number])
    return Place(*at, stops.names[number], stops.ids.texts[number], number)


@dataclass(frozen=True, slots=True)
class _End:
    """How the stops are reached at one end of a journey."""

    place: Place
    reach: Reach
    ways: dict[int, BikeWay]
    """Stops that a bike leads to sooner than a walk."""


def plan(raptor: Raptor, overlay: Overlay, wish: Wish, bikes: Bikes | None = None) -> list[Journey]:
    """The best journeys: none is left and reached no later, with no more rides, than another.

    Departing: the first to arrive and the next ones; arriving: the last to leave and those before.
    """
    timetable = raptor.timetable
    if wish.step_free or "bike" not in wish.modes:
        bikes = None
    found = list(_direct(wish, bikes, raptor.walking))
    kinds = wish.modes - {"walk", "bike"}
    if kinds:
        first = _end(raptor, wish, wish.origin, bikes, outward=True)
        last = _end(raptor, wish, wish.destination, bikes, outward=False)
        query = Query(
            first.reach, last.reach, wish.time, wish.arrive_by, wish.transfers_max + 1,
            trips=_trips(timetable, wish, kinds), stops=_stops(timetable, wish),
            change_metres_max=wish.walk_metres_max, wheelchair=wish.step_free,
        )  # fmt: skip
        options = _options(raptor, overlay, query, wish.limit)
        edges = raptor.changes(wheelchair=wish.step_free)
        found += [_journey(timetable, edges, option, first, last, bikes) for option in options]
    best = [each for each in found if not any(_betters(other, each) for other in found)]
    best.sort(key=lambda each: (len(each.rides), each.departure))
    best.sort(key=lambda each: -each.departure if wish.arrive_by else each.arrival)
    return best[: wish.limit]


def _options(raptor: Raptor, overlay: Overlay, query: Query, limit: int) -> list[Option]:
    """Options of one search after another, until there are enough that no other betters."""
    found: dict[Option, None] = {}
    sign = -1 if query.arrive_by else 1
    for _ in range(min(limit, SEARCHES_MAX)):
        new = raptor.options(query, overlay)
        found.update(dict.fromkeys(new))
        lasting = [o for o in found if not any(_passes(other, o) for other in found)]
        if not new or len(lasting) >= limit:
            break
        ends = [-o.arrival if query.arrive_by else o.departure for o in new]
        moved = min(ends) + 1 - sign * query.time
        if moved > query.horizon_seconds:
            break
        query = replace(
            query, time=query.time + sign * moved, horizon_seconds=query.horizon_seconds - moved
        )
    return list(found)


def _passes(one: Option, other: Option) -> bool:
    """Whether one leaves no earlier, comes no later and rides no more, and is another."""
    mine = (-one.departure, one.arrival, len(one.rides))
    yours = (-other.departure, other.arrival, len(other.rides))
    return mine != yours and all(a <= b for a, b in zip(mine, yours, strict=True))


def _betters(one: Journey, other: Journey) -> bool:
    """The same of journeys; a walk or a bike can be begun at any time."""
    if one is other or (not one.rides and not other.rides):
        return False
    if not one.rides:
        return one.arrival - one.departure <= other.arrival - other.departure
    mine = (-one.departure, one.arrival, len(one.rides))
    yours = (-other.departure, other.arrival, len(other.rides))
    return mine != yours and all(a <= b for a, b in zip(mine, yours, strict=True))


def _trips(timetable: Timetable, wish: Wish, kinds: frozenset[str]) -> Bool | None:
    """Which trips may be used; None for all."""
    fit: Bool | None = None
    if "transit" not in kinds:
        fit = np.isin(timetable.routes.type, list(types_of(kinds)))[timetable.trips.route]
    accessible = _accessible(timetable.trips.wheelchair, wish.wheelchair)
    if fit is not None and accessible is not None:
        return fit & accessible
    return accessible if fit is None else fit


def _stops(timetable: Timetable, wish: Wish) -> Bool | None:
    return _accessible(timetable.stops.wheelchair, wish.wheelchair)


def _accessible(wheelchair: Int8, wanted: str) -> Bool | None:
    if wanted == "false":
        return None
    fit: Bool = wheelchair == ACCESSIBLE if wanted == "true" else wheelchair != INACCESSIBLE
    return fit


def _end(raptor: Raptor, wish: Wish, place: Place, bikes: Bikes | None, *, outward: bool) -> _End:
    """The stops from which, or to which, the journey may go at this end."""
    timetable, placed = raptor.timetable, raptor.placed(wheelchair=wish.step_free)
    on_foot = walking.reach(
        timetable, *place.at, wish.walk_metres_max, raptor.walking, placed,
        wheelchair=wish.step_free,
    )  # fmt: skip
    walked = bikes_module.merged(place.own, on_foot)
    if bikes is None or not np.isfinite(place.at).all():
        return _End(place, walked, {})
    by_bike = bikes_module.reach(timetable, bikes, place.at, wish.walk_metres_max, outward=outward)
    ridden, ways = by_bike
    both = bikes_module.merged(walked, ridden)
    foot = dict(zip(walked.stops.tolist(), walked.seconds.tolist(), strict=True))
    sooner = {s: way for s, way in ways.items() if s not in foot or way.seconds < foot[s]}
    return _End(place, both, sooner)


def _direct(wish: Wish, bikes: Bikes | None, port: Walking) -> Iterator[Journey]:
    """All the way on foot, and by bike."""
    origin, target = wish.origin, wish.destination
    if not np.isfinite((*origin.at, *target.at)).all():
        return
    begin, end = (
        port.place(*walking.one(*place.at), wheelchair=wish.step_free) for place in (origin, target)
    )
    walks = port.walks(begin, end, wish.walk_metres_max)
    metres, estimated = float(walks.metres[0]), bool(walks.estimated[0])
    if "walk" in wish.modes and metres <= wish.walk_metres_max:
        yield _begun(wish, [Way("walk", origin, target, 0, _seconds(metres), metres, estimated)])
    way = None
    if bikes is not None:
        way = bikes_module.direct(bikes, origin.at, target.at, wish.walk_metres_max)
    if way is not None and bikes is not None:
        yield _begun(wish, list(_bike_legs(bikes, way, origin, target, 0)))


def _seconds(metres: float) -> int:
    return int(walking.seconds_of(np.array([metres]))[0])


def _begun(wish: Wish, legs: list[Way]) -> Journey:
    """Legs that begin at 0, moved to when they are wished."""
    total = legs[-1].arrival
    first = wish.time - total if wish.arrive_by else wish.time
    moved = [replace(w, departure=w.departure + first, arrival=w.arrival + first) for w in legs]
    return Journey(first, first + total, tuple(moved))


def _bike_legs(
    bikes: Bikes, way: BikeWay, origin: Place, target: Place, begin: int
) -> Iterator[Way]:
    """Walk, ride, walk; a walk of no length is left out."""
    stations = [
        Place(
            float(bikes.longitude[n]), float(bikes.latitude[n]), bikes.names[n], bikes.ids[n]
        )
        for n in (way.rent, way.give_back)
    ]  # fmt: skip
    places = (origin, *stations, target)
    metres = (way.walk_metres, way.ride_metres, way.last_metres)
    for n, (mode, seconds) in enumerate(zip(("walk", "bike", "walk"), way.parts, strict=True)):
        if seconds:
            yield Way(mode, places[n], places[n + 1], begin, begin + seconds, metres[n])
        begin += seconds


def _journey(
    timetable: Timetable, edges: Edges, option: Option, begin: _End, end: _End, bikes: Bikes | None
) -> Journey:
    """An option of the search with its walks."""
    legs: list[Leg] = []
    first = place_of_stop(timetable, option.rides[0].from_stop)
    legs += _to_or_from(begin, bikes, begin.place, first, option.departure)
    for n, ride in enumerate(option.rides):
        if n:
            legs += _change(timetable, edges, option.rides[n - 1], ride)
        legs.append(ride)
    last = option.rides[-1]
    spot = place_of_stop(timetable, last.to_stop)
    legs += _to_or_from(end, bikes, spot, end.place, last.arrival)
    return Journey(option.departure, option.arrival, tuple(legs))


def _to_or_from(
    end: _End, bikes: Bikes | None, origin: Place, target: Place, departure: int
) -> Iterator[Way]:
    """The legs between the place at an end of the journey and the stop there."""
    stop = target.stop if origin is end.place else origin.stop
    way = end.ways.get(stop)
    if way is not None and bikes is not None:
        yield from _bike_legs(bikes, way, origin, target, departure)
        return
    at = int(np.flatnonzero(end.reach.stops == stop)[0])
    seconds, metres = int(end.reach.seconds[at]), float(end.reach.metres[at])
    if seconds:
        guess = end.reach.is_estimated(at)
        yield Way("walk", origin, target, departure, departure + seconds, metres, guess)


def _change(timetable: Timetable, edges: Edges, before: Ride, after: Ride) -> Iterator[Way]:
    """The walk between two rides, unless the stop is the same."""
    if before.to_stop == after.from_stop:
        return
    ways = edges.into(after.from_stop)
    row = ways.start + int(np.flatnonzero(edges.origin[ways] == before.to_stop)[0])
    seconds, metres = int(edges.seconds[row]), float(edges.metres[row])
    origin = place_of_stop(timetable, before.to_stop)
    target = place_of_stop(timetable, after.from_stop)
    ends = before.arrival, before.arrival + seconds
    yield Way("walk", origin, target, *ends, metres, bool(edges.estimated[row]))
