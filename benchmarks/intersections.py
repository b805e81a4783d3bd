"""A nation's intersections in a database, an API on top, and a client with one connection."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

import numpy as np
import orjson
import psycopg
from numpy.typing import NDArray

import domains
from benchmarks.stack import READY_SECONDS_MAX
from core.sensorthings import Categories, Decoded, Heard, Stream, ThingUpdate
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import Session
from domains.signals.wire import PHASE_STATES
from tests.kafka_server import free_port
from tests.platform import CHIMATA

INTERSECTIONS = 208_000
GROUPS = 2
PART_THINGS = 2_000
PAGE_THINGS = 5_000
REQUESTS = 240
COPIES = 20
AREA = (128.0, 31.0, 146.0, 45.0)
SELECT_IDS = "SELECT array_agg(id) FROM (SELECT id FROM datastream ORDER BY random() LIMIT %s) AS d"
COPY_VALUES = """
COPY (SELECT datastream_id, phenomenon_time, quality, result FROM latest
      WHERE datastream_id = ANY(%s)) TO STDOUT (FORMAT binary)
"""


def key(number: int) -> str:
    """The id of an intersection."""
    return f"jp-{number:06d}"


def message(numbers: NDArray[np.int64], places: NDArray[np.float64] | None, seq: int) -> Message:
    """One change of every signal group of these intersections, with their places the first time."""
    now = time.time_ns() // 1000
    streams = tuple(
        Stream(key(n), f"signal-state/{group}") for n in numbers.tolist() for group in (1, 2)
    )
    rng = np.random.default_rng(seq)
    states = np.array(PHASE_STATES, object)[rng.integers(0, len(PHASE_STATES), len(streams))]
    times = now - rng.integers(0, 1_000_000, len(streams))
    decoded = Decoded(
        streams,
        categories=Categories(np.arange(len(streams), dtype=np.int32), times, states.tolist()),
        things=tuple(
            ThingUpdate(key(n), f"交差点 {n}", location=(float(x), float(y)))
            for n, (x, y) in zip(numbers.tolist(), () if places is None else places, strict=False)
        ),
        heard=tuple(Heard(key(n), now) for n in numbers.tolist()),
        messages=len(numbers),
    )
    return Message("bench", "json", "bench", now, b"", bytes(32), decoded, f"b{now}", seq)


def append(connection: Session, store: SectorStore, made: Message) -> None:
    """As an ingestor does: rows, then the latest values."""
    store.append(connection, [made])
    if flush := store.drain():
        flush.write(connection)
        connection.commit()


def fill(url: str, count: int) -> None:
    """`count` intersections in no order, spread evenly over a country, each with GROUPS states."""
    rng = np.random.default_rng(1)
    numbers = rng.permutation(count)
    places = rng.uniform(AREA[:2], AREA[2:], (count, 2))
    store = SectorStore(domains.sector("signals"))
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        for begin in range(0, count, PART_THINGS):
            part = slice(begin, begin + PART_THINGS)
            append(connection, store, message(numbers[part], places[part], begin))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")  # as autovacuum would in its time


@contextmanager
def serving(url: str, folder: Path) -> Iterator[http.client.HTTPConnection]:
    """`chimata serve`, and one kept connection to it."""
    address = f"127.0.0.1:{free_port()}"
    environment = {"CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(folder / "data")}
    process = subprocess.Popen(
        [str(CHIMATA), "serve", "--http", address], env={**os.environ, **environment}
    )
    parts = urlsplit(f"http://{address}")
    client = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                get(client, "/healthz")
                break
            except (OSError, http.client.HTTPException):
                client.close()
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=READY_SECONDS_MAX)


def get(client: http.client.HTTPConnection, path: str) -> bytes:
    """The body of one answer; RuntimeError for anything but 200."""
    client.request("GET", path)
    answer = client.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{answer.status}: {body[:200]!r}")
    return body


def timed(
    client: http.client.HTTPConnection, path: Callable[[], str], requests: int
) -> tuple[list[float], float]:
    """Milliseconds of each request, sent to last byte read; and the mean bytes of an answer."""
    client.close()  # the server has ended a connection that was idle for 5 s
    get(client, "/healthz")
    taken, size = [], 0
    for _ in range(requests):
        asked = path()
        began = time.perf_counter()
        size += len(get(client, asked))
        taken.append((time.perf_counter() - began) * 1000)
    return taken, size / requests


def read_all(client: http.client.HTTPConnection, page_things: int = PAGE_THINGS) -> list[float]:
    """Every page once, by `next`: milliseconds of each."""
    taken, path = [], f"/v1/signals/latest?limit={page_things}"
    while path:
        began = time.perf_counter()
        body = get(client, path)
        taken.append((time.perf_counter() - began) * 1000)
        path = orjson.loads(body)["next"]
    return taken


def copied(url: str, count: int) -> float:
    """Median milliseconds in which COPY brings the values of as many Datastreams, and no more."""
    taken = []
    with psycopg.connect(url) as connection:
        for _ in range(COPIES):
            row = connection.execute(SELECT_IDS, (count,)).fetchone()
            ids = row[0] if row else []
            began = time.perf_counter()
            with psycopg.ClientCursor(connection).copy(COPY_VALUES, (ids,)) as copy:
                for _part in copy:
                    pass
            taken.append((time.perf_counter() - began) * 1000)
    return quantiles(taken, n=2)[0]


def p95(taken: list[float]) -> float:
    """The 95th percentile."""
    return quantiles(taken, n=20, method="inclusive")[-1]


@contextmanager
def changing(url: str, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that stores a change of one state of every intersection each second."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.intersections", url, str(count)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()  # it has begun
        yield process
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS_MAX)


def change(url: str, count: int) -> None:
    """Until terminated: half the Datastreams of `fill` each second, or as many as are managed."""
    store = SectorStore(domains.sector("signals"))
    numbers = np.arange(count // GROUPS)
    with psycopg.connect(url) as connection:
        connection.execute("SET ROLE chimata_ingest")
        connection.commit()
        for seq in range(sys.maxsize):
            began = time.monotonic()
            append(connection, store, message(numbers, None, seq))
            print(time.monotonic() - began, flush=True)
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))


if __name__ == "__main__":
    change(sys.argv[1], int(sys.argv[2]))
