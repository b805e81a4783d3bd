"""What is doubtful about a feed that can be stored: told to its operator, never refused."""

from collections.abc import Collection, Sequence
from datetime import date, timedelta

import jpholiday
import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from domains.mobility.gtfs.convert import Feed
from domains.mobility.gtfs.days import Calendar, Running
from domains.mobility.gtfs.problems import EXAMPLES_MAX, Report
from domains.mobility.gtfs.rows import Mask, Part
from domains.mobility.gtfs.table import as_numpy

EARTH_M = 6_371_008.8
STATION_PLACES = 2
"""location_type up to which a place is required: stop, station, entrance."""
FAR_AWAY_M = 100_000.0
FAR_AWAY_TIMES = 10.0
"""A stop is far away from others when it is that far from their middle, and that many times
farther than nine in ten of them."""
SPEED_KM_H = {
    0: 100, 1: 150, 2: 500, 3: 150, 4: 80, 5: 30, 6: 50, 7: 50, 11: 150, 12: 150,
}  # fmt: skip
"""By route type, as MobilityData's rule fast_travel_between_consecutive_stops has them."""
SPEED_OTHERS_KM_H = 200
EXTENDED = {1: 2, 2: 3, 4: 1, 5: 1, 6: 1, 7: 3, 8: 11, 9: 0, 10: 4, 12: 4, 13: 6, 14: 7}
"""Hundreds of an extended route type -> its plain type."""
MINUTE = 60
JAPAN = "Asia/Tokyo"
WEEKEND = 0b1100000
HOLIDAYS_WITHIN = timedelta(days=3 * 366)


def check(
    feed: Feed,
    files: Collection[str],
    calendar: Calendar,
    today: date,
    report: Report,
) -> None:
    """Add to the report what no single row shows."""
    _files(files, report)
    _calendar(feed, calendar, today, report)
    _holidays(feed, calendar, report)
    _stops(feed, report)
    _trips(feed, calendar.running, report)
    _times(feed, report)
    _names(feed, report)
    _zones(feed, report)


def _files(files: Collection[str], report: Report) -> None:
    for file in ("agency.txt", "routes.txt"):
        if file not in files:
            report.add("missing_file", file)
    if not {"calendar.txt", "calendar_dates.txt"} & set(files):
        report.add("missing_file", "calendar.txt")
    if "feed_info.txt" not in files:
        report.add("missing_feed_info", "feed_info.txt")


def _calendar(feed: Feed, calendar: Calendar, today: date, report: Report) -> None:
    start, end = calendar.valid_from, calendar.valid_to
    if start is None or end is None:
        report.add("calendar_empty", "calendar.txt")
    elif end < today:
        report.add("calendar_expired", "calendar.txt", ids=[end])
    elif start > today:
        report.add("calendar_future", "calendar.txt", ids=[start])
    service = feed.parts["service"]
    backwards = pc.less(service.columns["end_date"], service.columns["start_date"])
    _tell(report, "calendar_backwards", service, as_numpy(pc.fill_null(backwards, False)),
          "end_date", "service_id")  # fmt: skip


def _holidays(feed: Feed, calendar: Calendar, report: Report) -> None:
    """Services of Monday to Friday that run on a holiday too: often an exception was forgotten."""
    start, end = calendar.valid_from, calendar.valid_to
    if feed.timezone != JAPAN or start is None or end is None:
        return
    holidays = [day for day, _ in jpholiday.between(start, min(end, start + HOLIDAYS_WITHIN))]
    forgotten = np.zeros(len(calendar.services), np.bool_)
    for number, service in enumerate(calendar.services):
        if service.weekdays and not service.weekdays & WEEKEND:
            forgotten[number] = any(map(service.runs, holidays))
    service_part = feed.parts["service"]
    _tell(report, "holiday_service", service_part, forgotten, None, "service_id")


def _tell(report: Report, code: str, part: Part, mask: Mask, name: str | None, shown: str) -> None:
    if mask.any():
        report.add(code, part.file, name=name, rows=part.rows[mask], ids=part.id_of(shown, mask))


def _stops(feed: Feed, report: Report) -> None:
    stop = feed.parts["stop"]
    kind = stop.numpy("location_type", 0)
    placed = as_numpy(pc.is_valid(stop.columns["longitude"]))
    required = kind <= STATION_PLACES
    _tell(report, "stop_without_place", stop, ~placed & required, "stop_lat", "stop_id")
    nameless = as_numpy(pc.is_null(stop.columns["name"])) & required
    _tell(report, "stop_without_name", stop, nameless, "stop_name", "stop_id")
    used = np.zeros(len(stop), np.bool_)
    used[feed.parts["stop_time"].numpy("stop")] = True
    _tell(report, "stop_unused", stop, ~used & (kind == 0), None, "stop_id")
    if placed.any():
        longitude, latitude = stop.numpy("longitude", np.nan), stop.numpy("latitude", np.nan)
        middle = np.nanmedian(longitude), np.nanmedian(latitude)
        off = metres(longitude, latitude, np.float64(middle[0]), np.float64(middle[1]))
        usual = float(np.nanquantile(off, 0.9)) * FAR_AWAY_TIMES
        with np.errstate(invalid="ignore"):
            far = off > max(FAR_AWAY_M, usual)
        _tell(report, "stop_far_away", stop, far, "stop_lat", "stop_id")


