"""Timetables come in: the recorded feeds, and what broken ones leave behind."""

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import CityError
from core.storage.pool import DatabaseRole, open_session
from deploy.imports import gtfs as command
from deploy.timetables import Outcome
from tests.domains.mobility.feeds import (
    RECORDED,
    SMALL,
    everything,
    import_recorded,
    imported,
    packed,
)

COUNTS: dict[str, dict[str, int]] = {
    "caltrain": {
        "routes": 9, "trips": 176, "stops": 109, "stop_times": 3498, "fare_attributes": 6,
        "fare_rules": 36, "shapes": 33,
    },
    "donan-bus-muroran": {
        "stops": 706, "routes": 74, "trips": 541, "stop_times": 20594, "fare_rules": 63745,
        "translations": 480,
    },
    "mlit-sample-2017": {"stops": 48, "routes": 2, "trips": 6, "stop_times": 129},
}  # fmt: skip
VALID = {
    "caltrain": (date(2023, 9, 23), date(2024, 6, 1)),
    "donan-bus-muroran": (date(2020, 4, 1), date(2021, 4, 1)),
    "mlit-sample-2017": (date(2017, 4, 1), date(2017, 4, 30)),
}


def codes(outcome: Outcome) -> dict[str, int]:
    return {each["code"]: each["count"] for each in outcome.quality["problems"]}


@pytest.mark.shared_data
@pytest.mark.parametrize("feed", RECORDED)
def test_recorded_feeds_come_in_whole(feed: str, database_url: str, shared_data: Path) -> None:
    """The counts of their README are the counts in the database; nothing is refused."""
    outcome = import_recorded(database_url, shared_data, feed)
    stored = everything(database_url, outcome.version)
    assert COUNTS[feed].items() <= outcome.counts.items()
    for file, table in (("stops", "stop"), ("trips", "trip"), ("stop_times", "stop_time")):
        assert len(stored[table]) == COUNTS[feed][file]
    assert outcome.refused == {}
    assert (outcome.valid_from, outcome.valid_to) == VALID[feed]
    if feed == "mlit-sample-2017":
        assert "office_jp.txt" in {row["name"] for row in stored["feed_file"]}
        assert {row["wheelchair_accessible"] for row in stored["trip"]} == {1, 2}


def test_a_small_feed_is_stored_as_it_is(database_url: str) -> None:
    outcome = imported(database_url, packed(SMALL))
    stored = everything(database_url, outcome.version)
    assert [(r["trip"], r["sequence"], r["stop"], r["arrival"]) for r in stored["stop_time"]] == [
        (0, 1, 0, 28_800), (0, 2, 1, 29_100), (0, 3, 2, 29_400), (1, 1, 0, 89_400),
        (1, 5, 2, 90_600),
    ]  # fmt: skip
    assert codes(outcome) == {}
    assert outcome.quality["score"] == 100
    assert stored["service"][0]["weekdays"] == 0b1111111


def test_the_same_feed_again_is_known(database_url: str) -> None:
    """Also when it was zipped anew, in another order; a changed one is a version beside it."""
    first = imported(database_url, packed(SMALL))
    again = imported(database_url, packed(dict(reversed(SMALL.items()))))
    assert (first.known, again.known) == (False, True)
    assert (again.version, again.counts) == (first.version, first.counts)
    changed = imported(database_url, packed(SMALL | {"extra.txt": "a\n1\n"}))
    assert not changed.known
    assert changed.version != first.version


def test_the_command_prints_what_it_found(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "chibiki").mkdir()
    path = tmp_path / "chibiki" / "gtfs_jp.zip"
    path.write_bytes(packed(SMALL))
    with open_session(database_url, DatabaseRole.INGEST) as session:
        found = command.run(session, [str(path)])
        again = command.run(session, [str(path)])
        two = command.run(session, [str(path), str(path)])
    assert found["feed"] == "chibiki"
    assert (found["stops"], found["trips"], found["stop_times"], found["refused"]) == (3, 2, 5, 0)
    assert found["valid_to"] == "2027-03-31"
    assert again == found | {"known": True}
    assert (two["stops"], len(two["feeds"])) == (6, 2)
    json.dumps(two)


@pytest.mark.parametrize(
    ("source", "feed"),
    [
        ("/data/caltrain_gtfs.zip", "caltrain"),
        ("/data/muroran/gtfs_jp.zip", "muroran"),
        ("https://example.com/acme/gtfs.zip?key=1", "acme"),
        ("https://acme.example.com/gtfs.zip", "acme-example-com"),
        ("/data/feed_acme_20240401_103000.zip", "acme"),
    ],
)
def test_a_feed_is_named_by_its_file(source: str, feed: str) -> None:
    assert command.feed_of(source) == feed


