"""AIS lines and MarineCadastre rows -> observations; pure, and never raises on bad input."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from core import clock
from core.formats.table import Headed
from core.sector import Context
from core.sensorthings import (
    Decoded,
    ObservationsBuilder,
    Position,
    Result,
    ThingUpdate,
    canonical_json,
)
from domains.ports import rules, wire
from domains.ports.sector import NAVIGATION_STATUS, OFF_POSITION

NAN = float("nan")
METRES_A_SECOND = wire.METRES_A_SECOND_PER_KNOT

PART_WAIT_SECONDS_MAX = 60
STATIC_SECONDS_MAX = 3600
STATIC_KEPT_MAX = 50_000

# "Not available" in M.1371-5: speed 1023 (tenths of a knot, or knots), heading 511, altitude 4095.
_SPEED_TENTHS_NONE = 102.3
_SPEED_KNOTS_NONE = 1023
_SPEED_LONG_RANGE_NONE = 63
_HEADING_NONE = 511
_ALTITUDE_NONE = 4095
_COURSE_NONE = 360
_TURN_INDICATED_ONLY = (127, -127, -128)


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode one batch of `nmea` lines or `csv` rows.

    Times are those of the lines (tag block, receiver's epoch seconds, $PGHP), else the receiver's
    clock plus one µs a line, so that two lines of one vessel never claim the same moment.
    """
    builder = ObservationsBuilder()
    reader = _FORMATS.get(format)
    if reader is None:
        builder.messages = 1
        builder.reject("unsupported-format", f"format: ports takes no {format!r}", payload)
    else:
        reader(builder, payload, context)
    return builder.build()


# ------------------------------------------------------------------------------
# nmea


def _decode_nmea(builder: ObservationsBuilder, payload: bytes, context: Context) -> None:
    entries = list(wire.read(payload))
    builder.messages = len(entries)
    waiting = _waiting(context)
    _give_up(builder, waiting.expire(context.received_at - PART_WAIT_SECONDS_MAX * wire.SECOND))
    # A sender of single lines spreads a message over payloads; a batch is never cut inside one, so
    # what a batch leaves open is broken, and must be said now: no later payload may ever come.
    loose = len(entries) == 1
    assembler = waiting if loose else wire.Assembler(reorder=True)
    for entry in entries:
        if isinstance(entry, wire.Sentence):
            if entry.parts == 1:
                message: wire.Message | None = wire.Message(
                    (entry,), entry.time_us, entry.payload, entry.fill_bits
                )
            else:
                message, given_up = assembler.add(entry, context.gateway, context.received_at)
                _give_up(builder, given_up)
            if message is not None:
                _decode_message(builder, message, context)
        elif isinstance(entry, wire.Fault):
            builder.reject(entry.reason, entry.detail, entry.line, entry.item)
        else:
            builder.unchanged += 1  # $PGHP: a time for the next line, nothing observed
    if not loose:
        _give_up(builder, assembler.flush())


def _waiting(context: Context) -> wire.Assembler:
    """The parts that came as payloads of their own; by gateway inside."""
    waiting: wire.Assembler | None = context.memory.get("parts")
    if waiting is None:
        waiting = context.memory["parts"] = wire.Assembler(reorder=False)
    return waiting


def _give_up(builder: ObservationsBuilder, sentences: Iterable[wire.Sentence]) -> None:
    for sentence in sentences:
        detail = f"part {sentence.part} of {sentence.parts}: the rest of the message never came"
        builder.reject("incomplete-multipart", detail, sentence.line, sentence.item)


def _decode_message(builder: ObservationsBuilder, message: wire.Message, context: Context) -> None:
    """One whole message: its observations, or `unchanged`, or a rejection for each of its lines."""
    try:
        fields = wire.decode_bits(message.payload, message.fill_bits)
    except wire.Undecodable as error:
        for sentence in message.sentences:
            builder.reject("undecodable", str(error), sentence.line, sentence.item)
        return
    item = message.sentences[0].item
    record = _Record(builder, context, f"{fields.mmsi:09d}", message.time_us, item)
    before = len(builder)
    report = _REPORTS.get(fields.msg_type)
    fresh = report is None or report(record, fields)
    builder.hear(record.thing, record.time)
    if not fresh:
        builder.unchanged += len(message.sentences)
        return
    if len(builder) == before:
        record.add("ais-message", wire.fields_of(fields))
    # Lines of a part that had come already tell nothing more.
    builder.unchanged += max(0, len(message.sentences) - message.sentences[0].parts)


