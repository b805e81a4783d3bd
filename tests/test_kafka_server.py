"""The test broker is a real Kafka: kafka-python produces, consumes, and finds all after a crash."""

import os
import uuid

import pytest
from kafka import KafkaConsumer, KafkaProducer

from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.kafka


def consume(server: KafkaServer, topic: str, expected: int) -> list[bytes]:
    """Read from the beginning until `expected` records came, or for 20 s of silence."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=server.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=20_000,
        max_partition_fetch_bytes=16 * 1024 * 1024,
    )
    values: list[bytes] = []
    try:
        for record in consumer:
            values.append(record.value)
            if len(values) == expected:
                break
    finally:
        consumer.close()
    return values


def produce(server: KafkaServer, topic: str, payloads: list[bytes]) -> None:
    """Send the payloads and wait for every acknowledgement."""
    producer = KafkaProducer(
        bootstrap_servers=server.bootstrap, acks="all", max_request_size=16 * 1024 * 1024
    )
    try:
        for future in [producer.send(topic, payload) for payload in payloads]:
            future.get(timeout=30)
    finally:
        producer.close()


def test_largest_batch_and_a_crash(kafka_server: KafkaServer) -> None:
    """An 8 MiB batch passes, and acknowledged records outlive kill -9."""
    topic = f"test.{uuid.uuid4().hex}"
    payloads = [b"small", os.urandom(8 * 1024 * 1024)]
    produce(kafka_server, topic, payloads)
    assert consume(kafka_server, topic, 2) == payloads
    kafka_server.restart()
    produce(kafka_server, topic, [b"after"])
    assert consume(kafka_server, topic, 3) == [*payloads, b"after"]
