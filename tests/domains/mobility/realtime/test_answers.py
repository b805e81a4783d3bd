"""What a feed says is what departures answer over HTTP: late, closed, and open again."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from domains.mobility.realtime import state
from tests.domains.mobility import tables
from tests.domains.mobility.realtime.feeds import alert, message, position, update
from tests.domains.mobility.realtime.town import Town, opened
from tests.domains.serving import client_of

Ask = Callable[[str], dict[str, Any]]
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def city(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Town, Ask]]:
    """A line A-B-C each day at 8:00, 8:10 and 8:20, its feed, and what leaves a stop tomorrow."""
    monkeypatch.setattr(state, "REFRESH_SECONDS", -1.0)
    begin, end = (f"{TOMORROW + timedelta(days=n):%Y%m%d}" for n in (-100, 100))
    line = tables.line("8:00:00", "8:10:00", "8:20:00")
    line["calendar"] = [tables.every_day("s", begin, end)]
    with psycopg.connect(database_url, autocommit=True) as session:
        tables.store(session, line, "town")
    with opened(database_url, "town") as sends, client_of(database_url, tmp_path, None) as client:

        def ask(stop: str) -> dict[str, Any]:
            query = {"from": f"{TOMORROW:%Y-%m-%d}T07:00:00+09:00", "limit": 1}
            answer = client.get(f"/v1/mobility/stops/town:{stop}/departures", params=query)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()["departures"][0]
            return found

        yield sends, ask


def clock(departure: dict[str, Any], name: str) -> str:
    return str(departure[name])[11:16]


def test_a_delay_is_expected_and_over_with_the_next_message(city: tuple[Town, Ask]) -> None:
    (town, ask), now = city, int(time.time())
    assert (ask("B")["realtime"], clock(ask("B"), "expected")) == (False, "08:10")
    late = update("t", {"stopSequence": 0, "departure": {"delay": 300}},
                  startDate=f"{TOMORROW:%Y%m%d}")  # fmt: skip
    other = update("x", startDate=f"{TOMORROW:%Y%m%d}")
    town.send(message(late, other, time=now), now)
    assert (ask("B")["realtime"], clock(ask("B"), "expected")) == (True, "08:15")
    town.send(message(other, time=now + 1), now + 1)
    assert (ask("B")["realtime"], clock(ask("B"), "expected")) == (False, "08:10")


def test_an_alert_that_closes_a_stop_closes_it_in_departures(city: tuple[Town, Ask]) -> None:
    """Until the feed has it no more; and a late copy of it closes nothing again."""
    (town, ask), now = city, int(time.time())
    closed = message(alert("x", {"stopId": "B"}, effect="NO_SERVICE"), alert("y"), time=now)
    town.send(closed, now)
    assert (ask("B")["skipped"], ask("B")["expected"]) == (True, None)
    assert not ask("A")["skipped"]
    town.send(message(alert("y"), time=now + 1), now + 1)
    assert not ask("B")["skipped"]
    town.send(closed, now + 2)
    assert not ask("B")["skipped"]


def test_a_closed_route_and_a_cancelled_trip(city: tuple[Town, Ask]) -> None:
    (town, ask), now = city, int(time.time())
    off = update("t", startDate=f"{TOMORROW:%Y%m%d}", scheduleRelationship="CANCELED")
    town.send(message(off, position("7", 139.0, 35.0), time=now), now)
    assert (ask("A")["cancelled"], ask("A")["expected"]) == (True, None)
    route = alert("x", {"routeId": "r"}, effect="NO_SERVICE")
    town.send(message(route, position("7", 139.0, 35.0), time=now + 1), now + 1)
    assert ask("A")["cancelled"]
    town.send(message(position("7", 139.0, 35.0), time=now + 2), now + 2)
    assert not ask("A")["cancelled"]
