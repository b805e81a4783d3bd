"""What was delivered of a person: to whom, when, for which purpose, of which data and times."""

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

from consent.results import Row
from core.tokens import Principal

Place = tuple[datetime, UUID]
"""Where a list goes on: the time and the id of its last record."""

SELECT_OF_PERSON = """
SELECT p.id, d.id AS disclosure, d.at, d.recipient, r.title_ja, r.title_en, d.purpose, d.category,
       p.sector, t.key AS thing, s.property, p.rows, p.time_min, p.time_max, p.grants
FROM audit.provision p JOIN audit.decision d ON d.id = p.decision
JOIN consent.recipient r ON r.key = d.recipient
JOIN datastream s ON s.id = p.datastream_id JOIN thing t ON t.id = s.thing_id
WHERE p.subjects @> ARRAY(SELECT id FROM consent.subject WHERE key = %(person)s)
  AND EXISTS (SELECT FROM consent.subject WHERE key = %(person)s)
  AND (d.at, p.id) < (%(at)s::timestamptz, %(id)s::uuid)
ORDER BY d.at DESC, p.id DESC LIMIT %(limit)s
"""
NEWEST = ("infinity", UUID(int=2**128 - 1))


def select_of_person(
    connection: Connection[tuple[Any, ...]], principal: Principal, before: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` provision records that name the person, the newest first."""
    at, number = before or NEWEST
    scope = {"person": principal.subject, "at": at, "id": number, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SELECT_OF_PERSON.encode(), scope).fetchall()
