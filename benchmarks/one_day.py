"""One Datastream, one day by the minute: it must not get slower as the table grows.

The rows go through the store's own append, the rollups are the real worker's, which runs beside.
A Datastream has 1 Hz for 23 days; how many there are makes the size. Timed is
the read as a route makes it, gate and JSON included, for a random Datastream and a random day, with
a tenth of the rows and with all of them; and the same over HTTP.
"""

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import psutil
import psycopg

from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from consent import door, history
from consent.gate import Gate
from core.clock import to_datetime, to_iso
from core.sensorthings import Decoded, Numbers, Stream
from core.settings import Settings
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session
from core.storage.rollup import Worker
from core.tokens import ANONYMOUS
from deploy.broker import free_port
from domains import sector
from tests.platform import CHIMATA

SECOND = 1_000_000
DAY = 86_400 * SECOND
SECONDS = 2_000_000
"""Of which a tenth holds more than two days: the same read is timed at both sizes."""
STREAMS = {"embedded": 100, "timescale": 500}
READS = 300
APPEND_SECONDS = 1_000
FILL_SECONDS_MAX = {"embedded": 900, "timescale": 1_500}
"""A slow machine measures with the rows that it took in this time."""
BYTES_A_ROW = {"embedded": 110, "timescale": 15}
FREE_BYTES_MIN = 15 * 1024**3
GOAL = Goal("value", maximum=10.0)
GROWTH = Goal("ratio", maximum=1.2)
SECTOR = sector("ports")
PROPERTY = "heading"


