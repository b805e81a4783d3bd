"""The record of a grant, read for the person who gave it or for the recipient that has it."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from consent.log import SELECT_NOW, Session, one, rows
from consent.masks import Mask
from consent.records import Controller, Reader, receipt_of, record_of
from consent.vocabulary import PURPOSES
from core.errors import CityError
from core.tokens import Principal, Role

FORMS_MAX = 10_000
OWN = "/own"
"""Whose names a person's own documents have: no recipient's key is this."""

SELECT_FORMS = """
SELECT g.subject, r.key AS recipient, r.title_ja, r.title_en, r.country, g.purpose, g.category,
       g.operation, g.level, g.countries, g.given, encode(g.notice, 'hex') AS notice,
       p.body AS profile, ARRAY(SELECT encode(each, 'hex') FROM unnest(g.areas) AS each) AS areas,
       CASE WHEN %(is_person)s THEN ARRAY(
         SELECT json_build_object('id', encode(a.id, 'hex'), 'salt', encode(a.salt, 'hex'),
                                  'said', a.said)
         FROM consent.area a WHERE a.id = ANY(g.areas) ORDER BY array_position(g.areas, a.id))
       END AS places,
       lower(g.event) AS event_from, upper(g.event) AS event_to,
       lower(g.valid) AS valid_from, upper(g.valid) AS valid_to,
       b.at AS began_at, b.act AS began_by, b.actor_kind AS began_kind,
       e.at AS ended_at, e.act AS ended_by, e.actor_kind AS ended_kind
FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
LEFT JOIN consent.recipient_profile p ON p.recipient = r.id
JOIN consent.log b ON b.sigma = g.sigma LEFT JOIN consent.log e ON e.sigma = g.ended
WHERE g.grant_id = %(grant)s AND CASE WHEN %(is_person)s
  THEN g.subject = (SELECT id FROM consent.subject WHERE key = %(name)s) ELSE r.key = %(name)s END
ORDER BY g.sigma LIMIT %(limit)s
"""
SELECT_OBJECTIONS = """
SELECT l.at FROM consent.objected o JOIN consent.log l ON l.sigma = o.sigma
LEFT JOIN consent.recipient r ON r.id = o.recipient
WHERE o.subject = %(subject)s AND o.sigma > %(given)s
  AND (o.recipient IS NULL OR r.key = %(recipient)s)
  AND (o.purpose IS NULL OR o.purpose = ANY(%(above)s))
ORDER BY o.sigma LIMIT %(limit)s
"""


def record(
    connection: Session,
    principal: Principal,
    grant: UUID,
    secret: bytes,
    controller: Controller,
    *,
    as_receipt: bool,
) -> dict[str, Any]:
    """The document, still unsigned; CityError `not-found` for a grant that is not the caller's."""
    is_person = principal.role is Role.CITIZEN
    name = principal.subject if is_person else principal.name
    forms = rows(
        connection, SELECT_FORMS, grant=grant, is_person=is_person, name=name, limit=FORMS_MAX
    )
    if not forms:
        raise CityError("not-found", f"there is no grant {grant} of yours")
    last = forms[-1]
    person = Mask(secret, OWN if is_person else principal.name).person(last["subject"])
    reader = Reader(person, _name(person, principal, is_person=is_person), is_person)
    found = rows(
        connection, SELECT_OBJECTIONS, subject=last["subject"], given=last["given"],
        recipient=last["recipient"], above=list(PURPOSES.above(last["purpose"])), limit=FORMS_MAX,
    )  # fmt: skip
    now: datetime = one(connection, SELECT_NOW)
    objections = [row["at"] for row in found]
    made = record_of(grant, forms, objections, reader, controller, now)
    return receipt_of(uuid4(), made, reader.name, now) if as_receipt else made


def _name(person: str, principal: Principal, *, is_person: bool) -> str:
    return f"urn:chimata:subject:{person}" if is_person else f"urn:chimata:party:{principal.name}"
