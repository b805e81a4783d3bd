"""kill -9 of every part in the middle of a replay: it completes, and each row is there once."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from core.tokens import Role, issue, load_keys
from tests.databases import DROP_DATABASE, fresh_name
from tests.gateways.mosquitto import Mosquitto
from tests.journeys import replays
from tests.journeys.replays import Replay, Sent
from tests.kafka_server import free_port
from tests.platform import CHIMATA, Platform, running
from tests.require import require, timescale_url

pytestmark = pytest.mark.timeout(280)

BATCHES = 200
ROWS_A_BATCH = 40
NODES = 8
RATE = "900"
"""Rows a second: the whole replay takes 9 s, so that there is a middle to kill in."""
MIDDLE_SECONDS_MAX = 60.0
START_US = round(datetime(2024, 3, 1, tzinfo=UTC).timestamp() * 1_000_000)

Expected = dict[tuple[str, str, int], float]
COUNT_BATCHES = "SELECT count(*) FROM batch WHERE gateway = %s"
STORED = replays.NUMBERS + " AND t.key LIKE %s"
OTHER_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def record(path: Path, gateway: str) -> Expected:
    """A recording of BATCHES batches in Arrow; what has to be stored of it, row by row."""
    schema = pa.schema(
        [
            ("thing", pa.utf8()),
            ("property", pa.utf8()),
            ("phenomenon_time", pa.timestamp("us", "UTC")),
            ("result", pa.float64()),
        ]
    )
    expected: Expected = {}
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for number in range(BATCHES):
            rows = []
            for row in range(ROWS_A_BATCH):
                index = number * ROWS_A_BATCH + row
                thing = f"{gateway}-{row % NODES}"
                time_us = START_US + index * 250_000
                rows.append((thing, "throughput", time_us, index / 8))
                expected[thing, "throughput", time_us] = index / 8
            columns = [pa.array(column, kind) for column, kind in zip(
                zip(*rows, strict=True), schema.types, strict=True)]  # fmt: skip
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return expected


def check_stored(connection: "psycopg.Connection[Any]", gateway: str, expected: Expected) -> None:
    """The tables hold the recording: every key, every result, none twice, nothing else."""
    found = connection.execute(STORED, ("edge", f"{gateway}-%")).fetchall()
    stored = {(thing, name, time): result for thing, name, time, result in found}
    assert len(found) == len(stored) == len(expected)
    assert stored == expected
    replays.check_nothing_twice(connection)


def check_account(row: Mapping[str, Any], expected: Expected) -> None:
    """What was stored is the recording; what came twice is counted as that and as nothing else."""
    assert row["adds_up"]
    assert (row["stored"], row["rejected"], row["held"], row["missing"]) == (len(expected), 0, 0, 0)
    assert row["messages"] == row["received"] == row["stored"] + row["duplicate"]


def check_completed(sent: Sent) -> None:
    """Every batch has its receipt."""
    assert sent.code == 0, sent.said
    assert (sent.batches, sent.received, sent.refused) == (BATCHES, BATCHES, 0), sent.said
    assert sent.messages == sent.messages_received == BATCHES * ROWS_A_BATCH


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + MIDDLE_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_batches(url: str, gateway: str, count: int) -> None:
    """Until the ledger has so many batches of a gateway."""
    with psycopg.connect(url, autocommit=True) as connection:

        def there() -> bool:
            row = connection.execute(COUNT_BATCHES, (gateway,)).fetchone()
            return row is not None and row[0] >= count

        wait_until(there, f"{count} batches of {gateway} are not stored")


# -- `chimata up` ---------------------------------------------------------------------------------


def url_of(platform: Platform) -> str:
    from deploy import postgres

    url = postgres.running_url(platform.data / "postgres")
    assert url is not None
    return url


def parts(platform: Platform) -> list[psutil.Process]:
    return psutil.Process(platform.process.pid).children(recursive=True)


def is_part(process: psutil.Process, *words: str) -> bool:
    try:
        line = process.cmdline()
    except psutil.Error:
        return False
    return bool(line) and all(word in line or Path(line[0]).name == word for word in words)


def postmaster(platform: Platform) -> psutil.Process:
    (found,) = (
        each
        for each in psutil.Process(platform.process.pid).children()
        if is_part(each, "postgres")
    )
    return found


VICTIMS: dict[str, Callable[[Platform], list[psutil.Process]]] = {
    "ingestor": lambda p: [each for each in parts(p) if is_part(each, "ingest", "mqtt")],
    "broker": lambda p: [each for each in parts(p) if is_part(each, "nats-server")],
    # The server's processes die with it: their shared memory is gone.
    "database": lambda p: [postmaster(p)],
    "everything-but-up": parts,
}


def kill(processes: list[psutil.Process]) -> None:
    """kill -9; some of them end by themselves when another one dies."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, left = psutil.wait_procs(processes, timeout=10)
    assert not left


