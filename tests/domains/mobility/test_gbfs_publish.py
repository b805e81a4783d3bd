"""Published feeds of shared vehicles: outside judges find no error, and riders are not followed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from gbfs_validator import GBFS

from core.tokens import Role
from tests.domains.mobility.test_gbfs_import import imported, one
from tests.domains.serving import client_of

FEEDS = ("docomo-cycle-tokyo", "transitland-v2", "lillestrombysykkel", "helsinki", "almere")
HAVE = {
    "docomo-cycle-tokyo": (1164, 4, None), "transitland-v2": (496, 496, 720),
    "lillestrombysykkel": (6, 6, None), "helsinki": (7, 7, None), "almere": (None, None, 6),
}  # fmt: skip
"""Published stations, states and vehicles: what a version demands and a feed lacks is left out."""


class Served:
    """The judge's way to documents: those of a client, in place of the web."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def get_json(self, url: str) -> Any:
        parts = urlsplit(url)
        answer = self._client.get(parts.path + (f"?{parts.query}" if parts.query else ""))
        assert answer.status_code == 200, (url, answer.text)
        return answer.json()


def judged(client: TestClient, feed: str, version: str) -> dict[str, Any]:
    """The judge's report of a feed, with all its files in all its languages."""
    url = f"http://testserver/v1/mobility/feeds/{feed}/gbfs/{version}/gbfs.json"
    served: Any = Served(client)
    return GBFS(url, fetcher=served).validation()


def errors(report: dict[str, Any]) -> list[Any]:
    found = []
    for file in report["files"]:
        for each in [file, *file.get("languages", ())]:
            found += [(file["file"], error) for error in each.get("errors") or ()]
    return found


@contextmanager
def city(url: str, folder: Path, role: Role | None = None) -> Iterator[TestClient]:
    with client_of(url, folder, role) as client:
        yield client


def get(client: TestClient, feed: str, version: str, file: str, lang: str = "") -> Any:
    query = f"?lang={lang}" if lang else ""
    answer = client.get(f"/v1/mobility/feeds/{feed}/gbfs/{version}/{file}.json{query}")
    return answer.json()["data"] if answer.status_code == 200 else answer.status_code


@pytest.mark.shared_data
@pytest.mark.parametrize("feed", FEEDS)
def test_recorded_feeds_are_published_without_an_error(
    feed: str, database_url: str, shared_data: Path, tmp_path: Path
) -> None:
    """By the schemas of both versions and the rules between their files."""
    imported(database_url, shared_data / "gbfs" / feed)
    with city(database_url, tmp_path) as client:
        for version in ("2.3", "3.0"):
            report = judged(client, feed, version)
            assert errors(report) == []
            assert report["summary"]["errorsCount"] == 0
            assert report["summary"]["version"]["detected"] == version
            status = ("free_bike_status", "bikes") if version == "2.3" else (
                "vehicle_status", "vehicles",
            )  # fmt: skip
            files = (("station_information", "stations"), ("station_status", "stations"), status)
            for (file, key), count in zip(files, HAVE[feed], strict=True):
                answer = get(client, feed, version, file)
                assert (answer if count is None else len(answer[key])) == (count or 404), file


