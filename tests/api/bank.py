"""What the operator, the ethics board and recipients of an information bank do, for tests."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
from psycopg.types.json import Jsonb

from consent.vocabulary import VERSION
from core.tokens import Role
from tests.api.town import DAY, NOTICE, Town, iso
from tests.consent.oracle import EVER

BOTH = {"ja": "日本語", "en": "English"}
PROFILE: dict[str, Any] = {
    "kind": "dpv:HealthcareOrganisation",
    "identifier": {"scheme": "houjin-bangou", "value": "7123456789012"},
    "representative": "院長 港 みなと",
    "contact": "privacy@clinic.example",
    "purposes": ["dpv:ServiceManagement"],
    "retention_days": 90,
    "security": {
        "certificates": [{"scheme": "isms", "number": "IS 1", "until": "2027-03-31"}],
        "measures": BOTH,
    },
    "benefit": BOTH,
}
CHARTER: dict[str, Any] = {
    "name": BOTH,
    "representative": "代表",
    "address": "横浜市",
    "desk": {"hours": BOTH, "address": "横浜市", "telephone": "045-000-0000"},
    "terms": {"version": "1", "url": "https://bank.example/terms", "sha256": "00" * 32},
    "criteria": BOTH,
    "after_withdrawal": BOTH,
    "portability": BOTH,
    "liability": {"rules": BOTH},
}
BOARD = {"mori": ("consumer", True), "sato": ("law", False), "ueda": ("security", False)}
"""Who sits on it: for what, and whether from outside."""

SELECT_MAY_ASK = """
SELECT consent.is_reviewed((SELECT id FROM consent.recipient WHERE key = %s), %s, %s)
"""


class Bank:
    """An information bank in a served city."""

    def __init__(self, town: Town) -> None:
        self.town = town

    def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.town.send(method, path, Role.OPERATOR, "office", body)

    def register(self, recipient: str, country: str = "JP", **profile: Any) -> httpx.Response:
        """With a full profile, of which something may be other."""
        body = {"title_ja": recipient, "title_en": recipient, "country": country,
                "profile": PROFILE | profile}  # fmt: skip
        return self.operate("PUT", f"/v1/recipients/{recipient}", body)

    def seat(self, member: str, field: str, outside: bool) -> httpx.Response:
        body = {"name_ja": member, "name_en": member, "field": field, "outside": outside}
        return self.operate("PUT", f"/v1/bank/board/{member}", body)

    def seat_all(self) -> None:
        for member, (field, outside) in BOARD.items():
            assert self.seat(member, field, outside).status_code == 200

    def put_review(self, name: str, recipient: str, **question: Any) -> httpx.Response:
        body = {
            "recipient": recipient,
            "purposes": ["dpv:ServiceManagement"],
            "categories": ["pd:MedicalHealth"],
            "until": iso(datetime.now(UTC) + timedelta(days=30)),
            "material": "00" * 32,
            **question,
        }
        return self.operate("PUT", f"/v1/bank/reviews/{name}", body)

    def ask(self, recipient: str, **question: Any) -> str:
        """Put a question to the board; its name."""
        name = str(uuid4())
        answer = self.put_review(name, recipient, **question)
        assert answer.status_code == 200, answer.text
        return name

    def vote(self, review: str, member: str, vote: str, **said: Any) -> httpx.Response:
        body = {"vote": vote, "reason": "理由", **said}
        return self.town.send("PUT", f"/v1/bank/reviews/{review}/vote", Role.BOARD, member, body)

    def decide(self, review: str) -> httpx.Response:
        path = f"/v1/bank/reviews/{review}/decision"
        return self.town.send("PUT", path, Role.BOARD, "mori")

    def state(self, review: str) -> str:
        found = self.operate("GET", f"/v1/bank/reviews/{review}").json()
        return str(found["state"])

    def approve(self, recipient: str, **question: Any) -> str:
        """A seated board lets a registered recipient ask; the review."""
        self.seat_all()
        review = self.ask(recipient, **question)
        for member in BOARD:
            assert self.vote(review, member, "approve").status_code == 200
        assert self.decide(review).status_code == 200
        assert self.state(review) == "approved"
        return review

    def may_ask(
        self, recipient: str, purpose: str = "dpv:ServiceManagement", category: str = "pd:Health"
    ) -> bool:
        """What requests and delegates are held to."""
        return bool(self.town.city.one(SELECT_MAY_ASK, recipient, purpose, category))

    def request(self, recipient: str, name: str) -> httpx.Response:
        """What a recipient asks of everyone."""
        body = {
            "purpose": "dpv:ServiceManagement",
            "category": "pd:MedicalHealth",
            "event_from": iso(DAY),
            "valid_to": iso(datetime.now(UTC) + timedelta(days=30)),
            "notice_ja": "心拍を使います。",
            "notice_en": "We use the heart rate.",
            "benefit_ja": "よりよい診療",
            "benefit_en": "Better care",
            "retention_days": 30,
        }
        return self.town.send("PUT", f"/v1/requests/{name}", Role.RECIPIENT, recipient, body)

    def state_allowed(self, person: str) -> None:
        """A person allows hospitals what recipients here ask for."""
        body = {"verdict": "allow", "purposes": ["dpv:ServiceManagement"],
                "categories": ["pd:MedicalHealth"], "kinds": [PROFILE["kind"]]}  # fmt: skip
        path = f"/v1/me/preferences/{uuid4()}"
        assert self.town.send("PUT", path, Role.CITIZEN, person, body).status_code == 200

    def delegated(self, person: str, recipient: str) -> str:
        """A grant that a delegate gives within a mandate and what the person states; its id."""
        number = self.town.city.one("SELECT id FROM consent.recipient WHERE key = %s", recipient)
        terms = {"purposes": ["dpv:ServiceManagement"], "categories": ["pd:MedicalHealth"],
                 "kinds": None, "operations": None, "countries": None}  # fmt: skip
        name, mandate = str(uuid4()), str(uuid4())
        forever, for_now = f"[{iso(EVER[0])},)", f"[{iso(EVER[0])},{iso(EVER[1])})"
        self.act("REGISTER_DELEGATE", None, {"key": "bank", "title_ja": "行", "title_en": "Bank"})
        self.act("DELEGATE", person, {"mandate": mandate, "delegate": "bank", "valid": for_now,
                                      "special": True, "version": VERSION})  # fmt: skip
        self.act("PREFER", person, {"preference": str(uuid4()), "verdict": "allow", "level": 0,
                                    "otherwise": "ask", "version": VERSION, **terms})  # fmt: skip
        self.act(
            "GRANT",
            person,
            {
                "grant": name, "mandate": mandate, "recipient": number, "operation": "read",
                "purpose": "dpv:ServiceManagement", "category": "pd:MedicalHealth", "level": 0,
                "countries": ["JP"], "event": forever, "valid": for_now, "notice": NOTICE,
            },
            "delegate",
        )  # fmt: skip
        return name

    def act(self, act: str, person: str | None, body: dict[str, Any], kind: str = "self") -> None:
        """As the log takes it, whoever may do so by the API."""
        city = self.town.city
        subject = person and city.one("SELECT consent.subject_of(%s)", person)
        city.one(
            "SELECT (consent.write(%s, %s, 'bank', %s, %s)).sigma", act, subject, kind, Jsonb(body)
        )

    def close(self, name: str | None = None, **said: Any) -> httpx.Response:
        body = {
            "ends_at": "2027-09-30T00:00:00+09:00",
            "reason": BOTH,
            "successor": {"name": BOTH, "contact": "045-000-0001"},
            "handed_over": ["許可"],
            "export_plan": BOTH,
            "notice": "00" * 32,
            **said,
        }
        return self.operate("PUT", f"/v1/bank/closing/{name or uuid4()}", body)
