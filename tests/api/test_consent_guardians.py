"""Guardians, property 18: while guardianship and age hold; the stricter wins, either revokes."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consent.guardians import majority
from core.tokens import Role
from tests.api.conftest import Served
from tests.api.town import DAY, Town, behalf, iso
from tests.consent.oracle import EVER, Row

SECONDS = (0, 20, 40, 60, 80, 100)


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """Ai, ten years old, has a band; Mio and Ken are her parents; Rin is nobody's."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Town(served, connection)
        town.register("clinic")
        assert town.bind("band", ["ai"], (DAY, None))
        for second in SECONDS:
            town.store(Row(("band", "heart-rate"), DAY + timedelta(seconds=second), float(second)))
        yield town


def seen(town: Town, **query: str) -> list[float]:
    return [row["result"] for row in town.ask("clinic", **query)]


def test_property_18_a_guardian_acts_while_the_guardianship_holds(town: Town) -> None:
    assert town.grant("ai", by="mio").status_code == 403
    guardianship = town.guard("ai", "mio")
    assert town.grant("ai", by="mio").status_code == 200
    assert len(seen(town)) == len(SECONDS)
    assert town.grant("mio", by="ai").status_code == 403, "not the other way round"
    path = f"/v1/consent/guardianships/{guardianship}"
    ended = town.send("DELETE", path, Role.OPERATOR, "office")
    assert ended.status_code == 200
    assert seen(town) == [], "at once"
    assert town.grant("ai", by="mio").status_code == 403
    again = town.send("DELETE", path, Role.OPERATOR, "office")
    assert again.json()["sigma"] == 0, "it is ended already"
    own = town.grant("ai")
    assert own.status_code == 200
    assert len(seen(town)) == len(SECONDS), "what the person says itself counts"


def test_property_18_a_grant_ends_with_age_by_the_clock(town: Town) -> None:
    """Nobody does anything, and what a guardian granted is shut."""
    until = datetime.now(UTC) + timedelta(seconds=3)
    town.guard("ai", "mio", kind="guardian-of-adult", born=None, valid_to=iso(until))
    name = str(uuid4())
    first = town.grant("ai", name, by="mio")
    assert first.status_code == 200
    assert town.grant("ai", name, by="mio").json()["sigma"] == first.json()["sigma"]
    shown = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"][0]
    assert datetime.fromisoformat(shown["valid_to"]) == until, "told to whom it concerns"
    assert len(seen(town)) == len(SECONDS)
    time.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds()) + 0.1)
    assert seen(town) == []
    assert town.grant("ai", by="mio").status_code == 403
    assert town.revoke("ai", name).status_code == 200


def test_property_18_a_minor_comes_of_age_at_the_eighteenth_birthday(town: Town) -> None:
    guardianship = town.guard("ai", "mio", born="2010-04-02")
    found = town.send("GET", "/v1/me/guardianships", Role.CITIZEN, "mio").json()["guardianships"]
    assert [(g["id"], g["ward"], g["valid_to"]) for g in found] == [
        (guardianship, "ai", "2028-04-01T15:00:00Z")
    ]
    path = f"/v1/consent/guardianships/{uuid4()}"
    body = {"ward": "ai", "guardian": "ken", "kind": "parent"}
    for wrong in ({"born": "2000-01-01"}, {}, {"born": "2100-01-01"}):
        answer = town.send("PUT", path, Role.OPERATOR, "office", body | wrong)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["name"] == "born"


@given(st.dates(date(1900, 1, 1), date(2200, 1, 1)))
def test_property_18_majority_is_the_end_of_the_day_before_the_birthday(born: date) -> None:
    """Also of those born on 29 February: of age when the 28th ends."""
    moment = majority(born) + timedelta(hours=9)
    assert (moment.hour, moment.minute) == (0, 0)
    eve = moment.date() - timedelta(days=1)
    assert eve.year in (born.year + 18, born.year + 17)
    assert (moment.month, moment.day) in {(born.month, born.day), (3, 1)}
    if (born.month, born.day) != (2, 29):
        assert moment.date() == born.replace(year=born.year + 18)


