"""What an append costs under each layout, against COPY into a bare table.

All take the same 200,000-row chunks, sorted by (datastream, time), packed beforehand.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg

from benchmarks.result import Result, of_runs
from benchmarks.stack import databases
from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, Decoded, Numbers, Stream
from core.storage.columns import NUMBER, Rows
from core.storage.message import Message
from core.storage.observations import SectorStore

STREAMS = 1_000
CHUNK_ROWS = 200_000
CHUNKS = 10
RUNS = 3
COLUMNS = ", ".join(NUMBER.columns)
COPY = f"COPY layout ({COLUMNS}) FROM STDIN (FORMAT binary)"
BARE = "CREATE TABLE layout (LIKE observation)"
STAGED = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS staged (LIKE observation) ON COMMIT DELETE ROWS",
    f"COPY staged ({COLUMNS}) FROM STDIN (FORMAT binary)",
    f"INSERT INTO layout ({COLUMNS}) SELECT {COLUMNS} FROM staged ON CONFLICT DO NOTHING",
)
INDEXES = {
    "bare": "",
    "brin": "CREATE INDEX ON layout USING brin (phenomenon_time, datastream_id, append_id)"
    " WITH (pages_per_range = 16)",
    "btree": "CREATE INDEX ON layout (datastream_id, phenomenon_time)",
    "unique": "CREATE UNIQUE INDEX ON layout (datastream_id, phenomenon_time)",
    "staged": "CREATE UNIQUE INDEX ON layout (datastream_id, phenomenon_time)",
}
SECTOR = Sector(
    "bench", "計測", "Bench", DataClass.OPEN, (), (ObservedProperty("level", "値", "Level"),)
)


def chunk(number: int, seconds: int) -> Rows:
    """One chunk: so many seconds of every Datastream."""
    base = (time.time_ns() // 10**9 - (CHUNKS - number) * seconds) * 1_000_000
    return Rows(
        NUMBER,
        np.repeat(np.arange(STREAMS, dtype=np.int32), seconds),
        base + np.tile(np.arange(seconds, dtype=np.int64) * 1_000_000, STREAMS),
        np.zeros(seconds * STREAMS, np.int16),
        np.zeros(seconds * STREAMS, np.int32),
        (np.random.default_rng(number).normal(10, 2, seconds * STREAMS),),
    )


def copy(url: str, layout: str, chunks: list[Rows]) -> float:
    """Rows a second of COPY into a table of this layout."""
    packed = [rows.pack(1) for rows in chunks]
    with psycopg.connect(url) as connection:
        connection.execute("DROP TABLE IF EXISTS layout")
        connection.execute(BARE)
        if INDEXES[layout]:
            connection.execute(INDEXES[layout])
        connection.execute(STAGED[0])
        connection.commit()
        began = time.perf_counter()
        for payload in packed:
            with connection.cursor().copy(STAGED[1] if layout == "staged" else COPY) as into:
                into.write(payload)
            if layout == "staged":
                connection.execute(STAGED[2])
            connection.commit()
        seconds = time.perf_counter() - began
        connection.execute("DROP TABLE layout")
        connection.commit()
    return sum(map(len, chunks)) / seconds


def append(url: str, run_number: int, chunks: list[Rows]) -> float:
    """Rows a second of the store's own append: ledger, checks for repeats, account, rows."""
    store = SectorStore(SECTOR)
    streams = tuple(Stream(f"{run_number}-{index}", "level") for index in range(STREAMS))
    messages = [
        Message(
            "bench", "arrow", "bench", time.time_ns() // 1000, b"", bytes(32),
            Decoded(streams, Numbers(rows.datastream, rows.time, rows.results[0]), messages=1),
            f"run-{run_number}", number,
        )
        for number, rows in enumerate(chunks)
    ]  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        began = time.perf_counter()
        for message in messages:
            store.append(connection, [message])
        seconds = time.perf_counter() - began
        # As an ingestor does twice a second; else the next run would begin by reading this one.
        if flush := store.drain():
            flush.write(connection)
            connection.commit()
    return sum(map(len, chunks)) / seconds


def run(scale: float = 1.0) -> Iterator[Result]:
    """Every layout on embedded PostgreSQL, the append on both, each run with its own ceiling."""
    runs, seconds = max(1, round(RUNS * scale)), max(2, round(CHUNK_ROWS * scale / STREAMS))
    chunks = [chunk(number, seconds) for number in range(CHUNKS)]
    for label, database in databases().items():
        rates: dict[str, list[float]] = {name: [] for name in (*INDEXES, "append")}
        with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as url:
            for number in range(runs):
                for layout in INDEXES:
                    rates[layout].append(copy(url, layout, chunks))
                rates["append"].append(append(url, number, chunks))
        for name, values in rates.items():
            ratios = sorted(v / c for v, c in zip(values, rates["bare"], strict=True))
            yield of_runs(
                f"storage_{name}_{label}",
                "rows/s",
                values,
                ratio=ratios[len(ratios) // 2],
                ratio_to="COPY into a bare table",
                note=f"{CHUNKS} chunks of {len(chunks[0])} rows; "
                f"ratios {ratios[0]:.2f} to {ratios[-1]:.2f}",
            )