class _Record:
    """One message of one station on its way into the builder."""

    __slots__ = ("_builder", "_context", "_dated", "thing", "time")

    def __init__(
        self,
        builder: ObservationsBuilder,
        context: Context,
        thing: str,
        time: int | None,
        item: int,
    ) -> None:
        self._builder = builder
        self._context = context
        self._dated = time is not None
        self.thing = thing
        self.time = context.received_at + item if time is None else time

    def add(self, observed_property: str, result: Result) -> None:
        """One observation of this station at this time."""
        self._builder.add(self.thing, observed_property, self.time, result)

    def describe(self, static: dict[str, Any], location: tuple[float, float] | None = None) -> None:
        """What the message says of the station itself."""
        update = ThingUpdate(self.thing, static.get("name") or None, static, location)
        self._builder.describe(update)

    def repeats(self, kind: str, content: dict[str, Any]) -> bool:
        """Has the station said this already, not long before this time?

        Safe where a payload comes again because its commit failed: what was given out at a time is
        given out again at that time. A line without a time of its own is compared only inside its
        payload.
        """
        memory = self._context.memory
        known: dict[tuple[str, str], tuple[int, int, bytes]] = memory.setdefault("static", {})
        received_at = self._context.received_at
        text = canonical_json(content)
        last = known.get((self.thing, kind))
        if last is not None and last[2] == text and (self._dated or last[1] == received_at):
            age_seconds = (self.time - last[0]) / wire.SECOND
            if 0 < age_seconds < STATIC_SECONDS_MAX:
                return True
        known.pop((self.thing, kind), None)
        known[self.thing, kind] = (self.time, received_at, text)
        if len(known) > STATIC_KEPT_MAX:
            del known[next(iter(known))]
        return False


# Each takes a record and the message's fields, and returns False when nothing in it is new.


def _report_class_a(record: _Record, fields: Any) -> bool:
    """Messages 1, 2, 3 (table 48)."""
    _add_position(record, fields, _knots(fields.speed, _SPEED_TENTHS_NONE))
    _add_heading(record, fields.heading)
    turn = fields.turn
    if turn not in _TURN_INDICATED_ONLY:
        record.add("rate-of-turn", float(turn))
    record.add("navigation-status", NAVIGATION_STATUS[fields.status])
    return True


def _report_class_b(record: _Record, fields: Any) -> bool:
    """Message 18 (table 70)."""
    _add_position(record, fields, _knots(fields.speed, _SPEED_TENTHS_NONE))
    _add_heading(record, fields.heading)
    return True


def _report_class_b_extended(record: _Record, fields: Any) -> bool:
    """Message 19 (table 71): 18 with the static data."""
    _report_class_b(record, fields)
    _add_static(record, "19", _static_of(fields))
    return True


def _report_aircraft(record: _Record, fields: Any) -> bool:
    """Message 9, SAR aircraft (table 58): speed in whole knots, altitude in metres."""
    _add_position(record, fields, _knots(fields.speed, _SPEED_KNOTS_NONE))
    if fields.alt != _ALTITUDE_NONE:
        record.add("altitude", fields.alt)
    return True


def _report_long_range(record: _Record, fields: Any) -> bool:
    """Message 27 (table 83): whole knots, whole degrees, tenths of a minute."""
    _add_position(record, fields, _knots(fields.speed, _SPEED_LONG_RANGE_NONE))
    record.add("navigation-status", NAVIGATION_STATUS[fields.status])
    return True


def _report_base_station(record: _Record, fields: Any) -> bool:
    """Messages 4 and 11 (table 51). 11 is a mobile station's answer, so it fixes no location."""
    if _add_position(record, fields, NAN) and fields.msg_type != 11:  # noqa: PLR2004
        location = (fields.lon, fields.lat)
        if not record.repeats("place", {"at": location}):
            record.describe({}, location)
    return True