@pytest.mark.parametrize("first", ["ai", "mio"])
@pytest.mark.parametrize(
    ("strict", "expected"),
    [
        ({"event_to": iso(DAY + timedelta(seconds=40))}, ["exact", "exact"]),
        ({"resolution": "minute"}, ["minute", "minute"]),
        ({"category": "chimata:HeartRate", "resolution": "minute"}, ["minute", "minute"]),
        ({"event_from": iso(DAY + timedelta(days=1))}, []),
    ],
)
def test_property_18_the_stricter_of_two_grants_wins(
    town: Town, first: str, strict: dict[str, str], expected: list[str]
) -> None:
    """Whoever says it, and in either order: what both permit, and no more exactly than either."""
    town.guard("ai", "mio")
    by = {"ai": None, "mio": "mio"}
    second = "mio" if first == "ai" else "ai"
    for row in (60, 119):  # so that two minutes are whole
        town.store(Row(("band", "heart-rate"), DAY + timedelta(seconds=row + 0.5), 1.0))
    assert town.grant("ai", by=by[first]).status_code == 200
    assert town.grant("ai", by=by[second], **strict).status_code == 200
    assert [row["resolution"] for row in town.ask("clinic")] == expected
    # A question about other times, too, is about what both have spoken of.
    later = {"from": iso(DAY + timedelta(seconds=60)) or "", "to": "2026-03-02T00:00:00+09:00"}
    assert len(town.ask("clinic", **later)) == expected.count("minute") // 2


def test_property_18_what_one_alone_speaks_of_stands(town: Town) -> None:
    """Other purposes and categories are not the same matter."""
    town.guard("ai", "mio")
    town.store(Row(("band", "steps"), DAY, 7.0))
    assert town.grant("ai", category="chimata:HeartRate").status_code == 200
    assert (
        town.grant("ai", by="mio", category="health:PersonGeneratedHealthData").status_code == 200
    )
    assert len(seen(town)) == len(SECONDS) + 1


def test_property_18_either_revokes_and_nothing_opens_by_it(town: Town) -> None:
    """Neither by revoking a narrower grant nor by letting its time end sooner (property 4)."""
    town.guard("ai", "mio")
    for revoker, ends_narrow in product((None, "mio"), (False, True)):
        wide, narrow = str(uuid4()), str(uuid4())
        assert town.grant("ai", wide).status_code == 200
        assert town.grant("ai", narrow, by="mio", resolution="minute").status_code == 200
        assert {row["resolution"] for row in town.ask("clinic")} == {"minute"}
        sooner = iso(datetime.now(UTC) + timedelta(days=1))
        cut = town.grant("ai", narrow, by="mio", resolution="minute", valid_to=sooner)
        assert cut.status_code == 409
        ended = narrow if ends_narrow else wide
        assert town.revoke("ai", ended, by=revoker).status_code == 200
        assert seen(town) == []


def test_property_18_an_objection_of_either_shuts(town: Town) -> None:
    """Two parents: what one objects to stays shut, however often the other or the child grants."""
    for parent in ("mio", "ken"):
        town.guard("ai", parent)
    assert town.grant("ai", by="mio").status_code == 200
    assert len(seen(town)) == len(SECONDS)
    assert town.object("ai", "clinic", by="ken").status_code == 200
    assert seen(town) == []
    for by in ("mio", None):
        assert town.grant("ai", by=by).status_code == 200
        assert seen(town) == []
    assert town.grant("ai", by="ken", resolution="minute").status_code == 200
    shown = {row["resolution"] for row in town.ask("clinic")}
    assert shown == {"minute"}, "its own new word, and no more than that"


def test_property_18_a_wards_objection_holds_against_guardians(town: Town) -> None:
    town.guard("ai", "mio")
    assert town.object("ai", purpose="dpv:ServicePersonalisation").status_code == 200
    assert town.grant("ai", by="mio").status_code == 200
    assert len(seen(town)) == len(SECONDS), "for another purpose"
    assert seen(town, purpose="dpv:ProvidePersonalisedRecommendations") == []


def test_property_18_what_was_objected_to_stays_shut_when_the_guardian_goes(town: Town) -> None:
    """Of age, a person speaks anew: its old word against an objection does not come alive."""
    guardianship = town.guard("ai", "mio")
    town.object("ai", "clinic", by="mio")
    town.grant("ai")
    path = f"/v1/consent/guardianships/{guardianship}"
    assert town.send("DELETE", path, Role.OPERATOR, "office").status_code == 200
    assert seen(town) == []
    assert town.grant("ai").status_code == 200
    assert len(seen(town)) == len(SECONDS)


