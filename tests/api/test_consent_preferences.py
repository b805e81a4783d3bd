"""Preferences, requests, decisions and delegates over the real server (property 19)."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from consent import matcher, requests
from consent.reasons import LANGUAGES
from core.tokens import Role
from tests.api.bank import Bank
from tests.api.conftest import Served
from tests.api.town import DAY, NOTICE, Town, iso
from tests.consent.oracle import Row

HEART = {"purpose": "health:ServiceProvision", "category": "chimata:HeartRate"}
ALLOW: dict[str, Any] = {
    "verdict": "allow",
    "purposes": ["health:ServiceProvision"],
    "categories": ["pd:MedicalHealth"],
    "kinds": ["dpv:HealthcareOrganisation"],
}
ROOTS = ("dpv:ServiceManagement", "dpv:AcademicResearch", "dpv:Marketing")
CATEGORIES = ["pd:MedicalHealth", "pd:Location", "pd:Age"]
KINDS = {"clinic": "dpv:HealthcareOrganisation", "gym": "dpv:ForProfitOrganisation",
         "insurer": "chimata:Insurer"}  # fmt: skip
NOBODYS = "00000000-0000-4000-8000-000000000009"
YEAR = timedelta(days=365)
UNTIL = datetime.now(UTC) + YEAR


class Manager(Town):
    """A town whose people state preferences, and whose recipients have a kind and are reviewed."""

    def prefer(self, person: str, name: str | None = None, **said: Any) -> httpx.Response:
        path = f"/v1/me/preferences/{name or uuid4()}"
        return self.send("PUT", path, Role.CITIZEN, person, said)

    def request(self, recipient: str, name: str | None = None, **wanted: Any) -> httpx.Response:
        body = {
            **HEART,
            "event_from": iso(DAY),
            "valid_to": iso(UNTIL),
            "notice_ja": "診療のために心拍を使います。",
            "notice_en": "We use the heart rate for your care.",
            "benefit_ja": "よりよい診療",
            "benefit_en": "Better care",
            "retention_days": 30,
            **wanted,
        }
        return self.send("PUT", f"/v1/requests/{name or uuid4()}", Role.RECIPIENT, recipient, body)

    def own(self, person: str, path: str) -> Any:
        answer = self.send("GET", f"/v1/me/{path}", Role.CITIZEN, person)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def answer(self, person: str, request: str, answer: str, *alike: str) -> httpx.Response:
        body = {"answer": answer, "alike": list(alike)}
        return self.send("PUT", f"/v1/me/decisions/{request}", Role.CITIZEN, person, body)

    def appoint(self, person: str, mandate: str, **said: Any) -> httpx.Response:
        body = {"delegate": "minato", "valid_to": iso(datetime.now(UTC) + YEAR), **said}
        return self.send("PUT", f"/v1/me/mandates/{mandate}", Role.CITIZEN, person, body)

    def delegated(self, grant: str, person: str = "ai", bank: str = "minato", **terms: Any) -> int:
        """Grant as an information bank; the status."""
        body = {"recipient": "clinic", **HEART, "event_from": iso(DAY), "notice": NOTICE,
                "valid_to": "9000-01-01T00:00:00Z", **terms}  # fmt: skip
        path = f"/v1/delegate/grants/{grant}?person={person}"
        return self.send("PUT", path, Role.BANK, bank, body).status_code

    def seen(self, recipient: str = "clinic", **query: str) -> list[float]:
        return [row["result"] for row in self.ask(recipient, **HEART, **query)]

    def settle(self) -> None:
        """Until every act was matched."""
        ends_at = time.monotonic() + 20
        while self.city.one("SELECT m.sigma < c.sigma FROM consent.matching m, consent.clock c"):
            assert time.monotonic() < ends_at, "the log was not followed"
            time.sleep(0.02)


@pytest.fixture
def town(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Ai, Ken and Mio wear bands; a clinic, a gym and an insurer are there."""
    with psycopg.connect(served.database_url, autocommit=True) as connection:
        town = Manager(served, connection)
        bank = Bank(town)
        for recipient, kind in KINDS.items():
            purposes = [*ROOTS, "health:ServiceProvision", "dpv:LegalCompliance"]
            assert bank.register(recipient, kind=kind, purposes=purposes).status_code == 200
            bank.approve(recipient, purposes=purposes[:-1], categories=CATEGORIES)
        town.settle()
        for number, person in enumerate(("ai", "ken", "mio")):
            assert town.bind(f"band-{person}", [person], (DAY, None))
            town.store(Row((f"band-{person}", "heart-rate"), DAY, float(number)))
        yield town


