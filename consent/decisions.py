"""The few decisions that need a person: requests that statements do not settle, ranked, alike ones
together; and the person's answers.

A yes is the person's own grant. `always` and `never` state it for what is alike, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID, uuid5

from consent import log, preferences
from consent.log import Session, Written
from consent.matching import Matched, Statement, Verdict, match
from consent.presets import SPACE
from consent.recipient_kinds import KINDS
from consent.requests import asked_of, grant_body, select_open
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES
from core.errors import CityError, invalid
from core.tokens import Principal

ALIKE_MAX = 20
"""So many requests are answered at once."""
HOME = "JP"


class Answer(StrEnum):
    """What a person says to a request."""

    YES = "yes"
    NO = "no"
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Score:
    """Why a decision comes first: what is most at stake, most useful, longest asked."""

    sensitivity: int
    """3: requires care; 2: where the person is, or needs a word of its own; 1: other."""
    reach: int
    """One for each: leaves Japan, is passed on, goes to a kind that decides about persons."""
    benefit: int
    """Of the purpose, for the person: 3 care and what the person asked for, to 0 for selling."""
    age: int
    """1 after a week, 2 after a month."""

    @property
    def total(self) -> int:
        """The order."""
        return 4 * self.sensitivity + 3 * self.reach + 2 * self.benefit + self.age


BENEFITS = {
    "health:ServiceProvision": 3,
    "health:EmergencyCareManagement": 3,
    "dpv:RequestedServiceProvision": 3,
    "public:PublicServiceProvision": 2,
    "dpv:PublicBenefit": 2,
    "dpv:ResearchAndDevelopment": 2,
    "health:PublicHealthSurveillance": 2,
    "dpv:CommercialResearch": 1,
    "dpv:SellDataToThirdParties": 0,
    "dpv:SellInsightsFromData": 0,
    "dpv:Marketing": 0,
}
"""What a purpose is for the person; it, or the nearest above it, else 1."""
AGES = ((30, 2), (7, 1))


@dataclass(frozen=True, slots=True)
class Decision:
    """Requests that are alike, the oldest first: one answer will do for all of them."""

    rows: Sequence[Row]
    matched: Matched
    score: Score


def settled(connection: Session, principal: Principal) -> list[tuple[Row, Matched]]:
    """Every open request that is about the person, and what the person's statements say to it."""
    found = log.row(connection, preferences.SELECT_NUMBER, key=principal.subject)
    if found is None:
        return []
    subject = found["id"]
    said = preferences.statements_of(connection, [subject])[subject]
    rows = select_open(connection, [subject], answered=True)
    return [(row, match(said, asked_of(row))) for row in rows]


def select_decisions(connection: Session, principal: Principal) -> list[Decision]:
    """What the person has to decide, what matters most first."""
    groups: dict[tuple[object, ...], list[tuple[Row, Matched]]] = {}
    for row, matched in settled(connection, principal):
        if not row["answered"] and matched.verdict is Verdict.ASK:
            groups.setdefault(likeness(row, matched), []).append((row, matched))
    now = log.one(connection, log.SELECT_NOW)
    decisions = [
        Decision([row for row, _ in group], group[0][1], score(group[0][0], now))
        for group in groups.values()
    ]
    return sorted(decisions, key=lambda each: -each.score.total)


def likeness(row: Row, matched: Matched) -> tuple[object, ...]:
    """What requests have in common that are answered together: all but who asks, and of when."""
    names = ("purpose", "category", "operation", "kind")
    return (*(row[name] for name in names), tuple(row["countries"]), matched.level)


def score(row: Row, now: datetime) -> Score:
    """How much a request matters to the person."""
    category, above = row["category"], CATEGORIES.above(row["category"])
    special = CATEGORIES.is_special(category)
    explicit = any(CATEGORIES.terms[each].explicit for each in above)
    decides = row["kind"] not in KINDS or KINDS.terms[row["kind"]].explicit
    abroad = tuple(row["countries"]) != (HOME,)
    waited = (now - row["valid"].lower.astimezone(UTC)).days
    return Score(
        3 if special else 2 if explicit or "pd:Location" in above else 1,
        abroad + (row["operation"] == "reshare") + decides,
        next((BENEFITS[p] for p in PURPOSES.above(row["purpose"]) if p in BENEFITS), 1),
        next((points for days, points in AGES if waited >= days), 0),
    )


def put_answer(
    connection: Session,
    principal: Principal,
    request: UUID,
    answer: Answer,
    alike: Sequence[UUID],
) -> Written:
    """Answer a request, and the alike ones that the person saw with it."""
    subject = log.subject_of(connection, principal.subject)
    said = preferences.statements_of(connection, [subject])[subject]
    rows = _asked(connection, subject, [request, *alike])
    found = [match(said, asked_of(row)) for row in rows]
    if len({likeness(*each) for each in zip(rows, found, strict=True)}) > 1:
        raise invalid("alike", "answer together what is one decision in /v1/me/decisions")
    stated = None
    if answer in (Answer.ALWAYS, Answer.NEVER):
        stated = _general(rows[0], found[0], answer)
        if stated not in said:
            said = [*said, stated]
        else:
            stated = None
    if answer in (Answer.YES, Answer.ALWAYS):
        now = log.one(connection, log.SELECT_NOW)
        found = [match(said, asked_of(row)) for row in rows]
        _check(answer, found)
        acts = [
            ("GRANT", grant_body(row, matched, now))
            for row, matched in zip(rows, found, strict=True)
            if row["live"] is None
        ]
    else:
        acts = [
            ("DECLINE", {"request": str(row["id"])})
            for row in rows
            if row["live"] is not None or not row["answered"]
        ]
    if stated is not None:
        acts.insert(0, ("PREFER", preferences.body_of(stated)))
    done = log.unchanged(connection)
    with log.explained("request"):
        for act, body in acts:
            written = log.write(connection, act, principal, body, subject=subject)
            done = replace(written, less=tuple({*done.less, *written.less}))
    return done


def _asked(connection: Session, subject: int, ids: Sequence[UUID]) -> list[Row]:
    """Open requests about a person, by their ids; CityError `not-found` where one is missing."""
    rows = []
    for each in dict.fromkeys(ids):
        found = select_open(connection, [subject], request=each, answered=True)
        if not found:
            raise CityError("not-found", f"there is no open request {each} about you")
        rows += found
    return rows


def _check(answer: Answer, found: Sequence[Matched]) -> None:
    """CityError `conflict` where the person said otherwise in general."""
    verdicts = {matched.verdict for matched in found}
    if Verdict.REFUSE in verdicts:
        raise CityError("conflict", "you stated to refuse this: change that statement first")
    if answer is Answer.ALWAYS and verdicts != {Verdict.ALLOW}:
        raise CityError(
            "conflict", "you stated to be asked, or nobody knows what kind of recipient this is"
        )


def _general(row: Row, matched: Matched, answer: Answer) -> Statement:
    """The answer as a statement about what is alike. Other operations and countries are asked."""
    asked = asked_of(row)
    if asked.kind is None:
        raise CityError("conflict", "nobody has recorded what kind of recipient this is")
    said = Statement(
        uuid5(SPACE, f"{answer} {row['id']} {row['subject']}"),
        Verdict.REFUSE,
        (asked.purpose,),
        (asked.category,),
        (asked.kind,),
    )
    if answer is Answer.NEVER:
        return said
    return replace(
        said,
        verdict=Verdict.ALLOW,
        level=matched.level,
        operations=(asked.operation,),
        countries=asked.countries,
        otherwise=Verdict.ASK,
    )
