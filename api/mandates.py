"""Information banks that act for persons: who they are, who appoints them, and what they grant."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.consent import Body, Done, GrantBody, GrantId, Key, done
from api.fields import NO_CONTROL, Moment
from api.preferences import Words
from consent import door, mandates
from consent.results import Row

router = APIRouter(tags=["preferences"], responses=problems.documented("conflict", "too-large"))

DelegateKey = Annotated[
    str,
    Path(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$", examples=["minato-bank"]),
]
MandateId = Annotated[
    UUID, Path(description="yours, made at random: sent again it is the same act")
]
Person = Annotated[
    str,
    Query(
        min_length=1, max_length=256, pattern=NO_CONTROL,
        description="for whom: the `sub` of the person's tokens",
    ),
]  # fmt: skip
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_CONTROL)]


class DelegateBody(Body):
    """Who may be appointed."""

    title_ja: Title
    title_en: Title

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"title_ja": "港情報銀行", "title_en": "Minato bank"}]},
    )


class Delegate(BaseModel):
    """An information bank that persons can appoint."""

    delegate: str
    title: Words


class Delegates(BaseModel):
    """All of them."""

    delegates: list[Delegate]


class MandateBody(Body):
    """Whom a person appoints, and until when; from now on."""

    delegate: Key
    valid_to: Moment
    special: bool = Field(False, description="for data that require care, such as health, too")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"delegate": "minato-bank", "valid_to": "2027-03-31T00:00:00+09:00"}]
        },
    )


class Mandate(BaseModel):
    """One mandate as it stands."""

    id: UUID
    delegate: str
    title: Words
    valid_from: datetime
    valid_to: datetime
    special: bool
    live: bool
    sigma: int


class Mandates(BaseModel):
    """A person's mandates, the newest first; those that have ended too."""

    mandates: list[Mandate]


@router.get("/v1/delegates", response_model=Delegates)
def read_delegates(request: Request) -> Response:
    """Whom the caller can appoint: scope `read:own`."""
    with door.own(request) as connection:
        rows = mandates.select_delegates(connection)
    return door.current(
        {"delegates": [{"delegate": row["key"], "title": _title(row)} for row in rows]}
    )


@router.put("/v1/delegates/{delegate}", response_model=Done)
def put_delegate(request: Request, delegate: DelegateKey, body: DelegateBody) -> Response:
    """Register an information bank, or end its suspension: scope `write:recipients`."""
    return done(
        door.act(
            request,
            "write:recipients",
            lambda c, who: mandates.put_delegate(c, who, delegate, body.title_ja, body.title_en),
        )
    )


@router.delete("/v1/delegates/{delegate}", response_model=Done)
def suspend_delegate(request: Request, delegate: DelegateKey) -> Response:
    """Suspend an information bank: it grants nothing more; what it granted goes on to its end."""
    return done(
        door.act(
            request, "write:recipients", lambda c, who: mandates.suspend_delegate(c, who, delegate)
        )
    )


@router.get("/v1/me/mandates", response_model=Mandates)
def read_mandates(request: Request) -> Response:
    """Whom the caller has appointed: scope `read:own`."""
    with door.own(request) as connection:
        rows = mandates.select_mandates(connection, door.principal_of(request))
    return door.current({"mandates": [_shown(row) for row in rows]})


@router.put("/v1/me/mandates/{mandate}", response_model=Done)
def put_mandate(request: Request, mandate: MandateId, body: MandateBody) -> Response:
    """Appoint an information bank: it grants what the caller's statements allow, and no more."""
    return done(
        door.act(
            request,
            "write:own",
            lambda c, who: mandates.put_mandate(
                c, who, mandate, body.delegate, body.valid_to, body.special
            ),
        )
    )


@router.delete("/v1/me/mandates/{mandate}", response_model=Done)
def end_mandate(request: Request, mandate: MandateId) -> Response:
    """End a mandate; once this answers, nothing that was granted by it is delivered."""
    return done(
        door.act(request, "write:own", lambda c, who: mandates.end_mandate(c, who, mandate))
    )


@router.put("/v1/delegate/grants/{grant}", response_model=Done)
def put_grant(request: Request, grant: GrantId, body: GrantBody, person: Person) -> Response:
    """Grant in a person's place, or narrow it: scope `write:delegated` of an appointed bank.

    Reduced to what the person's statements allow, and to the mandate's time.
    """
    terms = body.terms()
    return done(
        door.act(
            request,
            "write:delegated",
            lambda c, who: mandates.put_grant(c, who, grant, person, terms),
        )
    )


@router.delete("/v1/delegate/grants/{grant}", response_model=Done)
def revoke_grant(request: Request, grant: GrantId, person: Person) -> Response:
    """Take back a grant of the caller's own: scope `write:delegated`."""
    return done(
        door.act(
            request,
            "write:delegated",
            lambda c, who: mandates.revoke_grant(c, who, grant, person),
        )
    )


def _title(row: Row) -> dict[str, str]:
    return {"ja": row["title_ja"], "en": row["title_en"]}


def _shown(row: Row) -> dict[str, Any]:
    names = ("id", "delegate", "valid_from", "valid_to", "special", "live", "sigma")
    return {"title": _title(row), **{name: row[name] for name in names}}
