"""Emergency overrides: one operator asks, another approves; whom it touched sees it and is told."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import domains
from api import problems
from api.consent import Body, Code, Done, Key, done
from api.fields import NO_CONTROL, Moment
from api.guardians import Person
from api.schemas import Titles
from api.transfers import Text
from consent import door, overrides
from consent.overrides import Emergency
from consent.results import Row
from consent.vocabulary import EMERGENCIES

router = APIRouter(tags=["emergencies"], responses=problems.documented("conflict", "too-large"))

OverrideId = Annotated[UUID, Path(description="yours, made at random")]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Thing = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL)]


class OverrideBody(Body):
    """What is asked for, and why nobody can be asked; `area` or `things`."""

    recipient: Key
    purpose: Code = Field(description="one of an emergency's")
    category: Code
    sector: Annotated[str, Field(min_length=1, max_length=64, pattern=NO_CONTROL)]
    event_from: Moment = Field(description="of the data, inclusive")
    event_to: Moment = Field(description="of the data, exclusive: at most a week later")
    reason: Text = Field(description="what has happened")
    authority: Text = Field(description="who asked for it, and under which number")
    hardship: Text = Field(description="why consent is hard to get")
    hours: int = Field(ge=1, le=24, description="how long it holds once it is approved")
    area: list[tuple[Longitude, Latitude]] | None = Field(
        None, min_length=3, max_length=1000, description="corners of a polygon, degrees"
    )
    things: list[Thing] | None = Field(None, min_length=1, max_length=1000)

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "recipient": "fire-brigade",
                    "purpose": "infra:CriticalEmergencyResponseManagement",
                    "category": "pd:MedicalHealth",
                    "sector": "health",
                    "event_from": "2026-11-23T00:00:00+09:00",
                    "event_to": "2026-11-24T00:00:00+09:00",
                    "reason": "Landslide in Asahi-cho; people are missing.",
                    "authority": "Fire brigade of the city, request 2026-118",
                    "hardship": "The missing cannot be reached.",
                    "hours": 12,
                    "area": [[139.70, 35.65], [139.72, 35.65], [139.72, 35.67], [139.70, 35.67]],
                }
            ]
        },
    )


class ToldBody(Body):
    """Who was told, and how."""

    persons: list[Person] = Field(min_length=1, max_length=1000)
    how: Text = Field(examples=["letter"])


class ToTell(BaseModel):
    """One person whom an override touched."""

    person: str
    since: datetime
    tell_by: datetime
    told_at: datetime | None
    how: str | None


class Override(BaseModel):
    """One override as it stands."""

    id: UUID
    recipient: str
    title: Titles
    purpose: str
    legal_basis: str = Field(description="the item of APPI Art. 27(1)")
    category: str
    sector: str
    event_from: datetime
    event_to: datetime
    reason: str
    authority: str
    hardship: str
    valid_from: datetime | None = Field(description="null: not approved")
    valid_to: datetime | None


class Asked(Override):
    """One override as operators see it."""

    area: str | None
    things: list[str] | None
    hours: int
    proposer: str
    proposed_at: datetime
    approver: str | None
    ended: bool
    live: bool
    persons: list[ToTell] = Field(description="whom it touched; those who are not told yet first")


class Touched(Override):
    """One override by which something of the caller was read."""

    since: datetime = Field(description="when it was first read")
    tell_by: datetime
    told_at: datetime | None
    how: str | None


class TouchedBy(BaseModel):
    """The newest first."""

    overrides: list[Touched]


@router.put("/v1/consent/overrides/{override}", response_model=Done)
def put_override(request: Request, override: OverrideId, body: OverrideBody) -> Response:
    """Ask for an override: scope `write:overrides`. Nothing opens before another one approves."""
    said = Emergency(
        **body.model_dump(exclude={"sector", "area", "things"}),
        sector=domains.sector(body.sector).name,
        area=tuple(body.area or ()),
        things=tuple(body.things or ()),
    )
    return done(
        door.act(
            request, "write:overrides", lambda c, who: overrides.propose(c, who, override, said)
        )
    )


@router.put("/v1/consent/overrides/{override}/approval", response_model=Done)
def approve_override(request: Request, override: OverrideId) -> Response:
    """Approve what another operator asked for: it holds from now on, for its hours."""
    return done(
        door.act(request, "write:overrides", lambda c, who: overrides.approve(c, who, override))
    )


@router.delete("/v1/consent/overrides/{override}", response_model=Done)
def end_override(request: Request, override: OverrideId) -> Response:
    """End it now: once this answers, nothing of it is delivered any more."""
    return done(
        door.act(request, "write:overrides", lambda c, who: overrides.end(c, who, override))
    )


@router.get("/v1/consent/overrides/{override}", response_model=Asked)
def read_override(request: Request, override: OverrideId) -> Response:
    """An override and whom it touched, with the time by which each is to be told."""
    with door.having(request, "write:overrides", "an override") as connection:
        return door.current(_shown(overrides.select_override(connection, override)))


@router.put("/v1/consent/overrides/{override}/told", response_model=Done)
def put_told(request: Request, override: OverrideId, body: ToldBody) -> Response:
    """Write down who was told of it, and how."""
    return done(
        door.act(
            request,
            "write:overrides",
            lambda c, who: overrides.tell(c, who, override, body.persons, body.how),
        )
    )


@router.get("/v1/me/overrides", response_model=TouchedBy)
def read_touched(request: Request) -> Response:
    """Every override by which something of the caller was read: scope `read:own`."""
    with door.own(request) as connection:
        rows = overrides.select_of_person(connection, door.principal_of(request))
    return door.current({"overrides": [_shown(row) for row in rows]})


@router.put("/v1/me/overrides/{override}/read", response_model=Done)
def put_read(request: Request, override: OverrideId) -> Response:
    """Say that one has read of it: scope `write:own`."""
    return done(
        door.act(request, "write:own", lambda c, who: overrides.acknowledge(c, who, override))
    )


def _shown(row: Row) -> dict[str, Any]:
    title = {"ja": row.pop("title_ja"), "en": row.pop("title_en")}
    return {**row, "title": title, "legal_basis": EMERGENCIES[row["purpose"]]}
