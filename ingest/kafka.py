"""The Kafka ingestor: a consumer group whose offsets are committed after the database commit."""

import logging
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

import domains
from core.errors import CityError, invalid
from core.settings import Settings
from core.tokens import check_batch_signature, load_secret
from ingest.pipeline import Pipeline, Raw, Settled
from ingest.receipts import receipts

log = logging.getLogger("chimata.ingest.kafka")

RECEIPTS_TOPIC = "chimata.receipts"
POLL_MILLISECONDS = 200
RECORDS_A_POLL_MAX = 500
COMMIT_SECONDS = 0.5
METADATA_MILLISECONDS = 3_000
RETRY_SECONDS = 2.0
SIGNATURE = "chimata-signature"
DECIMAL = re.compile(r"[0-9]{1,16}")  # as many digits as 2**53 has


class Progress(ConsumerRebalanceListener):  # type: ignore[misc]
    """Which offsets may be committed: those before the first that is not settled yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[TopicPartition, dict[int, bool]] = defaultdict(dict)

    def received(self, partition: TopicPartition, offset: int) -> None:
        """A record was handed to the pipeline; records of a partition come in their order."""
        with self._lock:
            self._pending[partition][offset] = False

    def settled(self, partition: TopicPartition, offset: int) -> None:
        """Its transaction is committed."""
        with self._lock:
            if offset in self._pending[partition]:
                self._pending[partition][offset] = True

    def take(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """What to commit now, each once."""
        found = {}
        with self._lock:
            for partition, offsets in self._pending.items():
                last = None
                for offset in list(offsets):
                    if not offsets[offset]:
                        break
                    last = offset
                    del offsets[offset]
                if last is not None:
                    found[partition] = OffsetAndMetadata(last + 1, "", -1)
        return found

    def forget(self) -> None:
        """Read anew from the committed offsets, with another consumer."""
        with self._lock:
            self._pending.clear()

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Another process has them now; what it gets again is a duplicate to the ledger."""
        with self._lock:
            for partition in revoked:
                self._pending.pop(partition, None)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing to do: reading starts at the committed offset."""


class KafkaIngestor:
    """One member of the consumer group, feeding one pipeline."""

    def __init__(self, settings: Settings) -> None:
        if not settings.kafka_bootstrap:
            raise invalid("CHIMATA_KAFKA_BOOTSTRAP", "is not set: host:port,host:port")
        self._settings = settings
        self._secret = load_secret(settings)
        self._progress = Progress()
        self._pipeline = Pipeline(settings, self._settle)
        self._servers = settings.kafka_bootstrap.split(",")
        self._producer: KafkaProducer | None = None

    def run(self, stop: threading.Event, on_ready: Callable[[], None] = lambda: None) -> None:
        """Consume until `stop`; brokers that are away are waited for."""
        self._pipeline.start()
        try:
            while not stop.is_set():
                try:
                    self._consume(stop, on_ready)
                except KafkaError as error:
                    log.warning("Kafka is away (%s); trying again", error)
                    stop.wait(RETRY_SECONDS)
        finally:
            self._pipeline.stop()
            if self._producer is not None:
                self._producer.close(timeout=5)

    def _consume(self, stop: threading.Event, on_ready: Callable[[], None]) -> None:
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self._servers, acks="all", linger_ms=5, max_block_ms=10_000
            )
        consumer = KafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=self._settings.kafka_group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=RECORDS_A_POLL_MAX,
            metadata_max_age_ms=METADATA_MILLISECONDS,
            max_partition_fetch_bytes=2 * self._settings.body_bytes_max,
            check_crcs=False,  # the gateway's signature covers all that we read of a record
        )
        self._progress.forget()
        pattern = rf"^chimata\.({'|'.join(domains.names())})\..+"
        consumer.subscribe(pattern=pattern, listener=self._progress)
        try:
            self._loop(consumer, stop, on_ready)
        finally:
            consumer.close(autocommit=False)

    def _loop(
        self, consumer: KafkaConsumer, stop: threading.Event, on_ready: Callable[[], None]
    ) -> None:
        committed_at = time.monotonic()
        ready = paused = False
        while not stop.is_set():
            # Polling goes on while the pipeline is full, or the group would take us for dead.
            if self._pipeline.budget.full != paused:
                paused = not paused
                (consumer.pause if paused else consumer.resume)(*consumer.assignment())
            found = consumer.poll(timeout_ms=POLL_MILLISECONDS)
            for partition, records in found.items():
                for record in records:
                    self._progress.received(partition, record.offset)
                    self._pipeline.submit(self._as_raw(partition, record))
            if time.monotonic() - committed_at > COMMIT_SECONDS:
                committed_at = time.monotonic()
                offsets = self._progress.take()
                if offsets:
                    consumer.commit(offsets)
            if not ready:
                ready = True
                on_ready()

    def _as_raw(self, partition: TopicPartition, record: Any) -> Raw:
        """A record with its headers; one whose signature does not hold is refused with a reason."""
        _, sector, form = record.topic.split(".", 2)
        # A header's value may be null.
        headers = {
            name: (value or b"").decode("utf-8", "replace") for name, value in record.headers
        }
        gateway = (record.key or b"").decode("utf-8", "replace")
        boot, seq = headers.get("boot"), headers.get("seq")
        payload = record.value or b""
        refuse = None
        try:
            self._check(record, gateway, boot, seq, headers.get(SIGNATURE, ""))
        except CityError as error:
            refuse, boot, seq = ("bad-signature", str(error)), None, None
        tag = (partition, record.offset)
        return Raw("kafka", sector, gateway, form, payload, boot, seq, tag, refuse=refuse)

    def _check(
        self, record: Any, gateway: str, boot: str | None, seq: str | None, signature: str
    ) -> None:
        """CityError unless the gateway that the record names has signed it."""
        if boot is None or seq is None or not DECIMAL.fullmatch(seq):
            raise CityError("unauthenticated", "boot, seq: headers are missing or not valid")
        topic, payload = record.topic, record.value or b""
        check_batch_signature(self._secret, topic, gateway, boot, int(seq), payload, signature)

    def _settle(self, settled: Settled) -> None:
        try:
            if self._producer is not None:
                for gateway, payload in receipts(settled):
                    self._producer.send(RECEIPTS_TOPIC, payload, gateway.encode())
        finally:
            # Committed whether the receipts went or not: a gateway that hears nothing sends again,
            # but an offset left behind would hold up all that follow it.
            for raw, _ in settled:
                self._progress.settled(*raw.tag)


def run(settings: Settings, on_ready: Callable[[], None] = lambda: None) -> None:
    """Ingest until SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    KafkaIngestor(settings).run(stop, on_ready)
