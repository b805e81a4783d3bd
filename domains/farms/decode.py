"""LoRaWAN uplinks and loggers' CSV -> observations; pure, and never raises on bad input."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from core.clock import parse_iso
from core.formats import table
from core.formats.checks import position_fault, text_fault, thing_fault, time_fault
from core.formats.table import Header, Row, Table, TableError
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, ThingUpdate
from domains.farms import wire
from domains.farms.sector import SECTOR


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode one batch of `lorawan` uplinks or `csv` rows; each of them is one message."""
    builder = ObservationsBuilder()
    reader = _FORMATS.get(format)
    if reader is None:
        builder.messages = 1
        builder.reject("unsupported-format", f"format: farms takes no {format!r}", payload)
    else:
        reader(builder, payload, context)
    return builder.build()


# --- lorawan --------------------------------------------------------------------------------------

_EUI = re.compile(r"[0-9a-f]{16}")
_F_PORTS = range(1, 224)  # LoRaWAN 1.0.4, 4.3.2: application ports


class Uplink(msgspec.Struct, kw_only=True):
    """One uplink: device model, DevEUI, fPort, payload as hex, and when it was received."""

    device_model: str
    dev_eui: str
    f_port: int
    bytes: str
    time: str | None = None


_UPLINK = msgspec.json.Decoder(Uplink)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _UplinkError(ValueError):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _decode_lorawan(builder: ObservationsBuilder, payload: bytes, context: Context) -> None:
    raws: list[msgspec.Raw] | list[bytes] = [payload]
    if payload.lstrip().startswith(b"["):
        try:
            raws = _RAWS.decode(payload)
        except _FAILURES as error:
            builder.messages = 1
            builder.reject("invalid-json", f"not uplinks in JSON: {error}", payload)
            return
    builder.messages = len(raws)
    for number, raw in enumerate(raws):
        try:
            _add_uplink(builder, _UPLINK.decode(raw), context)
        except (_UplinkError, wire.PayloadError) as error:
            builder.reject(error.reason, str(error), bytes(raw), number)
        except _FAILURES as error:
            builder.reject("invalid-uplink", str(error), bytes(raw), number)


def _add_uplink(builder: ObservationsBuilder, uplink: Uplink, context: Context) -> None:
    name = uplink.device_model.strip().lower()
    model = wire.MODELS.get(name)
    if model is None:
        raise _UplinkError("unknown-model", f"device_model: {uplink.device_model[:80]!r}")
    thing = re.sub(r"[-: ]", "", uplink.dev_eui).lower()
    if not _EUI.fullmatch(thing):
        raise _UplinkError("bad-dev-eui", f"dev_eui: {uplink.dev_eui[:40]!r} is not 16 hex digits")
    if uplink.f_port not in _F_PORTS or model.f_port not in (None, uplink.f_port):
        raise _UplinkError("unknown-f-port", f"f_port: {name} does not use {uplink.f_port}")
    moment = context.received_at if uplink.time is None else _uplink_time(uplink.time)
    values = model.decode(_hex(uplink.bytes))
    for observed_property, value in values.items():
        builder.add(thing, observed_property, moment, value, model.units[observed_property])
    builder.hear(thing, moment)
    builder.describe(ThingUpdate(thing, properties={"device_model": name}))
    builder.unchanged += not values


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise _UplinkError("bad-hex", f"bytes: {error}") from error


def _uplink_time(text: str) -> int:
    try:
        # Network servers write nanoseconds; Python's ISO reader takes six digits and drops more.
        moment = parse_iso(text)
    except (ValueError, OverflowError) as error:
        raise _UplinkError("bad-time", f"time: {error}") from error
    fault = time_fault(moment)
    if fault is not None:
        raise _UplinkError("bad-time", f"time: {fault}")
    return moment


# --- csv ------------------------------------------------------------------------------------------

