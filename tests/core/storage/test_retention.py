"""Retention lets go by sector, class and tier, in steps, and the rollups outlive their rows."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from consent import history
from consent.gate import Gate
from core.clock import from_datetime
from core.errors import CityError
from core.sector import ObservedProperty, Sector
from core.sensorthings import DataClass
from core.settings import Settings
from core.storage.observations import SectorStore
from core.storage.retention import Retention, Rule, parse
from core.storage.rollup import Worker
from core.tokens import ANONYMOUS
from tests.core.storage.test_append import decoded, message

DAY = timedelta(days=1)
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
LEVEL = (ObservedProperty("level", "水位", "Level", "m"),)
FARMS = Sector("farms", "農", "Farms", DataClass.OPEN, (), LEVEL)
PORTS = Sector("ports", "港", "Ports", DataClass.SHARED, (), LEVEL)
HEALTH = Sector("health", "健", "Health", DataClass.PERSONAL, (), LEVEL)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("", ()),
        ("90d", (Rule(None, None, "observation", 90),)),
        (
            "signals=1d, *:shared=365d,*/minute=400d,farms:open/day=9d",
            (
                Rule("signals", None, "observation", 1),
                Rule(None, "shared", "observation", 365),
                Rule(None, None, "minute", 400),
                Rule("farms", "open", "day", 9),
            ),
        ),
    ],
)
def test_rules_are_read(text: str, rules: tuple[Rule, ...]) -> None:
    assert parse(text) == rules


@pytest.mark.parametrize("text", ["90", "a=0d", "a:typo=3d", "a/week=3d", "a=3d;b=4d", "=3d=4d"])
def test_a_bad_rule_is_quoted(text: str) -> None:
    with pytest.raises(CityError, match="CHIMATA_RETENTION: "):
        parse(text)


def test_the_rule_that_says_most_holds() -> None:
    retention = Retention(parse("30d,*:shared=20d,ports=10d,ports:open=5d,*/minute=7d"))
    told = {
        ("farms", "open"): 30, ("farms", "shared"): 20,
        ("ports", "shared"): 10, ("ports", "open"): 5,
    }  # fmt: skip
    for (sector, data_class), days in told.items():
        assert retention.days(sector, data_class, "observation") == days
    assert retention.days("farms", "open", "minute") == 7
    assert retention.days("farms", "open", "hour") is None


@pytest.fixture
def connection(storage_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(storage_url) as session:
        session.execute("SET ROLE chimata_ingest")
        session.commit()
        yield session


def send(connection: psycopg.Connection[Any], sector: Sector, days: list[int], at: int = 0) -> None:
    """Three rows a minute apart at 10:00 of each of these days ago."""
    rows = [
        ("t", "level", from_datetime(TODAY - n * DAY) + (600 + k + at) * 60_000_000, float(n + k))
        for n in days
        for k in range(3)
    ]
    sent = message(decoded(*rows))
    object.__setattr__(sent, "received_at", from_datetime(TODAY))
    SectorStore(sector).append(connection, [sent])


def work(connection: psycopg.Connection[Any]) -> None:
    worker = Worker()
    while worker.run(connection, from_datetime(TODAY + 2 * DAY)):
        pass


def let_go(connection: psycopg.Connection[Any], rules: str) -> int:
    """How many steps it took."""
    retention = Retention(parse(rules))
    cuts = retention.cuts(connection, datetime.now(UTC))
    steps = 0
    for step in retention.steps(connection, cuts) if retention.due(connection, cuts) else ():
        while step.run(connection):
            connection.commit()
        connection.commit()
        steps += 1
    return steps


def days_left(connection: psycopg.Connection[Any], table: str, moment: str) -> dict[str, list[int]]:
    """Days ago of the rows that are left, by sector."""
    connection.execute("RESET ROLE")
    connection.execute("SET ROLE chimata_gate")
    found = connection.execute(
        f"SELECT t.sector, o.{moment} FROM {table} o JOIN datastream d ON d.id = o.datastream_id"
        " JOIN thing t ON t.id = d.thing_id"
    ).fetchall()
    connection.execute("SET ROLE chimata_ingest")
    connection.commit()
    left: dict[str, set[int]] = {}
    for sector, time in found:
        left.setdefault(sector, set()).add((TODAY - time) // DAY + 1)
    return {sector: sorted(days) for sector, days in left.items()}


def test_each_sector_and_class_by_its_own_rule(connection: psycopg.Connection[Any]) -> None:
    for sector in (FARMS, PORTS, HEALTH):
        send(connection, sector, [100, 50, 20, 3])
    work(connection)
    assert let_go(connection, "ports=30d,*:personal=10d,farms/minute=40d,*/day=60d") > 0
    rows = days_left(connection, "observation", "phenomenon_time")
    assert rows == {"farms": [3, 20, 50, 100], "ports": [3, 20]}
    assert days_left(connection, "personal.observation", "phenomenon_time") == {"health": [3]}
    minutes = days_left(connection, "rollup_minute", "bucket")
    assert minutes == {"farms": [3, 20], "ports": [3, 20, 50, 100]}
    left = days_left(connection, "rollup_day", "bucket")
    assert {sector: max(days) <= 61 for sector, days in left.items()} == {
        "farms": True,
        "ports": True,
    }
    assert days_left(connection, "rollup_hour", "bucket")["farms"] == [3, 20, 50, 100]


def test_what_nobody_keeps_is_dropped_whole(connection: psycopg.Connection[Any]) -> None:
    send(connection, FARMS, [200, 3])
    send(connection, PORTS, [200])
    work(connection)

    def pieces() -> int:
        found = connection.execute("SELECT count(*) FROM retention_pieces()").fetchone()
        connection.commit()
        return found[0] if found else 0

    before = pieces()
    let_go(connection, "farms=90d")
    assert pieces() == before  # the ports still want it
    let_go(connection, "90d")
    assert pieces() < before
    assert days_left(connection, "observation", "phenomenon_time") == {"farms": [3]}
    assert days_left(connection, "rollup_hour", "bucket") == {"farms": [3, 200], "ports": [200]}


def test_what_was_corrected_is_kept_no_longer(connection: psycopg.Connection[Any]) -> None:
    for sector in (FARMS, PORTS):
        send(connection, sector, [50, 3])
        send(connection, sector, [50, 3], at=-1)  # other results at two of the three times
    work(connection)
    corrected = {"farms": [3, 50], "ports": [3, 50]}
    assert days_left(connection, "superseded", "phenomenon_time") == corrected
    let_go(connection, "farms=10d")
    corrected["farms"] = [3]
    assert days_left(connection, "superseded", "phenomenon_time") == corrected


def test_nothing_goes_before_it_is_summed_up(connection: psycopg.Connection[Any]) -> None:
    send(connection, FARMS, [50])
    assert let_go(connection, "10d") == 0
    work(connection)
    assert let_go(connection, "10d") > 0
    assert days_left(connection, "observation", "phenomenon_time") == {}


def test_rollups_outlive_their_rows(connection: psycopg.Connection[Any], storage_url: str) -> None:
    """A row that comes when its day is gone must not take the place of the day that was."""
    send(connection, FARMS, [50, 2])
    work(connection)
    let_go(connection, "10d")
    gate = Gate(Settings(database_url=storage_url))

    def day(step: timedelta) -> list[tuple[Any, ...]]:
        with gate.reading(ANONYMOUS, FARMS) as reading:
            stream = history.select_datastream(reading, "t", "level")
            assert stream is not None
            page = history.Page(TODAY - 50 * DAY, TODAY - 49 * DAY)
            return [tuple(r.values()) for r in history.select_buckets(reading, stream, page, step)]

    try:
        for step, count in ((DAY, 1), (timedelta(hours=1), 1), (timedelta(minutes=1), 3)):
            assert len(day(step)) == count
        was = day(DAY)
        assert was == [(TODAY - 50 * DAY, 3, 51.0, 50.0, 52.0, 52.0)]
        send(connection, FARMS, [50], at=1)
        assert day(DAY) == was
        work(connection)
        assert day(DAY) == was
        assert len(day(timedelta(minutes=1))) == 3
        let_go(connection, "10d")
        assert days_left(connection, "observation", "phenomenon_time") == {"farms": [2]}
    finally:
        gate.close()
