"""The account under everything that may happen: in every line its two sides agree, at every moment.

Two processes decode, hold, append and are killed in any order; what they had not committed comes
again, as from a broker. A naive model counts what must have been received.
"""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.sensorthings import Rejected
from core.storage import ledger
from core.storage.account import NO_KEY, AccountRow, Wanted, account, key_of
from core.storage.ledger import HOUR_US, Pending, Source
from core.storage.message import Message
from core.storage.observations import SectorStore
from core.storage.pool import DatabaseRole, Session, open_session
from tests.core.storage.test_append import PERSONAL, SECTOR, decoded

NOW = 1_790_000_000_000_000 // HOUR_US * HOUR_US
SECTORS = (SECTOR, PERSONAL)


@dataclass(slots=True)
class Process:
    """An ingestor as far as the account knows it: what it holds, its line, its lock."""

    url: str
    number: int = field(default_factory=ledger.new_process)
    ready: list[tuple[int, Message]] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.stores = [SectorStore(sector) for sector in SECTORS]
        self.keeper = open_session(self.url, DatabaseRole.INGEST)
        self.writer = open_session(self.url, DatabaseRole.INGEST)
        assert ledger.hold_process_lock(self.keeper, self.number)

    keeper: Session = field(init=False)
    writer: Session = field(init=False)
    stores: list[SectorStore] = field(init=False)

    def pending(self, which: int, without: Sequence[Message] = ()) -> Pending:
        """Its line in one sector, as ingest.line makes it."""
        held: Counter[Source] = Counter()
        apart = set(map(id, without))
        for sector, message in self.ready:
            if sector == which and id(message) not in apart:
                held[message.source(SECTORS[which].name)] += message.decoded.received
        rows = [ledger.pending_row(source, n, n) for source, n in held.items() if n]
        version = self.versions[which] + bool(without)
        return Pending(self.number, SECTORS[which].name, version, rows)

    def hold(self, which: int, message: Message) -> None:
        """Decode one more."""
        self.ready.append((which, message))
        self.pending(which).update(self.keeper)
        self.keeper.commit()

    def take(self, which: int, count: int) -> list[Message]:
        return [message for sector, message in self.ready if sector == which][:count]

    def append(self, which: int, count: int) -> list[Message]:
        """Store the first few that it holds; returns them."""
        taken = self.take(which, count)
        if not taken:
            return []
        pending = self.pending(which, taken)
        self.stores[which].append(self.writer, taken, pending)
        self.versions[which] = pending.version
        stored = set(map(id, taken))
        self.ready = [(s, m) for s, m in self.ready if id(m) not in stored]
        return taken

    def die(self, which: int, count: int) -> list[tuple[int, Message]]:
        """Killed, in the middle of an append if it has any; returns what comes again."""
        taken = self.take(which, count)
        if taken:
            self.writer.commit = self._killed  # type: ignore[method-assign]
            with pytest.raises(psycopg.OperationalError):
                self.stores[which].append(self.writer, taken, self.pending(which, taken))
        self.end()
        with psycopg.connect(self.url, autocommit=True) as watcher:
            gone = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND "
                "database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                "AND (classid::bigint << 32 | objid::bigint) = %s"
            )
            deadline = time.monotonic() + 10
            while watcher.execute(gone, (self.number,)).fetchone() != (0,):
                assert time.monotonic() < deadline
        return self.ready

    def _killed(self) -> None:
        self.writer.close()
        raise psycopg.OperationalError("killed")

    def end(self) -> None:
        self.writer.close()
        self.keeper.close()


