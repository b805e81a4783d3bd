"""The account: what adds up, what is missing, and whose held messages count."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from core.storage import ledger
from core.storage.account import account
from core.storage.ledger import Counts, Pending
from core.storage.pool import DatabaseRole, open_session

NOW = 1_790_000_000_000_000 // ledger.HOUR_US * ledger.HOUR_US
_appends = itertools.count(1)


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        yield session


def take(
    connection: psycopg.Connection[Any], *seqs: int, gateway: str = "g", boot: str = "b"
) -> None:
    """Enter batches of one observation each, as an append does."""
    entries = [(gateway, boot, seq, "json", b"x", NOW, 1, 1, 0, 0) for seq in seqs]
    ledger.enter_batches(connection, "farms", next(_appends), entries)
    counts = Counts(len(seqs), 0, len(seqs), len(seqs))
    ledger.add_to_account(connection, [((gateway, "farms", "json", NOW), counts)])
    connection.commit()


def held(process: int, count: int, version: int = 1) -> Pending:
    row = ledger.pending_row(("g", "farms", "json", NOW), count, count)
    return Pending(process, "farms", version, [row] if count else [])


def soon(true: Callable[[], bool]) -> bool:
    """Whether it comes true within seconds: a busy server notices late that a session has ended."""
    until = time.monotonic() + 20
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_an_empty_account(connection: psycopg.Connection[Any]) -> None:
    assert account(connection) == []


def test_missing_sequences_are_counted_by_boot(connection: psycopg.Connection[Any]) -> None:
    take(connection, 0, 1, 2, 5, 9)
    take(connection, 3, 4, boot="later")  # a boot counts from 0: these three never came
    take(connection, 0, 2, gateway="h")
    by_gateway = {row.gateway: row for row in account(connection)}
    assert {name: row.missing for name, row in by_gateway.items()} == {"g": 8, "h": 1}
    assert by_gateway["g"].stored == 7
    assert all(row.adds_up for row in by_gateway.values())
    take(connection, 3, 4, 6, 7, 8)
    assert {row.gateway: row.missing for row in account(connection)} == {"g": 3, "h": 1}


def test_counts_of_several_hours_are_one_line(connection: psycopg.Connection[Any]) -> None:
    for hour in range(3):
        source = ("g", "farms", "json", NOW + hour * ledger.HOUR_US)
        ledger.add_to_account(connection, [(source, Counts(5, 1, 4, 2, 1, 1))])
    (line,) = account(connection)
    assert (line.messages, line.unchanged, line.received) == (15, 3, 12)
    assert (line.stored, line.duplicate, line.rejected, line.held) == (6, 3, 3, 0)
    assert line.adds_up


def test_an_account_that_does_not_add_up_says_so(connection: psycopg.Connection[Any]) -> None:
    source = ("g", "farms", "json", NOW)
    ledger.add_to_account(connection, [(source, Counts(1, 0, 2, 1, 0, 0))])
    (line,) = account(connection)
    assert not line.adds_up


def test_what_a_living_process_holds_counts_and_a_dead_ones_is_void(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    take(connection, 0)
    process = ledger.new_process()
    with open_session(storage_url, DatabaseRole.INGEST) as living:
        assert ledger.hold_process_lock(living, process)
        held(process, 7).replace(living)
        living.commit()
        (line,) = account(connection)
        assert (line.received, line.stored, line.held) == (8, 1, 7)
        assert line.adds_up
        connection.rollback()

    def is_void() -> bool:
        (line,) = account(connection)
        connection.rollback()
        assert line.adds_up
        return (line.received, line.stored, line.held) == (1, 1, 0)

    assert soon(is_void)


def test_two_processes_hold_side_by_side(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    sessions = [open_session(storage_url, DatabaseRole.INGEST) for _ in range(2)]
    try:
        for number, session in enumerate(sessions, 1):
            process = ledger.new_process()
            assert ledger.hold_process_lock(session, process)
            held(process, number).replace(session)
            session.commit()
        (line,) = account(connection)
        assert (line.received, line.held) == (3, 3)
    finally:
        for session in sessions:
            session.close()


def test_an_update_from_before_an_append_does_not_undo_it(
    connection: psycopg.Connection[Any],
) -> None:
    """The keeper's look at what waits is older than the append that settled it."""
    process = ledger.new_process()
    ledger.hold_process_lock(connection, process)
    held(process, 5, version=1).replace(connection)
    connection.commit()
    stale = held(process, 5, version=1)
    held(process, 0, version=2).replace(connection)
    connection.commit()
    stale.update(connection)
    connection.commit()
    assert account(connection) == []
    held(process, 2, version=2).update(connection)
    connection.commit()
    (line,) = account(connection)
    assert line.held == 2


def test_a_lost_connection_that_still_has_the_lock_is_no_dead_end(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    """The server may take hours to notice a lost client: its lock must not make us wait."""
    process = ledger.new_process()
    with open_session(storage_url, DatabaseRole.INGEST) as lost:
        assert ledger.hold_process_lock(lost, process)
        with open_session(storage_url, DatabaseRole.INGEST) as again:
            again.execute("SET statement_timeout = '5s'")
            assert not ledger.hold_process_lock(again, process)
            held(process, 3).replace(again)
            again.commit()
            (line,) = account(connection)
            assert line.held == 3  # the lock is held, by whichever of the two
            lost.close()
            assert soon(lambda: ledger.hold_process_lock(again, process))


def test_known_batches_are_found_by_their_identity(connection: psycopg.Connection[Any]) -> None:
    take(connection, 1, 2)
    asked = [("g", "b", 1), ("g", "b", 3), ("h", "b", 1), ("g", "c", 1)]
    assert ledger.known_batches(connection, asked) == {("g", "b", 1): ("farms", "json", b"x")}
    assert ledger.known_batches(connection, []) == {}
