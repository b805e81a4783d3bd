"""What hangs on edge nodes, what is cut off when one is killed, and the nearest healthy node."""

from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
from fastapi.testclient import TestClient

from core.clock import MICROSECONDS, now_us
from core.errors import CityError
from core.formats import senml
from core.sector import Context
from core.sensorthings import Decoded
from core.tokens import Role
from domains.edge import rules
from domains.edge.sector import SECTOR
from gateways.simulators import edge
from ingest.check import check
from tests.domains.serving import client_of, store

KILLED, LATE = edge.nodes()[7], edge.nodes()[8]
KILLED_SECONDS = 31
NAMES = ("nodes", "signals", "gateways", "cells")


def said(node: edge.Node, behind_seconds: int, wrong_seconds: int = 0) -> tuple[Decoded, int]:
    """What a node of the demo city said so long ago, by a clock that is so far behind."""
    received = now_us() - behind_seconds * MICROSECONDS
    payload, _ = edge.packs([node], received - wrong_seconds * MICROSECONDS)
    decoded = senml.decode_json(payload, Context("demo-edge", received))
    return check(SECTOR, decoded, received, 900), received


@pytest.fixture(scope="module")
def operator(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestClient]:
    """The demo city's nodes, registered: one killed 31 s ago, and one's clock 5 min slow."""
    messages = [
        said(node, KILLED_SECONDS if node is KILLED else 1, 300 if node is LATE else 0)
        for node in edge.nodes()
    ]
    store(module_database_url, SECTOR, messages)
    with client_of(module_database_url, tmp_path_factory.mktemp("d"), Role.OPERATOR) as client:
        for node in edge.nodes():
            answer = put(client, node.name, edge.dependents(node))
            assert answer.status_code == 200, answer.text
        yield client


def put(client: TestClient, node: str, body: object) -> httpx.Response:
    return client.put(f"/v1/edge/nodes/{node}/dependents", json=body)


def cut_off(client: TestClient, limit: int = 1_000) -> dict[str, list[str]]:
    answer = client.get(f"/v1/edge/cut-off?limit={limit}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return {name: [each["id"] for each in answer.json()[name]] for name in NAMES}


def test_a_killed_node_cuts_off_what_hangs_on_it_alone(operator: TestClient) -> None:
    """Its signals, its gateway and its cell; not the controller that hangs on other nodes too."""
    told = edge.dependents(KILLED)
    assert cut_off(operator) == {
        "nodes": [KILLED.name],
        "signals": sorted(told["signals"]),
        "gateways": [f"{KILLED.name}-gateway"],
        "cells": told["cells"],
    }
    body = operator.get("/v1/edge/cut-off").json()
    (cell,) = body["cells"]
    silent = datetime.fromisoformat(body["at"]) - datetime.fromisoformat(cell["since"])
    assert KILLED_SECONDS <= silent.total_seconds() < KILLED_SECONDS + 300
    assert cell["nodes"] == [KILLED.name]
    assert body["silent_after_seconds"] == 30
    assert cut_off(operator, limit=1)["signals"] == sorted(told["signals"])[:1]
    one = operator.get("/v1/edge/cut-off?limit=1").json()
    assert one["counts"]["signals"] == len(told["signals"])


def test_links_are_replaced_and_stay_as_history(operator: TestClient) -> None:
    path = "/v1/edge/nodes/spare/dependents"
    assert operator.get(path).status_code == 404
    first = put(operator, "spare", {"pole": "p", "cells": ["a", "b", "b"]}).json()
    again = put(operator, "spare", {"pole": "p", "cells": ["b", "a"]}).json()
    assert again["cells"] == first["cells"]
    assert [each["id"] for each in first["cells"]] == ["a", "b"]
    other = put(operator, "spare-2", {"pole": "p"}).json()
    assert (other["pole"], other["shares_pole_with"]) == ("p", ["spare"])
    second = put(operator, "spare", {"pole": "q", "cells": ["b"]}).json()
    assert (second["pole"], second["shares_pole_with"]) == ("q", [])
    assert second["cells"] == first["cells"][1:]
    then = operator.get(path, params={"when": first["at"]}).json()
    assert then["pole"] == "p"
    assert [each["id"] for each in then["cells"]] == ["a", "b"]
    assert then["cells"][0]["valid_to"] == second["at"]
    # Never heard: silent, and nobody knows since when.
    entry = operator.get("/v1/edge/cut-off").json()["cells"]
    assert {each["id"]: each["since"] for each in entry}["b"] is None
    for name in ("spare", "spare-2"):
        assert put(operator, name, {}).json()["cells"] == []
    assert cut_off(operator)["nodes"] == [KILLED.name]


def test_who_may_see_and_say(
    operator: TestClient, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for role, expected in ((None, 401), (Role.STAFF, 403)):
        folder = tmp_path_factory.mktemp("other")
        with client_of(module_database_url, folder, role) as client:
            assert put(client, "edge-001", {}).status_code == expected
            assert client.get("/v1/edge/cut-off").status_code == (200 if role else 401)
    assert put(operator, "edge-001", {"cells": ["a/b"]}).status_code == 422


def test_the_nearest_healthy_node(operator: TestClient) -> None:
    """The killed node is passed over where one stands; one with a slow clock is not."""

    def nearest(node: edge.Node, limit: int) -> list[dict[str, object]]:
        near = f"{node.crossing.longitude},{node.crossing.latitude}"
        answer = operator.get("/v1/edge/nodes/nearest", params={"near": near, "limit": limit})
        assert answer.status_code == 200, answer.text
        nodes: list[dict[str, object]] = answer.json()["nodes"]
        return nodes

    found = nearest(KILLED, 100)
    assert len(found) == edge.NODES - 1
    assert KILLED.name not in {each["id"] for each in found}
    distances = [float(str(each["distance"])) for each in found]
    assert distances == sorted(distances)
    assert distances[0] > 10
    (itself,) = nearest(LATE, 1)
    assert itself["id"] == LATE.name
    assert float(str(itself["distance"])) < 1


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3", "nan,1", "1,nan", "inf,0", "181,0", "0,91", "x,y"]
)
def test_no_point(text: str) -> None:
    with pytest.raises(CityError):
        rules.point(text)