def test_a_request_becomes_what_each_person_states(town: Manager) -> None:
    """Allowed, asked or refused, each with its reason in plain words; the recipient sees one of
    three, and learns nothing else."""
    allow = str(uuid4())
    assert town.prefer("ai", allow, **ALLOW).status_code == 200
    assert town.prefer("mio", verdict="refuse", kinds=["dpv:HealthcareOrganisation"]).is_success
    name = str(uuid4())
    made = town.request("clinic", name)
    assert made.status_code == 200, made.text
    town.settle()
    assert town.seen() == [0.0]
    shown = {p: town.own(p, "requests")["requests"][0] for p in ("ai", "ken", "mio")}
    assert {p: (r["state"], r["verdict"]) for p, r in shown.items()} == {
        "ai": ("granted", "allow"), "ken": ("asked", "ask"), "mio": ("refused", "refuse"),
    }  # fmt: skip
    assert [each["code"] for each in shown["ken"]["reasons"]] == ["not-stated"]
    assert shown["ai"]["reasons"][0]["preference"] == allow
    for each in shown.values():
        assert all(reason["text"][lang] for reason in each["reasons"] for lang in LANGUAGES)
        assert each["notice_sha256"] == requests.notice_hash(**each["notice"])
    (grant,) = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    assert grant["notice"] == shown["ai"]["notice_sha256"]
    kind = "SELECT actor_kind FROM consent.log WHERE sigma = %s"
    assert town.connection.execute(kind, (grant["sigma"],)).fetchone() == ("delegate",)
    assert [len(town.own(p, "decisions")["decisions"]) for p in ("ai", "ken", "mio")] == [0, 1, 0]
    asked = town.send("GET", "/v1/requests", Role.RECIPIENT, "clinic").json()["requests"]
    assert [(each["id"], each["open"], each["granted"]) for each in asked] == [(name, True, 0)]
    assert town.send("GET", "/v1/requests", Role.RECIPIENT, "gym").json()["requests"] == []


def test_property_19_a_tighter_statement_takes_back_at_once(town: Manager) -> None:
    """What was granted on a standing word ends in the same act; a person's own grant does not."""
    name = str(uuid4())
    assert town.prefer("ai", name, **ALLOW).status_code == 200
    assert town.request("clinic").status_code == 200
    town.settle()
    assert town.seen() == [0.0]
    for tighter in (
        {"resolution": "hour"},
        {"kinds": ["dpv:GovernmentalOrganisation"]},
        {"countries": ["US"]},
        {"operations": ["anonymise"]},
        {"verdict": "ask"},
    ):
        stated = town.prefer("ai", name, **{**ALLOW, **tighter})
        assert (stated.status_code, stated.json()["tighter"]) == (200, "kinds" not in tighter)
        assert 0.0 not in [r["result"] for r in town.ask("clinic", **HEART)
                           if r["resolution"] == "exact"]  # fmt: skip
        assert town.prefer("ai", name, **ALLOW).json()["tighter"] is False
        town.settle()
        assert town.seen() == [0.0], "what is allowed again is granted again"
    own = str(uuid4())
    assert town.grant("ai", own, **HEART, recipient="gym").status_code == 200
    gone = town.send("DELETE", f"/v1/me/preferences/{name}", Role.CITIZEN, "ai")
    assert gone.status_code == 200
    assert town.seen() == []
    assert town.seen("gym") == [0.0]
    assert town.send("DELETE", f"/v1/me/preferences/{name}", Role.CITIZEN, "ai").is_success


