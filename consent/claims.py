"""What a person asks of the platform: to correct, to stop a use, a complaint, a consultation.

Append-only: a request and its steps, from received over under review to an answer. Words and values
are sealed under the person's key. (Art. 34, 35 and 40 of the Act on the Protection of Personal
Information.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from consent.log import Session, one, row, rows, subject_of
from consent.results import Row
from consent.subject_keys import SubjectKeys, seal, unseal
from core.errors import CityError, invalid
from core.tokens import Principal

Kind = Literal["correction", "stop-of-use", "complaint", "consultation"]
State = Literal["under-review", "answered", "accepted", "refused"]
RECEIVED, UNDER_REVIEW, ACCEPTED = "received", "under-review", "accepted"
ENDS: Mapping[str, tuple[str, ...]] = {
    "correction": ("accepted", "refused"),
    "stop-of-use": ("accepted", "refused"),
    "complaint": ("answered",),
    "consultation": ("answered",),
}
"""How a request of each kind may end."""
CLAIMS_MAX = 1_000
"""Of one person; who has asked so often is asked to wait for answers."""

# ruff: noqa: S608 - the parts are constants of this module

_CLAIM = """
SELECT c.id, c.kind, c.at, c.recipient, c.disclosure, c.sealed, s.code, s.key AS person,
       coalesce((SELECT jsonb_agg(jsonb_build_object('state', t.state, 'at', t.at, 'sealed',
                   encode(t.sealed, 'hex')) ORDER BY t.number)
                 FROM consent.claim_step t WHERE t.claim = c.id), '[]') AS steps
FROM consent.claim c JOIN consent.subject s ON s.id = c.subject
"""
SELECT_CLAIM = f"{_CLAIM} WHERE c.id = %(id)s"
SELECT_OF_PERSON = f"{_CLAIM} WHERE s.key = %(person)s ORDER BY c.at DESC, c.id LIMIT %(limit)s"
SELECT_PAGE = f"""
{_CLAIM} WHERE s.key IS NOT NULL AND coalesce((
    SELECT t.state FROM consent.claim_step t WHERE t.claim = c.id ORDER BY t.number DESC LIMIT 1),
  'received') = ANY(%(states)s) AND (c.at, c.id) > (%(at)s::timestamptz, %(id)s::uuid)
ORDER BY c.at, c.id LIMIT %(limit)s
"""
SELECT_COUNT = """
SELECT count(*) FROM consent.claim WHERE subject = %(subject)s
"""
SELECT_CODE = "SELECT code FROM consent.subject WHERE id = %(subject)s"
SELECT_IS_RECIPIENT = "SELECT EXISTS (SELECT FROM consent.recipient WHERE key = %(recipient)s)"
SELECT_IS_IN = """
SELECT EXISTS (SELECT FROM audit.provision WHERE decision = %(disclosure)s
               AND subjects @> ARRAY[%(subject)s]::integer[])
"""
INSERT_CLAIM = """
INSERT INTO consent.claim (id, subject, kind, recipient, disclosure, sealed)
VALUES (%(id)s, %(subject)s, %(kind)s, %(recipient)s, %(disclosure)s, %(sealed)s)
"""
INSERT_STEP = """
INSERT INTO consent.claim_step (claim, number, state, who, sealed)
VALUES (%(id)s, %(number)s, %(state)s, %(who)s, %(sealed)s)
"""
LOCK_CLAIM = "SELECT pg_advisory_xact_lock(hashtextextended('claim/' || %(id)s, 0))"

START = (datetime.min, UUID(int=0))


@dataclass(frozen=True, slots=True)
class Claim:
    """What is asked; `content` holds the person's words, and of a correction what and how."""

    id: UUID
    kind: Kind
    content: dict[str, Any]
    recipient: str | None = None
    disclosure: UUID | None = None


def put(connection: Session, principal: Principal, keys: SubjectKeys, claim: Claim) -> Row:
    """Receive a request; the same again is the same one."""
    connection.execute(LOCK_CLAIM, {"id": str(claim.id)})
    before = select(connection, keys, claim.id)
    if before is not None:
        said = tuple(before[name] for name in ("person", "kind", "content", "recipient"))
        if (*said, before["disclosure"]) != (
            principal.subject, claim.kind, claim.content, claim.recipient, claim.disclosure,
        ):  # fmt: skip
            raise CityError("conflict", "another request has this id")
        return before
    subject = subject_of(connection, principal.subject)
    _check(connection, subject, claim)
    sealed = _sealed(keys, one(connection, SELECT_CODE, subject=subject), claim.id, claim.content)
    values = {
        "id": claim.id, "subject": subject, "kind": claim.kind, "recipient": claim.recipient,
        "disclosure": claim.disclosure, "sealed": sealed,
    }  # fmt: skip
    connection.execute(INSERT_CLAIM, values)
    return _found(select(connection, keys, claim.id))


