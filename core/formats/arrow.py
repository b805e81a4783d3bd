"""Arrow IPC streams of observations: decoded column by column, with no Python object a row."""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.clock import to_iso
from core.formats.checks import TIME_MAX, TIME_MIN, property_fault, thing_fault, unit_fault
from core.remembered import STREAMS_MAX, Remembered
from core.sector import Context
from core.sensorthings import Decoded, Numbers, Rejected, Stream

ROWS_MAX = 500_000
# What the buffers may hold once decompressed: a stream of 8 MiB can claim to be of 8 TiB.
BYTES_MAX = 64 * 1024 * 1024
# A stream with more bad rows than this is one rejection: each bad row is kept as JSON.
REJECTED_MAX = 50_000
# Combined codes up to this many times the rows are renumbered by a table, beyond it by a hash.
_TABLE_FACTOR = 4

_CONTINUATION = 0xFFFFFFFF
_LENGTH_PREFIX_BYTES = 8

REQUIRED = ("thing", "property", "phenomenon_time", "result")
_COLUMNS = (*REQUIRED, "unit")


_Streams = tuple[tuple[Stream, ...], dict[int, tuple[str, str]]]


class StreamError(ValueError):
    """The stream as a whole cannot be read; `reason` is the rejection's slug."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class _Column(NamedTuple):
    """A text column as codes into distinct texts; code == len(texts): the row has none."""

    codes: NDArray[np.int64]
    texts: Sequence[str]


class _Dictionary(NamedTuple):
    """The distinct texts of a dictionary, and its codes as codes of these where they differ."""

    texts: Sequence[str]
    renumber: NDArray[np.int64] | None


class _Memory:
    """What a gateway's streams repeat: their dictionaries, and the Datastreams these name.

    `head`, the bytes before a stream's only batch of rows, holds all its dictionaries.
    """

    def __init__(self) -> None:
        self.dictionaries: Remembered[tuple[bytes, str], _Dictionary] = Remembered(STREAMS_MAX)
        self.streams: Remembered[Any, _Streams] = Remembered(STREAMS_MAX)


def encode(
    thing: Sequence[str],
    observed_property: Sequence[str],
    phenomenon_time: Sequence[int] | NDArray[np.int64],
    result: Sequence[float] | NDArray[np.float64],
    unit: Sequence[str | None] | None = None,
) -> bytes:
    """Columns -> IPC stream with dictionaries; times are µs since 1970 UTC, units UCUM."""
    columns = {
        "thing": pa.array(thing, pa.string()).dictionary_encode(),
        "property": pa.array(observed_property, pa.string()).dictionary_encode(),
        "phenomenon_time": pa.array(phenomenon_time, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "result": pa.array(result, pa.float64()),
    }
    if unit is not None:
        columns["unit"] = pa.array(unit, pa.string()).dictionary_encode()
    batch = pa.record_batch(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def decode(payload: bytes, context: Context) -> Decoded:
    """Rows of `thing`, `property`, `phenomenon_time`, `result` and optional `unit` -> numbers.

    A row with a null, a result that is not finite or an unusable name is a rejection of that row;
    a stream that cannot be read is one rejection naming the column or the fault.
    """
    try:
        head = check_size(payload)
        memory = context.memory.get("arrow")
        if memory is None:
            memory = context.memory["arrow"] = _Memory()
        return _decode(_table(payload), head, memory)
    except StreamError as error:
        rejected = Rejected(error.reason, str(error), payload)
    except (pa.ArrowException, ValueError, TypeError, OverflowError, OSError) as error:
        rejected = Rejected("invalid-arrow", f"not an Arrow IPC stream: {error}", payload)
    return Decoded(rejected=(rejected,), messages=1)


# --- how large the stream is, before anything is decompressed -------------------------------------


def check_size(payload: bytes) -> bytes | None:
    """StreamError where the rows or the decompressed bytes go over the limits.

    What comes before the rows, if these are one batch and no dictionary follows; else None.

    pyarrow allocates what a compressed buffer's prefix claims, and what a batch's header claims of
    rows; so both are read here from the IPC framing first (Arrow columnar format 1.5, IPC).
    """
    rows = size = position = 0
    head: bytes | None = None
    batches = 0
    while position + 8 <= len(payload):
        marker, length = struct.unpack_from("<Ii", payload, position)
        if marker != _CONTINUATION:  # before format 0.15 there was no marker; nobody sends it now
            raise StreamError("invalid-arrow", "not an Arrow IPC stream: no continuation marker")
        if length == 0:
            return head if batches == 1 else None
        header_start = position + 8
        body_start = header_start + length
        if length < 0 or body_start > len(payload):
            raise StreamError("truncated", "the stream ends inside a message header")
        header = _Header(payload, header_start, body_start)
        if batches or header.kind == _Header.RECORD_BATCH:  # nothing but one batch and the end
            head = payload[:position] if not batches else None
            batches += 1
        if body_start + header.body_length > len(payload):
            raise StreamError("truncated", "the stream ends inside a batch")
        rows += header.rows
        size += header.decompressed_bytes()
        if rows > ROWS_MAX:
            raise StreamError("too-large", f"rows: over {ROWS_MAX}")
        if size > BYTES_MAX:
            raise StreamError("too-large", f"over {BYTES_MAX} bytes once decompressed")
        position = body_start + header.body_length
    if position < len(payload):
        raise StreamError("truncated", "bytes after the last message")
    return head if batches == 1 else None


class _Header:
    """The few fields of a Message flatbuffer (Message.fbs, Schema.fbs) that say how large it is."""

    DICTIONARY_BATCH, RECORD_BATCH = 2, 3

    def __init__(self, payload: bytes, start: int, body_start: int) -> None:
        self._payload = payload
        self._end = body_start
        self.rows = 0
        self._buffers: list[tuple[int, int]] = []
        self._compressed = False
        message = start + self._int("<I", start)
        length = self._field(message, 3)
        self.body_length = self._int("<q", length) if length else 0
        kind = self._field(message, 1)
        table = self._field(message, 2)
        self.kind = self._int("<B", kind) if kind else 0
        if self.body_length < 0:
            raise StreamError("invalid-arrow", "a body of negative length")
        if table:
            self._read_batch(self.kind, self._follow(table))

    def _read_batch(self, kind: int, table: int) -> None:
        if kind == self.DICTIONARY_BATCH:
            data = self._field(table, 1)
            if not data:
                return
            table = self._follow(data)
        elif kind != self.RECORD_BATCH:
            return
        length, buffers = self._field(table, 0), self._field(table, 2)
        self.rows = max(self._int("<q", length), 0) if length else 0
        self._compressed = bool(self._field(table, 3))
        if not buffers:
            return
        vector = self._follow(buffers)
        for index in range(min(self._int("<I", vector), (self._end - vector) // 16)):
            self._buffers.append(struct.unpack_from("<qq", self._payload, vector + 4 + 16 * index))

    def decompressed_bytes(self) -> int:
        """What the buffers claim to hold; a compressed one says so in its first eight bytes."""
        total = 0
        for offset, length in self._buffers:
            at = self._end + offset
            claimed = length
            last = len(self._payload) - _LENGTH_PREFIX_BYTES
            if self._compressed and length >= _LENGTH_PREFIX_BYTES and 0 <= at <= last:
                (claimed,) = struct.unpack_from("<q", self._payload, at)
            total += max(claimed, length)
        return total

    def _int(self, form: str, at: int) -> int:
        if at < 0 or at + struct.calcsize(form) > self._end:
            raise StreamError("invalid-arrow", "an offset points outside its message")
        value: int = struct.unpack_from(form, self._payload, at)[0]
        return value

    def _follow(self, at: int) -> int:
        return at + self._int("<I", at)

    def _field(self, table: int, number: int) -> int:
        """Where field `number` of a flatbuffer table lies; 0: it is absent."""
        vtable = table - self._int("<i", table)
        slot = 4 + 2 * number
        if slot + 2 > self._int("<H", vtable):
            return 0
        offset = self._int("<H", vtable + slot)
        return table + offset if offset else 0


# --- from bytes to columns ------------------------------------------------------------------------


def _table(payload: bytes) -> Any:
    """The columns that we know, as one validated table with one chunk a column."""
    schema = pa.ipc.open_stream(payload).schema
    wanted = []
    for name in _COLUMNS:
        found = schema.get_all_field_indices(name)
        if len(found) > 1 or (not found and name in REQUIRED):
            raise StreamError("wrong-schema", f"{name}: {len(found)} columns of this name")
        if found:
            _check_type(name, schema.field(found[0]).type)
            wanted.extend(found)
    # Other columns are never built: they cost memory, and types of strangers are not our risk.
    options = pa.ipc.IpcReadOptions(included_fields=sorted(wanted), use_threads=False)
    table = pa.ipc.open_stream(payload, options=options).read_all()
    # The reader trusts offsets and dictionary codes; reading through a bad one would crash.
    table.validate(full=True)
    return table.combine_chunks() if table.num_rows else table


def _check_type(name: str, kind: Any) -> None:
    if name == "phenomenon_time":
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            raise StreamError("wrong-schema", f"{name}: {kind}, not timestamp[us, UTC]")
        return
    if name == "result":
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise StreamError("wrong-schema", f"{name}: {kind}, not float64")
        return
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(text) or pa.types.is_large_string(text)):
        raise StreamError("wrong-schema", f"{name}: {kind}, not utf8 or a dictionary of utf8")


def _decode(table: Any, head: bytes | None, memory: _Memory) -> Decoded:
    rows = table.num_rows
    if not rows:
        return Decoded()
    texts = [field.type for field in table.schema if field.name in ("thing", "property", "unit")]
    if not all(map(pa.types.is_dictionary, texts)):
        head = None  # its texts lie among the rows
    thing = _text(table, "thing", head, memory)
    observed_property = _text(table, "property", head, memory)
    unit = _text(table, "unit", head, memory) if "unit" in table.column_names else None
    time, time_good = _times(table.column("phenomenon_time"))
    result, result_good = _results(table.column("result"))
    code, pairs = _distinct(thing, observed_property, unit)
    names = (thing, observed_property, unit)
    key = (head or tuple(tuple(c.texts) if c else None for c in names), pairs.tobytes())
    known = memory.streams.get(key)
    if known is None:
        known = memory.streams.put(key, _streams(pairs, *names), len(pairs))
    streams, faults = known
    bad = ~(time_good & result_good)
    if faults:
        bad |= np.isin(code, np.fromiter(faults, np.int64))
    if not bad.any():
        return Decoded(
            streams=streams, numbers=Numbers(code.astype(np.int32), time, result), messages=rows
        )
    good = ~bad
    rejected = _rejections(table, np.flatnonzero(bad), code, faults, time_good, result_good)
    numbers = Numbers(code[good].astype(np.int32), time[good], result[good])
    used = np.unique(numbers.stream)
    renumber = np.zeros(len(streams), np.int32)
    renumber[used] = np.arange(len(used), dtype=np.int32)
    numbers = Numbers(renumber[numbers.stream], numbers.phenomenon_time, numbers.result)
    kept = tuple(streams[index] for index in used)
    return Decoded(
        streams=kept,
        numbers=numbers if len(used) else None,
        rejected=rejected,
        messages=rows,
    )


def _chunk(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _text(table: Any, name: str, head: bytes | None, memory: _Memory) -> _Column:
    array = _chunk(table.column(name))
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    values, indices = array.dictionary, array.indices
    codes = pc.fill_null(indices.cast(pa.int64()), len(values)).to_numpy(zero_copy_only=False)
    known = memory.dictionaries.get((head, name)) if head else None
    if known is None:
        known = _dictionary(values)
        if head:
            memory.dictionaries.put((head, name), known, len(values))
    return _Column(codes if known.renumber is None else known.renumber[codes], known.texts)


def _dictionary(values: Any) -> _Dictionary:
    unique = values.unique()
    texts: list[str | None] = unique.to_pylist()
    found = [text for text in texts if text is not None]
    if len(unique) == len(values) and not values.null_count:
        return _Dictionary(found, None)
    # A dictionary may repeat a value, or hold null as a value: both are codes of one text.
    number = {text: place for place, text in enumerate(found)}
    absent = len(number)
    renumber = [absent if text is None else number[text] for text in values.to_pylist()]
    return _Dictionary(found, np.array([*renumber, absent], np.int64))


def _times(column: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    array = _chunk(column)
    try:
        array = array.cast(pa.timestamp("us", "UTC"), safe=array.type.unit != "ns")
    except pa.ArrowInvalid as error:
        raise StreamError("wrong-schema", f"phenomenon_time: {error}") from error
    good = np.ones(len(array), np.bool_)
    if array.null_count:
        good = array.is_valid().to_numpy(zero_copy_only=False)
    times = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    if len(times) and (times.min() < TIME_MIN or times.max() > TIME_MAX):
        good = good & (times >= TIME_MIN) & (times <= TIME_MAX)
    return times, good


def _results(column: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    array = _chunk(column).cast(pa.float64(), safe=False)
    # A null becomes NaN here, and both are refused: a gap is not an observation.
    results = array.to_numpy(zero_copy_only=False)
    return results, np.isfinite(results)


def _distinct(
    thing: _Column, observed_property: _Column, unit: _Column | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(stream number a row, combined code a stream); stream numbers run without gaps."""
    properties = len(observed_property.texts) + 1
    combined = thing.codes * properties + observed_property.codes
    size = (len(thing.texts) + 1) * properties
    if unit is not None:
        combined = combined * (len(unit.texts) + 1) + unit.codes
        size *= len(unit.texts) + 1
    if size <= _TABLE_FACTOR * len(combined) + 65_536:
        used = np.zeros(size, np.bool_)
        used[combined] = True
        pairs = np.flatnonzero(used)
        number = np.cumsum(used, dtype=np.int64) - 1
        return number[combined], pairs
    hashed = pa.array(combined).dictionary_encode()
    return hashed.indices.to_numpy().astype(np.int64), hashed.dictionary.to_numpy()


