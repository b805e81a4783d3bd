"""A stored timetable as a GTFS zip again: the same rows, modern translations, the same bytes."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from consent.gate import PermittedConnection

MEDIA_TYPE = "application/zip"
ROW_HEADER_BYTES = 6
"""COPY's count of fields and the length of the only one, before a row's text."""
LINES_A_WRITE = 4096
# Deterministic: the same version gives the same bytes on each server.
PACKED_AT = (1980, 1, 1, 0, 0, 0)
LEVEL = 6


def _text(value: str) -> str:
    """SQL of a text as CSV."""
    quoted = f"""'"' || replace({value}, '"', '""') || '"'"""
    return f"CASE WHEN {value} ~ '[\",\\n\\r]' THEN {quoted} ELSE coalesce({value}, '') END"


def _plain(value: str) -> str:
    """SQL of a number; nothing for NULL."""
    return f"coalesce(({value})::text, '')"


def _time(value: str) -> str:
    """SQL of H:MM:SS with at least two digits of hours."""
    hours = f"CASE WHEN {value} < 36000 THEN '0' ELSE '' END || {value} / 3600"
    minutes = f"right('0' || {value} / 60 %% 60, 2)"
    return f"coalesce({hours} || ':' || {minutes} || ':' || right('0' || {value} %% 60, 2), '')"


def _date(value: str) -> str:
    return f"coalesce(to_char({value}, 'YYYYMMDD'), '')"


def _bit(value: str) -> str:
    return f"({value})::integer::text"


class File(NamedTuple):
    """One file: its columns and the SQL of each, out of which rows, in which order."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: str
    order: str
    more: str | None = None
    """The table, whose alias is t, that has a column `more`."""
    always: bool = False
    """Also without rows."""


def _joined(table: str, column: str, alias: str) -> str:
    return (
        f" LEFT JOIN mobility.{table} {alias}"
        f" ON {alias}.version = t.version AND {alias}.number = t.{column}"
    )


WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
TRANSLATED = ", ".join(
    f't.{name} COLLATE "C"'
    for name in (
        "table_name", "field_name", "language", "record_id", "record_sub_id", "field_value"
    )
)  # fmt: skip
"""What a translation is of."""

