"""SPaT and MAP messages, in UPER and as ODE JSON, to observations of what changed; pure.

ODE records are of schema 6 to 9, which differ in the case, hyphens and nesting of field names
(`state_time_speed`, `state-time-speed`; `intersectionStateList.intersectionStatelist`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import orjson

from core.clock import MICROSECONDS, parse_iso
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, ThingUpdate
from domains.signals import wire
from domains.signals.rules import AHEAD_US, End, Memory, Seen
from domains.signals.wire import WireError

# People can be followed by these messages, so no copy of them is kept, not even as a rejection.
_PERSONAL = {"BSM", "PSM", "SRM", "SSM", "SDSM", "RSM"}
_RECORDS_MAX = 20_000
_TOO_MANY = WireError("too-large", f"more than {_RECORDS_MAX} records in one payload")
_YEAR_9999_US = 253_370_764_800 * MICROSECONDS
_STATES = {"".join(c for c in name.lower() if c.isalnum()): name for name in wire.PHASE_STATES}
_KINDS = ("spat", "map", "bsm", "tim", "srm", "ssm", "psm", "rtcm", "sdsm", "rsm")


def decode(format: str, payload: bytes, context: Context) -> Decoded:
    """Decode `j2735` or `ode-json`; what does not decode is a rejection that names its fault."""
    run = _Run(context)
    if format == "j2735":
        for index, frame in enumerate(wire.split(payload)):
            run.message(index, frame.raw, partial(run.frame, frame, context.received_at))
    elif format == "ode-json":
        for index, (raw, record) in enumerate(_records(payload)):
            run.message(index, raw, partial(run.record, record))
    else:
        run.out.messages = 1
        run.out.reject("unsupported-format", f"format: signals take no {format[:60]!r}", payload)
    return run.out.build()


class _Run:
    """The decoding of one payload."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.out = ObservationsBuilder()
        self.memory = Memory(context.memory, context.gateway, context.received_at)

    def message(self, index: int, raw: bytes, handle: Callable[[], bool]) -> None:
        """Count one native message; `handle` says whether it held anything new."""
        self.out.messages += 1
        try:
            if not handle():
                self.out.unchanged += 1
        except _Personal as error:
            self.out.reject(error.reason, str(error), b"", index)
        except WireError as error:
            self.out.reject(error.reason, str(error), raw, index)

    def frame(self, frame: wire.Frame, reference_us: int) -> bool:
        """One MessageFrame; `reference_us` fills in what its times leave open."""
        if frame.fault is not None:
            raise frame.fault
        if frame.message_id == wire.SPAT_MESSAGE:
            return self.spat(frame.value, reference_us)
        if frame.message_id == wire.MAP_MESSAGE:
            fingerprint = wire.fingerprint_map(frame.value)
            if self.memory.is_map_frame_known(fingerprint):
                return False
            return self.describe(wire.decode_map(frame.value), fingerprint)
        raise _unsupported(frame.name, len(frame.raw))

    def spat(self, value: bytes, reference_us: int) -> bool:
        """A SPAT in UPER; one that repeats the last is told by its head and a hash."""
        head = wire.peek_spat(value)
        if head is not None:
            moment = wire.moment_of(head.minute, head.millisecond, reference_us)
            if self.memory.repeats(head.intersection, moment, head.fingerprint):
                self.out.hear(head.intersection, moment)
                return False
        new = False
        for state in wire.decode_spat(value):
            new |= self.signals(state, reference_us, head.fingerprint if head else None)
        return new

    def signals(
        self, state: wire.Signals, reference_us: int, fingerprint: bytes | None = None
    ) -> bool:
        """One IntersectionState whose ends are TimeMarks."""
        moment = wire.moment_of(state.minute, state.millisecond, reference_us)
        return self.observe(state, moment, lambda mark: wire.mark_to_us(mark, moment), fingerprint)

    def observe(
        self,
        state: wire.Signals,
        moment: int,
        resolve: Callable[[End], End],
        fingerprint: bytes | None = None,
    ) -> bool:
        """Add what changed in an intersection; True where anything did."""
        thing = state.intersection
        seen: list[Seen] = [
            (m.signal_group, m.state, m.minimum_end, m.maximum_end) for m in state.movements
        ]
        changes, begins = self.memory.changes(thing, moment, seen, resolve, fingerprint)
        for name, result in changes:
            self.out.add(thing, name, moment, result)
        if moment <= self.context.received_at + AHEAD_US:
            self.out.hear(thing, moment)
        if begins and state.name:
            self.out.describe(ThingUpdate(thing, name=state.name))
        return bool(changes)

    def describe(self, found: Sequence[wire.Geometry], fingerprint: bytes) -> bool:
        """Describe the intersections of a MAP; True where one was not known like this."""
        for each in found:
            self.out.describe(_thing(each))
        return self.memory.describe([each.intersection for each in found], fingerprint)

    def record(self, record: Any) -> bool:
        """One ODE record, already parsed, or the fault that kept it from being."""
        if isinstance(record, WireError):
            raise record
        if isinstance(record, str):
            return self.hex(_unhex(record, "input"), self.context.received_at)
        content = _node(record, "record")
        kind = _kind_of(content)
        reference = _received_at(content, self.context.received_at)
        if kind == "hex":
            return self.hex(_hex_bytes(content), reference)
        if kind == "spat":
            return sum(self.signals(each, reference) for each in _spat(content)) > 0
        if kind == "processedspat":
            return self.observe(*_processed_spat(content), resolve=lambda end: end)
        if kind == "map":
            found = _geometries(content)
            fingerprint = blake2b(repr(found).encode(), digest_size=16).digest()
            if self.memory.is_map_frame_known(fingerprint):
                return False
            return self.describe(found, fingerprint)
        if not kind:
            raise WireError("unknown-record", "record: neither an ODE record nor a ProcessedSpat")
        raise _unsupported(kind.upper(), len(orjson.dumps(record)))

    def hex(self, message: bytes, reference_us: int) -> bool:
        """The one message inside a record; padding and a cut-off signature may follow it."""
        return self.frame(next(wire.split(message)), reference_us)