def step(
    connection: Session, principal: Principal, keys: SubjectKeys, claim: UUID, state: str, text: str
) -> Row:
    """Take a request up, or end it; the same again is nothing new."""
    connection.execute(LOCK_CLAIM, {"id": str(claim)})
    before = open_claim(connection, keys, claim, state)
    if before["state"] == state:
        if before["history"][-1]["text"] != text:
            raise CityError("conflict", f"it is {state} already, with another text")
        return before
    values = {
        "id": claim, "number": len(before["history"]), "state": state, "who": principal.name,
        "sealed": _sealed(keys, before["code"], claim, text),
    }  # fmt: skip
    connection.execute(INSERT_STEP, values)
    return _found(select(connection, keys, claim))


def open_claim(connection: Session, keys: SubjectKeys, claim: UUID, state: str) -> Row:
    """A request that may come to this state; CityError `conflict` for one that may not."""
    before = select(connection, keys, claim)
    if before is None:
        raise CityError("not-found", f"there is no request {claim}")
    ended = before["state"] in ENDS[before["kind"]]
    if state not in (UNDER_REVIEW, *ENDS[before["kind"]]) or (ended and before["state"] != state):
        raise CityError("conflict", f"a {before['kind']} that is {before['state']} is not {state}")
    return before


def select(connection: Session, keys: SubjectKeys, claim: UUID) -> Row | None:
    """One request with its history; None for one that is not there, or whose person is erased."""
    found = row(connection, SELECT_CLAIM, id=claim)
    return next(iter(_opened([found] if found else [], keys)), None)


def select_own(connection: Session, principal: Principal, keys: SubjectKeys) -> list[Row]:
    """Every request of a person, the newest first."""
    found = rows(connection, SELECT_OF_PERSON, person=principal.subject, limit=CLAIMS_MAX)
    return _opened(found, keys)


def select_page(
    connection: Session, keys: SubjectKeys, states: list[str], after: Any, limit: int
) -> list[Row]:
    """Requests in these states after a place, the longest waiting first."""
    at, last = after or ("-infinity", START[1])
    found = rows(connection, SELECT_PAGE, states=states, at=at, id=last, limit=limit)
    return _opened(found, keys)


def _check(connection: Session, subject: int, claim: Claim) -> None:
    if claim.recipient is not None and not one(
        connection, SELECT_IS_RECIPIENT, recipient=claim.recipient
    ):
        raise invalid("recipient", "is not registered")
    if claim.disclosure is not None and not one(
        connection, SELECT_IS_IN, disclosure=claim.disclosure, subject=subject
    ):
        raise invalid("disclosure", "is none of yours")
    if one(connection, SELECT_COUNT, subject=subject) >= CLAIMS_MAX:
        raise CityError("conflict", f"{CLAIMS_MAX} requests are here already")


def _found(found: Row | None) -> Row:
    if found is None:
        raise CityError("not-found", "the person was erased meanwhile")
    return found


def _sealed(keys: SubjectKeys, code: UUID, claim: UUID, content: Any) -> bytes:
    known = keys.keys([code])
    if code not in known:
        raise CityError("not-found", "the person was erased")
    return seal([known[code]], orjson.dumps(content), str(claim))


def _opened(found: Sequence[Row], keys: SubjectKeys) -> list[Row]:
    """Requests in words; what is sealed under a key that was destroyed is nobody's any more."""
    known = keys.keys({each["code"] for each in found})
    return [
        _told(each, known[each["code"]])
        for each in found
        if each["person"] is not None and each["code"] in known
    ]


def _told(found: Row, person_key: bytes) -> Row:
    key, context = [person_key], str(found["id"])
    history = [{"state": RECEIVED, "at": found["at"], "text": None}] + [
        {
            "state": each["state"],
            "at": datetime.fromisoformat(each["at"]),
            "text": orjson.loads(unseal(key, bytes.fromhex(each["sealed"]), context)),
        }
        for each in found["steps"]
    ]
    return {
        **{name: found[name] for name in ("id", "kind", "at", "recipient", "disclosure")},
        "code": found["code"],
        "person": found["person"],
        "content": orjson.loads(unseal(key, found["sealed"], context)),
        "state": history[-1]["state"],
        "history": history,
    }