FILES = (
    File(
        "agency.txt",
        (
            ("agency_id", _text("t.agency_id")),
            ("agency_name", _text("t.name")),
            ("agency_url", _text("t.url")),
            ("agency_timezone", _text("t.timezone")),
            ("agency_lang", _text("t.language")),
        ),
        "mobility.agency t",
        't.agency_id COLLATE "C"',
        more="agency",
    ),
    File(
        "stops.txt",
        (
            ("stop_id", _text("t.stop_id")),
            ("stop_code", _text("t.code")),
            ("stop_name", _text("t.name")),
            ("stop_lat", _plain("t.latitude")),
            ("stop_lon", _plain("t.longitude")),
            ("zone_id", _text("t.zone_id")),
            ("location_type", _plain("t.location_type")),
            ("parent_station", _text("p.stop_id")),
            ("stop_timezone", _text("t.timezone")),
            ("wheelchair_boarding", _plain("t.wheelchair_boarding")),
            ("platform_code", _text("t.platform_code")),
        ),
        "mobility.stop t" + _joined("stop", "parent", "p"),
        "t.number",
        more="stop",
        always=True,
    ),
    File(
        "routes.txt",
        (
            ("route_id", _text("t.route_id")),
            ("agency_id", _text("t.agency_id")),
            ("route_short_name", _text("t.short_name")),
            ("route_long_name", _text("t.long_name")),
            ("route_type", _plain("t.type")),
            ("route_color", _text("t.colour")),
            ("route_text_color", _text("t.text_colour")),
        ),
        "mobility.route t",
        "t.number",
        more="route",
        always=True,
    ),
    File(
        "calendar.txt",
        (
            ("service_id", _text("t.service_id")),
            *((day, f"(t.weekdays >> {bit} & 1)::text") for bit, day in enumerate(WEEKDAYS)),
            ("start_date", _date("t.start_date")),
            ("end_date", _date("t.end_date")),
        ),
        "mobility.service t",
        "t.number",
        more="service",
    ),
    File(
        "calendar_dates.txt",
        (
            ("service_id", _text("s.service_id")),
            ("date", _date("t.date")),
            ("exception_type", "CASE WHEN t.runs THEN '1' ELSE '2' END"),
        ),
        "mobility.service_date t" + _joined("service", "service", "s"),
        "t.service, t.date",
    ),
    File(
        "trips.txt",
        (
            ("route_id", _text("r.route_id")),
            ("service_id", _text("s.service_id")),
            ("trip_id", _text("t.trip_id")),
            ("trip_headsign", _text("t.headsign")),
            ("trip_short_name", _text("t.short_name")),
            ("direction_id", _plain("t.direction")),
            ("block_id", _text("t.block_id")),
            ("shape_id", _text("p.shape_id")),
            ("wheelchair_accessible", _plain("t.wheelchair_accessible")),
            ("bikes_allowed", _plain("t.bikes_allowed")),
        ),
        "mobility.trip t"
        + _joined("route", "route", "r")
        + _joined("service", "service", "s")
        + _joined("shape", "shape", "p"),
        "t.number",
        more="trip",
        always=True,
    ),
    File(
        "stop_times.txt",
        (
            ("trip_id", _text("r.trip_id")),
            ("arrival_time", _time("t.arrival")),
            ("departure_time", _time("t.departure")),
            ("stop_id", _text("s.stop_id")),
            ("stop_sequence", _plain("t.sequence")),
            ("stop_headsign", _text("t.headsign")),
            # 0, the default, is left out: a row with a window of pickup must not have it.
            ("pickup_type", _plain("nullif(t.pickup, 0)")),
            ("drop_off_type", _plain("nullif(t.drop_off, 0)")),
            ("shape_dist_traveled", _plain("t.distance")),
            ("timepoint", _plain("t.timepoint")),
        ),
        "mobility.stop_time t" + _joined("trip", "trip", "r") + _joined("stop", "stop", "s"),
        "t.trip, t.sequence",
        more="stop_time",
        always=True,
    ),
    File(
        "frequencies.txt",
        (
            ("trip_id", _text("r.trip_id")),
            ("start_time", _time("t.start_time")),
            ("end_time", _time("t.end_time")),
            ("headway_secs", _plain("t.headway")),
            ("exact_times", _bit("t.exact")),
        ),
        "mobility.frequency t" + _joined("trip", "trip", "r"),
        "t.trip, t.start_time",
    ),
    File(
        "shapes.txt",
        (
            ("shape_id", _text("t.shape_id")),
            ("shape_pt_lat", _plain("p.latitude")),
            ("shape_pt_lon", _plain("p.longitude")),
            ("shape_pt_sequence", _plain("p.sequence")),
            ("shape_dist_traveled", _plain("p.distance")),
        ),
        "mobility.shape t, unnest(t.sequences, t.latitudes, t.longitudes, t.distances)"
        " AS p(sequence, latitude, longitude, distance)",
        "t.number, p.sequence",
    ),
    File(
        "transfers.txt",
        (
            ("from_stop_id", _text("a.stop_id")),
            ("to_stop_id", _text("b.stop_id")),
            ("transfer_type", _plain("t.type")),
            ("min_transfer_time", _plain("t.seconds_min")),
            ("from_route_id", _text("c.route_id")),
            ("to_route_id", _text("d.route_id")),
            ("from_trip_id", _text("e.trip_id")),
            ("to_trip_id", _text("f.trip_id")),
        ),
        "mobility.transfer t"
        + _joined("stop", "from_stop", "a")
        + _joined("stop", "to_stop", "b")
        + _joined("route", "from_route", "c")
        + _joined("route", "to_route", "d")
        + _joined("trip", "from_trip", "e")
        + _joined("trip", "to_trip", "f"),
        "t.from_stop, t.to_stop, t.from_route, t.to_route, t.from_trip, t.to_trip, t.type",
        more="transfer",
    ),
    File(
        "fare_attributes.txt",
        (
            ("fare_id", _text("t.fare_id")),
            ("price", _plain("t.price")),
            ("currency_type", _text("t.currency")),
            ("payment_method", _plain("t.payment_method")),
            ("transfers", _plain("t.transfers")),
            ("transfer_duration", _plain("t.transfer_seconds")),
        ),
        "mobility.fare t",
        't.fare_id COLLATE "C"',
        more="fare",
    ),
    File(
        "fare_rules.txt",
        (
            ("fare_id", _text("t.fare_id")),
            ("route_id", _text("r.route_id")),
            ("origin_id", _text("t.origin_id")),
            ("destination_id", _text("t.destination_id")),
            ("contains_id", _text("t.contains_id")),
        ),
        "mobility.fare_rule t" + _joined("route", "route", "r"),
        't.fare_id COLLATE "C", t.route, t.origin_id COLLATE "C",'
        ' t.destination_id COLLATE "C", t.contains_id COLLATE "C"',
    ),
    File(
        "translations.txt",
        tuple(
            (name, _text(f"t.{name}"))
            for name in (
                "table_name", "field_name", "language", "translation", "record_id",
                "record_sub_id", "field_value",
            )
        ),
        # A translation that a feed gives twice is written once.
        f"(SELECT DISTINCT ON ({TRANSLATED}) t.* FROM mobility.translation t"  # noqa: S608
        f" WHERE t.version = %(version)s ORDER BY {TRANSLATED}, t.translation) t",
        TRANSLATED,
    ),
)  # fmt: skip
"""The files that a version's tables make, in the order of the zip."""