def _streams(
    pairs: NDArray[np.int64], thing: _Column, observed_property: _Column, unit: _Column | None
) -> _Streams:
    """The distinct streams, and (reason, detail) of those whose names cannot be used."""
    units: list[str | None] = [None] if unit is None else [*unit.texts, None]
    things, properties = [*thing.texts, None], [*observed_property.texts, None]
    faulty = {
        "thing": [_fault("thing", text) for text in things],
        "property": [_fault("property", text) for text in properties],
        "unit": [None if text is None else _fault("unit", text) for text in units],
    }
    streams: list[Stream] = []
    faults: dict[int, tuple[str, str]] = {}
    for number, pair in enumerate(pairs.tolist()):
        rest, unit_code = divmod(pair, len(units))
        thing_code, property_code = divmod(rest, len(properties))
        fault = (
            faulty["thing"][thing_code]
            or faulty["property"][property_code]
            or faulty["unit"][unit_code]
        )
        if fault is not None:
            faults[number] = fault
        streams.append(
            Stream(things[thing_code] or "", properties[property_code] or "", units[unit_code])
        )
    return tuple(streams), faults


_CHECKS = {"thing": thing_fault, "property": property_fault, "unit": unit_fault}


def _fault(column: str, text: str | None) -> tuple[str, str] | None:
    if text is None:
        return f"missing-{column}", f"{column}: null"
    fault = _CHECKS[column](text)
    return None if fault is None else (f"invalid-{column}", f"{column}: {fault}")