def _report_aid(record: _Record, fields: Any) -> bool:
    """Message 21, aid to navigation (table 73)."""
    placed = _add_position(record, fields, NAN)
    if fields.second < 60:  # noqa: PLR2004 only then is the off-position flag valid
        record.add("off-position", OFF_POSITION[bool(fields.off_position)])
    static = {
        "name": wire.text_of(fields.name) + wire.text_of(fields.name_ext),
        "aid_type": int(fields.aid_type),
        "virtual": bool(fields.virtual_aid),
        **_dimensions(fields),
    }
    _add_static(record, "21", static, (fields.lon, fields.lat) if placed else None)
    return True


def _report_static_and_voyage(record: _Record, fields: Any) -> bool:
    """Message 5 (table 52): the whole of it is new, or none of it."""
    static = _static_of(fields)
    destination = wire.text_of(fields.destination)
    eta = (fields.month, fields.day, fields.hour, fields.minute)
    voyage = {"destination": destination, "draught": fields.draught, "eta": eta}
    if record.repeats("5", {**static, **voyage}):
        return False
    record.add("static-data", static)
    record.describe(static)
    if destination:
        record.add("destination", {"text": destination, **rules.voyage_codes(destination)})
    if fields.draught:
        record.add("draught", fields.draught)
    _add_eta(record, eta)
    return True


def _report_static(record: _Record, fields: Any) -> bool:
    """Message 24, part A (name) or B (type, call sign, dimensions) (tables 76, 77)."""
    return _add_static(record, "24B" if fields.partno else "24A", _static_of(fields))


def _report_safety_text(record: _Record, fields: Any) -> bool:
    """Messages 12 (addressed) and 14 (broadcast) (tables 62, 64)."""
    document: dict[str, Any] = {"text": wire.text_of(fields.text)}
    to = getattr(fields, "dest_mmsi", None)
    if to is not None:
        document["to"] = f"{to:09d}"
    record.add("safety-text", document)
    return True


_Report = Callable[[_Record, Any], bool]
# Types not here (6 to 8, 10, 13, 15 to 17, 20, 22, 23, 25, 26, 28) become `ais-message` whole.
_REPORTS: dict[int, _Report] = {
    1: _report_class_a,
    2: _report_class_a,
    3: _report_class_a,
    4: _report_base_station,
    5: _report_static_and_voyage,
    9: _report_aircraft,
    11: _report_base_station,
    12: _report_safety_text,
    14: _report_safety_text,
    18: _report_class_b,
    19: _report_class_b_extended,
    21: _report_aid,
    24: _report_static,
    27: _report_long_range,
}


def _knots(speed: float, none_at: float) -> float:
    """m/s, or NaN where the speed is not available."""
    return NAN if speed >= none_at else speed * METRES_A_SECOND


def _add_position(record: _Record, fields: Any, speed: float) -> bool:
    """Add `position` if there is one. 181 and 91 say there is none; anything else outside the globe
    is broken bits: then the whole message is kept as a document, so that nothing is lost."""
    longitude, latitude = fields.lon, fields.lat
    if -180 <= longitude <= 180 and -90 <= latitude <= 90:  # noqa: PLR2004
        course = getattr(fields, "course", _COURSE_NONE)
        known = course if course < _COURSE_NONE else NAN
        record.add("position", Position(longitude, latitude, speed, known))
        return True
    if (longitude, latitude) != (181, 91):
        record.add("ais-message", wire.fields_of(fields))
    return False


def _add_heading(record: _Record, heading: int) -> None:
    if heading != _HEADING_NONE:
        record.add("heading", heading)


def _add_eta(record: _Record, eta: tuple[int, int, int, int]) -> None:
    """`eta` as it was sent (no year), and as the time it means where it names one."""
    month, day, hour, minute = eta
    if not month or not day:
        return
    document: dict[str, Any] = {"month": month, "day": day, "hour": hour, "minute": minute}
    meant = rules.eta_time(month, day, hour, minute, clock.to_datetime(record.time))
    if meant is not None:
        document["time"] = clock.to_iso(clock.from_datetime(meant))
    record.add("eta", document)


def _add_static(
    record: _Record,
    kind: str,
    static: dict[str, Any],
    location: tuple[float, float] | None = None,
) -> bool:
    if record.repeats(kind, {**static, "at": location}):
        return False
    record.add("static-data", static)
    record.describe(static, location)
    return True


