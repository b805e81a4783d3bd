"""The MQTT ingestor: a durable session, its messages acknowledged after the database commit."""

import logging
import signal
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from core.clock import now_us
from core.errors import CityError, invalid
from core.settings import Settings
from ingest.decoding import runs_of
from ingest.mqtt_client import BulkClient, Publish
from ingest.pipeline import Pipeline, Raw, Run, Settled
from ingest.receipts import receipts

log = logging.getLogger("chimata.ingest.mqtt")

TOPICS = ("chimata/v1/+/+/+", "chimata/v1/+/+/+/+/+")
"""chimata/v1/{sector}/{gateway}/{format}, and on MQTT 3.1.1 /{boot}/{seq} after it."""
RECEIPT_TOPIC = "chimata/v1/receipts/{gateway}"
SHARE = "$share/chimata/"
SESSION_SECONDS = 7 * 24 * 3600
KEEPALIVE_SECONDS = 30
RECEIVE_MAXIMUM = 10_000
"""Messages the broker may have under way to us; more only wait in our socket."""
RECONNECT_SECONDS = (1, 5)
QOS = 1
LEVELS_LOOSE, LEVELS_IDENTIFIED = 5, 7
RUN_PAYLOAD_BYTES_MAX = 4_096
TOPICS_KNOWN_MAX = 100_000
Names = tuple[str, str, str]
"""Sector, gateway and format of a topic."""