def start_replay(platform: Platform, outboxes: Path, path: Path, gateway: str) -> Replay:
    return Replay(
        [path], "--rate", RATE, sector="edge", form="arrow", gateway=gateway,
        to=platform.mqtt, data=platform.data, state=outboxes,
    )  # fmt: skip


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_part_killed_in_the_middle(
    platform: Platform, outboxes: Path, tmp_path: Path, victim: str
) -> None:
    gateway = f"kill-{victim}"
    expected = record(tmp_path / "kpi.arrow", gateway)
    replay = start_replay(platform, outboxes, tmp_path / "kpi.arrow", gateway)
    wait_for_batches(url_of(platform), gateway, BATCHES // 4)
    killed = VICTIMS[victim](platform)
    assert killed
    assert replay.running()
    kill(killed)
    check_completed(replay.finish())
    check_account(replays.account(platform)[gateway], expected)
    with psycopg.connect(url_of(platform)) as connection:
        check_stored(connection, gateway, expected)


def test_the_gateway_killed_in_the_middle(
    platform: Platform, outboxes: Path, tmp_path: Path
) -> None:
    """Started again, the same command takes up its outbox where it was."""
    gateway = "kill-gateway"
    expected = record(tmp_path / "kpi.arrow", gateway)
    replay = start_replay(platform, outboxes, tmp_path / "kpi.arrow", gateway)
    wait_for_batches(url_of(platform), gateway, BATCHES // 4)
    assert replay.running()
    replay.kill()
    sent = start_replay(platform, outboxes, tmp_path / "kpi.arrow", gateway).finish()
    check_completed(sent)
    check_account(replays.account(platform)[gateway], expected)
    with psycopg.connect(url_of(platform)) as connection:
        check_stored(connection, gateway, expected)


def receipted(outboxes: Path, gateway: str) -> set[int]:
    """Sequences that a gateway's outbox has let go of: each had its receipt."""
    (path,) = (outboxes / "chimata" / "outbox").glob(f"{gateway}-*.sqlite")
    with sqlite3.connect(path) as outbox:
        (appended,) = outbox.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batches'")
        left = {seq for (seq,) in outbox.execute("SELECT seq FROM batches")}
    return set(range(appended[0])) - left


def test_everything_killed_and_up_started_again(tmp_path: Path) -> None:
    """Each batch that had its receipt is there row by row, before the gateway sends anything."""
    gateway, outboxes, data = "kill-all", tmp_path / "state", tmp_path / "data"
    expected = record(tmp_path / "kpi.arrow", gateway)
    mqtt = f"127.0.0.1:{free_port()}"
    with running(data, "--mqtt", mqtt) as first:
        first.mqtt = f"mqtt://{mqtt}"
        replay = start_replay(first, outboxes, tmp_path / "kpi.arrow", gateway)
        wait_for_batches(url_of(first), gateway, BATCHES // 4)
        every = parts(first)
        replay.process.send_signal(signal.SIGSTOP)
        first.process.kill()
        kill(every)
        first.process.wait(10)
    had_receipts = receipted(outboxes, gateway)
    assert BATCHES // 8 < len(had_receipts) < BATCHES
    with running(data, "--mqtt", mqtt) as second:
        second.mqtt = f"mqtt://{mqtt}"
        with psycopg.connect(url_of(second)) as connection:
            found = connection.execute(STORED, ("edge", f"{gateway}-%")).fetchall()
        stored = {(thing, name, time): result for thing, name, time, result in found}
        for seq in had_receipts:
            for index in range(seq * ROWS_A_BATCH, (seq + 1) * ROWS_A_BATCH):
                key = (f"{gateway}-{index % NODES}", "throughput", START_US + index * 250_000)
                assert stored[key] == index / 8
        replay.process.send_signal(signal.SIGCONT)
        check_completed(replay.finish())
        check_account(replays.account(second)[gateway], expected)
        with psycopg.connect(url_of(second)) as connection:
            check_stored(connection, gateway, expected)


# -- part by part, on TimescaleDB -----------------------------------------------------------------


@dataclass
class Parts:
    """`chimata ingest mqtt` on a Mosquitto and a TimescaleDB, as someone runs them apart."""

    url: str
    broker: Mosquitto
    folder: Path
    ingestor: "subprocess.Popen[bytes] | None" = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            **os.environ,
            "CHIMATA_DATABASE_URL": self.url,
            "CHIMATA_MQTT_URL": self.broker.url,
            "CHIMATA_DATA": str(self.folder / "data"),
        }

    def chimata(self, *arguments: str) -> str:
        command = [str(CHIMATA), *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=self.environment
        ).stdout

    def start_ingestor(self) -> None:
        with (self.folder / "ingest.log").open("ab") as log:
            self.ingestor = subprocess.Popen(
                [str(CHIMATA), "ingest", "mqtt"], env=self.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.ingestor.stdout is not None
        assert self.ingestor.stdout.readline() == b"ready\n", (
            self.folder / "ingest.log"
        ).read_text()

    def kill_ingestor(self) -> None:
        assert self.ingestor is not None
        self.ingestor.kill()
        self.ingestor.communicate()

    def end_connections(self) -> None:
        """What a restart of the server does to its clients; this one is not ours to kill."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            assert connection.execute(OTHER_BACKENDS).rowcount > 0


@contextmanager
def timescale_database(admin_url: str) -> Iterator[str]:
    name = fresh_name()
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(admin_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute(DROP_DATABASE.format(sql.Identifier(name)))


@pytest.fixture
def timescale_parts(tmp_path: Path) -> Iterator[Parts]:
    """The parts, running, on a fresh database."""
    broker = Mosquitto(require("mosquitto"), tmp_path)
    with timescale_database(timescale_url()) as url:
        broker.start()
        running_parts = Parts(url, broker, tmp_path)
        try:
            assert "applied" in running_parts.chimata("migrate")
            running_parts.start_ingestor()
            yield running_parts
        finally:
            if running_parts.ingestor is not None:
                running_parts.ingestor.terminate()
                running_parts.ingestor.communicate(timeout=30)
            broker.kill()


@pytest.mark.timescale
@pytest.mark.mosquitto
def test_parts_killed_one_after_the_other_on_timescale(
    timescale_parts: Parts, outboxes: Path, tmp_path: Path
) -> None:
    """The ingestor, the broker and every database connection die in one replay."""
    gateway = "kill-parts"
    expected = record(tmp_path / "kpi.arrow", gateway)
    keys = load_keys(tmp_path / "data" / "keys", create=True)
    replay = Replay(
        [tmp_path / "kpi.arrow"], "--rate", RATE, sector="edge", form="arrow", gateway=gateway,
        to=timescale_parts.broker.url, state=outboxes,
        token=issue(keys, Role.GATEWAY, gateway=gateway),
    )  # fmt: skip
    wait_for_batches(timescale_parts.url, gateway, BATCHES // 8)
    timescale_parts.kill_ingestor()
    timescale_parts.start_ingestor()
    wait_for_batches(timescale_parts.url, gateway, BATCHES // 4)
    timescale_parts.broker.kill()
    timescale_parts.broker.start()
    wait_for_batches(timescale_parts.url, gateway, BATCHES // 2)
    timescale_parts.end_connections()
    assert replay.running()
    check_completed(replay.finish())
    (row,) = json.loads(timescale_parts.chimata("account", "--json"))["sources"]
    check_account(row, expected)
    with psycopg.connect(timescale_parts.url) as connection:
        check_stored(connection, gateway, expected)
