"""KPI recordings as CSV -> observations: columns are known by their names, in any order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.formats import table
from core.formats.checks import position_fault, text_fault, thing_fault
from core.formats.table import Header, Row, Table, TableError
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Position
from domains.edge.sector import SECTOR

# Headers, without unit and as slugs, that mean something of ours; the unit is that of a column
# whose header names none (empty: the property's own).
_SPELLINGS: dict[str, tuple[str, str]] = {
    "rsrp": ("rsrp", ""), "lte-rsrp": ("rsrp", ""),
    "rsrq": ("rsrq", ""), "lte-rsrq": ("rsrq", ""),
    "rssi": ("rssi", ""), "lte-rssi": ("rssi", ""),
    "sinr": ("sinr", ""), "snr": ("sinr", ""), "lte-sinr": ("sinr", ""), "rssnr": ("sinr", ""),
    "cqi": ("cqi", ""),
    "nr-rsrp": ("nr-rsrp", ""), "5g-rsrp": ("nr-rsrp", ""), "ss-rsrp": ("nr-rsrp", ""),
    "nr-ss-rsrp": ("nr-rsrp", ""), "nrrsrp": ("nr-rsrp", ""),
    "nr-rsrq": ("nr-rsrq", ""), "5g-rsrq": ("nr-rsrq", ""), "ss-rsrq": ("nr-rsrq", ""),
    "nr-ss-rsrq": ("nr-rsrq", ""), "nrrsrq": ("nr-rsrq", ""),
    "nr-rssi": ("nr-rssi", ""), "5g-rssi": ("nr-rssi", ""),
    "nr-sinr": ("nr-sinr", ""), "5g-sinr": ("nr-sinr", ""), "ss-sinr": ("nr-sinr", ""),
    "nr-snr": ("nr-sinr", ""), "nr-ss-sinr": ("nr-sinr", ""),
    "nr-ul-bw": ("nr-uplink-bandwidth", ""), "nr-uplink-bandwidth": ("nr-uplink-bandwidth", ""),
    "rtt": ("rtt", ""), "round-trip-time": ("rtt", ""), "ping": ("rtt", ""),
    "pingavg": ("rtt", ""), "ping-avg": ("rtt", ""), "rtt-avg": ("rtt", ""),
    "latency": ("latency", ""), "delay": ("latency", ""), "owd": ("latency", ""),
    "jitter": ("jitter", ""), "packet-loss": ("packet-loss", ""), "loss": ("packet-loss", ""),
    "pingloss": ("packet-loss", ""),
    "rate": ("throughput", ""), "throughput": ("throughput", ""), "bitrate": ("throughput", ""),
    "ul-bitrate": ("uplink-throughput", "kbit/s"), "dl-bitrate": ("downlink-throughput", "kbit/s"),
    "uplink": ("uplink-throughput", ""), "downlink": ("downlink-throughput", ""),
    "uplink-throughput": ("uplink-throughput", ""), "ul-throughput": ("uplink-throughput", ""),
    "downlink-throughput": ("downlink-throughput", ""),
    "dl-throughput": ("downlink-throughput", ""), "upload": ("uplink-throughput", ""),
    "download": ("downlink-throughput", ""),
    "sent-bytes": ("sent-bytes", ""), "tx-bytes": ("sent-bytes", ""),
    "bytes-sent": ("sent-bytes", ""), "received-bytes": ("received-bytes", ""),
    "rx-bytes": ("received-bytes", ""), "bytes-received": ("received-bytes", ""),
    "load": ("load", ""), "cpu": ("load", ""), "cpu-load": ("load", ""), "cpu-usage": ("load", ""),
    "memory": ("memory", ""), "mem": ("memory", ""), "memory-usage": ("memory", ""),
    "connected-devices": ("connected-devices", ""), "clients": ("connected-devices", ""),
    "ue-count": ("connected-devices", ""), "devices": ("connected-devices", ""),
    "temperature": ("temperature", ""), "temp": ("temperature", ""),
    "humidity": ("humidity", ""), "power": ("power", ""), "battery": ("battery", ""),
    "heartbeat": ("heartbeat", ""), "uptime": ("uptime", ""),
    "altitude": ("altitude", ""), "alt": ("altitude", ""), "elevation": ("altitude", ""),
    "networkmode": ("network-mode", ""), "network-mode": ("network-mode", ""),
    "network-type": ("network-mode", ""), "rat": ("network-mode", ""),
    "technology": ("network-mode", ""),
    "cellid": ("cell", ""), "cell-id": ("cell", ""), "cell": ("cell", ""), "pci": ("cell", ""),
    "nci": ("cell", ""), "eci": ("cell", ""),
    "operator": ("operator", ""), "operatorname": ("operator", ""), "carrier": ("operator", ""),
    "plmn": ("operator", ""),
}  # fmt: skip

# Columns that say when, who and where: by role.
_ROLES = {
    "date": ("date", "day"),
    "time": ("time", "timestamp", "datetime", "date-time", "phenomenon-time", "ts", "utc"),
    "thing": ("node", "node-id", "device", "device-id", "gateway", "site", "imei", "host", "id"),
    "longitude": ("lon", "lng", "long", "longitude"),
    "latitude": ("lat", "latitude"),
    "speed": ("speed", "velocity"),
    "course": ("heading", "course", "bearing", "azimuth"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}
_FACTORS = {"km/h": 1 / 3.6, "m/s": 1.0, "deg": 1.0}
_DOCUMENTS = frozenset({"network-mode", "cell", "operator"})

# Modems write 0 for a radio that has no cell, Android the largest integer. 0 dBm is a milliwatt at
# the antenna, a million times the strongest RSRP: so such a row says nothing of that radio.
_RADIOS = (
    ("rsrp", ("rsrp", "rsrq", "rssi", "sinr", "cqi")),
    ("nr-rsrp", ("nr-rsrp", "nr-rsrq", "nr-rssi", "nr-sinr")),
)
_NEVER_ZERO = frozenset({"rsrp", "rssi", "nr-rsrp", "nr-rssi"})
_OF_RADIOS = frozenset(name for _, names in _RADIOS for name in names)
_UNAVAILABLE = 2_147_483_647


@dataclass(frozen=True, slots=True)
class _Columns:
    """What each column of a table is."""

    roles: Mapping[str, int]
    kpis: Mapping[int, tuple[str, str | None]]
    units: Mapping[str, str | None] = field(default_factory=dict)


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode one `csv` batch; each data row is one message.

    The Thing is the row's node or device, else the gateway. A row without a time gets the
    receiver's, one µs apart. A row that cannot be read is rejected whole, under its header.
    """
    builder = ObservationsBuilder()
    if format != "csv":
        builder.messages = 1
        builder.reject("unsupported-format", f"format: edge takes no {format!r}", payload)
        return builder.build()
    try:
        read = table.read(payload)
        columns = _columns(read.headers)
    except TableError as error:
        builder.messages = 1
        builder.reject(error.reason, str(error), payload)
        return builder.build()
    for row in read.rows:
        _read_row(builder, read, columns, row, context)
    return builder.build()


