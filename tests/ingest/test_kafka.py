"""The Kafka ingestor against a real Kafka: signatures, receipts, and offsets committed last."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import CommitFailedError
from kafka.net.connection import KafkaConnection
from kafka.structs import OffsetAndMetadata

from core.errors import CityError
from core.settings import Settings
from core.tokens import Keys, Role, issue, load_keys, sign_batch
from ingest.kafka import POLL_MILLISECONDS, RECEIPTS_TOPIC, KafkaIngestor, Progress
from tests.ingest.helpers import Database, changed, payload, until
from tests.kafka_server import KafkaServer

pytestmark = pytest.mark.timeout(240)
TOPIC = "chimata.farms.json"
_numbers = itertools.count()


@pytest.fixture
def here(settings: Settings, kafka_server: KafkaServer) -> Settings:
    """The installation, with a consumer group of this test's own that starts at the topics' end."""
    kafka_server.clear()
    group = f"test-{next(_numbers)}"
    own = changed(settings, kafka_bootstrap=kafka_server.bootstrap, kafka_group=group)
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap)
    producer.send(TOPIC, b"").get(30)  # makes the topic
    producer.close()
    consumer = KafkaConsumer(
        bootstrap_servers=kafka_server.bootstrap, group_id=group, enable_auto_commit=False
    )
    partition = TopicPartition(TOPIC, 0)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    consumer.commit({partition: OffsetAndMetadata(end, "", -1)})
    consumer.close()
    return own


@contextmanager
def ingestor(settings: Settings) -> Iterator[threading.Thread]:
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=KafkaIngestor(settings).run, args=(stop, ready.set))
    thread.start()
    try:
        assert ready.wait(60)
        yield thread
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


class Gateway:
    """A gateway that signs its batches, and reads its receipts from now on."""

    def __init__(self, settings: Settings, name: str = "g1") -> None:
        self.name = name
        self.token = issue(load_keys(settings.data / "keys"), Role.GATEWAY, gateway=name)
        self._producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all")
        self._producer.partitions_for(RECEIPTS_TOPIC)
        self._consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
        self._receipts = TopicPartition(RECEIPTS_TOPIC, 0)
        self._consumer.assign([self._receipts])
        self._consumer.seek_to_end(self._receipts)
        self._consumer.position(self._receipts)
        self.receipts: list[dict[str, Any]] = []

    def send(
        self, body: bytes, boot: str = "b", seq: int = 0, *, topic: str = TOPIC, **changes: Any
    ) -> int:
        """Send one signed batch; `changes` replace headers (None takes one away). Its offset."""
        signature = sign_batch(self.token, topic, boot, seq, body)
        headers: dict[str, Any] = {
            "boot": boot,
            "seq": str(seq),
            "gateway": self.name,
            "chimata-signature": signature,
        }
        headers |= {name.replace("_", "-"): value for name, value in changes.items()}
        encoded = [(k, str(v).encode()) for k, v in headers.items() if v is not None]
        sent = self._producer.send(topic, body, self.name.encode(), headers=encoded).get(30)
        return int(sent.offset)

    def send_raw(self, body: bytes | None, key: bytes | None, headers: list[Any]) -> None:
        self._producer.send(TOPIC, body, key, headers=headers).get(30)

    def stored(self) -> set[int]:
        """Every sequence that a receipt calls stored."""
        for records in self._consumer.poll(timeout_ms=100).values():
            for record in records:
                receipt = json.loads(record.value)
                assert record.key == receipt["gateway"].encode()
                if receipt["gateway"] == self.name:
                    self.receipts.append(receipt)
        ranges = [pair for receipt in self.receipts for pair in receipt["stored"]]
        return {seq for first, last in ranges for seq in range(first, last + 1)}

    def close(self) -> None:
        self._producer.close(timeout=5)
        self._consumer.close()


@pytest.fixture
def gateway(here: Settings) -> Iterator[Gateway]:
    started = Gateway(here)
    yield started
    started.close()


def committed(settings: Settings) -> int:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    try:
        found = admin.list_group_offsets({settings.kafka_group: None})[settings.kafka_group]
        return int(found[TopicPartition(TOPIC, 0)].offset)
    finally:
        admin.close()


@pytest.mark.kafka
def test_a_signed_batch_is_stored_and_its_receipt_is_the_contract_json(
    here: Settings, gateway: Gateway, database: Database
) -> None:
    with ingestor(here):
        gateway.send(payload(1.0, 2.0), "boot-1", 7)
        until(lambda: gateway.stored() == {7})
    assert gateway.receipts == [
        {
            "gateway": "g1",
            "boot": "boot-1",
            "stored": [[7, 7]],
            "batches": [
                {
                    "seq": 7,
                    "result": "stored",
                    "received": 2,
                    "stored": 2,
                    "duplicate": 0,
                    "rejected": 0,
                    "reason": None,
                    "detail": None,
                }
            ],
        }
    ]
    assert database.results() == [1.0, 2.0]


@pytest.mark.kafka
def test_a_repeat_is_a_duplicate_and_other_bytes_a_conflict(
    here: Settings, gateway: Gateway, database: Database
) -> None:
    body = payload(1.0)
    with ingestor(here):
        gateway.send(body)
        gateway.send(body)
        gateway.send(payload(2.0))
        until(lambda: gateway.stored() and sum(len(r["batches"]) for r in gateway.receipts) == 3)
    batches = [batch for receipt in gateway.receipts for batch in receipt["batches"]]
    assert [batch["result"] for batch in batches] == ["stored", "duplicate", "refused"]
    assert database.results() == [1.0]


@pytest.mark.kafka
def test_whatever_is_not_signed_is_refused_without_a_receipt_and_stops_nothing(
    here: Settings, gateway: Gateway, database: Database, keys: Keys
) -> None:
    body = payload(1.0)
    other = issue(keys, Role.GATEWAY, gateway="g2")
    expired = issue(keys, Role.GATEWAY, gateway="g1", lifetime_seconds=-3600)
    good = sign_batch(gateway.token, TOPIC, "b", 0, body)
    with ingestor(here):
        gateway.send(body, chimata_signature=None)
        gateway.send(body, chimata_signature="")
        gateway.send(body, chimata_signature="nonsense")
        gateway.send(body, chimata_signature=good[:-1] + ("0" if good[-1] != "0" else "1"))
        gateway.send(body, chimata_signature=sign_batch(other, TOPIC, "b", 0, body))
        gateway.send(body, chimata_signature=sign_batch(expired, TOPIC, "b", 0, body))
        gateway.send(body, chimata_signature=f"v1.x.{'9' * 5000}.{'a' * 64}")
        gateway.send(body, chimata_signature="v1.aa.99999999999.é")
        gateway.send(payload(2.0), chimata_signature=good)
        gateway.send(body, seq=1, chimata_signature=good)
        signature = ("chimata-signature", good.encode())
        gateway.send_raw(body, b"g1", [signature, ("seq", b"0")])
        for odd in (b"x", b"-1", b"", b"9" * 5000):
            gateway.send_raw(body, b"g1", [signature, ("boot", b"b"), ("seq", odd)])
        gateway.send_raw(body, b"g1", [("boot", b""), ("seq", b""), ("chimata-signature", b"")])
        gateway.send_raw(body, None, [])
        gateway.send_raw(body, b"\xff\xfe", [("boot", b"\xff"), ("seq", b"\xff")])
        gateway.send_raw(None, b"g1", [])
        gateway.send(payload(3.0), "good", 5)
        until(lambda: gateway.stored() == {5})
        counted = until(
            lambda: (
                database.query("SELECT sum(count) FROM rejection") == [(19,)]
                and database.query("SELECT DISTINCT reason FROM rejection")
            )
        )
    assert counted == [("bad-signature",)]
    assert [receipt["boot"] for receipt in gateway.receipts] == ["good"]
    assert database.results() == [3.0]
    assert all(row.adds_up for row in database.account())


@pytest.mark.kafka
def test_offsets_are_committed_after_the_database(
    here: Settings, gateway: Gateway, database: Database
) -> None:
    with ingestor(here):
        last = gateway.send(payload(0.0, thing="t0"), seq=0)
        until(lambda: committed(here) == last + 1)
        with database.locked():
            for seq in range(1, 5):
                gateway.send(payload(float(seq), thing=f"t{seq}"), seq=seq)
            time.sleep(2.0)
            assert committed(here) == last + 1
            assert gateway.stored() == {0}
        until(lambda: committed(here) == last + 5)
        assert len(database.results()) == 5
        until(lambda: gateway.stored() == set(range(5)))


@pytest.mark.kafka
def test_what_was_not_committed_is_read_again_by_the_next(
    here: Settings, gateway: Gateway, database: Database
) -> None:
    """The ingestor ends with messages that it holds: none of them is lost, none stored twice."""
    with ingestor(here):
        gateway.send(payload(0.0, thing="t0"), seq=0)
        until(lambda: gateway.stored() == {0})
    with database.locked(), ingestor(here):
        for seq in range(1, 6):
            gateway.send(payload(float(seq), thing=f"t{seq}"), seq=seq)
        time.sleep(1.0)
    assert database.results() == [0.0]
    with ingestor(here):
        until(lambda: gateway.stored() == set(range(6)))
    assert database.results() == [float(seq) for seq in range(6)]
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up and (line.stored, line.missing) == (6, 0)


@pytest.mark.kafka
def test_a_receipt_that_cannot_be_sent_holds_up_no_offset(
    here: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker does not take the receipt: the gateway sends again; the group goes on."""
    from kafka.errors import KafkaTimeoutError

    send = KafkaProducer.send

    def fails_once(self: Any, topic: str, *rest: Any, **more: Any) -> Any:
        if topic == RECEIPTS_TOPIC:
            monkeypatch.setattr(KafkaProducer, "send", send)
            raise KafkaTimeoutError("no room")
        return send(self, topic, *rest, **more)

    body = payload(1.0)
    with ingestor(here):
        monkeypatch.setattr(KafkaProducer, "send", fails_once)
        last = gateway.send(body)
        until(lambda: committed(here) == last + 1)
        assert gateway.stored() == set()
        gateway.send(body)
        until(lambda: gateway.stored() == {0})
        until(lambda: committed(here) == last + 2)


