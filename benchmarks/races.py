"""Revokes against reads on every channel: what began after a revoke's answer has nothing of it.

Two API servers on one database; persons revoke and grant anew as fast as they can while recipients
read pages, rollups and exports and follow streams, with fresh tokens and old ones. A reader knows
what was revoked, and answered, before the first byte of a response or chunk can have been sent: of
a stream or an export that is the last moment at which its socket was empty. Leases are taken late
at random, so that what was read is often stale by then.
"""

import random
import re
import socket
import tempfile
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import psycopg

from api import personal_stream
from benchmarks.result import Goal, Result
from benchmarks.stack import databases
from consent.gate import Gate, Lease
from consent.personal import Chunk
from core.settings import Settings
from core.tokens import Role
from tests.api.channels import path_of
from tests.api.conftest import Served, serving
from tests.api.town import DAY, Town
from tests.consent.oracle import Row

RACES = 100_000
SECONDS_MAX = 3_600.0
PERSONS, ROWS = 4, 12
REVOKERS = 2
READERS = {"observations": 3, "rollups": 2, "export": 2, "stream": 2}
CHUNK = 20
QUERIES = {"observations": {}, "rollups": {"step": "hour"}, "export": {"format": "jsonl"}}
GIVEN_SECONDS_MAX = 0.03
SHUT_SECONDS_MAX = 0.02
LOOK_SECONDS = 0.002
LATE_SECONDS_MAX = 0.015
BEAT_SECONDS, COME_SECONDS = 0.03, 0.05
A_PERSON = 1_000
"""Results of a person begin at her number times this."""
BASE = {"from": DAY.isoformat(), "to": (DAY + timedelta(hours=6)).isoformat()}

Slot = tuple[int, str]
"""A person, and the operation that she grants."""
Began = dict[Slot, tuple[int, float]]
"""What was shut when something can have begun at first: the revoke's number, its answer's time."""
LENGTH = re.compile(rb"content-length: (\d+)", re.I)
OPERATIONS = ("read", "derive")


