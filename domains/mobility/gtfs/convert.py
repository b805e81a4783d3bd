"""A feed's files as rows of mobility's tables; what cannot be stored is refused row by row."""

import zoneinfo
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domains.mobility.gtfs import table as tables
from domains.mobility.gtfs import translations
from domains.mobility.gtfs.problems import Report
from domains.mobility.gtfs.rows import Field, Part, Rows
from domains.mobility.gtfs.source import Source
from domains.mobility.gtfs.table import Table
from domains.mobility.gtfs.values import (
    COLOUR,
    COUNT,
    CURRENCY,
    DATE,
    DISTANCE,
    ID,
    LATITUDE,
    LONGITUDE,
    PRICE,
    TEXT,
    TIME,
    Kind,
    choice,
    whole,
)  # fmt: skip

TIMEZONE = "Asia/Tokyo"
"""Assumed where a feed gives none that exists."""
KEPT_BYTES_MAX = 128 << 20
"""A file without a table of its own that is larger is not kept."""
READ = (
    "agency.txt", "stops.txt", "routes.txt", "calendar.txt", "calendar_dates.txt", "shapes.txt",
    "trips.txt", "stop_times.txt", "frequencies.txt", "transfers.txt", "fare_attributes.txt",
    "fare_rules.txt", "translations.txt",
)  # fmt: skip
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
BUS = 3

AGENCY = (
    Field("agency_id", "agency_id", ID, ""),
    Field("agency_name", "name", TEXT),
    Field("agency_url", "url", TEXT),
    Field("agency_timezone", "timezone", TEXT, ""),
    Field("agency_lang", "language", TEXT),
)
STOP = (
    Field("stop_id", "stop_id", ID, need=True),
    Field("stop_code", "code", TEXT),
    Field("stop_name", "name", TEXT),
    Field("stop_lon", "longitude", LONGITUDE),
    Field("stop_lat", "latitude", LATITUDE),
    Field("zone_id", "zone_id", ID),
    Field("location_type", "location_type", choice(4), 0),
    Field("stop_timezone", "timezone", TEXT),
    Field("wheelchair_boarding", "wheelchair_boarding", choice(2), 0),
    Field("platform_code", "platform_code", TEXT),
)
ROUTE = (
    Field("route_id", "route_id", ID, need=True),
    Field("agency_id", "agency_id", ID),
    Field("route_short_name", "short_name", TEXT),
    Field("route_long_name", "long_name", TEXT),
    Field("route_type", "type", choice(1999)),
    Field("route_color", "colour", COLOUR),
    Field("route_text_color", "text_colour", COLOUR),
)
CALENDAR = (
    Field("service_id", "service_id", ID, need=True),
    Field("start_date", "start_date", DATE, need=True),
    Field("end_date", "end_date", DATE, need=True),
    *(Field(name, name, choice(1), 0) for name in WEEKDAYS),
)
CALENDAR_DATE = (
    Field("service_id", "service_id", ID, need=True),
    Field("date", "date", DATE, need=True),
    Field("exception_type", "exception", Kind(pa.int16(), whole(1, 2)), need=True),
)
POINT = (
    Field("shape_id", "shape_id", ID, need=True),
    Field("shape_pt_sequence", "sequence", COUNT, need=True),
    Field("shape_pt_lon", "longitude", LONGITUDE, need=True),
    Field("shape_pt_lat", "latitude", LATITUDE, need=True),
    Field("shape_dist_traveled", "distance", DISTANCE),
)
TRIP = (
    Field("trip_id", "trip_id", ID, need=True),
    Field("trip_headsign", "headsign", TEXT),
    Field("trip_short_name", "short_name", TEXT),
    Field("direction_id", "direction", choice(1)),
    Field("block_id", "block_id", TEXT),
    Field("wheelchair_accessible", "wheelchair_accessible", choice(2), 0),
    Field("bikes_allowed", "bikes_allowed", choice(2), 0),
)
STOP_TIME = (
    Field("stop_sequence", "sequence", COUNT, need=True),
    Field("arrival_time", "arrival", TIME),
    Field("departure_time", "departure", TIME),
    Field("stop_headsign", "headsign", TEXT),
    Field("pickup_type", "pickup", choice(3), 0),
    Field("drop_off_type", "drop_off", choice(3), 0),
    Field("shape_dist_traveled", "distance", DISTANCE),
    Field("timepoint", "timepoint", choice(1)),
)
FREQUENCY = (
    Field("start_time", "start_time", TIME, need=True),
    Field("end_time", "end_time", TIME, need=True),
    Field("headway_secs", "headway", Kind(pa.int32(), whole(1, 86_400)), need=True),
    Field("exact_times", "exact", choice(1), 0),
)
TRANSFER = (
    Field("transfer_type", "type", choice(5), 0),
    Field("min_transfer_time", "seconds_min", COUNT),
)
FARE = (
    Field("fare_id", "fare_id", ID, need=True),
    Field("price", "price", PRICE, need=True),
    Field("currency_type", "currency", CURRENCY, need=True),
    Field("payment_method", "payment_method", choice(1), 0),
    Field("transfers", "transfers", choice(100)),
    Field("transfer_duration", "transfer_seconds", COUNT),
)
FARE_RULE = (
    Field("origin_id", "origin_id", ID),
    Field("destination_id", "destination_id", ID),
    Field("contains_id", "contains_id", ID),
)


