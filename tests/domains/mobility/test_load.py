"""The Timetable from the database: versions side by side, untimed stops, frequencies."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from consent.gate import Gate
from core.settings import Settings
from core.storage.pool import Session
from core.tokens import ANONYMOUS, SCOPES, Principal, Role
from domains.mobility.network import load
from domains.mobility.network.timetable import UNTIMED, Timetable
from domains.mobility.sector import SECTOR
from tests.domains.mobility import tables

STAFF = Principal(Role.STAFF, "staff", None, "s", SCOPES[Role.STAFF], 0)
Load = Callable[[Principal], Timetable]


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    """Writes as an import does."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE chimata_ingest")
        yield connection


@pytest.fixture
def loaded(database_url: str, tmp_path: Path) -> Iterator[Load]:
    """The timetable as someone sees it."""
    gate = Gate(Settings(database_url=database_url, data=tmp_path))

    def timetable(principal: Principal = ANONYMOUS) -> Timetable:
        with gate.reading(principal, SECTOR) as connection:
            return load.timetable(connection)

    yield timetable
    gate.close()


def test_nothing_is_a_timetable_too(loaded: Load) -> None:
    empty = loaded(STAFF)
    assert empty.versions == ()
    assert not empty.services.on(date(2026, 1, 1)).any()


def test_what_is_stored_is_there(session: Session, loaded: Load) -> None:
    feed = tables.line("8:00:00", "8:05:00", "25:10:00")
    feed["stops"][0] |= {"wheelchair_boarding": "2", "parent_station": "S"}
    feed["stops"][1] |= {"parent_station": "S", "platform_code": "2"}
    feed["stops"].append({"stop_id": "S", "location_type": "1", "wheelchair_boarding": "1"})
    feed["stop_times"][1]["stop_headsign"] = "via B"
    tables.store(session, feed)
    seen = loaded(ANONYMOUS)
    assert seen.stops.ids.texts == ("town:A", "town:B", "town:C", "town:S")
    assert seen.stops.parent.tolist() == [3, 3, -1, -1]
    assert seen.stops.wheelchair.tolist() == [2, 1, 0, 1]
    assert seen.stops.platforms == (None, "2", None, None)
    assert seen.trips.ids.texts == ("town:t",)
    assert seen.trips.offsets.tolist() == [0, 3]
    assert seen.stop_times.departure.tolist() == [28800, 29100, 90600]
    assert [n if n < 0 else seen.headsigns[n] for n in seen.stop_times.headsign] == [
        -1, "via B", -1,
    ]  # fmt: skip
    assert seen.services.on(date(2026, 1, 1)).tolist() == [True]
    assert seen.services.on(date(2027, 1, 1)).tolist() == [False]
    assert loaded(ANONYMOUS) is seen
    assert loaded(STAFF) is not seen


def test_exceptions_of_a_calendar(session: Session, loaded: Load) -> None:
    feed = tables.line("8:00:00", "8:05:00")
    feed["calendar"][0] |= {"saturday": "0", "sunday": "0"}
    feed["calendar_dates"] = [
        {"service_id": "s", "date": "20260105", "exception_type": "2"},
        {"service_id": "s", "date": "20260110", "exception_type": "1"},
    ]
    tables.store(session, feed)
    seen = loaded(ANONYMOUS)
    running = [n for n in range(1, 32) if seen.services.on(date(2026, 1, n)).any()]
    weekdays = [n for n in range(1, 32) if date(2026, 1, n).weekday() < 5]
    assert running == sorted({*weekdays, 10} - {5})