def check(url: str, received: Counter[tuple[str, str]]) -> list[AccountRow]:
    """Totals and hours, in one snapshot: every line adds up, and they say the same."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        totals = account(connection)
        hours = account(connection, Wanted(by_hour=True))
    assert all(row.adds_up for row in (*totals, *hours)), (totals, hours)
    assert all(row.held >= 0 and row.received >= 0 for row in (*totals, *hours))
    summed: dict[tuple[str, ...], Counter[str]] = {}
    names = ("messages", "unchanged", "received", "stored", "duplicate", "rejected", "held")
    for row in hours:
        source = summed.setdefault((row.sector, row.gateway, row.format), Counter())
        source.update({name: getattr(row, name) for name in names})
    for row in totals:
        source = summed.pop((row.sector, row.gateway, row.format), Counter())
        assert {name: getattr(row, name) for name in names} == {
            name: source[name] for name in names
        }
    assert not summed
    counted = Counter[tuple[str, str]]()
    for row in totals:
        counted[row.sector, row.gateway] += row.received
    assert +counted == +received
    return totals


observed = st.tuples(st.sampled_from("tu"), st.integers(0, 4), st.integers(0, 2))
bodies = st.tuples(
    st.integers(0, 1),  # sector
    st.sampled_from(["g", "h"]),
    st.one_of(st.none(), st.integers(0, 5)),  # sequence, or loose
    st.lists(observed, min_size=1, max_size=3),
    st.integers(0, 2),  # items that cannot be decoded
    st.integers(0, 2),  # hours later
)
steps = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 1), bodies),
    st.tuples(
        st.just("append"), st.integers(0, 1), st.tuples(st.integers(0, 1), st.integers(1, 4))
    ),
    st.tuples(st.just("kill"), st.integers(0, 1), st.tuples(st.integers(0, 1), st.integers(0, 3))),
    st.tuples(st.just("again"), st.integers(0, 1), st.integers(0, 5)),
)


def made(body: Any) -> tuple[int, Message]:
    """A message of a body drawn: its bytes are its content, so that other content conflicts."""
    sector, gateway, seq, observations, broken, hours = body
    found = decoded(*((t, "level", NOW + s * 1_000_000, float(r)) for t, s, r in observations))
    lost = tuple(Rejected("test", f"item: {n}", b"?", n) for n in range(broken))
    payload = repr((sector, observations, broken)).encode()
    digest = hashlib.sha256(payload).digest()
    identity = (None, None) if seq is None else ("b", seq)
    found = replace(found, rejected=lost)
    at = NOW + hours * HOUR_US
    return sector, Message(gateway, "json", "test", at, payload, digest, found, *identity)


TABLES = (
    "observation, superseded, latest, projection, account, account_total, append, batch, boot, "
    "rejection, rejected_total, ingest_process, personal.observation, personal.superseded"
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(steps, min_size=1, max_size=14))
def test_every_line_adds_up_whatever_happens(storage_url: str, taken: list[Any]) -> None:
    with psycopg.connect(storage_url, autocommit=True) as owner:
        owner.execute(f"TRUNCATE {TABLES}".encode())
    processes = [Process(storage_url), Process(storage_url)]
    received: Counter[tuple[str, str]] = Counter()
    undelivered: list[tuple[int, Message]] = []

    def count(sector: int, message: Message, sign: int) -> None:
        received[SECTORS[sector].name, message.gateway] += sign * message.decoded.received

    def deliver(index: int, sector: int, message: Message) -> None:
        processes[index].hold(sector, message)
        count(sector, message, 1)

    try:
        for action, index, what in taken:
            match action:
                case "hold":
                    deliver(index, *made(what))
                case "append":
                    processes[index].append(*what)
                case "again" if undelivered:
                    deliver(index, *undelivered.pop(what % len(undelivered)))
                case "kill":
                    lost = processes[index].die(*what)
                    for sector, message in lost:
                        count(sector, message, -1)  # void at once
                    undelivered += lost
                    processes[index] = Process(storage_url)
            check(storage_url, received)
        for index, process in enumerate(processes):
            while undelivered:
                deliver(index, *undelivered.pop())
            for sector in range(len(SECTORS)):
                while process.append(sector, 3):
                    check(storage_url, received)
        assert all(row.held == 0 for row in check(storage_url, received))
    finally:
        for process in processes:
            process.end()


def test_readers_never_see_a_line_that_does_not_add_up(storage_url: str) -> None:
    """While two processes append one another's duplicates as fast as they can."""
    stop = threading.Event()
    faults: list[BaseException] = []

    def work(process: Process) -> None:
        try:
            number = 0
            while not stop.is_set():
                for gateway in ("g", "h"):
                    body = (
                        number % 2,
                        gateway,
                        number % 50,
                        [("t", number % 60, number % 7)],
                        1,
                        0,
                    )
                    sector, message = made(body)
                    process.hold(sector, replace(message, boot=f"b{number % 2}"))
                process.append(number % 2, 5)
                number += 1
        except BaseException as error:  # noqa: BLE001 - told below
            faults.append(error)

    processes = [Process(storage_url), Process(storage_url)]
    threads = [threading.Thread(target=work, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    looks = 0
    deadline = time.monotonic() + 8
    with psycopg.connect(storage_url, autocommit=True) as reader:
        while time.monotonic() < deadline and not faults:
            for wanted in (Wanted(), Wanted(by_hour=True)):
                rows = account(reader, wanted)
                assert all(row.adds_up for row in rows), rows
            looks += 1
    stop.set()
    for thread in threads:
        thread.join(20)
    for process in processes:
        process.end()
    assert faults == []
    assert looks > 20
    assert all(process.versions.total() > 5 for process in processes)


@pytest.fixture
def many(storage_url: str) -> Iterator[Session]:
    with open_session(storage_url, DatabaseRole.INGEST) as session:
        rows = [
            ((f"g{n % 7}", sector, "json", NOW + n % 5 * HOUR_US), ledger.Counts(1, 0, 2, 1, 1))
            for n in range(35)
            for sector in ("farms", "ports", "signals")
        ]
        ledger.add_to_account(session, rows)
        process = ledger.new_process()
        assert ledger.hold_process_lock(session, process)
        held = [
            ledger.pending_row((f"g{n}", "farms", "json", NOW + n * HOUR_US), n, n)
            for n in range(1, 12)
        ]
        Pending(process, "farms", 1, held).replace(session)
        session.commit()
        yield session


@pytest.mark.parametrize("by_hour", [False, True])
@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_pages_join_to_the_whole(many: Session, by_hour: bool, limit: int) -> None:
    """Also where a page ends among lines of which only held ones are known."""
    wanted = Wanted(by_hour)
    whole = account(many, wanted)
    assert len(whole) > 20
    joined: list[AccountRow] = []
    after = NO_KEY
    while page := account(many, wanted, after, limit):
        assert len(page) <= limit
        joined += page
        after = key_of(page[-1])
    assert joined == whole
    assert [key_of(row) for row in whole] == sorted(key_of(row) for row in whole)


@pytest.mark.parametrize("by_hour", [False, True])
def test_what_was_recovered_stands_beside_what_was_rejected(many: Session, by_hour: bool) -> None:
    many.execute(
        "INSERT INTO recovered SELECT 'farms', 'g3', 'json', hour, 2 FROM account"
        " WHERE (sector, gateway) = ('farms', 'g3') ORDER BY hour LIMIT 2"
    )
    rows = account(many, Wanted(by_hour))
    told = [row.recovered for row in rows if row.recovered]
    assert told == ([2, 2] if by_hour else [4])
    assert all(row.adds_up for row in rows)


def test_a_source_or_a_span_is_picked(many: Session) -> None:
    only = account(many, Wanted(gateway="g3", sector="ports"))
    assert [(row.gateway, row.sector, row.stored) for row in only] == [("g3", "ports", 5)]
    assert account(many, Wanted(format="nmea")) == []
    (first, *_) = account(many, Wanted(by_hour=True))
    assert first.hour is not None
    hours = account(many, Wanted(True, lower=first.hour, upper=first.hour.replace(minute=1)))
    assert hours and {row.hour for row in hours} == {first.hour}
