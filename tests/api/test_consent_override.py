"""Emergency overrides, property 17: two approvers, one area, a day, told to whom it touched."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from shapely.geometry import Point, Polygon

from consent.vocabulary import EMERGENCIES
from core.errors import CityError
from core.tokens import SCOPES, Principal, Role, Verifier, issue
from tests.api.conftest import Served
from tests.api.test_consent import ASKED
from tests.api.town import DAY, PATH, Town, iso
from tests.consent.oracle import Row

RESCUE = "infra:CriticalEmergencyResponseManagement"
SECONDS = (0, 20, 40)
NOON = datetime.now(UTC) - timedelta(hours=1)
SQUARE = [[139.0, 35.0], [139.1, 35.0], [139.1, 35.1], [139.0, 35.1]]


@pytest.fixture
def town(served: Served) -> Iterator[Town]:
    """Ai and Mio have bands, and have granted nothing; Ai has objected to everything."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Town(served, connection)
        town.register("rescue")
        for thing, person in (("band", "ai"), ("watch", "mio")):
            assert town.bind(thing, [person], (DAY, None))
            for second in SECONDS:
                time_of = NOON + timedelta(seconds=second)
                town.store(Row((thing, "heart-rate"), time_of, float(second)))
        town.object("ai")
        yield town


def proposed(town: Town, by: str = "hana", **said: Any) -> httpx.Response:
    """Hana asks for Ai's band, unless told otherwise; None: left out."""
    asked = {
        "recipient": "rescue", "event_from": iso(NOON - timedelta(hours=1)),
        "event_to": iso(NOON + timedelta(hours=2)), "things": ["band"], **said,
    }  # fmt: skip
    return town.propose(by=by, **asked)


def read(town: Town, role: Role = Role.RESPONDER, **query: str) -> httpx.Response:
    params = {"purpose": RESCUE, "category": "pd:MedicalHealth", **query}
    return town.send("GET", f"{PATH}?{httpx.QueryParams(params)}", role, "rescue")


def seen(town: Town, **query: str) -> list[float]:
    answer = read(town, **query)
    assert answer.status_code == 200, answer.text
    return [row["result"] for row in answer.json()["observations"]]


def opened(town: Town, **said: Any) -> None:
    assert proposed(town, **said).status_code == 200
    assert town.approve().status_code == 200


def test_property_17_two_operators_and_a_token_of_its_own(town: Town) -> None:
    assert read(town).status_code == 403
    assert proposed(town).status_code == 200
    assert read(town).status_code == 403, "nobody approved it"
    assert town.approve(by="hana").status_code == 409, "the same one twice"
    assert read(town).status_code == 403
    assert town.approve().status_code == 200
    assert seen(town) == [0.0, 20.0, 40.0], "an objection does not count: nobody is asked"
    assert read(town, Role.RECIPIENT).json()["observations"] == [], "its usual token is not enough"
    town.register("gym")
    path = f"{PATH}?purpose={RESCUE}&category=pd:MedicalHealth"
    assert town.send("GET", path, Role.RESPONDER, "gym").status_code == 403
    town.override = uuid4()
    assert read(town).status_code == 403, "another emergency's token"
    acts = town.connection.execute(
        "SELECT act, actor FROM consent.log WHERE act LIKE 'OVERRIDE%' ORDER BY sigma"
    ).fetchall()
    assert acts == [("OVERRIDE", "hana"), ("OVERRIDE_APPROVE", "goro")], "logged before anything"


def test_property_17_a_token_is_of_one_override_and_of_a_day(town: Town) -> None:
    keys = town.keys
    token = issue(keys, Role.RESPONDER, subject="rescue", override=UUID(int=7))
    principal = Verifier(keys.signing).verify(token)
    assert (principal.override, principal.scopes) == (UUID(int=7), {"read:emergency"})
    assert principal.expires_at <= time.time() + 24 * 3600 + 1
    for missing in ({"subject": "rescue"}, {"override": UUID(int=7)}):
        with pytest.raises(CityError):
            issue(keys, Role.RESPONDER, **missing)  # type: ignore[arg-type]
    usual = issue(keys, Role.RECIPIENT, subject="rescue", override=UUID(int=7))
    assert Verifier(keys.signing).verify(usual).override is None


