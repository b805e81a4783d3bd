"""Column sets on their way to COPY: a shape for each kind of result, packed as binary rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection, sql

Session = Connection[tuple[Any, ...]]

POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01 in µs since 1970
COPY_HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_TRAILER = b"\xff\xff"
COPY = "COPY {table} ({columns}) FROM STDIN (FORMAT binary)"
TIME = "time"
ARRAY_HEADER_BYTES = 20
JSONB_VERSION = b"\x01"
PACKED_ROWS_MAX = 8_192
"""Rows packed at a time: half a megabyte that stays in the cache is filled 30 times faster than
fresh memory for all of an append."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One observation table: its name and the columns that hold the result."""

    table: str
    results: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, in the order of the packed rows."""
        return ("phenomenon_time", *self.results, "append_id", "datastream_id", "quality")


NUMBER = Shape("observation", ("result",))
POSITION = Shape("observation_position", ("longitude", "latitude", "speed", "course"))
DOCUMENT = Shape("observation_document", ("result",))
SHAPES = (NUMBER, POSITION, DOCUMENT)


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows of one shape, sorted by (datastream, time).

    `results` holds float64 columns, or for documents one list of canonical JSON. `message` is the
    index of the message, in its append, that each row came with.
    """

    shape: Shape
    datastream: NDArray[np.int32]
    time: NDArray[np.int64]
    quality: NDArray[np.int16]
    message: NDArray[np.int32]
    results: tuple[NDArray[np.float64], ...] = ()
    documents: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, object))

    def __len__(self) -> int:
        return len(self.time)

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> "Rows":
        """The rows at a mask or at indices."""
        return Rows(
            self.shape,
            self.datastream[chosen],
            self.time[chosen],
            self.quality[chosen],
            self.message[chosen],
            tuple(column[chosen] for column in self.results),
            self.documents[chosen] if len(self.documents) else self.documents,
        )

    def sorted(self) -> "Rows":
        """By datastream, then time, then arrival: direct compression and BRIN both live on it."""
        step = np.diff(self.datastream)
        if bool(np.all((step > 0) | ((step == 0) & (np.diff(self.time) >= 0)))):
            return self
        return self.take(np.lexsort((self.time, self.datastream)))

    def key_at(self, position: int) -> Any:
        """One row's result as a key of a dict: equal results are equal keys, NaN included."""
        if self.shape is DOCUMENT:
            return self.documents[position]
        return tuple((column[position] + 0.0).tobytes() for column in self.results)

    def value_at(self, position: int) -> Any:
        """One row's result as a JSON value."""
        if self.shape is DOCUMENT:
            return self.documents[position].decode()
        values = [float(column[position]) for column in self.results]
        return values[0] if len(values) == 1 else values

    def pack(self, append_id: int, *, with_message: bool = False) -> bytes:
        """The rows as COPY BINARY, `message` last where asked for."""
        return b"".join(map(bytes, self.packed(append_id, with_message=with_message)))

    def packed(self, append_id: int, *, with_message: bool = False) -> Iterator[memoryview | bytes]:
        """`pack` piece by piece; a piece is overwritten by the next."""
        if self.shape is DOCUMENT:
            yield _pack_documents(self, append_id, with_message=with_message)
            return
        yield COPY_HEADER
        yield from _pack_fixed(self, append_id, with_message=with_message)
        yield COPY_TRAILER


def resized(array: NDArray[Any], size: int, fill: Any = 0) -> NDArray[Any]:
    """The array with `size` elements, the new ones `fill`."""
    grown = np.full(size, fill, array.dtype) if fill else np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown


def concatenate(shape: Shape, parts: Sequence[Rows]) -> Rows:
    """One Rows of many."""
    return Rows(
        shape,
        np.concatenate([p.datastream for p in parts]),
        np.concatenate([p.time for p in parts]),
        np.concatenate([p.quality for p in parts]),
        np.concatenate([p.message for p in parts]),
        tuple(
            np.concatenate([p.results[i] for p in parts])
            for i in range(0 if shape is DOCUMENT else len(shape.results))
        ),
        np.concatenate([p.documents for p in parts]) if shape is DOCUMENT else np.empty(0, object),
    )


