"""Records of deliveries (Art. 29 and 30 of the Act on the Protection of Personal Information).

A person sees what went to whom, when and why; a recipient keeps the same records as its own.
"""

from typing import Any

from consent.log import NEWEST, Place, Session, rows
from consent.results import Row
from core.tokens import Principal

# ruff: noqa: S608 - the parts are constants of this module

_RECORDS = """
SELECT p.id, d.id AS disclosure, d.at, d.recipient, r.title_ja, r.title_en, d.purpose, d.category,
       p.sector, t.key AS thing, s.property, p.subjects, p.rows, p.time_min, p.time_max, p.grants,
       d.override
FROM audit.provision p JOIN audit.decision d ON d.id = p.decision
JOIN consent.recipient r ON r.key = d.recipient
JOIN datastream s ON s.id = p.datastream_id JOIN thing t ON t.id = s.thing_id
WHERE (d.at, p.id) < (%(at)s::timestamptz, %(id)s::uuid)"""
_NEWEST_FIRST = "ORDER BY d.at DESC, p.id DESC LIMIT %(limit)s"
SELECT_OF_PERSON = f"""{_RECORDS}
  AND p.subjects @> ARRAY(SELECT id FROM consent.subject WHERE key = %(person)s)
  AND EXISTS (SELECT FROM consent.subject WHERE key = %(person)s)
{_NEWEST_FIRST}"""
SELECT_OF_RECIPIENT = f"""{_RECORDS} AND d.recipient = %(recipient)s
{_NEWEST_FIRST}"""


def select_of_person(
    connection: Session, principal: Principal, before: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` records that name the person, the newest first."""
    return rows(connection, SELECT_OF_PERSON, person=principal.subject, **_page(before, limit))


def select_of_recipient(
    connection: Session, principal: Principal, before: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` records of what a recipient got, the newest first; persons by number."""
    return rows(connection, SELECT_OF_RECIPIENT, recipient=principal.name, **_page(before, limit))


def _page(before: Place | None, limit: int) -> dict[str, Any]:
    at, number = before or NEWEST
    return {"at": at, "id": number, "limit": limit}
