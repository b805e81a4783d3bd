"""City buses of the demo city: their timetable (GTFS) and, from it, where they are (GTFS-Realtime).

Six lines run along avenues and streets of the grid, all day and at night, so that there is always
something to see. How late a bus is depends on the trip alone: the same time says the same.
"""

import csv
import io
import math
import zipfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from functools import cache

from google.transit import gtfs_realtime_pb2 as pb

from core.clock import MICROSECONDS
from gateways.simulators.city import (
    COLUMN_METRES,
    COLUMNS,
    GRID_CORNER,
    GRID_TURN_DEGREES,
    METRES_PER_DEGREE,
    ROW_METRES,
    ROWS,
    noise,
    offset,
    turned,
)

TIMETABLE, REALTIME = "demo-bus", "demo-bus-rt"
"""Ids of the two feeds; the second is also the gateway."""
REPORT_SECONDS = 5
JAPAN = timezone(timedelta(hours=9))
SPEED, DWELL_SECONDS = 6.0, 20
"""m/s between stops, and the time at one."""
LATE_SECONDS_MAX = 300
FARE_YEN = 210
DAY_SECONDS = 86_400
HEADWAYS = ((0, 5, 30), (5, 6, 20), (6, 22, 10), (22, 24, 20))
"""From and to which hour a bus leaves every so many minutes."""
STAGGER_SECONDS = 120
"""Each line leaves so much after the one before: at night too, some bus is always on its way."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop at a corner of the grid; lines that meet there share it."""

    id: str
    name: str
    name_en: str
    longitude: float
    latitude: float


@dataclass(frozen=True, slots=True)
class Line:
    """One line in one direction: its stops, and the seconds from the first one's departure."""

    number: str
    title: str
    colour: str
    direction: int
    stops: tuple[Stop, ...]
    arrivals: tuple[int, ...]
    departures: tuple[int, ...]
    starts: tuple[int, ...]
    """When buses leave the first stop: seconds of the service day, some beyond midnight."""


@dataclass(frozen=True, slots=True)
class Bus:
    """One bus on the road."""

    line: Line
    day: date
    trip: str
    start: int
    """Second of the service day in which it should leave the first stop."""
    late_seconds: int
    longitude: float
    latitude: float
    bearing: float
    speed: float
    next_stop: int
    """Index of the stop that it is at, or goes to."""
    at_stop: bool


LINES = (
    ("1", "港通線", "0072b2", [(1, row) for row in range(0, ROWS, 2)]),
    ("2", "中央線", "d55e00", [(7, row) for row in range(0, ROWS, 2)]),
    ("3", "山手線", "009e73", [(13, row) for row in range(0, ROWS, 2)]),
    ("4", "北条線", "cc79a7", [(column, 2) for column in range(1, COLUMNS, 2)]),
    ("5", "市役所線", "e69f00", [(column, 10) for column in range(1, COLUMNS, 2)]),
    ("6", "南条線", "56b4e9", [(column, 18) for column in range(1, COLUMNS, 2)]),
)
"""Number, name, colour, and the corners (column, row) that a line goes by."""


@cache
def lines() -> tuple[Line, ...]:
    """Every line in both directions."""
    found: list[Line] = []
    for number, title, colour, corners in LINES:
        for direction, way in enumerate((corners, corners[::-1])):
            stops = tuple(stop_at(*corner) for corner in way)
            times = (*_calls(stops), _starts(len(found) * STAGGER_SECONDS))
            found.append(Line(number, title, colour, direction, stops, *times))
    return tuple(found)


@cache
def stop_at(column: int, row: int) -> Stop:
    """The stop of a corner."""
    vector = turned(-column * COLUMN_METRES, -row * ROW_METRES, GRID_TURN_DEGREES)
    longitude, latitude = offset(*GRID_CORNER, *vector)
    return Stop(
        f"{column:02d}{row:02d}",
        f"{row + 1}条{column + 1}丁目", f"{row + 1}-jo {column + 1}-chome",
        round(longitude, 6), round(latitude, 6),
    )  # fmt: skip