def _columns(headers: list[Header]) -> _Columns:
    roles: dict[str, int] = {}
    kpis: dict[int, tuple[str, str | None]] = {}
    units: dict[str, str | None] = {}
    for place, header in enumerate(headers):
        role = _ROLE_OF.get(header.slug)
        if role is not None and role not in roles:
            roles[role] = place
            units[role] = header.unit
        elif header.slug:
            taken = {name for name, _ in kpis.values()}
            name, unit = _kpi(header)
            # Two spellings of one KPI are two measurements: the second keeps its own header.
            name = name if name not in taken else table.slug(header.text)
            if name in taken:
                raise TableError("bad-header", f"header: {header.text!r} is there twice")
            kpis[place] = (name, unit)
    declared = any(name in SECTOR.by_name for name, _ in kpis.values())
    if not declared and not {"longitude", "latitude"} <= roles.keys():
        # One known column makes a recording of KPIs of it, and the others belong to it; with none
        # it is some other table, or no table.
        raise TableError("bad-header", "header: no column of a known KPI, and no position")
    return _Columns(roles, kpis, units)


def _kpi(header: Header) -> tuple[str, str | None]:
    """(property, unit) of a column; an unknown one is a property of its own, undeclared."""
    known = _SPELLINGS.get(header.slug)
    if known is None or (header.unit_text and header.unit is None):
        return table.slug(f"{header.slug} {header.unit_text}"), header.unit
    name, usual = known
    return name, header.unit or usual or SECTOR.by_name[name].unit


