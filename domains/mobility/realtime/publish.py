"""GTFS-Realtime 2.0 out: what is known of one static feed's vehicles, trips and alerts. Pure.

Nothing is said that the published timetable does not have: a stop, trip or route that it lacks is
left out. Entities are written as bytes, which can be joined, so that only what changed is encoded:
the fields of one message may stand in any order, and those of two parts of it are merged
(Protocol Buffers, encoding).
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from google.transit import gtfs_realtime_pb2 as pb
from numpy.typing import NDArray

from domains.mobility.network.timetable import NONE, Timetable
from domains.mobility.realtime.alerts import alert_of
from domains.mobility.realtime.overlay import Overlay, TripDay, TripState, Vehicle
from domains.mobility.realtime.static import Static, own_id

POSITION_AGE_MAX = timedelta(seconds=90)
NOON = time(12)
HALF_DAY_SECONDS = 43_200
EPOCH_SECONDS_MIN, EPOCH_SECONDS_MAX = 1 << 28, (1 << 35) - (1 << 22)
"""Within, a time of Unix takes five bytes: from 1978 to the year 3058."""
ENTITY = 0x12
SCHEDULED, ADDED, UNSCHEDULED, CANCELED = 0, 1, 2, 3
STOP_SCHEDULED, STOP_SKIPPED, STOP_NO_DATA, STOP_UNSCHEDULED = 0, 1, 2, 3
CALLED_AT_START = "@"
"""Before the start of a run of frequencies.txt, in the id of its trip."""

Place = NDArray[np.intp]
Part = tuple[Any, ...]


class Kind(StrEnum):
    """The three feeds, by the names of their files."""

    POSITIONS = "vehicle-positions"
    UPDATES = "trip-updates"
    ALERTS = "alerts"


@dataclass(slots=True)
class Memo:
    """Of one kind: what was encoded of the entities that are there, and what trips never change."""

    timetable: Timetable
    parts: dict[Any, Part] = field(default_factory=dict)
    templates: dict[int, "Template"] = field(default_factory=dict)


def message(kind: Kind, timetable: Timetable, overlay: Overlay, static: Static,
            memo: Memo | None = None) -> bytes:  # fmt: skip
    """One FeedMessage, FULL_DATASET, as of `overlay.at`."""
    memo = memo or Memo(timetable)
    entities = _ENTITIES[kind](timetable, overlay, static, memo)
    return header(int(overlay.at.timestamp())) + b"".join(entities)


def entities(kind: Kind, timetable: Timetable, overlay: Overlay, static: Static,
             memo: Memo) -> bytes:  # fmt: skip
    """The message without its header: the same bytes for as long as nothing changes."""
    return b"".join(_ENTITIES[kind](timetable, overlay, static, memo))


def header(timestamp: int) -> bytes:
    """The FeedHeader of a FULL_DATASET, as the field of a FeedMessage."""
    told = pb.FeedHeader(gtfs_realtime_version="2.0", timestamp=timestamp)
    told.incrementality = pb.FeedHeader.FULL_DATASET
    return chunk(0x0A, told.SerializeToString())


def varint(value: int) -> bytes:
    """Base 128, the lowest seven bits first."""
    octets = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_VARINTS = [varint(value) for value in range(1 << 14)]


def chunk(key: int, content: bytes) -> bytes:
    """A field that has a length: `key` is its number and 2, the wire type LEN."""
    size = len(content)
    return bytes((key,)) + (_VARINTS[size] if size < len(_VARINTS) else varint(size)) + content


def _entity(key: int, name: str, content: bytes) -> bytes:
    return chunk(ENTITY, chunk(0x0A, name.encode()) + chunk(key, content))


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@cache
def day_start(zone: str, day: date) -> int:
    """Noon less 12 h of a service day, in seconds of Unix."""
    return int(datetime.combine(day, NOON, _zone(zone)).timestamp()) - HALF_DAY_SECONDS


# --- of a trip ------------------------------------------------------------------------------------


def feed_of(timetable: Timetable, trip: int) -> str:
    """The id of the static feed that has a trip."""
    return timetable.versions[int(timetable.trips.version[trip])].feed


def descriptor(timetable: Timetable, day: TripDay, static: Static, relation: int) -> bytes:
    """A TripDescriptor; a run of frequencies.txt is told by its start."""
    trip, on = day
    name = own_id(timetable.trips.ids.texts[trip], static.feed)
    told = pb.TripDescriptor(start_date=f"{on:%Y%m%d}")
    base, at, start = name.rpartition(CALLED_AT_START)
    if at and start.count(":") == 2:  # noqa: PLR2004 - HH:MM:SS
        name, told.start_time = base, start
        if base in static.flexible:
            relation = UNSCHEDULED
    told.trip_id = name
    told.schedule_relationship = relation  # type: ignore[assignment]  # by its number
    route = int(timetable.trips.route[trip])
    told.route_id = own_id(timetable.routes.ids.texts[route], static.feed)
    direction = int(timetable.trips.direction[trip])
    if direction != NONE:
        told.direction_id = direction
    content: bytes = told.SerializeToString()
    return content


# --- vehicle positions ----------------------------------------------------------------------------


def _vehicles(
    timetable: Timetable, overlay: Overlay, static: Static, memo: Memo
) -> Iterator[bytes]:
    """One entity a vehicle; of several that say to be one trip, the newest alone says so."""
    parts = memo.parts
    kept: dict[Any, Part] = {}
    drivers = _drivers(timetable, overlay, static)
    seen: set[str] = set()
    for vehicle in _current(timetable, overlay, static):
        trip = vehicle.trip if vehicle.trip and drivers.get(vehicle.trip) is vehicle else None
        held = parts.get(vehicle.id)
        if held is not None and held[0] is vehicle and held[1] == trip:
            kept[vehicle.id] = held
            seen.add(held[2])
            yield held[4]
            continue
        name = vehicle_name(vehicle)
        name = vehicle.id if name in seen else name
        seen.add(name)
        if held is not None and held[1:3] == (trip, name) and held[0].document == vehicle.document:
            rest = held[3]
        else:
            rest = _vehicle_rest(timetable, vehicle, static, trip, name)
        moment = min(int(vehicle.time.timestamp()), int(overlay.at.timestamp()))
        whole = _entity(0x22, name, rest + _placed(vehicle) + b"\x28" + varint(moment))
        kept[vehicle.id] = (vehicle, trip, name, rest, whole)
        yield whole
    memo.parts = kept


def vehicle_name(vehicle: Vehicle) -> str:
    """The vehicle's id as its feed gave it."""
    return vehicle.id.partition(":")[2]