def test_each_day_has_the_newest_version_that_is_valid(session: Session, loaded: Load) -> None:
    tables.store(session, tables.line("8:00:00", "8:05:00"))
    tables.store(
        session, tables.line("9:00:00", "9:05:00"), valid=(date(2026, 4, 1), date(2026, 6, 30))
    )
    seen = loaded(ANONYMOUS)
    assert [version.valid_from for version in seen.versions] == [
        date(2026, 1, 1), date(2026, 4, 1),
    ]  # fmt: skip
    assert seen.services.on(date(2026, 3, 31)).tolist() == [True, False]
    assert seen.services.on(date(2026, 4, 1)).tolist() == [False, True]
    assert seen.services.on(date(2026, 6, 30)).tolist() == [False, True]
    assert seen.services.on(date(2026, 7, 1)).tolist() == [True, False]
    assert seen.stops.ids.numbers["town:A"] == 2
    assert seen.stops.ids.all_of("town:A") == (0, 2)
    assert seen.stops.ids.all_of("town:Z") == ()
    # A version that has no day any more is not kept, but the newest is, valid or not.
    tables.store(session, tables.line("7:00:00", "7:05:00"))
    tables.store(
        session, tables.line("6:00:00") | {"calendar": []} | {"trips": [], "stop_times": []}
    )
    assert [version.valid_from for version in loaded(ANONYMOUS).versions] == [
        date(2026, 1, 1),
        None,
    ]
    assert loaded(ANONYMOUS).trips.ids.texts == ("town:t",)


def test_untimed_stops_lie_between_timed_ones(session: Session, loaded: Load) -> None:
    evenly = tables.line("8:00:00", "", "", "8:30:00", "", trip="even")
    tables.store(session, evenly)
    by_distance = tables.line("8:00:00", "", "", "8:30:00")
    for row, metres in zip(by_distance["stop_times"], (100, 400, 1000, 1600), strict=True):
        row["shape_dist_traveled"] = metres
    tables.store(session, by_distance, "other")
    times = loaded(ANONYMOUS).stop_times
    minutes = [each if each == UNTIMED else each / 60 - 480 for each in times.departure.tolist()]
    assert minutes == [0, 10, 20, 30, UNTIMED, 0, 6, 18, 30]
    assert times.arrival.tolist() == times.departure.tolist()


def test_each_departure_of_a_frequency_is_a_trip(session: Session, loaded: Load) -> None:
    feed = tables.line("10:00:00", "10:07:00")
    feed["frequencies"] = [
        {"trip_id": "t", "start_time": "6:00:00", "end_time": "7:00:00", "headway_secs": "1200"},
        {"trip_id": "t", "start_time": "23:50:00", "end_time": "24:10:00", "headway_secs": "900"},
        {"trip_id": "t", "start_time": "9:00:00", "end_time": "9:00:00", "headway_secs": "1"},
    ]
    feed["trips"].append({"trip_id": "u", "route_id": "r", "service_id": "s"})
    feed["stop_times"].append(
        {"trip_id": "u", "stop_sequence": 0, "stop_id": "A", "departure_time": "5:00:00"}
    )
    tables.store(session, feed)
    seen = loaded(ANONYMOUS)
    assert seen.trips.ids.texts == (
        "town:t@06:00:00", "town:t@06:20:00", "town:t@06:40:00", "town:t@23:50:00",
        "town:t@24:05:00", "town:u",
    )  # fmt: skip
    assert seen.trips.offsets.tolist() == [0, 2, 4, 6, 8, 10, 11]
    last = seen.stop_times.departure[8:10].tolist()
    assert last == [24 * 3600 + 300, 24 * 3600 + 300 + 420]


def test_what_competes_is_seen_by_contract_alone(session: Session, loaded: Load) -> None:
    tables.store(session, tables.line("8:00:00", "8:05:00"), "open")
    tables.store(session, tables.line("8:00:00", "8:05:00"), "rival", sharing="competitive")
    assert [version.feed for version in loaded(ANONYMOUS).versions] == ["open"]
    assert [version.feed for version in loaded(STAFF).versions] == ["open", "rival"]
    session.execute("UPDATE mobility.feed SET sharing = 'competitive'")
    assert loaded(ANONYMOUS).versions == ()


def test_callers_at_once_share_one_build(
    session: Session, loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.store(session, tables.line("8:00:00", "8:05:00"))
    built = []
    assemble = load.assemble
    monkeypatch.setattr(load, "assemble", lambda *given: built.append(1) or assemble(*given))
    seen: list[Timetable] = []
    threads = [Thread(target=lambda: seen.append(loaded(ANONYMOUS))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6
    assert len(built) == 1
    assert all(each is seen[0] for each in seen)
