"""The acts of consent: each is one entry of the log, and what it says holds from its commit on.

An act that is sent twice is one act: its id is the sender's. Functions take a transaction of the
gate's role, in which the act is the last statement; CityError `conflict`, `invalid` or `not-found`
says why there is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from consent import areas, standing
from consent.levels import NUMBERS
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
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.errors import CityError
from core.tokens import Principal

GRANTS_MAX = 10_000

# ruff: noqa: S608 - the parts are constants of this module

SELECT_RECIPIENT = "SELECT id FROM consent.recipient WHERE key = %(key)s AND NOT suspended"
_FORM = """
SELECT g.grant_id, g.sigma, g.given, g.ended, g.subject, g.recipient AS recipient_id,
       g.guardianship, r.key AS recipient, r.title_ja, r.title_en,
       g.purpose, g.category, g.operation, g.level, g.countries, encode(g.notice, 'hex') AS notice,
       lower(g.event) AS event_from, upper(g.event) AS event_to,
       lower(g.valid) AS valid_from, upper(g.valid) AS valid_to,
       a.said AS area, encode(a.id, 'hex') AS area_id, cardinality(g.areas) AS areas,
       g.ended IS NULL AND g.valid @> clock_timestamp() AS live
FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
LEFT JOIN consent.area a ON a.id = g.areas[cardinality(g.areas)]
"""
SELECT_GRANT = f"{_FORM} WHERE g.grant_id = %(grant)s ORDER BY g.sigma DESC LIMIT 1"
SELECT_GRANTS = f"""
SELECT DISTINCT ON (f.given, f.grant_id) f.* FROM ({_FORM}
  WHERE g.subject = (SELECT id FROM consent.subject WHERE key = %(person)s)) AS f
ORDER BY f.given DESC, f.grant_id, f.sigma DESC LIMIT %(limit)s
"""
SELECT_VOICE = "SELECT lower(valid), upper(valid) FROM consent.guardianship WHERE id = %(voice)s"
SELECT_OBJECTION = """
SELECT o.subject, o.purpose, r.key AS recipient, o.sigma
FROM consent.objected o LEFT JOIN consent.recipient r ON r.id = o.recipient WHERE o.id = %(id)s
"""
SELECT_BINDING = """
SELECT b.sector, b.thing, lower(b.event) AS event_from, upper(b.event) AS event_to,
       ARRAY(SELECT key FROM consent.subject WHERE id = ANY(p.subjects)) AS persons
