"""What recipients ask for, and the few decisions about it that a person has to take."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import domains
from api import problems
from api.consent import Body, Code, Done, Resolution, done
from api.fields import Limit, Moment
from api.preferences import Words
from consent import decisions, door, reasons, requests
from consent.decisions import ALIKE_MAX, Answer, Decision
from consent.levels import LEVELS
from consent.matching import Matched, Verdict
from consent.recipient_kinds import KINDS
from consent.requests import Wanted
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES, Operation
from core.errors import invalid

DECISIONS_MAX = 10
REQUESTS_MAX = 100
TEXT_CHARACTERS_MAX = 4000
RETENTION_DAYS_MAX = 3653

router = APIRouter(tags=["preferences"], responses=problems.documented("conflict", "too-large"))

RequestId = Annotated[UUID, Path(description="of the recipient, made at random")]
Text = Annotated[
    str,
    Field(min_length=1, max_length=TEXT_CHARACTERS_MAX, pattern=r"^[^\x00-\x09\x0b-\x1f\x7f]*$"),
]


class RequestBody(Body):
    """What a recipient asks of everyone: it names nobody, and is never changed."""

    purpose: Code
    category: Code
    operation: Operation = Operation.READ
    event_from: Moment = Field(description="of the data, inclusive")
    event_to: Moment | None = Field(None, description="of the data; left out: no end")
    valid_to: Moment = Field(description="how long it would read; at most three years")
    resolution: Resolution = "exact"
    notice_ja: Text = Field(description="what the person reads")
    notice_en: Text
    benefit_ja: Text = Field(description="what the person has of it")
    benefit_en: Text
    retention_days: int = Field(ge=1, le=RETENTION_DAYS_MAX)
    sector: str | None = Field(
        None, max_length=64, description="ask those whom a Thing of this sector describes"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "purpose": "dpv:ImproveTransportMobility",
                    "category": "pd:TravelHistory",
                    "event_from": "2026-01-01T00:00:00+09:00",
                    "valid_to": "2027-03-31T00:00:00+09:00",
                    "resolution": "hour",
                    "notice_ja": "バスの時刻を見直すため、移動の記録を1時間ごとに使います。",
                    "notice_en": "We use where people went, by the hour, to plan bus times.",
                    "benefit_ja": "待ち時間が短くなります。",
                    "benefit_en": "Shorter waits at your stop.",
                    "retention_days": 90,
                }
            ]
        },
    )


class AskedRequest(BaseModel):
    """A request of the caller's, and what became of it, in tens of persons."""

    id: UUID
    purpose: str
    category: str
    operation: Operation
    event_from: datetime
    event_to: datetime | None
    valid_from: datetime
    valid_to: datetime
    resolution: Resolution
    countries: list[str]
    notice: str = Field(description="SHA-256 of the Japanese text, a line feed, the English one")
    retention_days: int
    sector: str | None
    open: bool
    granted: int = Field(description="live grants, rounded down to tens: below ten it is 0")


class AskedRequests(BaseModel):
    """A recipient's requests, the newest first."""

    requests: list[AskedRequest]


class Why(BaseModel):
    """A reason in plain words, and the statement that it comes from."""

    code: str
    text: Words
    preference: UUID | None


class Asking(BaseModel):
    """One request as a person reads it."""

    request: UUID
    recipient: str
    title: Words
    event_from: datetime
    event_to: datetime | None
    valid_to: datetime
    notice: Words
    notice_sha256: str
    benefit: Words
    retention_days: int


class Question(BaseModel):
    """What requests have in common that are answered together."""

    purpose: str
    purpose_title: Words
    category: str
    category_title: Words
    kind: str | None
    kind_title: Words
    operation: Operation
    resolution: Resolution = Field(description="as it would be shown")
    countries: list[str]
    verdict: Verdict
    reasons: list[Why]


class OwnRequest(Question, Asking):
    """A request about the caller, and what became of it."""

    state: Literal["granted", "allowed", "asked", "refused", "answered"]


class OwnRequests(BaseModel):
    """Every open request about the caller."""

    requests: list[OwnRequest]


class Score(BaseModel):
    """Why it is where it is: 4 × sensitivity + 3 × reach + 2 × benefit + age."""

    sensitivity: int
    reach: int
    benefit: int
    age: int
    total: int


class DecisionShown(Question):
    """One decision: of requests that are alike, the oldest first."""

    score: Score
    requests: list[Asking]


class Decisions(BaseModel):
    """What the caller has to decide, what matters most first; `more`: how many wait behind."""

    decisions: list[DecisionShown]
    more: int


class AnswerBody(Body):
    """An answer; `always` and `never` hold for what is alike from now on, too."""

    answer: Answer
    alike: list[UUID] = Field(
        [], max_length=ALIKE_MAX - 1, description="other requests of the same decision"
    )

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"answer": "yes", "alike": []}]}
    )


