"""Small timetables for tests: written as the rows of GTFS, stored in the tables as imports do."""

import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from core.storage.pool import Session

Row = Mapping[str, Any]
Feed = Mapping[str, Sequence[Row]]
"""File name without .txt -> its rows, with the columns of GTFS; what is left out is empty."""

INSERT_FEED = """
INSERT INTO mobility.feed (id, kind, title, sharing) VALUES (%s, 'gtfs', %s, %s)
ON CONFLICT (id) DO UPDATE SET sharing = excluded.sharing
"""
INSERT_VERSION = """
INSERT INTO mobility.feed_version (feed, sha256, valid_from, valid_to, timezone, language)
VALUES (%s, %s, %s, %s, %s, %s) RETURNING id
"""


def read(path: Path) -> dict[str, list[dict[str, str]]]:
    """A GTFS zip as a Feed, without a check."""
    with zipfile.ZipFile(path) as archive:
        return {
            name.removesuffix(".txt"): list(
                csv.DictReader(io.StringIO(archive.read(name).decode("utf-8-sig")))
            )
            for name in archive.namelist()
            if name.endswith(".txt")
        }


def seconds(text: str) -> int | None:
    """H:MM:SS of a service day; None for an empty one."""
    if not text.strip():
        return None
    hours, minutes, rest = (int(part) for part in text.split(":"))
    return hours * 3600 + minutes * 60 + rest


def day(text: str) -> date:
    """YYYYMMDD."""
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def store(
    session: Session,
    feed: Feed,
    name: str = "town",
    *,
    valid: tuple[date, date] | None = None,
    sharing: str = "collaborative",
    language: str | None = None,
) -> int:
    """A further version of the feed `name`; returns its id. `valid`: else what calendars span.

    Rows need only what matters to the test; numbers are those of their order.
    """
    agency = (feed.get("agency") or [{}])[0]
    begin, end = valid or _span(feed)
    session.execute(INSERT_FEED, (name, name, sharing))
    digest = hashlib.sha256(repr((name, valid, feed)).encode()).digest()
    scope = (name, digest, begin, end, agency.get("agency_timezone", "Asia/Tokyo"), language)
    row = session.execute(INSERT_VERSION, scope).fetchone()
    assert row is not None
    _Stored(session, int(row[0]), feed).all()
    return int(row[0])


def _span(feed: Feed) -> tuple[date | None, date | None]:
    days = [day(row[end]) for row in feed.get("calendar", ()) for end in ("start_date", "end_date")]
    days += [day(row["date"]) for row in feed.get("calendar_dates", ())]
    return (min(days), max(days)) if days else (None, None)


def _text(row: Row, name: str) -> str | None:
    return str(row.get(name) or "") or None


def _number(row: Row, name: str, default: int | None = 0) -> int | None:
    value = str(row.get(name, "") or "").strip()
    return int(value) if value else default


def _real(row: Row, name: str) -> float | None:
    value = str(row.get(name, "") or "").strip()
    return float(value) if value else None


