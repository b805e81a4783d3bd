"""The Mosquitto settings of docs/brokers.md keep what they promise: what is acknowledged stays."""

import queue
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import ROOT
from tests.kafka_server import free_port
from tests.require import missing, require

pytestmark = pytest.mark.mosquitto

MESSAGES = 1_500  # above the default queue limit of 1,000
SAVED_WITHIN_SECONDS = 2.0
WAIT_SECONDS_MAX = 30.0
USERS = ("ingest", "pole-1", "pole-2")
BLOCKS = re.findall(
    r"^```\n(.*?)^```$",
    (ROOT / "docs/brokers.md")
    .read_text("utf-8")
    .partition("## Mosquitto")[2]
    .partition("\n## ")[0],
    re.M | re.S,
)


class Mosquitto:
    """A broker with the documented settings, on a loopback port and a folder of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.port = free_port()
        self._program, self._config = program, folder / "mosquitto.conf"
        settings, acl = BLOCKS
        settings = settings.replace("/var/lib/mosquitto/", f"{folder}/")
        settings = settings.replace("/etc/mosquitto", str(folder))
        self._config.write_text(f"listener {self.port} 127.0.0.1\nuser root\n{settings}")
        (folder / "acl").write_text(acl)
        (folder / "passwd").touch(0o600)
        for user in USERS:
            command = [_passwd(), "-b", str(folder / "passwd"), user, user]
            subprocess.run(command, check=True, capture_output=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [str(self._program), "-c", str(self._config)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                Client(self.port, "ingest", "probe").close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("mosquitto does not answer")

    def kill(self) -> None:
        """kill -9, as a crash does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Client:
    """One MQTT 3.1.1 session that keeps what it receives."""

    def __init__(self, port: int, user: str, client_id: str, *, durable: bool = False) -> None:
        self.received: queue.Queue[bytes] = queue.Queue()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=not durable
        )
        self._client.username_pw_set(user, user)
        self._client.on_message = lambda _client, _data, message: self.received.put(message.payload)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not self._client.is_connected() and time.monotonic() < deadline:
            time.sleep(0.01)

    def subscribe(self, topic: str) -> None:
        """Subscribe and wait until the broker knows."""
        done: queue.Queue[object] = queue.Queue()
        self._client.on_subscribe = lambda *_: done.put(None)
        self._client.subscribe(topic, qos=1)
        done.get(timeout=WAIT_SECONDS_MAX)

    def publish(self, topic: str, payloads: list[bytes]) -> None:
        """Publish with QoS 1 and wait for every PUBACK."""
        for sent in [self._client.publish(topic, payload, qos=1) for payload in payloads]:
            sent.wait_for_publish(WAIT_SECONDS_MAX)
            assert sent.is_published()

    def forge(self, topic: str, payload: bytes) -> None:
        """Publish without waiting: Mosquitto 2.0 acknowledges what it denies, or hangs up."""
        self._client.publish(topic, payload, qos=1)

    def take(self, expected: int) -> set[bytes]:
        """Distinct payloads, until there are as many or none came for 5 s."""
        seen: set[bytes] = set()
        while len(seen) < expected:
            try:
                seen.add(self.received.get(timeout=5))
            except queue.Empty:
                break
        return seen

    def close(self) -> None:
        """Sign off; a durable session stays."""
        self._client.disconnect()
        self._client.loop_stop()


def _passwd() -> str:
    return shutil.which("mosquitto_passwd") or missing("mosquitto_passwd is not installed")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    running = Mosquitto(require("mosquitto"), tmp_path)
    running.start()
    yield running
    running.kill()


def test_what_was_acknowledged_outlives_a_crash(broker: Mosquitto) -> None:
    """The ingestor is away, the broker killed 2 s after the last of 1,500 PUBACKs: all come."""
    ingestor = Client(broker.port, "ingest", "chimata-ingest", durable=True)
    ingestor.subscribe("chimata/v1/#")
    ingestor.close()
    payloads = [f"message {number}".encode() for number in range(MESSAGES)]
    sender = Client(broker.port, "pole-1", "pole-1")
    sender.publish("chimata/v1/signals/pole-1/json", payloads)
    time.sleep(SAVED_WITHIN_SECONDS)
    broker.kill()
    sender.close()
    broker.start()
    ingestor = Client(broker.port, "ingest", "chimata-ingest", durable=True)
    try:
        assert ingestor.take(MESSAGES) == set(payloads)
    finally:
        ingestor.close()


def test_a_gateway_publishes_under_its_own_id_only(broker: Mosquitto) -> None:
    """The documented ACL, also for identities in the topic and for receipts."""
    ingestor = Client(broker.port, "ingest", "chimata-ingest")
    ingestor.subscribe("chimata/v1/#")
    gateway = Client(broker.port, "pole-1", "pole-1")
    stranger = Client(broker.port, "pole-2", "pole-2")
    stranger.subscribe("chimata/v1/receipts/pole-1")
    gateway.subscribe("chimata/v1/receipts/pole-1")
    try:
        for topic in ("chimata/v1/signals/pole-1/json", "chimata/v1/receipts/pole-1"):
            forger = Client(broker.port, "pole-2", "forger")
            forger.forge(topic, b"forged")
            time.sleep(0.2)
            forger.close()
        gateway.publish("chimata/v1/signals/pole-1/json", [b"plain"])
        gateway.publish("chimata/v1/signals/pole-1/json/boot/1", [b"with identity"])
        ingestor.publish("chimata/v1/receipts/pole-1", [b"receipt"])
        assert ingestor.take(4) == {b"plain", b"with identity", b"receipt"}
        assert gateway.take(2) == {b"receipt"}
        assert stranger.received.empty()
    finally:
        for client in (ingestor, gateway, stranger):
            client.close()
