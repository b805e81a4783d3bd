"""The liability record: what went wrong, whom it concerns, what was reported, what was paid.

The bank answers to the person first, whoever caused it; what it gets back from who did is
`recourse`. It is evidence: appended to, never changed. Whom it concerns is read off the record
of deliveries.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from consent.breaches import Ground, missing
from consent.log import (
    NEWEST,
    Place,
    Session,
    Written,
    check_window,
    explained,
    one,
    row,
    rows,
    unchanged,
    window,
)
from consent.results import Row
from core.errors import CityError, invalid
from core.tokens import Principal

Step = Literal["preliminary", "final", "told", "published", "recourse", "closed"]
REPORTS = ("preliminary", "final")
STEPS_MAX = 1000
"""Of an incident."""

SELECT_RECIPIENT = "SELECT id FROM consent.recipient WHERE key = %(key)s"
SELECT_SUBJECTS = "SELECT id FROM consent.subject WHERE key = ANY(%(persons)s)"
SELECT_INCIDENT = "SELECT body FROM consent.incident WHERE id = %(id)s"
INSERT_INCIDENT = """
INSERT INTO consent.incident (id, actor, known_at, recipient, happened, grounds, body)
VALUES (%(id)s, %(actor)s, %(known_at)s, %(recipient)s, %(happened)s, %(grounds)s, %(body)s)
"""
# Those named, and those of whom the recipient got anything in that time.
INSERT_PERSONS = """
INSERT INTO consent.incident_person
SELECT %(id)s, unnest(%(subjects)s::integer[]) UNION
SELECT %(id)s, unnest(p.subjects) FROM audit.provision p JOIN audit.decision d ON d.id = p.decision
WHERE d.recipient = %(recipient)s AND d.at <@ %(happened)s::tstzrange
"""
SELECT_STEP = "SELECT incident, step, body FROM consent.incident_step WHERE id = %(id)s"
SELECT_STEPS = "SELECT count(*) FROM consent.incident_step WHERE incident = %(incident)s"
INSERT_STEP = """
INSERT INTO consent.incident_step (id, incident, actor, step, body)
VALUES (%(id)s, %(incident)s, %(actor)s, %(step)s, %(body)s)
"""
SELECT_AFFECTED = """
SELECT subject FROM consent.incident_person WHERE incident = %(incident)s
  AND subject = (SELECT id FROM consent.subject WHERE key = %(person)s)
"""
SELECT_COMPENSATION = """
SELECT incident, subject, amount, unit, text FROM consent.compensation WHERE id = %(id)s
"""
INSERT_COMPENSATION = """
INSERT INTO consent.compensation (id, actor, incident, subject, amount, unit, text)
VALUES (%(id)s, %(actor)s, %(incident)s, %(subject)s, %(amount)s, %(unit)s, %(text)s)
"""
_STEPS = """
(SELECT coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'at', s.at, 'step', s.step,
                                              'body', s.body) ORDER BY s.at, s.id), '[]')
 FROM consent.incident_step s WHERE s.incident = i.id) AS steps
"""
SELECT_PAGE = f"""
SELECT i.id, i.at, i.known_at, r.key AS recipient, lower(i.happened) AS happened_from,
       upper(i.happened) AS happened_to, i.grounds, i.body->'items' AS items, now() AS now,
       (SELECT count(*) FROM consent.incident_person p WHERE p.incident = i.id) AS persons,
       (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') FROM (
          SELECT unit, sum(amount)::text AS amount, count(*) AS payments
          FROM consent.compensation WHERE incident = i.id GROUP BY unit ORDER BY unit) AS c
       ) AS compensation, {_STEPS}
FROM consent.incident i LEFT JOIN consent.recipient r ON r.id = i.recipient
WHERE (i.at, i.id) < (%(at)s::timestamptz, %(before)s::uuid)
ORDER BY i.at DESC, i.id DESC LIMIT %(limit)s
"""  # noqa: S608 - the parts are constants of this module
SELECT_OF_PERSON = f"""
SELECT i.id, i.at, i.known_at, r.key AS recipient, r.title_ja, r.title_en,
       lower(i.happened) AS happened_from, upper(i.happened) AS happened_to,
       i.body->'items' AS items, {_STEPS},
       (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'at', c.at, 'amount',
                 c.amount::text, 'unit', c.unit, 'text', c.text) ORDER BY c.at, c.id), '[]')
        FROM consent.compensation c WHERE c.incident = i.id AND c.subject = p.subject
       ) AS compensation
FROM consent.incident_person p JOIN consent.incident i ON i.id = p.incident
LEFT JOIN consent.recipient r ON r.id = i.recipient
WHERE p.subject = (SELECT id FROM consent.subject WHERE key = %(person)s)
  AND (i.at, i.id) < (%(at)s::timestamptz, %(before)s::uuid)
