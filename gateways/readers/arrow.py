"""Arrow IPC files and streams: columns thing, property, phenomenon_time, result[, unit].

Rows stay columnar: a record is a stream of some rows, cut out of the recorded ones.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.errors import invalid
from gateways.batches import Limits, Record

LIMITS = Limits(messages_max=10_000, bytes_max=4 * 1024 * 1024)
TIME_COLUMN = "phenomenon_time"
FILE_MAGIC = b"ARROW1"
WRITE_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
"""A third of the bytes through outbox, network, broker and hashes, and as fast to decode."""


def join(payloads: Sequence[bytes]) -> bytes:
    """Streams are not joined: every batch holds one."""
    return b"".join(payloads)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """One record for at most LIMITS.messages_max rows; CityError `invalid` for no Arrow file."""
    delta_us: int | None = None if start_us is not None else 0
    for path in files:
        try:
            for batch in _record_batches(path):
                for begin in range(0, batch.num_rows, LIMITS.messages_max):
                    rows = batch.slice(begin, LIMITS.messages_max)
                    first_us = _first_time(rows)
                    if delta_us is None and start_us is not None and first_us is not None:
                        delta_us = start_us - first_us
                    yield _record(_moved(rows, delta_us or 0), first_us, delta_us or 0)
        except (pa.ArrowException, OSError) as error:
            raise invalid(str(path), f"is no Arrow IPC file or stream: {error}") from error


def _record_batches(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        is_file = file.read(len(FILE_MAGIC)) == FILE_MAGIC
    with pa.memory_map(str(path)) as source:
        if is_file:
            reader = pa.ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)
        else:
            yield from pa.ipc.open_stream(source)


def _record(rows: pa.RecordBatch, first_us: int | None, delta_us: int) -> Record:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=WRITE_OPTIONS) as writer:
        writer.write_batch(rows)
    payload = sink.getvalue().to_pybytes()
    time_us = None if first_us is None else first_us + delta_us
    return Record(payload, rows.num_rows, time_us, alone=True)


def _first_time(rows: pa.RecordBatch) -> int | None:
    if TIME_COLUMN not in rows.schema.names or not rows.num_rows:
        return None
    value = rows.column(TIME_COLUMN).cast(pa.timestamp("us", "UTC"))[0]
    return None if value.value is None else int(value.value)


def _moved(rows: pa.RecordBatch, delta_us: int) -> pa.RecordBatch:
    if not delta_us or TIME_COLUMN not in rows.schema.names:
        return rows
    index = rows.schema.get_field_index(TIME_COLUMN)
    column = rows.column(index).cast(pa.timestamp("us", "UTC"))
    moved = pa.compute.add(column, pa.scalar(np.timedelta64(delta_us, "us")))
    return rows.set_column(index, pa.field(TIME_COLUMN, moved.type), moved)