def _current(timetable: Timetable, overlay: Overlay, static: Static) -> Iterator[Vehicle]:
    """Those of this feed that were heard lately, and are somewhere."""
    earliest = overlay.at - POSITION_AGE_MAX
    for vehicle in overlay.vehicles:
        placed = abs(vehicle.latitude) <= 90 and abs(vehicle.longitude) <= 180  # noqa: PLR2004
        if placed and vehicle.time >= earliest and is_of(timetable, vehicle, static):
            yield vehicle


def is_of(timetable: Timetable, vehicle: Vehicle, static: Static) -> bool:
    """Whether a vehicle runs by this feed's timetable, or is said to be of it."""
    if vehicle.trip is not None:
        return feed_of(timetable, vehicle.trip[0]) == static.feed
    return vehicle.id.partition(":")[0] in static.sources


def _drivers(timetable: Timetable, overlay: Overlay, static: Static) -> dict[TripDay, Vehicle]:
    """The newest vehicle of each trip: two feeds that pair one trip differently contradict."""
    drivers: dict[TripDay, Vehicle] = {}
    for vehicle in _current(timetable, overlay, static):
        if vehicle.trip is not None:
            other = drivers.setdefault(vehicle.trip, vehicle)
            if vehicle.time > other.time:
                drivers[vehicle.trip] = vehicle
    return drivers


def _placed(vehicle: Vehicle) -> bytes:
    """The Position: a bearing or a speed that is not known is not told."""
    told = struct.pack("<BfBf", 0x0D, vehicle.latitude, 0x15, vehicle.longitude)
    if vehicle.course == vehicle.course:
        told += struct.pack("<Bf", 0x1D, vehicle.course % 360)
    if vehicle.speed == vehicle.speed:
        told += struct.pack("<Bf", 0x2D, vehicle.speed)
    return chunk(0x12, told)


