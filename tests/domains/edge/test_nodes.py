"""GET /v1/edge/nodes: latest KPIs of every node through the gate, and who is down."""

from datetime import UTC, datetime, timedelta

import pytest

from domains.edge.routes import nodes_of
from domains.edge.rules import status

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
        "longitude": None, "latitude": None, "fixed_longitude": None, "fixed_latitude": None, **values,
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