@router.put("/v1/requests/{request_id}", response_model=Done)
def put_request(request: Request, request_id: RequestId, body: RequestBody) -> Response:
    """Ask everyone whose data it would be: scope `write:requests`, after the ethics review."""
    if body.sector is not None and body.sector not in domains.names():
        raise invalid("sector", f"{body.sector!r} is not in /v1/sectors")
    wanted = Wanted(**body.model_dump())
    return done(
        door.act(
            request,
            "write:requests",
            lambda c, who: requests.put_request(c, who, request_id, wanted),
        )
    )


@router.delete("/v1/requests/{request_id}", response_model=Done)
def withdraw_request(request: Request, request_id: RequestId) -> Response:
    """Ask no more; grants that were given stay."""
    return done(
        door.act(request, "write:requests", lambda c, who: requests.withdraw(c, who, request_id))
    )


@router.get("/v1/requests", response_model=AskedRequests)
def read_requests(request: Request) -> Response:
    """The caller's own requests: scope `write:requests`."""
    with door.own(request, "write:requests") as connection:
        rows = requests.select_asked(connection, door.principal_of(request), REQUESTS_MAX)
    names = set(AskedRequest.model_fields) - {"resolution"}
    shown = [
        {"resolution": LEVELS[row["level"]].name, **{name: row[name] for name in names}}
        for row in rows
    ]
    return door.current({"requests": shown})


@router.get("/v1/me/requests", response_model=OwnRequests)
def read_own_requests(request: Request) -> Response:
    """Every open request about the caller: allowed, asked or refused, and why."""
    with door.own(request) as connection:
        found = decisions.settled(connection, door.principal_of(request))
    shown = [
        {**_question(row, matched), **_asking(row), "state": _state(row, matched)}
        for row, matched in found
    ]
    return door.current({"requests": shown})


@router.get("/v1/me/decisions", response_model=Decisions)
def read_decisions(request: Request, limit: Limit = None) -> Response:
    """The few decisions that need the caller, what matters most first, ten at most: `read:own`."""
    with door.own(request) as connection:
        found = decisions.select_decisions(connection, door.principal_of(request))
    shown = [_decision(each) for each in found[: min(limit or DECISIONS_MAX, DECISIONS_MAX)]]
    return door.current({"decisions": shown, "more": len(found) - len(shown)})


@router.put("/v1/me/decisions/{request_id}", response_model=Done)
def put_answer(request: Request, request_id: RequestId, body: AnswerBody) -> Response:
    """Answer a request, and the alike ones that were shown with it: scope `write:own`.

    A no, also after a yes, ends what was granted for it.
    """
    return done(
        door.act(
            request,
            "write:own",
            lambda c, who: decisions.put_answer(c, who, request_id, body.answer, body.alike),
        )
    )


def _decision(found: Decision) -> dict[str, Any]:
    score = found.score
    return {
        **_question(found.rows[0], found.matched),
        "score": {
            "sensitivity": score.sensitivity,
            "reach": score.reach,
            "benefit": score.benefit,
            "age": score.age,
            "total": score.total,
        },
        "requests": [_asking(row) for row in found.rows[:ALIKE_MAX]],
    }


def _question(row: Row, matched: Matched) -> dict[str, Any]:
    asked = requests.asked_of(row)
    return {
        "purpose": row["purpose"],
        "purpose_title": reasons.title(PURPOSES, row["purpose"]),
        "category": row["category"],
        "category_title": reasons.title(CATEGORIES, row["category"]),
        "kind": row["kind"],
        "kind_title": reasons.title(KINDS, row["kind"]),
        "operation": row["operation"],
        "resolution": LEVELS[matched.level].name,
        "countries": row["countries"],
        "verdict": matched.verdict,
        "reasons": [
            {
                "code": each.code,
                "text": reasons.explain(each, matched, asked),
                "preference": each.statement and each.statement.id,
            }
            for each in matched.reasons
        ],
    }


def _asking(row: Row) -> dict[str, Any]:
    return {
        "request": row["id"],
        "recipient": row["recipient"],
        "title": {"ja": row["title_ja"], "en": row["title_en"]},
        "event_from": row["event"].lower,
        "event_to": row["event"].upper,
        "valid_to": row["valid"].upper,
        "notice": row["told"]["notice"],
        "notice_sha256": row["notice"],
        "benefit": row["told"]["benefit"],
        "retention_days": row["retention_days"],
    }


STATES = {Verdict.ALLOW: "allowed", Verdict.ASK: "asked", Verdict.REFUSE: "refused"}


def _state(row: Row, matched: Matched) -> str:
    if row["live"] is not None:
        return "granted"
    return "answered" if row["answered"] else STATES[matched.verdict]
