"""Emergency overrides: what one operator asks for and another allows is read without consent.

Only for the purposes of EMERGENCIES (APPI Art. 27(1)(ii), (iii)), of one area or some Things, for a
day at most, by a token of its own (core.tokens.Role.RESPONDER). Whom it touched is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from consent.log import (
    SELECT_NOW,
    Session,
    Written,
    check_window,
    explained,
    one,
    row,
    rows,
    subject_of,
    unchanged,
    window,
    write,
)
from consent.results import Row
from consent.vocabulary import CATEGORIES, EMERGENCIES
from core.errors import CityError, invalid
from core.tokens import Principal

TELL_WITHIN = timedelta(hours=72)
"""Our promise: the law names no number of hours."""
DATA_SPAN_MAX = timedelta(days=7)
PERSONS_MAX = 10_000
OVERRIDES_MAX = 1_000
Place = tuple[float, float]
"""Longitude and latitude."""

SELECT_RECIPIENT = "SELECT id FROM consent.recipient WHERE key = %(key)s AND NOT suspended"
SELECT_OVERRIDE = """
SELECT o.id, r.key AS recipient, r.title_ja, r.title_en, o.purpose, o.category, o.sector,
       lower(o.event) AS event_from, upper(o.event) AS event_to, o.area::text AS area, o.things,
       o.reason, o.authority, o.hardship, o.hours, o.proposer, o.proposed_at, o.approver, o.ended,
       lower(o.valid) AS valid_from, upper(o.valid) AS valid_to,
       coalesce(o.valid @> clock_timestamp(), false) AS live
FROM consent.override o JOIN consent.recipient r ON r.id = o.recipient WHERE o.id = %(id)s
"""
SELECT_BODY = """
SELECT l.body - 'override' AS body FROM consent.override o JOIN consent.log l ON l.sigma = o.sigma
WHERE o.id = %(id)s
"""
SELECT_TO_TELL = """
SELECT s.key AS person, t.since, t.since + %(within)s AS tell_by, d.at AS told_at, d.how
FROM audit.to_tell t JOIN consent.subject s ON s.id = t.subject
LEFT JOIN consent.told d ON d.override = t.override AND d.subject = t.subject
WHERE t.override = %(override)s ORDER BY d.at IS NOT NULL, t.since, s.id LIMIT %(limit)s
"""
SELECT_OF_PERSON = """
SELECT o.id, r.key AS recipient, r.title_ja, r.title_en, o.purpose, o.category, o.sector,
       lower(o.event) AS event_from, upper(o.event) AS event_to, o.reason, o.authority, o.hardship,
       lower(o.valid) AS valid_from, upper(o.valid) AS valid_to,
       t.since, t.since + %(within)s AS tell_by, d.at AS told_at, d.how
