"""GTFS-Realtime entities to observations; pure, and never an exception for bad input.

Things are `FEED:vehicle:ID`, `FEED:trip:TRIP:DATE` and `FEED:alert:ID`, where FEED is the gateway.
What an entity says is observed when it is news, and again after REPEAT: each position is kept.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from ctypes import c_float
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from google.transit import gtfs_realtime_pb2 as pb

from core.clock import MICROSECONDS
from core.formats.checks import document_fault, position_fault, thing_fault
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Position
from domains.mobility.realtime import wire
from domains.mobility.realtime.wire import Broken, WireError

SECONDS_MIN = 1_000_000_000
"""2001: GTFS-Realtime is of 2011, and who says less counts something else."""
AHEAD_SECONDS_MAX = 86_400
SPAN_SECONDS_MAX = 7 * 86_400
"""A trip that is told of begins and ends within a week."""
STOP_TIMES_MAX = 2_000
SELECTORS_MAX = 10_000
REPEAT_SECONDS = 30
THINGS_MAX = 200_000
TIME_OF_DAY = re.compile(r"[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]")
KINDS = {"trip_update": "trip-update", "vehicle": "vehicle", "alert": "alert"}
"""What an entity may hold, and what that is called here."""
PASSED_OVER = ("shape", "stop", "trip_modifications")
"""Experimental entities of the standard that change the timetable itself."""
DIFFERENTIAL = pb.FeedHeader.Incrementality.Value("DIFFERENTIAL")


@dataclass(slots=True)
class Said:
    """What a Thing said last: when it was stored, when it was said, and a hash of it."""

    stored: int
    newest: int
    fingerprint: int


@dataclass(slots=True)
class Memory:
    """What was said last, by Thing and property; the oldest are forgotten first."""

    said: OrderedDict[str, Said] = field(default_factory=OrderedDict)

    def is_news(self, name: str, time: int, fingerprint: int) -> bool:
        """Whether it is to be observed; what is older than the newest never is.

        Or what was left out as known would be overwritten by something older that came late.
        """
        said = self.said.get(name)
        if said is None:
            if len(self.said) >= THINGS_MAX:
                self.said.popitem(last=False)
            self.said[name] = Said(time, time, fingerprint)
            return True
        if time < said.newest:
            return False
        said.newest = time
        if said.fingerprint == fingerprint and time < said.stored + REPEAT_SECONDS * MICROSECONDS:
            return False
        said.stored, said.fingerprint = time, fingerprint
        self.said.move_to_end(name)
        return True


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode one FeedMessage; each entity of it is one message."""
    builder = ObservationsBuilder()
    try:
        feed = wire.READERS[format](payload)
    except WireError as error:
        builder.messages = 1
        builder.reject(error.reason, str(error), payload)
        return builder.build()
    _Decoding(builder, context, feed.header).take(format, feed)
    return builder.build()


