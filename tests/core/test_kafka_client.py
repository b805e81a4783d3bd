"""kafka-python over wide sockets: one read takes what has come, and nothing is lost by it."""

import os
import socket

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from core.kafka_client import KafkaClient, WideSocket
from tests.kafka_server import KafkaServer

RECORDS, RECORD_BYTES = 12, 300_000


def test_one_read_takes_more_than_was_asked_for() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(bytes(20_000))
        wide = WideSocket(near)
        assert len(wide.recv(4096)) == 20_000
        assert wide.fileno() == near.fileno()  # a selector waits on it as on the socket itself


@pytest.mark.kafka
def test_a_consumer_reads_widely_and_gets_every_byte(kafka_server: KafkaServer) -> None:
    topic = "wide-reads"
    sent = [os.urandom(RECORD_BYTES) for _ in range(RECORDS)]
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap, max_request_size=1 << 20)
    for payload in sent:
        producer.send(topic, payload)
    producer.close()
    consumer = KafkaConsumer(
        bootstrap_servers=kafka_server.bootstrap,
        kafka_client=KafkaClient,
        auto_offset_reset="earliest",
        consumer_timeout_ms=10_000,
    )
    consumer.assign([TopicPartition(topic, 0)])
    received = [next(consumer).value for _ in range(RECORDS)]
    # kafka-python's own transports: an update that makes them elsewhere must not go unnoticed.
    sockets = [conn.transport._sock for conn in consumer._manager._conns.values()]
    consumer.close()
    assert received == sent
    assert sockets
    assert all(isinstance(each, WideSocket) for each in sockets)