class MqttIngestor:
    """One durable session feeding one pipeline; `on_ready` is called once it is subscribed."""

    def __init__(self, settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._pipeline = Pipeline(settings, self._settle, self._settle_runs)
        self._runs: dict[bytes, Names | None] = {}
        self._received_at = 0
        self._session = 0
        self._subscribing: set[int | None] = set()
        self._client = self._make_client()

    def _make_client(self) -> BulkClient:
        url = urlsplit(self._settings.mqtt_url)
        if url.scheme not in ("mqtt", "mqtts") or not url.hostname:
            raise invalid("CHIMATA_MQTT_URL", "must be mqtt://HOST:PORT or mqtts://HOST:PORT")
        modern = self._settings.mqtt_version == MQTTProtocolVersion.MQTTv5
        client = BulkClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.mqtt_client_id,
            protocol=MQTTProtocolVersion(self._settings.mqtt_version),
            clean_session=None if modern else False,
            manual_ack=True,
            reconnect_on_failure=True,
        )
        if url.username is not None:
            client.username_pw_set(unquote(url.username), unquote(url.password or ""))
        if url.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.reconnect_delay_set(*RECONNECT_SECONDS)
        client.max_queued_messages_set(10_000)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_publishes = self._received_many
        return client

    def start(self) -> None:
        """Connect, however long the broker takes to appear, and serve from background threads."""
        url = urlsplit(self._settings.mqtt_url)
        options: dict[str, Any] = {}
        if self._settings.mqtt_version == MQTTProtocolVersion.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_SECONDS
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            options = {"clean_start": False, "properties": properties}
        self._pipeline.start()
        port = url.port or (8883 if url.scheme == "mqtts" else 1883)
        self._client.connect_async(str(url.hostname), port, KEEPALIVE_SECONDS, **options)
        self._client.loop_start()

    def stop(self) -> None:
        """Settle what is committed, leave the rest to the broker's session, disconnect."""
        self._pipeline.stop()
        self._client.disconnect()
        self._client.loop_stop()

    # -- paho's callbacks, all in its network thread ---------------------------------------------

    def _connected(self, client: paho.Client, _data: Any, _flags: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            log.error("the broker refused the ingestor: %s", code)
            return
        # A new connection: the broker delivers again what the old one had not acknowledged.
        self._session += 1
        share = SHARE if self._settings.mqtt_shared else ""
        error, mid = client.subscribe([(share + topic, QOS) for topic in TOPICS])
        if error != MQTTErrorCode.MQTT_ERR_SUCCESS:
            log.error("could not subscribe: %s", paho.error_string(error))
        self._subscribing = {mid}

    def _disconnected(self, _c: paho.Client, _d: Any, _f: Any, code: Any, _p: Any) -> None:
        self._session += 1  # what the old connection delivered can no longer be acknowledged
        if code.is_failure:
            self._pipeline.reconnects += 1
            log.warning("the broker is away (%s); reconnecting", code)

    def _subscribed(self, _c: paho.Client, _d: Any, mid: int, codes: list[Any], _p: Any) -> None:
        if mid not in self._subscribing:
            return
        if any(code.is_failure for code in codes):
            log.error("the broker refused a subscription: %s", codes)
            return
        log.info("subscribed to %s", ", ".join(TOPICS))
        self._on_ready()

    def _received(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        raw = as_raw(message, (self._session, message.mid, message.qos))
        self._pipeline.submit(raw)  # waits while full: the socket, then the broker hold the rest

    def _received_many(self, published: list[Publish]) -> None:
        """As `_received`; loose messages that follow each other go on as one run."""
        run: Run | None = None
        # No two times alike: a repeat of (Thing, property, time) would be a correction.
        self._received_at = max(now_us(), self._received_at + 1)
        for topic, mid, payload in published:
            names = self._run_names(topic) if len(payload) <= RUN_PAYLOAD_BYTES_MAX else None
            if run is not None and (
                names is None or (run.sector, run.format) != (names[0], names[2])
            ):
                self._pipeline.submit(run)
                run = None
            if names is not None:
                run = run or Run("mqtt", names[0], names[2], self._session)
                run.add(names[1], payload, self._received_at, mid)
                self._received_at += 1
                continue
            message = paho.MQTTMessage(int.from_bytes(mid), topic)
            message.payload, message.qos = payload, QOS
            self._received(self._client, None, message)
        if run is not None:
            self._pipeline.submit(run)

    def _run_names(self, topic: bytes) -> Names | None:
        """What the topic of a loose message says, where such a message may be part of a run."""
        if topic not in self._runs:
            if topic.count(b"/") != LEVELS_LOOSE - 1:
                return None
            sector, gateway, form = topic.decode("utf-8", "replace").split("/")[2:]
            if len(self._runs) >= TOPICS_KNOWN_MAX:
                self._runs.clear()
            fits = runs_of(sector, gateway, form)
            self._runs[topic] = (sector, gateway, form) if fits else None
        return self._runs[topic]

    # -- from the pipeline's threads, after each commit --------------------------------------------

    def _settle(self, settled: Settled) -> None:
        try:
            for gateway, payload in receipts(settled):
                self._client.publish(RECEIPT_TOPIC.format(gateway=gateway), payload, qos=QOS)
        finally:
            mids = []
            for raw, _ in settled:
                session, mid, qos = raw.tag
                if session == self._session and qos == QOS:
                    mids.append(mid.to_bytes(2))
                elif session == self._session:
                    self._client.ack(mid, qos)
            self._client.acknowledge(mids)

    def _settle_runs(self, runs: Sequence[Run]) -> None:
        self._client.acknowledge(
            [mid for run in runs if run.tag == self._session for mid in run.tags]
        )


def as_raw(message: paho.MQTTMessage, tag: Any) -> Raw:
    """A message with what its topic and its properties say; faults are found by the pipeline."""
    levels = message.topic.split("/")
    sector, gateway, form = levels[2:5]
    boot: str | None = None
    seq: str | None = None
    if len(levels) == LEVELS_IDENTIFIED:
        boot, seq = levels[5], levels[6]
    elif message.properties is not None:
        named = dict(getattr(message.properties, "UserProperty", ()))
        boot, seq = named.get("boot"), named.get("seq")
    return Raw("mqtt", sector, gateway, form, bytes(message.payload), boot, seq, tag)


def run(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Ingest until SIGINT or SIGTERM."""
    if not settings.database_url:
        raise CityError("unavailable", "CHIMATA_DATABASE_URL is not set")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    ingestor = MqttIngestor(settings, on_ready)
    ingestor.start()
    stop.wait()
    ingestor.stop()