class _Decoding:
    """One message's way into observations."""

    def __init__(
        self, builder: ObservationsBuilder, context: Context, header: pb.FeedHeader
    ) -> None:
        self.builder = builder
        self.feed = context.gateway
        self.header = header
        self.memory: Memory = context.memory.setdefault("gtfs-rt", Memory())
        self.latest = context.received_at // MICROSECONDS + AHEAD_SECONDS_MAX
        self.differential = header.incrementality == DIFFERENTIAL
        self.things: dict[str, list[str]] = {}
        """Of each kind, whom this message was about."""
        try:
            self.time = self.moment(header.timestamp, "header.timestamp", context.received_at)
        except WireError as error:
            builder.reject(error.reason, str(error), header.SerializePartialToString(), 0, None)
            self.time = context.received_at

    def take(self, format: str, feed: wire.Feed) -> None:
        take = {"trip_update": self.trip_update, "vehicle": self.vehicle, "alert": self.alert}
        for number, entity in enumerate(feed.entities):
            self.builder.messages += 1
            raw: Any = entity
            try:
                if isinstance(entity, Broken):
                    raw = entity.raw
                    raise entity.error
                self.entity(entity, take)
            except WireError as error:
                self.builder.reject(
                    error.reason, str(error), wire.alone(format, feed.header, raw), number
                )
        self.close()

    def entity(self, entity: pb.FeedEntity, take: Mapping[str, Callable[[str, Any], bool]]) -> None:
        """Each part of an entity by itself; WireError for what is none."""
        if not isinstance(entity.id, str) or not entity.id:
            raise WireError("invalid-entity", "entity.id: is missing or no text")
        held = [part for part in take if entity.HasField(part)]
        if not held and not any(entity.HasField(part) for part in PASSED_OVER):
            what = "trip_update, vehicle or alert"
            raise WireError("invalid-entity", f"entity {entity.id[:200]!r}: holds no {what}")
        news = False
        for part in held:
            if entity.is_deleted and self.differential:
                news |= self.deleted(part, entity)
                continue
            try:
                news |= take[part](entity.id, getattr(entity, part))
            except WireError as error:
                detail = f"entity {entity.id[:200]!r}: {part}.{error}"
                raise WireError(error.reason, detail) from error
        self.builder.unchanged += not news

    def vehicle(self, entity: str, vehicle: Any) -> bool:
        """A position, and what else is said where that is news."""
        thing = self.thing("vehicle", vehicle_id(vehicle.vehicle) or entity, "vehicle.id")
        if not vehicle.HasField("position"):
            raise WireError("invalid-position", "position: is missing")
        place = place_of(vehicle.position)
        time = self.moment(vehicle.timestamp, "timestamp", self.time)
        self.kind("vehicle")
        self.builder.hear(thing, max(time, self.time))
        self.builder.add(thing, "vehicle-position", time, place)
        vehicle.ClearField("position")
        vehicle.ClearField("timestamp")
        self.document(thing, "vehicle-journey", time, vehicle)
        return True

    def trip_update(self, entity: str, update: Any) -> bool:
        """What is told of one trip of one day."""
        thing = self.thing("trip", trip_key(update.trip), "trip.trip_id")
        time = self.moment(update.timestamp, "timestamp", self.time)
        check_stop_times(update, self.time // MICROSECONDS)
        update.ClearField("timestamp")
        self.kind("trip_update", thing)
        self.builder.hear(thing, self.time)
        return self.document(thing, "trip-update", time, update)

    def alert(self, entity: str, alert: Any) -> bool:
        """What is told of stops, routes or trips."""
        thing = self.thing("alert", entity, "id")
        for name in ("informed_entity", "active_period", "impact_period", "communication_period"):
            if len(getattr(alert, name)) > SELECTORS_MAX:
                raise WireError("too-many-selectors", f"{name}: has more than {SELECTORS_MAX}")
        self.kind("alert", thing)
        self.builder.hear(thing, self.time)
        return self.document(thing, "alert", self.time, alert)

    def deleted(self, part: str, entity: pb.FeedEntity) -> bool:
        """An entity taken back: only a message that tells differences can (FeedEntity)."""
        if part == "vehicle":
            return False  # it leaves when it is heard no more
        trip = part == "trip_update"
        name = trip_key(entity.trip_update.trip) if trip else entity.id
        thing = self.thing("trip" if trip else "alert", name, "id")
        property = KINDS[part]
        if not self.memory.is_news(f"{property} {thing}", self.time, hash("deleted")):
            return False
        self.builder.add(thing, property, self.time, {"isDeleted": True})
        return True

    def document(self, thing: str, property: str, time: int, message: Any) -> bool:
        raw = message.SerializePartialToString()
        name = f"{property} {thing}"
        if not self.memory.is_news(name, time, hash(raw)):
            return False
        try:
            told = wire.to_json(message)
            fault = document_fault(told) if b"\0" in raw else None
        except UnicodeDecodeError:
            fault = "is not UTF-8"
        if fault:
            self.memory.said.pop(name)  # or it would pass for known the next time
            raise WireError("invalid-text", f"a text {fault}")
        self.builder.add(thing, property, time, told)
        return True

    def thing(self, kind: str, name: str, field: str) -> str:
        """The Thing of an id; a slash, which no Thing may have, is written %2F."""
        if "%" in name or "/" in name:
            name = name.replace("%", "%25").replace("/", "%2F")
        thing = f"{self.feed}:{kind}:{name}"
        if fault := thing_fault(thing):
            raise WireError("invalid-id", f"{field}: {fault}")
        return thing

    def kind(self, part: str, thing: str | None = None) -> None:
        """Note that the message tells of this kind, and of whom."""
        things = self.things.setdefault(KINDS[part], [])
        if thing is not None:
            things.append(thing.split(":", 2)[2])

    def moment(self, seconds: int, field: str, otherwise: int) -> int:
        """µs since 1970, `otherwise` where it is not said; WireError for no time of ours."""
        if not seconds:
            return otherwise
        if not SECONDS_MIN <= seconds <= self.latest:
            raise WireError("bad-time", f"{field}: {seconds} is before 2001 or in the future")
        return seconds * MICROSECONDS

    def close(self) -> None:
        """Say whom a full message was about: what the next one does not have is over."""
        self.builder.hear(self.feed, self.time)
        if self.differential:
            return
        kinds = sorted(self.things)
        for kind in kinds:
            told = {"kinds": kinds, "things": sorted(self.things[kind])}
            name = f"feed-message/{kind} {self.feed}"
            if self.memory.is_news(name, self.time, hash((*kinds, *told["things"]))):
                self.builder.add(self.feed, f"feed-message/{kind}", self.time, told)


def vehicle_id(vehicle: Any) -> str:
    """What names a vehicle: its id, else its label, else its plate; "" where none does."""
    for name in (vehicle.id, vehicle.label, vehicle.license_plate):
        if name:
            return text_of(name, "vehicle")
    return ""


def text_of(value: str | bytes, field: str) -> str:
    """A text; WireError where its bytes are none."""
    if isinstance(value, bytes):
        raise WireError("invalid-text", f"{field}: is not UTF-8")
    return value


def place_of(position: Any) -> Position:
    """Degrees, m/s and degrees true; WireError for what is no place on the Earth."""
    longitude, latitude = shortest(position.longitude), shortest(position.latitude)
    speed = position.speed if position.HasField("speed") else math.nan
    course = position.bearing if position.HasField("bearing") else math.nan
    fault = position_fault(longitude, latitude)
    if fault:
        raise WireError("invalid-position", f"position.{fault}")
    if longitude == latitude == 0:
        raise WireError("invalid-position", "position: 0, 0 is what says who knows no place")
    return Position(
        longitude,
        latitude,
        speed if math.isfinite(speed) else math.nan,
        course % 360 if math.isfinite(course) and 0 <= course <= 360 else math.nan,  # noqa: PLR2004
    )


def shortest(degrees: float) -> float:
    """What was meant by a float of 32 bits: 35.01, not 35.0099983215332."""
    for decimals in (5, 6):
        rounded = round(degrees, decimals)
        if c_float(rounded).value == degrees:
            return rounded
    return degrees


def trip_key(trip: Any) -> str:
    """What names a trip on a day, as far as it is told; WireError where nothing does.

    Its id, else its route, direction and start, which together stand for it (TripDescriptor).
    """
    start, day = text_of(trip.start_time, "trip"), text_of(trip.start_date, "trip")
    if start and not TIME_OF_DAY.fullmatch(start):
        raise WireError("invalid-trip", f"trip.start_time: {start[:20]!r} is not HH:MM:SS")
    if day:
        try:
            date.fromisoformat(day)
        except ValueError:
            raise WireError(
                "invalid-trip", f"trip.start_date: {day[:20]!r} is not YYYYMMDD"
            ) from None
    name, route = text_of(trip.trip_id, "trip"), text_of(trip.route_id, "trip")
    if not name and not (route and start):
        raise WireError("invalid-trip", "trip.trip_id: is missing, as are route_id and start_time")
    if name:
        return ":".join(filter(None, (name, day, start)))
    direction = str(trip.direction_id) if trip.HasField("direction_id") else ""
    return ":".join(("~".join((route, direction)), day, start))


def check_stop_times(update: Any, now: int) -> None:
    """WireError for more stop times, or other times, than a trip can have."""
    if len(update.stop_time_update) > STOP_TIMES_MAX:
        raise WireError("too-many-stop-times", f"stop_time_update: more than {STOP_TIMES_MAX}")
    if abs(update.delay) > SPAN_SECONDS_MAX:
        raise WireError("bad-time", f"delay: {update.delay} s is more than a week")
    for number, each in enumerate(update.stop_time_update):
        for name in ("arrival", "departure"):
            if not each.HasField(name):
                continue
            event = getattr(each, name)
            time, delay = event.time, event.delay
            if (time and abs(time - now) > SPAN_SECONDS_MAX) or abs(delay) > SPAN_SECONDS_MAX:
                where = f"stop_time_update[{number}].{name}"
                raise WireError("bad-time", f"{where}: {time or delay} is more than a week away")