PERMITTED = """
t.version = %(version)s AND EXISTS (
  SELECT FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
  WHERE v.id = %(version)s AND f.data_class = ANY(%(classes)s))
"""
# Services that calendar_dates.txt alone names have no row in calendar.txt.
LISTED = {"calendar.txt": "AND t.start_date IS NOT NULL"}
EXTRA = f"""
|| coalesce((SELECT string_agg(',' || {_text("t.more ->> k")}, '' ORDER BY n)
             FROM unnest(%(extra)s::text[]) WITH ORDINALITY AS x(k, n)), '')
"""  # noqa: S608
LINES = {
    file.name: f"""
SELECT {" || ',' || ".join(expression for _, expression in file.columns)}
       {EXTRA if file.more else ""}
FROM {file.rows}
WHERE {PERMITTED} {LISTED.get(file.name, "")}
ORDER BY {file.order}
"""  # noqa: S608
    for file in FILES
}
SELECT_EXTRA = {
    file.name: f"""
SELECT DISTINCT k COLLATE "C" AS name FROM mobility.{file.more} t, jsonb_object_keys(t.more) AS k
WHERE {PERMITTED} AND t.more IS NOT NULL
ORDER BY name LIMIT 500
"""  # noqa: S608
    for file in FILES
    if file.more
}
SELECT_FILES = f"""
SELECT t.name, t.content FROM mobility.feed_file t WHERE {PERMITTED} ORDER BY t.name LIMIT 500
"""  # noqa: S608


def zip_of(connection: PermittedConnection, version: int) -> bytes:
    """The packed feed; only the zip is in memory, never a whole unpacked file of ours."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for file in FILES:
            _add(archive, file.name, _content(connection, version, file))
        for row in connection.fetch(SELECT_FILES, {"version": version}):
            _add(archive, row["name"], iter([row["content"]]))
    return packed.getvalue()


def _add(archive: zipfile.ZipFile, name: str, chunks: Iterator[bytes]) -> None:
    first = next(chunks, None)
    if first is None:
        return
    member = zipfile.ZipInfo(name, PACKED_AT)
    member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
    member.external_attr = 0o644 << 16
    with archive.open(member, "w", force_zip64=False) as opened:
        opened.write(first)
        for chunk in chunks:
            opened.write(chunk)


def _content(connection: PermittedConnection, version: int, file: File) -> Iterator[bytes]:
    """Header and lines; nothing at all for a file that would have no lines and may be missing."""
    given: dict[str, Any] = {"version": version}
    names = [name for name, _ in file.columns]
    if file.more:
        extra = [row["name"] for row in connection.fetch(SELECT_EXTRA[file.name], given)]
        names += extra
        given["extra"] = extra
    header = ",".join(map(_quoted, names)).encode() + b"\n"
    begun = file.always
    if begun:
        yield header
    lines: list[bytes] = []
    for row in connection.copy(LINES[file.name], given):
        if not begun:
            begun = True
            yield header
        lines.append(row[ROW_HEADER_BYTES:])
        if len(lines) == LINES_A_WRITE:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
    if lines:
        yield b"\n".join(lines) + b"\n"


def _quoted(text: str) -> str:
    if any(mark in text for mark in '",\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text
