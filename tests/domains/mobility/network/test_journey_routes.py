"""GET /v1/mobility/journeys and /isochrones: what is answered, and what is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import shapely
from fastapi.testclient import TestClient

from core.tokens import Role
from tests.domains.mobility.feeds import SMALL, import_recorded, imported, packed
from tests.domains.mobility.test_gbfs_import import imported as gbfs_imported
from tests.domains.mobility.test_gbfs_publish import documents, write
from tests.domains.serving import client_of

JOURNEYS, ISOCHRONES = "/v1/mobility/journeys", "/v1/mobility/isochrones"
TUESDAY = "2026-11-24T07:30:00+09:00"
STATION, HARBOUR = "135.0,35.001", "135.0,35.021"


@pytest.fixture(scope="module")
def client(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """One line of buses; t1 at 8:00 and, of the day before, t2 at 00:50; no token."""
    fares = {
        "fare_attributes.txt": "fare_id,price,currency_type,payment_method,transfers\n"
        "f,210,JPY,0,0\n",
        "fare_rules.txt": "fare_id,route_id,origin_id,destination_id\nf,r1,z1,z2\n",
        "translations.txt": "table_name,field_name,language,translation,field_value\n"
        "stops,stop_name,en,Station,駅前\n",
    }
    imported(module_database_url, packed(SMALL | fares))
    with client_of(module_database_url, tmp_path_factory.mktemp("served"), None) as served:
        yield served


def ask(client: TestClient, path: str = JOURNEYS, **asked: Any) -> Any:
    if path == JOURNEYS:
        asked = {"from": "small:s1", "to": "small:s3", "depart": TUESDAY} | asked
    answer = client.get(path, params={k: v for k, v in asked.items() if v is not None})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_ride(client: TestClient) -> None:
    (journey, *_) = ask(client)["journeys"]
    (leg,) = journey["legs"]
    assert (leg["mode"], leg["trip"], leg["headsign"]) == ("bus", "small:t1", "港")
    assert leg["departure"] == {
        "scheduled": "2026-11-24T08:00:00+09:00", "expected": "2026-11-24T08:00:00+09:00",
    }  # fmt: skip
    assert leg["arrival"]["scheduled"] == "2026-11-24T08:10:00+09:00"
    assert leg["origin"]["name"] == "駅前"
    assert [call["stop"]["name"] for call in leg["stops"]] == ["市役所"]
    assert leg["route"]["short_name"] == "1"
    assert (journey["transfers"], journey["duration_seconds"]) == (0, 600)
    assert (journey["realtime"], journey["estimated"]) == (False, False)
    assert journey["fares"] == [{"price": 210.0, "currency": "JPY"}]
    assert ask(client, lang="en-GB")["journeys"][0]["legs"][0]["origin"]["name"] == "Station"


def test_past_midnight_and_the_next_ones(client: TestClient) -> None:
    """At 00:40 of Wednesday Tuesday's 24:50 comes first, then the 8:00 of the day."""
    found = ask(client, depart="2026-11-25T00:40:00+09:00", limit=5)["journeys"]
    assert [each["departure"] for each in found] == [
        "2026-11-25T00:50:00+09:00", "2026-11-25T08:00:00+09:00",
    ]  # fmt: skip
    assert found[0]["legs"][0]["service_day"] == "2026-11-24"


def test_walks_at_both_ends(client: TestClient) -> None:
    (journey, *_) = ask(client, **{"from": STATION, "to": HARBOUR}, geometry=True)["journeys"]
    walk, ride, last = journey["legs"]
    assert [walk["mode"], ride["mode"], last["mode"]] == ["walk", "bus", "walk"]
    assert walk["metres"] == pytest.approx(111.2 * 1.3, rel=0.01)
    assert walk["duration_seconds"] == pytest.approx(walk["metres"] / 1.25, abs=1)
    assert walk["arrival"]["expected"] == ride["departure"]["expected"]
    assert journey["estimated"]
    assert journey["walking_metres"] == pytest.approx(walk["metres"] + last["metres"], abs=0.2)
    assert ride["geometry"]["coordinates"] == [[135.0, 35.0], [135.0, 35.01], [135.0, 35.02]]


def test_arriving_by(client: TestClient) -> None:
    (journey, *_) = ask(client, depart=None, arrive="2026-11-24T09:00:00+09:00")["journeys"]
    assert journey["departure"] == "2026-11-24T08:00:00+09:00"
    (journey, *_) = ask(client, depart=None, arrive="2026-11-24T00:30:00+09:00")["journeys"]
    assert journey["departure"] == "2026-11-23T08:00:00+09:00"


def test_on_foot_alone(client: TestClient) -> None:
    """A short way is walked; what may not be used is not."""
    found = ask(client, **{"from": STATION, "to": "135.0,35.004"}, modes="walk")["journeys"]
    assert [[leg["mode"] for leg in each["legs"]] for each in found] == [["walk"]]
    assert ask(client, modes="rail,walk")["journeys"] == []
    assert len(ask(client, modes="bus")["journeys"]) >= 1
    assert ask(client, wheelchair="true")["journeys"] == []
    assert len(ask(client, wheelchair="prefer")["journeys"]) >= 1


