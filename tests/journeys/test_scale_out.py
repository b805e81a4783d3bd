"""Ingestors that join, leave and die under load: what was sent is stored once, row by row."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from core.tokens import Keys, Role, issue, load_keys
from tests.gateways.mosquitto import Mosquitto
from tests.ingest.helpers import Database, payload, until
from tests.journeys.replays import Replay
from tests.journeys.test_kills import (
    BATCHES,
    START_US,
    Expected,
    check_account,
    check_completed,
    check_stored,
    record,
)
from tests.kafka_server import KafkaServer
from tests.platform import CHIMATA
from tests.require import require

pytestmark = pytest.mark.timeout(280)

GATEWAYS = 4
RATE = "200"
"""Rows a second of each gateway: the load lasts longer than all that happens to the members."""
LEAVE_SECONDS_MAX = 60.0
SETTLE_SECONDS_MAX = 60.0
COUNT_BATCHES = "SELECT count(*) FROM batch"


@dataclass
class Crew:
    """Ingestors by name, each a process of its own, on one broker and one database."""

    kind: str
    folder: Path
    settings: Mapping[str, str]
    members: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def chimata(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(CHIMATA), *arguments], capture_output=True, text=True, check=False,
            env={**os.environ, **self.settings}, timeout=LEAVE_SECONDS_MAX,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def join(self, name: str) -> None:
        instance = ["--instance", name] if self.kind == "mqtt" else []
        with (self.folder / f"{name}.log").open("ab") as log:
            member = subprocess.Popen(
                [str(CHIMATA), "ingest", self.kind, *instance],
                env={**os.environ, **self.settings},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.members[name] = member
        assert member.stdout is not None
        assert member.stdout.readline() == b"ready\n", (self.folder / f"{name}.log").read_text()

    def leave(self, name: str) -> None:
        """SIGTERM: it ends by itself, and well."""
        member = self.members.pop(name)
        member.terminate()
        member.communicate(timeout=30)
        assert member.returncode == 0

    def die(self, name: str) -> None:
        """kill -9."""
        member = self.members.pop(name)
        member.send_signal(signal.SIGKILL)
        member.communicate()

    def end(self) -> None:
        for name in list(self.members):
            self.leave(name)


@contextmanager
def crew(kind: str, folder: Path, url: str, **settings: str) -> Iterator[Crew]:
    data = {"CHIMATA_DATABASE_URL": url, "CHIMATA_DATA": str(folder / "data")}
    made = Crew(kind, folder, {**data, **settings})
    load_keys(folder / "data" / "keys", create=True)
    try:
        yield made
    finally:
        for name in list(made.members):
            made.die(name)


def wait_for_batches(url: str, count: int) -> None:
    """Until the ledger has so many."""
    database = Database(url)
    until(lambda: database.query(COUNT_BATCHES)[0][0] >= count, SETTLE_SECONDS_MAX)


@contextmanager
def load(crew_: Crew, to: str) -> Iterator[dict[str, tuple[Expected, Replay]]]:
    """Several gateways that send at once, each its own recording through its own outbox."""
    keys = load_keys(crew_.folder / "data" / "keys")
    sent = {}
    for number in range(GATEWAYS):
        gateway = f"pole-{number}"
        expected = record(crew_.folder / f"{gateway}.arrow", gateway)
        sent[gateway] = (expected, start(crew_.folder, gateway, to, keys))
    try:
        yield sent
    finally:
        for _, replay in sent.values():
            if replay.running():
                replay.kill()


def start(folder: Path, gateway: str, to: str, keys: Keys) -> Replay:
    return Replay(
        [folder / f"{gateway}.arrow"], "--rate", RATE, sector="edge", form="arrow",
        gateway=gateway, to=to, state=folder / "state",
        token=issue(keys, Role.GATEWAY, gateway=gateway),
    )  # fmt: skip


def check_goes_on(sent: Mapping[str, tuple[Expected, Replay]]) -> None:
    """The load must not be over before the members have changed."""
    assert all(replay.running() for _, replay in sent.values())


def check(crew_: Crew, url: str, sent: Mapping[str, tuple[Expected, Replay]]) -> dict[str, Any]:
    """Every batch has its receipt, every row is there once, and the account adds up."""
    for _, replay in sent.values():
        check_completed(replay.finish())
    crew_.end()
    rows = {
        row["gateway"]: row for row in json.loads(crew_.chimata("account", "--json"))["sources"]
    }
    with psycopg.connect(url) as connection:
        for gateway, (expected, _) in sent.items():
            check_account(rows[gateway], expected)
            check_stored(connection, gateway, expected)
    return rows


@pytest.mark.kafka
def test_a_kafka_group_that_changes_under_load(
    storage_url: str, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    """One joins, one leaves, one is killed, one joins again: no row is lost or there twice."""
    kafka_server.clear()
    kafka_server.create_topic("chimata.edge.arrow", partitions=6)
    settings = {
        "CHIMATA_KAFKA_BOOTSTRAP": kafka_server.bootstrap,
        "CHIMATA_KAFKA_GROUP": f"crew-{time.time_ns()}",
    }
    total = BATCHES * GATEWAYS
    with crew("kafka", tmp_path, storage_url, **settings) as members:
        members.join("1")
        members.join("2")
        with load(members, f"kafka://{kafka_server.bootstrap}") as sent:
            wait_for_batches(storage_url, total // 10)
            members.join("3")
            wait_for_batches(storage_url, total // 5)
            members.leave("1")
            wait_for_batches(storage_url, 2 * total // 5)
            members.die("2")
            check_goes_on(sent)
            wait_for_batches(storage_url, total // 2)
            members.join("1")
            rows = check(members, storage_url, sent)
        # A member that leaves gives its offsets up: only the killed one's are read again.
        assert sum(row["duplicate"] for row in rows.values()) < total * 40 // 4


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(require("mosquitto"), tmp_path)
    broker.start()
    yield broker
    broker.kill()


@pytest.mark.mosquitto
def test_a_shared_subscription_that_changes_under_load(
    storage_url: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """The same over MQTT, where the broker goes on keeping messages for whoever is away.

    So a member that is killed comes back under its name, and one that goes for good says so.
    """
    total = BATCHES * GATEWAYS
    with crew("mqtt", tmp_path, storage_url, CHIMATA_MQTT_URL=mosquitto.url) as members:
        members.join("1")
        members.join("2")
        with load(members, mosquitto.url) as sent:
            wait_for_batches(storage_url, total // 10)
            members.join("3")
            wait_for_batches(storage_url, total // 5)
            members.leave("1")
            members.chimata("ingest", "mqtt", "--instance", "1", "--leave")
            wait_for_batches(storage_url, 2 * total // 5)
            members.die("2")
            check_goes_on(sent)
            wait_for_batches(storage_url, total // 2)
            members.join("2")
            members.join("4")
            check(members, storage_url, sent)


def publish(broker: Mosquitto, first: int, count: int) -> set[float]:
    """Loose messages as a simple sender's: each is published once and forgotten at its PUBACK."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, "simple", protocol=paho.MQTTv5, reconnect_on_failure=False
    )
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        for number in range(first, first + count):
            body = payload(float(number), thing=f"t{number % 9}", at=START_US + number * 1_000)
            sent = client.publish("chimata/v1/farms/simple/json", body, qos=1)
            sent.wait_for_publish(10)
            assert sent.is_published()
    finally:
        client.disconnect()
        client.loop_stop()
    return {float(number) for number in range(first, first + count)}