@pytest.mark.kafka
def test_two_members_divide_the_partitions(
    here: Settings, gateway: Gateway, database: Database, kafka_server: KafkaServer
) -> None:
    topic = f"chimata.farms.{'senml-json'}"
    if topic not in KafkaConsumer(bootstrap_servers=here.kafka_bootstrap).topics():
        kafka_server.create_topic(topic, partitions=4)
    with ingestor(here), ingestor(here):
        body = b'[{"n":"soil-moisture","bn":"t1/","v":1}]'
        gateway.send(body, "s", 0, topic=topic)
        for seq in range(20):
            gateway.send(payload(float(seq), thing=f"t{seq}"), seq=seq)
        until(lambda: gateway.stored() >= set(range(20)), 40)
    (json_line,) = [row for row in database.account() if row.format == "json"]
    assert json_line.adds_up and (json_line.stored, json_line.missing) == (20, 0)


@pytest.mark.kafka
def test_a_broker_that_restarts_is_waited_for(
    here: Settings, gateway: Gateway, database: Database, kafka_server: KafkaServer
) -> None:
    with ingestor(here) as thread:
        gateway.send(payload(0.0, thing="t0"), seq=0)
        until(lambda: gateway.stored() == {0})
        kafka_server.restart()
        gateway.send(payload(1.0, thing="t1"), seq=1)
        until(lambda: gateway.stored() == {0, 1}, 60)
        assert thread.is_alive()
    assert database.results() == [0.0, 1.0]


