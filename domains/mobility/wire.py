"""GPX tracks (Topografix, 1.0 and 1.1) and records of taps at gates; pure.

A file is read whole or not at all, a point or a record by itself: `WireError` in its place says
what is wrong with it.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

POINTS_MAX = 200_000
RECORDS_MAX = 100_000
TEXT_CHARACTERS_MAX = 200
EVENTS = ("in", "out")
COLUMNS = ("time", "card", "event", "stop", "route", "operator", "fare")
"""Of a record of a tap; `time`, `card`, `event` and `stop` are needed."""
NEEDED = frozenset(COLUMNS[:4])
_DEGREES = {"lat": 90.0, "lon": 180.0}


class WireError(ValueError):
    """What cannot be read: `reason` is a slug, the message names the field and the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a track: WGS 84, m/s, degrees true; NaN where it does not say."""

    time: datetime
    longitude: float
    latitude: float
    speed: float = math.nan
    course: float = math.nan


@dataclass(frozen=True, slots=True)
class Tap:
    """One record: a card (or what stands for it) at a stop; GTFS ids, yen."""

    time: datetime
    card: str
    event: str
    stop: str
    route: str | None = None
    operator: str | None = None
    fare: int | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What one point or record says, or why that is not known, with its own bytes."""

    raw: bytes
    read: Point | Tap | WireError
    source: str | None = None
    """What the track says recorded it."""


# --- GPX ------------------------------------------------------------------------------------------


def read_gpx(payload: bytes) -> list[Item]:
    """The points of all tracks; WireError for what is no GPX, names a DTD or is too long.

    Waypoints and routes are plans, not observations: they are passed over.
    """
    points: list[Item] = []
    source: str | None = None
    path: list[str] = []
    for event, element in _elements(payload):
        if event == "start":
            path.append(_local(element.tag))
            if path[0] != "gpx":
                raise WireError("invalid-gpx", f"the root is {path[0][:40]!r}, not gpx")
            continue
        if path == ["gpx", "trk"]:
            source = None
        elif path == ["gpx", "trk", "src"]:
            source = (element.text or "").strip()[:TEXT_CHARACTERS_MAX] or None
        elif path == ["gpx", "trk", "trkseg", "trkpt"]:
            points.append(_point(element, source))
            element.clear()
        if len(points) > POINTS_MAX:
            raise WireError("too-many-points", f"a file has at most {POINTS_MAX} points")
        path.pop()
    return points