def test_property_17_only_the_enumerated_purposes(town: Town) -> None:
    for purpose in ("dpv:Marketing", "dpv:ServiceManagement", "dpv:LegalCompliance"):
        answer = proposed(town, purpose=purpose)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["name"] == "purpose"
    assert set(EMERGENCIES.values()) == {"27-1-2", "27-1-3"}
    opened(town)
    assert seen(town, purpose="health:EmergencyCareManagement") == [], "the one that was named"
    assert read(town, operation="derive").status_code == 422


def test_property_17_only_its_things_times_and_categories(town: Town) -> None:
    opened(town, category="chimata:HeartRate", event_from=iso(NOON + timedelta(seconds=20)),
           event_to=iso(NOON + timedelta(seconds=40)))  # fmt: skip
    town.store(Row(("band", "body-weight"), NOON + timedelta(seconds=20), 7.0))
    assert seen(town) == [20.0], "half-open, and the band's heart rate alone"
    for wrong in ({"event_to": iso(NOON + timedelta(days=8))}, {"hours": 25}, {"hours": 0},
                  {"area": SQUARE}, {"things": None}, {"sector": "nowhere"},
                  {"recipient": "nobody"}, {"hardship": None}):  # fmt: skip
        assert proposed(town, **wrong).status_code in {404, 422}, wrong


def test_property_17_only_its_area(town: Town) -> None:
    """A moving Thing while it was inside: from each position there until its next one."""
    inside, outside = (139.05, 35.05, None, None), (139.5, 35.5, None, None)
    walk = ((0, outside), (15, inside), (30, outside), (35, outside))
    for second, place in walk:
        moment = NOON + timedelta(seconds=second)
        town.insert(("band", "position"), "position", "observation_position", moment, *place)
    opened(town, things=None, area=SQUARE)
    assert seen(town) == [20.0]
    opened(town, things=None, area=SQUARE, category="pd:Location")
    places = read(town, category="pd:Location").json()["observations"]
    assert [row["result"]["longitude"] for row in places] == [139.05]
    town.connection.execute("UPDATE thing SET longitude = 139.05, latitude = 35.05 "
                            "WHERE key = 'watch'")  # fmt: skip
    opened(town, things=None, area=SQUARE)
    assert seen(town) == [20.0, 0.0, 20.0, 40.0], "a fixed one always"
    assert len(read(town, limit="1").json()["observations"]) == 1


def test_property_17_a_small_area_is_no_larger_than_it_is(town: Town) -> None:
    """Some hundred metres, slanted: as shapely sees it, but for what lies within centimetres."""
    random = Random(17)
    for _ in range(200):
        corners = [(139 + random.uniform(0, 1e-3), 35 + random.uniform(0, 1e-3)) for _ in range(3)]
        area = Polygon(corners)
        place = Point(139 + random.uniform(-2e-4, 1.2e-3), 35 + random.uniform(-2e-4, 1.2e-3))
        if area.boundary.distance(place) < 1e-6:
            continue
        found = town.connection.execute(
            "SELECT consent.lies_in(%s::polygon, %s, %s)",
            (f"({','.join(map(str, corners))})", place.x, place.y),
        ).fetchone()
        assert found == (area.contains(place),), (corners, place)


def test_property_17_it_is_on_record_and_the_persons_are_told(town: Town) -> None:
    opened(town)
    answer = read(town).json()
    record = town.connection.execute(
        "SELECT d.reason, d.override, d.role, p.grants, p.rows FROM audit.provision p "
        "JOIN audit.decision d ON d.id = p.decision WHERE d.id = %s", (answer["disclosure"],),
    ).fetchall()  # fmt: skip
    assert record == [("override", town.override, "responder", [], 3)]
    mine = town.send("GET", "/v1/me/disclosures", Role.CITIZEN, "ai").json()["deliveries"]
    assert [each["override"] for each in mine] == [str(town.override)]
    path = "/v1/me/overrides"
    assert town.send("GET", path, Role.CITIZEN, "mio").json()["overrides"] == []
    told = town.send("GET", path, Role.CITIZEN, "ai").json()["overrides"]
    assert [(t["id"], t["legal_basis"], t["told_at"]) for t in told] == [
        (str(town.override), "27-1-2", None)
    ]
    within = datetime.fromisoformat(told[0]["tell_by"]) - datetime.fromisoformat(told[0]["since"])
    assert within == timedelta(hours=72)
    seen(town)
    office = f"/v1/consent/overrides/{town.override}"
    listed = town.send("GET", office, Role.OPERATOR, "hana").json()
    assert [(p["person"], p["since"]) for p in listed["persons"]] == [("ai", told[0]["since"])]
    assert (listed["proposer"], listed["approver"], listed["live"]) == ("hana", "goro", True)
    own = f"{path}/{town.override}/read"
    assert town.send("PUT", own, Role.CITIZEN, "mio").status_code == 404
    assert town.send("PUT", own, Role.CITIZEN, "ai").json()["sigma"] > 0
    assert town.send("PUT", own, Role.CITIZEN, "ai").json()["sigma"] == 0
    assert town.send("GET", path, Role.CITIZEN, "ai").json()["overrides"][0]["how"] == "read"
    for persons, status in ((["ai"], 200), (["mio"], 404)):
        body = {"persons": persons, "how": "letter"}
        assert town.send("PUT", office + "/told", Role.OPERATOR, "h", body).status_code == status
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        town.connection.execute("DELETE FROM audit.to_tell")