def test_what_is_taken_back_is_not_granted_by_itself_again(town: Manager) -> None:
    """A person's no, or revoke, stands, whatever is stated and whoever is bound after it."""
    assert town.prefer("ai", **ALLOW).status_code == 200
    first, second = str(uuid4()), str(uuid4())
    assert town.request("clinic", first).status_code == 200
    town.settle()
    (grant,) = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    assert town.revoke("ai", grant["id"]).status_code == 200
    assert town.request("clinic", second).status_code == 200
    assert town.answer("ai", second, "no").status_code == 200
    assert town.prefer("ai", verdict="allow").status_code == 200
    assert town.bind("scale", ["ai"], (DAY, None))
    town.settle()
    assert town.seen() == []
    assert town.own("ai", "decisions")["decisions"] == []
    assert town.answer("ai", first, "yes").status_code == 200
    assert town.seen() == [0.0]


def test_property_19_a_delegate_grants_what_the_person_states_and_no_more(town: Manager) -> None:
    office = {"title_ja": "港情報銀行", "title_en": "Minato bank"}
    for bank in ("minato", "other"):
        path = f"/v1/delegates/{bank}"
        assert town.send("PUT", path, Role.OPERATOR, "office", office).status_code == 200
    assert town.prefer("ai", **ALLOW, resolution="hour", countries=["JP"]).status_code == 200
    assert town.delegated(str(uuid4())) == 403, "nobody appointed it"
    mandate, special = str(uuid4()), str(uuid4())
    assert town.appoint("ai", mandate).status_code == 200
    assert town.delegated(str(uuid4())) == 403, "health needs a word of its own in the mandate"
    assert town.appoint("ai", special, special=True).status_code == 200
    assert town.delegated(str(uuid4()), bank="other") == 403
    assert town.delegated(str(uuid4()), "ken") == 403
    for beyond in (
        {"recipient": "insurer"},
        {"purpose": "dpv:Marketing"},
        {"category": "pd:Location"},
        {"countries": ["JP", "US"]},
    ):
        assert town.delegated(str(uuid4()), **beyond) == 403, beyond
    grant = str(uuid4())
    assert town.delegated(grant) == 200
    assert town.delegated(grant) == 200, "the same again is the same act"
    (shown,) = town.send("GET", "/v1/consent/grants", Role.CITIZEN, "ai").json()["grants"]
    (ends,) = {m["valid_to"] for m in town.own("ai", "mandates")["mandates"] if m["special"]}
    assert (shown["resolution"], shown["valid_to"]) == ("hour", ends)
    assert [r["resolution"] for r in town.ask("clinic", **HEART)] == ["hour"]
    assert town.delegated(grant, bank="other") == 403
    path = f"/v1/delegate/grants/{grant}?person=ai"
    assert town.send("DELETE", path, Role.BANK, "other").status_code == 404
    narrow = {"valid_to": iso(datetime.now(UTC) + timedelta(days=1))}
    assert town.delegated(grant, **narrow) == 200
    assert town.delegated(grant) == 409, "narrowed alone"
    assert town.send("DELETE", path, Role.BANK, "minato").status_code == 200
    assert town.seen() == []


