"""Guardians: who may act for whom, as an operator registers it and as those people see it."""

from dataclasses import fields
from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.consent import Body, Done, done
from api.fields import NO_CONTROL, Moment
from consent import door, guardians
from consent.guardians import Guardianship

router = APIRouter(tags=["guardians"], responses=problems.documented("conflict", "too-large"))

GuardianshipId = Annotated[UUID, Path(description="yours, made at random")]
Person = Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL)]
Kind = Literal["parent", "guardian-of-minor", "guardian-of-adult", "appointed-guardian"]


class GuardianshipBody(Body):
    """Who acts for whom; `born` of a minor, for the guardianship ends when the ward is of age."""

    ward: Person
    guardian: Person
    kind: Kind
    born: date | None = None
    valid_from: Moment | None = Field(None, description="left out: from now on")
    valid_to: Moment | None = Field(None, description="exclusive; left out: no other end")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"ward": "ai", "guardian": "mio", "kind": "parent", "born": "2015-04-01"}]
        },
    )


class Registered(BaseModel):
    """One guardianship, as its ward and its guardian see it."""

    id: UUID
    ward: str
    guardian: str
    kind: Kind
    title: dict[str, str]
    law: str
    valid_from: datetime
    valid_to: datetime | None
    live: bool


class Guardianships(BaseModel):
    """Of the caller: as a ward and as a guardian."""

    guardianships: list[Registered]


@router.put("/v1/consent/guardianships/{guardianship}", response_model=Done)
def put_guardianship(
    request: Request, guardianship: GuardianshipId, body: GuardianshipBody
) -> Response:
    """Register who acts for whom, by what proves it: scope `write:guardians`."""
    said = Guardianship(**{each.name: getattr(body, each.name) for each in fields(Guardianship)})
    return done(
        door.act(
            request,
            "write:guardians",
            lambda c, who: guardians.put_guardianship(c, who, guardianship, said),
        )
    )


@router.delete("/v1/consent/guardianships/{guardianship}", response_model=Done)
def end_guardianship(request: Request, guardianship: GuardianshipId) -> Response:
    """End one now: what was granted by it is read by nobody any more once this answers."""
    return done(
        door.act(
            request,
            "write:guardians",
            lambda c, who: guardians.end_guardianship(c, who, guardianship),
        )
    )


@router.get("/v1/me/guardianships", response_model=Guardianships)
def read_guardianships(request: Request) -> Response:
    """Whom the caller acts for, and who acts for the caller: scope `read:own`."""
    with door.own(request) as connection:
        rows = guardians.select_of_person(connection, door.principal_of(request))
    kinds = guardians.KINDS
    shown = [
        {
            **row,
            "title": {"ja": kinds[row["kind"]].ja, "en": kinds[row["kind"]].en},
            "law": kinds[row["kind"]].law,
        }
        for row in rows
    ]
    return door.current({"guardianships": shown})
