"""SenML packs (RFC 8428) in JSON and CBOR: resolved, named in our words, and encoded."""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import cbor2
import msgspec
from msgspec import UNSET, UnsetType

from core.clock import MICROSECONDS
from core.formats.checks import position_fault, property_fault, text_fault, thing_fault
from core.formats.checks import time_fault as clock_fault
from core.formats.senml_units import UNITS, Meaning
from core.sector import Context
from core.sensorthings import Decoded, ObservationsBuilder, Position
from core.units import is_ucum

VERSION = 10  # RFC 8428, 4.1: bver of this standard
RELATIVE_SECONDS_MAX = 2**28  # RFC 8428, 4.5.3: a smaller time is relative to now
RECORDS_MAX = 500_000

# RFC 8428, 4.5.1: the characters of a resolved name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
# The last part of a name reads as a property when it is a word; a part with digits is an id.
_WORD = re.compile(r"[A-Za-z][A-Za-z._-]*")
_SEPARATORS = "/:.-_"


class Record(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One SenML record as it stands in a pack (RFC 8428, table 1); UNSET: the field is absent."""

    bn: str | UnsetType = UNSET
    bt: float | UnsetType = UNSET
    bu: str | UnsetType = UNSET
    bv: float | UnsetType = UNSET
    bs: float | UnsetType = UNSET
    bver: int | UnsetType = UNSET
    n: str | UnsetType = UNSET
    u: str | UnsetType = UNSET
    v: float | UnsetType = UNSET
    vs: str | UnsetType = UNSET
    vb: bool | UnsetType = UNSET
    vd: str | UnsetType = UNSET
    s: float | UnsetType = UNSET
    t: float | UnsetType = UNSET
    ut: float | UnsetType = UNSET


# RFC 8428, table 4: integer labels of the CBOR representation.
CBOR_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_CBOR_KEYS = {name: label for label, name in CBOR_LABELS.items()}
_BASE_FIELDS = frozenset({"bn", "bt", "bu", "bv", "bs", "bver"})
_VALUE_FIELDS = ("v", "vs", "vb", "vd")
_JSON_PACK = msgspec.json.Decoder(list[Record])
_JSON_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])

# Names that belong into a position when the same Thing reports one at the same time, and the
# factor from their SenML unit to m/s or degrees.
_SPEED = {"m/s": 1.0, "km/h": 1.0 / 3.6}
_COURSE = {"deg": 1.0, "rad": 180.0 / math.pi}
_MOTION: dict[str, tuple[str, dict[str, float]]] = {
    "speed": ("speed", _SPEED),
    "velocity": ("speed", _SPEED),
    "course": ("course", _COURSE),
    "heading": ("course", _COURSE),
}


class PackError(ValueError):
    """The pack as a whole cannot be read; `reason` is the rejection's slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RecordError(ValueError):
    """One record cannot be read; `reason` is the rejection's slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Item(NamedTuple):
    """A record of the pack, or the fault that kept it from being one, with its own bytes."""

    record: Record | None
    fault: str = ""
    payload: bytes = b""
    base: bool = False


class Resolved(NamedTuple):
    """A record with the base fields applied (RFC 8428, 4.6); time is seconds since 1970."""

    name: str
    thing: str
    property: str | None
    unit: str | None
    time_seconds: float
    record: Record
    value: float | None
    sum: float | None


def decode_json(payload: bytes, context: Context) -> Decoded:
    """A JSON pack (RFC 8428, 5). Never raises: what cannot be read becomes a rejection."""
    builder = ObservationsBuilder()
    read_json(payload, context, builder)
    return builder.build()


def decode_cbor(payload: bytes, context: Context) -> Decoded:
    """A CBOR pack (RFC 8428, 6). Never raises: what cannot be read becomes a rejection."""
    builder = ObservationsBuilder()
    read_cbor(payload, context, builder)
    return builder.build()


def read_json(payload: bytes, context: Context, builder: ObservationsBuilder) -> None:
    """Decode a JSON pack into a builder, which may hold what other packs had."""
    _read(payload, context, builder, _json_items, _json_pack)


def read_cbor(payload: bytes, context: Context, builder: ObservationsBuilder) -> None:
    """Decode a CBOR pack into a builder, which may hold what other packs had."""
    _read(payload, context, builder, _cbor_items, _cbor_pack)


def encode_json(records: Sequence[Record]) -> bytes:
    """A pack as JSON (RFC 8428, 5)."""
    return msgspec.json.encode(records)


def encode_cbor(records: Sequence[Record]) -> bytes:
    """A pack as CBOR with integer labels (RFC 8428, 6); `vd` becomes bytes."""
    return bytes(cbor2.dumps([_cbor_map(record) for record in records]))


def _cbor_map(record: Record) -> dict[int, Any]:
    fields = {_CBOR_KEYS[name]: value for name, value in _present(record).items()}
    if isinstance(record.vd, str):
        fields[_CBOR_KEYS["vd"]] = _base64_bytes(record.vd)
    return fields


def _present(record: Record) -> dict[str, Any]:
    return {
        name: value
        for name in record.__struct_fields__
        if (value := getattr(record, name)) is not UNSET
    }


def _base64_bytes(text: str) -> bytes:
    """URL-safe base64 without padding (RFC 8428, 5); ValueError where it is not."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _read(
    payload: bytes,
    context: Context,
    builder: ObservationsBuilder,
    parse: Callable[[bytes], list[Item]],
    join: Callable[[Record | None, Item], bytes],
) -> None:
    try:
        items = parse(payload)
        _check_pack(items)
    except PackError as error:
        builder.messages += 1
        builder.reject(error.reason, str(error), payload)
        return
    _Pack(builder, context.received_at, join).read(items)