FROM audit.to_tell t JOIN consent.subject s ON s.id = t.subject
JOIN consent.override o ON o.id = t.override JOIN consent.recipient r ON r.id = o.recipient
LEFT JOIN consent.told d ON d.override = t.override AND d.subject = t.subject
WHERE s.key = %(person)s ORDER BY t.since DESC, o.id LIMIT %(limit)s
"""
SELECT_TOUCHED = """
SELECT t.subject FROM audit.to_tell t JOIN consent.subject s ON s.id = t.subject
WHERE t.override = %(override)s AND s.key = ANY(%(persons)s)
"""


@dataclass(frozen=True, slots=True)
class Emergency:
    """What is asked for, and why nobody can be asked. `area` or `things`, of one sector."""

    recipient: str
    purpose: str
    category: str
    sector: str
    event_from: datetime
    event_to: datetime
    reason: str
    authority: str
    hardship: str
    hours: int
    area: tuple[Place, ...] = ()
    things: tuple[str, ...] = ()


def propose(connection: Session, principal: Principal, override: UUID, said: Emergency) -> Written:
    """Ask for an override, which does nothing before another operator approves it."""
    if said.purpose not in EMERGENCIES:
        raise invalid("purpose", f"must be one of {', '.join(EMERGENCIES)}")
    CATEGORIES.check("category", said.category)
    check_window("event", said.event_from, said.event_to)
    if said.event_to - said.event_from > DATA_SPAN_MAX:
        raise invalid("event_to", "must be within a week after event_from")
    if bool(said.area) == bool(said.things):
        raise invalid("area", "must be given, or things must: one of the two")
    body: dict[str, Any] = {
        "recipient": one(connection, SELECT_RECIPIENT, key=said.recipient, field="recipient"),
        **{name: getattr(said, name) for name in ("purpose", "category", "sector", "hours")},
        **{name: getattr(said, name) for name in ("reason", "authority", "hardship")},
        "event": window(said.event_from, said.event_to),
        "legal_basis": EMERGENCIES[said.purpose],
    }
    if said.area:
        body["area"] = f"({','.join(f'({x!r},{y!r})' for x, y in said.area)})"
    else:
        body["things"] = sorted(set(said.things))
    before = row(connection, SELECT_BODY, id=override)
    if before is not None:
        if before["body"] != body:
            raise CityError("conflict", "another override has this id")
        return unchanged(connection)
    with explained("override"):
        return write(connection, "OVERRIDE", principal, {"override": str(override), **body})


def approve(connection: Session, principal: Principal, override: UUID) -> Written:
    """Allow what another operator asked for: from now on, for the hours that it asked for."""
    before = _known(connection, override)
    if before["approver"] == principal.name:
        return unchanged(connection)
    with explained("override"):
        return write(connection, "OVERRIDE_APPROVE", principal, {"override": str(override)})


def end(connection: Session, principal: Principal, override: UUID) -> Written:
    """End an override: any operator may; what has ended is ended still."""
    before = _known(connection, override)
    over = before["valid_to"] is not None and before["valid_to"] <= one(connection, SELECT_NOW)
    if before["ended"] or over:
        return unchanged(connection)
    with explained("override"):
        return write(connection, "OVERRIDE_END", principal, {"override": str(override)})


def tell(
    connection: Session, principal: Principal, override: UUID, persons: Sequence[str], how: str
) -> Written:
    """Write down that persons were told of an override that touched them, and how."""
    scope = {"override": override, "persons": list(persons)}
    touched = sorted(each["subject"] for each in rows(connection, SELECT_TOUCHED, **scope))
    if len(touched) != len(set(persons)):
        raise CityError("not-found", "this override did not touch all of these persons")
    body = {"override": str(override), "subjects": touched, "how": how}
    return write(connection, "OVERRIDE_TELL", principal, body)


def acknowledge(connection: Session, principal: Principal, override: UUID) -> Written:
    """Write down that the person has read of it."""
    known = rows(connection, SELECT_OF_PERSON, **_of(principal))
    found = next((each for each in known if each["id"] == override), None)
    if found is None:
        raise CityError("not-found", f"no override {override} touched you")
    if found["told_at"] is not None:
        return unchanged(connection)
    subject = subject_of(connection, principal.subject)
    body = {"override": str(override), "subjects": [subject], "how": "read"}
    return write(connection, "OVERRIDE_TELL", principal, body, subject=subject)


def select_override(connection: Session, override: UUID) -> Row:
    """One override, and whom it touched: those who are not told yet first."""
    scope = {"override": override, "within": TELL_WITHIN, "limit": PERSONS_MAX}
    return {**_known(connection, override), "persons": rows(connection, SELECT_TO_TELL, **scope)}


def select_of_person(connection: Session, principal: Principal) -> list[Row]:
    """Every override by which something of the person was read, the newest first."""
    return rows(connection, SELECT_OF_PERSON, **_of(principal))


def _of(principal: Principal) -> dict[str, Any]:
    return {"person": principal.subject, "within": TELL_WITHIN, "limit": OVERRIDES_MAX}


def _known(connection: Session, override: UUID) -> Row:
    found = row(connection, SELECT_OVERRIDE, id=override)
    if found is None:
        raise CityError("not-found", f"there is no override {override}")
    return found