def test_property_19_what_a_delegate_granted_ends_with_its_mandate(town: Manager) -> None:
    office = {"title_ja": "港情報銀行", "title_en": "Minato bank"}
    town.send("PUT", "/v1/delegates/minato", Role.OPERATOR, "office", office)
    assert town.prefer("ai", **ALLOW).status_code == 200
    mandate = str(uuid4())
    assert town.appoint("ai", mandate, special=True).status_code == 200
    assert town.delegated(str(uuid4())) == 200
    assert town.seen() == [0.0]
    path = f"/v1/me/mandates/{mandate}"
    assert town.send("DELETE", path, Role.CITIZEN, "ken").status_code == 404
    ended = town.send("DELETE", path, Role.CITIZEN, "ai")
    assert ended.status_code == 200
    assert town.seen() == []
    assert town.send("DELETE", path, Role.CITIZEN, "ai").json()["sigma"] == ended.json()["sigma"]
    assert town.delegated(str(uuid4())) == 403
    again = str(uuid4())
    soon = datetime.now(UTC) + timedelta(seconds=2)
    assert town.appoint("ai", again, special=True, valid_to=iso(soon)).status_code == 200
    assert town.delegated(str(uuid4())) == 200
    assert town.seen() == [0.0]
    time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.05)
    assert town.seen() == [], "the clock ends it"
    operator = town.send("DELETE", "/v1/delegates/minato", Role.OPERATOR, "office")
    assert operator.status_code == 200
    assert town.appoint("ai", str(uuid4())).status_code == 422
    assert town.send("GET", "/v1/delegates", Role.CITIZEN, "ai").json() == {"delegates": []}


WRITE = "SELECT consent.write('GRANT', %s, %s, 'delegate', %s)"


def test_property_19_the_log_itself_refuses_a_delegate(town: Manager) -> None:
    """Whatever writes to it: beyond a mandate, a request or what is stated there is no grant."""
    office = {"title_ja": "港情報銀行", "title_en": "Minato bank"}
    town.send("PUT", "/v1/delegates/minato", Role.OPERATOR, "office", office)
    mandate = str(uuid4())
    assert town.appoint("ai", mandate).status_code == 200
    name = str(uuid4())
    assert town.request("clinic", name).status_code == 200
    assert town.prefer("ai", **ALLOW).status_code == 200
    town.settle()
    ai, ken = town.number("ai"), town.number("ken")
    clinic = town.city.one("SELECT id FROM consent.recipient WHERE key = 'clinic'")
    now = datetime.now(UTC)
    body = {
        "grant": "", "recipient": clinic, **HEART, "operation": "read",
        "event": f"[{iso(DAY)},)", "valid": f"[{iso(now)},{iso(now + timedelta(days=9))})",
        "level": 0, "countries": ["JP"], "notice": NOTICE,
    }  # fmt: skip
    for subject, actor, more, why in (
        (ai, "minato", {"mandate": mandate}, "beyond the mandate"),  # health
        (ai, "other", {"mandate": mandate}, "beyond the mandate"),
        (ken, "minato", {"mandate": mandate}, "beyond the mandate"),
        (ai, "minato", {"mandate": mandate, "category": "pd:Age"}, "beyond what the person"),
        (ai, "chimata", {}, "nobody asked"),
        (ken, "chimata", {"request": name}, "beyond what the person"),
        (ai, "chimata", {"request": name}, "more than was asked for"),  # another notice
    ):
        said = Jsonb({**body, "grant": str(uuid4()), **more})
        with pytest.raises(psycopg.errors.CheckViolation, match=why):
            town.connection.execute(WRITE, (subject, actor, said))
    assert town.seen() == [0.0]


