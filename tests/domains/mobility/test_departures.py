"""Departures against a search over every stop time: real feeds, made ones, real time, clocks."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.storage.pool import Session
from domains.mobility.network.departures import Departure, below, departures
from domains.mobility.network.load import Network
from domains.mobility.realtime.overlay import Closure, Overlay, TripState, Vehicle
from tests.domains.mobility import feeds, tables
from tests.domains.mobility.networks import PLANNED, Listed, Load, busiest, loading, searched

TOKYO = ZoneInfo("Asia/Tokyo")
MONDAY = datetime(2026, 6, 1, 8, 0, tzinfo=TOKYO)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE chimata_ingest")
        yield connection


@pytest.fixture
def loaded(database_url: str, tmp_path: Path) -> Iterator[Load]:
    with loading(database_url, tmp_path) as network:
        yield network


@pytest.fixture(scope="module")
def recorded(
    module_database_url: str, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """Caltrain, Donan Bus and MLIT's sample in one network."""
    for feed in feeds.RECORDED:
        feeds.import_recorded(module_database_url, shared_data, feed)
    with loading(module_database_url, tmp_path_factory.mktemp("network")) as network:
        yield network()


def asked(
    network: Network, stop: int, at: datetime, limit: int, overlay: Overlay = PLANNED
) -> list[Departure]:
    return departures(network.timetable, network.index, overlay, [stop], at, limit)


def told(network: Network, found: list[Departure]) -> list[Listed]:
    timetable = network.timetable
    return [
        (each.expected, timetable.stops.ids.texts[each.stop], timetable.trips.ids.texts[each.trip])
        for each in found
    ]


def agree(network: Network, stop: int, at: datetime, limit: int, overlay: Overlay) -> int:
    """Assert that the list is the search's; how many were on it."""
    found = asked(network, stop, at, limit, overlay)
    right = searched(network.timetable, overlay, set(below(network.index, stop)), at)
    mine = told(network, found)
    assert [each[0] for each in mine] == [each[0] for each in right[:limit]]
    assert set(mine) <= set(right)
    assert len(set(mine)) == len(mine)
    return len(found)


@pytest.mark.parametrize("seed", range(12))
def test_real_feeds_agree_with_a_search(recorded: Network, seed: int) -> None:
    """Stops busy and not, stations and platforms; days in and around what the feeds are for."""
    random, timetable = Random(seed), recorded.timetable
    spans = [(each.valid_from, each.valid_to) for each in timetable.versions]
    listed = 0
    for _ in range(3):
        stop = random.choice([random.randrange(len(timetable.stops.names)), *busiest(timetable, 9)])
        begin, end = spans[int(timetable.stops.version[stop])]
        assert begin is not None
        assert end is not None
        days = random.randrange(-3, (end - begin).days + 4)
        at = datetime(begin.year, begin.month, begin.day, tzinfo=UTC) + timedelta(
            days=days, seconds=random.randrange(86_400)
        )
        limit = random.choice([1, 5, 40, 300])
        listed += agree(recorded, stop, at, limit, PLANNED)
    assert listed or seed


def test_recorded_feeds_with_real_time_agree_too(recorded: Network) -> None:
    """Half the trips of a day are late, early or cancelled."""
    random, timetable = Random(5), recorded.timetable
    day = date(2020, 7, 1)
    trips = np.flatnonzero(timetable.services.on(day)[timetable.trips.service]).tolist()
    states = {
        (trip, day): late(recorded, trip, random.randrange(-1200, 7200), random.random() < 0.1)
        for trip in trips
        if random.random() < 0.5
    }
    overlay = Overlay(datetime.now(UTC), trips=states)
    donan = [s for s in busiest(timetable, 200) if "donan" in timetable.stops.ids.texts[s]][:4]
    listed = 0
    for stop in donan:
        at = datetime(2020, 7, 1, random.randrange(5, 22), 7, tzinfo=TOKYO)
        listed += agree(recorded, stop, at, random.choice([3, 20, 60]), overlay)
    assert listed > 20