def test_property_18_a_guardian_reads_what_the_ward_reads(town: Town) -> None:
    town.guard("ai", "mio")
    town.grant("ai")
    town.ask("clinic")
    for path in ("/v1/consent/grants", "/v1/me/disclosures", "/v1/me", "/v1/me/overrides"):
        own = town.send("GET", path, Role.CITIZEN, "ai").json()
        assert town.send("GET", path + behalf("ai", "mio"), Role.CITIZEN, "mio").json() == own
    assert own == {"overrides": []}
    log = town.connection.execute(
        "SELECT actor, actor_kind, body->>'guardianship' IS NULL FROM consent.log "
        "WHERE subject IS NOT NULL"
    ).fetchall()
    assert log == [(f"person/{town.number('ai')}", "self", True)]
    town.grant("ai", by="mio", category="pd:Age")
    newest = town.connection.execute(
        "SELECT actor, actor_kind, body->>'guardianship' IS NULL FROM consent.log "
        "ORDER BY sigma DESC LIMIT 1"
    ).fetchone()
    assert newest == (f"person/{town.number('mio')}", "guardian", False), "who acted is on record"


def test_property_18_no_address_of_a_person_overlooks_for_whom(town: Town) -> None:
    """Who is no guardian is refused wherever `subject` may be said, and never gets its own."""
    described = town.served.get("/openapi.json").json()["paths"]
    asked = [
        re.sub(r"\{[^}]*\}", str(uuid4()), path)
        for path, methods in described.items()
        if any(p["name"] == "subject" for p in methods.get("get", {}).get("parameters", ()))
    ]
    assert len(asked) > 10
    answers = {
        path: town.send("GET", f"{path}?subject=ai", Role.CITIZEN, "rin").status_code
        for path in asked
    }
    assert set(answers.values()) == {403}, answers


def test_property_18_a_refusal_tells_of_nobody(town: Town) -> None:
    """The same for one who has other guardians, one who has none, and one who is not known."""
    town.guard("ai", "mio")

    def refused(method: str, path: str, subject: str) -> tuple[int, dict[str, Any]]:
        query = httpx.QueryParams({"subject": subject})
        answer = town.send(method, f"{path}?{query}", Role.CITIZEN, "rin")
        return answer.status_code, answer.json()

    for method, path in (
        ("GET", "/v1/consent/grants"),
        ("GET", "/v1/me/disclosures"),
        ("DELETE", f"/v1/consent/grants/{uuid4()}"),
    ):
        answers = [refused(method, path, subject) for subject in ("ai", "mio", "nobody")]
        assert answers[0][0] == 403
        assert answers[0] == answers[1] == answers[2]
    known = town.connection.execute("SELECT key FROM consent.subject ORDER BY key").fetchall()
    assert known == [("ai",), ("mio",)], "nobody is made up by asking"
    assert (
        town.send("GET", "/v1/consent/grants?subject=ai", Role.OPERATOR, "mio").status_code == 403
    )


def test_guardianships_are_registered_once(town: Town) -> None:
    name = town.guard("ai", "mio")
    town.guard("ai", "mio", name)
    path = "/v1/consent/guardianships/"
    body = {"ward": "ai", "guardian": "mio", "kind": "guardian-of-adult"}
    for other in (name, str(uuid4())):
        assert town.send("PUT", path + other, Role.OPERATOR, "o", body).status_code == 409
    own = body | {"guardian": "ai"}
    assert town.send("PUT", path + str(uuid4()), Role.OPERATOR, "o", own).status_code == 422
    assert town.send("PUT", path + str(uuid4()), Role.CITIZEN, "mio", body).status_code == 403
    assert town.send("DELETE", path + str(uuid4()), Role.OPERATOR, "o").status_code == 404
    over = body | {"ward": "rin", "valid_to": iso(EVER[0] + timedelta(days=1))}
    assert town.send("PUT", path + str(uuid4()), Role.OPERATOR, "o", over).status_code == 422
    state = "SELECT * FROM consent.guardianship"
    before = town.connection.execute(state).fetchall()
    town.connection.execute("SELECT consent.replay()")
    assert town.connection.execute(state).fetchall() == before
