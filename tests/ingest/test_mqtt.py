"""The MQTT ingestor against a real Mosquitto: identities, receipts, and acknowledgement last."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from core.errors import CityError
from core.settings import Settings
from ingest.mqtt import MqttIngestor
from tests.gateways.mosquitto import Mosquitto
from tests.ingest.helpers import Database, changed, payload, until
from tests.require import require

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(120)]
VERSIONS = [pytest.param(5, id="mqtt-5"), pytest.param(4, id="mqtt-3.1.1")]


@contextmanager
def ingestor(settings: Settings, broker: Mosquitto, **changes: Any) -> Iterator[MqttIngestor]:
    ready = threading.Event()
    started = MqttIngestor(changed(settings, mqtt_url=broker.url, **changes), ready.set)
    started.start()
    try:
        assert ready.wait(20)
        yield started
    finally:
        started.stop()


class Gateway:
    """A gateway's own client: publishes, and keeps its receipts."""

    def __init__(self, broker: Mosquitto, version: int = 5, name: str = "g1") -> None:
        self.name = name
        self.receipts: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._modern = version == 5
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, f"{name}-{version}", protocol=MQTTProtocolVersion(version)
        )
        self._client.on_connect = lambda client, *_: client.subscribe(
            f"chimata/v1/receipts/{name}", qos=1
        )
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _c, _d, message: self.receipts.append(
            json.loads(message.payload)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def publish(
        self,
        body: bytes,
        boot: str | None = None,
        seq: int | str | None = None,
        *,
        qos: int = 1,
        where: str = "farms/{}/json",
        levels: bool | None = None,
    ) -> None:
        topic = "chimata/v1/" + where.format(self.name)
        properties = None
        named = [(k, str(v)) for k, v in (("boot", boot), ("seq", seq)) if v is not None]
        if levels or (levels is None and not self._modern and named):
            topic += f"/{boot}/{seq}"
        elif named:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = named
        self._client.publish(topic, body, qos=qos, properties=properties).wait_for_publish(10)

    def stored(self) -> set[int]:
        """Every sequence that a receipt calls stored."""
        ranges = [pair for receipt in self.receipts for pair in receipt["stored"]]
        return {seq for first, last in ranges for seq in range(first, last + 1)}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def gateway(broker: Mosquitto) -> Iterator[Gateway]:
    started = Gateway(broker)
    yield started
    started.close()


@pytest.mark.parametrize(("version", "sender"), [(5, 5), (5, 4), (4, 4)])
def test_a_batch_is_stored_and_its_receipt_is_the_contract_json(
    settings: Settings, broker: Mosquitto, database: Database, version: int, sender: int
) -> None:
    """Identity by user properties or by topic levels; to an MQTT 3.1.1 ingestor by levels alone."""
    gateway = Gateway(broker, sender)
    try:
        with ingestor(settings, broker, mqtt_version=version, mqtt_shared=version == 5):
            gateway.publish(payload(1.0, 2.0), "boot-1", 7)
            until(lambda: gateway.receipts)
            assert gateway.receipts == [
                {
                    "gateway": "g1",
                    "boot": "boot-1",
                    "stored": [[7, 7]],
                    "batches": [
                        {
                            "seq": 7,
                            "result": "stored",
                            "received": 2,
                            "stored": 2,
                            "duplicate": 0,
                            "rejected": 0,
                            "reason": None,
                            "detail": None,
                        }
                    ],
                }
            ]
            assert database.results() == [1.0, 2.0]
            assert database.query("SELECT gateway, boot, seq FROM batch") == [("g1", "boot-1", 7)]
    finally:
        gateway.close()


def test_the_same_batch_by_properties_and_by_levels_is_one(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    body = payload(1.0)
    with ingestor(settings, broker):
        gateway.publish(body, "b", 1)
        until(lambda: len(gateway.receipts) == 1)
        gateway.publish(body, "b", 1, levels=True)
        until(lambda: len(gateway.receipts) == 2)
        gateway.publish(payload(2.0), "b", 1)
        until(lambda: len(gateway.receipts) == 3)
    results = [receipt["batches"][0]["result"] for receipt in gateway.receipts]
    assert results == ["stored", "duplicate", "refused"]
    assert gateway.receipts[2]["stored"] == []
    assert gateway.receipts[2]["batches"][0]["reason"] == "batch-conflict"
    assert database.results() == [1.0]


def test_loose_messages_are_stored_without_a_receipt(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    with ingestor(settings, broker):
        gateway.publish(payload(1.0, thing="a"), qos=0)
        gateway.publish(payload(2.0, thing="b"), qos=1)
        gateway.publish(payload(3.0, thing="c"), qos=2)
        until(lambda: database.results() == [1.0, 2.0, 3.0])
    assert gateway.receipts == []


@pytest.mark.parametrize(
    ("boot", "seq", "levels"),
    [
        ("B", "1", False),
        ("b", "x", False),
        ("b", None, False),
        (None, "1", False),
        ("b", str(2**53), True),
        ("UP", "1", True),
        ("", "", True),
    ],
)
def test_identities_of_another_form_are_rejections_without_a_receipt(
    settings: Settings,
    broker: Mosquitto,
    database: Database,
    gateway: Gateway,
    boot: str | None,
    seq: str | None,
    levels: bool,
) -> None:
    with ingestor(settings, broker):
        gateway.publish(payload(1.0), boot, seq, levels=levels)
        gateway.publish(payload(2.0), "good", 0)
        until(lambda: gateway.receipts)
        until(lambda: [reason for reason, _ in database.rejections()] == ["bad-identity"])
    assert {receipt["boot"] for receipt in gateway.receipts} == {"good"}
    assert database.results() == [2.0]


def test_an_unknown_sector_and_format_are_refused_in_the_receipt(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    with ingestor(settings, broker):
        gateway.publish(b"x", "b", 0, where="nowhere/{}/json")
        gateway.publish(b"x", "b", 1, where="farms/{}/nmea")
        until(lambda: len(gateway.receipts) == 2)
    reasons = {r["batches"][0]["seq"]: r["batches"][0]["reason"] for r in gateway.receipts}
    assert reasons == {0: "unknown-sector", 1: "unknown-format"}
    assert len(database.rejections()) == 2


def test_no_acknowledgement_before_the_commit(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    """The ingestor ends before it could commit: the broker's session still has the messages."""
    with ingestor(settings, broker):
        gateway.publish(payload(0.0, thing="t0"), "b", 0)
        until(lambda: gateway.stored() == {0})
    with database.locked(), ingestor(settings, broker):
        for seq in range(1, 6):
            gateway.publish(payload(float(seq), thing=f"t{seq}"), "b", seq)
        time.sleep(1.0)
        assert gateway.stored() == {0}
    assert database.results() == [0.0]
    # Without a sender's help, by the durable session alone.
    with ingestor(settings, broker):
        until(lambda: len(database.results()) == 6)
        until(lambda: gateway.stored() == set(range(6)))
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up and (line.stored, line.missing) == (6, 0)


def test_messages_wait_in_the_session_while_no_ingestor_runs(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    for version, shared in ((5, True), (4, False)):
        options = {"mqtt_version": version, "mqtt_shared": shared, "mqtt_client_id": f"i{version}"}
        with ingestor(settings, broker, **options):
            pass
        for seq in range(30):
            body = payload(float(seq), thing=f"v{version}-{seq}")
            gateway.publish(body, f"b{version}", seq, levels=version == 4)
        with ingestor(settings, broker, **options):
            count = "SELECT count(*) FROM batch WHERE boot = %s"
            until(partial(stored, database, count, f"b{version}"))


def stored(database: Database, count: str, boot: str) -> bool:
    return database.query(count, boot) == [(30,)]


def test_the_database_goes_and_comes_back_in_the_middle(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    with ingestor(settings, broker):
        for seq in range(60):
            gateway.publish(payload(float(seq), thing=f"t{seq}"), "b", seq)
            if seq % 10 == 5:
                database.end_sessions()
        until(lambda: gateway.stored() == set(range(60)))
    assert database.results() == [float(seq) for seq in range(60)]
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up and (line.stored, line.missing) == (60, 0)


def test_a_shared_subscription_is_divided_and_nothing_is_lost_with_one_of_them(
    settings: Settings, broker: Mosquitto, database: Database, gateway: Gateway
) -> None:
    with ingestor(settings, broker, mqtt_client_id="one") as one:
        with ingestor(settings, broker, mqtt_client_id="two") as two:
            for seq in range(100):
                gateway.publish(payload(float(seq), thing=f"t{seq % 10}"), "b", seq)
            until(lambda: gateway.stored() == set(range(100)))
            assert all(each._pipeline._lines for each in (one, two))  # both had a part of it
        for seq in range(100, 150):
            gateway.publish(payload(float(seq), thing=f"t{seq % 10}"), "b", seq)
        # What the broker gave to the second waits in its session, until it is back.
        with ingestor(settings, broker, mqtt_client_id="two"):
            until(lambda: gateway.stored() == set(range(150)))
    assert database.results() == [float(seq) for seq in range(150)]
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up and (line.received, line.duplicate, line.missing) == (150, 0, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_subscribes_again_after_the_broker_forgot_everything(
    settings: Settings, broker: Mosquitto, database: Database, version: int
) -> None:
    with ingestor(settings, broker, mqtt_version=version, mqtt_shared=version == 5):
        broker.kill()
        time.sleep(0.3)
        broker.start()
        gateway = Gateway(broker, version)
        try:
            seq = 0

            def arrives() -> bool:
                nonlocal seq
                gateway.publish(payload(float(seq), thing=f"t{seq}"), "b", seq)
                seq += 1
                time.sleep(0.2)
                return bool(gateway.receipts)

            until(arrives)
        finally:
            gateway.close()


class Persistent(Mosquitto):
    """With persistence on: sessions and their messages survive a restart."""

    def start(self) -> None:
        program = self._program
        config = self._folder / "persistent.conf"
        wrapper = self._folder / "mosquitto"
        kept = self._folder / "kept"
        kept.mkdir(exist_ok=True)
        wrapper.write_text(
            "#!/bin/sh\n"  # adds to the configuration that it is given as -c FILE
            f"cat \"$2\" > '{config}'\n"
            f"printf 'persistence true\\npersistence_location {kept}/\\n' >> '{config}'\n"
            f"exec '{program}' -c '{config}'\n"
        )
        wrapper.chmod(0o700)
        self._program = wrapper
        try:
            super().start()
        finally:
            self._program = program

    def stop(self) -> None:
        """SIGTERM: it saves its sessions and ends."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)
        self._process = None


@pytest.mark.parametrize("shared", [True, False])
def test_messages_survive_a_restart_of_a_broker_that_keeps_them(
    settings: Settings, database: Database, tmp_path: Path, shared: bool
) -> None:
    settings = changed(settings, mqtt_shared=shared)
    broker = Persistent(require("mosquitto"), tmp_path)
    broker.start()
    try:
        with ingestor(settings, broker):
            pass
        gateway = Gateway(broker)
        for seq in range(20):
            gateway.publish(payload(float(seq), thing=f"t{seq}"), "b", seq)
        gateway.close()
        broker.stop()
        assert list((tmp_path / "kept").iterdir())
        broker.start()
        with ingestor(settings, broker):
            until(lambda: len(database.results()) == 20)
            # And over a restart with the ingestor connected.
            broker.stop()
            broker.start()
            again = Gateway(broker, name="g2")
            body = payload(99.0, thing="t99")

            def arrives() -> bool:
                # Mosquitto 2.0.11 keeps no shared subscription over a restart: until we subscribe
                # again it acknowledges what it drops, so a sender repeats what has no receipt.
                again.publish(body, "b", 0)
                time.sleep(0.2)
                return bool(again.receipts)

            until(arrives)
            again.close()
            assert 99.0 in database.results()
    finally:
        broker.kill()
    assert all(row.adds_up for row in database.account())


def test_a_refused_url_is_one_clear_error(settings: Settings) -> None:
    for url in ("http://127.0.0.1", "mqtt://", "127.0.0.1:1883", ""):
        with pytest.raises(CityError, match="CHIMATA_MQTT_URL"):
            MqttIngestor(changed(settings, mqtt_url=url))


def test_it_waits_for_a_broker_that_is_not_there_yet(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    broker = Mosquitto(require("mosquitto"), tmp_path)
    ready = threading.Event()
    early = MqttIngestor(changed(settings, mqtt_url=broker.url), ready.set)
    early.start()
    try:
        assert not ready.wait(0.5)
        broker.start()
        assert ready.wait(15)
        gateway = Gateway(broker)
        gateway.publish(payload(1.0), "b", 0)
        until(lambda: gateway.stored() == {0})
        gateway.close()
    finally:
        early.stop()
        broker.kill()


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_kind_are_stored_once_and_acknowledged(
    settings: Settings, broker: Mosquitto, database: Database, version: int
) -> None:
    """Loose and identified, small and large, good and bad, of each QoS, between each other."""
    gateway = Gateway(broker, version)
    large = json.dumps(
        {"thing": "large", "property": "soil-moisture", "result": 1.0, "x": "y" * 400_000}
    ).encode()
    expected = 0
    try:
        with ingestor(settings, broker, mqtt_version=version, mqtt_shared=version == 5):
            for number in range(120):
                body = json.dumps(
                    {"thing": f"t{number}", "property": "soil-moisture", "result": float(number)}
                ).encode()
                if number % 10 == 0:
                    gateway.publish(b"not json", qos=1)
                if number % 30 == 7:
                    gateway.publish(large, qos=1)
                identity = ("b", number) if number % 7 == 0 else (None, None)
                gateway.publish(body, *identity, qos=2 if number % 11 == 0 else 1)
                expected += 1
            stored = expected + 4
            until(lambda: database.query("SELECT count(*) FROM observation") == [(stored,)], 60)
            until(lambda: len(gateway.stored()) == 18)
        # Were one not acknowledged, its heir would get it again.
        with ingestor(settings, broker, mqtt_version=version, mqtt_shared=version == 5):
            gateway.publish(payload(1.0, thing="last"), "b", 1_000)
            until(lambda: 1_000 in gateway.stored())
    finally:
        gateway.close()
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up
    assert (line.stored, line.rejected, line.duplicate) == (stored + 1, 12, 0)
    assert line.messages == stored + 1 + 12
