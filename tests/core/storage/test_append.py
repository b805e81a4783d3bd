"""The append contract on embedded PostgreSQL and TimescaleDB: keys once, counts true."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import from_datetime
from core.sector import ObservedProperty, Sector
from core.sensorthings import (
    DataClass,
    Decoded,
    Numbers,
    ObservationsBuilder,
    Position,
    ResultKind,
    Stream,
)
from core.storage.account import account
from core.storage.message import Message, Outcome
from core.storage.observations import SectorStore

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
SECTOR = Sector(
    "toy",
    "例",
    "Toy",
    DataClass.OPEN,
    (),
    (
        ObservedProperty("level", "水位", "Level", "m"),
        ObservedProperty("state", "状態", "State", kind=ResultKind.CATEGORY, vocabulary=("a", "b")),
        ObservedProperty("position", "位置", "Position", kind=ResultKind.POSITION),
        ObservedProperty("note", "記録", "Note", kind=ResultKind.DOCUMENT),
    ),
)
PERSONAL = Sector("private", "私", "Private", DataClass.PERSONAL, (), SECTOR.properties)


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(storage_url) as session:
        session.execute("SET ROLE chimata_ingest")
        session.commit()
        yield session


def message(
    decoded: Decoded, seq: int | None = None, payload: bytes = b"x", gateway: str = "g"
) -> Message:
    boot = None if seq is None else "b"
    digest = hashlib.sha256(payload).digest()
    return Message(gateway, "json", "test", NOW, payload, digest, decoded, boot, seq)


def decoded(*observations: tuple[str, str, int, Any]) -> Decoded:
    builder = ObservationsBuilder()
    for observation in observations:
        builder.add(*observation)
    builder.messages = len(observations)
    return builder.build()


def rows(connection: psycopg.Connection[Any], table: str = "observation") -> list[Any]:
    found = connection.execute(
        f"SELECT t.key, d.property, o.* FROM {table} o JOIN datastream d ON d.id = o.datastream_id"
        " JOIN thing t ON t.id = d.thing_id ORDER BY 1, 2, phenomenon_time"
    ).fetchall()
    connection.commit()
    return found


def counts(outcome: Outcome) -> tuple[int, int, int, int]:
    c = outcome.counts
    return (c.received, c.stored, c.duplicate, c.rejected)


def test_every_kind_is_stored_and_counted(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    given_ = decoded(
        ("t1", "level/1", NOW, 1.5),
        ("t1", "state", NOW, "a"),
        ("t1", "position", NOW, Position(139.7, 35.6, 3.0)),
        ("t1", "note", NOW, {"text": "異常なし"}),
    )
    (outcome,) = store.append(connection, [message(given_, 0)])
    assert (outcome.result, counts(outcome)) == ("stored", (4, 4, 0, 0))
    assert len(rows(connection)) == 2
    assert len(rows(connection, "observation_position")) == 1
    assert rows(connection, "observation_document")[0][-1] == {"text": "異常なし"}
    (line,) = account(connection)
    assert line.adds_up and line.stored == 4 and line.messages == 4


def test_a_redelivered_batch_is_a_no_op_and_other_bytes_conflict(
    connection: psycopg.Connection[Any],
) -> None:
    store = SectorStore(SECTOR)
    batch = message(decoded(("t", "level", NOW, 1.0), ("t", "level", NOW + 1, 2.0)), 7)
    other = message(decoded(("t", "level", NOW + 2, 1.0)), 7, b"other")
    first, again = store.append(connection, [batch, batch])
    assert (first.result, counts(first)) == ("stored", (2, 2, 0, 0))
    assert (again.result, counts(again)) == ("duplicate", (2, 0, 2, 0))
    fresh_process = SectorStore(SECTOR)
    (third, conflict) = fresh_process.append(connection, [batch, other])
    assert third.result == "duplicate"
    assert (conflict.result, conflict.reason) == ("refused", "batch-conflict")
    assert len(rows(connection)) == 2
    (line,) = account(connection)
    assert line.adds_up and (line.received, line.stored) == (7, 2)


def test_duplicates_and_corrections_by_key(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)

    def send(*results: float) -> Outcome:
        found = decoded(*(("t", "level", NOW, result) for result in results))
        return store.append(connection, [message(found)])[0]

    assert counts(send(1.0, 1.0)) == (2, 1, 1, 0)
    assert counts(send(2.0)) == (1, 1, 0, 0)  # a correction: both are kept
    assert counts(send(1.0)) == (1, 0, 1, 0)  # the old result again is no new correction
    assert counts(send(float("nan"), float("nan"))) == (2, 1, 1, 0)
    assert len(rows(connection)) == 1
    kept = connection.execute("SELECT result FROM superseded ORDER BY append_id").fetchall()
    assert kept == [(1.0,), (2.0,)]


def test_another_process_is_seen(connection: psycopg.Connection[Any]) -> None:
    """Marks of late rows hold across processes, also over a crash before any flush."""
    a, b = SectorStore(SECTOR), SectorStore(SECTOR)
    one = decoded(("t", "level", NOW, 1.0), ("u", "note", NOW, {"n": 1}))
    two = decoded(("t", "level", NOW + SECOND, 2.0))
    assert counts(a.append(connection, [message(one)])[0])[1] == 2
    assert counts(b.append(connection, [message(one)])[0]) == (2, 0, 2, 0)
    assert counts(b.append(connection, [message(two)])[0])[1] == 1
    assert counts(a.append(connection, [message(two)])[0]) == (1, 0, 1, 0)
    assert counts(SectorStore(SECTOR).append(connection, [message(two)])[0]) == (1, 0, 1, 0)


def test_a_process_far_behind_catches_up(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.storage.observations.CATCH_UP_MAX", 2)
    behind, busy = SectorStore(SECTOR), SectorStore(SECTOR)
    behind.append(connection, [message(decoded(("t", "level", NOW, 0.0)))])
    for k in range(5):
        busy.append(connection, [message(decoded(("t", "level", NOW + k * SECOND, float(k))))])
    again = decoded(("t", "level", NOW + 3 * SECOND, 3.0), ("t", "level", NOW + 9 * SECOND, 9.0))
    assert counts(behind.append(connection, [message(again)])[0]) == (2, 1, 1, 0)
    assert len(rows(connection)) == 6


def test_bulk_rows_are_corrected_like_single_ones(connection: psycopg.Connection[Any]) -> None:
    """Direct compress on TimescaleDB must not change what a duplicate or a correction is."""
    store = SectorStore(SECTOR)
    count = 120_000
    streams = tuple(Stream(f"t{k}", "level") for k in range(4))
    index = np.arange(count, dtype=np.int32)
    times = NOW - (count - index.astype(np.int64)) * 10_000
    bulk = Decoded(streams, Numbers(index % 4, times, index.astype(np.float64)), messages=count)
    assert counts(store.append(connection, [message(bulk, 0)])[0]) == (count, count, 0, 0)
    changed = bulk.numbers.result.copy() if bulk.numbers else np.zeros(0)
    changed[::1000] += 0.5
    again = Decoded(streams, Numbers(index % 4, times, changed), messages=count)
    outcome = store.append(connection, [message(again, 1, b"y")])[0]
    assert counts(outcome) == (count, 120, count - 120, 0)
    found = connection.execute("SELECT count(*), sum(result) FROM observation").fetchone()
    assert found == (count, changed.sum())


def test_old_and_new_times_find_their_place(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    year = 365 * 86_400 * SECOND
    observations = [("t", "level", NOW - k * year // 7, float(k)) for k in range(70)]
    (outcome,) = store.append(connection, [message(decoded(*observations), 1)])
    assert counts(outcome) == (70, 70, 0, 0)
    assert len(rows(connection)) == 70


def test_a_result_of_another_kind_is_rejected_alone(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    store.append(connection, [message(decoded(("t", "other", NOW, 1.0)))])
    mixed = decoded(("t", "other", NOW + 1, "text"), ("t", "level", NOW, 1.0))
    (outcome,) = store.append(connection, [message(mixed)])
    assert counts(outcome) == (2, 1, 0, 1)
    connection.execute("RESET ROLE")
    (kept,) = connection.execute("SELECT reason, detail FROM rejection").fetchall()
    assert kept[0] == "datastream-conflict" and "category" in kept[1]


def test_personal_rows_lie_apart_and_unseen(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(PERSONAL)
    given_ = decoded(("p", "level", NOW, 1.0))
    assert counts(store.append(connection, [message(given_)])[0]) == (1, 1, 0, 0)
    assert counts(store.append(connection, [message(given_)])[0]) == (1, 0, 1, 0)
    assert rows(connection) == []
    for role in ("chimata_ingest", "chimata_read"):
        connection.execute(f"SET ROLE {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM personal.observation")
        connection.rollback()
    connection.execute("SET ROLE chimata_gate")
    assert connection.execute("SELECT count(*) FROM personal.observation").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM latest").fetchone() == (0,)


def test_the_projection_is_newest_wins_and_rebuildable(connection: psycopg.Connection[Any]) -> None:
    store = SectorStore(SECTOR)
    store.append(connection, [message(decoded(("t", "level", NOW, 2.0)))])
    store.append(connection, [message(decoded(("t", "level", NOW - SECOND, 1.0)))])
    store.append(connection, [message(decoded(("t", "level", NOW, 3.0)))])
    flush = store.drain()
    assert flush is not None
    flush.write(connection)
    connection.commit()
    assert connection.execute("SELECT result FROM latest").fetchall() == [(3.0,)]
    # A process that died before its flush: the next one finds what it appended.
    store.append(connection, [message(decoded(("t", "level", NOW + SECOND, 4.0)))])
    heir = SectorStore(SECTOR)
    heir.append(connection, [message(decoded(("u", "level", NOW, 0.0)))])
    flush = heir.drain()
    assert flush is not None
    flush.write(connection)
    connection.commit()
    newest = connection.execute("SELECT result FROM latest ORDER BY result").fetchall()
    assert newest == [(0.0,), (4.0,)]


def test_a_lost_answer_to_commit_is_asked_for(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the server committed: the repeat returns what was stored."""
    store = SectorStore(SECTOR)
    found = message(decoded(("t", "level", NOW, 1.0)))
    commit = connection.commit

    def break_after_commit() -> None:
        commit()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    store.append(connection, [message(decoded(("t", "level", NOW - 1, 1.0)))])
    monkeypatch.setattr(connection, "commit", break_after_commit)
    with pytest.raises(psycopg.OperationalError):
        store.append(connection, [found])
    monkeypatch.undo()
    (outcome,) = store.append(connection, [found])
    assert counts(outcome) == (1, 1, 0, 0)
    assert len(rows(connection)) == 2