def _vehicle_rest(
    timetable: Timetable, vehicle: Vehicle, static: Static, trip: TripDay | None, name: str
) -> bytes:
    """All of a VehiclePosition that is not its place and time."""
    document = vehicle.document
    told: dict[str, Any] = {
        ours: document[theirs] for theirs, ours in _STATES.items() if theirs in document
    }
    parts = [chunk(0x42, _vehicle_descriptor(document, name))]
    if trip is not None:
        parts.insert(0, chunk(0x0A, descriptor(timetable, trip, static, SCHEDULED)))
        told |= _stop_of(timetable, trip[0], document, static)
    try:
        parts.append(pb.VehiclePosition(**told).SerializePartialToString())
    except (ValueError, TypeError):  # a state of a newer version than ours: the rest still holds
        parts += [_told_alone({name: value}) for name, value in told.items()]
    return b"".join(parts)


_STATES = {
    "congestionLevel": "congestion_level",
    "occupancyStatus": "occupancy_status",
    "occupancyPercentage": "occupancy_percentage",
}


def _told_alone(told: dict[str, Any]) -> bytes:
    try:
        content: bytes = pb.VehiclePosition(**told).SerializePartialToString()
    except (ValueError, TypeError):
        return b""
    return content


def _vehicle_descriptor(document: Mapping[str, Any], name: str) -> bytes:
    said = document.get("vehicle")
    said = said if isinstance(said, Mapping) else {}
    told = pb.VehicleDescriptor(id=name)
    for theirs, ours in (("label", "label"), ("licensePlate", "license_plate")):
        if isinstance(said.get(theirs), str) and said[theirs]:
            setattr(told, ours, said[theirs])
    content: bytes = told.SerializeToString()
    return content


def _stop_of(
    timetable: Timetable, trip: int, document: Mapping[str, Any], static: Static
) -> dict[str, Any]:
    """The stop that it is at or goes to, where the trip really calls there."""
    row = stop_row(timetable, trip, document, static.feed)
    if row is None:
        return {}
    times = timetable.stop_times
    told: dict[str, Any] = {
        "current_stop_sequence": int(times.sequence[row]),
        "stop_id": own_id(timetable.stops.ids.texts[times.stop[row]], static.feed),
    }
    if "currentStatus" in document:
        told["current_status"] = document["currentStatus"]
    return told


def stop_row(timetable: Timetable, trip: int, document: Mapping[str, Any], feed: str) -> int | None:
    """The row of StopTimes at which a vehicle says to be; None where its trip has no such stop."""
    first, end = timetable.trips.offsets[trip : trip + 2].tolist()
    sequence = document.get("currentStopSequence")
    if isinstance(sequence, int):
        found = np.flatnonzero(timetable.stop_times.sequence[first:end] == sequence)
    else:
        stop = timetable.stops.ids.numbers.get(f"{feed}:{document.get('stopId')}", NONE)
        found = np.flatnonzero(timetable.stop_times.stop[first:end] == stop)
    return first + int(found[0]) if len(found) == 1 else None


# --- trip updates ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Template:
    """The StopTimeUpdates of a trip with every time left open."""

    content: NDArray[np.uint8]
    starts: tuple[int, ...]
    """Where each begins; and the length of all."""
    holes: Place
    """Of each stop, where its arrival and its departure stand, five bytes each: (n, 2, 5)."""