def test_property_18_what_rests_on_a_guardians_statement_ends_with_the_guardianship(
    town: Manager,
) -> None:
    """A statement is its voice's: another states beside it, and the strictest counts."""
    guardianship = town.guard("ai", "mio")
    own, name, behalf = str(uuid4()), str(uuid4()), "?subject=ai"
    path = f"/v1/me/preferences/{name}"
    stated = town.send("PUT", path + behalf, Role.CITIZEN, "mio", ALLOW)
    assert stated.status_code == 200, stated.text
    assert town.request("clinic").status_code == 200
    town.settle()
    assert town.seen() == [0.0]
    assert town.send("DELETE", path, Role.CITIZEN, "ai").status_code == 409
    assert town.prefer("ai", name, verdict="ask").status_code == 409
    assert town.prefer("ai", own, verdict="refuse").status_code == 200
    assert town.seen() == []
    beside = town.send("DELETE", f"/v1/me/preferences/{own}{behalf}", Role.CITIZEN, "mio")
    assert beside.status_code == 409
    mandate = {"delegate": "minato", "valid_to": iso(UNTIL)}
    for_ward = f"/v1/me/mandates/{uuid4()}{behalf}"
    assert town.send("PUT", for_ward, Role.CITIZEN, "mio", mandate).status_code == 403
    assert town.send("DELETE", f"/v1/me/preferences/{own}", Role.CITIZEN, "ai").status_code == 200
    town.settle()
    assert town.seen() == [0.0]
    ended = f"/v1/consent/guardianships/{guardianship}"
    assert town.send("DELETE", ended, Role.OPERATOR, "office").status_code == 200
    assert town.seen() == []
    again = str(uuid4())
    assert town.request("clinic", again).status_code == 200
    town.settle()
    assert town.seen() == []
    assert again in str(town.own("ai", "decisions")), "asked from now on"
    assert town.send("DELETE", path, Role.CITIZEN, "ai").status_code == 200


def folded(town: Town) -> list[list[Any]]:
    tables = town.connection.execute("SELECT name FROM consent.folded ORDER BY number").fetchall()
    return [
        town.connection.execute(f"SELECT * FROM consent.{t} ORDER BY {t}::text".encode()).fetchall()
        for (t,) in tables
    ]


def test_property_21_preferences_requests_and_mandates_are_made_again(town: Manager) -> None:
    """One of each act: the log alone makes the state again."""
    office = {"title_ja": "港情報銀行", "title_en": "Minato bank"}
    town.send("PUT", "/v1/delegates/minato", Role.OPERATOR, "office", office)
    town.send("DELETE", "/v1/delegates/minato", Role.OPERATOR, "office")
    town.send("PUT", "/v1/delegates/minato", Role.OPERATOR, "office", office)
    name, mandate, preference = str(uuid4()), str(uuid4()), str(uuid4())
    town.prefer("ai", preference, **ALLOW)
    town.prefer("ken", **ALLOW, resolution="hour")
    town.appoint("ai", mandate, special=True)
    assert town.delegated(str(uuid4())) == 200
    town.request("clinic", name)
    town.request("gym", withdrawn := str(uuid4()))
    town.settle()
    town.answer("mio", name, "always")
    town.answer("ken", name, "no")
    for path in (f"requests/{withdrawn}", f"me/mandates/{mandate}", f"me/preferences/{preference}"):
        role, who = (Role.RECIPIENT, "gym") if "requests" in path else (Role.CITIZEN, "ai")
        assert town.send("DELETE", f"/v1/{path}", role, who).status_code == 200
    town.send("PUT", "/v1/me/preset", Role.CITIZEN, "ken", {"preset": "nothing"})
    town.settle()
    acts = town.connection.execute("SELECT DISTINCT act FROM consent.log").fetchall()
    assert {a for (a,) in acts} >= {
        "PREFER", "UNPREFER", "PRESET", "REQUEST", "WITHDRAW", "DECLINE", "DELEGATE", "UNDELEGATE",
        "REGISTER_DELEGATE", "SUSPEND_DELEGATE",
    }  # fmt: skip
    before = folded(town)
    town.connection.execute("SELECT consent.replay()")
    assert folded(town) == before


