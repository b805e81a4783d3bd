"""Bytes an observation on disk, once its time is closed: columnstore on TimescaleDB, else a table.

Field stations report irregularly (a nominal 10 s, jitter and gaps, millisecond times) what real
instruments tell: temperature and wind to 0.1, soil moisture to 0.01, battery voltage to 0.001. The
rows go through the store's append as an ingestor's do. Full precision (every bit of the mantissa is
noise) is reported beside the declared resolution.
"""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray

import domains
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from core.sensorthings import Decoded, Numbers, Stream
from core.storage.message import Message
from core.storage.observations import SectorStore

ROWS = 4_000_000
STATIONS = 50
PROPERTIES = {  # name: (mean, swing of a day, noise, decimals that the instrument tells)
    "air-temperature": (18.0, 6.0, 0.15, 1),
    "wind-speed": (4.0, 2.0, 0.8, 1),
    "soil-moisture": (31.0, 0.5, 0.03, 2),
    "battery-voltage": (3.6, 0.05, 0.002, 3),
}
SECONDS, JITTER_SECONDS, GAP_SHARE = 10.0, 0.15, 0.01
READINGS_AN_APPEND = 30
GOAL = {"timescale": Goal("value", maximum=8.0)}
SECTOR = domains.sector("farms")

COMPRESS = "SELECT compress_chunk(chunk) FROM show_chunks('observation') AS chunk"
SELECT_BYTES = {
    "timescale": "SELECT hypertable_size('observation'), (SELECT count(*) FROM observation)",
    "embedded": """
SELECT sum(pg_total_relation_size(inhrelid))::bigint, (SELECT count(*) FROM observation)
FROM pg_inherits WHERE inhparent = 'observation'::regclass""",
}


def readings(
    count: int, *, full_precision: bool
) -> tuple[tuple[Stream, ...], NDArray[np.int64], NDArray[np.float64]]:
    """Streams, and of each `count` times (µs, rising) and results: arrays of streams x count."""
    rng = np.random.default_rng(1)
    streams = tuple(
        Stream(f"station-{number}", name) for number in range(STATIONS) for name in PROPERTIES
    )
    shape = (len(streams), count)
    gaps = 1 + rng.binomial(1, GAP_SHARE, shape) * rng.integers(1, 30, shape)
    step_ms = np.rint(1000 * (SECONDS * gaps + rng.normal(0, JITTER_SECONDS, shape)))
    start = (time.time_ns() // 1000) - 40 * 86_400_000_000 - int(SECONDS * 1.2e6) * count
    moments = start + np.cumsum(step_ms.astype(np.int64) * 1000, axis=1)
    told = np.array(list(PROPERTIES.values()))[np.tile(np.arange(len(PROPERTIES)), STATIONS)]
    mean, swing, noise, decimals = (told[:, [column]] for column in range(4))
    day = np.sin(2 * np.pi * moments / 86_400e6)
    results = mean + swing * day + rng.normal(0, noise, shape)
    if not full_precision:
        results = np.rint(results * 10**decimals) / 10**decimals
    return streams, moments, results


def fill(url: str, count: int, *, full_precision: bool) -> None:
    """Everything through the store's append, a few readings of every stream at a time."""
    streams, moments, results = readings(count, full_precision=full_precision)
    store = SectorStore(SECTOR)
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        for number, begin in enumerate(range(0, count, READINGS_AN_APPEND)):
            part = slice(begin, begin + READINGS_AN_APPEND)
            index = np.broadcast_to(np.arange(len(streams))[:, None], moments[:, part].shape)
            numbers = Numbers(
                index.astype(np.int32).ravel(), moments[:, part].ravel(), results[:, part].ravel()
            )
            now = time.time_ns() // 1000
            decoded = Decoded(streams, numbers, messages=1)
            digest = hashlib.sha256(str(number).encode()).digest()
            message = Message("bench", "arrow", "bench", now, b"", digest, decoded, "bytes", number)
            store.append(connection, [message])


def run(scale: float = 1.0) -> Iterator[Result]:
    """Declared resolution first, then full precision, on each server."""
    count = max(READINGS_AN_APPEND, round(ROWS * scale / (STATIONS * len(PROPERTIES))))
    for label, database in databases().items():
        for name, full_precision in (("declared", False), ("full", True)):
            with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as url:
                fill(url, count, full_precision=full_precision)
                with psycopg.connect(url, autocommit=True) as connection:
                    if label == "timescale":
                        connection.execute(COMPRESS)
                    row = connection.execute(SELECT_BYTES[label]).fetchone()
            assert row is not None
            yield Result(
                f"bytes_{name}_{label}",
                row[0] / row[1],
                "bytes/observation",
                goal=None if full_precision else GOAL.get(label),
                note=f"{row[1]} rows of {STATIONS * len(PROPERTIES)} Datastreams, closed",
            )
