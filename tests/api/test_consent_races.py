"""Property 6 under fire: revokes against reads on every channel, and readers that die or freeze."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from benchmarks.races import READERS, race_on
from consent.gate import Gate, Lease
from consent.personal import LEASE_SECONDS, Chunk
from core.tokens import Role
from tests.api.channels import path_of
from tests.api.conftest import Served
from tests.api.test_consent import FIRST
from tests.api.town import DAY, Town
from tests.consent.oracle import Row

RACES, SECONDS_MAX = 300, 60.0
ANSWER_SECONDS_MAX = 2 * LEASE_SECONDS + 1.5
"""In which a revoke answers whatever became of a reader: the lease's end, and a slow machine."""

READER = """
import sys
import domains
from consent.gate import Gate
from consent.personal import Question, span_of
from consent.vocabulary import Operation
from core.settings import Settings
from core.tokens import SCOPES, Principal, Role

gate = Gate(Settings(database_url=sys.argv[1]))
clinic = Principal(Role.RECIPIENT, "clinic", None, None, SCOPES[Role.RECIPIENT], 2**40)
asked = Question(domains.sector("health"), "dpv:ServiceManagement", "pd:MedicalHealth",
                 Operation.READ, span_of("", ""), 50)
lease = gate.lease(gate.disclose(clinic, asked))
print("holds", flush=True)
sys.stdin.readline()
print("sends" if lease.seconds_left() > 0 else "gives up", flush=True)
"""


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """Ai lets the clinic read her band."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        made = Town(served, connection)
        made.register("clinic")
        made.bind("band", ["ai"], (DAY, None))
        made.come(*(Row(("band", "heart-rate"), DAY, 1.0) for _ in range(1)))
        assert made.grant("ai", FIRST).status_code == 200
        yield made


@contextmanager
def reader(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has read a chunk and holds its lease; it sends when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", READER, url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def revoked(town: Town) -> float:
    """How long a revoke took until its answer."""
    began = time.monotonic()
    assert town.revoke("ai", FIRST).status_code == 200
    return time.monotonic() - began


def says(process: subprocess.Popen[str]) -> str:
    """What a reader does that is told to send."""
    return process.communicate("now\n", timeout=20)[0].strip()


def test_property_6_races_on_every_channel(database_url: str, tmp_path: Path) -> None:
    """Two servers, tokens fresh and old; `make bench ONLY=races` has a hundred thousand."""
    race = race_on(database_url, tmp_path, RACES, SECONDS_MAX)
    assert race.leaks == []
    assert race.silence < 1.0
    assert set(race.reads) == set(READERS)
    assert all(race.rows[channel] > 0 for channel in READERS), "nothing was permitted to leak"
    assert race.races() > RACES // 2


def test_property_6_a_reader_that_sends_in_time_is_waited_for(town: Town) -> None:
    with reader(town.served.database_url) as process:
        assert says(process) == "sends"


def test_property_6_a_reader_that_is_killed_holds_nobody_up(town: Town) -> None:
    with reader(town.served.database_url) as process:
        process.send_signal(signal.SIGKILL)
        assert revoked(town) < ANSWER_SECONDS_MAX
        assert says(process) == ""


def test_property_6_a_reader_that_is_frozen_sends_nothing_when_it_wakes(town: Town) -> None:
    """The server ends its session, the revoke answers, and the reader knows when it goes on."""
    with reader(town.served.database_url) as process:
        process.send_signal(signal.SIGSTOP)
        try:
            assert revoked(town) < ANSWER_SECONDS_MAX
        finally:
            process.send_signal(signal.SIGCONT)
        assert says(process) == "gives up"


def test_property_6_a_reader_whose_session_was_ended_sends_nothing(town: Town) -> None:
    """Its lock went with its session, long before its clock says so."""
    with reader(town.served.database_url) as process:
        end_sessions(town)
        assert revoked(town) < ANSWER_SECONDS_MAX
        assert says(process) == "gives up"


def end_sessions(town: Town) -> None:
    """End every session that holds a lease, and wait until it has gone."""
    town.connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks "
        "WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted"
    )


@pytest.mark.parametrize("channel", ["observations", "export", "rollups"])
def test_property_6_no_channel_sends_without_its_lease(
    town: Town, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session ends between the lease and the hand-over: nothing of the chunk is sent."""
    lease = Gate.lease
    town.grant("ai", operation="derive")
    leased = threading.Event()

    def lost(gate: Gate, chunk: Chunk) -> Lease | None:
        found = lease(gate, chunk)
        end_sessions(town)
        leased.set()
        return found

    monkeypatch.setattr(Gate, "lease", lost)
    more = {"step": "day", "from": DAY.isoformat(), "to": "2026-03-03T00:00:00+09:00"}
    path = path_of(channel, **(more if channel == "rollups" else {}))
    try:
        answer = town.send("GET", path, Role.RECIPIENT, "clinic")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        text = answer.text
    except httpx.RemoteProtocolError as error:  # an answer that had begun is cut
        text = str(error)
    assert leased.is_set()
    assert "heart-rate" not in text