def late(network: Network, trip: int, seconds: int, cancelled: bool = False) -> TripState:
    offsets, times = network.timetable.trips.offsets, network.timetable.stop_times
    rows = slice(int(offsets[trip]), int(offsets[trip + 1]))
    return TripState(
        cancelled,
        times.arrival[rows] + np.int32(seconds),
        times.departure[rows] + np.int32(seconds),
        np.zeros(rows.stop - rows.start, np.bool_),
        datetime.now(UTC),
    )


clocks = st.integers(0, 50 * 3600).map(lambda s: f"{s // 3600}:{s // 60 % 60:02d}:{s % 60:02d}")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    starts=st.lists(clocks, min_size=1, max_size=12),
    moments=st.lists(st.integers(-3 * 86_400, 3 * 86_400), min_size=1, max_size=6),
    zone=st.sampled_from(["Europe/London", "America/New_York", "Asia/Tokyo"]),
    change=st.sampled_from([(2026, 3, 8), (2026, 3, 29), (2026, 10, 25), (2026, 11, 1)]),
    limit=st.integers(1, 30),
    frequent=st.booleans(),
)
def test_made_feeds_agree_across_midnight_and_changes_of_clocks(
    session: Session, loaded: Load, starts: list[str], moments: list[int], zone: str,
    change: tuple[int, int, int], limit: int, frequent: bool,
) -> None:  # fmt: skip
    session.execute("DELETE FROM mobility.feed_version")
    feed = tables.line("0:00:00", "0:10:00")
    feed["agency"] = [{"agency_timezone": zone}]
    feed["trips"] = [
        {"trip_id": f"t{n}", "route_id": "r", "service_id": "s"} for n in range(len(starts))
    ]
    feed["stop_times"] = [
        {"trip_id": f"t{n}", "stop_sequence": at, "stop_id": stop, "departure_time": start,
         "pickup_type": n % 5 == 4 and "1"}
        for n, start in enumerate(starts)
        for at, stop in enumerate("AB")
    ]  # fmt: skip
    if frequent:
        feed["frequencies"] = [
            {"trip_id": "t0", "start_time": "22:00:00", "end_time": "26:00:00",
             "headway_secs": "1800"}
        ]  # fmt: skip
    tables.store(session, feed)
    network = loaded()
    for seconds in moments:
        at = datetime(*change, 2, tzinfo=UTC) + timedelta(seconds=seconds)
        agree(network, 0, at, limit, PLANNED)


def test_a_service_day_begins_twelve_hours_before_noon(session: Session, loaded: Load) -> None:
    """On the day that the clocks go forward 8:00 is 8:00 on the wall all the same."""
    feed = tables.line("8:00:00", "8:10:00")
    feed["agency"] = [{"agency_timezone": "Europe/Berlin"}]
    tables.store(session, feed)
    berlin = ZoneInfo("Europe/Berlin")
    for day in (date(2026, 3, 29), date(2026, 10, 25), date(2026, 6, 1)):
        (first,) = asked(loaded(), 0, datetime(day.year, day.month, day.day, tzinfo=berlin), 1)
        wall = datetime.fromtimestamp(first.scheduled, berlin)
        assert (wall.date(), wall.hour, first.day) == (day, 8, day)


def test_a_trip_after_midnight_belongs_to_the_day_before(session: Session, loaded: Load) -> None:
    feed = tables.line("25:10:00", "25:20:00")
    feed["calendar"][0] |= dict.fromkeys(("monday", "tuesday", "wednesday", "thursday"), "0")
    tables.store(session, feed)
    (found,) = asked(loaded(), 0, datetime(2026, 6, 6, 1, 0, tzinfo=TOKYO), 1)
    assert found.day == date(2026, 6, 5)
    assert datetime.fromtimestamp(found.scheduled, TOKYO).isoformat() == "2026-06-06T01:10:00+09:00"