@dataclass(slots=True)
class Feed:
    """A feed as it will be stored: a part for each table, and the files that have none."""

    parts: dict[str, Part] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    """Rows of each file, stored or not."""
    timezone: str = TIMEZONE
    language: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    """name, publisher, start, end of feed_info.txt; what it has."""


class Reading:
    """The tables of one source, each read when it is asked for."""

    def __init__(self, source: Source, report: Report) -> None:
        self.source = source
        self.report = report
        self.feed = Feed()
        self.dates: Rows
        """Those of calendar_dates.txt, once the services are there that it names."""

    def rows(self, file: str) -> Rows:
        """The rows of a file, none where it is missing."""
        table = tables.read(file, self.source.files.get(file, b""), self.report)
        self.feed.found[file] = len(table)
        return Rows(table, self.report)

    def keys(self, table: str, column: str) -> pa.Array:
        """Ids of rows that are stored, in the order of their numbers."""
        return self.feed.parts[table].columns[column]


def convert(source: Source, report: Report, step: Any = lambda done: done) -> Feed:
    """Everything of a source; `step` is told each file that is done."""
    reading = Reading(source, report)
    parts = reading.feed.parts
    for name, make in MAKERS:
        parts[name] = make(reading)
        step(name)
    _information(reading)
    for name, content in source.files.items():
        if name in READ:
            continue
        if len(content) > KEPT_BYTES_MAX:
            report.add("file_not_kept", name)
        else:
            reading.feed.files[name] = tables.as_utf8(name, content, report)
    return reading.feed


def _agencies(reading: Reading) -> Part:
    rows = reading.rows("agency.txt")
    rows.read(*AGENCY)
    rows.unique("agency_id", "agency_id")
    unknown = np.array([not _is_zone(each) for each in rows.columns["timezone"].to_pylist()], bool)
    rows.problem("timezone", "agency_timezone", unknown)
    rows.columns["timezone"] = pc.if_else(pa.array(unknown), TIMEZONE, rows.columns["timezone"])
    rows.problem("missing_value", "agency_name", tables.as_numpy(pc.is_null(rows.columns["name"])))
    rows.columns["name"] = pc.coalesce(rows.columns["name"], rows.columns["agency_id"])
    rows.more()
    if len(rows):
        reading.feed.timezone = rows.columns["timezone"][0].as_py()
        reading.feed.language = rows.columns["language"][0].as_py()
    elif "agency.txt" in reading.source.files:
        reading.report.add("timezone", "agency.txt", name="agency_timezone")
    return rows.done("agency_id", "name", "url", "timezone", "language", "more")


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True


def _stops(reading: Reading) -> Part:
    rows = reading.rows("stops.txt")
    rows.read(*STOP)
    rows.unique("stop_id", "stop_id")
    rows.number()
    rows.refer("parent_station", "parent", rows.columns["stop_id"], need=False)
    # Half a place is none.
    given = pc.and_(pc.is_valid(rows.columns["longitude"]), pc.is_valid(rows.columns["latitude"]))
    for axis in ("longitude", "latitude"):
        rows.columns[axis] = pc.if_else(given, rows.columns[axis], None)
    rows.more()
    return rows.done(
        "number", "stop_id", "code", "name", "longitude", "latitude", "zone_id", "location_type",
        "parent", "timezone", "wheelchair_boarding", "platform_code", "more",
    )  # fmt: skip


def _routes(reading: Reading) -> Part:
    rows = reading.rows("routes.txt")
    rows.read(*ROUTE)
    rows.unique("route_id", "route_id")
    rows.number()
    unknown = tables.as_numpy(pc.is_null(rows.columns["type"]))
    rows.problem("route_type_unknown", "route_type", unknown, "route_id")
    rows.columns["type"] = pc.fill_null(rows.columns["type"], BUS)
    agency = rows.columns["agency_id"]
    agencies = reading.keys("agency", "agency_id")
    strange = tables.numbers(agency, agencies) < 0
    rows.problem("missing_reference", "agency_id", strange & tables.as_numpy(pc.is_valid(agency)))
    rows.more()
    return rows.done(
        "number", "route_id", "agency_id", "short_name", "long_name", "type", "colour",
        "text_colour", "more",
    )  # fmt: skip