def _updates(timetable: Timetable, overlay: Overlay, static: Static, memo: Memo) -> Iterator[bytes]:
    parts = memo.parts
    kept: dict[Any, Part] = {}
    drivers = _drivers(timetable, overlay, static)
    shared = Counter(_base(timetable, trip) for trip, _ in drivers)
    now = int(overlay.at.timestamp())
    seen: set[str] = set()
    for day, state in overlay.trips.items():
        if feed_of(timetable, day[0]) != static.feed:
            continue
        base = day_start(timetable.versions[timetable.trips.version[day[0]]].timezone, day[1])
        if not EPOCH_SECONDS_MIN <= base <= EPOCH_SECONDS_MAX:
            continue
        driver = drivers.get(day)
        # Readers pair vehicles with trips by the id alone, which several runs may share.
        if driver is not None and shared[_base(timetable, day[0])] > 1:
            driver = None
        vehicle = driver and driver.id
        left = _passed(state, now - base)
        held = parts.get(day)
        if held is None or held[0] is not state or held[1:3] != (vehicle, left):
            whole = _update(timetable, day, state, static, memo, driver, left, now, base)
            held = (state, vehicle, left, whole)
        kept[day] = held
        # One id in two versions of the feed on one day would be one trip told twice.
        name = f"{timetable.trips.ids.texts[day[0]]} {day[1]}"
        if held[3] and name not in seen:
            seen.add(name)
            yield held[3]
    memo.parts = kept
    memo.templates = {day[0]: memo.templates[day[0]] for day in kept if day[0] in memo.templates}


def _base(timetable: Timetable, trip: int) -> str:
    """The id of a trip without the start of its run."""
    text = timetable.trips.ids.texts[trip]
    base, at, start = text.rpartition(CALLED_AT_START)
    return base if at and start.count(":") == 2 else text  # noqa: PLR2004 - HH:MM:SS


def _passed(state: TripState, seconds: int) -> int:
    """How many stops are behind the trip: what it did there is no news. The last one is told."""
    if state.cancelled:
        return 0
    ahead = state.departure >= seconds
    return int(ahead.argmax()) if ahead.any() else max(len(ahead) - 1, 0)


def _update(
    timetable: Timetable, day: TripDay, state: TripState, static: Static, memo: Memo,
    driver: Vehicle | None, left: int, now: int, base: int,
) -> bytes:  # fmt: skip
    """One entity; empty for what cannot be said: that a trip without a timetable does not run."""
    trip = descriptor(timetable, day, static, CANCELED if state.cancelled else SCHEDULED)
    flexible = pb.TripDescriptor.FromString(trip).schedule_relationship == UNSCHEDULED
    stops = b""
    if not state.cancelled:
        plain = not state.skipped.any() and int(state.arrival.min(initial=0)) >= 0
        plain = plain and int(state.departure.min(initial=0)) >= 0 and not flexible
        write = _stops_plain if plain else _stops_any
        stops = write(timetable, day[0], state, static, memo, left, base)
    if (state.cancelled and flexible) or not (stops or state.cancelled):
        return b""
    content = chunk(0x0A, trip) + stops
    if driver is not None:
        content += chunk(0x1A, _vehicle_descriptor(driver.document, vehicle_name(driver)))
    content += b"\x20" + varint(min(int(state.time.timestamp()), now))
    name = own_id(timetable.trips.ids.texts[day[0]], static.feed)
    return _entity(0x1A, f"{name}:{day[1]:%Y%m%d}", content)


def _increasing(arrival: NDArray[Any], departure: NDArray[Any]) -> NDArray[np.int64]:
    """Arrivals and departures (n, 2), each stop at least a second after the one before.

    Timetables are in whole minutes: a vehicle is at two stops in one, but not at one moment.
    """
    both = np.stack((arrival, departure), 1).astype(np.int64).ravel()
    stops = np.arange(len(both)) // 2
    rising: NDArray[np.int64] = np.maximum.accumulate(both - stops) + stops
    return rising.reshape(-1, 2)


_SHIFTS = np.array([0, 7, 14, 21, 28])
_MORE = np.array([0x80, 0x80, 0x80, 0x80, 0])


def _five_bytes(moments: NDArray[np.int64]) -> NDArray[np.uint8]:
    octets: NDArray[np.uint8] = (moments[..., None] >> _SHIFTS & 0x7F | _MORE).astype(np.uint8)
    return octets


def _stops_plain(
    timetable: Timetable, trip: int, state: TripState, static: Static, memo: Memo, left: int,
    base: int,
) -> bytes:  # fmt: skip
    """The times, written into the template of the trip."""
    template = memo.templates.get(trip)
    if template is None:
        template = memo.templates[trip] = _template(timetable, trip, static.feed)
    content = template.content.copy()
    content[template.holes[left:]] = _five_bytes(
        _increasing(state.arrival[left:], state.departure[left:]) + base
    )
    return content[template.starts[left] :].tobytes()


