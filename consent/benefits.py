"""The benefit ledger: what recipients gave persons for their data; appended to, never changed."""

from dataclasses import asdict, dataclass
from datetime import date
from decimal import Decimal
from typing import Literal
from uuid import UUID

from consent.log import NEWEST, Place, Session, Written, explained, one, row, rows, unchanged
from consent.results import Row
from core.errors import CityError
from core.tokens import Principal

Kind = Literal["money", "points", "discount", "service", "information"]

SELECT_RECIPIENT = "SELECT id FROM consent.recipient WHERE key = %(key)s"
SELECT_SUBJECT_OF_GRANT = """
SELECT subject FROM consent.granted WHERE grant_id = %(grant)s AND recipient = %(recipient)s LIMIT 1
"""
SELECT_BENEFIT = """
SELECT recipient, subject, grant_id, request, kind, amount, unit, text, day
FROM consent.benefit WHERE id = %(id)s
"""
INSERT_BENEFIT = """
INSERT INTO consent.benefit (id, actor, recipient, subject, grant_id, request, kind, amount, unit,
                             text, day)
VALUES (%(id)s, %(actor)s, %(recipient)s, %(subject)s, %(grant_id)s, %(request)s, %(kind)s,
        %(amount)s, %(unit)s, %(text)s, %(day)s)
"""
SELECT_OF_PERSON = """
SELECT b.id, b.at, r.key AS recipient, r.title_ja, r.title_en, b.grant_id, b.request, b.kind,
       b.amount, b.unit, b.text, b.day
FROM consent.benefit b JOIN consent.recipient r ON r.id = b.recipient
WHERE b.subject = (SELECT id FROM consent.subject WHERE key = %(person)s)
  AND (b.at, b.id) < (%(at)s::timestamptz, %(id)s::uuid)
ORDER BY b.at DESC, b.id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Benefit:
    """Something of value: an amount of a unit, or what the text says."""

    kind: Kind
    text: str
    day: date
    amount: Decimal | None = None
    unit: str | None = None
    grant_id: UUID | None = None
    request: UUID | None = None


def put(
    connection: Session,
    principal: Principal,
    name: UUID,
    recipient: str,
    subject: int | None,
    benefit: Benefit,
) -> Written:
    """Enter what a recipient gave: to a person (`subject`), or to who gave the grant it names."""
    giver = one(connection, SELECT_RECIPIENT, key=recipient, field="recipient")
    if subject is None:
        subject = one(
            connection,
            SELECT_SUBJECT_OF_GRANT,
            grant=benefit.grant_id,
            recipient=giver,
            field="grant",
        )
    said = {"recipient": giver, "subject": subject, **asdict(benefit)}
    before = row(connection, SELECT_BENEFIT, id=name)
    if before is not None:
        if before != said:
            raise CityError("conflict", "another benefit has this id")
        return unchanged(connection)
    with explained("benefit"):
        connection.execute(INSERT_BENEFIT, {**said, "id": name, "actor": principal.name})
    return unchanged(connection)


def select_of_person(
    connection: Session, principal: Principal, before: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` benefits of the person, the newest first."""
    at, number = before or NEWEST
    scope = {"person": principal.subject, "at": at, "id": number, "limit": limit}
    return rows(connection, SELECT_OF_PERSON, **scope)