def _services(reading: Reading) -> Part:
    """calendar.txt, and after it the services that calendar_dates.txt alone names."""
    rows = reading.rows("calendar.txt")
    rows.read(*CALENDAR)
    rows.unique("service_id", "service_id")
    days = np.zeros(len(rows), np.int16)
    for bit, name in enumerate(WEEKDAYS):
        days |= rows.columns[name].to_numpy().astype(np.int16) << bit
    rows.columns["weekdays"] = pa.array(days)
    rows.more()
    order = ("service_id", "weekdays", "start_date", "end_date", "more")
    listed = rows.done(*order)
    reading.dates = reading.rows("calendar_dates.txt")
    reading.dates.read(*CALENDAR_DATE)
    known = reading.dates.columns["service_id"].unique()
    extra = known.filter(pa.array(tables.numbers(known, listed.columns["service_id"]) < 0))
    count = len(extra)
    added = {
        "service_id": extra,
        "weekdays": pa.array(np.zeros(count, np.int16)),
        "start_date": pa.nulls(count, pa.date32()),
        "end_date": pa.nulls(count, pa.date32()),
        "more": pa.nulls(count, pa.string()),
    }
    columns = {n: pa.concat_arrays([listed.columns[n], added[n]]) for n in order}
    columns["number"] = pa.array(np.arange(len(listed) + count, dtype=np.int32))
    where = np.concatenate([listed.rows, np.zeros(count, np.int32)])
    return Part("calendar.txt", columns, where)


def _service_dates(reading: Reading) -> Part:
    rows = reading.dates
    rows.refer("service_id", "service", reading.keys("service", "service_id"))
    rows.unique("service_id", "service", "date")
    rows.columns["runs"] = pc.equal(rows.columns["exception"], 1)
    rows.nothing_more()
    return rows.done("service", "date", "runs")


def _shapes(reading: Reading) -> Part:
    """One row a shape, its points in order of their sequence, as PostgreSQL writes arrays."""
    rows = reading.rows("shapes.txt")
    rows.read(*POINT)
    rows.unique("shape_id", "shape_id", "sequence")
    rows.nothing_more()
    points = rows.done("shape_id", "sequence", "longitude", "latitude", "distance")
    encoded = points.columns["shape_id"].dictionary_encode()
    shape = encoded.indices.to_numpy().astype(np.int64)
    order = np.lexsort((points.numpy("sequence"), shape))
    ends = np.searchsorted(shape[order], np.arange(len(encoded.dictionary) + 1))
    arrays: dict[str, list[str | None]] = {
        n: [] for n in ("sequences", "longitudes", "latitudes", "distances")
    }
    lists = {n: points.columns[n[:-1]].take(pa.array(order)).to_pylist() for n in arrays}
    for start, end in pairwise(ends):
        for name, values in lists.items():
            inside = values[start:end]
            none = all(value is None for value in inside)
            text = ",".join("NULL" if value is None else repr(value) for value in inside)
            arrays[name].append(None if none else f"{{{text}}}")
    columns = {n: pa.array(texts, pa.string()) for n, texts in arrays.items()}
    columns["shape_id"] = encoded.dictionary
    columns["number"] = pa.array(np.arange(len(encoded.dictionary), dtype=np.int32))
    reading.feed.found["shapes"] = len(points)
    first = np.unique(shape, return_index=True)[1]
    return Part("shapes.txt", columns, points.rows[first])


def _trips(reading: Reading) -> Part:
    rows = reading.rows("trips.txt")
    rows.read(*TRIP)
    rows.unique("trip_id", "trip_id")
    rows.refer("route_id", "route", reading.keys("route", "route_id"))
    rows.refer("service_id", "service", reading.keys("service", "service_id"))
    rows.refer("shape_id", "shape", reading.keys("shape", "shape_id"), need=False)
    rows.number()
    rows.more()
    return rows.done(
        "number", "trip_id", "route", "service", "headsign", "short_name", "direction",
        "block_id", "shape", "wheelchair_accessible", "bikes_allowed", "more",
    )  # fmt: skip


