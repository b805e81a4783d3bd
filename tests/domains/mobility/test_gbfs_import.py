"""Feeds of shared vehicles come in: recorded ones whole, broken ones with their faults told."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from core.errors import CityError
from core.storage.pool import DatabaseRole, open_session
from deploy.cli import app
from deploy.imports import gbfs as command

COUNTS: dict[str, dict[str, int]] = {
    "docomo-cycle-tokyo": {"stations": 1164, "history": 124 + 1316 + 2336, "refused": 0},
    "transitland-v2": {
        "stations": 496, "station_status": 496, "vehicles": 720, "regions": 12, "refused": 0,
    },
    "lillestrombysykkel": {
        "stations": 6, "station_status": 6, "vehicle_types": 1, "pricing_plans": 2, "refused": 0,
    },
    # Two stations without an id, two without a name, one without a place; their states are good.
    "helsinki": {"stations": 10, "station_status": 10, "refused": 6},
    # Two of the zones have no geometry.
    "almere": {"vehicles": 6, "geofencing_zones": 16, "vehicle_types": 1, "refused": 2},
}  # fmt: skip
THINGS = {
    "docomo-cycle-tokyo": 1164, "transitland-v2": 496, "lillestrombysykkel": 6, "helsinki": 10,
    "almere": 0,
}  # fmt: skip
"""Stations in the database."""

SELECT_STATIONS = "SELECT count(*) FROM thing WHERE starts_with(key, %s || ':station:')"


def imported(url: str, *sources: str | Path, **options: str) -> dict[str, Any]:
    """What the command says."""
    with open_session(url, DatabaseRole.INGEST) as session:
        return command.run(session, [str(each) for each in sources], **options)


def one(url: str, query: str, *values: Any) -> Any:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode(), values).fetchone()
    return row and row[0]


@pytest.mark.shared_data
@pytest.mark.parametrize("feed", COUNTS)
def test_recorded_feeds_come_in_whole(feed: str, database_url: str, shared_data: Path) -> None:
    """The counts of their README are the counts in the database; once more changes nothing."""
    said = imported(database_url, shared_data / "gbfs" / feed)
    assert COUNTS[feed].items() <= said.items(), said["problems"]
    assert len(said["problems"]) == said["refused"]
    assert one(database_url, SELECT_STATIONS, feed) == THINGS[feed]
    # They stand on the map for everybody, though the sector's own class is personal.
    assert one(database_url, "SELECT coalesce(max(data_class), 'open') FROM thing_place") == "open"
    again = imported(database_url, shared_data / "gbfs" / feed)
    assert (again["observations"], again["duplicate"]) == (0, said["observations"])


@pytest.mark.shared_data
def test_a_history_has_every_state(database_url: str, shared_data: Path) -> None:
    """944 records of each of the four stations, at the times at which they were reported."""
    imported(database_url, shared_data / "gbfs/docomo-cycle-tokyo")
    query = """
    SELECT count(*) FROM observation o JOIN datastream d ON d.id = o.datastream_id
    JOIN thing t ON t.id = d.thing_id
    WHERE d.property = 'vehicles-available' AND t.key = 'docomo-cycle-tokyo:station:' || %s
    """
    for station in ("00010882", "00010855", "00010976", "00010599"):
        assert one(database_url, query, station) == 944


@pytest.mark.shared_data
def test_no_vehicle_can_be_followed(database_url: str, shared_data: Path) -> None:
    """No id of a vehicle is stored anywhere; of their places only those of the newest document."""
    raw = json.loads((shared_data / "gbfs/transitland-v2/free_bike_status.json").read_text())
    imported(database_url, shared_data / "gbfs/transitland-v2")
    properties = one(
        database_url, "SELECT properties::text FROM thing WHERE key = 'transitland-v2:vehicles'"
    )
    documents = one(database_url, "SELECT string_agg(result::text, '') FROM observation_document")
    rejected = one(
        database_url, "SELECT coalesce(string_agg(payload::text, ''), '') FROM rejection"
    )
    assert len(json.loads(properties)["vehicles"]) == 720
    for bike in raw["data"]["bikes"]:
        for stored in (properties, documents, rejected):
            assert bike["bike_id"] not in stored
    assert str(raw["data"]["bikes"][0]["lat"]) not in documents
    assert one(database_url, "SELECT count(*) FROM observation_position") == 0


def test_languages_of_version_2_become_one(database_url: str, tmp_path: Path) -> None:
    """gbfs.json has a list of files for each language: the name of a station is in all of them."""
    feeds = {}
    for language, name in (("en", "City Hall"), ("ja", "市役所")):
        station = {"station_id": "1", "name": name, "lat": 35.0, "lon": 135.0}
        body = {"last_updated": 1_700_000_000, "ttl": 0, "data": {"stations": [station]}}
        (tmp_path / f"{language}.json").write_text(json.dumps(body))
        url = f"https://example.com/{language}.json"
        feeds[language] = {"feeds": [{"name": "station_information", "url": url}]}
    index = {"last_updated": 1_700_000_000, "ttl": 0, "version": "2.3", "data": feeds}
    (tmp_path / "gbfs.json").write_text(json.dumps(index))
    for source in (tmp_path, tmp_path / "gbfs.json"):
        said = imported(database_url, source, feed="city")
        assert (said["stations"], said["refused"]) == (1, 0)
    names = one(database_url, "SELECT properties->'gbfs'->'name' FROM thing WHERE name IS NOT NULL")
    assert names == [
        {"text": "City Hall", "language": "en"},
        {"text": "市役所", "language": "ja"},
    ]


def test_the_command_says_what_it_found(tmp_path: Path, database_url: str) -> None:
    """A folder that is none and a feed of another kind are errors; a bad file is told by name."""
    (tmp_path / "broken.json").write_text("{")
    said = imported(database_url, tmp_path, feed="bad")
    assert said["refused"] == 1
    assert said["problems"][0].startswith("bad: broken.json: ")
    with pytest.raises(CityError, match="does not exist"):
        imported(database_url, tmp_path / "nowhere")
    with pytest.raises(CityError, match="one source"):
        imported(database_url, "a", "b", feed="x")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO mobility.feed (id, kind, title) VALUES ('t', 'gtfs', 't')")
    with pytest.raises(CityError, match="another kind"):
        imported(database_url, tmp_path, feed="t")
    assert CliRunner().invoke(app, ["import", "gbfs", "--help"]).exit_code == 0


def test_a_competitive_feed_is_by_contract(tmp_path: Path, database_url: str) -> None:
    """Its observations are of the class shared, whatever their properties are declared as."""
    station = {"station_id": "1", "num_bikes_available": 3, "is_installed": 1, "is_renting": 1}
    body = {"last_updated": 1_700_000_000, "ttl": 0, "data": {"stations": [station]}}
    (tmp_path / "station_status.json").write_text(json.dumps(body))
    imported(database_url, tmp_path, feed="rival", sharing="competitive")
    assert (
        one(database_url, "SELECT string_agg(DISTINCT data_class, ',') FROM datastream") == "shared"
    )
