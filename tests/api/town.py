"""A served city with one personal sector, and what people, recipients and operators do there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from shapely.geometry import Point

from core.live import announce
from core.storage.pool import is_native
from core.tokens import Role, issue, load_keys
from tests.api.city import NEXT_APPEND, City
from tests.api.conftest import Served
from tests.consent.oracle import EVER, Row

DAY = datetime(2026, 3, 1, tzinfo=UTC) - timedelta(hours=9)
"""Midnight in Japan, long ago."""
NOTICE = "00" * 32
PATH = "/v1/health/personal/observations"


SELECT_STREAM = """
SELECT d.id FROM datastream d JOIN thing t ON t.id = d.thing_id
WHERE t.sector = 'health' AND t.key = %s AND d.property = %s
"""
COLUMNS = {
    "observation": ("result",),
    "observation_position": ("longitude", "latitude", "speed", "course"),
    "observation_document": ("result",),
}


class Town:
    """A served city with one personal sector, and what its people can do there."""

    def __init__(self, served: Served, connection: psycopg.Connection[Any]) -> None:
        self.served = served
        self.connection = connection
        self.city = City(connection)
        self.keys = load_keys(served.data / "keys")
        self.override = UUID(int=0)
        """Of which emergency responders' tokens are."""

    def headers(self, role: Role, subject: str) -> dict[str, str]:
        """A token of someone."""
        token = issue(
            self.keys, role, gateway="g", subject=subject, override=self.override,
            lifetime_seconds=600,
        )  # fmt: skip
        return {"Authorization": f"Bearer {token}"}

    def send(
        self, method: str, path: str, role: Role, subject: str, body: Any = None
    ) -> httpx.Response:
        return self.served.client.request(
            method, self.served.url + path, headers=self.headers(role, subject), json=body
        )

    def register(self, recipient: str, country: str = "JP") -> httpx.Response:
        body = {"title_ja": recipient, "title_en": recipient, "country": country}
        return self.send("PUT", f"/v1/recipients/{recipient}", Role.OPERATOR, "office", body)

    def bind(
        self,
        thing: str,
        persons: list[str],
        window: tuple[datetime, datetime | None],
        sector: str = "health",
    ) -> str:
        binding = str(uuid4())
        body = {"persons": persons, "event_from": iso(window[0]), "event_to": iso(window[1])}
        path = f"/v1/consent/bindings/{sector}/{thing}/{binding}"
        answer = self.send("PUT", path, Role.OPERATOR, "office", body)
        return binding if answer.status_code == 200 else ""

    def guard(self, ward: str, guardian: str, name: str | None = None, **said: Any) -> str:
        """A parent of a child of ten, unless told otherwise."""
        name = name or str(uuid4())
        born = datetime.now(UTC).date() - timedelta(days=3653)
        body = {"ward": ward, "guardian": guardian, "kind": "parent", "born": str(born), **said}
        path = f"/v1/consent/guardianships/{name}"
        answer = self.send("PUT", path, Role.OPERATOR, "office", body)
        assert answer.status_code == 200, answer.text
        return name

    def file(self, country: str, recipient: str | None = None, **said: Any) -> httpx.Response:
        """A file on a country, or on a recipient there; checked now and for a day."""
        now = datetime.now(UTC)
        body = {
            "text_ja": "制度の概要", "text_en": "The regime in brief", "source": "a survey",
            "checked_at": iso(now - timedelta(hours=1)), "check_by": iso(now + timedelta(days=1)),
            **said,
        }  # fmt: skip
        path = f"/v1/consent/countries/{country}" + (
            f"/recipients/{recipient}" if recipient else ""
        )
        return self.send("PUT", path, Role.OPERATOR, "office", body)

    def check(self, country: str, recipient: str | None = None, **said: Any) -> httpx.Response:
        """A check of such a file, made now and good for a day."""
        now = datetime.now(UTC)
        body = {
            "passed": True, "note": "looked at it", "checked_at": iso(now),
            "check_by": iso(now + timedelta(days=1)), **said,
        }  # fmt: skip
        path = f"/v1/consent/countries/{country}" + (
            f"/recipients/{recipient}" if recipient else ""
        )
        return self.send("PUT", f"{path}/checks/{uuid4()}", Role.OPERATOR, "office", body)

    def propose(self, recipient: str, by: str = "hana", **said: Any) -> httpx.Response:
        """Ask for an override; responders' tokens are of it from now on."""
        self.override = uuid4()
        body = {
            "recipient": recipient, "purpose": "infra:CriticalEmergencyResponseManagement",
            "category": "pd:MedicalHealth", "sector": "health", "reason": "A landslide.",
            "authority": "Fire brigade, 2026-118", "hardship": "They cannot be reached.",
            "hours": 1, **said,
        }  # fmt: skip
        path = f"/v1/consent/overrides/{self.override}"
        return self.send("PUT", path, Role.OPERATOR, by, body)

    def approve(self, by: str = "goro") -> httpx.Response:
        path = f"/v1/consent/overrides/{self.override}/approval"
        return self.send("PUT", path, Role.OPERATOR, by)

    def end_override(self) -> httpx.Response:
        path = f"/v1/consent/overrides/{self.override}"
        return self.send("DELETE", path, Role.OPERATOR, "goro")

    def grant(
        self, person: str, name: str | None = None, by: str | None = None, **terms: Any
    ) -> httpx.Response:
        """A grant of a person, given by itself or by its guardian."""
        body = {
            "recipient": "clinic",
            "purpose": "dpv:ServiceManagement",
            "category": "pd:MedicalHealth",
            "event_from": iso(EVER[0]),
            "valid_from": iso(EVER[0]),
            "valid_to": iso(EVER[1]),
            "notice": NOTICE,
            **terms,
        }
        path = f"/v1/consent/grants/{name or uuid4()}{behalf(person, by)}"
        return self.send("PUT", path, Role.CITIZEN, by or person, body)

    def revoke(self, person: str, name: str, by: str | None = None) -> httpx.Response:
        path = f"/v1/consent/grants/{name}{behalf(person, by)}"
        return self.send("DELETE", path, Role.CITIZEN, by or person)

    def object(
        self, person: str, recipient: str | None = None, purpose: str | None = None,
        by: str | None = None,
    ) -> httpx.Response:  # fmt: skip
        path = f"/v1/consent/objections/{uuid4()}{behalf(person, by)}"
        body = {"recipient": recipient, "purpose": purpose}
        return self.send("PUT", path, Role.CITIZEN, by or person, body)

    def store(self, row: Row) -> None:
        """A number, as the ingestor stores it."""
        self.insert(row.stream, "number", "observation", row.time, row.value)

    def come(self, *rows: Row) -> int:
        """Numbers, as one append of the ingestor, with its notice; the append's number."""
        with self.connection.transaction():
            append = self.city.one(NEXT_APPEND, "health")
            for row in rows:
                self.insert(row.stream, "number", "observation", row.time, row.value, append=append)
            times = [row.time for row in rows]
            self.connection.execute(
                "INSERT INTO append (sector, id, rows, time_min, time_max) "
                "VALUES ('health', %s, %s, %s, %s)",
                (append, len(rows), min(times), max(times)),
            )
            announce(self.connection, "health", append, len(rows))
        return append

    def insert(
        self,
        stream: tuple[str, str],
        kind: str,
        table: str,
        time: datetime,
        *result: Any,
        append: int = 1,
    ) -> None:
        """Any result, by the columns that its table has between the time and the append."""
        found = self.connection.execute(SELECT_STREAM, stream).fetchone()
        if found is None:
            thing = self.city.thing("health", stream[0])
            made = self.city.datastream(thing, stream[1], kind, data_class="personal")
        else:
            made = found[0]
        if is_native(self.connection):
            self.connection.execute("SELECT ensure_partition(%s)", (time,))
        names = ("phenomenon_time", *COLUMNS[table], "append_id", "datastream_id", "quality")
        into = f"INSERT INTO personal.{table} ({', '.join(names)}) VALUES"
        values = ", ".join(["%s"] * len(names))
        self.connection.execute(f"{into} ({values})".encode(), (time, *result, append, made, 0))

    def see(self, thing: str, time: datetime, place: Point) -> None:
        """A Thing's own position."""
        self.insert(
            (thing, "position"), "position", "observation_position", time, place.x, place.y, None,
            None,
        )  # fmt: skip

    def stand(self, thing: str, place: Point | None) -> None:
        """Where a Thing is that does not move."""
        at = (None, None) if place is None else (place.x, place.y)
        update = "UPDATE thing SET longitude = %s, latitude = %s WHERE key = %s"
        self.connection.execute(update, (*at, thing))

    def number(self, person: str) -> int:
        """Whom the platform knows a person as."""
        return self.city.one("SELECT id FROM consent.subject WHERE key = %s", person)

    def ask(
        self, recipient: str, limit: int = 50, path: str = PATH, **query: str
    ) -> list[dict[str, Any]]:
        """Every page of an answer; CityErrors fail."""
        path = f"{path}?" + str(
            httpx.QueryParams(
                {"purpose": "dpv:ServiceManagement", "category": "pd:MedicalHealth",
                 "limit": str(limit), **query}
            )
        )  # fmt: skip
        rows: list[dict[str, Any]] = []
        while path:
            answer = self.send("GET", path, Role.RECIPIENT, recipient)
            assert answer.status_code == 200, answer.text
            assert answer.headers["cache-control"] == "no-store"
            assert "etag" not in answer.headers
            page = answer.json()
            assert len(page["observations"]) <= limit
            rows += page["observations"]
            path = page["next"]
            assert not path or page["observations"], "a page is filled after filtering"
        return rows


def behalf(person: str, by: str | None) -> str:
    """What is added to an address to act for a person."""
    return f"?{httpx.QueryParams({'subject': person})}" if by else ""


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