# Names of values, as slugs without their unit -> property; an instance (a height) follows a slash.
_SPELLINGS: dict[str, str] = {
    "soil-volumetric-water-content": "soil-moisture", "volumetric-water-content": "soil-moisture",
    "soil-moisture": "soil-moisture", "soil-water-content": "soil-moisture",
    "vwc": "soil-moisture", "swc": "soil-moisture", "water-content": "soil-moisture",
    "土壌水分": "soil-moisture", "土壌体積含水率": "soil-moisture", "体積含水率": "soil-moisture",
    "soil-temperature": "soil-temperature", "soil-temp": "soil-temperature",
    "地温": "soil-temperature", "土壌温度": "soil-temperature",
    "soil-conductivity": "soil-conductivity", "electrical-conductivity": "soil-conductivity",
    "bulk-ec": "soil-conductivity", "soil-ec": "soil-conductivity", "ec": "soil-conductivity",
    "percolation": "percolation", "drainage": "percolation",
    "water-level": "water-level", "水位": "water-level", "water-temperature": "water-temperature",
    "水温": "water-temperature",
    "air-temperature": "air-temperature", "air-temp": "air-temperature", "気温": "air-temperature",
    "relative-humidity": "relative-humidity", "rh": "relative-humidity",
    "air-humidity": "relative-humidity", "相対湿度": "relative-humidity", "湿度": "humidity",
    "specific-humidity": "specific-humidity", "vapor-pressure": "vapour-pressure",
    "atmospheric-pressure": "atmospheric-pressure", "air-pressure": "atmospheric-pressure",
    "barometric-pressure": "atmospheric-pressure", "気圧": "atmospheric-pressure",
    "wind": "wind-speed", "風速": "wind-speed", "風向": "wind-direction",
    "wind-gust": "maximum-wind-speed", "gust": "maximum-wind-speed",
    "shortwave-radiation": "solar-radiation", "global-radiation": "solar-radiation",
    "solar": "solar-radiation", "日射量": "solar-radiation",
    "rain": "precipitation", "rainfall": "precipitation", "降水量": "precipitation",
    "雨量": "precipitation", "snow": "snow-depth", "積雪深": "snow-depth",
    "field-snow-depth": "snow-depth/field", "battery-v": "battery-voltage",
    "照度": "illuminance", "temp": "temperature", "温度": "temperature",
}  # fmt: skip

