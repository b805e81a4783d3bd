"""Things, latest values and history over HTTP: shapes, paging, areas, intervals, caching."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.api.city import HOUR, MINUTE, SECOND, START, City
from tests.api.conftest import Served

HARBOUR = {
    "1001": (139.650, 35.450),
    "1002": (139.660, 35.450),
    "1003": (141.000, 38.000),
    "1004": (179.900, 0.0),
    "1005": (-179.900, 0.0),
    "1006": (139.7, 89.9),
}
SPEEDS = [(START + i * MINUTE, float(i)) for i in range(180)]


@pytest.fixture(scope="module")
def api(module_served: Served) -> Iterator[Served]:
    with psycopg.connect(module_served.database_url, autocommit=True) as connection:
        fill(City(connection))
    yield module_served


def fill(city: City) -> None:
    things = {
        key: city.thing("ports", key, at=at, name=f"Vessel {key}", heard=START)
        for key, at in HARBOUR.items()
    }
    city.thing("ports", "1007", name="100%_sure")  # no place, no stream
    heading = city.datastream(things["1001"], "heading", unit="deg")
    city.append("ports", [(heading, time, value) for time, value in SPEEDS])
    status = city.datastream(things["1001"], "navigation-status", "category")
    city.append("ports", [(status, START, "moored"), (status, START + HOUR, "at-anchor")])
    position = city.datastream(things["1002"], "position", "position")
    city.append("ports", [(position, START, (139.66, 35.45, 3.5, float("nan")))])
    note = city.datastream(things["1002"], "safety-text", "document")
    city.append("ports", [(note, START, {"text": "gale"})])
    lamp = city.thing("signals", "8804", at=(139.6, 35.4), heard=START + 3 * HOUR)
    state = city.datastream(lamp, "signal-state/2", "category")
    city.append(
        "signals",
        [
            (state, START + 10 * SECOND, "stop-And-Remain"),
            (state, START + 70 * SECOND, "protected-Movement-Allowed"),
            (state, START + 100 * SECOND, "stop-And-Remain"),
        ],
    )


def pages(api: Served, path: str, key: str) -> Iterator[list[Any]]:
    """Every page from the first one on, by `next`."""
    following: str | None = path
    for _ in range(100):
        answer = api.get(str(following))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        yield body[key]
        following = body["next"]
        if following is None:
            return
    pytest.fail("the pages do not end")


def test_things_are_paged_by_id(api: Served) -> None:
    found = list(pages(api, "/v1/ports/things?limit=3", "things"))
    assert [len(page) for page in found] == [3, 3, 1]
    assert [t["id"] for page in found for t in page] == [*sorted(HARBOUR), "1007"]
    assert found[0][0] == {
        "id": "1001",
        "sector": "ports",
        "name": "Vessel 1001",
        "location": {"longitude": 139.65, "latitude": 35.45},
        "geometry": None,
        "properties": {"test": True},
        "last_seen": "2026-01-01T00:00:00Z",
    }
    assert found[2][0]["location"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Vessel 1003", ["1003"]), ("vessel", sorted(HARBOUR)), ("%", ["1007"]), ("0%_", ["1007"]),
     ("1002", ["1002"]), ("\\", []), ("'; --", [])],
)  # fmt: skip
def test_things_are_found_by_text(api: Served, text: str, expected: list[str]) -> None:
    body = api.get(f"/v1/ports/things?q={quote(text)}").json()
    assert [t["id"] for t in body["things"]] == expected


def test_one_thing_has_its_series(api: Served) -> None:
    body = api.get("/v1/ports/things/1001").json()
    assert body["datastreams"] == [
        {
            "property": "heading",
            "title": {"ja": "船首方位", "en": "True heading"},
            "unit": "deg",
            "kind": "number",
            "data_class": "open",
            "undeclared": False,
            "latest": {"phenomenon_time": "2026-01-01T02:59:00Z", "result": 179.0, "quality": 0},
        },
        {
            "property": "navigation-status",
            "title": {"ja": "航海状態", "en": "Navigational status"},
            "unit": "1",
            "kind": "category",
            "data_class": "open",
            "undeclared": False,
            "latest": {
                "phenomenon_time": "2026-01-01T01:00:00Z", "result": "at-anchor", "quality": 0,
            },
        },
    ]  # fmt: skip


def test_latest_is_geojson(api: Served) -> None:
    answer = api.get("/v1/ports/latest")
    assert answer.headers["content-type"] == "application/geo+json"
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    body = answer.json()
    assert body["type"] == "FeatureCollection"
    by_id = {feature["id"]: feature for feature in body["features"]}
    assert list(by_id) == [*sorted(HARBOUR), "1007"]
    assert by_id["1007"]["geometry"] is None
    assert by_id["1007"]["properties"]["latest"] == {}
    assert by_id["1002"] == {
        "type": "Feature",
        "id": "1002",
        "geometry": {"type": "Point", "coordinates": [139.66, 35.45]},
        "properties": {
            "name": "Vessel 1002",
            "sector": "ports",
            "last_seen": "2026-01-01T00:00:00Z",
            "latest": {
                "position": {
                    "result": {
                        "longitude": 139.66, "latitude": 35.45, "speed": 3.5, "course": None,
                    },
                    "unit": "1", "phenomenon_time": "2026-01-01T00:00:00Z", "quality": 0,
                },
                "safety-text": {
                    "result": {"text": "gale"},
                    "unit": "1", "phenomenon_time": "2026-01-01T00:00:00Z", "quality": 0,
                },
            },
        },
    }  # fmt: skip


def test_latest_is_paged(api: Served) -> None:
    found = list(pages(api, "/v1/ports/latest?limit=2", "features"))
    assert [len(page) for page in found] == [2, 2, 2, 1]
    assert [f["id"] for page in found for f in page] == [*sorted(HARBOUR), "1007"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("bbox=139,35,140,36", ["1001", "1002"]),
        ("bbox=139.65,35.45,139.65,35.45", ["1001"]),
        ("bbox=-180,-90,180,90", sorted(HARBOUR)),
        ("bbox=179,-1,-179,1", ["1004", "1005"]),
        ("bbox=-179,-1,179,1", []),
        ("near=139.65,35.45,100", ["1001"]),
        ("near=139.65,35.45,905", ["1001"]),  # 1002 is 905.8 m away
        ("near=139.65,35.45,907", ["1001", "1002"]),
        ("near=180,0,12000", ["1004", "1005"]),
        ("near=-180,0,12000", ["1004", "1005"]),
        ("near=-40.3,89.9,30000", ["1006"]),  # over the pole
        ("near=139.65,35.45,5000&bbox=139.655,35,140,36", ["1002"]),
        ("near=0,0,20100000", sorted(HARBOUR)),
    ],
)
def test_latest_in_an_area(api: Served, query: str, expected: list[str]) -> None:
    body = api.get(f"/v1/ports/latest?{query}").json()
    assert [f["id"] for f in body["features"]] == expected
    paged = list(pages(api, f"/v1/ports/latest?{query}&limit=1", "features"))
    assert [f["id"] for page in paged for f in page] == expected


HISTORY = "/v1/ports/things/1001/observations?property=heading"


def test_history_is_complete_over_pages(api: Served) -> None:
    body = api.get(HISTORY + "&limit=2").json()
    assert {k: body[k] for k in ("thing", "property", "unit", "kind", "interval")} == {
        "thing": "1001", "property": "heading", "unit": "deg", "kind": "number", "interval": None,
    }  # fmt: skip
    assert body["observations"][1] == {
        "phenomenon_time": "2026-01-01T00:01:00Z", "result": 1.0, "quality": 0,
    }  # fmt: skip
    found = [o for page in pages(api, HISTORY + "&limit=50", "observations") for o in page]
    assert [o["result"] for o in found] == [value for _, value in SPEEDS]


def test_history_range_is_half_open(api: Served) -> None:
    for lower, upper in (
        ("2026-01-01T00:10:00Z", "2026-01-01T00:12:00Z"),
        ("2026-01-01T09:10:00%2B09:00", "2026-01-01T09:12:00+09:00"),  # a raw plus, too
    ):
        body = api.get(f"{HISTORY}&from={lower}&to={upper}").json()
        assert [o["result"] for o in body["observations"]] == [10.0, 11.0]


def test_every_kind_has_its_history(api: Served) -> None:
    streams = (("1002", "position"), ("1002", "safety-text"), ("1001", "navigation-status"))
    found = {
        name: api.get(f"/v1/ports/things/{thing}/observations?property={name}").json()
        for thing, name in streams
    }
    results = {name: [o["result"] for o in body["observations"]] for name, body in found.items()}
    assert results == {
        "position": [{"longitude": 139.66, "latitude": 35.45, "speed": 3.5, "course": None}],
        "safety-text": [{"text": "gale"}],
        "navigation-status": ["moored", "at-anchor"],
    }


def naive_buckets(minutes: int, lower: int, upper: int) -> list[tuple[Any, ...]]:
    """What the intervals should be, from the plain list."""
    grouped: dict[int, list[float]] = {}
    for i, (_, value) in enumerate(SPEEDS):
        if lower <= i < upper:
            grouped.setdefault(i // minutes, []).append(value)
    return [
        (START + key * minutes * MINUTE, len(v), sum(v) / len(v), min(v), max(v), v[-1])
        for key, v in sorted(grouped.items())
    ]


@pytest.mark.parametrize("limit", [1, 3, 50])
@pytest.mark.parametrize(
    ("interval", "minutes", "shown"),
    [
        ("PT5M", 5, "5m"),
        ("7m", 7, "7m"),
        ("1h", 60, "1h"),
        ("PT2H", 120, "2h"),
        ("P1D", 1440, "1d"),
    ],
)
@pytest.mark.parametrize(("lower", "upper"), [(None, None), (3, 171), (60, 120), (60, 125)])
def test_intervals_sum_up(
    api: Served,
    interval: str,
    minutes: int,
    shown: str,
    lower: int | None,
    upper: int | None,
    limit: int,
) -> None:
    query = f"&interval={interval}&limit={limit}"
    if lower is not None and upper is not None:
        begin, end = START + lower * MINUTE, START + upper * MINUTE
        query += f"&from={quote(begin.isoformat())}&to={quote(end.isoformat())}"
    assert api.get(HISTORY + query).json()["interval"] == shown
    found = [o for page in pages(api, HISTORY + query, "observations") for o in page]
    # An interval of 7 minutes is counted from 1970, not from our first row.
    shift = int((START.timestamp() // 60) % minutes)
    assert shift == 0 or minutes == 7
    if not shift:
        expected = naive_buckets(minutes, lower or 0, len(SPEEDS) if upper is None else upper)
        assert [tuple(o.values()) for o in found] == [
            (e[0].isoformat().replace("+00:00", "Z"), *e[1:]) for e in expected
        ]
    assert sum(o["count"] for o in found) == (
        len(SPEEDS) if lower is None or upper is None else upper - lower
    )
    times = [o["phenomenon_time"] for o in found]
    assert all(a < b for a, b in pairwise(times))


LAMP = "/v1/signals/things/8804/observations?property=signal-state/2&interval=1m"
RED, GREEN = "stop-And-Remain", "protected-Movement-Allowed"


def state_bucket(minute: int, count: int, seconds: dict[str, float]) -> dict[str, Any]:
    """A minute that ends red."""
    time = f"2026-01-01T00:{minute:02}:00Z"
    return {"phenomenon_time": time, "count": count, "last": RED, "seconds": seconds}


@pytest.mark.parametrize("limit", [1, 2, 50])
def test_time_in_state(api: Served, limit: int) -> None:
    found = []
    for page in pages(api, f"{LAMP}&limit={limit}", "observations"):
        found += page
        if len(found) >= 4:
            break
    assert found[:4] == [
        state_bucket(0, 1, {RED: 50.0}),
        state_bucket(1, 2, {RED: 30.0, GREEN: 30.0}),
        state_bucket(2, 0, {RED: 60.0}),
        state_bucket(3, 0, {RED: 60.0}),
    ]


def test_time_in_state_ends_when_the_thing_was_last_heard(api: Served) -> None:
    found = list(pages(api, LAMP.replace("1m", "1h"), "observations"))
    seconds = [o["seconds"] for page in found for o in page]
    assert seconds == [{RED: 60.0 + 3500.0, GREEN: 30.0}, {RED: 3600.0}, {RED: 3600.0}]


def test_time_in_state_carries_in(api: Served) -> None:
    body = api.get(f"{LAMP}&from=2026-01-01T00:01:20Z&to=2026-01-01T00:01:50Z").json()
    assert body["observations"] == [state_bucket(1, 1, {GREEN: 20.0, RED: 10.0})]
    assert body["next"] is None


CACHEABLE = ("/v1/ports/things", "/v1/ports/things/1001", HISTORY, "/v1/sectors")


@pytest.mark.parametrize("path", CACHEABLE)
def test_etag_saves_the_body(api: Served, path: str) -> None:
    first = api.get(path)
    tag = first.headers["etag"]
    assert "no-cache" in first.headers["cache-control"]
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = api.get(path, headers={"If-None-Match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_etag_changes_with_the_data(served: Served, city: City) -> None:
    first = served.get("/v1/ports/things").headers["etag"]
    city.thing("ports", "2001")
    again = served.get("/v1/ports/things", headers={"If-None-Match": first})
    assert again.status_code == 200
    assert [t["id"] for t in again.json()["things"]] == ["2001"]


def test_sectors_tell_what_is_declared(api: Served) -> None:
    sectors = {s["name"]: s for s in api.get("/v1/sectors").json()["sectors"]}
    assert sectors["ports"]["things"] == 7
    assert sectors["signals"]["things"] == 1
    assert {"nmea", "senml-json", "arrow"} <= set(sectors["ports"]["formats"])
    heading = next(p for p in sectors["ports"]["properties"] if p["name"] == "heading")
    assert heading == {
        "name": "heading",
        "title": {"ja": "船首方位", "en": "True heading"},
        "unit": "deg",
        "kind": "number",
        "minimum": 0,
        "maximum": 359,
        "vocabulary": [],
    }


def test_a_page_without_end_is_bounded(api: Served) -> None:
    """An interval of a second over all time reads only as far as one page goes."""
    body = api.get(HISTORY + "&interval=1s&limit=50").json()
    assert len(body["observations"]) == 1  # one a minute: 50 s hold one
    assert body["next"] is not None
    late = (START + timedelta(days=400)).isoformat()
    assert api.get(f"{HISTORY}&interval=366d&from={quote(late)}").json()["observations"] == []


def test_a_parameter_given_twice_is_refused(served: Served) -> None:
    """Which of the two would count? Behind a proxy perhaps the other one."""
    answer = served.get("/v1/ports/things?limit=1&limit=2")
    assert answer.status_code == 422
    assert answer.json()["errors"][0] == {"name": "limit", "reason": "is given more than once"}