class _Stored:
    """One version's rows, file by file."""

    def __init__(self, session: Session, version: int, feed: Feed) -> None:
        self.session, self.version, self.feed = session, version, feed
        self.stops = self._numbers("stops", "stop_id")
        self.routes = self._numbers("routes", "route_id")
        self.trips = self._numbers("trips", "trip_id")
        self.shapes = {
            text: n
            for n, text in enumerate(dict.fromkeys(r["shape_id"] for r in feed.get("shapes", ())))
        }
        services = [row["service_id"] for row in feed.get("calendar", ())]
        services += [row["service_id"] for row in feed.get("calendar_dates", ())]
        self.services = {text: n for n, text in enumerate(dict.fromkeys(services))}

    def _numbers(self, name: str, column: str) -> dict[str, int]:
        return {row[column]: number for number, row in enumerate(self.feed.get(name, ()))}

    def all(self) -> None:
        """Every table."""
        self._agencies()
        self._stops()
        self._routes()
        self._services()
        self._trips()
        self._stop_times()
        self._frequencies()
        self._shapes()
        self._transfers()
        self._fares()
        self._translations()

    def _copy(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        names = ["version", *columns.split()]
        query = sql.SQL("COPY mobility.{} ({}) FROM STDIN").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with self.session.cursor().copy(query) as copy:
            for row in rows:
                copy.write_row((self.version, *row))

    def _agencies(self) -> None:
        rows = [
            (row.get("agency_id") or "", row.get("agency_name") or "Buses",
             row.get("agency_timezone") or "Asia/Tokyo", _text(row, "agency_lang"))
            for row in self.feed.get("agency", [{}])
        ]  # fmt: skip
        self._copy("agency", "agency_id name timezone language", rows)

    def _stops(self) -> None:
        columns = (
            "number stop_id code name longitude latitude zone_id location_type parent"
            " wheelchair_boarding platform_code"
        )
        rows = [
            (n, row["stop_id"], _text(row, "stop_code"), _text(row, "stop_name"),
             _real(row, "stop_lon"), _real(row, "stop_lat"), _text(row, "zone_id"),
             _number(row, "location_type"), self.stops.get(row.get("parent_station", "")),
             _number(row, "wheelchair_boarding"), _text(row, "platform_code"))
            for n, row in enumerate(self.feed.get("stops", ()))
        ]  # fmt: skip
        self._copy("stop", columns, rows)

    def _routes(self) -> None:
        rows = [
            (n, row["route_id"], _text(row, "agency_id"), _text(row, "route_short_name"),
             _text(row, "route_long_name"), _number(row, "route_type", 3),
             _text(row, "route_color"))
            for n, row in enumerate(self.feed.get("routes", ()))
        ]  # fmt: skip
        self._copy("route", "number route_id agency_id short_name long_name type colour", rows)

    def _services(self) -> None:
        names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
        spans = {row["service_id"]: row for row in self.feed.get("calendar", ())}
        rows = []
        for text, n in self.services.items():
            row = spans.get(text)
            if row is None:
                rows.append((n, text, 0, None, None))
                continue
            bits = sum(1 << bit for bit, name in enumerate(names) if str(row.get(name)) == "1")
            rows.append((n, text, bits, day(row["start_date"]), day(row["end_date"])))
        self._copy("service", "number service_id weekdays start_date end_date", rows)
        dates = [
            (self.services[row["service_id"]], day(row["date"]), str(row["exception_type"]) == "1")
            for row in self.feed.get("calendar_dates", ())
        ]
        self._copy("service_date", "service date runs", dates)

    def _trips(self) -> None:
        columns = (
            "number trip_id route service headsign short_name direction block_id shape"
            " wheelchair_accessible"
        )
        rows = [
            (n, row["trip_id"], self.routes[row["route_id"]], self.services[row["service_id"]],
             _text(row, "trip_headsign"), _text(row, "trip_short_name"),
             _number(row, "direction_id", None), _text(row, "block_id"),
             self.shapes.get(row.get("shape_id", "")), _number(row, "wheelchair_accessible"))
            for n, row in enumerate(self.feed.get("trips", ()))
        ]  # fmt: skip
        self._copy("trip", columns, rows)

    def _stop_times(self) -> None:
        columns = "trip sequence stop arrival departure headsign pickup drop_off distance"
        rows = [
            (self.trips[row["trip_id"]], int(row["stop_sequence"]), self.stops[row["stop_id"]],
             seconds(row.get("arrival_time") or ""), seconds(row.get("departure_time") or ""),
             _text(row, "stop_headsign"), _number(row, "pickup_type"),
             _number(row, "drop_off_type"), _real(row, "shape_dist_traveled"))
            for row in self.feed.get("stop_times", ())
        ]  # fmt: skip
        self._copy("stop_time", columns, rows)

    def _frequencies(self) -> None:
        rows = [
            (self.trips[row["trip_id"]], seconds(row["start_time"]), seconds(row["end_time"]),
             int(row["headway_secs"]), str(row.get("exact_times")) == "1")
            for row in self.feed.get("frequencies", ())
        ]  # fmt: skip
        self._copy("frequency", "trip start_time end_time headway exact", rows)

    def _shapes(self) -> None:
        points: dict[str, list[tuple[int, float, float]]] = {}
        for row in self.feed.get("shapes", ()):
            point = int(row["shape_pt_sequence"]), row["shape_pt_lon"], row["shape_pt_lat"]
            points.setdefault(row["shape_id"], []).append(
                (point[0], float(point[1]), float(point[2]))
            )
        rows = []
        for text, each in points.items():
            sequences, longitudes, latitudes = (
                list(part) for part in zip(*sorted(each), strict=True)
            )
            rows.append((self.shapes[text], text, sequences, longitudes, latitudes))
        self._copy("shape", "number shape_id sequences longitudes latitudes", rows)

    def _transfers(self) -> None:
        rows = [
            (self.stops.get(row.get("from_stop_id", "")), self.stops.get(row.get("to_stop_id", "")),
             _number(row, "transfer_type"), _number(row, "min_transfer_time", None))
            for row in self.feed.get("transfers", ())
        ]  # fmt: skip
        self._copy("transfer", "from_stop to_stop type seconds_min", rows)

    def _fares(self) -> None:
        columns = "fare_id price currency payment_method transfers transfer_seconds more"
        rows = [
            (row["fare_id"], row["price"], row["currency_type"], _number(row, "payment_method"),
             _number(row, "transfers", None), _number(row, "transfer_duration", None),
             Jsonb({"agency_id": row["agency_id"]}) if row.get("agency_id") else None)
            for row in self.feed.get("fare_attributes", ())
        ]  # fmt: skip
        self._copy("fare", columns, rows)
        rules = [
            (
                row["fare_id"],
                self.routes.get(row.get("route_id", "")),
                _text(row, "origin_id"),
                _text(row, "destination_id"),
                _text(row, "contains_id"),
            )
            for row in self.feed.get("fare_rules", ())
        ]
        self._copy("fare_rule", "fare_id route origin_id destination_id contains_id", rules)

    def _translations(self) -> None:
        columns = "table_name field_name language translation record_id record_sub_id field_value"
        rows = [
            (row.get("table_name") or "stops", row.get("field_name") or "stop_name",
             row.get("language") or row.get("lang"), row["translation"], _text(row, "record_id"),
             _text(row, "record_sub_id"), _text(row, "field_value") or _text(row, "trans_id"))
            for row in self.feed.get("translations", ())
        ]  # fmt: skip
        self._copy("translation", columns, rows)


def line(
    *times: str, trip: str = "t", service: str = "s", route: str = "r", **more: Any
) -> dict[str, list[dict[str, Any]]]:
    """A feed of one trip that stops at A, B, C, ... at these times, every day of 2026."""
    letters = [chr(ord("A") + n) for n in range(len(times))]
    return {
        "stops": [
            {"stop_id": each, "stop_name": each, "stop_lon": 139 + n / 100, "stop_lat": 35}
            for n, each in enumerate(letters)
        ],
        "routes": [{"route_id": route, "route_short_name": route}],
        "calendar": [every_day(service)],
        "trips": [{"trip_id": trip, "route_id": route, "service_id": service}],
        "stop_times": [
            {"trip_id": trip, "stop_sequence": n, "stop_id": each, "arrival_time": time,
             "departure_time": time}
            for n, (each, time) in enumerate(zip(letters, times, strict=True))
        ],
        **more,
    }  # fmt: skip


def every_day(service: str, begin: str = "20260101", end: str = "20261231") -> dict[str, str]:
    """A row of calendar.txt."""
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    return {
        "service_id": service,
        **dict.fromkeys(names, "1"),
        "start_date": begin,
        "end_date": end,
    }
