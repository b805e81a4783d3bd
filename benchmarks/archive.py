"""Archived days: bytes an observation in Parquet, and how fast days go out and come back."""

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from benchmarks.bytes_per_observation import (
    PROPERTIES,
    READINGS_AN_APPEND,
    SECTOR,
    STATIONS,
    fill,
)
from benchmarks.result import Result
from benchmarks.stack import databases
from consent import archive as exports
from consent.gate import Gate
from core.archive import DAY
from core.settings import Settings
from deploy.imports import archive as imports

ROWS = 4_000_000
MAINTAIN = "SELECT maintain_partitions('1 day')"
AGAIN = "the store's appends of the same rows"


def export(url: str, folder: Path, count: int) -> tuple[int, int]:
    """(rows, bytes) of the closed days that hold `count` rows."""
    gate = Gate(Settings(database_url=url))
    rows = size = 0
    try:
        day = exports.first_day(gate, SECTOR)
        while day is not None and rows < count and exports.is_closed(day, datetime.now(UTC)):
            written = exports.export_day(gate, SECTOR, day, folder)
            rows, size, day = rows + written.rows, size + written.bytes, day + DAY
    finally:
        gate.close()
    return rows, size


def run(scale: float = 1.0) -> Iterator[Result]:
    """Fill, export, drop as retention does, import; on each server."""
    count = max(READINGS_AN_APPEND, round(ROWS * scale / (STATIONS * len(PROPERTIES))))
    for label, database in databases().items():
        with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as url:
            began = time.perf_counter()
            fill(url, count, full_precision=False)
            filled = time.perf_counter()
            rows, size = export(url, Path(folder) / "archive", count * STATIONS * len(PROPERTIES))
            exported = time.perf_counter()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(MAINTAIN)
                again = time.perf_counter()
                connection.autocommit = False
                connection.execute("SET ROLE chimata_ingest")
                connection.commit()
                counts = imports.run(connection, [str(Path(folder) / "archive")])
            imported = time.perf_counter()
        assert counts["stored"] == counts["found"] == rows, counts
        append = rows / (filled - began)
        yield Result(
            f"archive_bytes_{label}", size / rows, "bytes/observation", note=f"{rows} rows"
        )
        for name, seconds in (("export", exported - filled), ("import", imported - again)):
            rate = rows / seconds
            yield Result(
                f"archive_{name}_{label}", rate, "rows/s", ratio=rate / append, ratio_to=AGAIN
            )