def _calls(stops: tuple[Stop, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Arrivals and departures."""
    arrivals, departures, at = [], [], 0
    for index, stop in enumerate(stops):
        if index:
            at += round(math.hypot(*_metres(stops[index - 1], stop)) / SPEED)
        arrivals.append(at)
        at += DWELL_SECONDS if 0 < index < len(stops) - 1 else 0
        departures.append(at)
    return tuple(arrivals), tuple(departures)


def _metres(one: Stop, other: Stop) -> tuple[float, float]:
    """East and north from one stop to another."""
    per_longitude = METRES_PER_DEGREE * math.cos(math.radians(one.latitude))
    return (
        (other.longitude - one.longitude) * per_longitude,
        (other.latitude - one.latitude) * METRES_PER_DEGREE,
    )


def _starts(after: int) -> tuple[int, ...]:
    return tuple(
        second + after
        for begin, end, minutes in HEADWAYS
        for second in range(begin * 3600, end * 3600, minutes * 60)
    )


def trip_id(line: Line, start: int) -> str:
    """The same on every day."""
    return f"{line.number}-{line.direction}-{start // 3600:02d}{start // 60 % 60:02d}"


# --- where they are -------------------------------------------------------------------------------


def on_the_road(time_us: int) -> Iterator[Bus]:
    """The buses that run at a time, those of the day before included."""
    now = datetime.fromtimestamp(time_us // MICROSECONDS, UTC).astimezone(JAPAN)
    for back in (1, 0):
        day = now.date() - timedelta(days=back)
        second = now.hour * 3600 + now.minute * 60 + now.second + back * DAY_SECONDS
        for index, line in enumerate(lines()):
            longest = line.arrivals[-1] + LATE_SECONDS_MAX
            for start in line.starts:
                if start <= second <= start + longest:
                    late = _late(index, start, day)
                    bus = _bus(line, day, start, late, second - start)
                    if bus is not None:
                        yield bus


def _late(line: int, start: int, day: date) -> int:
    """How late a trip is at its end, 0 to LATE_SECONDS_MAX; most are a little."""
    return round((noise(line * 1_000 + start // 60, day.toordinal()) * 0.5 + 0.5) ** 2
                 * LATE_SECONDS_MAX)  # fmt: skip


def _bus(line: Line, day: date, start: int, late: int, since: int) -> Bus | None:
    """A bus so many seconds after it should have left; it falls behind evenly."""
    arrivals = [at + late * at // line.arrivals[-1] for at in line.arrivals]
    departures = [at + late * at // line.arrivals[-1] for at in line.departures]
    if since > arrivals[-1]:
        return None
    index = min(bisect_right(departures, since), len(departures) - 1)
    before = max(index - 1, 0)
    stop, last = line.stops[index], line.stops[before]
    waits = since >= arrivals[index]
    share = 1.0
    if not waits and arrivals[index] > departures[before]:
        share = (since - departures[before]) / (arrivals[index] - departures[before])
    east, north = _metres(last, stop)
    return Bus(
        line, day, trip_id(line, start), start,
        late * min(since, line.arrivals[-1]) // line.arrivals[-1],
        last.longitude + (stop.longitude - last.longitude) * share,
        last.latitude + (stop.latitude - last.latitude) * share,
        math.degrees(math.atan2(east, north)) % 360, 0.0 if waits else SPEED, index, waits,
    )  # fmt: skip


def message(time_us: int) -> tuple[bytes, int]:
    """A FeedMessage of every bus: its position, and how late it is; and how many entities."""
    feed = pb.FeedMessage()
    feed.header.gtfs_realtime_version = "2.0"
    feed.header.timestamp = time_us // MICROSECONDS
    for bus in on_the_road(time_us):
        told = pb.TripDescriptor(
            trip_id=bus.trip, route_id=bus.line.number, direction_id=bus.line.direction,
            start_date=f"{bus.day:%Y%m%d}",
        )  # fmt: skip
        stop = bus.line.stops[bus.next_stop]
        name = f"bus-{bus.trip}"
        position = feed.entity.add(id=name).vehicle
        position.trip.CopyFrom(told)
        position.vehicle.id = name
        position.vehicle.label = f"{bus.line.number} {bus.line.stops[-1].name}"
        position.position.longitude, position.position.latitude = bus.longitude, bus.latitude
        position.position.bearing, position.position.speed = bus.bearing, bus.speed
        position.timestamp = feed.header.timestamp
        position.stop_id, position.current_stop_sequence = stop.id, bus.next_stop + 1
        position.current_status = int(not bus.at_stop) * 2 + int(bus.at_stop)
        update = feed.entity.add(id=f"trip-{bus.trip}").trip_update
        update.trip.CopyFrom(told)
        update.vehicle.id = name
        update.timestamp = feed.header.timestamp
        ahead = update.stop_time_update.add(stop_sequence=bus.next_stop + 1, stop_id=stop.id)
        ahead.arrival.delay = bus.late_seconds
        ahead.departure.delay = bus.late_seconds
    return feed.SerializeToString(), len(feed.entity)


# --- the timetable --------------------------------------------------------------------------------


def timetable(year: int) -> bytes:
    """A GTFS-JP zip that holds for a year and the next, the same bytes whenever it is made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in _files(year).items():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(rows)
            entry = zipfile.ZipInfo(f"{name}.txt", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.getvalue())
    return out.getvalue()


def _files(year: int) -> dict[str, list[tuple[object, ...]]]:
    begin, end = f"{year}0101", f"{year + 1}1231"
    stops = sorted({stop.id: stop for line in lines() for stop in line.stops}.items())
    forth = [line for line in lines() if line.direction == 0]
    return {
        "agency": [("agency_id", "agency_name", "agency_url", "agency_timezone", "agency_lang"),
                   ("demo", "巷市交通局", "https://example.com/", "Asia/Tokyo", "ja")],
        "feed_info": [("feed_publisher_name", "feed_publisher_url", "feed_lang",
                       "feed_start_date", "feed_end_date", "feed_version"),
                      ("巷市", "https://example.com/", "ja", begin, end, str(year))],
        "stops": [("stop_id", "stop_name", "stop_lat", "stop_lon", "zone_id", "location_type",
                   "wheelchair_boarding"),
                  *((s.id, s.name, s.latitude, s.longitude, s.id, 0, 1) for _, s in stops)],
        "routes": [("route_id", "agency_id", "route_short_name", "route_long_name", "route_type",
                    "route_color", "route_text_color"),
                   *((x.number, "demo", x.number, x.title, 3, x.colour, "ffffff") for x in forth)],
        "calendar": [("service_id", "monday", "tuesday", "wednesday", "thursday", "friday",
                      "saturday", "sunday", "start_date", "end_date"),
                     ("daily", 1, 1, 1, 1, 1, 1, 1, begin, end)],
        "trips": [("route_id", "service_id", "trip_id", "trip_headsign", "direction_id",
                   "wheelchair_accessible"),
                  *((line.number, "daily", trip_id(line, start), line.stops[-1].name,
                     line.direction, 1) for line in lines() for start in line.starts)],
        "stop_times": [("trip_id", "arrival_time", "departure_time", "stop_id", "stop_sequence"),
                       *_stop_times()],
        "fare_attributes": [("fare_id", "price", "currency_type", "payment_method", "transfers"),
                            ("flat", FARE_YEN, "JPY", 0, 0)],
        "fare_rules": [("fare_id", "route_id"), *(("flat", line.number) for line in forth)],
        "translations": [("table_name", "field_name", "language", "translation", "record_id"),
                         *(("stops", "stop_name", "en", stop.name_en, stop.id)
                           for _, stop in stops)],
    }  # fmt: skip


def _stop_times() -> Iterator[tuple[object, ...]]:
    for line in lines():
        for start in line.starts:
            calls = zip(line.stops, line.arrivals, line.departures, strict=True)
            for number, (stop, arrival, departure) in enumerate(calls):
                times = (_clock(start + arrival), _clock(start + departure))
                yield (trip_id(line, start), *times, stop.id, number + 1)


def _clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
