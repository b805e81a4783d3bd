"""Replays into the real ingestors and a real database: the same end over MQTT, Kafka and HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import uvicorn

from api.app import create_app
from core.settings import Settings
from core.storage.account import AccountRow
from core.storage.account import account as read_account
from core.tokens import Role, issue, load_keys
from gateways.replay import ReplayResult, replay
from ingest import http
from ingest.kafka import KafkaIngestor
from ingest.mqtt import MqttIngestor
from tests.gateways.mosquitto import Mosquitto, free_port
from tests.kafka_server import KafkaServer

GATEWAY = "station-1"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """An installation of this test's own: database, keys."""
    load_keys(tmp_path / "data" / "keys", create=True)
    return Settings(database_url=database_url, data=tmp_path / "data")


def with_changes(settings: Settings, **changes: object) -> Settings:
    values = {name: getattr(settings, name) for name in settings.__slots__}
    return Settings(**{**values, **changes})


@contextmanager
def mqtt_platform(settings: Settings, broker: Mosquitto) -> Iterator[str]:
    ready = threading.Event()
    ingestor = MqttIngestor(with_changes(settings, mqtt_url=broker.url), ready.set)
    ingestor.start()
    assert ready.wait(20)
    try:
        yield broker.url
    finally:
        ingestor.stop()


@contextmanager
def kafka_platform(settings: Settings, kafka: KafkaServer) -> Iterator[str]:
    stop, ready = threading.Event(), threading.Event()
    ingestor = KafkaIngestor(with_changes(settings, kafka_bootstrap=kafka.bootstrap))
    thread = threading.Thread(target=ingestor.run, args=(stop, ready.set))
    thread.start()
    assert ready.wait(60)
    try:
        yield f"kafka://{kafka.bootstrap}"
    finally:
        stop.set()
        thread.join()


@contextmanager
def http_platform(settings: Settings) -> Iterator[str]:
    port = free_port()
    app = create_app(settings, [http.router(settings)])
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.hub.end_streams()
        server.should_exit = True
        thread.join()


def send(settings: Settings, to: str, files: list[Path], folder: Path) -> ReplayResult:
    token = issue(load_keys(settings.data / "keys"), Role.GATEWAY, gateway=GATEWAY)
    return replay(
        sector="ports",
        format="nmea",
        files=files,
        to=to,
        gateway=GATEWAY,
        token=token,
        outbox_folder=folder / "outbox",
        timeout_seconds=60.0,
    )


def ais_files(shared_data: Path) -> list[Path]:
    patterns = ("libais/*.nmea", "libais/*.aivdm", "pyais/*", "signalk/*.log")
    return sorted(path for pattern in patterns for path in (shared_data / "ais").glob(pattern))


def check_twice(settings: Settings, to: str, files: list[Path], folder: Path) -> None:
    """A replay is counted as sent, and a second one changes nothing but the duplicates."""
    first = send(settings, to, files, folder)
    assert first.refused == 0
    assert first.sent == first.received > 1
    assert first.messages == first.messages_received
    before = account(settings)
    assert before.messages == first.messages
    assert (before.held, before.missing) == (0, 0)
    assert before.received == first.observations
    assert before.stored == first.stored
    second = send(settings, to, files, folder)
    assert (second.boot, second.sent, second.refused) == (first.boot, first.sent, 0)
    assert second.stored == 0
    after = account(settings)
    assert after.adds_up
    assert after.stored == before.stored
    assert after.missing == 0


def account(settings: Settings) -> AccountRow:
    """The only source's account, once nothing is held: what is pending is told a little late."""
    deadline = time.monotonic() + 10
    while True:
        with psycopg.connect(settings.database_url) as connection:
            (row,) = read_account(connection)
        assert row.adds_up
        if not row.held or time.monotonic() > deadline:
            return row
        time.sleep(0.1)


@pytest.mark.mosquitto
@pytest.mark.shared_data
def test_over_mqtt(
    settings: Settings, broker: Mosquitto, shared_data: Path, tmp_path: Path
) -> None:
    with mqtt_platform(settings, broker) as to:
        check_twice(settings, to, ais_files(shared_data), tmp_path)


@pytest.mark.shared_data
def test_over_http(settings: Settings, shared_data: Path, tmp_path: Path) -> None:
    with http_platform(settings) as to:
        check_twice(settings, to, ais_files(shared_data), tmp_path)


@pytest.mark.kafka
@pytest.mark.shared_data
def test_over_kafka(
    settings: Settings, kafka_server: KafkaServer, shared_data: Path, tmp_path: Path
) -> None:
    kafka_server.clear()
    with kafka_platform(settings, kafka_server) as to:
        check_twice(settings, to, ais_files(shared_data), tmp_path)