# --- from bytes to records ------------------------------------------------------------------------


def _json_items(payload: bytes) -> list[Item]:
    # A typed decode is three times as fast as a careful one, so be careful only with packs that
    # fail it or that may hold a field ending in "_" (which the struct would skip).
    if b'_"' not in payload and b"\\u" not in payload:
        try:
            return [Item(record) for record in _JSON_PACK.decode(payload)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        raws = _JSON_ITEMS.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PackError("invalid-json", f"not a JSON array of SenML records: {error}") from error
    return [_json_item(bytes(raw)) for raw in raws]


def _json_item(raw: bytes) -> Item:
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Item(None, f"record: {error}", raw, base=True)
    return _item(fields, raw)


def _item(fields: Any, raw: bytes) -> Item:
    """A record from its fields by name; PackError for a field that has to be understood."""
    if not isinstance(fields, dict):
        return Item(None, "record: not an object", raw)
    for name in fields:
        # RFC 8428, 4.4: not understood means that the pack cannot be processed.
        if isinstance(name, str) and name.endswith("_"):
            raise PackError(
                "must-understand", f"{name}: a field that must be understood, and is not"
            )
    try:
        return Item(msgspec.convert(fields, Record), payload=raw)
    except (msgspec.ValidationError, OverflowError) as error:
        # A base field that cannot be read would silently change the meaning of what follows.
        return Item(None, f"record: {error}", raw, base=not _BASE_FIELDS.isdisjoint(fields))


def _json_pack(said: Record | None, item: Item) -> bytes:
    own = item.payload or msgspec.json.encode(item.record)
    return b"[" + (msgspec.json.encode(said) + b"," if said is not None else b"") + own + b"]"


def _cbor_pack(said: Record | None, item: Item) -> bytes:
    if said is None:
        return b"\x81" + item.payload
    return b"\x82" + bytes(cbor2.dumps(_cbor_map(said))) + item.payload


def _cbor_items(payload: bytes) -> list[Item]:
    stream = io.BytesIO(payload)
    try:
        pack = cbor2.CBORDecoder(stream).decode()
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise PackError("invalid-cbor", f"not CBOR: {error}") from error
    if not isinstance(pack, list):
        raise PackError("invalid-cbor", "not a CBOR array of SenML records")
    if stream.tell() != len(payload):
        # A second pack would be lost without a word.
        raise PackError("invalid-cbor", "more bytes after the pack")
    return [_cbor_item(entry, payload) for entry in pack]


def _cbor_item(entry: Any, payload: bytes) -> Item:
    try:
        raw = bytes(cbor2.dumps(entry))
    except (cbor2.CBOREncodeError, ValueError, OverflowError, RecursionError, TypeError):
        raw = payload
    if not isinstance(entry, Mapping):
        return Item(None, "record: not a map", raw)
    return _item({_field(key): _plain(value) for key, value in entry.items()}, raw)


def _field(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, int | str):
        return "?"
    return CBOR_LABELS.get(key, "?") if isinstance(key, int) else key


def _plain(value: Any) -> Any:
    """CBOR values as the JSON form has them: bytes as base64url, decimal fractions as floats."""
    if isinstance(value, bytes):
        return base64.urlsafe_b64encode(value).decode().rstrip("=")
    if isinstance(value, Decimal):
        return float(value)
    return value


def _check_pack(items: list[Item]) -> None:
    if len(items) > RECORDS_MAX:
        raise PackError("too-many-records", f"the pack has over {RECORDS_MAX} records")
    for item in items:
        if item.record is not None and item.record.bver is not UNSET:
            version = item.record.bver
            if not 1 <= version <= VERSION:
                raise PackError("unknown-version", f"bver: {version} is over {VERSION}, or under 1")


# --- from records to observations -----------------------------------------------------------------


class _Pack:
    """Resolution of one pack: the base fields so far, and parts of positions by Thing and time."""

    def __init__(
        self,
        builder: ObservationsBuilder,
        received_at: int,
        join: Callable[[Record | None, Item], bytes],
    ) -> None:
        self.builder = builder
        self.received_at = received_at
        self.join = join
        self.name = ""
        self.time = self.value = self.sum = 0.0
        self.unit: str | None = None
        self.broken = ""
        self.names: dict[tuple[str, str], tuple[str, str | None]] = {}
        self.parts: dict[tuple[str, int], dict[str, Part]] = {}

    def read(self, items: list[Item]) -> None:
        """Add every record's observation or rejection to the builder."""
        for number, item in enumerate(items):
            if item.record is None:
                self.broken = self.broken or (item.fault if item.base else "")
                self._reject("invalid-record", item.fault, item, number)
            elif self.broken:
                detail = f"an earlier record's base fields cannot be read ({self.broken})"
                self._reject("base-unknown", detail, item, number)
            else:
                self._take(item, item.record, number)
        self._pair_positions()

    def _take(self, item: Item, record: Record, number: int) -> None:
        self._apply_base(record)
        # Looking at every field is slow: only a record without a number may be base fields alone.
        if record.v is UNSET and _present(record).keys() <= _BASE_FIELDS:
            return
        try:
            resolved = self._resolve(record)
            self._add(resolved, number)
        except RecordError as error:
            self._reject(error.reason, str(error), item, number)
            return
        self.builder.messages += 1

    def _reject(self, reason: str, detail: str, item: Item, number: int) -> None:
        """Keep a record as a pack of its own, under what the pack said before it."""
        self.builder.messages += 1
        if self.broken or reason == "duplicate-part":  # alone it would say something else
            self.builder.reject(reason, detail, self.join(None, item), number, None)
            return
        said = Record(
            bn=self.name or UNSET, bt=self.time or UNSET, bu=self.unit or UNSET,
            bv=self.value or UNSET, bs=self.sum or UNSET,
        )  # fmt: skip
        payload = self.join(said if _present(said) else None, item)
        self.builder.reject(reason, detail, payload, number)

    def _apply_base(self, record: Record) -> None:
        self.name = self.name if record.bn is UNSET else record.bn
        self.time = self.time if record.bt is UNSET else record.bt
        self.unit = self.unit if record.bu is UNSET else record.bu
        self.value = self.value if record.bv is UNSET else record.bv
        self.sum = self.sum if record.bs is UNSET else record.bs

    def _resolve(self, record: Record) -> Resolved:
        own = "" if record.n is UNSET else record.n
        thing, observed_property = self._names(self.name, own)
        given = [name for name in _VALUE_FIELDS if getattr(record, name) is not UNSET]
        if len(given) > 1:
            raise RecordError("several-values", f"{', '.join(given)}: more than one value")
        if not given and record.s is UNSET:
            raise RecordError("missing-value", "v: no value field (v, vs, vb, vd) and no sum")
        return Resolved(
            self.name + own,
            thing,
            observed_property,
            self.unit if record.u is UNSET else record.u,
            self.time + (0.0 if record.t is UNSET else record.t),
            record,
            None if record.v is UNSET else record.v + self.value,
            None if record.s is UNSET else record.s + self.sum,
        )

    def _names(self, base: str, own: str) -> tuple[str, str | None]:
        known = self.names.get((base, own))
        if known is None:
            if not _NAME.fullmatch(base + own):
                raise RecordError(
                    "invalid-name", "n: a name is letters, digits and -:./_ and starts with one"
                )
            known = self.names[base, own] = split_name(base, own)
            fault = thing_fault(known[0]) or (property_fault(known[1]) if known[1] else None)
            if fault is not None:
                del self.names[base, own]
                raise RecordError("invalid-name", f"n: {fault}")
        return known

    def _add(self, resolved: Resolved, number: int) -> None:
        moment = self._moment(resolved.time_seconds)
        unit, usual_property = _unit(resolved.unit)
        observed_property = resolved.property or usual_property
        self.builder.hear(resolved.thing, moment)
        if resolved.value is not None:
            _check_finite("v", resolved.value)
            part = _part_of(resolved.unit, observed_property)
            if part is None:
                self.builder.add(resolved.thing, observed_property, moment, resolved.value, unit)
            else:
                name, factor = part
                pending = Part(
                    name, resolved.value, factor, observed_property, unit, resolved.record, number
                )
                self._pend(resolved.thing, moment, pending)
        elif resolved.record.vb is not UNSET:
            self.builder.add(resolved.thing, observed_property, moment, resolved.record.vb)
        elif resolved.record.vs is not UNSET:
            fault = text_fault(resolved.record.vs)
            if fault is not None:
                raise RecordError("invalid-result", f"vs: {fault}")
            self.builder.add(resolved.thing, observed_property, moment, resolved.record.vs)
        elif resolved.record.vd is not UNSET:
            data = _data(resolved.record.vd)
            self.builder.add(resolved.thing, observed_property, moment, data)
        if resolved.sum is not None:
            _check_finite("s", resolved.sum)
            total = None if unit is None else ("s" if unit == "1" else f"{unit}.s")
            self.builder.add(
                resolved.thing, f"{observed_property}-sum", moment, resolved.sum, total
            )

    def _moment(self, seconds: float) -> int:
        _check_finite("t", seconds)
        moment = round(seconds * MICROSECONDS)
        if seconds < RELATIVE_SECONDS_MAX:
            moment += self.received_at
        fault = clock_fault(moment)
        if fault is not None:
            raise RecordError("invalid-time", f"t: {fault}")
        return moment

    def _pend(self, thing: str, moment: int, part: "Part") -> None:
        parts = self.parts.setdefault((thing, moment), {})
        if part.name in parts:
            raise RecordError("duplicate-part", f"{part.name}: twice for one Thing and time")
        parts[part.name] = part

    def _pair_positions(self) -> None:
        """Longitude and latitude of one Thing and time are one position, with speed and course."""
        for (thing, moment), parts in self.parts.items():
            if {"longitude", "latitude"} <= parts.keys():
                self._add_position(thing, moment, parts)
                continue
            for part in parts.values():
                self.builder.add(thing, part.property, moment, part.value, part.unit)

    def _add_position(self, thing: str, moment: int, parts: "dict[str, Part]") -> None:
        values = {name: part.value * part.factor for name, part in parts.items()}
        fault = position_fault(**values)
        if fault is None:
            self.builder.add(thing, "position", moment, Position(**values))
            return
        payload = msgspec.json.encode([part.record for part in parts.values()])
        number = min(part.number for part in parts.values())
        self.builder.reject("invalid-position", f"v: {fault}", payload, number, None)


class Part(NamedTuple):
    """A number that may be part of a position: `factor` brings it to degrees or m/s."""

    name: str
    value: float
    factor: float
    property: str
    unit: str | None
    record: Record
    number: int


def _part_of(senml_unit: str | None, observed_property: str) -> tuple[str, float] | None:
    if senml_unit in ("lon", "lat"):
        return ("longitude" if senml_unit == "lon" else "latitude"), 1.0
    name, factors = _MOTION.get(observed_property, ("", {}))
    factor = factors.get(senml_unit or "")
    return None if factor is None else (name, factor)


def split_name(base: str, own: str) -> tuple[str, str | None]:
    """(Thing, property or None) from a base name and a record's own name.

    The base name without its trailing separator is the Thing, the record's own name the property.
    A name that is all in one (a resolved record, RFC 8428, 4.6) is split before its last word;
    where the last part is no word it is an id, and the unit has to name the property. Slashes
    inside a Thing become colons: in a URL they would be path levels.
    """
    thing = base.rstrip(_SEPARATORS)
    if not (thing and own):
        head, word = _last_word(base + own, "/:")
        return _thing(head or base + own), (word if head else None)
    head, word = _last_word(own, "/")
    return (_thing(f"{thing}:{head}"), word) if head else (_thing(thing), own)


def _last_word(name: str, separators: str) -> tuple[str, str]:
    cut = max(name.rfind(separator) for separator in separators)
    head, word = name[: max(cut, 0)].rstrip(_SEPARATORS), name[cut + 1 :]
    return (head, word) if head and _WORD.fullmatch(word) else ("", name)


def _thing(name: str) -> str:
    return name.rstrip(_SEPARATORS).replace("/", ":")


def _unit(senml_unit: str | None) -> tuple[str | None, str]:
    """(UCUM unit, usual property) of a SenML unit; a UCUM unit that is not SenML's passes too."""
    if senml_unit is None:
        return None, "value"
    meaning = UNITS.get(senml_unit)
    if meaning is None and is_ucum(senml_unit):
        meaning = Meaning(senml_unit)
    if meaning is None:
        raise RecordError("unknown-unit", f"u: {senml_unit!r} is neither a SenML nor a UCUM unit")
    return meaning


def _data(text: str) -> dict[str, str]:
    try:
        _base64_bytes(text)
    except ValueError as error:
        raise RecordError("invalid-result", f"vd: not base64url ({error})") from error
    return {"data": text}


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise RecordError("not-finite", f"{name}: not a finite number (RFC 8428, 4.3)")
