"""A sector's store after failures: nothing uncommitted is shown, nothing is looked for twice."""

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass, ObservationsBuilder
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session

NOW = 1_790_000_000_000_000
SECTOR = Sector(
    "toy", "例", "Toy", DataClass.OPEN, (), (ObservedProperty("level", "水位", "Level", "m"),)
)


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        yield session


def message(time: int, result: float) -> Message:
    builder = ObservationsBuilder()
    builder.add("t", "level", time, result)
    builder.messages = 1
    payload = f"{time} {result}".encode()
    digest = hashlib.sha256(payload).digest()
    return Message("g", "json", "test", NOW, payload, digest, builder.build())


def flush(store: SectorStore, connection: psycopg.Connection[Any]) -> bool:
    """Write what the store drains; whether there was anything."""
    drained = store.drain()
    if drained is not None:
        drained.write(connection)
        connection.commit()
    return drained is not None


def projected(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT append_id FROM projection").fetchone()
    connection.commit()
    return int(row[0]) if row else 0


def test_appends_without_news_are_not_looked_through_at_every_start(
    connection: psycopg.Connection[Any],
) -> None:
    """A long recording of the past: its appends change no latest value, but are done with."""
    store = SectorStore(SECTOR)
    store.append(connection, [message(NOW, 1.0)])
    flush(store, connection)
    store._latest._spoken["changed"] = False
    for number in range(5):
        store.append(connection, [message(NOW - 10**9 - number, 1.0)])
    flush(store, connection)
    assert projected(connection) == 6
    assert not flush(store, connection)


def test_an_append_that_failed_at_its_commit_is_not_drained(
    connection: psycopg.Connection[Any], storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SectorStore(SECTOR)
    store.append(connection, [message(NOW, 1.0)])
    flush(store, connection)

    def break_before_commit() -> None:
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "commit", break_before_commit)
    with pytest.raises(psycopg.OperationalError):
        store.append(connection, [message(NOW + 1, 2.0)])
    assert store.drain() is None
    with open_session(storage_url, DatabaseRole.INGEST) as another:
        (outcome,) = store.append(another, [message(NOW + 1, 2.0)])
        assert (outcome.counts.stored, outcome.counts.duplicate) == (1, 0)
        flush(store, another)
        assert another.execute("SELECT result FROM latest").fetchall() == [(2.0,)]


def test_an_unsure_commit_that_this_server_never_saw_is_no_dead_end(
    connection: psycopg.Connection[Any],
) -> None:
    """After a failover to an older copy the transaction's number lies in the future."""
    store = SectorStore(SECTOR)
    store.append(connection, [message(NOW, 1.0)])
    store._unsure = ("999999999999", [])
    (outcome,) = store.append(connection, [message(NOW + 1, 2.0)])
    assert outcome.counts.stored == 1


def test_a_settled_doubt_leaves_no_transaction_open(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    connection.commit()
    assert row is not None
    store._unsure = (row[0], [])
    assert store.append(connection, []) == []
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