def _template(timetable: Timetable, trip: int, feed: str) -> Template:
    parts, starts, holes = [], [0], []
    for row, _ in _calls(timetable, trip):
        stop = _stop_update(timetable, trip, row, feed, (EPOCH_SECONDS_MIN,) * 2, STOP_SCHEDULED)
        # The times come last: arrival (8 bytes, of which the last five), departure alike.
        end = starts[-1] + len(stop)
        holes.append([range(end - 13, end - 8), range(end - 5, end)])
        starts.append(end)
        parts.append(stop)
    content = np.frombuffer(b"".join(parts), np.uint8)
    return Template(content, tuple(starts), np.array(holes, np.intp).reshape(-1, 2, 5))


def _calls(timetable: Timetable, trip: int) -> Iterable[tuple[int, int]]:
    first, end = timetable.trips.offsets[trip : trip + 2].tolist()
    return ((row, row - first) for row in range(first, end))


def _stop_update(
    timetable: Timetable, trip: int, row: int, feed: str, times: tuple[int, int] | None,
    relation: int,
) -> bytes:  # fmt: skip
    """One StopTimeUpdate, as the field of a TripUpdate; its times at the end."""
    calls, first = timetable.stop_times, int(timetable.trips.offsets[trip])
    told = b"\x08" + varint(int(calls.sequence[row]))
    # Where a trip calls twice in a row, the sequence alone tells which.
    if row == first or calls.stop[row] != calls.stop[row - 1]:
        stop = own_id(timetable.stops.ids.texts[calls.stop[row]], feed)
        told += chunk(0x22, stop.encode())
    told += b"\x28" + varint(relation)
    for key, moment in zip((0x12, 0x1A), times or (), strict=False):
        told += chunk(key, b"\x10" + varint(moment))
    return chunk(0x12, told)


def _stops_any(
    timetable: Timetable, trip: int, state: TripState, static: Static, memo: Memo, left: int,
    base: int,
) -> bytes:  # fmt: skip
    """Stops one by one: skipped ones, and those of which no time is known, are told without."""
    del memo
    name = own_id(timetable.trips.ids.texts[trip], static.feed)
    flexible = name.rpartition(CALLED_AT_START)[0] in static.flexible
    known = (state.arrival >= 0) | (state.departure >= 0)
    arrival = np.where(state.arrival >= 0, state.arrival, state.departure)
    departure = np.where(state.departure >= 0, state.departure, state.arrival)
    called = known & ~state.skipped
    shown = _increasing(arrival[called], departure[called]) + base
    places = np.cumsum(called) - 1
    parts = []
    relation = STOP_UNSCHEDULED if flexible else STOP_SCHEDULED
    for row, number in _calls(timetable, trip):
        times = tuple(shown[places[number]].tolist()) if called[number] else None
        if number < left or (flexible and times is None):
            continue  # a stop that nothing is known of need not be told where none was planned
        if times is None:
            other = STOP_SKIPPED if state.skipped[number] else STOP_NO_DATA
            parts.append(_stop_update(timetable, trip, row, static.feed, None, other))
        else:
            parts.append(_stop_update(timetable, trip, row, static.feed, times, relation))
    return b"".join(parts)


# --- alerts ---------------------------------------------------------------------------------------


def _alerts(timetable: Timetable, overlay: Overlay, static: Static, memo: Memo) -> Iterator[bytes]:
    parts = memo.parts
    kept: dict[Any, Part] = {}
    for key, document in overlay.alerts.items():
        source, _, name = key.partition(":")
        if source not in static.sources:
            continue
        held = parts.get(key)
        if held is None or held[0] is not document:
            told = alert_of(timetable, document, static)
            # The source is left out where it is the feed itself; two sources may use one id.
            shown = name if source == static.feed else key
            whole = b"" if told is None else _entity(0x2A, shown, told.SerializeToString())
            held = (document, whole)
        kept[key] = held
        yield held[1]
    memo.parts = kept


_Write = Callable[[Timetable, Overlay, Static, Memo], Iterator[bytes]]
_ENTITIES: dict[Kind, _Write] = {
    Kind.POSITIONS: _vehicles,
    Kind.UPDATES: _updates,
    Kind.ALERTS: _alerts,
}