def test_a_version_ends_with_its_last_day(session: Session, loaded: Load) -> None:
    """At midnight trips of two versions of a feed leave one stop."""
    tables.store(session, tables.line("8:00:00", "8:10:00") | {"frequencies": [
        {"trip_id": "t", "start_time": "23:00:00", "end_time": "26:00:00", "headway_secs": "1800"}
    ]})  # fmt: skip
    tables.store(
        session, tables.line("0:15:00", "0:25:00", trip="new"),
        valid=(date(2026, 6, 2), date(2026, 12, 31)),
    )  # fmt: skip
    network = loaded()
    stops = network.timetable.stops.ids.all_of("town:A")
    at = datetime(2026, 6, 1, 23, 40, tzinfo=TOKYO)
    found = departures(network.timetable, network.index, PLANNED, stops, at, 8)
    assert [each[2] for each in told(network, found)] == [
        "town:t@24:00:00", "town:new", "town:t@24:30:00", "town:t@25:00:00", "town:t@25:30:00",
        "town:new", "town:new", "town:new",
    ]  # fmt: skip


def test_a_station_has_what_leaves_its_platforms(session: Session, loaded: Load) -> None:
    feed = tables.line("8:00:00", "8:05:00", "8:10:00")
    feed["stops"].append({"stop_id": "S", "location_type": "1"})
    for stop in feed["stops"][:2]:
        stop["parent_station"] = "S"
    tables.store(session, feed)
    network = loaded()
    station = network.timetable.stops.ids.numbers["town:S"]
    assert [each[1] for each in told(network, asked(network, station, MONDAY, 3))] == [
        "town:A", "town:B", "town:A",
    ]  # fmt: skip


def test_what_real_time_says(session: Session, loaded: Load) -> None:
    """Late: listed until it leaves. Cancelled, skipped or closed: listed, and said."""
    tables.store(session, tables.line("7:55:00", "8:30:00", "9:00:00"))
    network = loaded()
    day, trip = date(2026, 6, 1), (0, date(2026, 6, 1))
    assert asked(network, 0, MONDAY, 1)[0].day == date(2026, 6, 2)
    running = Overlay(
        MONDAY,
        trips={trip: late(network, 0, 600)},
        vehicles=(Vehicle("town:7", MONDAY, 139, 35, 0, 0, trip, 0, {}),),
    )
    (first,) = asked(network, 0, MONDAY, 1, running)
    assert (first.day, first.expected - first.scheduled, first.realtime) == (day, 600, True)
    assert first.vehicle == "town:7"
    assert asked(network, 0, MONDAY + timedelta(minutes=6), 1, running)[0].day > day
    ended = Overlay(MONDAY, trips={trip: late(network, 0, 0, cancelled=True)})
    (second,) = asked(network, 1, MONDAY, 1, ended)
    assert (second.cancelled, second.realtime, second.day) == (True, False, day)
    state = late(network, 0, 60)
    state.skipped[1] = True
    (passed,) = asked(network, 1, MONDAY, 1, Overlay(MONDAY, trips={trip: state}))
    assert (passed.skipped, passed.cancelled, passed.realtime) == (True, False, False)


@pytest.mark.parametrize(
    ("named", "means"),
    [({"stops": {1}}, "skipped"), ({"routes": {0}}, "cancelled"), ({"trips": {0}}, "cancelled")],
)
def test_an_alert_closes_while_it_holds(
    session: Session, loaded: Load, named: dict[str, set[int]], means: str
) -> None:
    tables.store(session, tables.line("7:55:00", "8:30:00", "9:00:00"))
    closure = Closure(
        "town:alert", MONDAY, MONDAY + timedelta(hours=2),
        **{name: frozenset(numbers) for name, numbers in named.items()},
    )  # fmt: skip
    today, tomorrow = asked(loaded(), 1, MONDAY, 2, Overlay(MONDAY, closures=(closure,)))
    assert getattr(today, means)
    assert not (tomorrow.skipped or tomorrow.cancelled)


def test_one_route_alone(session: Session, loaded: Load) -> None:
    feed = tables.line("8:10:00", "8:20:00")
    feed["routes"].append({"route_id": "q"})
    feed["trips"].append({"trip_id": "u", "route_id": "q", "service_id": "s"})
    feed["stop_times"] += [
        {"trip_id": "u", "stop_sequence": n, "stop_id": stop, "departure_time": "8:15:00"}
        for n, stop in enumerate("AB")
    ]
    tables.store(session, feed)
    network = loaded()
    found = departures(
        network.timetable, network.index, PLANNED, [0], MONDAY, 2, routes=frozenset({1})
    )
    assert [each[2] for each in told(network, found)] == ["town:u", "town:u"]
