"""The information bank (情報銀行) itself: what it publishes, and how it ends its business.

While it lasts, its delegates grant within what a person stated, to recipients that the board
approved. When it closes, all that they granted ends in one act; what it holds goes to a successor
for those persons who say so, each anew: no word is no consent.
"""

from typing import Any, Literal
from uuid import UUID

from consent.log import Session, Written, explained, row, rows, subject_of, unchanged, write
from consent.results import Row
from core.errors import CityError
from core.tokens import Principal

Choice = Literal["transfer", "erase", "neither"]
GRANTS_MAX = 1000
"""Of one person, in what is handed over."""

SELECT_CHARTER = "SELECT body, sigma, at FROM consent.charter"
SELECT_BOARD = """
SELECT name_ja, name_en, field, outside FROM consent.board_member WHERE seated ORDER BY key
"""
SELECT_COUNTS = """
SELECT (SELECT count(*) FROM consent.recipient WHERE NOT suspended) AS recipients,
       (SELECT count(*) FROM consent.review WHERE state = 'approved' AND until > now()) AS approved,
       (SELECT count(*) FROM consent.review WHERE state = 'refused') AS refused,
       (SELECT count(*) FROM consent.incident) AS incidents
"""
SELECT_CLOSING = """
SELECT id, body, grants_ended, sigma, at FROM consent.closing
"""
SELECT_CHOICES = """
SELECT count(*) FILTER (WHERE choice = 'transfer') AS transfer,
       count(*) FILTER (WHERE choice = 'erase') AS erase,
       count(*) FILTER (WHERE choice = 'neither') AS neither
FROM consent.handover
"""
SELECT_CHOICE = """
SELECT h.choice, h.sigma, h.at FROM consent.handover h
WHERE h.subject = (SELECT id FROM consent.subject WHERE key = %(person)s)
"""
# Who was erased has no key any more, and so goes to nobody.
SELECT_HANDED_OVER = """
SELECT s.key AS person, h.sigma, h.at, coalesce((
  SELECT jsonb_agg(to_jsonb(g)) FROM (
    SELECT g.grant_id AS grant, r.key AS recipient, g.purpose, g.category, g.operation
    FROM consent.granted g JOIN consent.recipient r ON r.id = g.recipient
    WHERE g.subject = h.subject AND g.ended IS NULL ORDER BY g.given LIMIT %(grants)s) AS g
  ), '[]') AS grants
FROM consent.handover h JOIN consent.subject s ON s.id = h.subject
WHERE h.choice = 'transfer' AND s.key IS NOT NULL AND s.key > %(after)s
ORDER BY s.key LIMIT %(limit)s
"""


def put_charter(connection: Session, principal: Principal, said: dict[str, Any]) -> Written:
    """Publish what the bank says of itself: certification, desk, terms, liability."""
    before = row(connection, SELECT_CHARTER)
    if before is not None and before["body"] == said:
        return unchanged(connection, before["sigma"])
    return write(connection, "CHARTER", principal, said)


def close(
    connection: Session, principal: Principal, closing: UUID, said: dict[str, Any]
) -> Written:
    """End the business: every grant of the bank's delegates ends, nobody may ask any more."""
    before = row(connection, SELECT_CLOSING)
    body = {"closing": str(closing), **said}
    if before is not None:
        if before["body"] != body:
            raise CityError("conflict", "the bank has closed")
        return unchanged(connection, before["sigma"])
    return write(connection, "CLOSE", principal, body)


def choose(connection: Session, principal: Principal, choice: Choice) -> Written:
    """What a person wants of the handover; another word replaces it."""
    before = row(connection, SELECT_CHOICE, person=principal.subject)
    if before is not None and before["choice"] == choice:
        return unchanged(connection, before["sigma"])
    with explained("choice"):
        subject = subject_of(connection, principal.subject)
        return write(connection, "HANDOVER", principal, {"choice": choice}, subject=subject)


def select_bank(connection: Session) -> dict[str, Any]:
    """What the bank publishes: charter, board, counts, closing; None for what there is not."""
    return {
        "charter": row(connection, SELECT_CHARTER),
        "board": rows(connection, SELECT_BOARD),
        "counts": row(connection, SELECT_COUNTS),
        "closing": row(connection, SELECT_CLOSING),
    }


def select_choice(connection: Session, principal: Principal) -> Row | None:
    """What the person said of the handover."""
    return row(connection, SELECT_CHOICE, person=principal.subject)


def select_choices(connection: Session) -> Row | None:
    """How many persons said what of the handover."""
    return row(connection, SELECT_CHOICES)


def select_handed_over(connection: Session, after: str, limit: int) -> list[Row]:
    """Persons who go to the successor, with the grants of theirs that stand."""
    return rows(connection, SELECT_HANDED_OVER, after=after, limit=limit, grants=GRANTS_MAX)
