"""Answers over HTTP along the streets that an operator gave: the bridge, the steps, the licence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from fastapi.testclient import TestClient

from tests.domains.mobility.feeds import SMALL, imported, packed
from tests.domains.mobility.osm_town import TOWN, place
from tests.domains.mobility.test_streets import imported as streets_imported
from tests.domains.mobility.test_streets import written
from tests.domains.serving import client_of

ROOT = "/v1/mobility"
TUESDAY = "2026-11-24T07:30:00+09:00"
OVER_THE_RIVER = "135.0,35.001"
"""111 m from the first stop, and 1,311 m of ways."""


@pytest.fixture(scope="module")
def client(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """A line of buses that begins at the town's corner, south of its river; no token."""
    imported(module_database_url, packed(SMALL))
    streets_imported(module_database_url, written(tmp_path_factory.mktemp("osm"), TOWN))
    with client_of(module_database_url, tmp_path_factory.mktemp("served"), None) as served:
        yield served


def ask(client: TestClient, path: str = "/journeys", **asked: Any) -> Any:
    if path == "/journeys":
        asked = {"from": OVER_THE_RIVER, "to": "small:s3", "depart": TUESDAY} | asked
    answer = client.get(ROOT + path, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_journey_goes_over_the_bridge(client: TestClient) -> None:
    assert ask(client)["journeys"] == []
    assert ask(client)["attribution"] is None
    body = ask(client, **{"from": ",".join(map(str, place(500, 105)))})
    walk, ride = body["journeys"][0]["legs"]
    assert (walk["mode"], ride["trip"]) == ("walk", "small:t1")
    assert walk["metres"] == pytest.approx(5 + 100 + 100 + 600, abs=1)
    assert not walk["estimated"]
    assert not body["journeys"][0]["estimated"]
    assert "OpenStreetMap contributors" in body["attribution"]
    # And back.
    home = {"from": "small:s3", "to": OVER_THE_RIVER, "walk_max": 2000}
    assert ask(client, **home)["journeys"] == []
    home = {"from": "small:s1", "to": OVER_THE_RIVER, "walk_max": 2000, "modes": "walk"}
    assert ask(client, **home)["journeys"][0]["walking_metres"] == pytest.approx(1311, abs=1)


def test_steps_are_for_those_who_can_climb(client: TestClient) -> None:
    up = ",".join(map(str, place(200, -60)))
    down = ",".join(map(str, place(200, 0)))
    metres = {}
    for wheelchair in ("false", "prefer"):
        asked = {"from": down, "to": up, "modes": "walk", "wheelchair": wheelchair}
        metres[wheelchair] = ask(client, **asked)["journeys"][0]["walking_metres"]
    assert metres == {"false": pytest.approx(60, abs=1), "prefer": pytest.approx(460, abs=1)}


def test_outside_of_the_streets_it_is_as_before(client: TestClient) -> None:
    asked = {"from": "135.0,35.019", "to": "135.0,35.016", "modes": "walk"}
    body = ask(client, **asked)
    assert body["journeys"][0]["walking_metres"] == pytest.approx(333.6 * 1.3, rel=0.01)
    assert (body["journeys"][0]["estimated"], body["attribution"]) == (True, None)


def test_near_says_how_one_walks(client: TestClient) -> None:
    body = ask(client, "/near", at=OVER_THE_RIVER, radius=300)
    (stop,) = body["stops"]
    assert (stop["metres"], stop["estimated"], body["estimated"]) == (111, False, False)
    assert stop["walking_seconds"] == pytest.approx(1311 / 1.25, abs=2)
    assert "OpenStreetMap" in body["attribution"]
    assert ask(client, "/near", at="135.0,35.0111", radius=300)["stops"][0]["estimated"]


def test_isochrones_do_not_swim(client: TestClient) -> None:
    """In five minutes, 375 m, from the south bank one is not on the north bank."""
    south = ",".join(map(str, place(100, 0)))
    body = ask(client, "/isochrones", at=south, depart=TUESDAY, minutes="5,20", walk_max=2000)
    long, short = body["features"]
    near, far = shapely.geometry.shape(short["geometry"]), shapely.geometry.shape(long["geometry"])
    assert near.buffer(1e-6).contains(shapely.Point(place(400, 0)))
    assert near.contains(shapely.Point(place(200, -40)))
    assert not near.intersects(shapely.Point(place(100, 100)))
    assert far.contains(shapely.Point(place(100, 100)))
    assert not short["properties"]["estimated"]
    assert "OpenStreetMap" in body["attribution"]


def test_the_catalogue_names_the_contributors(client: TestClient) -> None:
    streets = ask(client, "/feeds")["streets"]
    assert streets["licence"] == "ODbL-1.0"
    assert streets["counts"]["steps"] == 1
    service = ask(client, "/catalogue.jsonld")["dcat:service"]
    assert "OpenStreetMap contributors" in service["dct:rights"]


def test_a_newer_import_is_walked_at_once(database_url: str, tmp_path: Path) -> None:
    """By a process that has walked by the one before; here the private way is everybody's."""
    imported(database_url, packed(SMALL))
    with client_of(database_url, tmp_path, None) as client:
        asked = {"to": "small:s1", "modes": "walk", "walk_max": 2000}

        def walked() -> Any:
            journey = ask(client, **asked)["journeys"][0]
            return journey["walking_metres"], journey["estimated"]

        assert walked() == (pytest.approx(111.2 * 1.3, abs=1), True)
        streets_imported(database_url, written(tmp_path, TOWN))
        assert walked() == (pytest.approx(1311, abs=1), False)
        streets_imported(database_url, written(tmp_path, TOWN.replace("private", "yes")))
        assert walked() == (pytest.approx(111.2, abs=1), False)
