"""The ethics board (データ倫理審査会): who sits on it, what it is asked, how it votes.

The operator appoints members and puts reviews to them; each votes with a token of its own, and any
of them has the votes counted. What is approved is one recipient's, for purposes and categories with
all below them, until a day. consent.is_reviewed asks for it.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from consent.log import (
    SELECT_NOW,
    Session,
    Written,
    explained,
    one,
    row,
    rows,
    unchanged,
    write,
)
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES
from core.errors import CityError, invalid
from core.tokens import Principal

Expertise = Literal["engineering", "security", "law", "ethics", "consumer", "medicine"]
Vote = Literal["approve", "refuse", "recuse"]
REVIEW_DAYS_MAX = 366
MEMBERS_MAX = 64
"""Of a board; a reader gets all of them, and all votes of a review."""

SELECT_MEMBER = """
SELECT name_ja, name_en, field, outside, seated FROM consent.board_member WHERE key = %(key)s
"""
SELECT_SEATED = "SELECT count(*) FROM consent.board_member WHERE seated"
SELECT_RECIPIENT = "SELECT id FROM consent.recipient WHERE key = %(key)s"
_REVIEW = """
SELECT v.id, r.key AS recipient, v.purposes, v.categories, v.until, v.conditions,
       encode(v.material, 'hex') AS material, v.state, v.opened, v.decided, l.at AS opened_at,
       d.at AS decided_at
FROM consent.review v JOIN consent.recipient r ON r.id = v.recipient
JOIN consent.log l ON l.sigma = v.opened LEFT JOIN consent.log d ON d.sigma = v.decided
"""
SELECT_REVIEW = f"{_REVIEW} WHERE v.id = %(review)s"
SELECT_REVIEWS = f"""{_REVIEW}
WHERE v.opened < %(before)s AND (%(recipient)s = '' OR r.key = %(recipient)s)
ORDER BY v.opened DESC LIMIT %(limit)s
"""
SELECT_VOTES = """
SELECT v.member, m.name_ja, m.name_en, m.field, m.outside, m.seated, v.vote, v.interest, v.reason,
       l.at
FROM consent.review_vote v JOIN consent.board_member m ON m.key = v.member
JOIN consent.log l ON l.sigma = v.sigma
WHERE v.review = %(review)s ORDER BY v.sigma LIMIT %(limit)s
"""
SELECT_VOTE = """
SELECT vote, interest, reason, sigma FROM consent.review_vote
WHERE review = %(review)s AND member = %(member)s
"""
SELECT_CARRIED = "SELECT consent.carried(%(review)s)"


@dataclass(frozen=True, slots=True)
class Member:
    """A seat of the board."""

    name_ja: str
    name_en: str
    field: Expertise
    outside: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What the board is asked: to let a recipient ask persons for these purposes of these data."""

    recipient: str
    purposes: tuple[str, ...]
    categories: tuple[str, ...]
    until: datetime
    conditions: str
    material: str


def appoint(connection: Session, principal: Principal, key: str, member: Member) -> Written:
    """Give someone a seat, or change what is said of its holder."""
    before = row(connection, SELECT_MEMBER, key=key)
    if before == {**asdict(member), "seated": True}:
        return unchanged(connection)
    if (before is None or not before["seated"]) and one(connection, SELECT_SEATED) >= MEMBERS_MAX:
        raise CityError("conflict", f"the board has {MEMBERS_MAX} members: dismiss one first")
    return write(connection, "APPOINT", principal, {"key": key, **asdict(member)})


def dismiss(connection: Session, principal: Principal, key: str) -> Written:
    """End a seat: its holder's votes count no more."""
    before = row(connection, SELECT_MEMBER, key=key)
    if before is None:
        raise CityError("not-found", f"there is no member {key!r} of the board")
    if not before["seated"]:
        return unchanged(connection)
    return write(connection, "DISMISS", principal, {"key": key})


def put_review(
    connection: Session, principal: Principal, review: UUID, question: Question
) -> Written:
    """Put a question to the board."""
    for name, tree in (("purposes", PURPOSES), ("categories", CATEGORIES)):
        for code in getattr(question, name):
            tree.check(name, code)
    before = row(connection, SELECT_REVIEW, review=review)
    if before is not None:
        asked = {name: before[name] for name in asdict(question)}
        if asked != {**asdict(question), "purposes": list(question.purposes),
                     "categories": list(question.categories)}:  # fmt: skip
            raise CityError("conflict", "another review has this id")
        return unchanged(connection, before["opened"])
    now = one(connection, SELECT_NOW)
    if not now < question.until <= now + timedelta(days=REVIEW_DAYS_MAX):
        raise invalid("until", f"is to come, within {REVIEW_DAYS_MAX} days: the board looks again")
    body: dict[str, Any] = {
        "review": str(review),
        "recipient": one(connection, SELECT_RECIPIENT, key=question.recipient, field="recipient"),
        "purposes": list(question.purposes),
        "categories": list(question.categories),
        "purposes_reach": PURPOSES.reached(question.purposes),
        "categories_reach": CATEGORIES.reached(question.categories),
        "until": question.until.isoformat(),
        "conditions": question.conditions,
        "material": question.material,
    }
    with explained("review"):
        return write(connection, "REVIEW", principal, body)


def put_vote(
    connection: Session,
    principal: Principal,
    review: UUID,
    vote: Vote,
    interest: str | None,
    reason: str,
) -> Written:
    """The caller's vote, or another in its place. Who has an interest recuses itself."""
    if (interest is not None) != (vote == "recuse"):
        raise invalid("interest", "who declares one recuses itself, and nobody else does")
    select_review(connection, review)
    said = {"vote": vote, "interest": interest, "reason": reason}
    before = row(connection, SELECT_VOTE, review=review, member=principal.name)
    if before is not None and before == {**said, "sigma": before["sigma"]}:
        return unchanged(connection, before["sigma"])
    body = {"review": str(review), "member": principal.name, **said}
    with explained("review"):
        return write(connection, "VOTE", principal, body)


def decide(connection: Session, principal: Principal, review: UUID) -> Written:
    """Have the votes counted. An approval may be taken back by a new count, never given by one."""
    before = select_review(connection, review)
    carried = one(connection, SELECT_CARRIED, review=review)
    if carried is None:
        raise CityError(
            "conflict",
            "there is no quorum: three votes and more than half of the seats, with one from "
            "outside and one for consumers",
        )
    if before["state"] == carried:
        return unchanged(connection, before["decided"])
    with explained("review"):
        return write(connection, "DECIDE", principal, {"review": str(review)})


def select_review(connection: Session, review: UUID) -> Row:
    """One review; CityError `not-found`."""
    found = row(connection, SELECT_REVIEW, review=review)
    if found is None:
        raise CityError("not-found", f"there is no review {review}")
    return found


def select_votes(connection: Session, review: UUID) -> list[Row]:
    """The votes of a review as they are now; those of members without a seat do not count."""
    return rows(connection, SELECT_VOTES, review=review, limit=10 * MEMBERS_MAX)


def select_reviews(connection: Session, recipient: str, before: int, limit: int) -> list[Row]:
    """Up to `limit` reviews before an act's number, newest first; of one recipient, "": of all."""
    return rows(connection, SELECT_REVIEWS, recipient=recipient, before=before, limit=limit)