def documents(*, time: int = 1_700_000_000, place: float = 35.0) -> dict[str, dict[str, Any]]:
    """A feed that uses what most do not: types, plans, apps, alerts, zones, languages."""
    text = [{"text": "City", "language": "en"}, {"text": "市", "language": "ja"}]
    app = {"store_uri": "https://example.com/s", "discovery_uri": "city://"}
    ring = [[135.0, 35.0], [135.1, 35.0], [135.1, 35.1], [135.0, 35.0]]
    rule = {
        "ride_start_allowed": True, "ride_end_allowed": False, "ride_through_allowed": True,
        "vehicle_type_ids": ["e"],
    }  # fmt: skip
    now = f"2023-11-14T22:13:{time % 60:02d}Z"
    data: dict[str, dict[str, Any]] = {
        "system_information": {
            "system_id": "city", "languages": ["en", "ja"], "name": text,
            "opening_hours": "24/7", "feed_contact_email": "a@example.com",
            "timezone": "Asia/Tokyo", "rental_apps": {"ios": app, "android": app},
            "license_id": "CC-BY-4.0", "phone_number": "03-0000-0000",
            "terms_url": [{"text": "https://example.com/t", "language": "en"}],
            "manifest_url": "https://example.com/m.json",
        },
        "vehicle_types": {"vehicle_types": [
            {"vehicle_type_id": "e", "form_factor": "bicycle", "propulsion_type": "electric",
             "max_range_meters": 30000, "default_pricing_plan_id": "p", "name": text},
            {"vehicle_type_id": "b", "form_factor": "bicycle", "propulsion_type": "human",
             "default_pricing_plan_id": "gone"},
            {"vehicle_type_id": "rangeless", "form_factor": "car", "propulsion_type": "electric"},
        ]},
        "system_pricing_plans": {"plans": [
            {"plan_id": "p", "name": text, "currency": "JPY", "price": 165, "is_taxable": True,
             "description": text,
             "per_min_pricing": [{"start": 30, "rate": 165, "interval": 30}]},
        ]},
        "system_alerts": {"alerts": [
            {"alert_id": "a", "type": "station_closure", "station_ids": ["1/2"], "summary": text,
             "times": [{"start": now}], "url": [{"text": "https://a.jp/x", "language": "ja"}]},
        ]},
        "system_regions": {"regions": [{"region_id": "r", "name": text}]},
        "geofencing_zones": {
            "geofencing_zones": {"type": "FeatureCollection", "features": [
                {"type": "Feature", "properties": {"name": text, "rules": [rule]},
                 "geometry": {"type": "MultiPolygon", "coordinates": [[ring]]}},
            ]},
            "global_rules": [{**rule, "ride_end_allowed": True}],
        },
        "station_information": {"stations": [
            {"station_id": "s2", "name": text, "lat": 35.01, "lon": 135.0},
            {"station_id": "1/2", "name": text, "lat": 35.0, "lon": 135.0, "capacity": 9,
             "region_id": "r", "rental_uris": {"ios": "city://1", "web": "https://a.jp/1"},
             "vehicle_docks_capacity": [{"vehicle_type_ids": ["e", "b"], "count": 9}]},
        ]},
        "station_status": {"stations": [
            {"station_id": "s2", "num_vehicles_available": 2, "is_installed": True,
             "is_renting": True, "is_returning": True, "last_reported": now},
            {"station_id": "1/2", "num_vehicles_available": 4, "is_installed": True,
             "is_renting": True, "is_returning": True, "last_reported": now,
             "num_docks_available": 3,
             "vehicle_types_available": [{"vehicle_type_id": "e", "count": 1},
                                         {"vehicle_type_id": "rangeless", "count": 3}],
             "vehicle_docks_available": [{"vehicle_type_ids": ["e", "b"], "count": 3}]},
        ]},
        "vehicle_status": {"vehicles": [
            {"vehicle_id": f"secret-{n}", "lat": place, "lon": 135.0 + n // 2, "is_reserved": False,
             "is_disabled": False, "vehicle_type_id": kind, "current_range_meters": 9000 + n,
             "rental_uris": {"ios": f"city://{'shared' if n < 2 else f'secret-{n}'}"}}
            for n, kind in enumerate(("e", "e", "e", "b", "unknown", "rangeless"))
        ]},
    }  # fmt: skip
    return {
        name: {"last_updated": now, "ttl": 0, "version": "3.0", "data": each}
        for name, each in data.items()
    }


