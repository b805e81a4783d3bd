"""What benchmarks share: a real `chimata up` in a temporary folder, and a signed-in gateway."""

import json
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from tests.platform import Platform, running

GATEWAY = "bench"
INFLIGHT_MAX = 100  # paho's best: 22 k messages/s, and 6.5 k at 2,000
CONNECT_SECONDS_MAX = 20.0


@contextmanager
def platform(*arguments: str) -> Iterator[Platform]:
    """`chimata up` as a user starts it, on a folder of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="chimata-bench-") as folder,
        running(Path(folder) / "data", *arguments) as started,
    ):
        yield started


class Gateway:
    """One MQTT 3.1.1 session: publishes batches with an identity and reads its receipts."""

    def __init__(self, city: Platform) -> None:
        address = urlsplit(city.mqtt)
        self.receipts: queue.Queue[dict[str, Any]] = queue.Queue()
        self.acknowledged = 0
        self._subscribed = threading.Event()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=f"{GATEWAY}-benchmark", protocol=mqtt.MQTTv311
        )
        self._client.max_inflight_messages_set(INFLIGHT_MAX)
        self._client.username_pw_set(GATEWAY, city.token("gateway", "--gateway", GATEWAY))
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._received
        self._client.on_publish = self._published
        self._client.connect(address.hostname or "", address.port or 1883)
        self._client.loop_start()
        if not self._subscribed.wait(CONNECT_SECONDS_MAX):
            raise TimeoutError("the broker did not take our sign-in")

    def publish(self, sector: str, format: str, boot: str, seq: int, payload: bytes) -> None:
        """Queue one batch with QoS 1; paho keeps INFLIGHT_MAX of them in flight."""
        topic = f"chimata/v1/{sector}/{GATEWAY}/{format}/{boot}/{seq}"
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        """Sign off."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(f"chimata/v1/receipts/{GATEWAY}", qos=1)

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self.receipts.put(json.loads(message.payload))

    def _published(
        self, _client: mqtt.Client, _data: object, _mid: int, _reason: ReasonCode, *_: object
    ) -> None:
        self.acknowledged += 1
