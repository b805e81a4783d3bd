"""Many gateways in one process without threads, for load: batches out, receipts in."""

import selectors
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
import paho.mqtt.client as mqtt
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from paho.mqtt.enums import CallbackAPIVersion

from core.tokens import sign_batch

BOOT = "load"
SIGN_IN_SECONDS_MAX = 60.0
RECEIPTS_TOPIC = "chimata.receipts"
REQUEST_BYTES_MAX = 9 * 1024 * 1024

Receipts = list[tuple[str, int]]
"""(gateway, sequence) of batches that are committed."""


class Field(Protocol):
    """Gateways on one way to the platform."""

    def send(self, gateway: str, sector: str, form: str, seq: int, payload: bytes) -> None:
        """Hand over one batch."""
        ...

    def receipts(self, wait_seconds: float) -> Receipts:
        """What was committed, waiting at most so long for the first."""
        ...

    def close(self) -> None:
        """Sign off."""
        ...


def committed(payload: bytes) -> Receipts:
    """The batches of one receipt; RuntimeError where one was refused."""
    receipt = orjson.loads(payload)
    refused = [each for each in receipt["batches"] if each["result"] == "refused"]
    if refused:
        raise RuntimeError(f"{receipt['gateway']}: refused {refused[:3]}")
    return [(receipt["gateway"], each["seq"]) for each in receipt["batches"]]


class MqttField:
    """One MQTT 3.1.1 session a gateway, all served by one selector."""

    def __init__(self, to: str, tokens: Mapping[str, str]) -> None:
        address = urlsplit(to)
        self._selector = selectors.DefaultSelector()
        self._clients: dict[str, mqtt.Client] = {}
        self._subscribed = 0
        self._receipts: Receipts = []
        self._kept_alive = time.monotonic()
        for gateway, token in tokens.items():
            client = mqtt.Client(
                CallbackAPIVersion.VERSION2, client_id=f"{gateway}-load", protocol=mqtt.MQTTv311
            )
            client.username_pw_set(gateway, token)
            client.max_inflight_messages_set(1_000)
            client.user_data_set(gateway)
            client.on_connect = self._connected
            client.on_subscribe = self._on_subscribe
            client.on_message = self._received
            client.connect(address.hostname or "", address.port or 1883)
            self._selector.register(client.socket(), selectors.EVENT_READ, client)  # type: ignore[arg-type]
            self._clients[gateway] = client
        until = time.monotonic() + SIGN_IN_SECONDS_MAX
        while self._subscribed < len(tokens):
            self._serve(0.1)
            if time.monotonic() > until:
                raise TimeoutError(f"{self._subscribed} of {len(tokens)} gateways are signed in")

    def _connected(self, client: mqtt.Client, gateway: str, *_: object) -> None:
        client.subscribe(f"chimata/v1/receipts/{gateway}", qos=1)

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed += 1

    def _received(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._receipts += committed(bytes(message.payload))

    def _serve(self, wait_seconds: float) -> None:
        """Read what came and write what paho could not write at once."""
        for key, _ in self._selector.select(wait_seconds):
            client: mqtt.Client = key.data
            client.loop_read(100)
            if client.want_write():
                client.loop_write()
        if time.monotonic() - self._kept_alive > 1.0:
            self._kept_alive = time.monotonic()
            for client in self._clients.values():
                client.loop_misc()
                if client.want_write():
                    client.loop_write()

    def send(self, gateway: str, sector: str, form: str, seq: int, payload: bytes) -> None:
        """Publish at QoS 1."""
        client = self._clients[gateway]
        client.publish(f"chimata/v1/{sector}/{gateway}/{form}/{BOOT}/{seq}", payload, qos=1)
        while client.want_write():
            client.loop_write()

    def receipts(self, wait_seconds: float) -> Receipts:
        """See `Field`."""
        self._serve(wait_seconds)
        found, self._receipts = self._receipts, []
        return found

    def close(self) -> None:
        """See `Field`."""
        for client in self._clients.values():
            client.disconnect()
            client.loop_write()


class KafkaField:
    """One producer for the signed batches of all gateways, one consumer of all receipts."""

    def __init__(self, to: str, tokens: Mapping[str, str]) -> None:
        servers = urlsplit(to).netloc.split(",")
        self._tokens = dict(tokens)
        self._producer: Any = KafkaProducer(
            bootstrap_servers=servers, acks="all", max_request_size=REQUEST_BYTES_MAX
        )
        numbers = self._producer.partitions_for(RECEIPTS_TOPIC)
        partitions = [TopicPartition(RECEIPTS_TOPIC, number) for number in sorted(numbers)]
        self._consumer: Any = KafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)

    def send(self, gateway: str, sector: str, form: str, seq: int, payload: bytes) -> None:
        """Produce one record, signed with the gateway's token."""
        topic = f"chimata.{sector}.{form}"
        signature = sign_batch(self._tokens[gateway], topic, BOOT, seq, payload)
        headers = [
            ("boot", BOOT.encode()),
            ("seq", str(seq).encode()),
            ("chimata-signature", signature.encode()),
        ]
        self._producer.send(topic, key=gateway.encode(), value=payload, headers=headers)

    def receipts(self, wait_seconds: float) -> Receipts:
        """See `Field`."""
        polled = self._consumer.poll(timeout_ms=int(wait_seconds * 1000), max_records=1_000)
        return [each for records in polled.values() for r in records for each in committed(r.value)]

    def close(self) -> None:
        """See `Field`."""
        self._producer.close(timeout=5)
        self._consumer.close()
