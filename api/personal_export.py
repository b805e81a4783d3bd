"""A recipient's export of personal observations: chunk by chunk, whole only with its trailer.

Each chunk is decided, recorded and leased when it is its turn: what is taken back while an export
runs is missing from the next chunk on. The trailer names the disclosures that it was made of.
"""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.fields import KnownSector, parse_moment
from api.live import Hub, expired
from api.observations import From, To
from api.personal import Asked, Code, Person, RowOperation, asked
from api.personal_handover import Part, Streamed, leased
from api.personal_stream import STREAMS_MAX
from consent import door
from consent.personal import Chunk, span_of
from consent.results import Row
from consent.vocabulary import Operation
from core.errors import CityError

CHUNK_ROWS = 10_000
EXPORT_SECONDS_MAX = 3600.0

COLUMNS = pa.schema(
    [
        ("persons", pa.list_(pa.string())),
        ("thing", pa.string()),
        ("property", pa.string()),
        ("unit", pa.string()),
        ("phenomenon_time", pa.timestamp("us", tz="UTC")),
        ("number", pa.float64()),
        ("value", pa.string()),  # JSON, of a result that is no number
        ("quality", pa.int32()),
        ("resolution", pa.string()),
    ]
)
DISCLOSURES = "disclosures"

router = APIRouter(tags=["personal data"])


class Format(StrEnum):
    """How an export is written."""

    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"


class Writer(Protocol):
    """One export: a chunk is `prepared` before its lease, and `written` under it."""

    media_type: str

    def prepared(self, rows: list[Row]) -> Any:
        """What takes long; it may be thrown away."""

    def written(self, prepared: Any) -> bytes:
        """All bytes of the chunk: none of them may come with a later one."""

    def trailer(self, disclosures: Sequence[str]) -> bytes:
        """The end, which tells no value of any row."""


class Jsonl:
    """A line a row; the last line has `disclosures` alone."""

    media_type = "application/jsonl"

    def prepared(self, rows: list[Row]) -> bytes:
        return b"".join(door.encode(row) + b"\n" for row in rows)

    def written(self, prepared: bytes) -> bytes:
        return prepared

    def trailer(self, disclosures: Sequence[str]) -> bytes:
        return door.encode({DISCLOSURES: disclosures}) + b"\n"


class Csv:
    """RFC 4180 with a header; the last line is `#disclosures,` and their ids."""

    media_type = "text/csv; charset=utf-8"

    def __init__(self) -> None:
        self._head = self._lines([COLUMNS.names])

    def prepared(self, rows: list[Row]) -> bytes:
        return self._lines(
            (" ".join(row["persons"]), row["thing"], row["property"], row["unit"],
             _time(row), *_result(row), row["quality"], row["resolution"])
            for row in rows
        )  # fmt: skip

    def written(self, prepared: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + prepared

    def trailer(self, disclosures: Sequence[str]) -> bytes:
        return self._lines([[f"#{DISCLOSURES}", *disclosures]])

    @staticmethod
    def _lines(rows: Any) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


class Parquet:
    """A row group a chunk; the file's metadata has `disclosures`.

    Without statistics: they would stand in the footer, which leaves long after its chunks.
    """

    media_type = "application/vnd.apache.parquet"

    def __init__(self) -> None:
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            self._sink, COLUMNS, compression="zstd", write_statistics=False
        )

    def prepared(self, rows: list[Row]) -> Any:
        results = [_result(row) for row in rows]
        columns = {name: [row.get(name) for row in rows] for name in COLUMNS.names}
        columns["number"] = [number for number, _ in results]
        columns["value"] = [value for _, value in results]
        return pa.table(columns, schema=COLUMNS)

    def written(self, prepared: Any) -> bytes:
        if prepared.num_rows:
            self._writer.write_table(prepared, row_group_size=CHUNK_ROWS)
        return self._sink.taken()

    def trailer(self, disclosures: Sequence[str]) -> bytes:
        self._writer.add_key_value_metadata({DISCLOSURES: " ".join(disclosures)})
        self._writer.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """A file of which only what was written last is kept."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._at += len(part)
        return len(part)

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


WRITERS: dict[Format, type[Jsonl] | type[Csv] | type[Parquet]] = {
    Format.JSONL: Jsonl, Format.CSV: Csv, Format.PARQUET: Parquet
}  # fmt: skip


@router.get(
    "/v1/{sector}/personal/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "rows, then a trailer with the disclosures that they are of; "
            "without it the export is not whole",
            "content": {
                Jsonl.media_type: {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
                Parquet.media_type: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
)
def export_personal(
    request: Request,
    sector: KnownSector,
    purpose: Code,
    category: Code,
    format: Format = Format.JSONL,
    lower: From = None,
    upper: To = None,
    operation: RowOperation = Operation.READ,
    person: Person = None,
) -> Response:
    """All that persons granted to the caller, as a file; what is taken back meanwhile ends at once.

    It ends with the ids of its disclosures: the last line of CSV and JSON Lines, the metadata
    `disclosures` of Parquet. What was cut off has none.
    """
    span = span_of(parse_moment("from", lower, ""), parse_moment("to", upper, ""))
    size = min(CHUNK_ROWS, request.app.state.settings.page_rows_max)
    question = asked(request, sector, purpose, category, span, person, operation, size)
    writer = WRITERS[format]()
    name = f'attachment; filename="{sector.name}.{format.value}"'
    parts = _exported(request.app.state.hub, question, writer)
    return Streamed(parts, writer.media_type, {"Content-Disposition": name})


async def _exported(hub: Hub, asked: Asked, writer: Writer) -> AsyncGenerator[Part, None]:
    def prepare(chunk: Chunk) -> Any:
        return writer.prepared(asked.named(chunk.rows))

    clock = asyncio.get_running_loop().time
    ends_at = clock() + EXPORT_SECONDS_MAX
    question = asked.question
    disclosures: list[str] = []
    with hub.hosting(asked.principal, STREAMS_MAX) as subscriber:
        while True:
            prepared, chunk, lease = await to_thread.run_sync(
                leased, asked.gate, asked.principal, question, prepare
            )
            disclosures.append(str(chunk.decision))
            yield Part(writer.written(prepared), lease)
            if chunk.more is None:
                break
            if subscriber.ended or expired(asked.principal) or clock() > ends_at:
                raise CityError("unavailable", "this took too long: ask for less time")
            question = replace(question, after=chunk.more)
        yield Part(writer.trailer(disclosures))


def _result(row: Row) -> tuple[float | None, str | None]:
    """A result as a number, or as JSON."""
    result = row["result"]
    if result is None or isinstance(result, float | int):
        return result, None
    return None, door.encode(result).decode()


def _time(row: Row) -> str:
    moment: str = row["phenomenon_time"].isoformat()
    return moment.replace("+00:00", "Z")