def write(folder: Path, found: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, body in found.items():
        (folder / f"{name}.json").write_text(json.dumps(body))
    return folder


def test_a_feed_of_everything_is_published_as_it_was(database_url: str, tmp_path: Path) -> None:
    """In 3.0 with both languages, in 2.3 in one at a time; what does not fit a version is not."""
    said = imported(database_url, write(tmp_path / "city", documents()))
    assert said["refused"] == 0, said
    with city(database_url, tmp_path) as client:
        for version in ("2.3", "3.0"):
            assert errors(judged(client, "city", version)) == []
        station = get(client, "city", "3.0", "station_information")["stations"][0]
        assert station == documents()["station_information"]["data"]["stations"][1]
        for language, name in (("en", "City"), ("ja", "市"), ("fr", "City")):
            older = get(client, "city", "2.3", "station_information", language)["stations"][0]
            assert older["name"] == name
            assert "vehicle_type_capacity" not in older
        state = get(client, "city", "3.0", "station_status")["stations"][0]
        assert state["vehicle_types_available"] == [{"vehicle_type_id": "e", "count": 1}]
        assert state["vehicle_docks_available"] == [
            {"vehicle_type_ids": ["b", "e"], "count": 3}
        ] or (state["vehicle_docks_available"] == [{"vehicle_type_ids": ["e", "b"], "count": 3}])
        zones = documents()["geofencing_zones"]["data"]
        assert get(client, "city", "3.0", "geofencing_zones") == zones
        rules = get(client, "city", "2.3", "geofencing_zones")["geofencing_zones"]["features"][0]
        assert rules["properties"]["rules"] == [
            {"vehicle_type_id": ["e"], "ride_allowed": False, "ride_through_allowed": True}
        ]
        system = get(client, "city", "3.0", "system_information")
        assert system["license_url"] == "https://spdx.org/licenses/CC-BY-4.0"
        assert "terms_url" not in system  # 3.0 wants to know since when
        assert "phone_number" not in system  # nor is it one of E.164
        assert get(client, "city", "2.3", "system_information")["phone_number"] == "03-0000-0000"
        types = get(client, "city", "3.0", "vehicle_types")["vehicle_types"]
        assert [each["vehicle_type_id"] for each in types] == ["e", "b"]


def test_documents_say_when_they_change(database_url: str, tmp_path: Path) -> None:
    """An ETag, a ttl, and when it was so; what a feed or a version has not is not found."""
    imported(database_url, write(tmp_path / "city", documents()))
    with city(database_url, tmp_path) as client:
        url = "/v1/mobility/feeds/city/gbfs/3.0/station_status.json"
        answer = client.get(url)
        assert answer.json()["ttl"] == 30
        assert answer.json()["last_updated"] == "2023-11-14T22:13:20.000000Z" or (
            answer.json()["last_updated"].startswith("2023-11-14T22:13:20")
        )
        held = {"If-None-Match": answer.headers["etag"]}
        assert client.get(url, headers=held).status_code == 304
        for version, file in (("3.0", "free_bike_status"), ("2.3", "vehicle_status"),
                              ("3.0", "system_hours"), ("2.3", "system_hours")):  # fmt: skip
            assert get(client, "city", version, file) == 404
        assert get(client, "nowhere", "3.0", "gbfs") == 404


def test_ids_of_vehicles_change_with_each_trip(database_url: str, tmp_path: Path) -> None:
    """They stay while nobody moves it, are no other vehicle's, and hold nothing of its own id."""

    def ids() -> list[str]:
        with city(database_url, tmp_path) as client:
            found = get(client, "city", "3.0", "vehicle_status")["vehicles"]
        assert "secret" not in json.dumps(found)
        return sorted(each["vehicle_id"] for each in found)

    folder = tmp_path / "city"
    imported(database_url, write(folder, documents()))
    first = ids()
    assert len(set(first)) == 4  # not those of no known type or without a range
    imported(database_url, write(folder, documents(time=1_700_000_010)))
    assert ids() == first
    imported(database_url, write(folder, documents(time=1_700_000_020, place=35.001)))
    moved = ids()
    assert set(moved).isdisjoint(first)
    # What is late changes nothing.
    imported(database_url, write(folder, documents()))
    assert ids() == moved
    counted = "SELECT result FROM observation_document o JOIN datastream d ON d.id = datastream_id"
    query = f"{counted} WHERE d.property = 'free-vehicles-by-area' LIMIT 1"
    assert sum(one(database_url, query).values()) == 6
    assert set(one(database_url, query)) == {"other"}  # none of the areas has three


def test_a_competitive_feed_is_seen_by_contract_alone(database_url: str, tmp_path: Path) -> None:
    """Not as GBFS, not among the stations, not in the generic reads, without a token for it."""
    imported(database_url, write(tmp_path / "city", documents()), sharing="competitive")
    paths = ("/v1/mobility/stations/city:s2", "/v1/mobility/stations/city:s2/forecast",
             "/v1/mobility/feeds/city/gbfs/3.0/gbfs.json", "/v1/mobility/things/city")  # fmt: skip
    for role, seen in ((None, False), (Role.OPERATOR, True)):
        with city(database_url, tmp_path, role) as client:
            for path in paths:
                assert client.get(path).status_code == (200 if seen else 404), path
            listed = client.get("/v1/mobility/stations").json()["stations"]
            assert len(listed) == 2 * int(seen)
            if seen:
                assert errors(judged(client, "city", "3.0")) == []