def _static_of(fields: Any) -> dict[str, Any]:
    """What 5, 19 and 24 say of the vessel; what is blank or 0 for "not available" is left out."""
    code = int(getattr(fields, "ship_type", 0) or 0)
    told = {
        "name": wire.text_of(getattr(fields, "shipname", "")),
        "callsign": wire.text_of(getattr(fields, "callsign", "")),
        "imo": getattr(fields, "imo", 0),
        "ship_type": code,
        "ship_type_text": rules.ship_type_text(code),
        "vendor": wire.text_of(getattr(fields, "vendorid", "")),
        "mothership": getattr(fields, "mothership_mmsi", 0),
        **_dimensions(fields),
    }
    return {key: value for key, value in told.items() if value}


def _dimensions(fields: Any) -> dict[str, int]:
    """Metres from the antenna to each side, and length and beam (figure 41)."""
    told = {name: getattr(fields, name, None) or 0 for name in _SIDES}
    told["length"] = told["to_bow"] + told["to_stern"]
    told["beam"] = told["to_port"] + told["to_starboard"]
    return {name: metres for name, metres in told.items() if metres}


_SIDES = ("to_bow", "to_stern", "to_port", "to_starboard")


# ------------------------------------------------------------------------------
# csv: MarineCadastre (NOAA, BOEM, USCG), one decoded position a row

# Column names over the years, without case, blanks and underscores -> ours.
_COLUMNS = {
    "mmsi": "mmsi",
    "basedatetime": "time",
    "lat": "latitude",
    "latitude": "latitude",
    "lon": "longitude",
    "longitude": "longitude",
    "sog": "speed",
    "cog": "course",
    "heading": "heading",
    "vesselname": "name",
    "imo": "imo",
    "callsign": "callsign",
    "vesseltype": "ship_type",
    "status": "status",
    "length": "length",
    "width": "beam",
    "draft": "draught",
    "draught": "draught",
    "cargo": "cargo",
    "transceiverclass": "transceiver",
    "transcieverclass": "transceiver",
    "transceiver": "transceiver",
}
_REQUIRED = ("mmsi", "time", "latitude", "longitude")


class _BadField(ValueError):
    """One field of a row: its name and what is wrong with it."""


def _decode_csv(builder: ObservationsBuilder, payload: bytes, context: Context) -> None:
    """A row is all or nothing; a bad one spoils no other."""
    lines = wire.csv_rows(payload)
    if not lines:
        return
    header, rows = lines[0], lines[1:]
    columns, fault = _columns_of(header)
    if fault and not rows:
        rows = [header]
    builder.messages = len(rows)
    # Each row is kept under its header, so that it can be mended and taken in alone.
    headed = Headed(header)
    for item, line in enumerate(rows):
        try:
            if fault:
                payload, form = headed.row(line) if lines[1:] else (line, "")
                builder.reject("bad-header", fault, payload, item, form)
            else:
                _decode_row(builder, _row_of(columns, line), context)
        except _BadField as error:
            payload, form = headed.row(line)
            builder.reject("bad-field", str(error), payload, item, form)


def _columns_of(header: bytes) -> tuple[list[str], str]:
    """Our names of the header's columns ("" for others), and what is wrong with it or nothing."""
    try:
        columns = [_COLUMNS.get(_plain_name(name), "") for name in _split(header)]
    except _BadField as error:
        return [], f"header: {error}"
    missing = ", ".join(name for name in _REQUIRED if name not in columns)
    return columns, f"header: no column {missing}" if missing else ""


def _row_of(columns: list[str], line: bytes) -> dict[str, str]:
    """The cells of one row by our names of the columns."""
    values = _split(line)
    if len(values) != len(columns):
        raise _BadField(f"row: {len(values)} fields, the header has {len(columns)}")
    return dict(zip(columns, values, strict=True))


def _split(row: bytes) -> list[str]:
    """The cells of one row; _BadField for what is no text, or no CSV."""
    try:
        return wire.csv_cells(row)
    except wire.Undecodable as error:
        raise _BadField(f"row: {error}") from error


def _plain_name(name: str) -> str:
    return name.strip().lower().replace("_", "").replace(" ", "")


