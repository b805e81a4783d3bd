"""The Kafka ingestor: a consumer group whose offsets are committed after the database commit."""

import logging
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

import domains
from core.errors import CityError, invalid
from core.kafka_client import KafkaClient
from core.settings import Settings
from core.tokens import check_batch_signature, load_secret
from ingest.pipeline import Pipeline, Raw, Settled
from ingest.receipts import receipts

log = logging.getLogger("chimata.ingest.kafka")

RECEIPTS_TOPIC = "chimata.receipts"
POLL_MILLISECONDS = 200
RECORDS_A_POLL_MAX = 500
PARTITION_BYTES_MAX = 1 * 1024 * 1024
"""What one answer may hold of a partition: it is held beside what the pipeline holds."""
COMMIT_SECONDS = 0.5
METADATA_MILLISECONDS = 3_000
SESSION_MILLISECONDS = 10_000
"""After so long without a word from a member its partitions go to the others."""
JOIN_MILLISECONDS = 30_000
"""After so long, and 5 s, joining the group is tried again. Of itself kafka-python waits for five
minutes where the broker's answer was lost, reading nothing. Polls are tenths of a second apart."""
RETRY_SECONDS = 2.0
SIGNATURE = "chimata-signature"
DECIMAL = re.compile(r"[0-9]{1,16}")  # as many digits as 2**53 has


Commit = Callable[[dict[TopicPartition, OffsetAndMetadata]], Any]


class Progress(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """What of our partitions was fetched, is under way, and may be committed.

    An offset may be committed once it and all before it are settled. The listener runs inside
    `poll`, so never beside the other methods but `settled`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fetched: deque[tuple[TopicPartition, Any]] = deque()
        self._pending: dict[TopicPartition, dict[int, bool]] = {}
        self._commit: Commit = lambda _: None
        self._rejoin: Callable[[], None] = lambda: None

    def start(self, commit: Commit, rejoin: Callable[[], None] = lambda: None) -> None:
        """Read from the committed offsets on, with another consumer, whose these are."""
        with self._lock:
            self._commit, self._rejoin = commit, rejoin
            self._fetched.clear()
            self._pending.clear()

    def fetched(self, partition: TopicPartition, records: Iterable[Any]) -> None:
        """Records came, in the order of their offsets."""
        self._fetched.extend((partition, record) for record in records)

    def hand_over(self, take: Callable[[TopicPartition, Any], bool]) -> bool:
        """Offer what was fetched, in order, until one is not taken; whether all of it was."""
        while self._fetched:
            partition, record = self._fetched[0]
            with self._lock:
                self._pending.setdefault(partition, {})[record.offset] = False
            if not take(partition, record):
                with self._lock:
                    del self._pending[partition][record.offset]
                return False
            self._fetched.popleft()
        return True

    def settled(self, partition: TopicPartition, offset: int) -> None:
        """Its transaction is committed."""
        with self._lock:
            offsets = self._pending.get(partition, {})
            if offset in offsets:
                offsets[offset] = True

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

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """Commit what is settled while the partitions are ours, and forget the rest.

        What is under way is read again by whoever gets them, and is a duplicate to the ledger; an
        offset of it committed from here would be one that nobody vouches for.
        """
        # kafka-python 3.0 forgets a join that a change of topics began and that outlasts a poll: it
        # would stay out of the group, reading nothing. What is asked for holds until it has joined.
        self._rejoin()
        offsets = self.take()
        if offsets:
            try:
                await self._commit(offsets)
            except KafkaError as error:
                log.warning("offsets not committed at a rebalance: %s", error)
        await self.on_partitions_lost(revoked)

    async def on_partitions_lost(self, lost: Any) -> None:
        """Another process has them already."""
        gone = set(lost)
        self._fetched = deque(each for each in self._fetched if each[0] not in gone)
        with self._lock:
            for partition in gone:
                self._pending.pop(partition, None)

    async def on_partitions_assigned(self, assigned: Any) -> None:
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
                    self._pipeline.reconnects += 1
                    log.warning("Kafka is away (%s); trying again", error)
                    stop.wait(RETRY_SECONDS)
        finally:
            self._pipeline.stop()
            if self._producer is not None:
                self._producer.close(timeout=5)

    def _consume(self, stop: threading.Event, on_ready: Callable[[], None]) -> None:
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self._servers,
                acks="all",
                linger_ms=5,
                max_block_ms=10_000,
                kafka_client=KafkaClient,
            )
        consumer = KafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=self._settings.kafka_group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=RECORDS_A_POLL_MAX,
            metadata_max_age_ms=METADATA_MILLISECONDS,
            # Of each partition there is always one record at least, however large.
            fetch_max_bytes=self._settings.body_bytes_max,
            max_partition_fetch_bytes=PARTITION_BYTES_MAX,
            check_crcs=False,  # the gateway's signature covers all that we read of a record
            session_timeout_ms=SESSION_MILLISECONDS,
            max_poll_interval_ms=JOIN_MILLISECONDS,
            # Over all topics: by topic (the default), one member would get every small topic.
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
            kafka_client=KafkaClient,
        )
        self._progress.start(consumer.commit_async, consumer._coordinator.request_rejoin)
        pattern = rf"^chimata\.({'|'.join(domains.names())})\..+"
        consumer.subscribe(pattern=pattern, listener=self._progress)
        try:
            self._loop(consumer, stop, on_ready)
        finally:
            if stop.is_set():
                self._pipeline.stop()  # what it still settles is committed by the close
            consumer.close(autocommit=False)

    def _loop(
        self, consumer: KafkaConsumer, stop: threading.Event, on_ready: Callable[[], None]
    ) -> None:
        committed_at = time.monotonic()
        ready = False
        while not stop.is_set():
            # Polling goes on while the pipeline is full, or the group would take us for dead.
            handed = self._progress.hand_over(self._submit)
            if not handed or self._pipeline.budget.full:
                consumer.pause(*consumer.assignment())
            elif consumer.paused():
                consumer.resume(*consumer.paused())
            found = consumer.poll(timeout_ms=POLL_MILLISECONDS if handed else 0)
            for partition, records in found.items():
                self._progress.fetched(partition, records)
            if time.monotonic() - committed_at > COMMIT_SECONDS:
                committed_at = time.monotonic()
                offsets = self._progress.take()
                if offsets:
                    consumer.commit(offsets)
            if not ready:
                ready = True
                on_ready()

    def _submit(self, partition: TopicPartition, record: Any) -> bool:
        raw = self._as_raw(partition, record)
        return self._pipeline.submit(raw, POLL_MILLISECONDS / 1000)

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
