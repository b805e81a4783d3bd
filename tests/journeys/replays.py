"""`chimata gateway replay` as a user runs it, and what the account and the tables then hold."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deploy import postgres
from tests.platform import CHIMATA, Platform

REPLAY_SECONDS_MAX = 150.0
TOLD_SECONDS_MAX = 15.0
SUMMARY = re.compile(
    r"sent (?P<batches>\d+) batches, (?P<messages>\d+) messages\n"
    r"received (?P<received>\d+) batches, (?P<messages_received>\d+) messages "
    r"\((?P<observations>\d+) observations: (?P<stored>\d+) stored, "
    r"(?P<duplicate>\d+) duplicate, (?P<rejected>\d+) rejected\)\n"
    r"refused (?P<refused>\d+) batches, (?P<messages_refused>\d+) messages\n"
)

NUMBERS = """
SELECT t.key, d.property, (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint,
  served(o.result, d.decimals)
FROM observation o JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
WHERE t.sector = %s AND d.kind = 'number'
"""
CATEGORIES = """
SELECT t.key, d.property, (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint, c.text
FROM observation o JOIN datastream d ON d.id = o.datastream_id JOIN thing t ON t.id = d.thing_id
JOIN category c ON c.code = o.result
WHERE t.sector = %s AND d.kind = 'category'
"""
DOCUMENTS = """
SELECT t.key, d.property, (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint, o.result
FROM observation_document o JOIN datastream d ON d.id = o.datastream_id
JOIN thing t ON t.id = d.thing_id WHERE t.sector = %s
"""
POSITIONS = """
SELECT t.key, (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint,
       o.longitude, o.latitude, o.speed, o.course
FROM observation_position o JOIN datastream d ON d.id = o.datastream_id
JOIN thing t ON t.id = d.thing_id WHERE t.sector = %s
"""
SUPERSEDED = """
SELECT t.key, d.property, (extract(epoch FROM o.phenomenon_time) * 1000000)::bigint,
  CASE jsonb_typeof(o.result) WHEN 'number'
  THEN to_jsonb(served(o.result::float8, d.decimals)) ELSE o.result END
FROM superseded o JOIN datastream d ON d.id = o.datastream_id
JOIN thing t ON t.id = d.thing_id WHERE t.sector = %s
"""
ROWS = """
SELECT (SELECT count(*) FROM observation) + (SELECT count(*) FROM observation_position)
     + (SELECT count(*) FROM observation_document) + (SELECT count(*) FROM superseded)
"""
REPEATED_KEYS = """
SELECT datastream_id, phenomenon_time FROM (
  SELECT datastream_id, phenomenon_time FROM observation
  UNION ALL SELECT datastream_id, phenomenon_time FROM observation_position
  UNION ALL SELECT datastream_id, phenomenon_time FROM observation_document) AS every
GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5
"""


@dataclass(frozen=True)
class Sent:
    """What one replay printed, and how it ended."""

    code: int
    said: str
    batches: int = -1
    messages: int = -1
    received: int = -1
    messages_received: int = -1
    observations: int = -1
    stored: int = -1
    duplicate: int = -1
    rejected: int = -1
    refused: int = -1
    messages_refused: int = -1


class Replay:
    """A replay under way."""

    def __init__(
        self,
        files: Sequence[Path],
        *arguments: str,
        sector: str,
        form: str,
        gateway: str,
        to: str,
        state: Path,
        data: Path | None = None,
        token: str | None = None,
    ) -> None:
        """`state` is where the outbox is kept; the token is of `data`'s issuer if none is given."""
        command = [
            str(CHIMATA), "gateway", "replay", "--sector", sector, "--format", form,
            "--gateway", gateway, "--to", to, *arguments,
        ]  # fmt: skip
        if data is not None:
            command += ["--data", str(data)]
        environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "dumb"}
        environment.pop("CHIMATA_TOKEN", None)
        if token is not None:
            environment["CHIMATA_TOKEN"] = token
        self.process = subprocess.Popen(
            [*command, *map(str, files)], env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.communicate()

    def finish(self, seconds: float = REPLAY_SECONDS_MAX) -> Sent:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"the replay hangs:\n{out[-2000:]}\n{err[-2000:]}") from None
        said = f"{out}\n{err}"
        found = SUMMARY.fullmatch(out)
        numbers = {name: int(text) for name, text in found.groupdict().items()} if found else {}
        return Sent(self.process.returncode, said, **numbers)


def replay(platform: Platform, files: Sequence[Path], *arguments: str, **named: Any) -> Sent:
    """One replay to its end; over MQTT unless `to` says otherwise."""
    named = {"to": platform.mqtt, "data": platform.data, **named}
    return Replay(files, *arguments, **named).finish()


@contextmanager
def database(platform: Platform) -> Iterator["psycopg.Connection[Any]"]:
    """The platform's own database."""
    url = postgres.running_url(platform.data / "postgres")
    assert url is not None
    with psycopg.connect(url) as connection:
        yield connection


def rows(platform: Platform, query: str, *values: Any) -> list[Any]:
    """What a query finds in the platform's own database."""
    with database(platform) as connection:
        return connection.execute(query, values).fetchall()


def account(platform: Platform, seconds: float = TOLD_SECONDS_MAX) -> dict[str, dict[str, Any]]:
    """`chimata account --json` by gateway, once nothing is held (that is told a little late)."""
    deadline = time.monotonic() + seconds
    while True:
        told = json.loads(platform.chimata("account", "--json"))["sources"]
        assert all(row["adds_up"] for row in told)
        if not any(row["held"] for row in told) or time.monotonic() > deadline:
            assert len({row["gateway"] for row in told}) == len(told)
            return {row["gateway"]: row for row in told}
        time.sleep(0.3)


def check_nothing_twice(connection: "psycopg.Connection[Any]") -> None:
    """Every key (Datastream, time) stands once in the tables."""
    assert connection.execute(REPEATED_KEYS).fetchall() == []


@pytest.fixture(scope="module")
def outboxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the replays of a module keep their outboxes."""
    return tmp_path_factory.mktemp("state")
