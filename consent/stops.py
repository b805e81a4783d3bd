"""Stop notices: who had a right to a person's data is told when it ends, until it says it knows.

A notice is written with its act, by the log's trigger (0009_notices.sql). Here is what recipients,
persons and operators see of them, and what the worker that delivers them (consent.webhooks) does.
"""

import base64
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from consent.log import Session, row, rows
from consent.masks import Mask
from consent.results import Row
from core.errors import CityError
from core.tokens import Principal

# ruff: noqa: S608 - the parts are constants of this module

TYPES = {
    "NARROW": "consent.narrowed",
    "REVOKE": "consent.revoked",
    "OBJECT": "consent.objected",
    "ERASE": "person.erased",
}
"""What an act is called in a notice; any other ENDED: why it did is the person's own matter."""
ENDED = "consent.ended"
LEASE = timedelta(seconds=15)
"""So long one process has an endpoint for itself; it asks for more with each notice."""

_OPEN = "acknowledged_at IS NULL AND escalated_at IS NULL"
_OF_RECIPIENT = "s.recipient = %(recipient)s"
SELECT_IS_REGISTERED = "SELECT 1 FROM consent.recipient WHERE key = %(recipient)s"
SELECT_ENDPOINT = """
SELECT url, set_at, failures, error FROM notices.endpoint WHERE recipient = %(recipient)s
"""
# The same address again changes nothing; another one begins anew, with a secret of its own.
PUT_ENDPOINT = """
INSERT INTO notices.endpoint AS e (recipient, url) VALUES (%(recipient)s, %(url)s)
ON CONFLICT (recipient) DO UPDATE SET url = excluded.url, version = excluded.version,
  set_at = excluded.set_at, failures = 0, error = NULL, due_at = excluded.due_at
WHERE e.url <> excluded.url
RETURNING version
"""
DELETE_ENDPOINT = "DELETE FROM notices.endpoint WHERE recipient = %(recipient)s"
SELECT_OF_RECIPIENT = f"""
SELECT s.* FROM notices.stop s
WHERE {_OF_RECIPIENT} AND (s.acknowledged_at IS NOT NULL) = %(acknowledged)s
  AND (%(after)s::uuid IS NULL OR (s.sigma, s.subject) > (
    SELECT s.sigma, s.subject FROM notices.stop s WHERE s.id = %(after)s AND {_OF_RECIPIENT}))
ORDER BY s.sigma, s.subject LIMIT %(limit)s
"""
ACKNOWLEDGE = f"""
UPDATE notices.stop s SET acknowledged_at = coalesce(s.acknowledged_at, clock_timestamp())
WHERE s.id = %(id)s AND {_OF_RECIPIENT} RETURNING s.acknowledged_at
"""
SELECT_OF_PERSON = """
SELECT s.id, s.at, s.act, s.recipient, r.title_ja, r.title_en, s.grants, s.purpose, s.attempts,
       s.tried_at, s.acknowledged_at, s.escalated_at
FROM notices.stop s JOIN consent.subject p ON p.id = s.subject
LEFT JOIN consent.recipient r ON r.key = s.recipient
WHERE p.key = %(person)s AND (%(after)s::uuid IS NULL OR (s.sigma, s.recipient) < (
  SELECT n.sigma, n.recipient FROM notices.stop n WHERE n.id = %(after)s AND n.subject = p.id))
ORDER BY s.sigma DESC, s.recipient DESC LIMIT %(limit)s
"""
SELECT_ESCALATED = """
SELECT s.id, s.at, s.act, s.recipient, s.attempts, s.tried_at, s.acknowledged_at, s.escalated_at,
       e.url, e.error
FROM notices.stop s LEFT JOIN notices.endpoint e ON e.recipient = s.recipient
WHERE s.escalated_at IS NOT NULL AND s.acknowledged_at IS NULL
  AND (%(after)s::uuid IS NULL OR (s.escalated_at, s.id) < (
    SELECT n.escalated_at, n.id FROM notices.stop n WHERE n.id = %(after)s))
ORDER BY s.escalated_at DESC, s.id DESC LIMIT %(limit)s
"""
# An endpoint that is due and has something to take, for this process alone till the lease ends.
CLAIM = f"""
UPDATE notices.endpoint e SET due_at = clock_timestamp() + %(lease)s
FROM (SELECT recipient FROM notices.endpoint e
      WHERE e.due_at <= clock_timestamp()
        AND EXISTS (SELECT FROM notices.stop s WHERE s.recipient = e.recipient AND {_OPEN})
      ORDER BY e.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS due
WHERE e.recipient = due.recipient
RETURNING e.recipient, e.url, e.version, e.failures, e.due_at
"""
SELECT_NEXT = f"""
SELECT s.* FROM notices.stop s WHERE {_OF_RECIPIENT} AND {_OPEN} ORDER BY s.sigma, s.subject LIMIT 1
"""
TRIED = """
UPDATE notices.stop SET attempts = attempts + 1, tried_at = clock_timestamp(),
  acknowledged_at = CASE WHEN %(taken)s THEN coalesce(acknowledged_at, clock_timestamp())
                         ELSE acknowledged_at END
WHERE id = %(id)s
"""
# Of the holder of the lease alone: who was too late changes nothing.
SETTLE = """
UPDATE notices.endpoint SET due_at = clock_timestamp() + %(wait)s, failures = %(failures)s,
  error = %(error)s
WHERE recipient = %(recipient)s AND due_at = %(due_at)s AND version = %(version)s RETURNING due_at
"""
ESCALATE = f"""
UPDATE notices.stop SET escalated_at = clock_timestamp()
WHERE {_OPEN} AND at < clock_timestamp() - %(after)s RETURNING recipient
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a recipient is told, held by this process until `due_at`."""

    recipient: str
    url: str
    version: UUID
    failures: int
    due_at: datetime


