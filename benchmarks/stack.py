"""What benchmarks share: a real `chimata up`, databases, ingestors, and a signed-in gateway."""

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import paho.mqtt.client as mqtt
import psutil
import psycopg
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from core.storage.migrate import migrate
from deploy import postgres
from deploy.broker import free_port
from tests.platform import CHIMATA, Platform, running

GATEWAY = "bench"
INFLIGHT_MAX = 100  # paho's best: 22 k messages/s, and 6.5 k at 2,000
CONNECT_SECONDS_MAX = 20.0
READY_SECONDS_MAX = 60.0

Database = Callable[[Path], AbstractContextManager[str]]


@contextmanager
def platform(*arguments: str) -> Iterator[Platform]:
    """`chimata up` as a user starts it, on a folder of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="chimata-bench-") as folder,
        running(Path(folder) / "data", *arguments) as started,
    ):
        yield started


@contextmanager
def embedded(folder: Path) -> Iterator[str]:
    """The embedded PostgreSQL as `chimata up` runs it, migrated."""
    server = postgres.start(folder / "postgres")
    try:
        migrate(server.url)
        yield server.url
    finally:
        server.stop()


@contextmanager
def timescale(_folder: Path) -> Iterator[str]:
    """A fresh database on the server of CHIMATA_TEST_TIMESCALE_URL, migrated."""
    server = os.environ["CHIMATA_TEST_TIMESCALE_URL"]
    name = f"chimata_bench_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    try:
        migrate(url)
        yield url
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def databases() -> dict[str, Database]:
    """Embedded PostgreSQL, and TimescaleDB where CHIMATA_TEST_TIMESCALE_URL says where it is."""
    found: dict[str, Database] = {"embedded": embedded}
    if os.environ.get("CHIMATA_TEST_TIMESCALE_URL"):
        found["timescale"] = timescale
    return found


def ingestor_of_this_process() -> psutil.Process:
    """The one that `ingestor` started."""
    running = (p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE)
    (found,) = [p for p in running if "ingest" in p.cmdline()]
    return found


@contextmanager
def ingestor(kind: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """`chimata ingest KIND` as its own process, from its `ready` on."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(CHIMATA), "ingest", kind],
            env={**os.environ, **environment, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line.strip() != b"ready":
                raise RuntimeError(f"the ingestor did not start: {log.read_text()[-2000:]}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=READY_SECONDS_MAX)


@contextmanager
def serving(environment: dict[str, str], log: Path) -> Iterator[str]:
    """`chimata serve` as its own process, from its first answer on; its URL."""
    address = f"127.0.0.1:{free_port()}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(CHIMATA), "serve", "--http", address],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
        try:
            deadline = time.monotonic() + READY_SECONDS_MAX
            while not _answers(f"http://{address}/v1/sectors"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"it does not serve: {log.read_text()[-2000:]}")
                time.sleep(0.1)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=READY_SECONDS_MAX)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


class Gateway:
    """One MQTT 3.1.1 session: publishes batches with an identity and reads its receipts."""

    def __init__(self, url: str, token: str, name: str = GATEWAY) -> None:
        address = urlsplit(url)
        self.name = name
        self.receipts: queue.Queue[dict[str, Any]] = queue.Queue()
        self.acknowledged = 0
        self._subscribed = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{name}-benchmark", protocol=mqtt.MQTTv311
        )
        self._client.max_inflight_messages_set(INFLIGHT_MAX)
        self._client.username_pw_set(name, token)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._received
        self._client.on_publish = self._published
        self._client.connect(address.hostname or "", address.port or 1883)
        self._client.loop_start()
        if not self._subscribed.wait(CONNECT_SECONDS_MAX):
            raise TimeoutError("the broker did not take our sign-in")

    @classmethod
    def of(cls, city: Platform) -> "Gateway":
        """A gateway of this platform, with a token that it issues."""
        return cls(city.mqtt, city.token("gateway", "--gateway", GATEWAY))

    def publish(self, sector: str, format: str, boot: str, seq: int, payload: bytes) -> None:
        """Queue one batch with QoS 1; paho keeps INFLIGHT_MAX of them in flight."""
        topic = f"chimata/v1/{sector}/{self.name}/{format}/{boot}/{seq}"
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        """Sign off."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"chimata/v1/receipts/{self.name}", qos=1)

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.receipts.put(json.loads(message.payload))

    def _published(
        self, _client: mqtt.Client, _data: object, _mid: int, _reason: ReasonCode, *_: object
    ) -> None:
        self.acknowledged += 1
