"""MQTT sender: paho 2, version 5 with user properties, or 3.1.1 with topic levels for the identity.

Every connection is a new paho client: what was in flight on a broken one is sent again by
`gateways.delivery`, so paho's own retransmission queue is never relied on.
"""

import queue
import secrets
import ssl
import time
from dataclasses import dataclass
from threading import Event
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from core.errors import CityError, invalid
from gateways import receipts
from gateways.batches import Batch
from gateways.receipts import Receipt

CONNECT_SECONDS_MAX = 10.0
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.2, 5.0
KEEPALIVE_SECONDS = 30
IN_FLIGHT_MAX = 100
"""QoS 1 messages paho has unacknowledged: 20 to 100 is fastest, thousands are slow."""
FIRST_REFUSALS_MAX = 5
"""Refused sign-ins before any success that mean a wrong token, not a broker that is starting."""
PORTS = {"mqtt": 1883, "mqtts": 8883}
VERSIONS = {"5": (5,), "4": (4,), "3": (4,), "auto": (5, 4)}
SIGN_IN_REFUSED = {"Bad user name or password", "Not authorized", "Bad authentication method"}
NOT_AUTHORIZED = 0x87


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom to connect."""

    host: str
    port: int
    user: str
    password: str
    tls: bool
    ca_file: str | None
    versions: tuple[int, ...]


def parse_url(url: str, gateway: str, token: str) -> Target:
    """mqtt[s]://[user:password@]host[:port][?version=5|4&ca=FILE]; else CityError `invalid`."""
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if parts.scheme not in PORTS or not parts.hostname:
        raise invalid("to", f"{url!r} is not of the form mqtt://host:port")
    version = options.get("version", "auto")
    if version not in VERSIONS:
        raise invalid("to", f"version {version!r} is not one of {', '.join(VERSIONS)}")
    return Target(
        host=parts.hostname,
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username) if parts.username else gateway,
        password=unquote(parts.password) if parts.password else token,
        tls=parts.scheme == "mqtts",
        ca_file=options.get("ca"),
        versions=VERSIONS[version],
    )