class _RowError(ValueError):
    """A row cannot be read; the text names the column."""


def _read_row(
    builder: ObservationsBuilder, read: Table, columns: _Columns, row: Row, context: Context
) -> None:
    builder.messages += 1
    try:
        if row.fault:
            raise _RowError(row.fault)  # noqa: TRY301 - one place turns a fault into a rejection
        thing, moment = _thing(row, columns, context), _moment(row, columns, context)
        values = _values(read, columns, row)
        position = _position(columns, row, read.separator)
    except (_RowError, ValueError) as error:
        payload, form = read.rejected(row)
        builder.reject("bad-row", str(error), payload, row.number, form)
        return
    builder.hear(thing, moment)
    before = len(builder)
    for name, unit, value in values:
        builder.add(thing, name, moment, value, None if isinstance(value, str) else unit)
    if position is not None:
        builder.add(thing, "position", moment, position)
    builder.unchanged += len(builder) == before


def _thing(row: Row, columns: _Columns, context: Context) -> str:
    place = columns.roles.get("thing")
    named = "" if place is None else row.cells[place].strip()
    if not named:
        return context.gateway
    fault = thing_fault(named)
    if fault is not None:
        raise _RowError(f"node: {fault}")
    return named


def _moment(row: Row, columns: _Columns, context: Context) -> int:
    date, clock = (
        row.cells[columns.roles[role]] if role in columns.roles else "" for role in ("date", "time")
    )
    if not columns.roles.keys() & {"date", "time"}:
        return context.received_at + row.number
    try:
        return table.moment_of(date, clock)
    except ValueError as error:
        raise _RowError(f"time: {error}") from error


def _values(read: Table, columns: _Columns, row: Row) -> list[tuple[str, str | None, float | str]]:
    """The row's observations: gaps, and what a radio without a cell reports, left out."""
    texts: list[tuple[str, str | None, float | str]] = []
    numbers: dict[str, tuple[str | None, float]] = {}
    for place, (name, unit) in columns.kpis.items():
        cell = row.cells[place].strip()
        if name in _DOCUMENTS or name not in SECTOR.by_name:
            texts.extend(_free(name, unit, cell, read.separator))
            continue
        try:
            value = table.number(cell, read.separator)
        except ValueError as error:
            raise _RowError(f"{read.headers[place].text}: {error}") from error
        if value is not None and not (name in _OF_RADIOS and abs(value) == _UNAVAILABLE):
            numbers[name] = (unit, value)
    for strength, names in _RADIOS:
        silent = strength in numbers and numbers[strength][1] == 0
        for name in names:
            if name in numbers and (silent or (name in _NEVER_ZERO and numbers[name][1] == 0)):
                del numbers[name]
    return [*((name, unit, value) for name, (unit, value) in numbers.items()), *texts]


def _free(
    name: str, unit: str | None, cell: str, separator: str
) -> list[tuple[str, str | None, float | str]]:
    """A text property, or a column nobody declared: numbers under its name, texts beside them."""
    if cell.lower() in table.GAPS:
        return []
    if name not in _DOCUMENTS:
        try:
            value = table.number(cell, separator)
        except ValueError:
            name = f"{name}-text"
        else:
            return [] if value is None else [(name, unit, value)]
    fault = text_fault(cell)
    if fault is not None:
        raise _RowError(f"{name}: {fault}")
    return [(name, None, cell)]


def _position(columns: _Columns, row: Row, separator: str) -> Position | None:
    found: dict[str, float] = {}
    for role in ("longitude", "latitude", "speed", "course"):
        place = columns.roles.get(role)
        if place is None:
            continue
        try:
            value = table.number(row.cells[place], separator)
        except ValueError as error:
            raise _RowError(f"{role}: {error}") from error
        if value is not None:
            # A speed without a unit is taken as m/s, which Android's location service gives.
            found[role] = value * _FACTORS.get(columns.units.get(role) or "", 1.0)
    if not {"longitude", "latitude"} <= found.keys():
        return None
    if found["longitude"] == found["latitude"] == 0.0:
        return None  # a receiver without a fix
    fault = position_fault(**found)
    if fault is not None:
        raise _RowError(fault)
    return Position(**found)
