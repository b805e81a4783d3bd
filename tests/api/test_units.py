"""`unit`: results come in the unit that was asked for, and say so; others are left as they are."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.api.city import HOUR, START, City
from tests.api.conftest import Served

SERIES = {
    "air": ("Cel", 25.0),
    "wind": ("m/s", 10.0),
    "share": ("%{RH}", 50.0),
    "loss": ("dB", 3.0),
}


@pytest.fixture(scope="module")
def api(module_served: Served) -> Iterator[Served]:
    with psycopg.connect(module_served.database_url, autocommit=True) as connection:
        city = City(connection)
        mast = city.thing("ports", "mast", heard=START + 2 * HOUR)
        for name, (unit, value) in SERIES.items():
            stream = city.datastream(mast, name, unit=unit)
            city.append("ports", [(stream, START, value), (stream, START + HOUR, value + 10.0)])
        status = city.datastream(mast, "status", "category")
        city.append("ports", [(status, START, "moored"), (status, START + HOUR, "at-anchor")])
    yield module_served


def observations(api: Served, name: str, query: str) -> Any:
    return api.get(f"/v1/ports/things/mast/observations?property={name}&{query}").json()


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("wind", "km/h", [36.0, 72.0]),
        ("air", "[degF]", [77.0, 95.0]),
        ("air", "K", [298.15, 308.15]),
        ("air", "Cel", [25.0, 35.0]),
        ("share", "1", [0.5, 0.6]),
    ],
)
def test_history_in_another_unit(api: Served, name: str, unit: str, expected: list[float]) -> None:
    body = observations(api, name, f"unit={unit}")
    assert body["unit"] == unit
    assert [o["result"] for o in body["observations"]] == pytest.approx(expected)
    body = observations(api, name, f"unit={unit}&interval=1d")
    (day,) = body["observations"]
    assert (body["unit"], day["count"]) == (unit, 2)
    numbers = [day[each] for each in ("minimum", "maximum", "mean", "last")]
    assert numbers == pytest.approx([*expected, sum(expected) / 2, expected[-1]])


def test_without_unit_nothing_changes(api: Served) -> None:
    body = observations(api, "air", "")
    assert body["unit"] == "Cel"
    assert [o["result"] for o in body["observations"]] == [25.0, 35.0]


@pytest.mark.parametrize(
    ("name", "unit", "reason"),
    [
        ("air", "km/h", "does not convert"),
        ("loss", "1", "does not convert"),  # a logarithm: no factor would be right
        ("air", "warm", "not a UCUM unit"),
        ("status", "s", "only numbers"),
    ],
)
@pytest.mark.parametrize("interval", ["", "&interval=1h"])
def test_a_unit_that_cannot_be_is_named_with_its_reason(
    api: Served, name: str, unit: str, reason: str, interval: str
) -> None:
    answer = api.get(f"/v1/ports/things/mast/observations?property={name}&unit={unit}{interval}")
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["name"] == "unit"
    assert reason in error["reason"]


def latest_of(body: Any) -> dict[str, Any]:
    if "features" in body:
        (feature,) = body["features"]
        shown: dict[str, Any] = feature["properties"]["latest"]
        return {name: (each["result"], each["unit"]) for name, each in shown.items()}
    return {d["property"]: (d["latest"]["result"], d["unit"]) for d in body["datastreams"]}


@pytest.mark.parametrize("path", ["/v1/ports/latest?", "/v1/ports/things/mast?"])
def test_of_several_properties_those_of_the_dimension_are_converted(api: Served, path: str) -> None:
    found = latest_of(api.get(f"{path}unit=K").json())
    assert found.pop("air") == (pytest.approx(308.15), "K")
    assert found == {
        "wind": (20.0, "m/s"),
        "share": (60.0, "%{RH}"),
        "loss": (13.0, "dB"),
        "status": ("at-anchor", "1"),
    }
    answer = api.get(f"{path}unit=warm")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["name"] == "unit"


def test_only_good_observations(api: Served) -> None:
    with psycopg.connect(api.database_url, autocommit=True) as connection:
        connection.execute("UPDATE observation SET quality = 1 WHERE result = 35.0")
    everything = observations(api, "air", "")["observations"]
    assert [(o["result"], o["quality"]) for o in everything] == [(25.0, 0), (35.0, 1)]
    good = observations(api, "air", "quality=good")["observations"]
    assert good == everything[:1]
    answer = api.get("/v1/ports/things/mast/observations?property=air&quality=good&interval=1h")
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "quality")
    answer = api.get("/v1/ports/things/mast/observations?property=air&quality=bad")
    assert (answer.status_code, answer.json()["errors"][0]["name"]) == (422, "quality")
