"""A town whose people may be counted, and its office of open data, which releases tables."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx

import domains
from consent.releases import STEPS
from core.tokens import Role
from tests.api.town import DAY, Town, iso
from tests.consent.oracle import Row

OFFICE, PURPOSE = "open-data-office", "dpv:AcademicResearch"
HOUR = timedelta(hours=1)
SAID = {
    "items": {"ja": "時間帯、区分、人数", "en": "Hour, band, persons"},
    "method": {"ja": "インターネットで公開", "en": "Open on the Internet"},
}
TERMS: dict[str, Any] = {
    "title": {"ja": "心拍数", "en": "Heart rate"},
    "sector": "health",
    "property": "heart-rate",
    "recipient": OFFICE,
    "purpose": PURPOSE,
    "event_from": iso(DAY),
    "event_to": iso(DAY + 3 * HOUR),
    "resolution": "hour",
    "bands": [60, 80],
}


class Fair(Town):
    """A town whose people may be counted."""

    def person(self, name: str, **terms: Any) -> None:
        """Someone with a band of a declared unit, who may be counted."""
        self.device(f"band-{name}", name)
        self.allow(name, **terms)

    def device(
        self, thing: str, *persons: str, prop: str = "heart-rate", unit: str = "/min"
    ) -> None:
        made = self.city.thing("health", thing)
        kind = domains.sector("health").by_name[prop].kind.value
        self.city.datastream(made, prop, kind, unit, "personal")
        assert self.bind(thing, list(persons), (DAY, None))

    def allow(self, person: str, grant: str | None = None, **terms: Any) -> str:
        name = grant or str(uuid4())
        wanted = {"recipient": OFFICE, "purpose": PURPOSE, "operation": "anonymise", **terms}
        answer = self.grant(person, name, **wanted)
        assert answer.status_code == 200, answer.text
        return name

    def beat(self, person: str, hour: float, value: float) -> None:
        self.store(Row((f"band-{person}", "heart-rate"), DAY + hour * HOUR, value))

    def people(self, count: int, value: float = 70.0, hours: int = 1, begin: int = 0) -> list[str]:
        """So many who have such a heart rate at each hour."""
        names = [f"p{begin + n}" for n in range(count)]
        for name in names:
            self.person(name)
            for hour in range(hours):
                self.beat(name, hour + 0.5, value)
        return names

    def operate(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return self.send(method, path, Role.OPERATOR, "office", body)

    def prepare(self, **terms: Any) -> str:
        """A draft whose evidence is complete."""
        release = str(uuid4())
        answer = self.operate("PUT", f"/v1/releases/{release}", {**TERMS, **terms})
        assert answer.status_code == 200, answer.text
        for step in STEPS:
            path = f"/v1/releases/{release}/evidence/{step}"
            assert self.operate("PUT", path, {"method": f"How {step}."}).status_code == 200
        return release

    def publish(self, release: str) -> httpx.Response:
        return self.operate("PUT", f"/v1/releases/{release}/publication", SAID)

    def table(self, release: str) -> dict[tuple[int, str | None], tuple[int, float | None]]:
        """(hour, cell) -> (persons, mean), page by page, as anyone."""
        found, path = {}, f"/v1/releases/{release}/cells?limit=3"
        while path:
            answer = self.served.get(path)
            assert answer.status_code == 200, answer.text
            assert answer.headers["chimata-data-class"] == "anonymised"
            body = answer.json()
            for cell in body["cells"]:
                hour = (datetime.fromisoformat(cell["time"]) - DAY) // HOUR
                found[hour, cell["cell"]] = (cell["persons"], cell["mean"])
            path = body["next"]
        return found

    def released(self, **terms: Any) -> dict[tuple[int, str | None], tuple[int, float | None]]:
        release = self.prepare(**terms)
        answer = self.publish(release)
        assert answer.status_code == 200, answer.text
        return self.table(release)
