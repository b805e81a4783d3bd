"""Vehicles, trips and alerts as they change: worked out once a process, and fanned out by topic.

One fan a permission looks while somebody listens. What changed since its last look is kept for a
while, so that a client which was cut off goes on where it was; one that was away for longer is
told all that there is.
"""

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from anyio import to_thread

from consent import door
from core.errors import CityError
from core.tokens import Principal
from domains.mobility.realtime import alerts, vehicles
from domains.mobility.realtime.alerts import Told
from domains.mobility.realtime.board import Now
from domains.mobility.realtime.overlay import TripDay, TripState, Vehicle
from domains.mobility.realtime.vehicles import Row, Topics

BEAT_SECONDS = 0.25
REST_BEATS = 20
"""So often it looks although nothing was appended: a silence is no append."""
LOOKS = 3
"""After an append: the first may see what somebody else saw a moment before."""
KEEP_ALIVE_SECONDS = 15.0
KEPT_BEATS, KEPT_ENTITIES = 480, 50_000
EVENT_ROWS_MAX = 500
STREAMS_MAX = 100_000
"""Nobody is counted here but all together (CHIMATA_SSE_CLIENTS_MAX): most have no name."""
RETRY = b"retry: 2000\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
NAMES = ("vehicles", "trip-updates", "alerts")
log = logging.getLogger("chimata.mobility")


class Asked(NamedTuple):
    """What one stream is to tell: which kinds, about what, in which languages."""

    names: tuple[str, ...]
    topics: Topics
    languages: tuple[str, ...]


class Subscriber(Protocol):
    """See api.live.Subscriber: a bounded queue of events, which ends with the server."""

    ready: asyncio.Event
    waiting: deque[Any]

    @property
    def over(self) -> bool: ...
    def push(self, cursor: dict[str, int], data: bytes | None, name: str) -> None: ...
    def take(self) -> bytes: ...


