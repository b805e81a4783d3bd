"""What recipients ask of everyone whose data they would read: acts REQUEST and WITHDRAW.

A request names no person. What it became is told to its recipient as counts, rounded down to tens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from consent import log
from consent.levels import NUMBERS
from consent.log import Session, Written
from consent.matching import Asked, Matched
from consent.presets import SPACE
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.errors import CityError, invalid
from core.tokens import Principal

VALID_DAYS_MAX = 1096
OPEN_MAX = 100
"""Of one recipient at a time."""
SHOWN_MAX = 1000
"""So many open requests are looked at for a person: the oldest."""
COUNTED = 10
"""Counts are told in such steps: below the first one nothing, and no single person moves one."""

SELECT_ASKING = """
SELECT id, country FROM consent.recipient WHERE key = %(key)s AND NOT suspended
"""
SELECT_REVIEWED = "SELECT consent.is_reviewed(%(recipient)s, %(purpose)s, %(category)s)"
SELECT_SAID = """
SELECT l.body, l.sigma, r.recipient, r.closed FROM consent.request r
JOIN consent.log l ON l.sigma = r.sigma WHERE r.id = %(id)s
"""
SELECT_OPEN_COUNT = """
SELECT count(*) FROM consent.request
WHERE recipient = %(recipient)s AND closed IS NULL AND valid @> clock_timestamp()
"""
SELECT_ASKED = """
SELECT r.id, r.purpose, r.category, r.operation, r.level, r.countries, r.told, r.retention_days,
       r.sector, encode(r.notice, 'hex') AS notice, lower(r.event) AS event_from,
       upper(r.event) AS event_to, lower(r.valid) AS valid_from, upper(r.valid) AS valid_to,
       r.closed IS NULL AND r.valid @> clock_timestamp() AS open, count(g.*) AS granted
FROM consent.request r JOIN consent.recipient c ON c.id = r.recipient
LEFT JOIN consent.answer a ON a.request = r.id
LEFT JOIN consent.granted g ON g.grant_id = a.grant_id AND g.ended IS NULL
  AND g.valid @> clock_timestamp()
WHERE c.key = %(key)s GROUP BY r.id ORDER BY r.sigma DESC LIMIT %(limit)s
"""
# Each open request with each of some persons whom it is about: those whom any Thing describes, or
# one of its sector. Answered: by a grant, live or not, or by a no.
SELECT_OPEN = """
SELECT s.subject, r.id, r.recipient AS number, r.purpose, r.category, r.operation, r.event, r.valid,
       r.level, r.countries, encode(r.notice, 'hex') AS notice, r.told, r.retention_days,
       c.key AS recipient, c.title_ja, c.title_en, consent.kind_of(r.recipient) AS kind,
       a.request IS NOT NULL AS answered, g.grant_id AS live,
       (SELECT count(*) FROM consent.origin o
        WHERE o.request = r.id AND o.subject = s.subject) AS grants
FROM unnest(%(subjects)s::integer[]) AS s (subject)
CROSS JOIN consent.request r JOIN consent.recipient c ON c.id = r.recipient
LEFT JOIN consent.answer a ON a.request = r.id AND a.subject = s.subject
LEFT JOIN consent.granted g ON g.grant_id = a.grant_id AND g.ended IS NULL
WHERE r.closed IS NULL AND r.valid @> clock_timestamp() AND NOT c.suspended
  AND r.id = coalesce(%(request)s, r.id) AND (a.request IS NULL OR %(answered)s)
  AND consent.is_reviewed(r.recipient, r.purpose, r.category)
  AND EXISTS (SELECT FROM consent.party_member m JOIN consent.binding b ON b.party = m.party
              WHERE m.subject = s.subject AND b.sector = coalesce(r.sector, b.sector))