@pytest.mark.mosquitto
def test_a_member_that_never_comes_back_leaves_its_messages_by_hand(
    database_url: str, mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """Mosquitto goes on keeping messages for a dead member's session: --leave takes them.

    This is what docs/brokers.md tells of senders without an outbox.
    """
    database = Database(database_url)

    def stored() -> set[float]:
        return set(database.results())

    with crew("mqtt", tmp_path, database_url, CHIMATA_MQTT_URL=mosquitto.url) as members:
        members.join("1")
        members.join("2")
        sent = publish(mosquitto, 0, 60)
        until(lambda: stored() == sent)
        members.die("2")
        sent |= publish(mosquitto, 60, 60)
        until(lambda: len(stored()) > 60)
        time.sleep(2.0)
        assert len(stored()) < len(sent), "nothing waits for the dead member: the docs are wrong"
        assert "chimata-ingest-2 has left" in members.chimata(
            "ingest", "mqtt", "--instance", "2", "--leave"
        )
        until(lambda: stored() == sent)
        sent |= publish(mosquitto, 120, 60)
        until(lambda: stored() == sent)
        assert "there was no session" in members.chimata(
            "ingest", "mqtt", "--instance", "2", "--leave"
        )
        members.end()
        (row,) = json.loads(members.chimata("account", "--json"))["sources"]
    assert row["adds_up"]
    assert (row["stored"], row["duplicate"], row["rejected"]) == (180, 0, 0)
    assert len(database.results()) == 180
