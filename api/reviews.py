"""The ethics board: operators seat members and ask, members vote, any of them has it counted."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api import problems
from api.consent import Body, Code, Done, Key, done
from api.fields import After, Limit, Moment, next_url, open_cursor, page_size
from api.recipients import Short, Text
from api.schemas import example
from consent import door, reviews
from consent.results import Row
from consent.reviews import Expertise, Member, Question, Vote
from core.errors import invalid

PAGE_DEFAULT = 100
SCOPE_MAX = 32
"""Purposes, and categories, of one question."""
SIGMA_MAX = 2**63 - 1

router = APIRouter(
    tags=["information bank"], responses=problems.documented("conflict", "too-large")
)

ReviewId = Annotated[UUID, Path(description="yours, made at random: sent again it is the same act")]
MemberKey = Annotated[
    str,
    Path(
        description="the `sub` of the member's tokens",
        min_length=1,
        max_length=64,
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        examples=["mori"],
    ),
]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256")]


class MemberBody(Body):
    """Who sits on the board, and for what."""

    name_ja: Short
    name_en: Short
    field: Expertise
    outside: bool = Field(description="of no part of the bank")

    model_config = example(name_ja="森 葵", name_en="Mori Aoi", field="consumer", outside=True)


class ReviewBody(Body):
    """Whether a recipient may ask persons for these purposes of these data, until a day."""

    recipient: Key
    purposes: list[Code] = Field(min_length=1, max_length=SCOPE_MAX)
    categories: list[Code] = Field(min_length=1, max_length=SCOPE_MAX)
    until: Moment = Field(description=f"within {reviews.REVIEW_DAYS_MAX} days")
    conditions: Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")] = ""
    material: Digest = Field(description="SHA-256 of what the board reads: contract, notice")

    model_config = example(
        recipient="yui-mobility",
        purposes=["dpv:ImproveTransportMobility"],
        categories=["pd:TravelHistory"],
        until="2027-03-31T00:00:00+09:00",
        conditions="150 m より細かい位置は求めない",
        material="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    )


class VoteBody(Body):
    """A member's vote, or another in its place."""

    vote: Vote
    reason: Text
    interest: Text | None = Field(None, description="a conflict of interest: then recuse yourself")

    model_config = example(vote="approve", reason="目的が限定され、便益が明らかである")


class Review(BaseModel):
    """A question to the board and what became of it."""

    id: UUID
    recipient: str
    purposes: list[str]
    categories: list[str]
    until: datetime
    conditions: str
    material: str
    state: str = Field(description="open, approved, refused, or lapsed: what it was about changed")
    opened_at: datetime
    decided_at: datetime | None


class Cast(BaseModel):
    """One member's vote."""

    member: str
    name: dict[str, str]
    field: Expertise
    outside: bool
    seated: bool = Field(description="without a seat it does not count")
    vote: Vote
    interest: str | None
    reason: str
    at: datetime


class ReviewWithVotes(Review):
    """A review with the votes as they are now."""

    votes: list[Cast]


class Reviews(BaseModel):
    """A page of reviews, the newest first."""

    reviews: list[Review]
    next: str | None


@router.put("/v1/bank/board/{member}", response_model=Done)
def put_member(request: Request, member: MemberKey, body: MemberBody) -> Response:
    """Seat a member, or change what is said of one: scope `write:bank`."""
    seat = Member(**body.model_dump())
    return done(
        door.act(request, "write:bank", lambda c, who: reviews.appoint(c, who, member, seat))
    )


@router.delete("/v1/bank/board/{member}", response_model=Done)
def dismiss_member(request: Request, member: MemberKey) -> Response:
    """End a seat: its holder's votes count no more. Scope `write:bank`."""
    return done(door.act(request, "write:bank", lambda c, who: reviews.dismiss(c, who, member)))


@router.get("/v1/bank/reviews", response_model=Reviews)
def read_reviews(
    request: Request,
    recipient: Annotated[
        str, Query(max_length=64, pattern=r"^[a-z0-9_-]*$", description="of this one alone")
    ] = "",
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What the board was asked, the newest first: scope `read:bank`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = _sigma(open_cursor(after))
    with door.own(request, "read:bank") as connection:
        rows = reviews.select_reviews(connection, recipient, before, size + 1)
    more = str(rows[size - 1]["opened"]) if len(rows) > size else None
    body = {"reviews": [_shown(row) for row in rows[:size]], "next": next_url(request, more)}
    return door.current(body)


@router.get("/v1/bank/reviews/{review}", response_model=ReviewWithVotes)
def read_review(request: Request, review: ReviewId) -> Response:
    """One review with its votes and their reasons: scope `read:bank`."""
    with door.own(request, "read:bank") as connection:
        found = reviews.select_review(connection, review)
        votes = reviews.select_votes(connection, review)
    return door.current(_shown(found) | {"votes": [_cast(vote) for vote in votes]})


@router.put("/v1/bank/reviews/{review}", response_model=Done)
def put_review(request: Request, review: ReviewId, body: ReviewBody) -> Response:
    """Put a question to the board: scope `write:bank`."""
    said = body.model_dump(exclude={"purposes", "categories"})
    question = Question(purposes=tuple(body.purposes), categories=tuple(body.categories), **said)
    return done(
        door.act(request, "write:bank", lambda c, who: reviews.put_review(c, who, review, question))
    )


@router.put("/v1/bank/reviews/{review}/vote", response_model=Done)
def put_vote(request: Request, review: ReviewId, body: VoteBody) -> Response:
    """The caller's own vote: scope `write:votes`, which members alone have."""
    return done(
        door.act(
            request,
            "write:votes",
            lambda c, who: reviews.put_vote(c, who, review, body.vote, body.interest, body.reason),
        )
    )


@router.put("/v1/bank/reviews/{review}/decision", response_model=Done)
def put_decision(request: Request, review: ReviewId) -> Response:
    """Have the votes counted: scope `write:votes`.

    Counted again it may take an approval back; it never gives one after a refusal.
    """
    return done(door.act(request, "write:votes", lambda c, who: reviews.decide(c, who, review)))


def _sigma(cursor: str) -> int:
    if not cursor:
        return SIGMA_MAX
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < len(str(SIGMA_MAX))):
        raise invalid("after", "take it from `next` as it is")
    return int(cursor)


def _shown(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in Review.model_fields}


def _cast(row: Row) -> dict[str, Any]:
    kept = {name: row[name] for name in Cast.model_fields if name != "name"}
    return kept | {"name": {"ja": row["name_ja"], "en": row["name_en"]}}
