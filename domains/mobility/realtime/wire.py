"""GTFS-Realtime 2.0: bytes to entities, each by itself, and back; protobuf's JSON form too. Pure.

A message is read whole where it can be. Where it cannot, each entity is cut out and read alone, so
that one that is broken does not take the others with it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.transit import gtfs_realtime_pb2 as pb

ENTITIES_MAX = 100_000
"""A nation's buses are 60,000."""
HEADER, ENTITY = 1, 2
"""Fields of a FeedMessage."""
_LENGTHS = {1: 8, 5: 4}
"""Bytes of the wire types that have a fixed length (Protocol Buffers, encoding)."""
_JSON_FAULTS = (json_format.Error, ValueError, TypeError, AttributeError, KeyError, OverflowError,
                RecursionError)  # fmt: skip


class WireError(ValueError):
    """What cannot be read: `reason` is a slug, the message names the field and the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Broken:
    """An entity that is none, with its bytes, or its JSON."""

    error: WireError
    raw: Any


@dataclass(frozen=True, slots=True)
class Feed:
    """One FeedMessage: entities are taken in their order, each once."""

    header: pb.FeedHeader
    entities: Iterator[pb.FeedEntity | Broken]


def read_protobuf(payload: bytes) -> Feed:
    """A FeedMessage; WireError for what is none."""
    try:
        message = pb.FeedMessage.FromString(payload)
    except DecodeError:
        return _read_apart(payload)
    if not message.HasField("header"):
        raise WireError("invalid-message", "header: is missing")
    _bound(len(message.entity))
    return Feed(message.header, iter(message.entity))


def _read_apart(payload: bytes) -> Feed:
    header: pb.FeedHeader | None = None
    parts: list[bytes] = []
    cut: WireError | None = None
    try:
        for number, part in _fields(payload):
            if number == HEADER and header is None:
                header = pb.FeedHeader.FromString(part)
            elif number == ENTITY:
                parts.append(part)
                _bound(len(parts))
    except DecodeError as error:
        raise WireError("invalid-message", f"header: {error}") from error
    except _Cut as error:
        cut = WireError("invalid-message", str(error))
    if header is None:
        raise WireError("invalid-message", "not a FeedMessage of GTFS-Realtime")
    return Feed(header, _entities(parts, cut))


def _entities(parts: list[bytes], cut: WireError | None) -> Iterator[pb.FeedEntity | Broken]:
    for part in parts:
        try:
            yield pb.FeedEntity.FromString(part)
        except DecodeError as error:
            yield Broken(WireError("invalid-entity", f"entity: {error}"), part)
    if cut is not None:
        yield Broken(cut, b"")


class _Cut(ValueError):
    """The bytes end, or go on as no message can."""


def _fields(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that have a length, with their bytes; _Cut where it breaks off."""
    at, end = 0, len(payload)
    while at < end:
        start = at
        key, at = _varint(payload, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = _varint(payload, at)
            continue
        size = _LENGTHS.get(kind)
        if kind == 2:  # noqa: PLR2004 - LEN
            size, at = _varint(payload, at)
        if size is None or at + size > end:
            raise _Cut(f"the message breaks off at byte {start}")
        if kind == 2:  # noqa: PLR2004
            yield number, payload[at : at + size]
        at += size


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(payload):
            break
        octet = payload[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:  # noqa: PLR2004
            return value, at
    raise _Cut(f"the message breaks off at byte {at}")


def read_json(payload: bytes) -> Feed:
    """A FeedMessage in protobuf's JSON form (names in lowerCamelCase or as in the .proto file)."""
    try:
        read = orjson.loads(payload)
    except ValueError as error:
        raise WireError("invalid-json", f"not JSON: {error}") from error
    if not isinstance(read, dict) or not isinstance(read.get("header"), dict):
        raise WireError("invalid-message", "header: is missing")
    entities = read.get("entity", [])
    if not isinstance(entities, list):
        raise WireError("invalid-message", "entity: is no array")
    _bound(len(entities))
    try:
        header = json_format.ParseDict(read["header"], pb.FeedHeader(), ignore_unknown_fields=True)
    except _JSON_FAULTS as error:
        raise WireError("invalid-message", f"header: {error}") from error
    return Feed(header, map(_parsed, entities))


def _parsed(entity: Any) -> pb.FeedEntity | Broken:
    try:
        parsed: pb.FeedEntity = json_format.ParseDict(
            entity, pb.FeedEntity(), ignore_unknown_fields=True
        )
    except _JSON_FAULTS as error:
        name = entity.get("id") if isinstance(entity, dict) else None
        return Broken(WireError("invalid-entity", f"entity {str(name)[:200]!r}: {error}"), entity)
    return parsed


def _bound(count: int) -> None:
    if count > ENTITIES_MAX:
        raise WireError("too-many-entities", f"entity: a message has at most {ENTITIES_MAX}")


READERS: dict[str, Callable[[bytes], Feed]] = {
    "gtfs-rt": read_protobuf,
    "gtfs-rt-json": read_json,
}


def alone(format: str, header: pb.FeedHeader, entity: Any) -> bytes:
    """A message of this one entity, which may be broken: what is kept of it to be mended."""
    # Only what says when: a header may be as long as a message.
    short = pb.FeedHeader(gtfs_realtime_version="2.0", timestamp=header.timestamp)
    if format == "gtfs-rt-json":
        told = to_json(entity) if isinstance(entity, Message) else entity
        return orjson.dumps({"header": to_json(short), "entity": [told]}, default=repr)
    raw = entity.SerializePartialToString() if isinstance(entity, Message) else bytes(entity)
    head: bytes = pb.FeedMessage(header=short).SerializePartialToString()
    return head + bytes([ENTITY << 3 | 2]) + _as_varint(len(raw)) + raw


def _as_varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:  # noqa: PLR2004
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


# --- JSON form ------------------------------------------------------------------------------------

_Convert = Callable[[Any], Any]
_names: dict[FieldDescriptor, tuple[str, _Convert | None]] = {}


def to_json(message: Message) -> dict[str, Any]:
    """What `json_format.MessageToDict` gives, five times as fast.

    UnicodeDecodeError for a text that is not UTF-8: upb hands over its bytes.
    """
    told: dict[str, Any] = {}
    for field, value in message.ListFields():
        known = _names.get(field)
        if known is None:
            known = _names[field] = (field.json_name, _converter(field))
        name, convert = known
        told[name] = value if convert is None else convert(value)
    return told


def _converter(field: FieldDescriptor) -> _Convert | None:
    one = _of_type(field)
    if not field.is_repeated:
        return one
    return list if one is None else lambda values: [one(value) for value in values]


def _of_type(field: FieldDescriptor) -> _Convert | None:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda value: names.get(value, value)
    if field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64):
        return str
    return _text if field.type == FieldDescriptor.TYPE_STRING else None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


def from_json(told: dict[str, Any], message: Message) -> Message:
    """The message with what its JSON form says; WireError where that is none."""
    try:
        return json_format.ParseDict(told, message, ignore_unknown_fields=True)
    except _JSON_FAULTS as error:
        raise WireError("invalid-json", str(error)) from error