def test_a_person_sees_few_decisions_ranked_and_alike_ones_together(town: Manager) -> None:
    """Twelve kinds of question, thirteen requests: ten are shown, the gravest first."""
    purposes = ("dpv:AcademicResearch", "dpv:ServiceManagement", "dpv:Marketing",
                "health:ServiceProvision")  # fmt: skip
    for purpose in purposes:
        for category in ("chimata:HeartRate", "pd:Location", "pd:Age"):
            made = town.request("clinic", purpose=purpose, category=category)
            assert made.status_code == 200, made.text
    assert town.request("clinic").status_code == 200
    shown = town.own("ai", "decisions")
    assert (len(shown["decisions"]), shown["more"]) == (10, 2)
    totals = [each["score"]["total"] for each in shown["decisions"]]
    assert totals == sorted(totals, reverse=True)
    first = shown["decisions"][0]
    assert (first["purpose"], first["category"]) == ("health:ServiceProvision", "chimata:HeartRate")
    assert (first["score"]["sensitivity"], first["score"]["benefit"]) == (3, 3)
    alike = [each["request"] for each in first["requests"]]
    assert len(alike) == 2
    few = town.own("ai", "decisions?limit=1")
    assert ([d["requests"] for d in few["decisions"]], few["more"]) == ([first["requests"]], 11)
    assert town.own("ai", "decisions?limit=50") == shown, "never hundreds"
    other = shown["decisions"][1]["requests"][0]["request"]
    assert town.answer("ai", alike[0], "yes", other).status_code == 422, "not alike"
    assert town.answer("ai", *alike[:1], "yes", *alike[1:]).status_code == 200
    assert town.seen() == [0.0]
    after = town.own("ai", "decisions")
    assert alike[0] not in str(after)
    assert (len(after["decisions"]), after["more"]) == (10, 1)
    assert town.answer("ai", alike[0], "no").status_code == 200
    assert town.seen() == [0.0], "the other one stands"
    assert town.answer("ai", alike[1], "no").status_code == 200
    assert town.seen() == []


def test_always_and_never_are_stated_for_what_is_alike(town: Manager) -> None:
    name = str(uuid4())
    assert town.request("clinic", name).status_code == 200
    assert town.answer("ai", name, "always").status_code == 200
    assert town.answer("ken", name, "never").status_code == 200
    again = town.answer("ai", name, "always")
    assert (again.status_code, again.json()["sigma"]) == (200, 0), "the same again is no act"
    (said,) = town.own("ai", "preferences")["preferences"]
    assert (said["verdict"], said["kinds"]) == ("allow", ["dpv:HealthcareOrganisation"])
    assert town.seen() == [0.0]
    second, reshare = str(uuid4()), str(uuid4())
    assert town.request("clinic", second).status_code == 200
    assert town.request("clinic", reshare, operation="reshare").status_code == 200
    town.settle()
    states = {p: {r["request"]: r["state"] for r in town.own(p, "requests")["requests"]}
              for p in ("ai", "ken", "mio")}  # fmt: skip
    assert states == {
        "ai": {name: "granted", second: "granted", reshare: "asked"},
        "ken": {name: "answered", second: "refused", reshare: "refused"},
        "mio": dict.fromkeys((name, second, reshare), "asked"),
    }
    refused = town.answer("ken", second, "yes")
    assert refused.status_code == 409, "change the statement first"
    assert town.prefer("mio", verdict="ask").status_code == 200
    assert town.answer("mio", name, "always").status_code == 409
    assert town.seen() == [0.0]


