"""Gaps of sequences, gateways' lists, and a pruned ledger: counts stay, repeats are recognised."""

import hashlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import now_us, to_datetime
from core.storage import gateways, ledger
from core.storage.account import account
from core.storage.gateways import Gap, gaps
from core.storage.ledger import Counts
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, open_session
from tests.core.storage.test_append import SECTOR, decoded

DAY = 86_400 * 1_000_000
_appends = itertools.count(1)


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        yield session


def take(
    connection: psycopg.Connection[Any],
    *seqs: int,
    boot: str = "b",
    sector: str = "farms",
    form: str = "json",
    days_ago: int = 0,
) -> None:
    at = now_us() - days_ago * DAY
    entries = [("g", boot, seq, form, b"x", at, 1, 1, 0, 0) for seq in seqs]
    ledger.enter_batches(connection, sector, next(_appends), entries)
    source = ("g", sector, form, at // ledger.HOUR_US * ledger.HOUR_US)
    ledger.add_to_account(connection, [(source, Counts(len(seqs), 0, len(seqs), len(seqs)))])
    connection.commit()


def missing(connection: psycopg.Connection[Any]) -> dict[tuple[str, str], int | None]:
    return {(row.sector, row.format): row.missing for row in account(connection)}


def test_gaps_are_listed_newest_boot_first(connection: psycopg.Connection[Any]) -> None:
    take(connection, 2, 3, 7, boot="old", days_ago=2)
    take(connection, 0, 1, 5, boot="new", days_ago=1)
    take(connection, 0, 1, 2, boot="whole")
    found, more = gaps(connection, "g")
    assert found == [Gap("new", 2, 4), Gap("old", 0, 1), Gap("old", 4, 6)]
    assert more is None
    assert sum(gap.count for gap in found) == missing(connection)["farms", "json"] == 8
    assert gaps(connection, "nobody") == ([], None)


def test_pages_of_gaps_join_to_the_whole(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends a page: its length, what it may look through, how many boots."""
    take(connection, *range(1, 40, 2), boot="a", days_ago=1)
    take(connection, *range(0, 40, 3), boot="c")
    take(connection, 9, boot="d")
    whole, _ = gaps(connection, "g")
    assert len(whole) == 20 + 13 + 1
    for scanned, boots, limit in ((10_000, 100, 1), (7, 100, 1_000), (1, 100, 3), (10_000, 1, 2)):
        monkeypatch.setattr(gateways, "SCANNED_MAX", scanned)
        monkeypatch.setattr(gateways, "BOOTS_MAX", boots)
        joined, place, pages = [], gateways.BEGINNING, 0
        while place is not None:
            page, place = gaps(connection, "g", place, limit)
            assert len(page) <= limit
            joined += page
            pages += 1
            assert pages < 200
        assert joined == whole, (scanned, boots, limit)
        assert pages > 2


def test_a_boot_that_spans_sources_is_charged_once(connection: psycopg.Connection[Any]) -> None:
    """Which source a missing sequence was of nobody knows: the one that most came from."""
    take(connection, 0, 3, 4, 9, sector="farms")
    take(connection, 1, 5, sector="ports", form="nmea")
    take(connection, 6, sector="ports")
    assert missing(connection) == {("farms", "json"): 3, ("ports", "nmea"): 0, ("ports", "json"): 0}
    take(connection, 2, 7, 8, sector="ports")
    assert set(missing(connection).values()) == {0}
    assert gaps(connection, "g") == ([], None)


def test_pruning_changes_neither_the_account_nor_the_gaps(
    connection: psycopg.Connection[Any],
) -> None:
    take(connection, 0, 1, 4, 5, days_ago=50)
    take(connection, 2, 9, days_ago=1)
    take(connection, 0, 2, boot="gone", days_ago=40)
    before, listed = account(connection), gaps(connection, "g")
    assert ledger.prune(connection, 30) == 6
    assert ledger.prune(connection, 30) == 0
    connection.commit()
    assert connection.execute("SELECT boot, seq FROM batch ORDER BY seq").fetchall() == [
        ("b", 2),
        ("b", 9),
    ]
    assert account(connection) == before
    assert gaps(connection, "g") == listed
    assert listed[0] == [Gap("gone", 1, 1), Gap("b", 3, 3), Gap("b", 6, 8)]
    take(connection, 1, 4)  # repeats: entered again, and not counted again
    take(connection, 3)  # late, and new
    assert missing(connection)["farms", "json"] == 3 + 1
    assert gaps(connection, "g")[0] == [Gap("gone", 1, 1), Gap("b", 6, 8)]
    assert ledger.prune(connection, 30) == 0
    assert ledger.known_batches(connection, [("g", "b", 0), ("g", "b", 9)]).keys() == {
        ("g", "b", 9)
    }


def test_pruning_goes_in_bounded_steps(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "PRUNED_A_STEP_MAX", 4)
    for boot in ("a", "b", "c"):
        take(connection, *range(5), boot=boot, days_ago=9)
        take(connection, *range(5, 7), boot=boot)
    steps = []
    while step := ledger.prune(connection, 3):
        connection.commit()
        steps.append(step)
        assert step <= 4
    assert sum(steps) == 15
    assert connection.execute("SELECT count(*) FROM batch").fetchone() == (6,)
    assert missing(connection)["farms", "json"] == 0


def test_very_many_gaps_before_the_pruned_end_count_as_seen(
    connection: psycopg.Connection[Any],
) -> None:
    """What is kept of a boot is bounded: its gaps are no longer listed, its count stays."""
    take(connection, *range(0, 2_400, 2), days_ago=9)
    take(connection, 2_400)
    while ledger.prune(connection, 3):
        connection.commit()
    ranges = connection.execute("SELECT count(*) FROM boot_pruned, unnest(seqs)").fetchone()
    assert ranges == (1,)
    assert missing(connection)["farms", "json"] == 1_200
    assert gaps(connection, "g") == ([Gap("b", 2_399, 2_399)], None)


def test_a_repeat_after_pruning_is_recognised_by_its_rows(
    connection: psycopg.Connection[Any], storage_url: str
) -> None:
    at = now_us() - 50 * DAY
    found = decoded(*(("t", "level", at + k, float(k)) for k in range(5)))
    digest = hashlib.sha256(b"x").digest()

    def batch(received_at: int) -> Message:
        return Message("g", "json", "test", received_at, b"x", digest, found, "b", 0)

    with psycopg.connect(storage_url) as session:
        session.execute("SET ROLE chimata_ingest")
        store = SectorStore(SECTOR)
        assert store.append(session, [batch(at)])[0].counts.stored == 5
        assert ledger.prune(session, 30) == 1
        session.commit()
        (again,) = store.append(session, [batch(now_us())])
        assert (again.result, again.counts.stored, again.counts.duplicate) == ("stored", 0, 5)
        (third,) = store.append(session, [batch(now_us())])
        assert third.result == "duplicate"  # known again
        (line,) = account(session)
        assert line.adds_up and (line.received, line.stored, line.missing) == (15, 5, 0)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.booleans()), max_size=20))
def test_any_order_of_taking_and_pruning_leaves_the_true_count(
    connection: psycopg.Connection[Any], steps: list[tuple[int, int, bool]]
) -> None:
    """Against a set of the sequences that came."""
    connection.rollback()
    connection.execute("RESET ROLE")
    connection.execute("TRUNCATE batch, boot, boot_pruned, account, account_total")
    connection.execute("SET ROLE chimata_ingest")
    connection.commit()
    came: set[int] = set()
    for seq, weeks, prune in steps:
        if ("g", "b", seq) not in ledger.known_batches(connection, [("g", "b", seq)]):
            take(connection, seq, days_ago=7 * weeks)
        came.add(seq)
        if prune:
            while ledger.prune(connection, 10):
                connection.commit()
    absent = set(range(max(came, default=-1) + 1)) - came
    counted = connection.execute("SELECT max(seq_max) + 1 - sum(batches) FROM boot").fetchone()
    assert counted == (len(absent) if came else None,)
    listed, _ = gaps(connection, "g")
    assert {seq for gap in listed for seq in range(gap.first, gap.last + 1)} == absent
    kept = connection.execute(
        "SELECT count(*) FROM batch WHERE received_at < now() - '10 days'::interval"
    ).fetchone()
    if steps and steps[-1][2]:
        assert kept == (0,)


def test_gateways_are_listed_with_what_they_sent(connection: psycopg.Connection[Any]) -> None:
    take(connection, 0, 3)
    take(connection, 0, boot="c", sector="ports")
    connection.execute("INSERT INTO gateway (id, data_class) VALUES ('declared', 'open')")
    now = datetime.now(UTC)
    connection.execute("INSERT INTO gateway_heard VALUES ('g', %s, %s)", (now - timedelta(1), now))
    for sector in ("farms", "ports"):
        connection.execute("INSERT INTO sector_log VALUES (%s, 1)", (sector,))
    declared, heard = gateways.gateways(connection)
    assert (declared.id, declared.data_class, declared.boots, declared.missing) == (
        "declared", "open", 0, 0,
    )  # fmt: skip
    assert declared.last_seen is None and declared.clock.state == "unknown"
    assert (heard.id, heard.boots, heard.missing, heard.sectors) == ("g", 2, 2, ["farms", "ports"])
    assert (heard.received, heard.rejected, heard.last_seen) == (3, 0, now)
    assert heard.messages_this_hour + heard.messages_last_hour == 3
    assert [g.id for g in gateways.gateways(connection, "declared", 1)] == ["g"]
    assert to_datetime(now_us()) >= now
