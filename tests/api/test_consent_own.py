"""A person's own view over the real server: everything, row by row, and of nobody else."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from core.settings import Settings
from core.tokens import Role
from tests.api.conftest import serving
from tests.api.test_consent_erasure import erase, peopled
from tests.api.town import DAY, Town, iso


@pytest.fixture
def town(storage_url: str, tmp_path: Path) -> Iterator[Town]:
    """Ai has a band, Ken a watch, both a scale; the clinic reads all of it."""
    settings = Settings(database_url=storage_url, data=tmp_path, page_rows_max=50)
    with serving(settings) as served, psycopg.connect(storage_url, autocommit=True) as connection:
        yield peopled(served, connection)


def pages(town: Town, person: str, query: str = "") -> list[dict[str, Any]]:
    path, found = f"/v1/me/observations?limit=3{query}", []
    while path:
        answer = town.send("GET", path, Role.CITIZEN, person)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["observations"]) <= 3
        found += answer.json()["observations"]
        path = answer.json()["next"]
    return found


def test_property_22_everything_that_is_held_is_shown(town: Town) -> None:
    moment = DAY + timedelta(hours=1)
    town.insert(
        ("band", "place"), "position", "observation_position", moment, 139.5, 35.5, 1.0, 2.0
    )
    town.insert(("band", "note"), "document", "observation_document", moment, Jsonb({"a": [1]}))
    told = town.send("GET", "/v1/me", Role.CITIZEN, "ai").json()
    assert {(h["thing"], h["property"], h["rows"], h["shared"]) for h in told["held"]} == {
        ("band", "heart-rate", 4, False), ("band", "place", 1, False), ("band", "note", 1, False),
        ("scale", "heart-rate", 4, True),
    }  # fmt: skip
    (first,) = (h for h in told["held"] if (h["thing"], h["property"]) == ("band", "heart-rate"))
    assert (first["category"], told["grants"], told["disclosures"]) == ("chimata:HeartRate", 1, 0)
    rows = pages(town, "ai")
    assert len(rows) == 10
    assert {r["thing"] for r in rows} == {"band", "scale"}
    results = [r["result"] for r in rows if r["kind"] != "number"]
    place = {"longitude": 139.5, "latitude": 35.5, "speed": 1.0, "course": 2.0}
    assert all(each in results for each in (place, {"a": [1]}))
    assert "ken" not in str(rows), "who shares it stays unnamed"
    begin, end = (DAY + timedelta(minutes=n) for n in (1, 3))
    window = f"&sector=health&from={iso(begin)}&to={iso(end)}".replace("+", "%2B")
    assert [r["result"] for r in pages(town, "ai", window)] == [1.5, 2.5] * 2
    assert pages(town, "ai", "&sector=mobility") == []
    assert pages(town, "nobody") == []


def test_a_reading_is_on_record_and_a_cursor_is_ones_own(town: Town) -> None:
    more = town.send("GET", "/v1/me/observations?limit=3", Role.CITIZEN, "ai").json()["next"]
    assert town.send("GET", more, Role.CITIZEN, "ai").status_code == 200
    assert town.send("GET", more, Role.CITIZEN, "ken").status_code == 422
    for role in (Role.OPERATOR, Role.RECIPIENT, Role.GATEWAY):
        for path in ("/v1/me", "/v1/me/observations"):
            assert town.send("GET", path, role, "office").status_code == 403
    count = "SELECT count(*) FROM audit.decision WHERE reason = 'own' AND principal = %s"
    assert town.city.one(count, f"person/{town.number('ai')}") == 2


def test_a_shared_row_is_gone_for_both(town: Town) -> None:
    for worker in town.served.app.state.workers:
        worker.stop()
    erase(town, "ai")
    assert {r["thing"] for r in pages(town, "ken")} == {"watch"}, "at once, before rows are deleted"
    assert pages(town, "ai") == []
