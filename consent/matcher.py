"""Follows the log, and grants on persons' standing word what recipients ask for: a little a turn.

A request is matched with persons in the order of their numbers; what a person states, and who a
device describes, with the requests that are open. Each turn is one transaction that also says how
far it came, so that none is done twice, and that writes few grants, since every other act waits.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from consent import log, preferences, requests
from consent.log import Session
from consent.matching import Verdict, match
from consent.results import Row
from consent.worker import Worker
from core.errors import brief
from core.tokens import Principal

logger = logging.getLogger("chimata.consent")

PERSONS = 50
"""So many are matched with a request in one turn."""
GRANTS = 5
"""So many grants are written in one turn: for so long every other act waits."""
LOOK = 10_000
"""So many entries of the log are passed over in one turn."""
STANDING = Principal(None, "chimata", None, None, frozenset(), 0)
"""Who grants on a person's standing word."""
FOLLOWED = ("REQUEST", "PREFER", "UNPREFER", "PRESET", "BIND")

SELECT_PLACE = "SELECT sigma, subject FROM consent.matching FOR UPDATE SKIP LOCKED"
UPDATE_PLACE = "UPDATE consent.matching SET sigma = %(sigma)s, subject = %(subject)s"
SELECT_LAST = "SELECT sigma FROM consent.clock"
SELECT_ENTRY = """
SELECT sigma, act, subject, body FROM consent.log
WHERE sigma > %(sigma)s AND sigma <= %(upto)s AND act = ANY(%(acts)s)
ORDER BY sigma LIMIT 1
"""
SELECT_PERSONS = """
SELECT DISTINCT subject FROM consent.party_member WHERE subject > %(after)s
ORDER BY subject LIMIT %(limit)s
"""


def turn(connection: Session) -> bool:
    """One turn, in a transaction of the gate's role; whether there is more to do."""
    last = log.one(connection, SELECT_LAST)  # before the entries, or it might pass over one
    place = log.row(connection, SELECT_PLACE)
    if place is None:  # another process is at it
        return False
    # The sum is not the server's: of two small parameters it would be an int2, and overflow.
    begin, upto = place["sigma"], place["sigma"] + LOOK
    entry = log.row(connection, SELECT_ENTRY, sigma=begin, upto=upto, acts=list(FOLLOWED))
    if entry is None:
        end = max(begin, min(last, upto))
        if end > begin:
            connection.execute(UPDATE_PLACE, {"sigma": end, "subject": 0})
        return bool(end < last)
    subject = _take(connection, entry, place["subject"])
    sigma = entry["sigma"] if subject is None else entry["sigma"] - 1
    connection.execute(UPDATE_PLACE, {"sigma": sigma, "subject": subject or 0})
    return True


def _take(connection: Session, entry: Row, after: int) -> int | None:
    """Match the next persons of an entry; up to whom it is done, None: of all."""
    if entry["act"] == "REQUEST":
        request = UUID(entry["body"]["request"])
        found = log.rows(connection, SELECT_PERSONS, after=after, limit=PERSONS)
        subjects = [row["subject"] for row in found]
        more = len(subjects) == PERSONS
    else:
        request = None
        told = entry["body"]["subjects"] if entry["act"] == "BIND" else [entry["subject"]]
        subjects = sorted(subject for subject in told if subject > after)[:1]
        more = len(told) > 1 and bool(subjects)
    allowed = _allowed(connection, subjects, request)
    written = _grant(connection, allowed[:GRANTS])
    if len(allowed) > GRANTS:
        last = allowed[GRANTS - 1][0]
        return last if request or not written else after
    return subjects[-1] if more else None


def _allowed(
    connection: Session, subjects: Sequence[int], request: UUID | None
) -> list[tuple[int, dict[str, Any]]]:
    """Persons, and the grants that their statements allow and that nobody has decided on yet."""
    said = preferences.statements_of(connection, subjects)
    speaking = [subject for subject in subjects if said[subject]]
    now = log.one(connection, log.SELECT_NOW)
    rows = requests.select_open(connection, speaking, request=request, answered=False)
    found = ((row, match(said[row["subject"]], requests.asked_of(row))) for row in rows)
    return [
        (row["subject"], requests.standing_body(row, matched, now))
        for row, matched in found
        if matched.verdict is Verdict.ALLOW
    ]


def _grant(connection: Session, allowed: Sequence[tuple[int, dict[str, Any]]]) -> int:
    """Write the grants; how many there are. What the log refuses was overtaken by another act."""
    written = 0
    for subject, body in allowed:
        try:
            with connection.transaction():
                log.write(connection, "GRANT", STANDING, body, subject=subject, kind="delegate")
            written += 1
        except psycopg.errors.IntegrityError as error:
            logger.info("no grant on a standing word: %s", brief(error))
    return written


def matcher(step: Callable[[], bool]) -> Worker:
    """What takes a turn about once a second, and at once while there is more."""
    return Worker("matcher", step, "requests are not matched")
