"""Entities of GTFS-Realtime as one timetable's trips, vehicles and closures; each is matched once.

No database here: what changed comes in, an Overlay goes out.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import atan2, cos, degrees, hypot, isfinite, nan, radians
from typing import Any, Protocol

from domains.mobility.network.timetable import NONE, Timetable
from domains.mobility.realtime import predict, updates
from domains.mobility.realtime.matching import GUESSED_AT_ONCE_MAX, Finder, Sighting
from domains.mobility.realtime.overlay import Closure, Overlay, TripDay, TripState, Vehicle
from domains.mobility.realtime.places import METRES_A_DEGREE

SAMPLES_MAX = 200
MATCHING_MIN = 0.5
"""Of a feed's trips so many must be those of a timetable to be of it."""
GUESS_SECONDS = 30.0
"""A vehicle that tells no trip is looked at so often."""
MOVED_METRES_MIN = 30.0
"""A way as long tells where a vehicle goes: positions are as unsure as that."""
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)
"""What a document raises that is none: whoever sends plain JSON may send anything."""


class Said(Protocol):
    """See state.Said."""

    @property
    def time(self) -> datetime: ...
    @property
    def value(self) -> Any: ...


Things = Mapping[str, Mapping[str, Said]]
"""By property, by Thing."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a vehicle without a trip was found to run, and when that was looked at."""

    trip: TripDay | None
    at: datetime


