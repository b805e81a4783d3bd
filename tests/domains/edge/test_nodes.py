"""GET /v1/edge/nodes: latest KPIs of every node through the gate, and who is down."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.clock import now_us
from core.formats import senml
from core.sector import Context
from core.sensorthings import Decoded
from core.tokens import Role
from domains.edge import wire
from domains.edge.routes import nodes_of
from domains.edge.rules import status
from domains.edge.sector import SECTOR
from ingest.check import check
from tests.domains.serving import client_of, store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("seconds", "expected"), [(0, "up"), (30, "up"), (30.1, "down")])
def test_three_missed_heartbeats(seconds: float, expected: str) -> None:
    assert status(NOW - timedelta(seconds=seconds), NOW) == expected


def test_a_node_that_never_spoke_is_down() -> None:
    assert status(None, NOW) == "down"


def row(key: str, observed_property: str, kind: str, **values: object) -> dict[str, object]:
    return {
        "key": key, "name": None, "last_seen": NOW - timedelta(seconds=4),
        "property": observed_property, "kind": kind, "unit": "1", "phenomenon_time": NOW,
        "quality": 0, "result": None, "text": None, "document": None,
        "longitude": None, "latitude": None, "fixed_longitude": None, "fixed_latitude": None,
        **values,
    }  # fmt: skip


def test_nodes_of_rows() -> None:
    found = list(
        nodes_of(
            [
                row("a", "cell", "document", document="1234"),
                row("a", "position", "position", longitude=139.5, latitude=35.5),
                row("a", "rsrp", "number", result=-90.0, unit="dB{mW}"),
                row("b", "rtt", "number", phenomenon_time=None, last_seen=None, fixed_longitude=1.0,
                    fixed_latitude=2.0),
            ],
            NOW,
        )
    )  # fmt: skip
    first, second = found
    assert (first.id, first.status, first.heartbeat_age_seconds) == ("a", "up", 4.0)
    assert {name: kpi.result for name, kpi in first.kpis.items()} == {"cell": "1234", "rsrp": -90.0}
    assert first.position is not None
    assert first.position.longitude == 139.5
    assert (second.id, second.status, second.kpis) == ("b", "down", {})
    assert second.position is not None
    assert second.position.phenomenon_time is None


def test_nodes_over_http(database_url: str, tmp_path: Path) -> None:
    """A fresh node is up, an old one down; KPIs in the declared units; pages; a token is needed."""
    now = now_us()
    fresh = wire.kpi_pack(
        "node-a", now, {"rsrp": -92, "load": 40, "longitude": 139, "latitude": 35}
    )
    old = wire.kpi_pack("node-b", now - 60_000_000, {"rtt": 12.5})
    store(
        database_url,
        SECTOR,
        [
            (checked(senml.decode_json(fresh, Context("g", now)), now), now),
            (checked(senml.decode_json(old, Context("g", now)), now), now - 60_000_000),
        ],
    )
    with client_of(database_url, tmp_path, None) as anonymous:
        assert anonymous.get("/v1/edge/nodes").status_code == 401
    with client_of(database_url, tmp_path, Role.OPERATOR) as operator:
        answer = operator.get("/v1/edge/nodes")
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        first, second = answer.json()["nodes"]
        assert (first["id"], first["status"]) == ("node-a", "up")
        assert first["position"]["longitude"] == 139
        assert {name: (kpi["result"], kpi["unit"]) for name, kpi in first["kpis"].items()} == {
            "rsrp": (-92, "dB{mW}"),
            "load": (40, "%"),
        }
        assert (second["id"], second["status"]) == ("node-b", "down")
        assert second["heartbeat_age_seconds"] >= 60
        page = operator.get("/v1/edge/nodes?limit=1").json()
        assert page["next"] == "/v1/edge/nodes?limit=1&after=node-a"
        assert [node["id"] for node in operator.get(page["next"]).json()["nodes"]] == ["node-b"]
        assert operator.get("/v1/edge/nodes?limit=0").status_code == 422


def checked(decoded: Decoded, now: int) -> Decoded:
    return check(SECTOR, decoded, now, 900)
