"""Stops, departures, routes, near and fares over HTTP, and who sees what in which language."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from fastapi.testclient import TestClient

from core.tokens import Role
from domains.mobility.network import routes
from domains.mobility.network.near import Found
from tests.domains.mobility import feeds, tables
from tests.domains.serving import client_of

HOLIDAY = "2026-11-23"


def town() -> dict[str, list[dict[str, object]]]:
    """Weekdays 8:00, holidays 9:00; a station of two platforms; names in two languages."""
    feed = tables.line("8:00:00", "8:10:00", "8:20:00", trip="w", service="weekday")
    feed["stops"][0] |= {"stop_name": "駅前", "parent_station": "S", "platform_code": "1"}
    feed["stops"][1] |= {"stop_name": "ミナト", "zone_id": "z2"}
    feed["stops"].append(
        {"stop_id": "S", "stop_name": "千曳駅", "location_type": "1", "wheelchair_boarding": "1",
         "stop_lon": 139, "stop_lat": 35}
    )  # fmt: skip
    feed["calendar"][0] |= {"saturday": "0", "sunday": "0"}
    feed["calendar_dates"] = [
        {"service_id": "weekday", "date": "20261123", "exception_type": "2"},
        {"service_id": "holiday", "date": "20261123", "exception_type": "1"},
    ]
    feed["trips"][0] |= {"trip_headsign": "港", "wheelchair_accessible": "1", "direction_id": "1"}
    feed["trips"].append({"trip_id": "h", "route_id": "r", "service_id": "holiday"})
    feed["stop_times"] += [
        {"trip_id": "h", "stop_sequence": n, "stop_id": stop, "departure_time": f"9:{n}0:00"}
        for n, stop in enumerate("ABC")
    ]
    feed["translations"] = [
        {"table_name": "stops", "field_name": "stop_name", "language": "en",
         "translation": "Station front", "record_id": "A"},
        {"table_name": "stops", "field_name": "stop_name", "language": "en",
         "translation": "Harbour", "field_value": "ミナト"},
        {"table_name": "trips", "field_name": "trip_headsign", "language": "en",
         "translation": "The harbour", "field_value": "港"},
    ]  # fmt: skip
    return feed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> str:
    with psycopg.connect(module_database_url, autocommit=True) as session:
        tables.store(session, town(), language="ja")
        tables.store(session, tables.line("6:00:00", "7:00:00"), "rival", sharing="competitive")
    return module_database_url


@pytest.fixture(scope="module")
def client(filled: str, folder: Path) -> Iterator[TestClient]:
    with client_of(filled, folder, None) as anyone:
        yield anyone


@pytest.fixture(scope="module")
def staff(filled: str, folder: Path) -> Iterator[TestClient]:
    with client_of(filled, folder, Role.STAFF) as someone:
        yield someone


def get(client: TestClient, path: str, **headers: str) -> dict[str, object]:
    answer = client.get(f"/v1/mobility/{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def names(client: TestClient, query: str) -> list[object]:
    return [each["id"] for each in get(client, f"stops?{query}")["stops"]]


def test_a_holiday_has_its_timetable_and_its_name(client: TestClient) -> None:
    answer = get(client, "stops/town:A/departures?from=2026-11-23T00:00:00%2B09:00&limit=2")
    first, second = answer["departures"]
    assert first["scheduled"] == "2026-11-23T09:00:00+09:00"
    assert (first["service_day"], first["holiday"]) == (HOLIDAY, "勤労感謝の日")
    assert second["scheduled"] == "2026-11-24T08:00:00+09:00"
    assert second["holiday"] is None
    assert second | {"route": None} == {
        "stop": "town:A", "platform": "1", "trip": "town:w", "route": None, "headsign": "港",
        "direction": 1, "service_day": "2026-11-24", "holiday": None,
        "scheduled": "2026-11-24T08:00:00+09:00", "expected": "2026-11-24T08:00:00+09:00",
        "realtime": False, "cancelled": False, "skipped": False, "wheelchair": True,
        "vehicle": None,
    }  # fmt: skip


def test_names_are_told_in_the_callers_language(client: TestClient) -> None:
    path = "stops/town:A/departures?from=2026-11-24T00:00:00%2B09:00&limit=1"
    english = get(client, path + "&lang=en-GB")
    assert english["stop"]["name"] == "Station front"
    assert english["departures"][0]["headsign"] == "The harbour"
    accepted = {"Accept-Language": "fr;q=0.9, en;q=0.8, ja;q=0.1"}
    assert get(client, path, **accepted)["stop"]["name"] == "Station front"
    assert get(client, path, **{"Accept-Language": "ja,en;q=0.5"})["stop"]["name"] == "駅前"
    assert get(client, path + "&lang=ja", **accepted)["stop"]["name"] == "駅前"
    assert get(client, "stops/town:B?lang=en")["name"] == "Harbour"


def test_stops_by_place_and_name(client: TestClient) -> None:
    around = names(client, "near=139.01,35&radius=1200")
    assert around[0] == "town:B"
    assert set(around[1:]) == {"town:A", "town:C", "town:S"}
    assert names(client, "near=139.01,35,10") == ["town:B"]
    assert names(client, "bbox=139.005,34,139.015,36") == ["town:B"]
    assert names(client, "bbox=139.015,34,139.005,36") == ["town:A", "town:C", "town:S"]
    assert names(client, "q=みなと") == names(client, "q=HARBOUR") == ["town:B"]
    assert names(client, "q=station&feed=town") == ["town:A"]
    assert names(client, "feed=elsewhere") == []
    first = get(client, "stops?limit=3")
    assert [each["id"] for each in first["stops"]] == ["town:A", "town:B", "town:C"]
    rest = client.get(str(first["next"])).json()
    assert ([each["id"] for each in rest["stops"]], rest["next"]) == (["town:S"], None)


def test_one_stop(client: TestClient) -> None:
    station = get(client, "stops/town:S")
    assert [each["id"] for each in station["platforms"]] == ["town:A"]
    assert station["platforms"][0]["wheelchair"] is True
    assert [each["id"] for each in station["routes"]] == ["town:r"]
    assert station["timezone"] == "Asia/Tokyo"
    assert client.get("/v1/mobility/stops/town:none").status_code == 404


def test_routes_have_their_patterns(client: TestClient) -> None:
    assert [each["id"] for each in get(client, "routes?q=R")["routes"]] == ["town:r"]
    (pattern,) = get(client, "routes/town:r")["patterns"]
    assert pattern["stops"] == ["town:A", "town:B", "town:C"]
    assert pattern["trips"] == 2
    assert pattern["shape"]["coordinates"][0] == [139, 35]


def test_what_is_near_across_modes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr(
        routes, "SOURCES",
        (
            lambda _, around: [
                Found("b:station:1", "bicycle", "station", "港", 139.01, 35, {"vehicles": 2}, now),
                Found("b:2", "bicycle", "vehicle", None, 139.011, 35.0, {}, now),
                Found("b:3", "bicycle", "vehicle", None, 140.0, 35.0, {}, now),
            ],
        ),
    )  # fmt: skip
    found = get(client, "near?at=139.0101,35&radius=300")
    assert found["estimated"] is True
    assert [each["id"] for each in found["stops"]] == ["town:B"]
    assert len(found["stops"][0]["departures"]) == 3
    assert [each["id"] for each in found["stations"]] == ["b:station:1"]
    assert found["stations"][0]["metres"] == 9
    assert found["stations"][0]["walking_seconds"] == 9
    assert [each["id"] for each in found["vehicles"]] == ["b:2"]


def test_what_competes_needs_a_token(client: TestClient, staff: TestClient) -> None:
    assert names(client, "feed=rival") == []
    assert names(staff, "feed=rival") == ["rival:A", "rival:B"]
    for path in ("stops/rival:A", "stops/rival:A/departures", "routes/rival:r"):
        assert client.get(f"/v1/mobility/{path}").status_code == 404
        assert staff.get(f"/v1/mobility/{path}").status_code == 200
    assert client.get("/v1/mobility/fares?from=rival:A&to=rival:B").status_code == 404


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("stops?near=1", "near"), ("stops?near=nan,1", "near"), ("stops?near=1,91", "near"),
        ("stops?near=1,1&radius=0", "radius"), ("stops?near=1,1&radius=inf", "radius"),
        ("stops?near=1,1,-5", "near"), ("stops?bbox=1,2,3", "bbox"),
        ("stops?bbox=1,5,2,4", "bbox"), ("stops?bbox=1,5,200,6", "bbox"), ("stops?q=", "q"),
        ("stops?limit=0", "limit"), ("stops?limit=1001", "limit"), ("stops?after=x", "after"),
        ("stops?lang=%00", "lang"), ("stops?lang=e_n", "lang"),
        ("stops/town:A/departures?from=yesterday", "from"),
        ("stops/town:A/departures?from=2026-11-23T00:00:00", "from"),
        ("stops/town:A/departures?from=0001-01-01T00:00:00Z", "from"),
        ("stops/town:A/departures?from=9999-12-31T23:59:59-14:00", "from"),
        ("stops/town:A/departures?limit=1001", "limit"), ("near", "at"), ("near?at=1,2,3", "at"),
        ("near?at=1,2&radius=2001", "radius"), ("fares?from=town:A", "to"),
        ("stops/" + "x" * 300, "stop"),
    ],
)  # fmt: skip
def test_hostile_parameters_are_named(client: TestClient, path: str, field: str) -> None:
    answer = client.get(f"/v1/mobility/{path}")
    assert answer.status_code == 422, answer.text
    assert [each["name"] for each in answer.json()["errors"]] == [field]


def test_ids_may_hold_anything(client: TestClient) -> None:
    for text in ("a/b", "town:A/departures/departures", "%", "'; --", "駅", "\u202e"):
        answer = client.get(f"/v1/mobility/stops/{quote(text, safe='')}")
        assert answer.status_code == 404, answer.text


def test_recorded_feeds_over_http(database_url: str, shared_data: Path, tmp_path: Path) -> None:
    for feed in feeds.RECORDED:
        feeds.import_recorded(database_url, shared_data, feed)
    with client_of(database_url, tmp_path, None) as client:
        path = "stops/caltrain:70012/departures?from=2023-11-08T16:00:00-08:00&limit=3"
        found = get(client, path)["departures"]
        assert len(found) == 3
        assert all(each["scheduled"].endswith("-08:00") for each in found)
        assert names(client, "near=140.99,42.33&radius=3000&limit=3")
        every = get(client, "routes?feed=donan-bus-muroran&limit=1000")["routes"]
        assert len(every) == 74
        assert get(client, f"routes/{every[0]['id']}")["patterns"][0]["shape"]
        assert date.fromisoformat(found[0]["service_day"]) == date(2023, 11, 8)