class _Personal(WireError):
    """A message about people or vehicles: its bytes are not kept."""


def _unsupported(name: str, size: int) -> WireError:
    if name in _PERSONAL:
        return _Personal(
            "unsupported-message",
            f"{name} ({size} bytes, not kept): where vehicles and people are is personal data",
        )
    return WireError("unsupported-message", f"{name}: signals take SPAT and MAP")


def _thing(geometry: wire.Geometry) -> ThingUpdate:
    paths = [list(map(list, lane.path)) for lane in geometry.lanes if len(lane.path) > 1]
    properties: dict[str, Any] = {
        "revision": geometry.revision,
        "elevation_m": geometry.elevation,
        "lanes": [
            {
                "id": lane.id,
                "approach": lane.approach,
                "direction": lane.direction,
                "type": lane.type,
                "width_cm": lane.width_cm,
                "signal_groups": list(lane.signal_groups),
                "connects_to": list(lane.connects_to),
            }
            for lane in geometry.lanes
        ],
    }
    return ThingUpdate(
        geometry.intersection,
        geometry.name,
        properties,
        (geometry.longitude, geometry.latitude),
        {"type": "MultiLineString", "coordinates": paths} if paths else None,
    )


def _records(payload: bytes) -> Iterator[tuple[bytes, Any]]:
    """The records of a payload with their bytes; a WireError stands for one that is no JSON."""
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        yield from _lines(payload, error)
        return
    if isinstance(document, dict) and isinstance(document.get("cases"), list):
        found = list(_cases(document))
    else:
        found = document if isinstance(document, list) else [document]
    for record in found[:_RECORDS_MAX]:
        yield payload if len(found) == 1 else orjson.dumps(record), record
    if len(found) > _RECORDS_MAX:
        yield b"", _TOO_MANY


def _lines(payload: bytes, error: Exception) -> Iterator[tuple[bytes, Any]]:
    lines = [line for line in payload.splitlines() if line.strip()]
    if len(lines) <= 1:
        yield payload, WireError("invalid-json", f"record: {error}")
        return
    for number, line in enumerate(lines):
        if number == _RECORDS_MAX:
            yield line, _TOO_MANY
            return
        try:
            yield line, orjson.loads(line)
        except orjson.JSONDecodeError as fault:
            yield line, WireError("invalid-json", f"record: {fault}")


# --- ODE JSON: fields ---------------------------------------------------------------------------


