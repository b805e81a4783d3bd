"""Kafka sender: signed records on chimata.{sector}.{format}, receipts from chimata.receipts.

A bearer token would lie in the log for all who may read it, so each record carries a signature made
with the key that the gateway's token holds (`core.tokens.sign_batch`).
"""

import contextlib
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from core.errors import invalid
from core.kafka_client import KafkaClient
from core.tokens import sign_batch
from gateways import receipts
from gateways.batches import Batch
from gateways.receipts import Receipt

RECEIPTS_TOPIC = "chimata.receipts"
REQUEST_BYTES_MAX = 9 * 1024 * 1024
LINGER_MS = 5
METADATA_MS_MAX = 10_000
POLL_RECORDS_MAX = 1_000
BACKOFF_SECONDS_MIN, BACKOFF_SECONDS_MAX = 0.5, 5.0
PROTOCOLS = {
    ("kafka", False): "PLAINTEXT",
    ("kafka", True): "SASL_PLAINTEXT",
    ("kafkas", False): "SSL",
    ("kafkas", True): "SASL_SSL",
}


@dataclass(frozen=True, slots=True)
class Target:
    """Bootstrap servers, and the options that producer and consumer share."""

    servers: tuple[str, ...]
    options: dict[str, Any]


def parse_url(url: str) -> Target:
    """kafka[s]://[user:password@]host:port[,host:port][?sasl=PLAIN&ca=FILE]; else `invalid`."""
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    servers = tuple(host for host in hosts.split(",") if host)
    if not servers:
        raise invalid("to", f"{url!r} is not of the form kafka://host:port")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    options: dict[str, Any] = {"security_protocol": PROTOCOLS[parts.scheme, bool(account)]}
    if account:
        user, _, password = account.partition(":")
        options["sasl_mechanism"] = query.get("sasl", "PLAIN")
        options["sasl_plain_username"] = unquote(user)
        options["sasl_plain_password"] = unquote(password)
    if "ca" in query:
        options["ssl_cafile"] = query["ca"]
    return Target(servers, options)


class KafkaSender:
    """Produces batches of one gateway and reads all partitions of the receipts topic."""

    def __init__(self, url: str, gateway: str, token: str) -> None:
        self.target = parse_url(url)
        self.gateway, self._token = gateway, token
        self.connection = 0
        self.trouble: str | None = "not connected yet"
        self._producer: Any = None
        self._consumer: Any = None
        self._next_try = 0.0
        self._backoff_seconds = BACKOFF_SECONDS_MIN

    def send(self, batch: Batch) -> bool:
        """Produce one signed record. See `gateways.delivery.Sender`."""
        if not self._connected():
            return False
        topic = f"chimata.{batch.sector}.{batch.format}"
        signature = sign_batch(self._token, topic, batch.boot, batch.seq, batch.payload)
        headers = [
            ("boot", batch.boot.encode()),
            ("seq", str(batch.seq).encode()),
            ("gateway", self.gateway.encode()),
            ("chimata-signature", signature.encode()),
        ]
        try:
            sent = self._producer.send(
                topic, key=self.gateway.encode(), value=batch.payload, headers=headers
            )
        except KafkaError as error:
            self.trouble = f"{type(error).__name__}: {error}"
            return False
        sent.add_errback(self._note)
        return True

    def _note(self, error: BaseException) -> None:
        """A record that was not taken has no receipt, and so is sent again; this is for people."""
        self.trouble = f"{type(error).__name__}: {error}"

    def receipts(self, wait_seconds: float) -> list[Receipt]:
        """Receipts of this gateway."""
        if not self._connected():
            time.sleep(max(0.0, min(wait_seconds, self._next_try - time.monotonic())))
            return []
        found: list[Receipt] = []
        try:
            polled = self._consumer.poll(
                timeout_ms=int(wait_seconds * 1000), max_records=POLL_RECORDS_MAX
            )
        except KafkaError as error:
            self._note(error)
            return []
        for records in polled.values():
            found.extend(self._receipts_in(records))
        if found:
            self.trouble = None
        return found

    def _receipts_in(self, records: list[Any]) -> list[Receipt]:
        found: list[Receipt] = []
        for record in records:
            if record.key == self.gateway.encode() and record.value is not None:
                with contextlib.suppress(receipts.BadReceipt, ValueError):
                    found.append(receipts.parse(record.value))
        return [receipt for receipt in found if receipt.gateway == self.gateway]

    def close(self) -> None:
        """Close both clients; what was not produced stays in the outbox."""
        for client in (self._producer, self._consumer):
            if client is not None:
                with contextlib.suppress(KafkaError):
                    client.close()

    def _connected(self) -> bool:
        if self.connection:
            return True
        if time.monotonic() < self._next_try:
            return False
        try:
            self._connect()
        except (KafkaError, OSError) as error:
            self._note(error)
            self.close()
            self._producer = self._consumer = None
            self._next_try = time.monotonic() + self._backoff_seconds
            self._backoff_seconds = min(self._backoff_seconds * 2, BACKOFF_SECONDS_MAX)
            return False
        self.connection, self.trouble = 1, None
        return True

    def _connect(self) -> None:
        """The receipts' consumer first, at the end of its topic: no receipt may be missed."""
        common = {
            "bootstrap_servers": list(self.target.servers),
            "kafka_client": KafkaClient,
            **self.target.options,
        }
        self._producer = KafkaProducer(
            **common,
            acks="all",
            linger_ms=LINGER_MS,
            max_request_size=REQUEST_BYTES_MAX,
            max_block_ms=METADATA_MS_MAX,
        )
        # Asked by the producer, since its metadata request also makes the topic where that is on.
        numbers = self._producer.partitions_for(RECEIPTS_TOPIC)
        if not numbers:
            raise KafkaError(f"there is no topic {RECEIPTS_TOPIC}")
        self._consumer = KafkaConsumer(**common, group_id=None, enable_auto_commit=False)
        partitions = [TopicPartition(RECEIPTS_TOPIC, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)
