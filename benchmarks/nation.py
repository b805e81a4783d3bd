"""A nation's signals for ten minutes: 210,000 Datastreams at 1 Hz, and every row found again.

210 gateways of 1,000 intersections each send one Arrow batch a second, spread over the second; one
process paces and sends them all, and knows what it sent. Lag runs from the moment a batch was due
to its receipt, so that a sender that falls behind counts too. At the end one query must find every
row. The gateways' outboxes are theirs: `arrow_ingest` measures those. The brokers, the ingestor,
the database and the sender share the machine.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from benchmarks.arrow_ingest import over_kafka, over_mqtt
from benchmarks.result import Goal, Result
from benchmarks.senders import Field, KafkaField, MqttField
from benchmarks.stack import Database, databases, ingestor_of_this_process
from core.tokens import Role, issue, load_keys

NEEDS = ("kafka",)
GATEWAYS, THINGS = 210, 1_000
SECONDS = 600
GOAL_RATE = Goal("value", minimum=208_000)
GOAL_TRAIL = Goal("value", maximum=5.0)
GOAL_MEMORY = Goal("value", maximum=300.0)
BYTES_MB = 1_000_000
SAMPLE_SECONDS = 5.0
SETTLE_SECONDS = 20
DRAIN_SECONDS_MAX = 120.0
SECTOR, PROPERTY, FORM = "signals", "minimum-end", "arrow"
BASE = 1_700_000_000
WRITE = pa.ipc.IpcWriteOptions(compression="lz4")
FOUND = "SELECT count(*), sum((result - %s)::bigint) FROM observation"
TRAIL = "SELECT count(*), extract(epoch FROM clock_timestamp() - min(phenomenon_time)) FROM latest"


class City:
    """One gateway's intersections: its batch of any second, and the sum of all it ever held."""

    def __init__(self, number: int) -> None:
        self.gateway = f"gateway-{number:03d}"
        self._number = number
        self._rows = np.arange(THINGS, dtype=np.int32)
        names = pa.array([f"{number:03d}-{row:04d}" for row in range(THINGS)])
        self._thing = pa.DictionaryArray.from_arrays(pa.array(self._rows), names)
        none = pa.array(np.zeros(THINGS, np.int8))
        self._property = pa.DictionaryArray.from_arrays(none, pa.array([PROPERTY]))

    def batch(self, second: int, moment_us: int) -> tuple[bytes, int]:
        """The Arrow stream of one second, and the sum of its results over BASE."""
        over = (self._rows * 7 + self._number + second * 31) % 997
        rows = pa.record_batch(
            {
                "thing": self._thing,
                "property": self._property,
                "phenomenon_time": pa.array(np.full(THINGS, moment_us), pa.timestamp("us", "UTC")),
                "result": pa.array((over + BASE).astype(np.float64)),
            }
        )
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema, options=WRITE) as writer:
            writer.write_batch(rows)
        return sink.getvalue().to_pybytes(), int(over.sum())


