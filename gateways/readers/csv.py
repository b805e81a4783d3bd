"""CSV recordings (RFC 4180): the header is repeated in every batch; rows are sent as recorded."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import invalid
from gateways.batches import Limits, Record
from gateways.readers.times import Shift, parse

LIMITS = Limits(messages_max=1_000, bytes_max=256 * 1024)
ROW_LINES_MAX = 64
"""Most lines a quoted cell may span; past it the quote is taken for a stray one."""

TIME_NAMES = ("time", "timestamp", "datetime", "date", "basedatetime", "phenomenon_time")


def join(payloads: Sequence[bytes]) -> bytes:
    """Rows one after the other: each ends in its own line end."""
    return b"".join(payloads)


def read(files: Sequence[Path], start_us: int | None) -> Iterator[Record]:
    """The data rows of the files; blank lines are no rows. See `gateways.readers`."""
    shift = Shift(start_us)
    for path in files:
        yield from _read_file(path, shift)


def _read_file(path: Path, shift: Shift) -> Iterator[Record]:
    with path.open("rb") as file:
        rows = _rows(file)
        header = next(rows, None)
        if header is None:
            raise invalid(str(path), "has no header line")
        column: int | None = None
        for row in rows:
            if column is None:
                column = _time_column(header, row)
            content, time_us = _retimed(row, column, shift) if column >= 0 else (row, None)
            yield Record(content, 1, time_us, prefix=header)


def _rows(lines: io.BufferedReader) -> Iterator[bytes]:
    """Non-blank rows, each with one line end; a quoted cell may span lines."""
    pending: list[bytes] = []
    for line in lines:
        if not pending and not line.strip():
            continue
        pending.append(line if line.endswith(b"\n") else line + b"\n")
        quotes = sum(part.count(b'"') for part in pending)
        if quotes % 2 == 0:
            yield b"".join(pending)
            pending = []
        elif len(pending) > ROW_LINES_MAX:
            yield from pending
            pending = []
    yield from pending


def _cells(row: bytes) -> list[str]:
    text = row.decode("utf-8-sig", "surrogateescape")
    return next(csv.reader(io.StringIO(text, newline="")), [])


def _time_column(header: bytes, row: bytes) -> int:
    """Which column holds the time: by name, else the first that reads as a time; or -1."""
    cells = _cells(row)
    names = [name.strip().lower() for name in _cells(header)]
    order = sorted(range(len(cells)), key=lambda i: i >= len(names) or names[i] not in TIME_NAMES)
    return next((i for i in order if parse(cells[i]) is not None), -1)


def _retimed(row: bytes, column: int, shift: Shift) -> tuple[bytes, int | None]:
    """The row with its time moved, and that time; recorded times leave the bytes alone."""
    try:
        cells = _cells(row)
    except csv.Error:
        return row, None
    if column >= len(cells):
        return row, None
    if not shift:
        return row, parse(cells[column])
    cells[column] = shift.rewrite(cells[column])
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue().encode("utf-8", "surrogateescape"), parse(cells[column])