_ROLES = {
    "date": ("date", "d-local", "day", "日付", "年月日"),
    "time": ("time", "timestamp", "datetime", "date-time", "phenomenon-time", "日時", "時刻"),
    "variable": ("variable", "parameter", "property", "項目"),
    "value": ("value", "reading", "result", "値"),
    "unit": ("unit", "units", "単位"),
    "depth": ("sensor-depth", "depth", "深さ"),
    "longitude": ("longitude", "lon", "lng", "経度"),
    "latitude": ("latitude", "lat", "緯度"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
# Columns that together name the Thing, from the larger to the smaller.
_PLACES = (
    "farm", "site", "station", "field", "圃場", "experimental-plot", "plot", "lysimeter",
    "logger", "device", "device-id", "dev-eui", "node", "sensor", "sensor-id",
)  # fmt: skip
_HEIGHT_FIRST = re.compile(r"(\d+(?:\.\d+)?-?(?:cm|mm|m))-(.+)")


class _Kind(NamedTuple):
    """What a name and a unit of a table mean: property, and UCUM (None: the property's own)."""

    property: str
    unit: str | None


@dataclass(frozen=True, slots=True)
class _Columns:
    """What each column of a table is: a role, a part of the Thing's name, or a value."""

    roles: dict[str, int]
    places: tuple[int, ...]
    values: dict[int, _Kind]


class _RowError(ValueError):
    """A row cannot be read; the text names the column."""


def _decode_csv(builder: ObservationsBuilder, payload: bytes, context: Context) -> None:
    try:
        read = table.read(payload)
        columns = _columns(read.headers)
    except TableError as error:
        builder.messages = 1
        builder.reject(error.reason, str(error), payload)
        return
    for row in read.rows:
        builder.messages += 1
        try:
            if row.fault:
                raise _RowError(row.fault)  # noqa: TRY301 - one place turns a fault into a rejection
            _add_row(builder, read, columns, row, context)
        except _RowError as error:
            payload, form = read.rejected(row)
            builder.reject("bad-row", str(error), payload, row.number, form)


def _columns(headers: list[Header]) -> _Columns:
    roles: dict[str, int] = {}
    places: dict[str, int] = {}
    others: dict[int, Header] = {}
    for number, header in enumerate(headers):
        role = _ROLE_OF.get(header.slug)
        if role is not None and role not in roles:
            roles[role] = number
        elif header.slug in _PLACES and header.slug not in places:
            places[header.slug] = number
        elif header.slug:
            others[number] = header
    named = tuple(places[name] for name in _PLACES if name in places)
    if {"variable", "value"} <= roles.keys():
        return _Columns(roles, named, {})
    values: dict[int, _Kind] = {}
    if "value" in roles:
        others[roles["value"]] = headers[roles["value"]]
    for number, header in others.items():
        kind = _kind(header.slug, header.unit_text)
        if kind.property in {other.property for other in values.values()}:
            raise TableError("bad-header", f"header: {header.text!r} is there twice")
        values[number] = kind
    if not any(kind.property.partition("/")[0] in SECTOR.by_name for kind in values.values()):
        # One known column makes a recording of it, and the others belong to it; with none it is
        # some other table, or no table.
        raise TableError("bad-header", "header: no column of a known property")
    return _Columns(roles, named, values)


def _kind(name: str, unit_text: str) -> _Kind:
    """What a value's name and unit mean; an unknown pair is a property of its own, undeclared."""
    unit = table.unit_of(unit_text) if unit_text else None
    first = _HEIGHT_FIRST.fullmatch(name)
    instance = ""
    if name not in _SPELLINGS and first is not None:
        instance, name = f"/{first[1].replace('-', '')}", first[2]
    known = _SPELLINGS.get(name, name)
    if known.partition("/")[0] not in SECTOR.by_name or (unit_text and unit is None):
        return _Kind(table.slug(f"{instance[1:]} {name} {unit_text}"), unit)
    return _Kind(known + instance, unit)


def _add_row(
    builder: ObservationsBuilder, read: Table, columns: _Columns, row: Row, context: Context
) -> None:
    thing, moment = _thing(columns, row, context), _moment(columns, row, context)
    depth = _cell(columns, row, "depth")
    instance = f"/{table.slug(depth).replace('-', '')}" if depth else ""
    found: list[tuple[_Kind, float | str]] = []
    for number, kind in _kinds(columns, row).items():
        value = _value(read, row, number, kind)
        if value is not None:
            found.append((kind, value))
    place = _location(read, columns, row)
    for kind, value in found:
        if isinstance(value, str):
            builder.add(thing, f"{kind.property}-text{instance}", moment, value)
        else:
            builder.add(thing, kind.property + instance, moment, value, kind.unit)
    builder.hear(thing, moment)
    if place is not None:
        builder.describe(ThingUpdate(thing, location=place))
    builder.unchanged += not found


def _value(read: Table, row: Row, number: int, kind: _Kind) -> float | str | None:
    """A cell's number, or None for a gap; a column nobody declared (remarks) may hold text."""
    cell = row.cells[number].strip()
    try:
        return table.number(cell, read.separator)
    except ValueError as error:
        declared = kind.property.partition("/")[0] in SECTOR.by_name
        fault = str(error) if declared else text_fault(cell)
        if fault is None:
            return cell
        raise _RowError(f"{read.headers[number].text}: {fault}") from error


def _location(read: Table, columns: _Columns, row: Row) -> tuple[float, float] | None:
    """Where the sensor stands, if the row says so."""
    if not {"longitude", "latitude"} <= columns.roles.keys():
        return None
    try:
        longitude, latitude = (
            table.number(_cell(columns, row, role), read.separator)
            for role in ("longitude", "latitude")
        )
    except ValueError as error:
        raise _RowError(f"longitude, latitude: {error}") from error
    if longitude is None or latitude is None:
        return None
    fault = position_fault(longitude, latitude)
    if fault is not None:
        raise _RowError(fault)
    return longitude, latitude


def _kinds(columns: _Columns, row: Row) -> dict[int, _Kind]:
    """Which cells of this row are values: fixed by the header, or named by the row itself."""
    if columns.values:
        return columns.values
    name = table.slug(_cell(columns, row, "variable"))
    if not name:
        raise _RowError("variable: empty")
    return {columns.roles["value"]: _kind(name, _cell(columns, row, "unit"))}


def _cell(columns: _Columns, row: Row, role: str) -> str:
    number = columns.roles.get(role)
    return "" if number is None else row.cells[number].strip()


def _thing(columns: _Columns, row: Row, context: Context) -> str:
    parts = [table.slug(row.cells[number]) for number in columns.places]
    thing = "-".join(part for part in parts if part) or context.gateway
    fault = thing_fault(thing)
    if fault is not None:
        raise _RowError(f"sensor: {fault}")
    return thing


def _moment(columns: _Columns, row: Row, context: Context) -> int:
    if not columns.roles.keys() & {"date", "time"}:
        return context.received_at + row.number
    try:
        return table.moment_of(_cell(columns, row, "date"), _cell(columns, row, "time"))
    except ValueError as error:
        raise _RowError(f"date: {error}") from error


_FORMATS: dict[str, Callable[[ObservationsBuilder, bytes, Context], None]] = {
    "lorawan": _decode_lorawan,
    "csv": _decode_csv,
}