@pytest.mark.parametrize(
    ("path", "asked", "field"),
    [
        (JOURNEYS, {"from": "nowhere"}, "from"),
        (JOURNEYS, {"to": "181,0"}, "to"),
        (JOURNEYS, {"to": "nan,inf"}, "to"),
        (JOURNEYS, {"arrive": TUESDAY}, "arrive"),
        (JOURNEYS, {"depart": "2026-11-24T07:30:00"}, "depart"),
        (JOURNEYS, {"depart": "9999-12-31T23:59:59Z"}, "depart"),
        (JOURNEYS, {"depart": "0001-01-01T00:00:00+14:00"}, "depart"),
        (JOURNEYS, {"modes": "broom"}, "modes"),
        (JOURNEYS, {"modes": ","}, "modes"),
        (JOURNEYS, {"limit": "6"}, "limit"),
        (JOURNEYS, {"walk_max": "nan"}, "walk_max"),
        (JOURNEYS, {"walk_max": "-1"}, "walk_max"),
        (JOURNEYS, {"transfers_max": "9"}, "transfers_max"),
        (JOURNEYS, {"wheelchair": "perhaps"}, "wheelchair"),
        (ISOCHRONES, {"at": "small:"}, "at"),
        (ISOCHRONES, {"at": STATION, "minutes": "0"}, "minutes"),
        (ISOCHRONES, {"at": STATION, "minutes": "1,2,3,4,5,6,7"}, "minutes"),
        (ISOCHRONES, {"at": STATION, "minutes": "15,x"}, "minutes"),
    ],
)
def test_what_is_not_asked_well_is_named(
    client: TestClient, path: str, asked: dict[str, str], field: str
) -> None:
    base = {"from": "small:s1", "to": "small:s3", "depart": TUESDAY} if path == JOURNEYS else {}
    answer = client.get(path, params=base | asked)
    assert answer.status_code == 422
    assert field in str(answer.json()["errors"]), answer.text


def test_how_far_one_comes(client: TestClient) -> None:
    """Within 45 minutes the harbour by bus; within 15 only what one walks to before 8:00."""
    body = ask(client, ISOCHRONES, at="small:s1", depart=TUESDAY, minutes="15,45")
    far, near = body["features"]
    assert [far["properties"]["minutes"], near["properties"]["minutes"]] == [45, 15]
    whole, part = (shapely.geometry.shape(each["geometry"]) for each in (far, near))
    harbour, station = shapely.Point(135.0, 35.02), shapely.Point(135.0, 35.0)
    assert whole.contains(harbour) and whole.contains(station)
    assert part.contains(station) and not part.contains(harbour)
    assert whole.contains(part.buffer(-0.0005))
    # 1,000 m of ways are 769 m as the crow flies.
    east = max(x for x, _ in shapely.get_coordinates(part))
    assert (east - 135.0) * 91_087 == pytest.approx(769, rel=0.03)


def test_of_nothing_nothing_comes(database_url: str, tmp_path: Path) -> None:
    with client_of(database_url, tmp_path, Role.STAFF) as client:
        assert ask(client, **{"from": STATION, "to": HARBOUR})["journeys"] == []
        body = ask(client, ISOCHRONES, at=STATION, depart=TUESDAY)
        assert len(body["features"]) == 3


def test_a_competitive_feed_is_for_those_who_may(database_url: str, tmp_path: Path) -> None:
    imported(database_url, packed(SMALL), sharing="competitive")
    asked = {"from": STATION, "to": HARBOUR, "depart": TUESDAY}
    with client_of(database_url, tmp_path, None) as client:
        assert client.get(JOURNEYS, params=asked).json()["journeys"] == []
        assert client.get(JOURNEYS, params=asked | {"from": "small:s1"}).status_code == 422
    with client_of(database_url, tmp_path, Role.STAFF) as client:
        assert ask(client, **asked)["journeys"]


def test_a_shared_bike_is_ridden(database_url: str, tmp_path: Path) -> None:
    """Between two stations that were heard just now; a kilometre is 1,445 m of ways, 7 minutes."""
    told = documents()
    for each in told.values():
        each["last_updated"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    gbfs_imported(database_url, write(tmp_path / "city", told))
    with client_of(database_url, tmp_path, None) as client:
        asked = {"from": "135.0,35.0001", "to": "135.0,35.0099", "modes": "bike"}
        (journey,) = ask(client, **asked)["journeys"]
    assert [leg["mode"] for leg in journey["legs"]] == ["walk", "bike", "walk"]
    ride = journey["legs"][1]
    assert (ride["origin"]["id"], ride["destination"]["id"]) == ("city:1%2F2", "city:s2")
    assert ride["duration_seconds"] == pytest.approx(90 + 1445 / 3.5, abs=2)


@pytest.mark.shared_data
def test_a_recorded_feed_is_ridden(
    database_url: str, tmp_path: Path, shared_data: Path
) -> None:  # fmt: skip
    """San Francisco to San Jose by Caltrain, by a station's id and by a place beside another."""
    import_recorded(database_url, shared_data, "caltrain")
    with client_of(database_url, tmp_path, None) as client:
        asked = {"from": "-122.3946,37.7765", "to": "-121.9030,37.3297"}
        asked["depart"] = "2023-11-07T08:00:00-08:00"
        found = ask(client, **asked)["journeys"]
    assert 1 <= len(found) <= 3
    for journey in found:
        assert "rail" in [leg["mode"] for leg in journey["legs"]]
        left = datetime.fromisoformat(journey["departure"])
        came = datetime.fromisoformat(journey["arrival"])
        assert (came - left).total_seconds() == journey["duration_seconds"]
        assert 3_000 < journey["duration_seconds"] < 9_000
        times = [
            datetime.fromisoformat(leg[end]["expected"])
            for leg in journey["legs"]
            for end in ("departure", "arrival")
        ]
        assert times == sorted(times)