class Matched:
    """What entities mean in one timetable."""

    def __init__(self, timetable: Timetable) -> None:
        self.timetable = timetable
        self.finder = Finder(timetable)
        self.vehicles: dict[str, Vehicle] = {}
        """Those that were seen lately: see `_expire`."""
        self.updates: dict[str, tuple[TripDay, TripState]] = {}
        self.predictions: dict[str, tuple[TripDay, TripState]] = {}
        self.closures: dict[str, tuple[Closure, ...]] = {}
        self.alerts: dict[str, Mapping[str, Any]] = {}
        self.guesses: dict[str, Guess] = {}
        self.headings: dict[str, float] = {}
        self._expiring: list[tuple[datetime, str]] = []
        self._newest: datetime | None = None
        self._static: dict[str, str] = {}
        self._feeds = {version.feed for version in timetable.versions}
        self._told: Mapping[str, str] = {}

    def take(
        self, changed: Iterable[tuple[str, str]], said: Things, static_feeds: Mapping[str, str]
    ) -> None:
        """See what changed; a thing that is no longer said is let go."""
        if self._told != static_feeds:
            self._told, self._static = dict(static_feeds), {}
            changed = {(name, thing) for name, things in said.items() for thing in things}
        unsure: list[str] = []
        moved: set[str] = set()
        for name, thing in changed:
            each = said.get(name, {}).get(thing)
            if name in ("vehicle-position", "vehicle-journey"):
                moved.add(thing)
            elif name == "trip-update":
                self._take_update(thing, each, said)
            elif name == "alert":
                self._take_alert(thing, each, said)
        for thing in moved:
            if self._take_vehicle(thing, said):
                unsure.append(thing)
        self._guess(unsure, said)
        self._predict([thing for thing in moved if thing in self.vehicles])

    def overlay(
        self,
        now: datetime,
        since: datetime,
        until: datetime,
        present: Mapping[str, Collection[str]],
    ) -> Overlay:
        """All that holds now: vehicles seen from `since` until `until`, what else is present."""
        self._expire(since)
        trips = dict(self.predictions.values())
        vehicles: Iterable[Vehicle] = self.vehicles.values()
        if self._newest is not None and self._newest > until:
            vehicles = (each for each in vehicles if each.time <= until)
        # Of two that tell of one trip the newer is right, and the feed's word before ours.
        held = [self.updates[thing] for thing in present["trip-update"] if thing in self.updates]
        told = dict(held)
        trips.update(told if len(told) == len(held) else sorted(held, key=lambda it: it[1].time))
        alerts = [thing for thing in sorted(present["alert"]) if thing in self.alerts]
        closed = (each for thing in alerts for each in self.closures[thing])
        return Overlay(
            now,
            trips,
            tuple(each for each in closed if each.end is None or each.end > now),
            tuple(vehicles),
            {outside(thing): self.alerts[thing] for thing in alerts},
        )

    def static_feed(self, feed: str, said: Things) -> str:
        """The timetable of a gateway: as its feed says, else of that id, else the one that fits."""
        known = self._static.get(feed)
        if known is None:
            known = self._told.get(feed) or (feed if feed in self._feeds else None)
            known = known or self._fitting(feed, said)
            if known is None:
                return feed  # nothing yet: look again as more is said
            self._static[feed] = known
        return known

    @property
    def sources(self) -> dict[str, str]:
        """The static feed of each gateway that was found so far."""
        return dict(self._static)

    def _fitting(self, feed: str, said: Things) -> str | None:
        """The static feed that has most of the trips which this one tells of."""
        told = [
            trip["tripId"]
            for name in ("trip-update", "vehicle-journey")
            for thing, each in said.get(name, {}).items()
            if thing.partition(":")[0] == feed and "tripId" in (trip := trip_of(each.value))
        ][:SAMPLES_MAX]
        have = Counter(
            other
            for other in self._feeds
            for name in told
            if self.finder.trips_of(f"{other}:{name}")
        )
        best = have.most_common(1)
        return best[0][0] if best and best[0][1] >= MATCHING_MIN * len(told) else None

    def _take_update(self, thing: str, each: Said | None, said: Things) -> None:
        self.updates.pop(thing, None)
        if each is None:
            return
        try:
            trip = trip_of(each.value)
            if trip.get("scheduleRelationship") in updates.OF_NO_TIMETABLE:
                return
            feed = self.static_feed(thing.partition(":")[0], said)
            found = self.finder.find(trip, feed, running_at(each.value, each.time))
            if found is not None:
                state = updates.trip_state(
                    self.timetable, self.finder, found, each.value, each.time
                )
                self.updates[thing] = (found, state)
        except MALFORMED:
            return

    def _take_alert(self, thing: str, each: Said | None, said: Things) -> None:
        self.alerts.pop(thing, None)
        if each is None or not isinstance(each.value, dict):
            return
        try:
            feed = self.static_feed(thing.partition(":")[0], said)
            found = updates.closures(self.finder, outside(thing), feed, each.value)
            self.closures[thing] = tuple(found)
        except MALFORMED:
            return
        self.alerts[thing] = each.value

    def _take_vehicle(self, thing: str, said: Things) -> bool:
        """See a vehicle; whether what it runs has to be guessed."""
        seen = said.get("vehicle-position", {}).get(thing)
        self.predictions.pop(thing, None)
        if seen is None or not isinstance(seen.value, tuple):
            self._let_go(thing)
            return False
        told = said.get("vehicle-journey", {}).get(thing)
        document = told.value if told is not None and isinstance(told.value, dict) else {}
        feed = self.static_feed(thing.partition(":")[0], said)
        before = self.vehicles.get(thing)
        if before is not None and before.document is document and thing not in self.guesses:
            trip, route = before.trip, before.route  # it says what it said
        else:
            trip, route = self._trip_told(document, feed, seen.time)
        guess = self.guesses.get(thing)
        unknown = trip is None
        if unknown and guess is not None:
            trip = guess.trip
            route = route if trip is None else int(self.timetable.trips.route[trip[0]])
        longitude, latitude, speed, course = (nan if v is None else v for v in seen.value)
        vehicle = Vehicle(
            outside(thing), seen.time, longitude, latitude, speed, course, trip, route, document
        )
        self._head(thing, before, vehicle)
        self.vehicles[thing] = vehicle
        heapq.heappush(self._expiring, (seen.time, thing))
        self._newest = max(seen.time, self._newest or seen.time)
        waited = guess is None or abs((seen.time - guess.at).total_seconds()) >= GUESS_SECONDS
        return unknown and waited

    def _trip_told(
        self, document: Mapping[str, Any], feed: str, at: datetime
    ) -> tuple[TripDay | None, int]:
        """The trip that a vehicle tells, and the number of its route."""
        told = trip_of(document)
        try:
            trip = self.finder.find(told, feed, at.timestamp())
            if trip is not None:
                return trip, int(self.timetable.trips.route[trip[0]])
            return None, (*self.finder.routes_of(f"{feed}:{told.get('routeId', '')}"), NONE)[0]
        except MALFORMED:
            return None, NONE

    def _head(self, thing: str, before: Vehicle | None, now: Vehicle) -> None:
        """Where a vehicle goes: what it says, else the way from where it was."""
        if isfinite(now.course):
            self.headings[thing] = now.course
        elif before is not None:
            east = (now.longitude - before.longitude) * cos(radians(now.latitude))
            north = now.latitude - before.latitude
            if hypot(east, north) * METRES_A_DEGREE >= MOVED_METRES_MIN:
                self.headings[thing] = degrees(atan2(east, north)) % 360

    def _predict(self, things: Sequence[str]) -> None:
        vehicles = [self.vehicles[thing] for thing in things]
        states = predict.trip_states(self.timetable, self.finder, vehicles)
        for thing, vehicle, state in zip(things, vehicles, states, strict=True):
            if vehicle.trip is not None and state is not None:
                self.predictions[thing] = (vehicle.trip, state)

    def _expire(self, since: datetime) -> None:
        """Let go of vehicles that were not seen since then, oldest first."""
        while self._expiring and self._expiring[0][0] < since:
            time, thing = heapq.heappop(self._expiring)
            vehicle = self.vehicles.get(thing)
            if vehicle is not None and vehicle.time <= time:
                self._let_go(thing)

    def _let_go(self, thing: str) -> None:
        for kept in (self.vehicles, self.predictions, self.guesses, self.headings):
            kept.pop(thing, None)

    def _guess(self, things: list[str], said: Things) -> None:
        """Look what trips these vehicles may run, by feed; those that wait longest first."""
        by_feed: dict[str, list[str]] = {}
        for thing in sorted(things, key=lambda thing: self.vehicles[thing].time):
            by_feed.setdefault(thing.partition(":")[0], []).append(thing)
        for feed, waiting in by_feed.items():
            static = self.static_feed(feed, said)
            chosen = waiting[:GUESSED_AT_ONCE_MAX]
            found = self.finder.guess(static, [self._sighting(each, static) for each in chosen])
            for thing, trip in zip(chosen, found, strict=True):
                vehicle = self.vehicles[thing]
                self.guesses[thing] = Guess(trip and trip[0], vehicle.time)
                if trip is not None:
                    route = int(self.timetable.trips.route[trip[0][0]])
                    self.vehicles[thing] = replace(vehicle, trip=trip[0], route=route)

    def _sighting(self, thing: str, static: str) -> Sighting:
        seen = self.vehicles[thing]
        route = trip_of(seen.document).get("routeId")
        return Sighting(
            seen.longitude,
            seen.latitude,
            seen.time.timestamp(),
            self.headings.get(thing, nan),
            f"{static}:{route}" if isinstance(route, str) else None,
        )


def trip_of(document: Any) -> Mapping[str, Any]:
    """The TripDescriptor of a VehiclePosition or TripUpdate; empty where it has none."""
    trip = document.get("trip") if isinstance(document, dict) else None
    return trip if isinstance(trip, dict) else {}


def running_at(update: Mapping[str, Any], otherwise: datetime) -> float:
    """A time at which the trip of a TripUpdate runs: the first it tells, else when it was told."""
    for each in update.get("stopTimeUpdate", ()):
        for name in ("arrival", "departure"):
            if moment := int(each.get(name, {}).get("time", 0)):
                return float(moment)
    return otherwise.timestamp()


def outside(thing: str) -> str:
    """`feed:id` of a Thing `FEED:kind:ID`."""
    feed, _, rest = thing.partition(":")
    name = rest.partition(":")[2].replace("%2F", "/").replace("%25", "%")
    return f"{feed}:{name}"