FROM consent.binding b JOIN consent.party p ON p.id = b.party WHERE b.id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a person grants. Times left out: from the grant on; `event_to` left out: no end."""

    recipient: str
    purpose: str
    category: str
    operation: Operation
    valid_to: datetime
    notice: str
    valid_from: datetime | None = None
    event_from: datetime | None = None
    event_to: datetime | None = None
    resolution: str = "exact"
    countries: tuple[str, ...] = ("JP",)
    area: str | None = None
    """Where the data may be of, as consent.areas.canonical makes it; None: anywhere."""


def put_grant(connection: Session, principal: Principal, grant: UUID, terms: Terms) -> Written:
    """Grant, or narrow the grant of this id; what is granted already is no new act."""
    subject = subject_of(connection, principal.subject)
    PURPOSES.check("purpose", terms.purpose)
    CATEGORIES.check("category", terms.category)
    now = one(connection, SELECT_NOW)
    before = row(connection, SELECT_GRANT, grant=grant)
    if before is not None and (before["subject"] != subject or before["ended"] is not None):
        raise CityError("conflict", "this id was used before: give a new grant a new one")
    began = {
        name: given or (before[name] if before else now)
        for name, given in (("valid_from", terms.valid_from), ("event_from", terms.event_from))
    }
    voice = before["guardianship"] if before else principal.guardianship
    valid = _voiced(connection, voice, began["valid_from"], terms.valid_to)
    check_window("event", began["event_from"], terms.event_to)
    check_window("valid", *valid)
    body = {
        "grant": str(grant),
        "recipient": one(connection, SELECT_RECIPIENT, key=terms.recipient, field="recipient"),
        "purpose": terms.purpose,
        "category": terms.category,
        "operation": terms.operation.value,
        "event": window(began["event_from"], terms.event_to),
        "valid": window(*valid),
        "level": NUMBERS[terms.resolution],
        "countries": sorted(set(terms.countries)),
        "notice": terms.notice,
    }
    if before is not None and _says(before, body, terms):
        return Written(before["sigma"], now)
    if before is not None and window(before["valid_from"], before["valid_to"]) != body["valid"]:
        _check_alone(connection, before)
    if terms.area is not None:
        body["area"] = _kept(connection, subject, before, terms.area)
    with explained("grant"):
        return write(connection, "NARROW" if before else "GRANT", principal, body, subject=subject)


def revoke(connection: Session, principal: Principal, grant: UUID) -> Written:
    """End a grant of the person, and what other voices granted of the same: either may revoke.

    One that has ended is ended still.
    """
    subject = subject_of(connection, principal.subject)
    before = row(connection, SELECT_GRANT, grant=grant)
    if before is None or before["subject"] != subject:
        raise CityError("not-found", f"there is no grant {grant} of yours")
    if before["ended"] is not None:
        return unchanged(connection, before["ended"])
    with explained("grant"):
        body = {"grant": str(grant), "with": standing.others_about(connection, before)}
        return write(connection, "REVOKE", principal, body, subject=subject)


def put_objection(
    connection: Session,
    principal: Principal,
    objection: UUID,
    recipient: str | None,
    purpose: str | None,
) -> Written:
    """Object to a recipient (None: any) and a purpose with all below it (None: any)."""
    subject = subject_of(connection, principal.subject)
    if purpose is not None:
        PURPOSES.check("purpose", purpose)
    before = row(connection, SELECT_OBJECTION, id=objection)
    if before is not None:
        if (before["subject"], before["recipient"], before["purpose"]) != (
            subject, recipient, purpose,
        ):  # fmt: skip
            raise CityError("conflict", "another objection has this id")
        return unchanged(connection, before["sigma"])
    number = (
        one(connection, SELECT_RECIPIENT, key=recipient, field="recipient") if recipient else None
    )
    body = {
        "objection": str(objection),
        "recipient": number,
        "purpose": purpose,
        "touches": PURPOSES.touching(purpose) if purpose else None,
    }
    with explained("objection"):
        return write(connection, "OBJECT", principal, body, subject=subject)


def put_binding(
    connection: Session,
    principal: Principal,
    binding: UUID,
    sector: str,
    thing: str,
    persons: Sequence[str],
    event_from: datetime,
    event_to: datetime | None,
) -> Written:
    """Say whom a Thing's observations of a span of time describe: once for each moment."""
    check_window("event", event_from, event_to)
    said = (sector, thing, event_from, event_to, sorted(set(persons)))
    before = row(connection, SELECT_BINDING, id=binding)
    if before is not None:
        if (*list(before.values())[:-1], sorted(before["persons"])) != said:
            raise CityError("conflict", "another binding has this id")
        return unchanged(connection)
    subjects = [subject_of(connection, person) for person in sorted(set(persons))]
    body = {
        "binding": str(binding),
        "sector": sector,
        "thing": thing,
        "subjects": subjects,
        "event": window(event_from, event_to),
    }
    with explained("event"):
        return write(connection, "BIND", principal, body)


def end_binding(connection: Session, principal: Principal, binding: UUID) -> Written:
    """End a binding now: what its Thing observed until now describes the same persons for ever."""
    with explained("binding"):
        return write(connection, "UNBIND", principal, {"binding": str(binding)})


def select_grants(connection: Session, principal: Principal) -> list[Row]:
    """Every grant of the person as it is now, the newest first."""
    return rows(connection, SELECT_GRANTS, person=principal.subject, limit=GRANTS_MAX)


def _voiced(
    connection: Session, voice: UUID | None, lower: datetime, upper: datetime
) -> tuple[datetime, datetime]:
    """When a grant may hold: in a guardian's voice, while the guardianship does."""
    bounds = connection.execute(SELECT_VOICE, {"voice": voice}).fetchone() if voice else None
    begin, end = bounds or (None, None)
    return max(lower, begin or lower), min(upper, end or upper)


def _kept(connection: Session, subject: int, before: Row | None, area: str) -> str:
    """The commitment to an area; CityError `conflict` for one beyond that of before."""
    if before is not None and before["area"] is not None:
        if before["area"] == area:
            return str(before["area_id"])
        areas.check_within(area, before["area"])
        if before["areas"] >= areas.AREAS_MAX:
            raise CityError("conflict", "area: it was narrowed too often: give a new grant")
    return areas.keep(connection, subject, area)


def _check_alone(connection: Session, grant: Row) -> None:
    """CityError `conflict` where the end of this grant would let another voice's hold alone."""
    if others := standing.others_about(connection, grant):
        raise CityError(
            "conflict", f"its time cannot change while {others[0]} says the same: revoke it"
        )


def _says(before: Row, body: dict[str, Any], terms: Terms) -> bool:
    """Whether a grant says what is asked for, word by word."""
    return (
        before["recipient"] == terms.recipient
        and all(before[name] == body[name] for name in ("purpose", "category", "operation"))
        and window(before["event_from"], before["event_to"]) == body["event"]
        and window(before["valid_from"], before["valid_to"]) == body["valid"]
        and before["level"] == body["level"]
        and sorted(before["countries"]) == body["countries"]
        and before["notice"] == body["notice"]
        and before["area"] == terms.area
    )