class MqttSender:
    """Publishes batches of one gateway and listens on its receipts topic."""

    def __init__(self, url: str, gateway: str, token: str) -> None:
        self.target = parse_url(url, gateway, token)
        self.gateway = gateway
        self.connection = 0
        self.trouble: str | None = "not connected yet"
        self._connections = 0
        self._link: _Link | None = None
        self._versions = list(self.target.versions)
        self._refusals = 0
        self._backoff_seconds = BACKOFF_SECONDS_MIN
        self._next_try = 0.0
        self._inbox: queue.SimpleQueue[Receipt] = queue.SimpleQueue()

    def send(self, batch: Batch) -> bool:
        """Publish at QoS 1; False while there is no connection. See `gateways.delivery.Sender`."""
        link = self._connected()
        return link is not None and link.publish(batch)

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        """Receipts from the receipts topic."""
        link = self._connected()
        if link is None:
            time.sleep(max(0.0, min(wait_seconds, self._next_try - time.monotonic())))
            return []
        found: list[Receipt] = []
        try:
            found.append(self._inbox.get(block=wait_seconds > 0, timeout=wait_seconds or None))
            while True:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            return found

    def close(self) -> None:
        """Disconnect."""
        self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link, self.connection = None, 0

    def _connected(self) -> "_Link | None":
        """The link, made anew when it broke and the back-off is over; None otherwise."""
        if self._link is not None:
            if self._link.lost is None:
                return self._link
            self.trouble = self._link.lost
            self._raise_if_denied(self._link)
            self._drop()
        if time.monotonic() >= self._next_try:
            self._try()
        return self._link

    def _raise_if_denied(self, link: "_Link") -> None:
        if link.denied is not None:
            raise CityError("forbidden", f"{self.gateway} may not publish: {link.denied}")

    def _try(self) -> None:
        """Connect by the first version that the broker speaks, at most once each."""
        for _ in self.target.versions:
            version = self._versions[0]
            link = _Link(self.target, self.gateway, version, self._inbox)
            self.trouble = link.open()
            if self.trouble is None:
                self._link, self._versions = link, [version]
                self._connections += 1
                self.connection, self._backoff_seconds = self._connections, BACKOFF_SECONDS_MIN
                return
            link.close()
            if link.sign_in_refused:  # a broker that refuses a token speaks this version
                break
            self._versions.append(self._versions.pop(0))
            if link.lost is None or len(self._versions) == 1:
                break
        self._count_refusal(link)
        self._next_try = time.monotonic() + self._backoff_seconds
        self._backoff_seconds = min(self._backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    def _count_refusal(self, link: "_Link") -> None:
        """A token that never worked is an error; one that did may wait for the broker's return."""
        if link.sign_in_refused and not self._connections:
            self._refusals += 1
            if self._refusals >= FIRST_REFUSALS_MAX:
                raise CityError(
                    "unauthenticated",
                    f"{self.trouble}; is the token that of gateway {self.target.user}, and live?",
                )


class _Link:
    """One connection, from CONNECT to its end."""

    def __init__(
        self, target: Target, gateway: str, version: int, inbox: "queue.SimpleQueue[Receipt]"
    ) -> None:
        self.lost: str | None = None
        self.denied: str | None = None
        self.sign_in_refused = False
        self._target, self._gateway, self._version, self._inbox = target, gateway, version, inbox
        self._answered = Event()
        self._subscribed = False
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{self._gateway}-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion(self._version),
            reconnect_on_failure=False,
        )
        client.username_pw_set(self._target.user, self._target.password)
        client.max_inflight_messages_set(IN_FLIGHT_MAX)
        if self._target.tls:
            client.tls_set_context(ssl.create_default_context(cafile=self._target.ca_file))
        client.on_connect = self._on_connect
        client.on_connect_fail = lambda *_: self._lose("the connection was refused")
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.connect_timeout = CONNECT_SECONDS_MAX
        return client

    def open(self) -> str | None:
        """Connect and subscribe to the receipts; None, or what went wrong."""
        try:
            self._client.connect(self._target.host, self._target.port, KEEPALIVE_SECONDS)
        except (OSError, ValueError) as error:
            return f"{self._target.host}:{self._target.port}: {error}"
        self._client.loop_start()
        self._answered.wait(CONNECT_SECONDS_MAX)
        if self._subscribed and self.lost is None:
            return None
        return self.lost or "the broker does not answer"

    def publish(self, batch: Batch) -> bool:
        topic = f"chimata/v1/{batch.sector}/{self._gateway}/{batch.format}"
        properties = None
        if self._version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = [("boot", batch.boot), ("seq", str(batch.seq))]
        else:
            topic += f"/{batch.boot}/{batch.seq}"
        sent = self._client.publish(topic, batch.payload, qos=1, properties=properties)
        return sent.rc == paho.MQTT_ERR_SUCCESS and self.lost is None

    def close(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _lose(self, why: str) -> None:
        self.lost = self.lost or why
        self._answered.set()

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.sign_in_refused = str(reason) in SIGN_IN_REFUSED
            self._lose(f"the broker refuses the connection: {reason}")
            return
        client.subscribe(f"chimata/v1/receipts/{self._gateway}", qos=1)

    def _on_subscribe(
        self, _client: Any, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if any(reason.is_failure for reason in reasons):
            self.denied = f"no access to chimata/v1/receipts/{self._gateway}: {reasons[0]}"
            self._lose(self.denied)
            return
        self._subscribed = True
        self._answered.set()

    def _on_disconnect(
        self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        self._lose(f"the connection was lost: {reason}")

    def _on_publish(
        self, _client: Any, _data: Any, _mid: int, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure and reason.value == NOT_AUTHORIZED:
            self.denied = f"the broker answers {reason}"
            self._lose(self.denied)

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            receipt = receipts.parse(bytes(message.payload))
        except ValueError:
            return  # not a receipt: nothing may be deleted on it, and the batch is sent again
        if receipt.gateway == self._gateway:
            self._inbox.put(receipt)