@dataclass(slots=True)
class Race:
    """What is shut now, since which answer; what was read when; what leaked."""

    shut: Began = field(default_factory=dict)
    """What is shut now."""
    reads: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    revokes: list[tuple[str, float, float]] = field(default_factory=list)
    """Of which operation, from when to when."""
    leaks: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    silence: float = 0.0
    """How long after an answer a chunk came, at most, that was on its way before."""
    rows: dict[str, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def began(self) -> Began:
        """What is shut as something begins."""
        return dict(self.shut)

    def ended(
        self,
        channel: str,
        operation: str,
        asked: float,
        began: Began,
        persons: set[int],
    ) -> None:
        """Something came with rows of these persons: a leak where one was shut all the time."""
        now = time.monotonic()
        self.reads.setdefault(channel, []).append((asked, now))
        self.rows[channel] = self.rows.get(channel, 0) + len(persons)
        for person in persons:
            shut = self.shut.get((person, operation))
            if shut is not None:
                self.silence = max(self.silence, now - shut[1])
                if began.get((person, operation)) == shut:
                    self.leaks.append(f"{channel}: {person} after {now - shut[1]:.4f} s")

    def races(self) -> int:
        """Pairs of a revoke, and a read of the same operation that was under way meanwhile."""
        count = 0
        # A stream waits most of the time: its chunks are checked, and not counted.
        for channel, reads in list(self.reads.items()):
            if channel == "stream":
                continue
            begins, ends = sorted(a for a, _ in reads), sorted(b for _, b in reads)
            for operation, begin, end in list(self.revokes):
                if (operation == "derive") == (channel == "rollups"):
                    count += bisect_left(begins, end) - bisect_right(ends, begin)
        return count


def settle(town: Town) -> None:
    """The recipient, and persons with rows."""
    assert town.register("clinic").status_code == 200
    for person in range(PERSONS):
        assert town.bind(f"band-{person}", [f"person-{person}"], (DAY, None))
    town.come(
        *(
            Row((f"band-{person}", "heart-rate"), DAY + timedelta(minutes=10 * n),
                float(A_PERSON * person + n))
            for person in range(PERSONS)
            for n in range(ROWS)
        )
    )  # fmt: skip


def revoke(race: Race, town: Town, persons: list[int], seed: int) -> None:
    """One slot after the other: granted, revoked, kept shut for a moment."""
    chance = random.Random(seed)
    granted: dict[Slot, str] = {}
    slots = [(person, operation) for person in persons for operation in OPERATIONS]
    number = seed
    while not race.stop.is_set():
        slot = chance.choice(slots)
        if slot not in granted:
            race.shut.pop(slot, None)
            name = granted[slot] = str(uuid4())
            answer = town.grant(f"person-{slot[0]}", name, operation=slot[1])
            assert answer.status_code == 200, answer.text
            time.sleep(chance.random() * GIVEN_SECONDS_MAX)
            continue
        began = time.monotonic()
        answer = town.revoke(f"person-{slot[0]}", granted.pop(slot))
        assert answer.status_code == 200, answer.text
        number += REVOKERS
        race.shut[slot] = (number, time.monotonic())
        race.revokes.append((slot[1], began, time.monotonic()))
        time.sleep(chance.random() * SHUT_SECONDS_MAX)


def read(race: Race, town: Town, channel: str) -> None:
    """Page after page, export after export, or one stream; every other time with an old token."""
    operation = "derive" if channel == "rollups" else "read"
    query = {**BASE, **QUERIES[channel]} if channel != "stream" else {}
    tokens = cycle([town.headers(Role.RECIPIENT, "clinic")["Authorization"], None])
    path: str | None = None
    while not race.stop.is_set():
        path = path or path_of(channel, **query)
        token = next(tokens) or town.headers(Role.RECIPIENT, "clinic")["Authorization"]
        with opened(town.served, token, path) as connection:
            path = None
            asked = time.monotonic()
            for began, body in frames(race, connection):
                if channel in ("export", "stream"):
                    values = results_of(body)
                else:
                    page = orjson.loads(body)
                    path = page["next"]
                    values = [row.get("result", row.get("minimum")) for row in page[channel]]
                persons = {int(value) // A_PERSON for value in values}
                race.ended(channel, operation, asked, began, persons)
                asked = time.monotonic()


@contextmanager
def opened(served: Served, token: str, path: str) -> Iterator[socket.socket]:
    """A connection that has asked, and has not read."""
    url = urlsplit(served.url)
    with socket.create_connection((url.hostname or "", url.port or 0)) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {token}\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


def frames(race: Race, connection: socket.socket) -> Iterator[tuple[Began, bytes]]:
    """The body of an answer of 200, or each HTTP chunk of it, with what was shut as it began.

    It began no sooner than the last moment at which nothing was there to be read.
    """
    connection.settimeout(LOOK_SECONDS)
    held, body_bytes = b"", 0
    head = True
    began = race.began()
    while not race.stop.is_set():
        found = race.began()
        try:
            data = connection.recv(1 << 20)
        except TimeoutError:
            # Empty at the end of that wait, so all that comes was sent after its beginning.
            began = began if held else found
            continue
        if not data:
            return
        held += data
        if head and b"\r\n\r\n" in held:
            told, _, held = held.partition(b"\r\n\r\n")
            if not told.startswith(b"HTTP/1.1 200"):
                return  # such as 503: grants change too fast, or this machine is too slow
            head = False
            length = LENGTH.search(told)
            body_bytes = int(length[1]) if length else 0
        if body_bytes and len(held) >= body_bytes:
            yield began, held
            return
        while not head and not body_bytes and b"\r\n" in held:
            size = int(held.partition(b"\r\n")[0], 16)
            body = held.partition(b"\r\n")[2]
            if size == 0:
                return
            if len(body) < size + 2:
                break
            yield began, body[:size]
            held = body[size + 2 :]


def results_of(frame: bytes) -> list[float]:
    """The results of the rows of a frame, of JSON Lines or of events."""
    found: list[float] = []
    for line in frame.splitlines():
        text = line.removeprefix(b"data: ")
        if text.startswith(b"{"):
            told: dict[str, Any] = orjson.loads(text)
            rows = told.get("observations", [told])
            found += [row["result"] for row in rows if "result" in row]
    return found


def come(race: Race, url: str, town: Town) -> None:
    """New rows of everyone, for the streams."""
    with psycopg.connect(url, autocommit=True) as connection:
        other = Town(town.served, connection)
        number = 0
        while not race.stop.is_set():
            number += 1
            time.sleep(COME_SECONDS)
            moment = DAY + timedelta(hours=12, seconds=number)
            other.come(
                *(
                    Row((f"band-{person}", "heart-rate"), moment, float(A_PERSON * person))
                    for person in range(PERSONS)
                )
            )


@contextmanager
def late_leases(seconds: float) -> Iterator[None]:
    """Let time pass between reading a chunk and its lease, and before it is handed over."""
    lease = Gate.lease

    def late(gate: Gate, chunk: Chunk) -> Lease | None:
        time.sleep(random.random() * seconds)
        found = lease(gate, chunk)
        time.sleep(random.random() * seconds)
        return found

    with (
        patch.object(Gate, "lease", late),
        patch.object(personal_stream, "BEAT_SECONDS", BEAT_SECONDS),
    ):
        yield


def race_on(url: str, folder: Path, wanted: int, seconds_max: float) -> Race:
    """Two servers on a database, and everybody at once, until there were so many races."""
    race = Race()
    settings = Settings(database_url=url, data=folder, page_rows_max=CHUNK)
    with ExitStack() as stack:
        stack.enter_context(late_leases(LATE_SECONDS_MAX))
        servers = [stack.enter_context(serving(settings)) for _ in range(2)]
        connection = stack.enter_context(psycopg.connect(url, autocommit=True))
        towns = [Town(server, connection) for server in servers]
        settle(towns[0])
        tasks: list[Callable[[], None]] = [partial(come, race, url, towns[0])]
        for seed in range(REVOKERS):
            own = list(range(seed, PERSONS, REVOKERS))
            tasks.append(partial(revoke, race, towns[seed % 2], own, seed))
        for channel, count in READERS.items():
            tasks += [partial(read, race, towns[n % 2], channel) for n in range(count)]
        threads = [threading.Thread(target=guarded, args=(race, task)) for task in tasks]
        ends_at = time.monotonic() + seconds_max
        for thread in threads:
            thread.start()
        try:
            while race.races() < wanted and time.monotonic() < ends_at and not race.failed:
                time.sleep(0.5)
        finally:
            race.stop.set()
            for thread in threads:
                thread.join()
    if race.failed:
        raise RuntimeError("; ".join(race.failed))
    return race


def guarded(race: Race, task: Callable[[], None]) -> None:
    """A task whose failure ends the race."""
    try:
        task()
    except Exception as error:  # noqa: BLE001 - told by the one who waits
        race.failed.append(f"{type(error).__name__}: {error}")


def run(scale: float = 1.0) -> Iterator[Result]:
    """On embedded PostgreSQL, and on TimescaleDB where there is one."""
    for label, database in databases().items():
        with tempfile.TemporaryDirectory(prefix="chimata-bench-") as name:
            folder = Path(name)
            with database(folder) as url:
                race = race_on(
                    url, folder / "data", round(RACES * scale), max(60.0, SECONDS_MAX * scale)
                )
        chunks = ", ".join(f"{len(race.reads.get(c, ())):,} {c}" for c in READERS)
        yield Result(
            f"races_leaked_{label}", len(race.leaks), "rows", goal=Goal("value", maximum=0.0),
            note=f"{race.races():,} races of {len(race.revokes):,} revokes with {chunks}",
        )  # fmt: skip
        yield Result(
            f"races_silence_{label}",
            race.silence,
            "s",
            goal=Goal("value", maximum=1.0),
            note="the last chunk that was on its way when a revoke was answered",
        )