class Watch:
    """Looks every few seconds at the ingestor's memory and at how far the latest values trail."""

    def __init__(self, url: str, streams: int) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._process = ingestor_of_this_process()
        self._streams = streams
        self._due = 0.0
        self.memory: list[float] = []
        self.trails: list[float] = []

    def look(self, *, settled: bool = True) -> None:
        """Sample, if it is time; `settled`: what the first batches made has long been written."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + SAMPLE_SECONDS
        self.memory.append(self._process.memory_full_info().pss / BYTES_MB)
        found = self._connection.execute(TRAIL).fetchone()
        if settled and found and found[0] == self._streams:
            self.trails.append(float(found[1]))

    def found(self) -> tuple[int, int]:
        """How many rows a query finds, and the sum of their results over BASE."""
        row = self._connection.execute(FOUND, (BASE,)).fetchone()
        return (row[0], int(row[1] or 0)) if row else (0, 0)


def drive(field: Field, cities: list[City], seconds: int, watch: Watch) -> dict[str, Any]:
    """Send every batch when it is due, then wait for the last receipts: what was sent, the lags."""
    began = time.monotonic()
    total, rows = commission(field, cities)
    commissioned = time.monotonic() - began
    due: dict[tuple[str, int], float] = {}
    lags: list[float] = []
    backlogs: list[int] = []
    began = time.monotonic() + 0.5
    for second in range(seconds):
        for place, city in enumerate(cities):
            when = began + second + place / len(cities)
            payload, held = city.batch(second, time.time_ns() // 1000)
            total, rows = total + held, rows + THINGS
            while (left := when - time.monotonic()) > 0:
                lags += taken(field, due, left)
            field.send(city.gateway, SECTOR, FORM, second + 1, payload)
            due[city.gateway, second + 1] = when
        lags += taken(field, due, 0.0)
        backlogs.append(len(due))
        watch.look(settled=second >= min(SETTLE_SECONDS, seconds // 2))
    until = time.monotonic() + DRAIN_SECONDS_MAX
    while due and time.monotonic() < until:
        lags += taken(field, due, 0.1)
    if due:
        raise RuntimeError(f"{len(due)} of {len(lags) + len(due)} batches have no receipt")
    return {
        "rows": rows,
        "sum": total,
        "lags": np.array(lags),
        "backlogs": backlogs,
        "rate": seconds * len(cities) * THINGS / (time.monotonic() - began),
        "commissioned": commissioned,
    }


def commission(field: Field, cities: list[City]) -> tuple[int, int]:
    """The first batch of every gateway makes its Datastreams, before the clock starts."""
    total = 0
    due = {(city.gateway, 0): 0.0 for city in cities}
    for city in cities:
        payload, held = city.batch(0, time.time_ns() // 1000)
        total += held
        field.send(city.gateway, SECTOR, FORM, 0, payload)
    until = time.monotonic() + DRAIN_SECONDS_MAX
    while due:
        taken(field, due, 0.1)
        if time.monotonic() > until:
            raise RuntimeError(f"{len(due)} gateways have no first receipt")
    return total, len(cities) * THINGS


def taken(field: Field, due: dict[tuple[str, int], float], wait_seconds: float) -> list[float]:
    """Lags of the batches whose receipts came within the wait."""
    now_settled = field.receipts(wait_seconds)
    now = time.monotonic()
    return [now - due.pop(key) for key in now_settled if key in due]


def measure(
    name: str,
    database: Database,
    way: Callable[[str, Path], AbstractContextManager[str]],
    make: Callable[[str, dict[str, str]], Field],
    scale: float,
) -> Iterator[Result]:
    """One run: rows a second, lag, trail of the latest values, memory of the ingestor."""
    seconds = max(3, round(SECONDS * scale))
    cities = [City(number) for number in range(max(10, round(GATEWAYS * min(1.0, scale * 10))))]
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name_of_folder:
        folder = Path(name_of_folder)
        with database(folder) as url, way(url, folder) as to:
            keys = load_keys(folder / "keys")
            names = [city.gateway for city in cities]
            tokens = {each: issue(keys, Role.GATEWAY, gateway=each) for each in names}
            watch = Watch(url, len(cities) * THINGS)
            field = make(to, tokens)
            try:
                told = drive(field, cities, seconds, watch)
            finally:
                field.close()
            if watch.found() != (told["rows"], told["sum"]):
                raise RuntimeError(f"a query finds {watch.found()}, sent were {told}")
            watch.look()
    lags, backlogs, half = told["lags"], told["backlogs"], seconds // 2
    note = (
        f"{len(cities)} gateways of {THINGS} for {seconds} s after a first batch "
        f"that took {told['commissioned']:.1f} s; every row found; receipt after "
        f"{np.median(lags):.2f} s at the median, {lags.max():.2f} s at most; batches without one: "
        f"at most {max(backlogs[:half])} in the first half, {max(backlogs[half:])} in the second"
    )
    yield Result(name, told["rate"], "rows/s", goal=GOAL_RATE, note=note)
    yield Result(f"{name}_lag_p99", float(np.percentile(lags, 99)), "s")
    yield Result(
        f"{name}_latest_trail", max(watch.trails, default=0.0), "s", goal=GOAL_TRAIL,
        note="oldest of all latest values, sampled: up to a second of it is the 1 Hz itself",
    )  # fmt: skip
    yield Result(f"{name}_memory", max(watch.memory), "MB", goal=GOAL_MEMORY, note="ingestor, PSS")


def run(scale: float = 1.0) -> Iterator[Result]:
    """MQTT and Kafka, on embedded PostgreSQL, and on TimescaleDB where there is one."""
    for label, database in databases().items():
        yield from measure(f"nation_mqtt_{label}", database, over_mqtt, MqttField, scale)
        yield from measure(f"nation_kafka_{label}", database, over_kafka, KafkaField, scale)
