"""The embedded MQTT broker with real clients: sign-in by token, permissions, durability, dying."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from core import tokens
from core.errors import CityError
from core.tokens import Role
from deploy import broker, child

SECONDS = 20.0


@dataclass
class House:
    """A running broker and the keys that it goes by."""

    broker: broker.NatsBroker
    keys: tokens.Keys

    def token(self, gateway: str, seconds: int = 600) -> str:
        return tokens.issue(self.keys, Role.GATEWAY, gateway=gateway, lifetime_seconds=seconds)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("港 broker")
    keys = tokens.load_keys(folder / "keys", create=True)
    verify = tokens.Verifier(keys.signing).verify
    running = broker.NatsBroker(
        folder / "broker", "127.0.0.1:-1", verify, readable=("ports", "farms")
    )
    running.launch()
    yield House(running, keys)
    running.stop()


@dataclass
class Client:
    """An MQTT 3.1.1 client that notes what the broker said."""

    address: str
    client_id: str
    user: str
    password: str
    clean: bool = True
    version: int = paho.MQTTv311
    connack: "queue.Queue[str]" = field(default_factory=queue.Queue)
    gone: threading.Event = field(default_factory=threading.Event)
    granted: "queue.Queue[bool]" = field(default_factory=queue.Queue)
    messages: "queue.Queue[tuple[str, bytes]]" = field(default_factory=queue.Queue)

    def __enter__(self) -> "Client":
        self.mqtt = paho.Client(
            CallbackAPIVersion.VERSION2,
            self.client_id,
            clean_session=self.clean if self.version == paho.MQTTv311 else None,
            protocol=self.version,
            reconnect_on_failure=False,
        )
        self.mqtt.username_pw_set(self.user, self.password)
        self.mqtt.on_connect = lambda _c, _u, _f, reason, _p: self.connack.put(str(reason))
        self.mqtt.on_disconnect = lambda *_: self.gone.set()
        self.mqtt.on_subscribe = lambda _c, _u, _m, reasons, _p: self.granted.put(
            not reasons[0].is_failure
        )
        self.mqtt.on_message = lambda _c, _u, m: self.messages.put((m.topic, m.payload))
        host, port = self.address.split(":")
        self.mqtt.connect(host, int(port))
        self.mqtt.loop_start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def answer(self) -> str:
        return self.connack.get(timeout=SECONDS)

    def may_subscribe(self, topic: str) -> bool:
        self.mqtt.subscribe(topic, 1)
        return self.granted.get(timeout=SECONDS)

    def publish(self, topic: str, payload: bytes = b"x") -> None:
        self.mqtt.publish(topic, payload, 1).wait_for_publish(SECONDS)


def ingestor(house: House, client_id: str, clean: bool = True) -> Client:
    url = urlsplit(house.broker.url)
    return Client(
        house.broker.address, client_id, url.username or "", url.password or "", clean=clean
    )


def gateway(house: House, name: str, **changes: Any) -> Client:
    values: dict[str, Any] = {"client_id": name, "user": name, "password": house.token(name)}
    return Client(house.broker.address, **{**values, **changes})


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("gate-1", lambda h: "no token"),
        ("gate-1", lambda h: ""),
        ("gate-1", lambda h: h.token("gate-2")),
        ("*", lambda h: h.token("gate-1")),
        (">", lambda h: h.token("gate-1")),
        ("gate-1", lambda h: h.token("gate-1", seconds=-60)),
        ("gate-1", lambda h: tokens.issue(h.keys, Role.CITIZEN, subject="s")),
        ("gate-1", lambda h: tokens.issue(h.keys, Role.STAFF)),
        ("ingest", lambda h: tokens.issue(h.keys, Role.OPERATOR)[:-2] + "xx"),
        ("ingest", lambda h: ""),
        ("DOOR", lambda h: ""),
    ],
    ids=[
        "not-a-token", "empty", "another-gateways", "star", "greater", "expired", "citizen",
        "staff", "forged-ingest", "ingest-without-secret", "inner-account",
    ],
)  # fmt: skip
def test_a_wrong_sign_in_is_refused(
    house: House, user: str, password: Callable[[House], str]
) -> None:
    with Client(house.broker.address, "stranger", user, password(house)) as stranger:
        assert stranger.answer() == "Not authorized"


def test_nobody_signs_in_without_a_name(house: House) -> None:
    anonymous = paho.Client(CallbackAPIVersion.VERSION2, "anon", reconnect_on_failure=False)
    said: queue.Queue[str] = queue.Queue()
    anonymous.on_connect = lambda _c, _u, _f, reason, _p: said.put(str(reason))
    host, port = house.broker.address.split(":")
    anonymous.connect(host, int(port))
    anonymous.loop_start()
    assert said.get(timeout=SECONDS) == "Not authorized"
    anonymous.loop_stop()


def test_a_gateway_publishes_only_under_its_own_id(house: House) -> None:
    with ingestor(house, "chimata-ingest-a") as ingest, gateway(house, "gate-1") as one:
        assert (ingest.answer(), one.answer()) == ("Success", "Success")
        assert ingest.may_subscribe("chimata/v1/#")
        forbidden = (
            "chimata/v1/ports/gate-2/nmea/b/1",
            "chimata/v1/ports/gate-1x/nmea/b/1",
            "chimata/v1/receipts/gate-1",
            "chimata/v1/receipts/gate-1/b/1",
            "chimata/v1/receipts/gate-2",
            "other/v1/ports/gate-1/nmea/b/1",
        )
        for topic in forbidden:
            one.publish(topic)
        one.publish("chimata/v1/ports/gate-1/nmea/b/1", "最後".encode())
        # In order on one connection: had one of the others passed, it would come first.
        assert ingest.messages.get(timeout=SECONDS) == (
            "chimata/v1/ports/gate-1/nmea/b/1",
            "最後".encode(),
        )
        with pytest.raises(queue.Empty):
            ingest.messages.get(timeout=0.3)


def test_a_gateway_reads_only_its_own_receipts(house: House) -> None:
    with ingestor(house, "chimata-ingest-b") as ingest, gateway(house, "gate-1") as one:
        one.answer()
        ingest.answer()
        for topic in (
            "chimata/v1/receipts/gate-2", "chimata/v1/receipts/+", "chimata/v1/receipts/#",
            "chimata/v1/#", "#", "chimata/v1/ports/#", "$MQTT/#", "$SYS/#",
        ):  # fmt: skip
            assert not one.may_subscribe(topic), topic
        assert one.may_subscribe("chimata/v1/receipts/gate-1")
        ingest.publish("chimata/v1/receipts/gate-1", b"mine")
        assert one.messages.get(timeout=SECONDS) == ("chimata/v1/receipts/gate-1", b"mine")


def test_an_operator_reads_the_sectors_it_may_and_publishes_nothing(house: House) -> None:
    token = tokens.issue(house.keys, Role.OPERATOR)
    with (
        Client(house.broker.address, "maas", "maas", token) as operator,
        ingestor(house, "chimata-ingest-c") as ingest,
    ):
        assert (operator.answer(), ingest.answer()) == ("Success", "Success")
        assert operator.may_subscribe("chimata/v1/ports/#")
        assert not operator.may_subscribe("chimata/v1/#")
        assert not operator.may_subscribe("chimata/v1/health/#")
        assert not operator.may_subscribe("chimata/v1/receipts/#")
        assert ingest.may_subscribe("chimata/v1/#")
        operator.publish("chimata/v1/ports/gate-1/nmea/b/1")
        with pytest.raises(queue.Empty):
            ingest.messages.get(timeout=0.4)


def test_a_token_ends_its_connection(house: House) -> None:
    with gateway(house, "brief", password=house.token("brief", seconds=2)) as brief:
        assert brief.answer() == "Success"
        assert brief.gone.wait(8.0)


def test_a_client_id_is_nobody_elses(house: House) -> None:
    with gateway(house, "gate-3", client_id="shared") as holder:
        assert holder.answer() == "Success"
        with gateway(house, "gate-4", client_id="shared") as thief:
            assert thief.answer() == "Not authorized"
        with gateway(house, "gate-4", client_id="chimata-ingest-a") as thief:
            assert thief.answer() == "Not authorized"


def test_it_is_mqtt_3_1_1(house: House) -> None:
    with gateway(house, "modern", version=paho.MQTTv5) as modern:
        assert modern.answer() == "Unsupported protocol version"


def test_acknowledged_messages_of_a_durable_session_survive_kill_9(house: House) -> None:
    with ingestor(house, "chimata-ingest-d", clean=False) as ingest:
        ingest.answer()
        assert ingest.may_subscribe("chimata/v1/#")
    with gateway(house, "gate-5") as five:
        five.answer()
        for number in range(200):
            five.publish(f"chimata/v1/farms/gate-5/json/b/{number}", b"%d" % number)
    psutil.Process(house.broker.pid).kill()
    deadline = time.monotonic() + SECONDS
    while house.broker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not house.broker.is_alive()
    address = house.broker.address
    house.broker.launch()
    assert house.broker.address == address
    with ingestor(house, "chimata-ingest-d", clean=False) as ingest:
        assert ingest.answer() == "Success"
        got = {ingest.messages.get(timeout=SECONDS)[1] for _ in range(200)}
    assert got == {b"%d" % number for number in range(200)}


def test_eight_megabytes_pass(house: House) -> None:
    with ingestor(house, "chimata-ingest-e") as ingest, gateway(house, "gate-6") as six:
        ingest.answer()
        six.answer()
        assert ingest.may_subscribe("chimata/v1/#")
        payload = b"\0" * (8 * 1024 * 1024)
        six.publish("chimata/v1/edge/gate-6/arrow/b/1", payload)
        assert ingest.messages.get(timeout=SECONDS)[1] == payload


def test_secrets_are_kept_from_others(house: House) -> None:
    folder = house.broker.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ingest.secret").stat().st_mode & 0o777 == 0o600
    assert (folder / "ingest.secret").read_text() not in (folder / "broker.conf").read_text()


def test_a_port_in_use_is_one_clear_line(house: House, tmp_path: Path) -> None:
    verify = tokens.Verifier(house.keys.signing).verify
    second = broker.NatsBroker(tmp_path / "broker", house.broker.address, verify)
    with pytest.raises(CityError, match="in use") as raised:
        second.launch()
    second.stop()
    assert "\n" not in raised.value.detail
    assert child.standing_in(tmp_path / "broker", "nats-server") == []


def test_a_broker_that_dies_while_it_starts_is_told_at_once(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `chimata up` would wait a minute for a sign-in that cannot come."""
    dying = broker.NatsBroker(tmp_path / "b", "127.0.0.1:-1", house.broker._door._verify)
    wait_for_ports = dying._wait_for_ports

    def die() -> dict[str, list[str]]:
        ports = wait_for_ports()
        psutil.Process(dying.pid).suspend()  # it takes the door's connection and says nothing
        threading.Timer(0.5, psutil.Process(dying.pid).kill).start()
        return ports

    monkeypatch.setattr(dying, "_wait_for_ports", die)
    begun = time.monotonic()
    with pytest.raises(CityError, match="the MQTT broker"):
        dying.launch()
    assert time.monotonic() - begun < broker.START_SECONDS_MAX / 3
    dying.stop()