class Hub(Protocol):
    """See api.live.Hub."""

    def newest(self, sector: str) -> int: ...
    def hosting(
        self, principal: Principal, streams_max: int
    ) -> AbstractContextManager[Subscriber]: ...


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is there at one look."""

    seen: Now
    vehicles: Mapping[str, Vehicle]
    trips: Mapping[TripDay, TripState]
    alerts: Mapping[str, Told]


@dataclass(frozen=True, slots=True)
class Change:
    """What is other than at the look before; of what is gone, what it was."""

    scene: Scene
    before: Scene | None
    vehicles: tuple[Vehicle, ...]
    trips: tuple[TripDay, ...]
    alerts: tuple[Told, ...]
    gone: tuple[Vehicle | TripDay | Told, ...] = ()

    def __len__(self) -> int:
        return len(self.vehicles) + len(self.trips) + len(self.alerts) + len(self.gone)


def scene_of(seen: Now) -> Scene:
    """What real time says now."""
    told = (
        alerts.told_of(key, seen.static_feed(key), document)
        for key, document in seen.overlay.alerts.items()
    )
    return Scene(
        seen,
        {each.id: each for each in vehicles.current(seen)},
        seen.overlay.trips,
        {each.id: each for each in told},
    )


def difference(before: Scene | None, scene: Scene) -> Change:
    """What changed; all of it where nothing was before."""
    if before is None:
        return Change(
            scene, None, tuple(scene.vehicles.values()), tuple(scene.trips),
            tuple(scene.alerts.values()),
        )  # fmt: skip
    left: Iterable[Vehicle | TripDay | Told] = itertools.chain(
        (each for key, each in before.vehicles.items() if key not in scene.vehicles),
        # Numbers of trips are those of a timetable: those of another one mean nothing here.
        (day for day in before.trips if day not in scene.trips)
        if before.seen.timetable is scene.seen.timetable
        else (),
        (each for key, each in before.alerts.items() if key not in scene.alerts),
    )
    told = {key: each.document for key, each in before.alerts.items()}
    return Change(
        scene,
        before,
        tuple(each for key, each in scene.vehicles.items() if before.vehicles.get(key) is not each),
        tuple(day for day, each in scene.trips.items() if before.trips.get(day) is not each),
        tuple(each for key, each in scene.alerts.items() if told.get(key) is not each.document),
        tuple(left),
    )


# --- what of it somebody is told ------------------------------------------------------------------


def events(change: Change, asked: Asked) -> Iterator[tuple[str, bytes]]:
    """Name and data of each event; a vehicle that leaves an area is told a last time."""
    seen = change.scene.seen
    before = change.before.vehicles if change.before else {}
    topics = asked.topics
    rows: dict[str, Iterable[Row]] = {
        "vehicles": (
            vehicles.vehicle_row(seen, each)
            for each in change.vehicles
            if topics.take(seen, each) or _was_asked(topics, seen, before.get(each.id))
        ),
        "trip-updates": (
            vehicles.trip_update_row(seen, day, change.scene.trips[day])
            for day in _trips_asked(change.scene, change.trips, topics)
        ),
        "alerts": (
            alerts.alert_row(each, asked.languages)
            for each in change.alerts
            if takes_alert(topics, seen, each)
        ),
    }
    for name in asked.names:
        yield from _parts(name, rows[name])
    if change.before is not None:
        gone = _gone(change, change.before, asked)
        if any(gone.values()):
            yield "gone", door.encode(gone)


def _parts(name: str, rows: Iterable[Row]) -> Iterator[tuple[str, bytes]]:
    key, rest = name.replace("-", "_"), iter(rows)
    while part := list(itertools.islice(rest, EVENT_ROWS_MAX)):
        yield name, door.encode({key: part})


def _was_asked(topics: Topics, seen: Now, vehicle: Vehicle | None) -> bool:
    return vehicle is not None and topics.is_somewhere and topics.take(seen, vehicle)


def _trips_asked(scene: Scene, days: Iterable[TripDay], topics: Topics) -> Iterator[TripDay]:
    """A trip is where a vehicle of it is."""
    table = scene.seen.timetable
    there = None
    if topics.is_somewhere:
        there = {
            each.trip
            for each in scene.vehicles.values()
            if topics.is_there(each.longitude, each.latitude)
        }
    for day in days:
        if topics.feed is not None and vehicles.version_of(table, day[0]).feed != topics.feed:
            continue
        if there is not None and day not in there:
            continue
        if topics.is_of_route(table, int(table.trips.route[day[0]])):
            yield day


def takes_alert(topics: Topics, seen: Now, told: Told) -> bool:
    """Whether an alert is about a topic: its feed, one of its routes, a stop of it that is there.

    What names no route concerns every route, what names no stop every place.
    """
    if topics.feed is not None and told.feed != topics.feed:
        return False
    table = seen.timetable
    routes = [table.routes.ids.numbers[r] for r in told.routes if r in table.routes.ids.numbers]
    if told.routes and not any(topics.is_of_route(table, route) for route in routes):
        return topics.route is None and topics.mode is None
    if not topics.is_somewhere or not told.stops:
        return True
    stops = [table.stops.ids.numbers[s] for s in told.stops if s in table.stops.ids.numbers]
    return any(
        topics.is_there(float(table.stops.longitude[stop]), float(table.stops.latitude[stop]))
        for stop in stops
    )


def _gone(change: Change, before: Scene, asked: Asked) -> dict[str, list[Any]]:
    told: dict[str, list[Any]] = {name.replace("-", "_"): [] for name in asked.names}
    topics = asked.topics
    for each in change.gone:
        if isinstance(each, Vehicle):
            if "vehicles" in told and topics.take(before.seen, each):
                told["vehicles"].append(each.id)
        elif isinstance(each, Told):
            if "alerts" in told and takes_alert(topics, before.seen, each):
                told["alerts"].append(each.id)
        elif "trip_updates" in told and any(_trips_asked(before, [each], topics)):
            told["trip_updates"].append(vehicles.trip_row(before.seen.timetable, each))
    return told


# --- one fan a permission -------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Fan:
    """Looks while somebody listens, and gives what changed to those who asked for it."""

    token: str = field(default_factory=lambda: f"v{secrets.token_hex(6)}")
    """Numbers of events mean something in this process alone."""
    number: int = 0
    scene: Scene | None = None
    kept: deque[tuple[int, Change]] = field(default_factory=deque)
    kept_entities: int = 0
    subscribers: dict[Subscriber, Asked] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, read: Callable[[], Now]) -> None:
        """See what is there, and give out what changed."""
        async with self.looking:
            change, told = await to_thread.run_sync(self._changes, read)
            if not len(change):
                return
            self.number += 1
            self.scene = change.scene
            self._keep(change)
            for subscriber, asked in self.subscribers.items():
                if asked not in told:  # it came while that was worked out
                    told[asked] = list(events(change, asked))
                self._give(subscriber, told[asked])

    def _give(self, subscriber: Subscriber, parts: list[tuple[str, bytes]]) -> None:
        for place, (name, data) in enumerate(parts, 1):
            # Only the last part has the id: a client cut off between them gets all again.
            cursor = {self.token: self.number} if place == len(parts) else {}
            subscriber.push(cursor, data, name)

    def _changes(
        self, read: Callable[[], Now]
    ) -> tuple[Change, dict[Asked, list[tuple[str, bytes]]]]:
        change = difference(self.scene, scene_of(read()))
        every = frozenset(self.subscribers.copy().values()) if len(change) else ()
        return change, {asked: list(events(change, asked)) for asked in every}

    def _keep(self, change: Change) -> None:
        self.kept.append((self.number, change))
        self.kept_entities += len(change)
        while len(self.kept) > KEPT_BEATS or self.kept_entities > KEPT_ENTITIES:
            self.kept_entities -= len(self.kept.popleft()[1])

    async def run(self, read: Callable[[], Now], hub: Hub, sector: str) -> None:
        """Look on each beat on which something was appended, until nobody listens."""
        newest, wanted = -1, 0
        for beat in itertools.count():
            if not self.subscribers:
                return
            if hub.newest(sector) != newest or beat % REST_BEATS == 0:
                newest, wanted = hub.newest(sector), LOOKS
            wanted -= 1
            if wanted >= 0:
                try:
                    await self.look(read)
                except CityError as error:
                    log.warning("nothing was seen of real time: %s", error)
                except Exception:  # one bad look must not end every stream
                    log.exception("real time was not read")
            await asyncio.sleep(BEAT_SECONDS)

    def missed(self, event_id: str | None) -> list[Change] | None:
        """What changed since an event; None where that is not known any more."""
        token, _, number = (event_id or "").partition(":")
        if token != self.token or not number.isdecimal() or int(number) > self.number:
            return None
        after = int(number)
        oldest = self.kept[0][0] if self.kept else self.number + 1
        if after + 1 < oldest:
            return None
        return [change for at, change in self.kept if at > after]


async def stream(
    fan: Fan, hub: Hub, principal: Principal, read: Callable[[], Now], sector: str, asked: Asked,
    last_event_id: str | None,
) -> AsyncIterator[bytes]:  # fmt: skip
    """Server-sent events: what is there or was missed, then what changes."""
    with hub.hosting(principal, STREAMS_MAX) as subscriber:
        yield RETRY
        if fan.scene is None or fan.task is None or fan.task.done():
            await fan.look(read)
        # In one step: what is told now is up to this number, what comes after is queued.
        fan.subscribers[subscriber] = asked
        number, scene, missed = fan.number, fan.scene, fan.missed(last_event_id)
        if fan.task is None or fan.task.done():
            fan.task = asyncio.create_task(fan.run(read, hub, sector))
        try:
            if missed is None:
                if last_event_id:
                    yield b"event: reset\ndata: {}\n\n"
                missed = [] if scene is None else [difference(None, scene)]
            for change in missed:
                parts = await to_thread.run_sync(lambda each: list(events(each, asked)), change)
                yield b"".join(
                    b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
                    for name, data in parts
                )
            yield f"id: {fan.token}:{number}\n\n".encode()
            while not subscriber.over:
                try:
                    await asyncio.wait_for(subscriber.ready.wait(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield KEEP_ALIVE
                    continue
                if subscriber.waiting:
                    yield subscriber.take()
        finally:
            fan.subscribers.pop(subscriber, None)