def metres(
    longitude: NDArray[np.float64],
    latitude: NDArray[np.float64],
    other_longitude: NDArray[np.float64] | np.float64,
    other_latitude: NDArray[np.float64] | np.float64,
) -> NDArray[np.float64]:
    """Great-circle distances in metres between places in degrees (haversine, mean radius)."""
    x, y, u, v = map(np.radians, (longitude, latitude, other_longitude, other_latitude))
    h = np.sin((v - y) / 2) ** 2 + np.cos(y) * np.cos(v) * np.sin((u - x) / 2) ** 2
    arc: NDArray[np.float64] = 2 * EARTH_M * np.arcsin(np.sqrt(np.clip(h, 0, 1)))
    return arc


def _trips(feed: Feed, running: Sequence[Running], report: Report) -> None:
    trip, stop_time = feed.parts["trip"], feed.parts["stop_time"]
    calls = np.bincount(stop_time.numpy("trip"), minlength=len(trip))
    _tell(report, "trip_without_stops", trip, calls < 2, None, "trip_id")  # noqa: PLR2004
    idle = np.array([each.count == 0 for each in running], np.bool_)
    if len(trip):
        _tell(
            report, "trip_without_days", trip, idle[trip.numpy("service")], "service_id", "trip_id"
        )
    for table, code in (("route", "route_without_trips"), ("shape", "shape_unused")):
        part = feed.parts[table]
        used = np.zeros(len(part) + 1, np.bool_)
        used[trip.numpy(table)] = True  # -1, none, is the last
        _tell(report, code, part, ~used[:-1], None, f"{table}_id")


def _times(feed: Feed, report: Report) -> None:
    """Speeds and order between each timed stop and the timed one before it on the same trip."""
    part = feed.parts["stop_time"]
    if not len(part):
        return
    trip, arrival, departure = (part.numpy(n) for n in ("trip", "arrival", "departure"))
    arrival = np.where(arrival < 0, departure, arrival)
    departure = np.where(departure < 0, arrival, departure)
    timed = arrival >= 0
    edge = np.ones(len(part), np.bool_)
    edge[1:] = trip[1:] != trip[:-1]
    ends = edge | np.append(edge[1:], True)
    trips = feed.parts["trip"].columns["trip_id"]

    def tell(code: str, mask: Mask, name: str) -> None:
        if mask.any():
            where = np.flatnonzero(mask)
            ids = [trips[int(trip[index])].as_py() for index in where[:EXAMPLES_MAX]]
            report.add(code, part.file, name=name, rows=part.rows[where], ids=ids)

    tell("trip_without_end_times", ends & ~timed, "arrival_time")
    late = timed & (departure < arrival)
    here = np.flatnonzero(timed)
    before, after = here[:-1], here[1:]
    together = trip[before] == trip[after]
    before, after = before[together], after[together]
    late[after[arrival[after] < departure[before]]] = True
    tell("time_backwards", late, "arrival_time")
    tell("impossible_speed", _too_fast(feed, before, after, arrival, departure), "arrival_time")


def _too_fast(
    feed: Feed,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    arrival: NDArray[np.int32],
    departure: NDArray[np.int32],
) -> Mask:
    """Which stop times come sooner than their vehicle could; a timetable in minutes gets one."""
    stop, trip = feed.parts["stop_time"].numpy("stop"), feed.parts["stop_time"].numpy("trip")
    longitude = feed.parts["stop"].numpy("longitude", np.nan)
    latitude = feed.parts["stop"].numpy("latitude", np.nan)
    one, two = stop[before], stop[after]
    far = metres(longitude[one], latitude[one], longitude[two], latitude[two])
    seconds = (arrival[after] - departure[before]).astype(np.float64)
    in_minutes = (arrival[after] % MINUTE == 0) & (departure[before] % MINUTE == 0)
    seconds = np.where(in_minutes, seconds + MINUTE, np.maximum(seconds, 1.0))
    kinds = [_speed(int(kind)) for kind in feed.parts["route"].numpy("type")]
    most = np.array(kinds, np.float64)[feed.parts["trip"].numpy("route")][trip[after]]
    mask = np.zeros(len(stop), np.bool_)
    with np.errstate(invalid="ignore", divide="ignore"):
        mask[after[(seconds > 0) & (far / seconds * 3.6 > most)]] = True
    return mask


def _speed(kind: int) -> float:
    plain = EXTENDED.get(kind // 100, -1) if kind >= 100 else kind  # noqa: PLR2004
    return SPEED_KM_H.get(plain, SPEED_OTHERS_KM_H)


def _names(feed: Feed, report: Report) -> None:
    route = feed.parts["route"]
    nameless = pc.and_(
        pc.is_null(route.columns["short_name"]), pc.is_null(route.columns["long_name"])
    )
    _tell(report, "route_without_name", route, as_numpy(nameless), "route_long_name", "route_id")


def _zones(feed: Feed, report: Report) -> None:
    rule = feed.parts["fare_rule"]
    zones = pc.drop_null(feed.parts["stop"].columns["zone_id"].unique())
    for name in ("origin_id", "destination_id", "contains_id"):
        named = rule.columns[name]
        known = pc.or_(pc.is_null(named), pc.is_in(named, value_set=zones))
        _tell(report, "zone_unknown", rule, ~as_numpy(known), name, name)
