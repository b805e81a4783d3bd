"""A real pipeline on a real database, and what a channel's test asks of both."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import orjson
import psycopg

from core.clock import now_us, to_iso
from core.settings import Settings
from core.storage.account import AccountRow, account
from core.storage.message import Outcome
from ingest.pipeline import Pipeline, Raw, Run, Settled

SECOND = 1_000_000
WAIT_SECONDS = 20.0


def until(true: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """What `true` returns once it is true; fails with its last value after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        time.sleep(0.02)
    return found


def changed(settings: Settings, **changes: Any) -> Settings:
    return replace(settings, **changes)


def payload(*results: Any, thing: str = "t1", prop: str = "soil-moisture", at: int = 0) -> bytes:
    """The `json` format: one observation a second, the last one at `at` or now."""
    last = at or now_us()
    return orjson.dumps(
        [
            {
                "thing": thing,
                "property": prop,
                "phenomenon_time": to_iso(last - (len(results) - 1 - i) * SECOND),
                "result": result,
            }
            for i, result in enumerate(results)
        ]
    )


class Database:
    """A look at the database from a connection of its own, as another process would have."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(sql.encode(), parameters).fetchall()

    def run(self, sql: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(sql.encode())

    def results(self) -> list[float]:
        return [row[0] for row in self.query("SELECT result FROM observation ORDER BY result")]

    def rejections(self) -> list[tuple[str, str]]:
        return self.query("SELECT reason, detail FROM rejection ORDER BY id")

    def account(self) -> list[AccountRow]:
        with psycopg.connect(self.url) as connection:
            return account(connection)

    def end_sessions(self) -> None:
        """Cut every other connection, as a failing server does."""
        self.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    @contextmanager
    def locked(self, table: str = "observation") -> Iterator[None]:
        """As if somebody else kept a table for the length of a block."""
        with psycopg.connect(self.url) as blocker:
            blocker.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            yield


class Channel:
    """Stands where MQTT, Kafka or HTTP do: sends into a pipeline and notes what is settled.

    `stored_then` notes how many observations another connection saw at the moment of settling.
    """

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings.database_url)
        self.settled: list[tuple[Raw, Outcome]] = []
        self.runs: list[Run] = []
        self.stored_then: list[int] = []
        self.fails = 0
        self._lock = threading.Lock()
        self.pipeline = Pipeline(settings, self._settle, self.runs.extend)

    def _settle(self, settled: Settled) -> None:
        ((count,),) = self.database.query("SELECT count(*) FROM observation")
        with self._lock:
            self.settled += settled
            self.stored_then.append(count)
            if self.fails:
                self.fails -= 1
                raise RuntimeError("the broker does not listen")

    def send(
        self,
        body: bytes,
        *,
        sector: str = "farms",
        form: str = "json",
        gateway: str = "g1",
        boot: str | None = None,
        seq: str | None = None,
        **more: Any,
    ) -> bool:
        return self.pipeline.submit(Raw("test", sector, gateway, form, body, boot, seq, **more))

    def send_run(
        self, *bodies: bytes, sector: str = "farms", form: str = "json", gateway: str = "g1"
    ) -> None:
        """Loose messages as one run; their tags are their numbers."""
        run = Run("test", sector, form)
        now = now_us()
        for number, body in enumerate(bodies):
            run.add(gateway, body, now + number, number)
        assert self.pipeline.submit(run)

    def tags(self) -> list[int]:
        """The tags of all messages of runs that are settled, in order."""
        return [tag for run in list(self.runs) for tag in run.tags]

    def outcomes(self, count: int, seconds: float = WAIT_SECONDS) -> list[Outcome]:
        """The outcomes of the first `count` messages settled, in order."""
        until(lambda: len(self.settled) >= count, seconds)
        return [outcome for _, outcome in self.settled[:count]]

    def outcome(self, body: bytes, **more: Any) -> Outcome:
        before = len(self.settled)
        assert self.send(body, **more)
        return self.outcomes(before + 1)[-1]


@contextmanager
def running(settings: Settings) -> Iterator[Channel]:
    """A channel whose pipeline runs for the length of a block."""
    channel = Channel(settings)
    channel.pipeline.start()
    try:
        yield channel
    finally:
        channel.pipeline.stop()