ORDER BY s.subject, r.sigma LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a recipient asks for, and what it tells the persons. `sector`: of whom; None: of all."""

    purpose: str
    category: str
    operation: Operation
    event_from: datetime
    event_to: datetime | None
    valid_to: datetime
    resolution: str
    notice_ja: str
    notice_en: str
    benefit_ja: str
    benefit_en: str
    retention_days: int
    sector: str | None


def notice_hash(ja: str, en: str) -> str:
    """SHA-256 of a notice: the Japanese text, a line feed, the English one, in UTF-8."""
    return hashlib.sha256(f"{ja}\n{en}".encode()).hexdigest()


def put_request(
    connection: Session, principal: Principal, request: UUID, wanted: Wanted
) -> Written:
    """Ask everyone, once: a request that was made is never changed."""
    PURPOSES.check("purpose", wanted.purpose)
    CATEGORIES.check("category", wanted.category)
    log.check_window("event", wanted.event_from, wanted.event_to)
    asking = _asking(connection, principal)
    body = _body(request, asking, wanted)
    before = log.row(connection, SELECT_SAID, id=request)
    if before is not None:
        if before["body"] != body:
            raise CityError("conflict", "this id was used before: give a new request a new one")
        return log.unchanged(connection, before["sigma"])
    now = log.one(connection, log.SELECT_NOW)
    if not now < wanted.valid_to <= now + timedelta(days=VALID_DAYS_MAX):
        raise invalid("valid_to", f"must be within the next {VALID_DAYS_MAX} days")
    scope = {"purpose": wanted.purpose, "category": wanted.category}
    if not log.one(connection, SELECT_REVIEWED, recipient=asking["id"], **scope):
        raise CityError("forbidden", "the ethics review has not approved this for you")
    if log.one(connection, SELECT_OPEN_COUNT, recipient=asking["id"]) >= OPEN_MAX:
        raise CityError("conflict", f"{OPEN_MAX} requests of yours are open: withdraw one first")
    with log.explained("request"):
        return log.write(connection, "REQUEST", principal, body, kind="recipient")


def withdraw(connection: Session, principal: Principal, request: UUID) -> Written:
    """Ask no more; what was granted for it stays as it was granted."""
    before = log.row(connection, SELECT_SAID, id=request)
    if before is None or before["recipient"] != _asking(connection, principal)["id"]:
        raise CityError("not-found", f"there is no request {request} of yours")
    if before["closed"] is not None:
        return log.unchanged(connection, before["closed"])
    body = {"request": str(request)}
    with log.explained("request"):
        return log.write(connection, "WITHDRAW", principal, body, kind="recipient")


def select_asked(connection: Session, principal: Principal, limit: int) -> list[Row]:
    """A recipient's own requests, the newest first, and about how many granted each."""
    rows = log.rows(connection, SELECT_ASKED, key=principal.name, limit=limit)
    return [{**row, "granted": row["granted"] // COUNTED * COUNTED} for row in rows]


def select_open(
    connection: Session,
    subjects: Sequence[int],
    *,
    request: UUID | None = None,
    answered: bool,
    limit: int = SHOWN_MAX,
) -> list[Row]:
    """Open requests with the persons whom they are about; those that were answered too, if so."""
    scope = {"subjects": list(subjects), "request": request, "answered": answered, "limit": limit}
    return log.rows(connection, SELECT_OPEN, **scope)


def asked_of(row: Row) -> Asked:
    """The question of an open request."""
    return Asked(
        row["purpose"],
        row["category"],
        row["kind"],
        Operation(row["operation"]),
        row["level"],
        tuple(row["countries"]),
    )


def standing_body(row: Row, matched: Matched, now: datetime) -> dict[str, Any]:
    """The same on a standing word: in the voice that allows it, so that it ends with that."""
    voice = matched.voice()
    said = {"guardianship": str(voice)} if voice else {}
    return {**grant_body(row, matched, now), **said}


def grant_body(row: Row, matched: Matched, now: datetime) -> dict[str, Any]:
    """The grant that an open request becomes for a person: its id is made from both."""
    return {
        "grant": str(uuid5(SPACE, f"grant {row['id']} {row['subject']} {row['grants']}")),
        "request": str(row["id"]),
        "recipient": row["number"],
        "purpose": row["purpose"],
        "category": row["category"],
        "operation": row["operation"],
        "event": log.window(row["event"].lower, row["event"].upper),
        "valid": log.window(now, row["valid"].upper),
        "level": matched.level,
        "countries": sorted(row["countries"]),
        "notice": row["notice"],
    }


def _asking(connection: Session, principal: Principal) -> Row:
    found = log.row(connection, SELECT_ASKING, key=principal.name)
    if found is None:
        raise CityError("forbidden", "only a registered recipient asks for personal data")
    return found


def _body(request: UUID, asking: Row, wanted: Wanted) -> dict[str, Any]:
    """A request as the log has it."""
    event_to = wanted.event_to and wanted.event_to.astimezone(UTC)
    return {
        "request": str(request),
        "recipient": asking["id"],
        "purpose": wanted.purpose,
        "category": wanted.category,
        "operation": wanted.operation.value,
        "event": log.window(wanted.event_from.astimezone(UTC), event_to),
        "valid_to": wanted.valid_to.astimezone(UTC).isoformat(),
        "level": NUMBERS[wanted.resolution],
        "countries": [asking["country"]],
        "notice": notice_hash(wanted.notice_ja, wanted.notice_en),
        "told": {
            "notice": {"ja": wanted.notice_ja, "en": wanted.notice_en},
            "benefit": {"ja": wanted.benefit_ja, "en": wanted.benefit_en},
        },
        "retention_days": wanted.retention_days,
        "sector": wanted.sector,
    }
