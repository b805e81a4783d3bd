"""ODE records (schema 6 to 9) and ProcessedSpat as the types of wire.py; pure.

Field names differ between the schemas in case, hyphens and nesting (`state_time_speed`,
`state-time-speed`; `intersectionStateList.intersectionStatelist`), so they are compared without.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.clock import MICROSECONDS, parse_iso
from domains.signals import wire
from domains.signals.wire import WireError

_STATES = {"".join(c for c in name.lower() if c.isalnum()): name for name in wire.PHASE_STATES}
_KINDS = ("spat", "map", "bsm", "tim", "srm", "ssm", "psm", "rtcm", "sdsm", "rsm")
_IDS = {number: name.lower() for number, name in wire.MESSAGE_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Event:
    """A signal group of a ProcessedSpat: its ends are already µs since 1970."""

    signal_group: int
    state: str
    minimum_end: int | None
    maximum_end: int | None


@dataclass(frozen=True, slots=True)
class Processed:
    """A ProcessedSpat: one intersection with absolute times."""

    intersection: str
    moment_us: int
    movements: tuple[Event, ...]
    name: str | None


class Node(dict[str, Any]):
    """A JSON object by field names in lower case without punctuation; null means absent."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        super().__init__((_plain(k), v) for k, v in source.items() if v is not None)


@lru_cache(maxsize=4096)
def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def node(value: Any, field: str) -> Node:
    """A JSON object, or WireError `invalid-field`."""
    if not isinstance(value, Mapping):
        raise WireError("invalid-field", f"{field}: an object was expected")
    return Node(value)


def items(value: Any, field: str) -> list[Any]:
    """A list, also one nested in an object (`{"movementList": [...]}`) as ODE writes them."""
    while isinstance(value, Mapping):
        value = next((v for v in value.values() if isinstance(v, list | Mapping)), None)
    if not isinstance(value, list):
        raise WireError("invalid-field", f"{field}: a list was expected")
    return value


def integer(value: Any, field: str) -> int:
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


def optional_integer(source: Node, name: str, field: str) -> int | None:
    """A whole number, or None where the field is absent or empty."""
    value = source.get(name)
    return None if value is None or value == "" else integer(value, field)