ORDER BY i.at DESC, i.id DESC LIMIT %(limit)s
"""  # noqa: S608 - the parts are constants of this module


@dataclass(frozen=True, slots=True)
class Incident:
    """What happened: at a recipient, or (None) at the bank; `body` is all of it, as it was sent."""

    known_at: datetime
    happened_from: datetime
    happened_to: datetime
    recipient: str | None
    grounds: tuple[Ground, ...]
    persons: tuple[str, ...]
    body: dict[str, Any]


def put(connection: Session, principal: Principal, name: UUID, incident: Incident) -> Written:
    """Enter an incident, with those whom it concerns."""
    check_window("happened", incident.happened_from, incident.happened_to)
    before = row(connection, SELECT_INCIDENT, id=name)
    if before is not None:
        if before["body"] != incident.body:
            raise CityError("conflict", "another incident has this id")
        return unchanged(connection)
    number = None
    if incident.recipient is not None:
        number = one(connection, SELECT_RECIPIENT, key=incident.recipient, field="recipient")
    persons = list({*incident.persons})
    subjects = [found["id"] for found in rows(connection, SELECT_SUBJECTS, persons=persons)]
    if len(subjects) != len(persons):
        raise invalid("persons", "some of them are nobody's whom the platform knows")
    happened = window(incident.happened_from, incident.happened_to)
    entry = {
        "id": name,
        "actor": principal.name,
        "known_at": incident.known_at,
        "recipient": number,
        "happened": happened,
        "grounds": list(incident.grounds),
        "body": Jsonb(incident.body),
    }
    concerned = {"id": name, "subjects": subjects, "recipient": incident.recipient,
                 "happened": happened}  # fmt: skip
    with explained("incident"):
        connection.execute(INSERT_INCIDENT, entry)
        connection.execute(INSERT_PERSONS, concerned)
    return unchanged(connection)


def put_step(
    connection: Session,
    principal: Principal,
    incident: UUID,
    name: UUID,
    step: Step,
    body: dict[str, Any],
) -> Written:
    """Enter what was done about it: a report (a final one is whole), or another step."""
    if step in REPORTS and not body.get("items"):
        raise invalid("items", "a report says what is known")
    if step == "final" and (lacking := missing(body["items"])):
        raise invalid("items", f"a final report is whole: {', '.join(lacking)}")
    if step not in REPORTS and not body.get("text"):
        raise invalid("text", "say what was done")
    before = row(connection, SELECT_STEP, id=name)
    if before is not None:
        if before != {"incident": incident, "step": step, "body": body}:
            raise CityError("conflict", "another step has this id")
        return unchanged(connection)
    if row(connection, SELECT_INCIDENT, id=incident) is None:
        raise CityError("not-found", f"there is no incident {incident}")
    if one(connection, SELECT_STEPS, incident=incident) >= STEPS_MAX:
        raise CityError("conflict", f"an incident has at most {STEPS_MAX} steps")
    entry = {"id": name, "incident": incident, "actor": principal.name, "step": step,
             "body": Jsonb(body)}  # fmt: skip
    with explained("step"):
        connection.execute(INSERT_STEP, entry)
    return unchanged(connection)


def put_compensation(
    connection: Session,
    principal: Principal,
    incident: UUID,
    name: UUID,
    person: str,
    amount: Decimal,
    unit: str,
    text: str,
) -> Written:
    """Enter what the bank paid to someone whom the incident concerns."""
    scope = {"incident": incident, "person": person}
    subject = one(connection, SELECT_AFFECTED, field="person", **scope)
    said = {"incident": incident, "subject": subject, "amount": amount, "unit": unit, "text": text}
    before = row(connection, SELECT_COMPENSATION, id=name)
    if before is not None:
        if before != said:
            raise CityError("conflict", "another payment has this id")
        return unchanged(connection)
    with explained("payment"):
        connection.execute(INSERT_COMPENSATION, {**said, "id": name, "actor": principal.name})
    return unchanged(connection)


def select_page(connection: Session, before: Place | None, limit: int) -> list[Row]:
    """Up to `limit` incidents with all that was done about them, the newest first."""
    at, number = before or NEWEST
    return rows(connection, SELECT_PAGE, at=at, before=number, limit=limit)


def select_of_person(
    connection: Session, principal: Principal, before: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` incidents that concern the person, the newest first."""
    at, number = before or NEWEST
    scope = {"person": principal.subject, "at": at, "before": number, "limit": limit}
    return rows(connection, SELECT_OF_PERSON, **scope)
