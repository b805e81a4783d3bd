"""Personal rows leave by no route and no stream, whoever asks; an unknown class is personal."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import OK
from typing import Any

import httpx
import psycopg
import pytest

import domains
from core.sensorthings import ResultKind
from core.settings import Settings
from core.tokens import Role
from tests.api.city import SECOND, START, City, Observed
from tests.api.conftest import Served, serving
from tests.api.test_live import Until, joined, stream

MARK = "987654321"
"""The personal Thing's key, and part of each of its results."""
RESULTS: dict[str, Any] = {
    "number": float(MARK),
    "category": f"state-{MARK}",
    "position": (9.87654321, 8.7654321, 1.0, 1.0),
    "document": {"secret": MARK},
}
FILLED = {
    "{sector}": None,
    "{thing}": MARK,
    "{intersection}": MARK,
    "{mmsi}": MARK,
    "{rejection}": MARK,
    "{gateway}": MARK,
    "{feed}": "a-feed",
    "{kind}": "alerts",
    "{version}": "3.0",
    "{file}": "vehicle_status",
    "{station}": f"a-feed:{MARK}",
    "{grant}": "00000000-0000-4000-8000-000000000001",
    "{recipient}": MARK,
    "{review}": "00000000-0000-4000-8000-000000000001",
    "{disclosure}": "00000000-0000-4000-8000-000000000001",
    "{release}": "00000000-0000-4000-8000-000000000001",
    "{claim}": "00000000-0000-4000-8000-000000000003",
    "{erasure}": "00000000-0000-4000-8000-000000000002",
    "{override}": "00000000-0000-4000-8000-000000000001",
    "{stop}": MARK,
    "{route}": MARK,
}
ASKED = {
    "purpose": "dpv:ServiceManagement",
    "_purpose": "dpv:ServiceManagement",
    "category": "pd:MedicalHealth",
    "step": "hour",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-01-02T00:00:00Z",
    "at": "9.87,8.76",
}
"""What is asked where a route cannot be asked without."""
PLACES = {
    "/v1/edge/nodes/nearest": {"near": "9.8,8.7"},
    "/v1/mobility/journeys": {"from": "9.8,8.7", "to": "9.802,8.702"},
    "/v1/mobility/isochrones": {"at": "9.8,8.7"},
}
"""Where a name means a place: one nearby, since an answer says it again."""
SSE = "text/event-stream"
CLASSES = ("personal", "pseudonymised", "anonymised", "unheard-of")


def fill(city: City, sector: str, data_class: str) -> list[Observed]:
    """A Thing of one sector whose every series is of this class; returns rows of each kind."""
    thing = city.thing(
        sector, MARK, at=(9.87654321, 8.7654321), data_class=data_class, name=f"Name {MARK}",
        heard=START,
    )  # fmt: skip
    declared = {p.name: p.kind for p in domains.sector(sector).properties}
    undeclared = {f"undeclared-{kind}": kind for kind in ResultKind}
    rows: list[Observed] = []
    for name, kind in {**declared, **undeclared}.items():
        made = city.datastream(thing, name, kind.value, data_class=data_class)
        rows.append((made, START, RESULTS[kind.value]))
    city.append(sector, rows)
    return rows


@pytest.fixture(scope="module", params=CLASSES)
def api(
    request: pytest.FixtureRequest,
    database_template: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Served, dict[str, list[Observed]]]]:
    from tests.databases import copied

    with (
        copied(database_template) as url,
        psycopg.connect(url, autocommit=True) as connection,
        serving(Settings(database_url=url, data=tmp_path_factory.mktemp("data"))) as running,
    ):
        city = City(connection)
        rows = {name: fill(city, name, request.param) for name in domains.names()}
        recipient = {"title_ja": "だれか", "title_en": "Someone", "country": "JP"}
        path, operator = "/v1/recipients/s", running.as_role(Role.OPERATOR)
        made = running.client.put(running.url + path, headers=operator, json=recipient)
        assert made.status_code == 200
        yield running, rows


def described(served: Served, *, streams: bool = False) -> Iterator[tuple[str, str]]:
    """Every readable path that the API documents, with what it must be asked, and its sector."""
    for template, methods in served.get("/openapi.json").json()["paths"].items():
        asked = methods.get("get")
        if asked is None or (SSE in asked["responses"]["200"].get("content", {})) != streams:
            continue
        for sector in domains.names() if "{sector}" in template else [""]:
            path = template.replace("{sector}", sector)
            for name, value in FILLED.items():
                path = path.replace(name, value or sector)
            assert "{" not in path, f"say in FILLED how {template} is filled"
            needed = [p["name"] for p in asked.get("parameters", ()) if p.get("required")]
            means = ASKED | PLACES.get(template, {})
            query = {name: means[name] for name in needed if name in means}
            yield path + (f"?{httpx.QueryParams(query)}" if query else ""), sector


def paths(served: Served) -> Iterator[str]:
    """The same with filters, about the personal Thing and its area."""
    for path, sector in described(served):
        if "?" in path:
            yield path
        elif sector and path.endswith("/observations"):
            for declared in domains.sector(sector).properties:
                yield f"{path}?property={declared.name}"
                yield f"{path}?property={declared.name}&interval=1h"
        else:
            yield path
            yield path + "?bbox=9,8,10,9&near=9.87,8.76,9000&limit=1000"
            yield path + f"?q={MARK}"


@pytest.mark.parametrize("role", [None, *Role])
def test_no_route_lets_it_out(
    api: tuple[Served, dict[str, list[Observed]]], role: Role | None
) -> None:
    served, _ = api
    asked = 0
    headers = served.as_role(role)
    for path in paths(served):
        answer = served.get(path, headers=headers)
        asked += 1
        # What the caller wrote may come back in a problem; nothing else of it may.
        told = answer.text.replace(path, "") if answer.status_code == 200 else ""
        assert answer.status_code in {200, 401, 403, 404}, (path, answer.text)
        for secret in (MARK, "9.876", "8.765"):
            assert secret not in told, path
        if "/personal/" in path:
            assert answer.headers["cache-control"] == "no-store", path
            assert "etag" not in answer.headers, path
    assert asked > 50


def test_no_stream_lets_it_out(api: tuple[Served, dict[str, list[Observed]]], until: Until) -> None:
    served, rows = api
    paths = [path for path, _ in described(served, streams=True)]
    assert {path.rpartition("/")[2].partition("?")[0] for path in paths} == {"live", "stream"}
    with (
        psycopg.connect(served.database_url, autocommit=True) as connection,
        stream(served) as anyone,
        stream(served, "", Role.OPERATOR) as operator,
        stream(served, "", Role.OPERATOR, last_id="ports:0,signals:0,edge:0,farms:0") as resumed,
        stream(served, "?bbox=9,8,10,9", Role.STAFF) as nearby,
        ExitStack() as others,
    ):
        every = [
            others.enter_context(stream(served, role=role, path=path))
            for path in paths
            for role in (Role.RECIPIENT, Role.OPERATOR, None)
        ]
        opened = [each for each in every if each.status == OK]
        assert len(opened) >= len(paths), "a recipient's own, and everybody's live"
        until(joined(served, 4 + len(opened)))
        for sector, stored in rows.items():
            later = [(series, time + SECOND, result) for series, time, result in stored]
            City(connection).append(sector, later, latest=False)
        time.sleep(1.2)
        for live in (anyone, operator, resumed, nearby, *opened):
            assert live.silent(0.1)
    until(joined(served, 0))