def moment(value: Any, field: str) -> int:
    """A time as µs since 1970: ISO 8601 (UTC where it names no zone), or Unix seconds or ms."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdecimal():
            text = value.partition("[")[0]  # 2022-09-30T17:11:55Z[UTC], as Java writes it
            has_zone = text.endswith("Z") or "+" in text[10:] or "-" in text[10:]
            return parse_iso(text if has_zone else text + "Z")
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            number = float(value)
            milliseconds = abs(number) > 1e11  # noqa: PLR2004 - as seconds it were the year 5138
            return round(number * (1000 if milliseconds else MICROSECONDS))
    except (ValueError, OverflowError):
        pass
    raise WireError("invalid-field", f"{field}: {str(value)[:60]!r} is no time")


def kind_of(record: Node) -> str:
    """spat, map, bsm ...; `processedspat`, `hex`, or `` for a record of no known kind."""
    if "states" in record and ("intersectionid" in record or "utctimestamp" in record):
        return "processedspat"
    payload, metadata = _part(record, "payload"), _part(record, "metadata")
    data = payload.get("data")
    data = Node(data) if isinstance(data, Mapping) else Node({})
    if isinstance(data.get("bytes"), str):
        return "hex"
    number = data.get("messageid")
    if isinstance(number, int) and number in _IDS:
        return _IDS[number]
    return _hinted_kind(payload, metadata) or _shaped_kind(data, metadata)


def _hinted_kind(payload: Node, metadata: Node) -> str:
    for hint in (payload.get("datatype"), metadata.get("payloadtype"), metadata.get("recordtype")):
        text = str(hint).rpartition(".")[2].lower()
        for name in _KINDS:
            if name in text:
                return name
    return ""


def _shaped_kind(data: Node, metadata: Node) -> str:
    shapes = (
        ("hex", isinstance(metadata.get("asn1"), str)),
        ("spat", "intersectionstatelist" in data),
        ("map", "intersections" in data),
        ("bsm", "coredata" in data),
    )
    return next((kind for kind, fits in shapes if fits), "")


def _part(record: Node, name: str) -> Node:
    part = record.get(name)
    return Node(part) if isinstance(part, Mapping) else Node({})


def received_at(record: Node, default_us: int) -> int:
    """When the ODE took the record in; the default where it does not say."""
    value = _part(record, "metadata").get("odereceivedat", record.get("odereceivedat"))
    try:
        return default_us if value is None else moment(value, "odeReceivedAt")
    except WireError:
        return default_us


def hex_bytes(record: Node) -> bytes:
    """The message inside a record that is not decoded; WireError where it is no hex."""
    data = _part(record, "payload").get("data")
    text = Node(data).get("bytes") if isinstance(data, Mapping) else None
    if not isinstance(text, str):
        text = _part(record, "metadata").get("asn1")
    return unhex(text, "payload.data.bytes")


def unhex(text: Any, field: str) -> bytes:
    """Hexadecimal text as bytes."""
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise WireError("invalid-field", f"{field}: not hexadecimal") from error


def _data(record: Node, name: str) -> Node:
    """The message itself: `payload.data`, or in schema 9 `payload.data.value.SPAT`."""
    data = node(_part(record, "payload").get("data"), "payload.data")
    if "value" in data:
        value = node(data["value"], "payload.data.value")
        return node(value.get(name, value.get(f"{name}data", value)), f"payload.data.value.{name}")
    return data


# --- SPaT ---------------------------------------------------------------------------------------


def spat(record: Node) -> tuple[wire.Signals, ...]:
    """The intersections of a decoded SPaT record."""
    data = _data(record, "spat")
    minute = optional_integer(data, "timestamp", "timeStamp")
    found = data.get("intersectionstatelist", data.get("intersections"))
    states = items(found, "intersectionStateList")
    return tuple(_signals(node(each, "intersectionState"), minute) for each in states)


def _signals(state: Node, minute: int | None) -> wire.Signals:
    moy = optional_integer(state, "moy", "moy")
    name = state.get("name")
    return wire.Signals(
        _reference(state.get("id")),
        minute if moy is None else moy,
        optional_integer(state, "timestamp", "timeStamp"),
        tuple(
            wire.Movement(*_movement(node(each, "movement"), "statetimespeed", _mark))
            for each in items(state.get("states"), "states")
        ),
        name if isinstance(name, str) and name else None,
    )


def _reference(value: Any) -> str:
    reference = node(value, "id")
    return _key(optional_integer(reference, "region", "id.region"), reference.get("id"), "id.id")


def _key(region: int | None, number: Any, field: str) -> str:
    value = integer(number, field)
    if not 0 <= value <= 0xFFFF or (region is not None and region > 0xFFFF):  # noqa: PLR2004
        raise WireError("invalid-field", f"{field}: {value} is out of range")
    return wire.intersection_key(region if region is not None and region >= 0 else None, value)


def _movement(movement: Node, events: str, end: Any) -> tuple[int, str, int | None, int | None]:
    group = integer(movement.get("signalgroup"), "signalGroup")
    if not 0 <= group <= 255:  # noqa: PLR2004 - DE_SignalGroupID
        raise WireError("invalid-field", f"signalGroup: {group} is out of range")
    found = items(movement.get(events), f"signalGroup {group}: stateTimeSpeed")
    if not found:
        raise WireError("invalid-field", f"signalGroup {group}: stateTimeSpeed is empty")
    event = node(found[0], f"signalGroup {group}: event")
    timing = Node(event["timing"]) if isinstance(event.get("timing"), Mapping) else Node({})
    return (
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


def _mark(timing: Node, name: str, field: str) -> int | None:
    return optional_integer(timing, name, field)


def _absolute(timing: Node, name: str, field: str) -> int | None:
    value = timing.get(name)
    return None if value is None or value == "" else moment(value, field)


def processed_spat(record: Node) -> Processed:
    """A ProcessedSpat, whose ends are times of their own."""
    region = optional_integer(record, "region", "region")
    when = record.get("utctimestamp", record.get("odereceivedat"))
    name = record.get("name")
    return Processed(
        _key(region, record.get("intersectionid"), "intersectionId"),
        moment(when, "utcTimeStamp"),
        tuple(
            Event(*_movement(node(each, "states"), "statetimespeed", _absolute))
            for each in items(record["states"], "states")
        ),
        name if isinstance(name, str) and name else None,
    )


# --- MAP ----------------------------------------------------------------------------------------


def geometries(record: Node) -> tuple[wire.Geometry, ...]:
    """The intersections of a decoded MAP record."""
    data = _data(record, "map")
    found = data.get("intersections")
    if found is None:
        return ()
    return tuple(_geometry(node(each, "intersection")) for each in items(found, "intersections"))


def _geometry(item: Node) -> wire.Geometry:
    point = node(item.get("refpoint"), "refPoint")
    longitude = _degrees(point, "longitude", "long", 180.0)
    latitude = _degrees(point, "latitude", "lat", 90.0)
    width = optional_integer(item, "lanewidth", "laneWidth")
    sources = [node(each, "lane") for each in items(item.get("laneset"), "laneSet")]
    lanes = [_lane(each, width) for each in sources]
    nodes = {lane.id: _nodes(each) for lane, each in zip(lanes, sources, strict=True)}
    name = item.get("name")
    elevation = point.get("elevation")
    if "lat" in point and isinstance(elevation, int):
        elevation = None if elevation == -4096 else elevation / 10  # noqa: PLR2004 - unknown
    return wire.Geometry(
        _reference(item.get("id")),
        optional_integer(item, "revision", "revision"),
        longitude,
        latitude,
        name if isinstance(name, str) and name else None,
        elevation if isinstance(elevation, int | float) else None,
        wire.with_paths(lanes, nodes, longitude, latitude),
    )


def _degrees(point: Node, decimal: str, raw: str, limit: float) -> float:
    """Degrees, written as such (`latitude`) or in 1e-7 degrees (`lat`)."""
    value, scale = (point[decimal], 1.0) if decimal in point else (point.get(raw), 1e7)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("invalid-field", f"refPoint.{decimal}: {str(value)[:60]!r} is no number")
    degrees = value / scale
    if not -limit <= degrees <= limit:
        raise WireError("invalid-field", f"refPoint.{decimal}: {degrees} is out of range")
    return degrees


def _lane(lane: Node, width_cm: int | None) -> wire.Lane:
    attributes = _part(lane, "laneattributes")
    connections = [node(each, "connectsTo") for each in _listed(lane.get("connectsto"))]
    approach = optional_integer(lane, "ingressapproach", "ingressApproach")
    if approach is None:
        approach = optional_integer(lane, "egressapproach", "egressApproach")
    number = integer(lane.get("laneid"), "laneID")
    return wire.Lane(
        number,
        approach,
        _direction(attributes.get("directionaluse")),
        next(
            (str(k) for k, v in (attributes.get("lanetype") or {}).items() if v is not None),
            "vehicle",
        )
        if isinstance(attributes.get("lanetype"), Mapping)
        else "vehicle",
        width_cm,
        wire.signal_groups_of(
            optional_integer(each, "signalgroup", f"lane {number}: signalGroup")
            for each in connections
        ),
        tuple(
            integer(
                node(each.get("connectinglane"), f"lane {number}: connectingLane").get("lane"),
                f"lane {number}: connectingLane.lane",
            )
            for each in connections
        ),
    )


def _listed(value: Any) -> list[Any]:
    return [] if value is None else items(value, "connectsTo")


def _direction(value: Any) -> str:
    """Bits of LaneDirection: an object of flags, or hexadecimal as in JER (schema 9)."""
    if isinstance(value, Mapping):
        flags = Node(value)
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


def _nodes(lane: Node) -> list[wire.Node] | tuple[int, float, float] | None:
    content = _part(lane, "nodelist")
    if "nodes" not in content:
        return _computed(_part(content, "computed"))
    found: list[wire.Node] = []
    for each in items(content["nodes"], "nodeList.nodes"):
        delta = _part(node(each, "node"), "delta")
        chosen = next(iter(delta.items()), None)
        if chosen is None or not isinstance(chosen[1], Mapping):
            return None
        offset = Node(chosen[1])
        if chosen[0] == "nodelatlon":
            found.append(("at", _lat_lon(offset.get("lon")), _lat_lon(offset.get("lat"))))
        elif chosen[0].startswith("nodexy"):
            x, y = (integer(offset.get(axis), f"delta.{axis}") / 100 for axis in ("x", "y"))
            found.append(("xy", x, y))
        else:
            return None
    return found


def _lat_lon(value: Any) -> float:
    """Degrees, or 1e-7 degrees where it is too large to be degrees."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("invalid-field", f"delta.nodeLatLon: {str(value)[:60]!r} is no number")
    return value if abs(value) <= 180 else value / 1e7  # noqa: PLR2004 - degrees


def _computed(content: Node) -> tuple[int, float, float] | None:
    if not content or {"rotatexy", "scalexaxis", "scaleyaxis"} & set(content):
        return None
    return (
        integer(content.get("referencelaneid"), "computed.referenceLaneId"),
        _shift(content, "offsetxaxis"),
        _shift(content, "offsetyaxis"),
    )


def _shift(content: Node, axis: str) -> float:
    value = content.get(axis)
    if isinstance(value, Mapping):
        value = next((v for v in value.values() if v is not None), None)
    return integer(value, f"computed.{axis}") / 100


def cases(document: Mapping[str, Any]) -> Iterator[Any]:
    """The inputs of an ODE validation file: {"cases": [{"input": record or hex, ...}]}."""
    for case in document["cases"]:
        yield case.get("input") if isinstance(case, Mapping) else case