# --- rows that cannot be stored -------------------------------------------------------------------


def _rejections(
    table: Any,
    rows: NDArray[np.int64],
    code: NDArray[np.int64],
    faults: Mapping[int, tuple[str, str]],
    time_good: NDArray[np.bool_],
    result_good: NDArray[np.bool_],
) -> tuple[Rejected, ...]:
    if len(rows) > REJECTED_MAX:
        raise StreamError("too-many-rejections", f"over {REJECTED_MAX} rows cannot be stored")
    times = table.column("phenomenon_time").cast(pa.int64(), safe=False)
    position = table.column_names.index("phenomenon_time")
    plain = table.set_column(position, "phenomenon_time", times).take(pa.array(rows))
    rejected = []
    for number, values in zip(rows.tolist(), plain.to_pylist(), strict=True):
        fault = faults.get(int(code[number]))
        if fault is None and not time_good[number]:
            fault = ("invalid-time", "phenomenon_time: null, or outside the years 1 to 9999")
        if fault is None and not result_good[number]:
            absent = values["result"] is None
            fault = (
                ("missing-result", "result: null")
                if absent
                else ("not-finite", "result: not a finite number")
            )
        reason, detail = fault or ("invalid-row", "row: cannot be stored")
        rejected.append(Rejected(reason, detail, _row_json(values), number, "json"))
    return tuple(rejected)


def _row_json(values: dict[str, Any]) -> bytes:
    """A row as the plain JSON format would write it, so that it can be mended and sent again."""
    moment = values["phenomenon_time"]
    if moment is not None and TIME_MIN <= moment <= TIME_MAX:
        values["phenomenon_time"] = to_iso(moment)
    result = values["result"]
    if isinstance(result, float) and not np.isfinite(result):
        values["result"] = str(result)
    return msgspec.json.encode({name: v for name, v in values.items() if v is not None})