def _elements(payload: bytes) -> Iterator[tuple[str, Any]]:
    """Where each element starts and ends; no DTD, no entity of one's own."""
    import defusedxml.ElementTree as Xml
    from defusedxml import DefusedXmlException

    try:
        yield from Xml.iterparse(io.BytesIO(payload), ("start", "end"), forbid_dtd=True)
    except (Xml.ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise WireError("invalid-xml", f"not XML that is safe to read: {error}") from error


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _point(element: Any, source: str | None) -> Item:
    # What extensions say (speed, course) counts below what the point says itself.
    said = {_local(each.tag): (each.text or "").strip() for each in (*element.iter(), *element)}
    raw = json.dumps({**element.attrib, **{k: v for k, v in said.items() if v}}).encode()
    return _item(raw, lambda: _place(element.attrib, said), source)


def _place(degrees: Mapping[str, str], said: Mapping[str, str]) -> Point:
    place = {name: _number(degrees.get(name, ""), name) for name in _DEGREES}
    for name, most in _DEGREES.items():
        if abs(place[name]) > most:
            raise WireError("invalid-position", f"{name}: outside -{most:g} to {most:g}")
    motion = {name: _number(said[name], name) for name in ("speed", "course") if said.get(name)}
    return Point(_moment(said.get("time")), place["lon"], place["lat"], **motion)


def _item(raw: bytes, read: Callable[[], Point | Tap], source: str | None = None) -> Item:
    try:
        return Item(raw, read(), source)
    except WireError as error:
        return Item(raw, error, source)


def write_gpx(points: Iterable[Point], source: str | None = None) -> bytes:
    """A GPX 1.1 file of one track: for simulators and tests."""
    from xml.sax.saxutils import escape

    told = "" if source is None else f"<src>{escape(source)}</src>"
    track = "".join(
        f'<trkpt lat="{p.latitude!r}" lon="{p.longitude!r}">'
        f"<time>{p.time.isoformat()}</time><extensions>{_motion(p)}</extensions></trkpt>"
        for p in points
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<gpx version="1.1" creator="Chimata" xmlns="http://www.topografix.com/GPX/1/1">'
        f"<trk>{told}<trkseg>{track}</trkseg></trk></gpx>\n"
    ).encode()


def _motion(point: Point) -> str:
    said = {"speed": point.speed, "course": point.course}
    return "".join(f"<{name}>{v!r}</{name}>" for name, v in said.items() if math.isfinite(v))


# --- taps -----------------------------------------------------------------------------------------


def read_tap_csv(payload: bytes) -> Iterator[Item]:
    """The records of a CSV file whose header names COLUMNS, in any order; WireError for another."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WireError("bad-header", f"byte {error.start} is not UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    if not NEEDED <= set(header) <= set(COLUMNS) or len(set(header)) != len(header):
        # A column that we do not know may tell more of a person than anybody agreed to.
        raise WireError("bad-header", f"the first line names {', '.join(COLUMNS)} and no others")
    _bound(len(lines) - 1)
    for line in lines[1:]:
        yield _item(f"{lines[0]}\n{line}\n".encode(), partial(_row, header, line))


def _row(header: list[str], line: str) -> Tap:
    try:
        cells = next(csv.reader([line], strict=True))
    except (csv.Error, StopIteration) as error:
        raise WireError("invalid-record", f"not a row: {error}") from error
    if len(cells) != len(header):
        raise WireError("invalid-record", f"{len(cells)} cells, not {len(header)}")
    return _tap(dict(zip(header, map(str.strip, cells), strict=True)))


def read_tap_json(payload: bytes) -> Iterator[Item]:
    """The records of a JSON object or an array of them."""
    try:
        read = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WireError("invalid-json", f"not JSON: {error}") from error
    records = read if isinstance(read, list) else [read]
    _bound(len(records))
    for record in records:
        yield _item(json.dumps(record).encode(), partial(_object, record))


def _object(record: Any) -> Tap:
    if not isinstance(record, dict) or not NEEDED <= record.keys() <= set(COLUMNS):
        raise WireError("invalid-record", f"an object of {', '.join(COLUMNS)}, and no others")
    return _tap({name: _text(name, value) for name, value in record.items() if value is not None})


def write_tap_csv(taps: Iterable[Tap]) -> bytes:
    """The same format again: for simulators and tests."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(COLUMNS)
    for tap in taps:
        cells = (getattr(tap, name) for name in COLUMNS[1:])
        rows.writerow((tap.time.isoformat(), *("" if cell is None else cell for cell in cells)))
    return out.getvalue().encode()


def _bound(records: int) -> None:
    if records > RECORDS_MAX:
        raise WireError("too-many-records", f"a message has at most {RECORDS_MAX} records")


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if name == "fare" and isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**12 else "-"
    raise WireError("invalid-record", f"{name}: must be a text{' or yen' * (name == 'fare')}")


def _tap(record: Mapping[str, str]) -> Tap:
    for name, text in record.items():
        if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable() or not _is_unicode(text):
            raise WireError("invalid-record", f"{name}: at most 200 printable characters")
    if missing := NEEDED - record.keys():
        raise WireError("invalid-record", f"{min(missing)}: is missing")
    if not record["card"] or "/" in record["card"]:
        raise WireError("invalid-record", "card: its id, without a slash")
    if record["event"] not in EVENTS:
        raise WireError("invalid-record", f"event: must be one of {', '.join(EVENTS)}")
    if not record["stop"]:
        raise WireError("invalid-record", "stop: its GTFS stop_id")
    fare = record.get("fare") or None
    if fare is not None and not (fare.isascii() and fare.isdecimal()):
        raise WireError("invalid-record", "fare: whole yen")
    return Tap(
        _moment(record["time"]), record["card"], record["event"], record["stop"],
        record.get("route") or None, record.get("operator") or None,
        None if fare is None else int(fare),
    )  # fmt: skip


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _moment(text: str | None) -> datetime:
    if not text:
        raise WireError("no-time", "time: is missing: whose it is depends on it")
    try:
        moment = datetime.fromisoformat(text)
        moment.timestamp()
    except (ValueError, OverflowError) as error:
        raise WireError("invalid-time", f"time: {error}") from error
    if moment.tzinfo is None:
        raise WireError("invalid-time", "time: needs a zone, Z or an offset")
    return moment


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise WireError("invalid-position", f"{name}: {text[:40]!r} is no number") from error
    if not math.isfinite(number):
        raise WireError("invalid-position", f"{name}: must be finite")
    return number