def test_a_request_is_made_once_by_who_may_and_names_nobody(town: Manager) -> None:
    name = str(uuid4())
    first = town.request("clinic", name)
    assert town.request("clinic", name).json()["sigma"] == first.json()["sigma"]
    assert town.request("clinic", name, retention_days=31).status_code == 409
    assert town.request("gym", name).status_code == 409
    assert town.request("stranger").status_code == 403
    for wrong, field in (
        ({"valid_to": iso(datetime.now(UTC) + 4 * YEAR)}, "valid_to"),
        ({"valid_to": iso(DAY)}, "valid_to"),
        ({"event_to": iso(DAY)}, "event_to"),
        ({"purpose": "dpv:Purpose"}, "purpose"),
        ({"category": "pd:Nothing"}, "category"),
        ({"persons": ["ai"]}, "persons"),
        ({"notice_ja": ""}, "notice_ja"),
        ({"sector": "nowhere"}, "sector"),
    ):
        answer = town.request("clinic", **wrong)
        assert answer.status_code == 422, field
        assert answer.json()["errors"][0]["name"] == field
    elsewhere = str(uuid4())
    assert town.request("clinic", elsewhere, sector="ports").status_code == 200
    assert elsewhere not in str(town.own("ai", "requests")), "of those whom no such Thing describes"
    assert town.answer("ai", elsewhere, "yes").status_code == 404
    path = f"/v1/requests/{name}"
    assert town.send("DELETE", path, Role.RECIPIENT, "gym").status_code == 404
    assert town.send("DELETE", path, Role.RECIPIENT, "clinic").status_code == 200
    assert town.send("DELETE", path, Role.RECIPIENT, "clinic").status_code == 200
    assert town.answer("ai", name, "yes").status_code == 404
    assert town.own("ai", "decisions") == {"decisions": [], "more": 0}


def test_who_was_not_approved_by_the_ethics_review_does_not_ask(town: Manager) -> None:
    """And what was asked is asked and granted no more once the approval has lapsed."""
    assert town.request("clinic", purpose="dpv:LegalCompliance").status_code == 403
    assert town.request("clinic").status_code == 200
    assert len(town.own("ai", "decisions")["decisions"]) == 1
    assert town.prefer("ai", **ALLOW).status_code == 200
    town.settle()
    assert town.seen() == [0.0]
    # It becomes an insurer: the board did not look at that, nor did Ai speak of insurers.
    changed = Bank(town).register("clinic", kind="chimata:Insurer", purposes=[*ROOTS])
    assert changed.status_code == 200
    assert town.seen() == []
    assert town.own("ken", "decisions")["decisions"] == []
    assert town.request("clinic").status_code == 403
    assert town.prefer("ai", verdict="allow", kinds=["chimata:Insurer"]).status_code == 200
    town.settle()
    assert town.seen() == []


def test_presets_are_chosen_by_name_and_said_in_words(town: Manager) -> None:
    presets = town.served.get("/v1/consent/presets").json()["presets"]
    assert presets[0]["name"] == town.own("ai", "preferences")["preset"]
    for each in presets:
        assert all(each[part][lang] for part in ("title", "meaning") for lang in LANGUAGES)
    path, shared = "/v1/me/preset", {"preset": "care-and-public-benefit"}
    own = str(uuid4())
    assert town.prefer("ai", own, verdict="ask", purposes=["dpv:Advertising"]).status_code == 200
    chosen = town.send("PUT", path, Role.CITIZEN, "ai", shared)
    assert chosen.status_code == 200
    assert (
        town.send("PUT", path, Role.CITIZEN, "ai", shared).json()["sigma"] == chosen.json()["sigma"]
    )
    stated = town.own("ai", "preferences")
    assert (stated["preset"], len(stated["preferences"])) == ("care-and-public-benefit", 4)
    assert stated["preferences"][0]["id"] == own
    part = stated["preferences"][1]["id"]
    assert town.prefer("ai", part, **ALLOW).status_code == 409
    assert town.send("DELETE", f"/v1/me/preferences/{part}", Role.CITIZEN, "ai").status_code == 404
    assert town.prefer("ken", own, **ALLOW).status_code == 409
    assert town.request("clinic").status_code == 200
    town.settle()
    assert town.seen() == [0.0]
    for preset, left in (("nothing", 2), ("ask-me", 1)):
        town.send("PUT", path, Role.CITIZEN, "ai", {"preset": preset})
        assert town.seen() == []
        assert len(town.own("ai", "preferences")["preferences"]) == left
    wrong = town.send("PUT", path, Role.CITIZEN, "ai", {"preset": "everything"})
    assert wrong.status_code == 422


