"""Whose fault a failed append is: the message's is rejected alone, the database's is waited for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import psycopg
import pytest
from psycopg import errors

from core.errors import CityError
from core.settings import Settings
from ingest.faults import Fault, fault_of
from tests.ingest.helpers import Channel, Database, payload, running, until

pytestmark = pytest.mark.timeout(120)

BAD = 666.0
REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'refused by the test' USING ERRCODE = '{state}'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON observation FOR EACH ROW
WHEN ({when}) EXECUTE FUNCTION refuse();
"""
RELENT = "DROP TRIGGER refuse ON observation; DROP FUNCTION refuse()"
CONTENT, UNCLEAR = "22000", "XX000"


@contextmanager
def refusing(database: Database, state: str, when: str = f"NEW.result = {BAD}") -> Iterator[None]:
    """The database fails rows with this SQLSTATE for the length of a block."""
    database.run(REFUSE.format(state=state, when=when))
    try:
        yield
    finally:
        database.run(RELENT)


def one(result: float, thing: str) -> bytes:
    return payload(result, thing=thing)


def settled_account(database: Database) -> tuple[int, int, int]:
    (line,) = until(lambda: [row for row in database.account() if not row.held])
    assert line.adds_up
    return (line.received, line.stored, line.rejected)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (psycopg.OperationalError("server closed the connection"), Fault.AWAY),
        (psycopg.InterfaceError("the connection is closed"), Fault.AWAY),
        (CityError("unavailable", "no database"), Fault.AWAY),
        (errors.AdminShutdown(), Fault.AWAY),
        (errors.DiskFull(), Fault.AWAY),
        (errors.OutOfMemory(), Fault.AWAY),
        (errors.ReadOnlySqlTransaction(), Fault.AWAY),
        (errors.LockNotAvailable(), Fault.AWAY),
        (errors.DeadlockDetected(), Fault.AWAY),
        (errors.IoError(), Fault.AWAY),
        (errors.InvalidPassword(), Fault.AWAY),
        (errors.CharacterNotInRepertoire(), Fault.REFUSED),
        (errors.NumericValueOutOfRange(), Fault.REFUSED),
        (errors.CheckViolation(), Fault.REFUSED),
        (errors.UniqueViolation(), Fault.REFUSED),
        (errors.StatementTooComplex(), Fault.REFUSED),
        (psycopg.DataError("cannot contain NUL"), Fault.REFUSED),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), Fault.REFUSED),
        (psycopg.ProgrammingError("cannot adapt type 'object'"), Fault.UNCLEAR),
        (errors.UndefinedTable(), Fault.UNCLEAR),
        (errors.InsufficientPrivilege(), Fault.UNCLEAR),
        (errors.FeatureNotSupported(), Fault.UNCLEAR),
        (errors.RaiseException(), Fault.UNCLEAR),
        (errors.InternalError_(), Fault.UNCLEAR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
def test_what_an_error_says(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize("state", [CONTENT, UNCLEAR])
def test_a_row_that_alone_fails_is_rejected_alone(
    channel: Channel, database: Database, state: str
) -> None:
    with refusing(database, state):
        for number in range(9):
            channel.send(one(BAD if number == 4 else float(number), f"t{number}"), seq=None)
        channel.outcomes(9)
    assert database.query("SELECT reason, detail FROM rejection") == [
        ("storage-refused", "refused by the test")
    ]
    assert len(database.results()) == 8
    assert settled_account(database) == (9, 8, 1)


@pytest.mark.parametrize("state", [CONTENT, UNCLEAR])
def test_in_a_run_only_the_message_at_fault_is_rejected(
    channel: Channel, database: Database, state: str
) -> None:
    bodies = [one(BAD if number == 33 else float(number), f"t{number}") for number in range(100)]
    with refusing(database, state):
        channel.send_run(*bodies)
        until(lambda: len(channel.tags()) == 100)
    assert sorted(channel.tags()) == list(range(100))
    assert database.results() == [float(number) for number in range(100) if number != 33]
    ((reason, payload),) = database.query("SELECT reason, payload FROM rejection")
    assert reason == "storage-refused"
    kept = orjson.loads(bytes(payload))  # the row where its content was at fault, else the message
    (kept,) = kept if isinstance(kept, list) else [kept]
    assert (kept["thing"], kept["result"]) == ("t33", BAD)
    assert settled_account(database) == (100, 99, 1)
    assert not channel.pipeline.budget.held


def test_one_that_nobody_can_be_compared_with_waits_for_others(
    channel: Channel, database: Database
) -> None:
    """Alone it may be the database's fault: only when another is stored is it the message's."""
    with refusing(database, UNCLEAR):
        channel.send(one(BAD, "t0"))
        time.sleep(1.5)
        assert channel.settled == []
        (line,) = database.account()
        assert (line.held, line.rejected) == (1, 0)
        channel.send(one(1.0, "t1"))
        outcomes = {outcome.result for outcome in channel.outcomes(2)}
    assert outcomes == {"stored", "refused"}
    assert settled_account(database) == (2, 1, 1)


@pytest.mark.parametrize("count", [1, 3, 120])
def test_where_nothing_can_be_stored_all_wait(
    settings: Settings, database: Database, count: int
) -> None:
    with running(settings) as channel:
        with refusing(database, UNCLEAR, "true"):
            for number in range(count):
                channel.send(one(float(number), f"t{number}"))
            time.sleep(2.0)
            assert channel.settled == []
            assert database.rejections() == []
        outcomes = channel.outcomes(count, 60)
        assert {outcome.result for outcome in outcomes} == {"stored"}
        assert settled_account(database) == (count, count, 0)
    assert database.rejections() == []


def test_made_up_formats_share_one_line_of_the_account(
    channel: Channel, database: Database
) -> None:
    for number in range(30):
        channel.send(f"{number}".encode(), form=f"made-up-{number}")
    channel.outcomes(30)
    (line,) = database.account()
    assert (line.format, line.received, line.rejected) == ("unknown", 30, 30)
    assert {reason for reason, _ in database.rejections()} == {"unknown-format"}
    assert any("made-up-7" in detail for _, detail in database.rejections())
