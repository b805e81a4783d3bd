"""A person's own view over the real server: everything, row by row, and of nobody else."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
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


def put_claim(
    town: Town, body: dict[str, Any], claim: str | None = None, kind: str = "requests"
) -> httpx.Response:
    path = f"/v1/me/{kind}/{claim or uuid4()}"
    return town.send("PUT", path, Role.CITIZEN, "ai", body)


def step(town: Town, claim: str, state: str, text: str = "because") -> httpx.Response:
    body = {"state": state, "text": text}
    return town.send("PUT", f"/v1/claims/{claim}/state", Role.OPERATOR, "office", body)


def correction(**change: Any) -> dict[str, Any]:
    return {
        "sector": "health", "thing": "band", "property": "heart-rate",
        "phenomenon_time": iso(DAY + timedelta(minutes=1)), "result": 71.5,
        "reason": "a loose strap", **change,
    }  # fmt: skip


def test_property_22_a_correction_takes_the_rows_place(town: Town) -> None:
    claim = str(uuid4())
    asked = put_claim(town, correction(), claim, "corrections")
    assert asked.status_code == 200, asked.text
    assert put_claim(town, correction(), claim, "corrections").json() == asked.json()
    assert put_claim(town, correction(result=70), claim, "corrections").status_code == 409
    for wrong in (
        {"thing": "watch"}, {"result": "fast"}, {"phenomenon_time": iso(DAY - timedelta(1))},
        {"sector": "nothing"}, {"result": None}, {"reason": ""},
    ):  # fmt: skip
        answer = put_claim(town, correction(**wrong), None, "corrections")
        assert answer.status_code == 422, wrong
    assert 71.5 not in [r["result"] for r in pages(town, "ai")], "nobody has decided yet"
    (waiting,) = town.send("GET", "/v1/claims", Role.OPERATOR, "office").json()["requests"]
    assert waiting["content"]["reason"] == "a loose strap"
    assert step(town, claim, "under-review").status_code == 200
    assert step(town, claim, "answered").status_code == 409, "it is accepted or refused"
    done = step(town, claim, "accepted")
    assert [each["state"] for each in done.json()["history"]] == [
        "received", "under-review", "accepted",
    ]  # fmt: skip
    assert step(town, claim, "accepted").json() == done.json()
    assert step(town, claim, "refused").status_code == 409
    assert 71.5 in [r["result"] for r in pages(town, "ai")]
    assert 71.5 in [r["result"] for r in town.ask("clinic")]
    found = town.connection.execute("SELECT result FROM personal.superseded").fetchall()
    assert found == [(1.5,)], "what it replaced is kept beside it"
    refused = str(uuid4())
    assert put_claim(town, correction(result=9), refused, "corrections").status_code == 200
    assert step(town, refused, "refused", "it was measured twice").status_code == 200
    assert 9 not in [r["result"] for r in pages(town, "ai")]


def test_requests_are_answered_and_their_words_are_sealed(town: Town) -> None:
    claim = str(uuid4())
    body = {"kind": "stop-of-use", "text": "unmistakable words", "recipient": "clinic"}
    assert put_claim(town, body, claim).status_code == 200
    assert put_claim(town, {**body, "recipient": "nobody"}).status_code == 422
    assert put_claim(town, {**body, "disclosure": str(uuid4())}).status_code == 422
    complaint = str(uuid4())
    assert put_claim(town, {"kind": "complaint", "text": "too slow"}, complaint).status_code == 200
    assert step(town, complaint, "accepted").status_code == 409
    assert step(town, complaint, "answered", "we are sorry").status_code == 200
    listed = town.send("GET", "/v1/me/requests", Role.CITIZEN, "ai").json()["requests"]
    assert [(c["kind"], c["state"]) for c in listed] == [
        ("complaint", "answered"), ("stop-of-use", "received"),
    ]  # fmt: skip
    assert listed[0]["history"][-1]["text"] == "we are sorry"
    assert town.send("GET", "/v1/me/requests", Role.CITIZEN, "ken").json()["requests"] == []
    assert town.send("GET", "/v1/claims", Role.CITIZEN, "ai").status_code == 403
    page = town.send("GET", "/v1/claims?state=answered", Role.OPERATOR, "office").json()
    assert [c["id"] for c in page["requests"]] == [complaint]
    for table in ("claim", "claim_step"):
        stored = town.connection.execute(f"SELECT t::text FROM consent.{table} t".encode())
        told = str(stored.fetchall())
        assert "unmistakable" not in told
        assert b"unmistakable".hex() not in told
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            town.connection.execute(f"DELETE FROM consent.{table}".encode())
    erase(town, "ai")
    assert town.send("GET", "/v1/claims", Role.OPERATOR, "office").json()["requests"] == []
    assert step(town, claim, "accepted").status_code == 404, "nobody reads it any more"
