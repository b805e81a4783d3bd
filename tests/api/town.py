"""A served city with one personal sector, and what people, recipients and operators do there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg

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

    def headers(self, role: Role, subject: str) -> dict[str, str]:
        """A token of someone."""
        token = issue(self.keys, role, gateway="g", subject=subject, lifetime_seconds=600)
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

    def grant(self, person: str, name: str | None = None, **terms: Any) -> httpx.Response:
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
        path = f"/v1/consent/grants/{name or uuid4()}"
        return self.send("PUT", path, Role.CITIZEN, person, body)

    def revoke(self, person: str, name: str) -> httpx.Response:
        return self.send("DELETE", f"/v1/consent/grants/{name}", Role.CITIZEN, person)

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


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