def _decode_row(builder: ObservationsBuilder, row: dict[str, str], context: Context) -> None:
    """One row; every field is read before anything is added, so that a row is all or nothing."""
    record = _Record(builder, context, _mmsi(row["mmsi"]), _row_time(row["time"]), 0)
    position = _row_position(row)
    heading = _number(row, "heading")
    status = _status(row.get("status", ""))
    draught = _number(row, "draught")
    static = _row_static(row)
    before = len(builder)
    if position is not None:
        record.add("position", position)
    if heading is not None and heading != _HEADING_NONE:
        record.add("heading", heading)
    if status:
        record.add("navigation-status", status)
    if draught:
        record.add("draught", draught)
    repeated = bool(static) and not _add_static(record, "csv", static)
    if len(builder) == before and repeated:
        builder.unchanged += 1
    elif len(builder) == before:
        record.add("ais-message", {name: row[name] for name in row if name and row[name]})
    builder.hear(record.thing, record.time)


def _row_position(row: dict[str, str]) -> Position | None:
    """The position, None where 91 and 181 say it is not available."""
    latitude = _number(row, "latitude", -90, 91)
    longitude = _number(row, "longitude", -180, 181)
    if latitude is None or longitude is None:
        raise _BadField("latitude, longitude: empty")
    if latitude > 90 or longitude > 180:  # noqa: PLR2004
        return None
    speed = _number(row, "speed")
    course = _number(row, "course")
    known_speed = speed is not None and 0 <= speed < _SPEED_TENTHS_NONE
    known_course = course is not None and 0 <= course < _COURSE_NONE
    return Position(
        longitude,
        latitude,
        speed * METRES_A_SECOND if speed is not None and known_speed else NAN,
        course if course is not None and known_course else NAN,
    )


def _mmsi(text: str) -> str:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):  # noqa: PLR2004
        raise _BadField(f"mmsi: {text[:20]!r} is not an MMSI")
    return f"{int(digits):09d}"


def _row_time(text: str) -> int:
    """BaseDateTime is ISO 8601 in UTC, and says neither Z nor an offset."""
    plain = text.strip()
    try:
        return clock.parse_iso(plain if plain.endswith("Z") or "+" in plain else plain + "Z")
    except (ValueError, OverflowError):
        raise _BadField(f"time: {text[:40]!r} is not an ISO 8601 time") from None


def _number(
    row: dict[str, str], name: str, minimum: float = -math.inf, maximum: float = math.inf
) -> float | None:
    """A finite number within bounds, None for an empty or absent field."""
    text = row.get(name, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise _BadField(f"{name}: {text[:20]!r} is not a number") from None
    if not math.isfinite(value) or not minimum <= value <= maximum:
        raise _BadField(f"{name}: {text[:20]} is out of range")
    return value


def _status(text: str) -> str:
    """A code 0 to 15, or (before 2015) the words of M.1371's table; "" where empty."""
    plain = text.strip().lower()
    if not plain:
        return ""
    try:
        code = float(plain)
    except ValueError:
        words = plain.replace(" ", "-")
        return words if words in NAVIGATION_STATUS else "undefined"
    if code not in range(len(NAVIGATION_STATUS)):
        raise _BadField(f"status: {text[:20]!r} is not a navigational status")
    return NAVIGATION_STATUS[int(code)]


def _row_static(row: dict[str, str]) -> dict[str, Any]:
    code = int(_number(row, "ship_type", 0, 10_000) or 0)
    imo = row.get("imo", "").strip().upper().removeprefix("IMO")
    told = {
        "name": row.get("name", "").strip(),
        "callsign": row.get("callsign", "").strip(),
        "imo": int(imo) if imo.isascii() and imo.isdigit() and len(imo) < 10 else 0,  # noqa: PLR2004
        "ship_type": code,
        "ship_type_text": rules.ship_type_text(code),
        "length": _number(row, "length", 0, 10_000),
        "beam": _number(row, "beam", 0, 10_000),
        "cargo": int(_number(row, "cargo", 0, 10_000) or 0),
        "transceiver": row.get("transceiver", "").strip(),
    }
    return {key: value for key, value in told.items() if value}


_FORMATS: dict[str, Callable[[ObservationsBuilder, bytes, Context], None]] = {
    "nmea": _decode_nmea,
    "csv": _decode_csv,
}