def _pack_fixed(rows: Rows, append_id: int, *, with_message: bool) -> Iterator[memoryview]:
    columns: list[tuple[str, NDArray[np.generic] | int]] = [
        (TIME, rows.time),
        *((">f8", column) for column in rows.results),
        (">i8", append_id),
        (">i4", rows.datastream),
        (">i2", rows.quality),
    ]
    if with_message:
        columns.append((">i4", rows.message))
    return pack_columns(len(rows), columns)


def pack_columns(
    count: int, columns: Sequence[tuple[str, NDArray[np.generic] | int]]
) -> Iterator[memoryview]:
    """Columns, or one number for all rows, as rows of COPY BINARY without header and trailer.

    Each has its numpy type, or TIME: µs since 1970. Every field has one width, so a packed row is
    a numpy record: 0.003 µs a row. A piece is overwritten by the next.
    """
    layout = [("fields", ">i2")]
    for index, (width, _) in enumerate(columns):
        layout += [(f"length{index}", ">i4"), (f"value{index}", _width(width))]
    constant = np.zeros((), np.dtype(layout))
    constant["fields"] = len(columns)
    for index, (width, values) in enumerate(columns):
        constant[f"length{index}"] = np.dtype(_width(width)).itemsize
        if isinstance(values, int):
            constant[f"value{index}"] = values
    records = np.full(min(count, PACKED_ROWS_MAX), constant)  # what is the same in all rows
    octets = records.view(np.uint8).data
    for begin in range(0, count, PACKED_ROWS_MAX):
        packed = records[: count - begin]
        chosen = slice(begin, begin + len(packed))
        for index, (width, values) in enumerate(columns):
            if isinstance(values, int):
                continue
            if width == TIME:
                np.subtract(values[chosen], POSTGRES_EPOCH_US, out=packed[f"value{index}"])
            else:
                packed[f"value{index}"] = values[chosen]
        yield octets[: packed.nbytes]


def _width(kind: str) -> str:
    return ">i8" if kind == TIME else kind


def copy_in(
    connection: Session,
    table: sql.Composable,
    columns: Sequence[str],
    packed: Iterable[memoryview | bytes],
) -> int:
    """COPY packed rows, header and trailer included, into a table; how many it took."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL(COPY).format(table=table, columns=names)) as copy:
            for part in packed:
                copy.write(part)
        return cursor.rowcount


def fetch_arrays(
    connection: Session, query: str, parameters: Mapping[str, Any], kinds: Sequence[str]
) -> list[NDArray[Any]] | None:
    """One row of `array_agg`s without nulls as numpy columns of these types; None: no row.

    No Python object a row; bounded by what the query aggregates.
    """
    with connection.cursor(binary=True) as cursor:
        cursor.execute(query.encode(), parameters)
        result = cursor.pgresult
        found = [result.get_value(0, index) for index in range(len(kinds))] if result else []
    if not found or found[0] is None:
        return None
    return [_array(octets or b"", kind) for octets, kind in zip(found, kinds, strict=True)]


def _array(octets: bytes, kind: str) -> NDArray[Any]:
    """A PostgreSQL array of one dimension in binary (array_send): a header, then its elements."""
    element = np.dtype([("length", ">i4"), ("value", kind)])
    return np.frombuffer(octets, element, offset=ARRAY_HEADER_BYTES)["value"]


def _pack_documents(rows: Rows, append_id: int, *, with_message: bool) -> bytes:
    def number(value: int, width: int) -> bytes:
        return width.to_bytes(4) + value.to_bytes(width, signed=True)

    count = (6 if with_message else 5).to_bytes(2)
    append = number(append_id, 8)
    parts = [COPY_HEADER]
    for i, document in enumerate(rows.documents):
        body = JSONB_VERSION + document
        parts += (
            count,
            number(int(rows.time[i]) - POSTGRES_EPOCH_US, 8),
            len(body).to_bytes(4) + body,
            append,
            number(int(rows.datastream[i]), 4),
            number(int(rows.quality[i]), 2),
        )
        if with_message:
            parts.append(number(int(rows.message[i]), 4))
    return b"".join([*parts, COPY_TRAILER])