def secret_of(secret: bytes, recipient: str, version: UUID) -> bytes:
    """What signs an endpoint's notices: derived, so that no table holds secrets."""
    return hmac.digest(secret, b"notices\n" + recipient.encode() + b"\n" + version.bytes, "sha256")


def shown_secret(secret: bytes) -> str:
    """A secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secret).decode()


def type_of(act: str) -> str:
    """What a notice of an act is called."""
    return TYPES.get(act, ENDED)


def notice_of(stop: Row, mask: Mask) -> dict[str, Any]:
    """What its recipient is told: names that it knows, and no number of ours."""
    return {
        "type": type_of(stop["act"]),
        "timestamp": stop["at"],
        "data": {
            "stop": stop["id"],
            "person": mask.person(stop["subject"]),
            "grants": stop["grants"],
            "purpose": stop["purpose"],
            "since": stop["at"],
        },
    }


def body_of(stop: Row, mask: Mask) -> bytes:
    """A notice as it is sent, byte by byte the same each time."""
    return orjson.dumps(notice_of(stop, mask), option=orjson.OPT_UTC_Z)


def put_endpoint(connection: Session, principal: Principal, url: str) -> UUID | None:
    """Set where a recipient is told; the version of its new secret, None where nothing changed."""
    scope = {"recipient": principal.name, "url": url}
    if connection.execute(SELECT_IS_REGISTERED, scope).fetchone() is None:
        raise CityError("not-found", f"there is no recipient {principal.name!r}")
    made = connection.execute(PUT_ENDPOINT, scope).fetchone()
    return made[0] if made else None


def endpoint(connection: Session, principal: Principal) -> Row:
    """A recipient's own endpoint; CityError `not-found` for one that polls."""
    found = row(connection, SELECT_ENDPOINT, recipient=principal.name)
    if found is None:
        raise CityError("not-found", "you have no endpoint: read /v1/stops")
    return found


def delete_endpoint(connection: Session, principal: Principal) -> None:
    """From now on the recipient polls."""
    connection.execute(DELETE_ENDPOINT, {"recipient": principal.name})


def of_recipient(
    connection: Session,
    principal: Principal,
    *,
    acknowledged: bool,
    after: UUID | None,
    limit: int,
) -> list[Row]:
    """A recipient's notices in their order: those it has acknowledged, or those it has not."""
    return rows(
        connection, SELECT_OF_RECIPIENT, recipient=principal.name, acknowledged=acknowledged,
        after=after, limit=limit,
    )  # fmt: skip


def acknowledge(connection: Session, principal: Principal, stop: UUID) -> datetime:
    """The recipient knows; a second time is nothing new."""
    found = connection.execute(ACKNOWLEDGE, {"id": stop, "recipient": principal.name}).fetchone()
    if found is None:
        raise CityError("not-found", f"there is no stop notice {stop} to you")
    at: datetime = found[0]
    return at


def of_person(
    connection: Session, principal: Principal, after: UUID | None, limit: int
) -> list[Row]:
    """Who was told to stop by a person's acts, the newest first."""
    return rows(connection, SELECT_OF_PERSON, person=principal.subject, after=after, limit=limit)


def escalated(connection: Session, after: UUID | None, limit: int) -> list[Row]:
    """Notices that nobody acknowledged in time, for operators: not of whom."""
    return rows(connection, SELECT_ESCALATED, after=after, limit=limit)


def claim(connection: Session, limit: int) -> list[Endpoint]:
    """Endpoints that are due, for this process until their leases end."""
    found = connection.execute(CLAIM, {"lease": LEASE, "limit": limit}).fetchall()
    return [Endpoint(*each) for each in found]


def next_of(connection: Session, recipient: str) -> Row | None:
    """The notice that a recipient is to be told first."""
    return row(connection, SELECT_NEXT, recipient=recipient)


def tried(connection: Session, stop: UUID, *, taken: bool) -> None:
    """A notice was sent: `taken`, with an answer that acknowledges it."""
    connection.execute(TRIED, {"id": stop, "taken": taken})


def settle(
    connection: Session,
    held: Endpoint,
    wait: timedelta,
    failures: int = 0,
    error: str | None = None,
) -> Endpoint | None:
    """Let an endpoint rest for a while; None where another has it by now."""
    scope = {
        "recipient": held.recipient, "due_at": held.due_at, "version": held.version,
        "wait": wait, "failures": failures, "error": error,
    }  # fmt: skip
    found = connection.execute(SETTLE, scope).fetchone()
    if found is None:
        return None
    return Endpoint(held.recipient, held.url, held.version, failures, found[0])


def escalate(connection: Session, after: timedelta) -> Sequence[str]:
    """Give up on notices that are older; whose they were."""
    found = connection.execute(ESCALATE, {"after": after}).fetchall()
    return sorted({each[0] for each in found})
