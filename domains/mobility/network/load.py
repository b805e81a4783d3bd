"""A Timetable from the database: every version that the caller may read, kept until they change."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from consent.columns import Column
from consent.gate import PermittedConnection
from domains.mobility.network.assemble import assemble
from domains.mobility.network.calendar import Days, day_of, in_force
from domains.mobility.network.departures import Index, index_of
from domains.mobility.network.names import Names, Search, names_of
from domains.mobility.network.timetable import Timetable, Version

Built = TypeVar("Built")
Columns = dict[str, Column]

VERSIONS_MAX = 8
"""Of one feed, the newest that still has a day: a feed that changes hourly must not fill memory."""

SELECT_VERSIONS = """
SELECT v.id, v.feed, v.timezone, v.language, v.valid_from, v.valid_to
FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
WHERE f.data_class = ANY(%(classes)s) ORDER BY v.imported_at, v.id
"""

# One query a file, and one array a column: half a million rows are no Python objects.
SELECT_STOPS = """
SELECT array_agg(version) AS version, array_agg(number) AS number, array_agg(stop_id) AS id,
  array_agg(coalesce(name, '')) AS name, array_agg(coalesce(code, '')) AS code,
  array_agg(coalesce(platform_code, '')) AS platform, array_agg(coalesce(zone_id, '')) AS zone,
  array_agg(coalesce(longitude, 'NaN')) AS longitude,
  array_agg(coalesce(latitude, 'NaN')) AS latitude,
  array_agg(location_type) AS location_type, array_agg(coalesce(parent, -1)) AS parent,
  array_agg(wheelchair_boarding) AS wheelchair
FROM mobility.stop
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_ROUTES = """
SELECT array_agg(version) AS version, array_agg(number) AS number, array_agg(route_id) AS id,
  array_agg(coalesce(agency_id, '')) AS agency, array_agg(coalesce(short_name, '')) AS short_name,
  array_agg(coalesce(long_name, '')) AS long_name, array_agg(coalesce(colour, '')) AS colour,
  array_agg(type) AS type
FROM mobility.route
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_SERVICES = """
SELECT array_agg(version) AS version, array_agg(number) AS number,
  array_agg(weekdays) AS weekdays,
  array_agg(coalesce(start_date - date '1970-01-01', 1)) AS first,
  array_agg(coalesce(end_date - date '1970-01-01', 0)) AS last
FROM mobility.service
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_SERVICE_DATES = """
SELECT array_agg(version) AS version, array_agg(service) AS service,
  array_agg(date - date '1970-01-01') AS day, array_agg(runs) AS runs
FROM mobility.service_date
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_TRIPS = """
SELECT array_agg(version) AS version, array_agg(number) AS number, array_agg(trip_id) AS id,
  array_agg(route) AS route, array_agg(service) AS service,
  array_agg(coalesce(headsign, '')) AS headsign,
  array_agg(coalesce(short_name, '')) AS short_name,
  array_agg(coalesce(block_id, '')) AS block, array_agg(coalesce(direction, -1::int2)) AS direction,
  array_agg(wheelchair_accessible) AS wheelchair, array_agg(coalesce(shape, -1)) AS shape
FROM mobility.trip
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_STOP_TIMES = """
SELECT array_agg(version) AS version, array_agg(trip) AS trip, array_agg(sequence) AS sequence,
  array_agg(stop) AS stop, array_agg(coalesce(arrival, -1)) AS arrival,
  array_agg(coalesce(departure, -1)) AS departure, array_agg(pickup) AS pickup,
  array_agg(drop_off) AS drop_off,
  array_agg(coalesce(distance, 'NaN')) AS distance
FROM mobility.stop_time
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_HEADSIGNS = """
SELECT array_agg(version) AS version, array_agg(trip) AS trip, array_agg(sequence) AS sequence,
  array_agg(headsign) AS headsign