def test_what_a_statement_says_wrongly_is_named(town: Manager) -> None:
    for wrong, field in (
        ({"verdict": "maybe"}, "verdict"),
        ({"categories": ["pd:Nothing"]}, "categories"),
        ({"kinds": ["dpv:Organisation"]}, "kinds"),
        ({"purposes": []}, "purposes"),
        ({"verdict": "refuse", "resolution": "hour"}, "verdict"),
        ({"otherwise": "allow"}, "otherwise"),
        ({"min_k": 5}, "min_k"),
    ):
        answer = town.prefer("ai", **{"verdict": "allow", **wrong})
        assert answer.status_code == 422, field
        assert answer.json()["errors"][0]["name"].startswith(field), answer.text


def test_matching_is_bounded_exact_and_done_once(
    town: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few persons a turn, fewer grants, several processes: each person has one grant, and the
    recipient is told of tens."""
    monkeypatch.setattr(matcher, "PERSONS", 3)
    monkeypatch.setattr(matcher, "GRANTS", 2)
    people = [f"person-{n}" for n in range(11)]
    for person in people:
        assert town.bind(f"band-{person}", [person], (DAY, None))
        town.store(Row((f"band-{person}", "heart-rate"), DAY, 7.0))
        town.send(
            "PUT", "/v1/me/preset", Role.CITIZEN, person, {"preset": "care-and-public-benefit"}
        )
    assert town.request("clinic").status_code == 200
    gate = town.served.app.state.gate
    while gate.match_requests():
        pass
    town.settle()
    assert town.seen() == [7.0] * 11
    grants = "SELECT count(*), count(DISTINCT subject) FROM consent.granted"
    assert town.connection.execute(grants).fetchone() == (11, 11)

    def told() -> int:
        answer = town.send("GET", "/v1/requests", Role.RECIPIENT, "clinic").json()
        return int(answer["requests"][0]["granted"])

    assert told() == 10
    for person in people[:2]:
        town.send("PUT", "/v1/me/preset", Role.CITIZEN, person, {"preset": "nothing"})
    assert town.seen() == [7.0] * 9
    assert told() == 0
    for n in range(5):  # and one person with many requests
        assert town.request("clinic", retention_days=n + 1).status_code == 200
    town.settle()
    (count,) = town.connection.execute(
        "SELECT count(*) FROM consent.granted WHERE subject = %s", (town.number(people[3]),)
    ).fetchone() or (0,)
    assert count == 6


def test_matching_goes_on_however_long_the_log_is(town: Manager) -> None:
    """A place in the log of 30,000 is sent as an int2, and what is added to it must not be one."""
    assert town.bind("band-anne", ["anne"], (DAY, None))
    town.store(Row(("band-anne", "heart-rate"), DAY, 7.0))
    town.settle()
    for table in ("clock", "matching"):
        town.connection.execute(f"UPDATE consent.{table} SET sigma = 30000")
    town.send("PUT", "/v1/me/preset", Role.CITIZEN, "anne", {"preset": "care-and-public-benefit"})
    assert town.request("clinic").status_code == 200
    town.settle()
    assert town.seen() == [7.0]


@pytest.mark.parametrize(
    ("role", "method", "path"),
    [
        (Role.RECIPIENT, "GET", "/v1/me/decisions"),
        (Role.CITIZEN, "GET", "/v1/requests"),
        (Role.BANK, "GET", "/v1/me/preferences"),
        (Role.CITIZEN, "DELETE", f"/v1/requests/{NOBODYS}"),
        (Role.RECIPIENT, "DELETE", f"/v1/delegate/grants/{NOBODYS}?person=ai"),
        (Role.BANK, "DELETE", f"/v1/me/mandates/{NOBODYS}"),
        (Role.BANK, "DELETE", "/v1/delegates/minato"),
    ],
)
def test_each_needs_its_scope(town: Manager, role: Role, method: str, path: str) -> None:
    assert town.send(method, path, role, "x").status_code == 403
    anonymous = town.served.client.request(method, town.served.url + path)
    assert anonymous.status_code == 401