def test_property_17_a_read_that_finds_nobody_tells_nobody(town: Town) -> None:
    opened(town, things=["elsewhere"])
    assert seen(town) == []
    assert town.connection.execute("SELECT * FROM audit.to_tell").fetchall() == []


def test_property_17_after_it_the_world_is_as_without_it(town: Town) -> None:
    """By the clock, and by an act that waits for what is being handed over (property 6)."""
    answers = []
    for ended in (False, True):
        if ended:
            opened(town)
            assert len(seen(town)) == len(SECONDS)
            gate = town.served.app.state.gate
            responder = Principal(Role.RESPONDER, "rescue", None, None, SCOPES[Role.RESPONDER],
                                  2**40, town.override)  # fmt: skip
            asked = ASKED.__class__(ASKED.sector, RESCUE, *[getattr(ASKED, name) for name in
                                    ("category", "operation", "span", "limit")])  # fmt: skip
            chunk = gate.disclose(responder, asked)
            assert town.end_override().json()["sigma"] > 0
            assert town.end_override().json()["sigma"] == 0
            assert gate.lease(chunk) is None, "what was read before is not handed over after"
            assert town.approve(by="jun").status_code == 409
        answers.append(
            [(a.status_code, a.json()) for a in (read(town), read(town, Role.RECIPIENT))]
        )
    for each in answers:
        each[1][1].pop("disclosure")
    assert answers[0] == answers[1]
    opened(town)
    town.connection.execute(
        "UPDATE consent.override SET valid = tstzrange(lower(valid), clock_timestamp()) "
        "WHERE id = %s", (town.override,),
    )  # fmt: skip
    assert read(town).json() == answers[0][0][1]


def test_property_17_of_whom_was_erased_nothing_is_read(town: Town) -> None:
    town.connection.execute("UPDATE consent.subject SET key = NULL WHERE key = 'ai'")
    opened(town)
    assert seen(town) == []


def test_overrides_are_acts_like_others(town: Town) -> None:
    """Sent again it is the same act; the log makes the state again."""
    said = {"event_from": iso(NOON), "event_to": iso(NOON + timedelta(hours=1))}
    assert proposed(town, **said).json()["sigma"] > 0
    name = town.override
    path = f"/v1/consent/overrides/{name}"
    asked = town.send("GET", path, Role.OPERATOR, "hana").json()
    body = {key: asked[key] for key in ("recipient", "purpose", "category", "sector", "reason",
            "authority", "hardship", "hours", "things", "event_from", "event_to")}  # fmt: skip
    assert town.send("PUT", path, Role.OPERATOR, "hana", body).json()["sigma"] == 0
    other = body | {"hours": 24}
    assert town.send("PUT", path, Role.OPERATOR, "hana", other).status_code == 409
    assert town.approve().json()["sigma"] > 0
    assert town.approve().json()["sigma"] == 0
    seen(town)
    town.send("PUT", f"/v1/me/overrides/{name}/read", Role.CITIZEN, "ai")
    for role in (Role.CITIZEN, Role.RECIPIENT, Role.STAFF):
        assert town.send("PUT", path, role, "x", body).status_code == 403
        assert town.send("GET", path, role, "x").status_code == 403
    tables = [f"SELECT * FROM consent.{name}" for name in ("override", "told")]
    before = [town.connection.execute(table.encode()).fetchall() for table in tables]
    town.connection.execute("SELECT consent.replay()")
    assert [town.connection.execute(table.encode()).fetchall() for table in tables] == before