keys = st.tuples(st.sampled_from("tuv"), st.integers(0, 5), st.integers(0, 3))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(keys, min_size=1, max_size=12), min_size=1, max_size=6), st.data())
def test_any_order_gives_every_key_once_and_true_counts(
    connection: psycopg.Connection[Any], batches: list[list[tuple[str, int, int]]], data: Any
) -> None:
    """Against a naive model: a dict of keys to the results seen, in order of arrival."""
    connection.rollback()
    connection.execute("RESET ROLE")
    connection.execute(
        "TRUNCATE observation, superseded, latest, projection, account, account_total, append"
    )
    connection.commit()
    stores = [SectorStore(SECTOR), SectorStore(SECTOR)]
    seen: dict[tuple[str, int], list[int]] = {}
    for batch in batches:
        stored = 0
        for thing, time, result in batch:
            before = seen.setdefault((thing, time), [])
            if result not in before:
                before.append(result)
                stored += 1
        found = decoded(*((t, "level", NOW + s * SECOND, float(r)) for t, s, r in batch))
        store = data.draw(st.sampled_from(stores))
        (outcome,) = store.append(connection, [message(found)])
        assert counts(outcome) == (len(batch), stored, len(batch) - stored, 0)
    served = {(row[0], from_datetime(row[2])): row[3] for row in rows(connection)}
    assert len(rows(connection)) == len(served)
    assert served == {(t, NOW + s * SECOND): float(found[-1]) for (t, s), found in seen.items()}
    (line,) = account(connection)
    assert line.adds_up


@pytest.mark.parametrize(("streams", "each", "compressed"), [(12_000, 1, False), (100, 120, True)])
def test_only_dense_appends_go_straight_to_the_columnstore(
    connection: psycopg.Connection[Any], streams: int, each: int, compressed: bool
) -> None:
    """One row of each Datastream would cost eight times the time and six times the bytes there."""
    native = connection.execute("SELECT to_regclass('partition_range')").fetchone() != (None,)
    named = tuple(Stream(f"t{number}", "level") for number in range(streams))
    stream = np.repeat(np.arange(streams, dtype=np.int32), each)
    times = NOW + np.tile(np.arange(each), streams) * SECOND
    numbers = Numbers(stream, times, np.ones(len(stream)))
    store = SectorStore(SECTOR)
    (outcome,) = store.append(connection, [message(Decoded(named, numbers, messages=len(stream)))])
    assert counts(outcome) == (streams * each, streams * each, 0, 0)
    if native:
        return
    chunks = connection.execute(
        "SELECT bool_or(is_compressed) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = 'observation'"
    ).fetchone()
    assert chunks == (compressed,)
