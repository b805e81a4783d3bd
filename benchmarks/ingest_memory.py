"""Memory of an ingestor that is offered ten times what its database takes.

The database is behind a proxy that lets through a megabyte a second, about 20,000 rows; gateways
offer 200,000 rows a second, in batches of 1,000 rows and in the largest that are taken. Then the
proxy lets go, and every batch must get its receipt. The value is the largest PSS seen.
"""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import psutil
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict

from benchmarks.arrow_ingest import over_kafka, over_mqtt
from benchmarks.nation import FORM, PROPERTY, SECTOR, City
from benchmarks.result import Goal, Result
from benchmarks.senders import Field, KafkaField, MqttField
from benchmarks.stack import embedded, ingestor_of_this_process
from core.tokens import Role, issue, load_keys

NEEDS = ("kafka",)
SECONDS = 90
GATEWAYS = 20
BYTES_A_SECOND = 1_000_000
ROWS_A_SECOND = 200_000
LARGE_ROWS = 370_000
"""A batch just under 8 MiB."""
DRAIN_SECONDS_MAX = 600.0
GOAL = Goal("value", maximum=300.0)
BYTES_MB = 1_000_000
PIECE_BYTES = 16 * 1024


class Slow:
    """A TCP proxy before a PostgreSQL: so many bytes a second towards it, until it is let go."""

    def __init__(self, url: str) -> None:
        self._to = conninfo_to_dict(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.free = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}", query=""))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = str(self._to.get("host", "")), str(self._to.get("port", "5432"))
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, int(port)))

    def _pass(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                target.sendall(piece)
                if slow:
                    self.free.wait(len(piece) / BYTES_A_SECOND)
        except OSError:
            pass
        for end in (source, target):
            end.close()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


class Peak(threading.Thread):
    """The largest memory that the ingestor had, and what that was made of."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._process = ingestor_of_this_process()
        self._ended = threading.Event()
        self.first = self._process.memory_full_info().pss / BYTES_MB
        self.most = 0.0
        self.parts = ""

    def run(self) -> None:
        """Look four times a second."""
        while not self._ended.wait(0.25):
            try:
                full = self._process.memory_full_info()
            except psutil.Error:
                return
            if full.pss / BYTES_MB > self.most:
                self.most = full.pss / BYTES_MB
                self.parts = f"{full.uss / BYTES_MB:.0f} MB its own, {self.first:.0f} MB at rest"

    def stop(self) -> None:
        """End."""
        self._ended.set()
        self.join()


def large(number: int, second: int) -> bytes:
    """The largest batch that is taken: one gateway's last minutes at once, not compressed."""
    rows = np.arange(LARGE_ROWS)
    names = pa.array([f"{number:03d}-{row:04d}" for row in range(1_000)])
    start = (time.time_ns() // 1_000_000_000 - 4 * 3600) * 1_000_000 + second * 1_000
    batch = pa.record_batch(
        {
            "thing": pa.DictionaryArray.from_arrays(
                pa.array((rows % 1_000).astype(np.int32)), names
            ),
            "property": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(LARGE_ROWS, np.int8)), pa.array([PROPERTY])
            ),
            "phenomenon_time": pa.array(
                start + rows // 1_000 * 10_000_000, pa.timestamp("us", "UTC")
            ),
            "result": pa.array(1e9 + rows),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    payload: bytes = sink.getvalue().to_pybytes()
    return payload


def offer(field: Field, seconds: float, rows: int, slow: Slow) -> tuple[int, int]:
    """Ten times what is stored for so long, then let go and wait for all receipts: sent, early."""
    cities = [City(number) for number in range(GATEWAYS)]
    owed: set[tuple[str, int]] = set()
    began, sent, early = time.monotonic(), 0, 0
    while (now := time.monotonic()) < began + seconds:
        if sent * rows >= (now - began) * ROWS_A_SECOND:
            early += settle(field, owed, 0.005)
            continue
        place, seq = sent % GATEWAYS, sent // GATEWAYS
        moment = time.time_ns() // 1000
        payload = large(place, seq) if rows > 1_000 else cities[place].batch(seq, moment)[0]
        field.send(cities[place].gateway, SECTOR, FORM, seq, payload)
        owed.add((cities[place].gateway, seq))
        sent += 1
    slow.free.set()
    until = time.monotonic() + DRAIN_SECONDS_MAX
    while owed:
        settle(field, owed, 0.1)
        if time.monotonic() > until:
            raise RuntimeError(f"{len(owed)} of {sent} batches have no receipt")
    return sent, early


def settle(field: Field, owed: set[tuple[str, int]], wait_seconds: float) -> int:
    """Take the receipts that have come; how many were owed."""
    found = owed.intersection(field.receipts(wait_seconds))
    owed.difference_update(found)
    return len(found)


@contextmanager
def proxied(url: str) -> Iterator[Slow]:
    """The database behind the proxy."""
    slow = Slow(url)
    try:
        yield slow
    finally:
        slow.free.set()
        slow.close()


def measure(
    name: str,
    way: Callable[[str, Path], AbstractContextManager[str]],
    make: Callable[[str, dict[str, str]], Field],
    rows: int,
    scale: float,
) -> Result:
    """One way in, one size of batch."""
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as text:
        folder = Path(text)
        with embedded(folder) as url, proxied(url) as slow, way(slow.url, folder) as to:
            keys = load_keys(folder / "keys")
            names = [City(number).gateway for number in range(GATEWAYS)]
            peak = Peak()
            field = make(to, {each: issue(keys, Role.GATEWAY, gateway=each) for each in names})
            peak.start()
            try:
                sent, early = offer(field, max(3.0, SECONDS * scale), rows, slow)
            finally:
                peak.stop()
                field.close()
    note = (
        f"{peak.parts}; {sent} batches of {rows} rows offered, {early} stored while the database "
        "was slow, all of them afterwards"
    )
    return Result(name, peak.most, "MB", goal=GOAL, note=note)


def run(scale: float = 1.0) -> Iterator[Result]:
    """Over MQTT and over Kafka, small batches and the largest."""
    for size, rows in (("small", 1_000), ("large", LARGE_ROWS)):
        yield measure(f"ingest_memory_mqtt_{size}", over_mqtt, MqttField, rows, scale)
        yield measure(f"ingest_memory_kafka_{size}", over_kafka, KafkaField, rows, scale)