def _stop_times(reading: Reading) -> Part:
    """In order of trip and sequence."""
    rows = reading.rows("stop_times.txt")
    rows.refer("trip_id", "trip", reading.keys("trip", "trip_id"))
    rows.refer("stop_id", "stop", reading.keys("stop", "stop_id"))
    rows.read(*STOP_TIME)
    trip = rows.columns["trip"].to_numpy().astype(np.int64)
    sequence = rows.columns["sequence"].to_numpy().astype(np.int64)
    key = trip << 32 | sequence
    twice = np.ones(len(key), np.bool_)
    twice[np.unique(key, return_index=True)[1]] = False
    rows.problem("duplicate_id", "stop_sequence", twice, "trip_id")
    rows.refuse(twice)
    rows.more()
    part = rows.done(
        "trip", "sequence", "stop", "arrival", "departure", "headsign", "pickup", "drop_off",
        "distance", "timepoint", "more",
    )  # fmt: skip
    key = key[~twice]
    if (key[1:] > key[:-1]).all():
        return part
    order = np.argsort(key, kind="stable")
    places = pa.array(order)
    columns = {name: column.take(places) for name, column in part.columns.items()}
    return Part(part.file, columns, part.rows[order])


def _frequencies(reading: Reading) -> Part:
    rows = reading.rows("frequencies.txt")
    rows.refer("trip_id", "trip", reading.keys("trip", "trip_id"))
    rows.read(*FREQUENCY)
    rows.unique("trip_id", "trip", "start_time")
    rows.columns["exact"] = pc.equal(rows.columns["exact"], 1)
    rows.nothing_more()
    return rows.done("trip", "start_time", "end_time", "headway", "exact")


def _transfers(reading: Reading) -> Part:
    rows = reading.rows("transfers.txt")
    rows.read(*TRANSFER)
    for name, table in (("stop", "stop"), ("route", "route"), ("trip", "trip")):
        for side in ("from", "to"):
            texts = rows.texts(f"{side}_{name}_id")
            keys = reading.keys(table, f"{table}_id")
            rows.refer(f"{side}_{name}_id", f"{side}_{name}", keys, need=False)
            gone = pc.and_(pc.is_null(rows.columns[f"{side}_{name}"]), pc.not_equal(texts, ""))
            rows.refuse(tables.as_numpy(gone))
    rows.more()
    return rows.done(
        "from_stop", "to_stop", "type", "seconds_min", "from_route", "to_route", "from_trip",
        "to_trip", "more",
    )  # fmt: skip


def _fares(reading: Reading) -> Part:
    rows = reading.rows("fare_attributes.txt")
    rows.read(*FARE)
    rows.unique("fare_id", "fare_id")
    rows.more()
    return rows.done(
        "fare_id", "price", "currency", "payment_method", "transfers", "transfer_seconds", "more"
    )


def _fare_rules(reading: Reading) -> Part:
    rows = reading.rows("fare_rules.txt")
    rows.refer("fare_id", "fare", reading.keys("fare", "fare_id"))
    rows.columns["fare_id"] = rows.texts("fare_id")
    texts = rows.texts("route_id")
    rows.refer("route_id", "route", reading.keys("route", "route_id"), need=False)
    # A rule for a route that is not there would become a rule for all of them.
    gone = pc.and_(pc.is_null(rows.columns["route"]), pc.not_equal(texts, ""))
    rows.refuse(tables.as_numpy(gone))
    rows.read(*FARE_RULE)
    rows.nothing_more()
    return rows.done("fare_id", "route", "origin_id", "destination_id", "contains_id")


def _translations(reading: Reading) -> Part:
    rows = reading.rows("translations.txt")
    return translations.read(rows, reading.feed.parts, reading.report)


MAKERS = (
    ("agency", _agencies),
    ("stop", _stops),
    ("route", _routes),
    ("service", _services),
    ("service_date", _service_dates),
    ("shape", _shapes),
    ("trip", _trips),
    ("stop_time", _stop_times),
    ("frequency", _frequencies),
    ("transfer", _transfers),
    ("fare", _fares),
    ("fare_rule", _fare_rules),
    ("translation", _translations),
)
"""Tables in the order in which they name each other."""


def _information(reading: Reading) -> None:
    """What feed_info.txt says; the file itself is kept as it came."""
    content = reading.source.files.get("feed_info.txt")
    if content is None:
        return
    quiet = Report()  # the file is read for its encoding once more, where it is kept
    table: Table = tables.read("feed_info.txt", content, quiet)
    if not len(table):
        return
    rows = Rows(table, reading.report)
    rows.read(
        Field("feed_start_date", "start", DATE),
        Field("feed_end_date", "end", DATE),
        Field("feed_version", "name", TEXT),
        Field("feed_publisher_name", "publisher", TEXT),
        Field("feed_lang", "language", TEXT),
    )
    reading.feed.info = {name: column[0].as_py() for name, column in rows.columns.items()}
    language = reading.feed.info["language"]
    if language and language != "mul":
        reading.feed.language = language