FROM mobility.stop_time
WHERE headsign <> '' AND version IN (
    SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
    WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_FREQUENCIES = """
SELECT array_agg(version) AS version, array_agg(trip) AS trip, array_agg(start_time) AS first,
  array_agg(end_time) AS until, array_agg(headway) AS headway
FROM mobility.frequency
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_TRANSFERS = """
SELECT array_agg(version) AS version, array_agg(from_stop) AS from_stop,
  array_agg(to_stop) AS to_stop, array_agg(type) AS type,
  array_agg(coalesce(seconds_min, 0)) AS seconds_min
FROM mobility.transfer
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
  AND from_stop IS NOT NULL AND to_stop IS NOT NULL
  AND num_nonnulls(from_route, to_route, from_trip, to_trip) = 0
"""
SELECT_FARES = """
SELECT array_agg(version) AS version, array_agg(fare_id) AS id, array_agg(price::text) AS price,
  array_agg(currency) AS currency, array_agg(coalesce(more->>'agency_id', '')) AS agency,
  array_agg(payment_method) AS payment_method,
  array_agg(coalesce(transfers, -1::int2)) AS transfers,
  array_agg(coalesce(transfer_seconds, -1)) AS transfer_seconds
FROM mobility.fare
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_FARE_RULES = """
SELECT array_agg(version) AS version, array_agg(fare_id) AS id,
  array_agg(coalesce(route, -1)) AS route, array_agg(coalesce(origin_id, '')) AS origin,
  array_agg(coalesce(destination_id, '')) AS destination,
  array_agg(coalesce(contains_id, '')) AS contains
FROM mobility.fare_rule
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_TRANSLATIONS = """
SELECT array_agg(version) AS version, array_agg(table_name) AS "table",
  array_agg(field_name) AS field, array_agg(language) AS language,
  array_agg(translation) AS translation, array_agg(coalesce(record_id, '')) AS record,
  array_agg(coalesce(record_sub_id, '')) AS sub, array_agg(coalesce(field_value, '')) AS value
FROM mobility.translation
WHERE version IN (SELECT v.id FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
                  WHERE f.data_class = ANY(%(classes)s) AND v.id = ANY(%(versions)s))
"""
SELECT_SHAPE = """
SELECT s.longitudes, s.latitudes
FROM mobility.shape s JOIN mobility.feed_version v ON v.id = s.version
JOIN mobility.feed f ON f.id = v.feed
WHERE f.data_class = ANY(%(classes)s) AND s.version = %(version)s AND s.number = %(number)s
"""
QUERIES = {
    "stops": SELECT_STOPS,
    "routes": SELECT_ROUTES,
    "services": SELECT_SERVICES,
    "service_dates": SELECT_SERVICE_DATES,
    "trips": SELECT_TRIPS,
    "stop_times": SELECT_STOP_TIMES,
    "headsigns": SELECT_HEADSIGNS,
    "frequencies": SELECT_FREQUENCIES,
    "transfers": SELECT_TRANSFERS,
    "fares": SELECT_FARES,
    "fare_rules": SELECT_FARE_RULES,
}
"""What `assemble` is given, by name."""


@dataclass(frozen=True, slots=True)
class Network:
    """A Timetable with what is looked up in it; made together, of the same versions."""

    timetable: Timetable
    index: Index
    names: Names
    search: Search
    days: Days

    def shown(self, at: datetime) -> NDArray[np.bool_]:
        """Of each version whether its stops and routes are those of now.

        Those of a feed's version in force, else those of its newest.
        """
        versions = self.timetable.versions
        newest = {version.feed: number for number, version in enumerate(versions)}
        for number, version in enumerate(versions):
            if self.days.on(number, day_of(version.timezone, at)):
                newest[version.feed] = number
        shown = np.zeros(len(versions), np.bool_)
        shown[list(newest.values())] = True
        return shown


def network(connection: PermittedConnection) -> Network:
    """The feeds that the caller may read; built again only when a version came or went.

    On each service day the version of a feed runs that was imported last among those valid then.
    """
    return kept(connection, "network", _build)


def timetable(connection: PermittedConnection) -> Timetable:
    """The same as arrays alone."""
    return network(connection).timetable


def shape(
    connection: PermittedConnection, version: Version, number: int
) -> list[tuple[float, float]] | None:
    """A shape as longitudes and latitudes; None where there is none."""
    found = connection.fetch(SELECT_SHAPE, {"version": version.id, "number": number})
    if not found:
        return None
    return list(zip(found[0]["longitudes"], found[0]["latitudes"], strict=True))


def kept(
    connection: PermittedConnection,
    name: str,
    build: Callable[[PermittedConnection, tuple[Version, ...], Days], Built],
) -> Built:
    """What `build` makes of the versions that are to be seen, one for all callers of a permission.

    While one caller builds, others have what was there before, unless that has a version which
    they may not see any more; then, and the first time, they wait for it.
    """
    rows = connection.fetch(SELECT_VERSIONS)
    place: _Place = connection.kept.setdefault(("network", name), _Place())
    wanted = tuple(tuple(row.values()) for row in rows)
    held = place.held
    if held is not None and held.rows == wanted:
        answer: Built = held.built
        return answer
    if held is not None and set(held.rows) <= set(wanted):
        if not place.lock.acquire(blocking=False):
            answer = held.built
            return answer
    else:
        place.lock.acquire()
    try:
        if place.held is None or place.held.rows != wanted:
            every = tuple(Version(**row) for row in rows)
            versions, days = in_force(every, datetime.now(UTC).date(), VERSIONS_MAX)
            place.held = _Held(wanted, build(connection, versions, days))
        answer = place.held.built
        return answer
    finally:
        place.lock.release()


@dataclass(frozen=True, slots=True)
class _Held:
    rows: tuple[tuple[Any, ...], ...]
    built: Any


@dataclass(slots=True)
class _Place:
    lock: threading.Lock = field(default_factory=threading.Lock)
    held: _Held | None = None


def _build(connection: PermittedConnection, versions: tuple[Version, ...], days: Days) -> Network:
    scope = {"versions": [version.id for version in versions]}
    files = {name: connection.fetch_columns(query, scope) for name, query in QUERIES.items()}
    translations = connection.fetch_columns(SELECT_TRANSLATIONS, scope)
    timetable = assemble(versions, days, files)
    names = names_of(versions, _translated(versions, translations))
    return Network(timetable, index_of(timetable), names, Search(timetable, names), days)


def _translated(versions: tuple[Version, ...], columns: Columns) -> Iterator[tuple[Any, ...]]:
    places = {version.id: place for place, version in enumerate(versions)}
    texts = [
        columns[name].tolist()
        for name in ("table", "field", "language", "translation", "record", "sub", "value")
    ]
    for version, *row in zip(columns["version"].tolist(), *texts, strict=True):
        yield (places[version], *(text.decode() for text in row))