class Filler:
    """Appends second after second, while the worker follows in a thread of its own."""

    def __init__(self, url: str, streams: int) -> None:
        self.streams = tuple(Stream(f"4310{number:05}", PROPERTY) for number in range(streams))
        self.start = (time.time_ns() // 1000 - SECONDS * SECOND - DAY) // DAY * DAY
        self.filled = 0
        self.worker_cpu_seconds = 0.0
        self._store = SectorStore(SECTOR)
        self._url = url

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.filled * len(self.streams)

    def fill(self, seconds: int, until: float) -> None:
        """Up to so many seconds of every Datastream, and their rollups."""
        done = threading.Event()
        worker = threading.Thread(target=self._roll, args=(done,))
        worker.start()
        try:
            with open_session(self._url, DatabaseRole.INGEST) as connection:
                while self.filled < seconds and time.monotonic() < until:
                    self._append(connection, min(APPEND_SECONDS, seconds - self.filled))
        finally:
            done.set()
            worker.join()

    def _append(self, connection: psycopg.Connection[tuple[object, ...]], count: int) -> None:
        shape = (len(self.streams), count)
        moments = self.start + (self.filled + np.arange(count, dtype=np.int64)) * SECOND
        noise = np.random.default_rng(self.filled).normal(15, 3, shape).round(1)
        numbers = Numbers(
            np.broadcast_to(np.arange(len(self.streams), dtype=np.int32)[:, None], shape).ravel(),
            np.broadcast_to(moments, shape).ravel(),
            noise.ravel(),
        )
        decoded = Decoded(self.streams, numbers, messages=1)
        now = time.time_ns() // 1000
        message = Message("bench", "arrow", "bench", now, b"", bytes(32), decoded, "b", self.filled)
        self._store.append(connection, [message])
        self.filled += count

    def _roll(self, done: threading.Event) -> None:
        worker = Worker()
        with open_session(self._url, DatabaseRole.INGEST) as connection:
            backend = psutil.Process(connection.info.backend_pid)
            before = backend.cpu_times()
            last = False
            while not last:
                last = done.is_set()
                while worker.run(connection):
                    pass
                done.wait(0.5)
            after = backend.cpu_times()
        self.worker_cpu_seconds += after.user + after.system - before.user - before.system


Read = Callable[[str, int, int], int]
"""Reads a Thing's day [lower, upper) in µs; how many minutes it found."""


@contextmanager
def through_gate(url: str) -> Iterator[Read]:
    """As the route does it, without HTTP."""
    gate = Gate(Settings(database_url=url))

    def read(thing: str, lower: int, upper: int) -> int:
        with gate.reading(ANONYMOUS, SECTOR) as connection:
            stream = history.select_datastream(connection, thing, PROPERTY)
            assert stream is not None
            page = history.Page(to_datetime(lower), to_datetime(upper))
            rows = history.select_buckets(connection, stream, page, timedelta(minutes=1))
            door.encode(rows)
        return len(rows)

    try:
        yield read
    finally:
        gate.close()


@contextmanager
def over_http(url: str) -> Iterator[Read]:
    """`chimata serve` as its own process."""
    with tempfile.TemporaryDirectory() as folder, httpx.Client(timeout=60) as client:
        address = f"127.0.0.1:{free_port()}"
        environment = {
            "CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": folder, "CHIMATA_HTTP": address,
        }  # fmt: skip
        process = subprocess.Popen(
            [str(CHIMATA), "serve"], env={**os.environ, **environment}, stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )  # fmt: skip

        def read(thing: str, lower: int, upper: int) -> int:
            asked = {
                "property": PROPERTY, "interval": "1m", "limit": 1440,
                "from": to_iso(lower), "to": to_iso(upper),
            }  # fmt: skip
            path = f"/v1/{SECTOR.name}/things/{thing}/observations?{urlencode(asked)}"
            return len(
                client.get(f"http://{address}{path}").raise_for_status().json()["observations"]
            )

        try:
            _wait_for(f"http://{address}/healthz")
            yield read
        finally:
            process.terminate()
            process.wait(timeout=30)


def _wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return


def p95_ms(read: Read, filler: Filler, reads: int) -> float:
    """The 95th percentile over random Things and days; each has every minute of its day."""
    chance = random.Random(filler.filled)
    minutes = filler.filled // 60
    length = min(1440, minutes // 2)
    seconds = []
    for _ in range(reads):
        thing = chance.choice(filler.streams).thing
        lower = filler.start + chance.randrange(minutes - length) * 60 * SECOND
        began = time.perf_counter()
        found = read(thing, lower, lower + length * 60 * SECOND)
        seconds.append(time.perf_counter() - began)
        if found != length:
            raise RuntimeError(f"{thing} has {found} of {length} minutes from {to_iso(lower)}")
    return sorted(seconds)[int(len(seconds) * 0.95)] * 1000


def run(scale: float = 1.0) -> Iterator[Result]:
    """A tenth, then all, on each server."""
    for label, database in databases().items():
        streams = max(1, round(STREAMS[label] * scale))
        room = shutil.disk_usage(tempfile.gettempdir()).free - FREE_BYTES_MIN
        streams = min(streams, int(room / (SECONDS * BYTES_A_ROW[label])))
        if streams < 1:
            raise RuntimeError(f"the disk has no room beside {FREE_BYTES_MIN} bytes")
        seconds = SECONDS if scale == 1 else max(20_000, round(SECONDS * scale**0.5))
        reads = max(20, round(READS * scale))
        with tempfile.TemporaryDirectory() as folder, database(Path(folder)) as url:
            yield from _measure(label, url, Filler(url, streams), seconds, reads)


def _measure(label: str, url: str, filler: Filler, seconds: int, reads: int) -> Iterator[Result]:
    until = time.monotonic() + FILL_SECONDS_MAX[label]
    p95: dict[tuple[str, int], float] = {}
    sizes = (seconds // 10, seconds)
    for size in sizes:
        filler.fill(size, until)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")  # as autovacuum would in its time, but not beside
        for way, opened in (("gate", through_gate), ("http", over_http)):
            with opened(url) as read:
                p95_ms(read, filler, reads // 5)  # what a fresh process has still to load
                p95[way, size] = p95_ms(read, filler, reads)
    note = (
        f"{filler.rows:,} rows of {len(filler.streams)} Datastreams at 1 Hz; p95 of {reads} reads"
    )
    for way in ("gate", "http"):
        tenth, value = (p95[way, size] for size in sizes)
        name = "one_day" if way == "gate" else "one_day_http"
        goal = GOAL if way == "gate" else None
        yield Result(f"{name}_{label}", value, "ms", goal=goal, note=note)
        yield Result(
            f"{name}_growth_{label}", value, "ms", ratio=value / tenth,
            ratio_to="a tenth of the rows", goal=GROWTH if way == "gate" else None, note=note,
        )  # fmt: skip
    yield Result(
        f"rollup_cpu_{label}", filler.worker_cpu_seconds / filler.rows * 1e6, "CPU s/M rows",
        note=f"the worker's backend, all tiers; {note}",
    )  # fmt: skip