def test_rows_that_cannot_be_stored_are_told(database_url: str) -> None:
    """Each with its file, row and field; the rest of the feed is there."""
    broken = SMALL | {
        "stop_times.txt": SMALL["stop_times.txt"]
        + "t9,9:00:00,9:00:00,s1,1\nt1,9:00:00,9:00:00,s9,9\nt1,9:00:00,9:00:00,s1,3\n"
        + "t2,banana,25:00:00,s2,3\n",
        "trips.txt": SMALL["trips.txt"] + "r9,wd,t3,x\nr1,we,t4,x\nr1,wd,t1,x\n",
    }
    outcome = imported(database_url, packed(broken))
    assert outcome.refused == {"trips": 3, "stop_times": 3}
    assert outcome.counts["stop_times"] == 6
    found = {each["code"]: each["examples"] for each in outcome.quality["problems"]}
    assert found["missing_reference"] == [
        {"file": "trips.txt", "row": 4, "field": "route_id", "id": "r9"},
        {"file": "trips.txt", "row": 5, "field": "service_id", "id": "we"},
        {"file": "stop_times.txt", "row": 7, "field": "trip_id", "id": "t9"},
        {"file": "stop_times.txt", "row": 8, "field": "stop_id", "id": "s9"},
    ]
    assert found["invalid_value"] == [
        {"file": "stop_times.txt", "row": 10, "field": "arrival_time", "id": "banana"}
    ]
    assert {"file": "trips.txt", "row": 6, "field": "trip_id", "id": "t1"} in found["duplicate_id"]


CASES: dict[str, tuple[dict[str, str | bytes], dict[str, int]]] = {
    "shift_jis": ({"stops.txt": SMALL["stops.txt"].encode("cp932")}, {"encoding": 1}),
    "bom, crlf and blank lines": (
        {"stops.txt": "\ufeff" + SMALL["stops.txt"].replace("\n", "\r\n\r\n")}, {}
    ),
    "spaces and quotes": (
        {
            "trips.txt": 'route_id , service_id,trip_id, "trip_headsign"\n'
            ' r1 ,wd , t1, "港,\n第二"\nr1,wd,t2,港\n'
        },
        {},
    ),
    "ragged": (
        {"routes.txt": "route_id,agency_id,route_short_name,route_type\nr1,a,1,3,,\nr2,a,2\n"},
        {"row_length": 1, "route_type_unknown": 1, "route_without_trips": 1},
    ),
    "only calendar_dates": (
        {
            "calendar.txt": "",
            "calendar_dates.txt": "service_id,date,exception_type\nwd,20261123,1\n",
        },
        {},
    ),
    "no dates in feed_info": (
        {"feed_info.txt": "feed_publisher_name,feed_start_date,feed_end_date\n千曳市,,\n"}, {}
    ),
    "expired": (
        {"calendar.txt": SMALL["calendar.txt"].replace("20270331", "20260331")},
        {"calendar_backwards": 1, "calendar_empty": 1, "trip_without_days": 2},
    ),
    "backwards": (
        {"stop_times.txt": SMALL["stop_times.txt"].replace("8:10:00,8:10:00", "7:10:00,7:10:00")},
        {"time_backwards": 1},
    ),
    "too fast": (
        {"stops.txt": SMALL["stops.txt"].replace("s2,市役所,35.01", "s2,市役所,35.51")},
        {"impossible_speed": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_real_feeds_look_like(case: str, database_url: str) -> None:
    """Nothing of this keeps a feed out; what is doubtful about it is told."""
    files, expected = CASES[case]
    outcome = imported(database_url, packed(SMALL | files))
    assert outcome.refused == {}
    assert codes(outcome) == expected
    assert outcome.counts["stop_times"] == 5


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no zip", "feed.zip: is no readable zip"),
        (b"", "feed.zip: is no readable zip"),
        (packed({"a.txt": "x"}), "is no GTFS: there is no stops.txt, trips.txt, stop_times.txt"),
    ],
)  # fmt: skip
def test_what_is_no_gtfs_is_an_error(content: bytes, reason: str, database_url: str) -> None:
    with pytest.raises(CityError, match=reason):
        imported(database_url, content)


def test_options_are_those_of_a_feed() -> None:
    """A kind that knows no feed says so."""
    from deploy.cli import app

    runner = CliRunner()
    result = runner.invoke(app, ["import", "archive", "x", "--feed", "y"])
    assert isinstance(result.exception, CityError)
    assert "--feed" in str(result.exception)
    result = runner.invoke(app, ["import", "gtfs", "x", "--sharing", "y"])
    assert "--sharing" in str(result.exception)
