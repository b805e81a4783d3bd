"""Plain JSON observations: one object, an array, or {"observations": [...]}; and their encoder."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from core.clock import parse_iso, to_iso
from core.formats.checks import (
    document_fault,
    position_of,
    property_fault,
    text_fault,
    thing_fault,
    time_fault,
    unit_fault,
)
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Position, Result


class Item(msgspec.Struct, kw_only=True):
    """One observation as the sender wrote it; `phenomenon_time` is ISO 8601 with a zone."""

    thing: str
    property: str
    result: Any
    phenomenon_time: str | None = None
    unit: str | None = None


class _Envelope(msgspec.Struct):
    observations: msgspec.Raw | UnsetType = UNSET


_ITEM = msgspec.json.Decoder(Item)
_ITEMS = msgspec.json.Decoder(list[Item])
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_FAILURES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ItemError(ValueError):
    """One observation cannot be read; `reason` is the rejection's slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def encode(observations: Sequence[Mapping[str, Any]]) -> bytes:
    """Observations with the keys thing, property, phenomenon_time (µs since 1970), result, unit."""
    return msgspec.json.encode(
        [{**one, "phenomenon_time": to_iso(one["phenomenon_time"])} for one in observations]
    )


def decode(payload: bytes, context: Context) -> Decoded:
    """Every item is one message; an item that cannot be read is a rejection naming its field."""
    builder = ObservationsBuilder()
    read(payload, context, builder)
    return builder.build()


def read(payload: bytes, context: Context, builder: ObservationsBuilder) -> None:
    """Decode into a builder, which may hold what other messages had."""
    try:
        items = _items(payload)
    except _FAILURES as error:
        builder.messages += 1
        builder.reject("invalid-json", f"not observations in JSON: {error}", payload)
        return
    builder.messages += len(items)
    for number, item in enumerate(items):
        try:
            _add(builder, _ITEM.decode(item) if isinstance(item, msgspec.Raw) else item, context)
        except ItemError as error:
            builder.reject(error.reason, str(error), _bytes(item), number)
        except _FAILURES as error:
            builder.reject("invalid-item", str(error), _bytes(item), number)


def _items(payload: bytes) -> Sequence[Item | msgspec.Raw]:
    """Typed items; where one of them does not fit, all of them raw, to be read one by one."""
    array = _array(payload)
    try:
        return _ITEMS.decode(array)
    except _FAILURES:
        return _RAW_ITEMS.decode(array)


def _array(payload: bytes) -> bytes:
    """The payload's observations as the bytes of a JSON array."""
    if not payload.lstrip().startswith(b"{"):
        return payload
    inner = _ENVELOPE.decode(payload).observations
    return b"[" + payload + b"]" if isinstance(inner, UnsetType) else bytes(inner)


def _bytes(item: Item | msgspec.Raw) -> bytes:
    return bytes(item) if isinstance(item, msgspec.Raw) else msgspec.json.encode(item)


def _add(builder: ObservationsBuilder, item: Item, context: Context) -> None:
    for name, fault in (
        ("thing", thing_fault(item.thing)),
        ("property", property_fault(item.property)),
        ("unit", None if item.unit is None else unit_fault(item.unit)),
    ):
        if fault is not None:
            raise ItemError(f"invalid-{name}", f"{name}: {fault}")
    moment = context.received_at if item.phenomenon_time is None else _time(item.phenomenon_time)
    builder.add(item.thing, item.property, moment, _result(item.result), item.unit)
    builder.hear(item.thing, moment)


def _time(text: str) -> int:
    try:
        moment = parse_iso(text)
    except (ValueError, OverflowError) as error:
        raise ItemError("invalid-time", f"phenomenon_time: {error}") from error
    fault = time_fault(moment)
    if fault is not None:
        raise ItemError("invalid-time", f"phenomenon_time: {fault}")
    return moment


def _result(value: Any) -> Result:
    if value is None:
        raise ItemError("invalid-result", "result: null is no result")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, str):
        return _text(value)
    position = position_of(value) if isinstance(value, dict) else None
    if isinstance(position, Position):
        return position
    fault = position or document_fault(value)
    if fault is not None:
        raise ItemError("invalid-result", f"result: {fault}")
    document: Result = value
    return document


def _number(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ItemError("not-finite", "result: not a finite number")
    return number


def _text(value: str) -> str:
    fault = text_fault(value)
    if fault is not None:
        raise ItemError("invalid-result", f"result: {fault}")
    return value