# -- without a broker ----


def test_no_bootstrap_is_one_clear_error(settings: Settings) -> None:
    with pytest.raises(CityError, match="CHIMATA_KAFKA_BOOTSTRAP"):
        KafkaIngestor(settings)


def test_a_header_may_be_null(settings: Settings) -> None:
    """Other clients than ours can send it, and it would come again at every start."""
    made = KafkaIngestor(changed(settings, kafka_bootstrap="127.0.0.1:1"))
    names = ("boot", "seq", "chimata-signature")
    record = SimpleNamespace(
        topic=TOPIC, offset=3, key=b"g1", value=None, headers=[(name, None) for name in names]
    )
    raw = made._as_raw(TopicPartition(TOPIC, 0), record)
    assert raw.refuse is not None
    assert raw.refuse[0] == "bad-signature"
    assert (raw.boot, raw.seq, raw.payload) == (None, None, b"")


def records(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


def offsets_of(committed: dict[Any, Any]) -> dict[TopicPartition, int]:
    return {partition: offset.offset for partition, offset in committed.items()}


class Coordinator:
    """Takes commits as a consumer's commit_async does: something to await."""

    def __init__(self) -> None:
        self.committed: list[dict[TopicPartition, int]] = []

    async def commit(self, offsets: dict[Any, Any]) -> None:
        self.committed.append(offsets_of(offsets))


def test_only_what_lies_before_the_first_unsettled_offset_is_committed() -> None:
    progress, partition = Progress(), TopicPartition("t", 0)
    progress.fetched(partition, records(3, 4, 7, 9))  # a compacted topic has gaps
    assert progress.hand_over(lambda *_: True)
    assert progress.take() == {}
    progress.settled(partition, 4)
    progress.settled(partition, 9)
    assert progress.take() == {}
    progress.settled(partition, 3)
    assert offsets_of(progress.take()) == {partition: 5}
    assert progress.take() == {}
    progress.settled(partition, 7)
    assert offsets_of(progress.take()) == {partition: 10}


def test_what_is_not_taken_is_offered_again_in_its_order() -> None:
    progress, partition = Progress(), TopicPartition("t", 0)
    progress.fetched(partition, records(1, 2, 3))
    taken: list[int] = []

    def take(_: TopicPartition, record: Any) -> bool:
        if record.offset == 2 and taken == [1]:
            taken.append(0)
            return False
        taken.append(record.offset)
        return True

    assert not progress.hand_over(take)
    progress.settled(partition, 1)
    assert offsets_of(progress.take()) == {partition: 2}
    assert progress.hand_over(take)
    assert taken == [1, 0, 2, 3]


def test_a_partition_that_moves_away_is_committed_as_far_as_it_is_settled() -> None:
    """And never after: what is under way, or only fetched, is its next owner's."""
    progress, coordinator = Progress(), Coordinator()
    here, kept = TopicPartition("t", 0), TopicPartition("t", 1)
    progress.start(coordinator.commit)
    progress.fetched(here, records(1, 2, 3))
    progress.fetched(kept, records(8))
    progress.hand_over(lambda partition, record: (partition, record.offset) != (here, 3))
    progress.settled(here, 1)
    asyncio.run(progress.on_partitions_revoked({here}))
    assert coordinator.committed == [{here: 2}]
    progress.settled(here, 2)
    assert progress.take() == {}
    offered: list[Any] = []
    assert progress.hand_over(lambda partition, _: offered.append(partition) is None)
    assert offered == [kept]
    progress.settled(kept, 8)
    asyncio.run(progress.on_partitions_lost({kept}))
    assert progress.take() == {}
    assert coordinator.committed == [{here: 2}]


def test_a_refused_commit_does_not_hold_up_a_rebalance() -> None:
    progress, partition = Progress(), TopicPartition("t", 0)

    async def refuse(_: Any) -> None:
        raise CommitFailedError("the group has moved on")

    progress.start(refuse)
    progress.fetched(partition, records(1))
    progress.hand_over(lambda *_: True)
    progress.settled(partition, 1)
    asyncio.run(progress.on_partitions_revoked({partition}))
    assert progress.take() == {}


@pytest.mark.kafka
def test_topics_that_come_later_are_read_though_joining_outlasts_a_poll(
    here: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new topic makes the group join again; kafka-python forgets that after the poll."""
    join = ConsumerCoordinator._do_join_and_sync_async

    async def slowly(self: ConsumerCoordinator) -> Any:
        found = await join(self)
        await self._manager._net.sleep(2 * POLL_MILLISECONDS / 1000)
        return found

    monkeypatch.setattr(ConsumerCoordinator, "_do_join_and_sync_async", slowly)
    with ingestor(here):
        gateway.send(payload(1.0), seq=0)
        until(lambda: 0 in gateway.stored())
        for seq, sector in enumerate(("edge", "ports", "signals"), start=1):
            gateway.send(payload(1.0), seq=seq, topic=f"chimata.{sector}.json")
            until(lambda seq=seq: seq in gateway.stored())  # type: ignore[misc]


@pytest.mark.kafka
def test_joining_is_tried_again_where_the_answer_was_lost(
    here: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python would wait for it for five minutes, in which nothing is read."""
    join_group = 11  # the protocol's key of JoinGroup
    received, lost = KafkaConnection.data_received, []

    def lossy(self: Any, data: bytes) -> None:
        waiting = self.parser.in_flight_requests
        if waiting and waiting[0].request_api_key == join_group and len(lost) < 2:
            lost.append(data)  # the first one only gives the member its name
            if len(lost) == 2:
                return
        received(self, data)

    monkeypatch.setattr(KafkaConnection, "data_received", lossy)
    with ingestor(here):
        gateway.send(payload(1.0), "boot-1", 7)
        until(lambda: gateway.stored() == {7}, seconds=60)
    assert len(lost) == 2