class _Node(dict[str, Any]):
    """A JSON object by field names in lower case without punctuation; null means absent."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        super().__init__((_plain(k), v) for k, v in source.items() if v is not None)


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _node(value: Any, field: str) -> _Node:
    """A JSON object, or WireError `invalid-field`."""
    if not isinstance(value, Mapping):
        raise WireError("invalid-field", f"{field}: an object was expected")
    return _Node(value)


def _items(value: Any, field: str) -> list[Any]:
    """A list, also one nested in an object (`{"movementList": [...]}`) as ODE writes them."""
    while isinstance(value, Mapping):
        value = next((v for v in value.values() if isinstance(v, list | Mapping)), None)
    if not isinstance(value, list):
        raise WireError("invalid-field", f"{field}: a list was expected")
    return value


def _integer(value: Any, field: str) -> int:
    """A whole number, also written as text; WireError otherwise."""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdecimal() and len(digits) < 20:  # noqa: PLR2004 - 64 bits
            return int(text)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise WireError("invalid-field", f"{field}: {str(value)[:60]!r} is no whole number")


def _optional_integer(source: _Node, name: str, field: str) -> int | None:
    """A whole number, or None where the field is absent or empty."""
    value = source.get(name)
    return None if value is None or value == "" else _integer(value, field)


def _moment(value: Any, field: str) -> int:
    """A time as µs since 1970: ISO 8601 (UTC where it names no zone), or Unix seconds or ms."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            text = value.partition("[")[0]  # 2022-09-30T17:11:55Z[UTC], as Java writes it
            has_zone = text.endswith("Z") or "+" in text[10:] or "-" in text[10:]
            found = parse_iso(text if has_zone else text + "Z")
        else:
            number = float(value)
            milliseconds = abs(number) > 1e11  # noqa: PLR2004 - as seconds it were the year 5138
            found = round(number * (1000 if milliseconds else MICROSECONDS))
    except (TypeError, ValueError, OverflowError):
        found = -1
    if not 0 <= found < _YEAR_9999_US:
        raise WireError("invalid-field", f"{field}: {str(value)[:60]!r} is no time")
    return found


def _kind_of(record: _Node) -> str:
    """spat, map, bsm ...; `processedspat`, `hex`, or `` for a record of no known kind."""
    if "states" in record and ("intersectionid" in record or "utctimestamp" in record):
        return "processedspat"
    payload, metadata = _part(record, "payload"), _part(record, "metadata")
    data = payload.get("data")
    data = _Node(data) if isinstance(data, Mapping) else _Node({})
    if isinstance(data.get("bytes"), str):
        return "hex"
    number = data.get("messageid")
    if isinstance(number, int) and number in wire.MESSAGE_NAMES:
        return wire.MESSAGE_NAMES[number].lower()
    return _hinted_kind(payload, metadata) or _shaped_kind(data, metadata)


def _hinted_kind(payload: _Node, metadata: _Node) -> str:
    for hint in (payload.get("datatype"), metadata.get("payloadtype"), metadata.get("recordtype")):
        text = str(hint).rpartition(".")[2].lower()
        for name in _KINDS:
            if name in text:
                return name
    return ""


def _shaped_kind(data: _Node, metadata: _Node) -> str:
    shapes = (
        ("hex", isinstance(metadata.get("asn1"), str)),
        ("spat", "intersectionstatelist" in data),
        ("map", "intersections" in data),
        ("bsm", "coredata" in data),
    )
    return next((kind for kind, fits in shapes if fits), "")


def _part(record: _Node, name: str) -> _Node:
    part = record.get(name)
    return _Node(part) if isinstance(part, Mapping) else _Node({})


def _received_at(record: _Node, default_us: int) -> int:
    """When the ODE took the record in; the default where it does not say."""
    value = _part(record, "metadata").get("odereceivedat", record.get("odereceivedat"))
    try:
        return default_us if value is None else _moment(value, "odeReceivedAt")
    except WireError:
        return default_us


def _hex_bytes(record: _Node) -> bytes:
    """The message inside a record that is not decoded; WireError where it is no hex."""
    data = _part(record, "payload").get("data")
    text = _Node(data).get("bytes") if isinstance(data, Mapping) else None
    if not isinstance(text, str):
        text = _part(record, "metadata").get("asn1")
    return _unhex(text, "payload.data.bytes")


def _unhex(text: Any, field: str) -> bytes:
    """Hexadecimal text as bytes."""
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise WireError("invalid-field", f"{field}: not hexadecimal") from error


def _data(record: _Node, name: str) -> _Node:
    """The message itself: `payload.data`, or in schema 9 `payload.data.value.SPAT`."""
    data = _node(_part(record, "payload").get("data"), "payload.data")
    if "value" in data:
        value = _node(data["value"], "payload.data.value")
        return _node(value.get(name, value.get(f"{name}data", value)), f"payload.data.value.{name}")
    return data


# --- SPaT ---------------------------------------------------------------------------------------


def _spat(record: _Node) -> tuple[wire.Signals, ...]:
    """The intersections of a decoded SPaT record."""
    data = _data(record, "spat")
    minute = _optional_integer(data, "timestamp", "timeStamp")
    found = data.get("intersectionstatelist", data.get("intersections"))
    states = _items(found, "intersectionStateList")
    return tuple(_signals(_node(each, "intersectionState"), minute) for each in states)


def _signals(state: _Node, minute: int | None) -> wire.Signals:
    moy = _optional_integer(state, "moy", "moy")
    name = state.get("name")
    return wire.Signals(
        _reference(state.get("id")),
        minute if moy is None else moy,
        _optional_integer(state, "timestamp", "timeStamp"),
        _movements(state.get("states"), _optional_integer),
        name if isinstance(name, str) and name else None,
    )


def _reference(value: Any) -> str:
    reference = _node(value, "id")
    return _key(_optional_integer(reference, "region", "id.region"), reference.get("id"), "id.id")


def _key(region: int | None, number: Any, field: str) -> str:
    value = _integer(number, field)
    if not 0 <= value <= 0xFFFF or (region is not None and region > 0xFFFF):  # noqa: PLR2004
        raise WireError("invalid-field", f"{field}: {value} is out of range")
    return wire.intersection_key(region if region is not None and region >= 0 else None, value)


_ReadEnd = Callable[[_Node, str, str], int | None]


def _movements(states: Any, read_end: _ReadEnd) -> tuple[wire.Movement, ...]:
    found = _items(states, "states")
    return tuple(_movement(_node(each, "movement"), read_end) for each in found)


def _movement(movement: _Node, end: _ReadEnd) -> wire.Movement:
    group = _integer(movement.get("signalgroup"), "signalGroup")
    if not 0 <= group <= 255:  # noqa: PLR2004 - DE_SignalGroupID
        raise WireError("invalid-field", f"signalGroup: {group} is out of range")
    found = _items(movement.get("statetimespeed"), f"signalGroup {group}: stateTimeSpeed")
    if not found:
        raise WireError("invalid-field", f"signalGroup {group}: stateTimeSpeed is empty")
    event = _node(found[0], f"signalGroup {group}: event")
    timing = _Node(event["timing"]) if isinstance(event.get("timing"), Mapping) else _Node({})
    return wire.Movement(
        group,
        _state(event.get("eventstate"), group),
        end(timing, "minendtime", f"signalGroup {group}: minEndTime"),
        end(timing, "maxendtime", f"signalGroup {group}: maxEndTime"),
    )


def _state(value: Any, group: int) -> str:
    if isinstance(value, int) and 0 <= value < len(wire.PHASE_STATES):
        return wire.PHASE_STATES[value]
    name = _STATES.get(_plain(value)) if isinstance(value, str) else None
    if name is None:
        raise WireError(
            "invalid-field", f"signalGroup {group}: eventState {str(value)[:60]!r} is unknown"
        )
    return name


def _absolute(timing: _Node, name: str, field: str) -> int | None:
    value = timing.get(name)
    return None if value is None or value == "" else _moment(value, field)


def _processed_spat(record: _Node) -> tuple[wire.Signals, int]:
    """A ProcessedSpat and its time; its ends are µs since 1970 in place of TimeMarks."""
    region = _optional_integer(record, "region", "region")
    name = record.get("name")
    signals = wire.Signals(
        _key(region, record.get("intersectionid"), "intersectionId"),
        None,
        None,
        _movements(record["states"], _absolute),
        name if isinstance(name, str) and name else None,
    )
    when = record.get("utctimestamp", record.get("odereceivedat"))
    return signals, _moment(when, "utcTimeStamp")


# --- MAP ----------------------------------------------------------------------------------------


def _geometries(record: _Node) -> tuple[wire.Geometry, ...]:
    """The intersections of a decoded MAP record."""
    data = _data(record, "map")
    found = data.get("intersections")
    if found is None:
        return ()
    return tuple(_geometry(_node(each, "intersection")) for each in _items(found, "intersections"))


def _geometry(item: _Node) -> wire.Geometry:
    point = _node(item.get("refpoint"), "refPoint")
    longitude = _degrees(point, "longitude", "long", 180.0)
    latitude = _degrees(point, "latitude", "lat", 90.0)
    width = _optional_integer(item, "lanewidth", "laneWidth")
    sources = [_node(each, "lane") for each in _items(item.get("laneset"), "laneSet")]
    lanes = [_lane(each, width) for each in sources]
    nodes = {lane.id: _nodes(each) for lane, each in zip(lanes, sources, strict=True)}
    name = item.get("name")
    elevation = point.get("elevation")
    if "lat" in point and isinstance(elevation, int):
        elevation = None if elevation == -4096 else elevation / 10  # noqa: PLR2004 - unknown
    return wire.Geometry(
        _reference(item.get("id")),
        _optional_integer(item, "revision", "revision"),
        longitude,
        latitude,
        name if isinstance(name, str) and name else None,
        elevation if isinstance(elevation, int | float) else None,
        wire.with_paths(lanes, nodes, longitude, latitude),
    )


def _degrees(point: _Node, decimal: str, raw: str, limit: float) -> float:
    """Degrees, written as such (`latitude`) or in 1e-7 degrees (`lat`)."""
    value, scale = (point[decimal], 1.0) if decimal in point else (point.get(raw), 1e7)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("invalid-field", f"refPoint.{decimal}: {str(value)[:60]!r} is no number")
    degrees = value / scale
    if not -limit <= degrees <= limit:
        raise WireError("invalid-field", f"refPoint.{decimal}: {degrees} is out of range")
    return degrees


def _lane(lane: _Node, width_cm: int | None) -> wire.Lane:
    attributes = _part(lane, "laneattributes")
    connections = [
        _node(each, "connectsTo") for each in _items(lane.get("connectsto", []), "connectsTo")
    ]
    approach = _optional_integer(lane, "ingressapproach", "ingressApproach")
    if approach is None:
        approach = _optional_integer(lane, "egressapproach", "egressApproach")
    number = _integer(lane.get("laneid"), "laneID")
    return wire.Lane(
        number,
        approach,
        _direction(attributes.get("directionaluse")),
        next(iter(_part(attributes, "lanetype")), "vehicle"),
        width_cm,
        wire.signal_groups_of(
            _optional_integer(each, "signalgroup", f"lane {number}: signalGroup")
            for each in connections
        ),
        tuple(
            _integer(
                _node(each.get("connectinglane"), f"lane {number}: connectingLane").get("lane"),
                f"lane {number}: connectingLane.lane",
            )
            for each in connections
        ),
    )


def _direction(value: Any) -> str:
    """Bits of LaneDirection: an object of flags, or hexadecimal as in JER (schema 9)."""
    if isinstance(value, Mapping):
        flags = _Node(value)
        if "value" in flags:
            return _direction(flags["value"])
        ingress, egress = bool(flags.get("ingresspath")), bool(flags.get("egresspath"))
    else:
        try:
            bits = int(str(value)[:2], 16)
        except ValueError:
            bits = 0
        ingress, egress = bool(bits & 0x80), bool(bits & 0x40)
    return ("none", "egress", "ingress", "both")[ingress * 2 + egress]


def _nodes(lane: _Node) -> list[wire.Node] | tuple[int, float, float] | None:
    content = _part(lane, "nodelist")
    if "nodes" not in content:
        return _computed(_part(content, "computed"))
    found: list[wire.Node] = []
    for each in _items(content["nodes"], "nodeList.nodes"):
        delta = _part(_node(each, "node"), "delta")
        chosen = next(iter(delta.items()), None)
        if chosen is None or not isinstance(chosen[1], Mapping):
            return None
        offset = _Node(chosen[1])
        if chosen[0] == "nodelatlon":
            found.append(("at", _lat_lon(offset.get("lon")), _lat_lon(offset.get("lat"))))
        elif chosen[0].startswith("nodexy"):
            x, y = (_integer(offset.get(axis), f"delta.{axis}") / 100 for axis in ("x", "y"))
            found.append(("xy", x, y))
        else:
            return None
    return found


def _lat_lon(value: Any) -> float:
    """Degrees, or 1e-7 degrees where it is too large to be degrees."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("invalid-field", f"delta.nodeLatLon: {str(value)[:60]!r} is no number")
    return value if abs(value) <= 180 else value / 1e7  # noqa: PLR2004 - degrees


def _computed(content: _Node) -> tuple[int, float, float] | None:
    if not content or {"rotatexy", "scalexaxis", "scaleyaxis"} & set(content):
        return None
    return (
        _integer(content.get("referencelaneid"), "computed.referenceLaneId"),
        _shift(content, "offsetxaxis"),
        _shift(content, "offsetyaxis"),
    )


def _shift(content: _Node, axis: str) -> float:
    value = content.get(axis)
    if isinstance(value, Mapping):
        value = next((v for v in value.values() if v is not None), None)
    return _integer(value, f"computed.{axis}") / 100


def _cases(document: Mapping[str, Any]) -> Iterator[Any]:
    """The inputs of an ODE validation file: {"cases": [{"input": record or hex, ...}]}."""
    for case in document["cases"]:
        yield case.get("input") if isinstance(case, Mapping) else case
