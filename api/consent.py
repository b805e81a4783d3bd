"""Consent: what a person grants, narrows, takes back and objects to; whom a Thing describes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.fields import NO_CONTROL, KnownSector, Moment, ThingId
from consent import areas, door, grants
from consent.grants import Terms
from consent.levels import LEVELS
from consent.log import Written
from consent.recipient_kinds import KINDS
from consent.results import Row
from consent.vocabulary import CATEGORIES, PURPOSES, Operation, Tree

PERSONS_MAX = 32
COUNTRIES_MAX = 32

router = APIRouter(tags=["consent"], responses=problems.documented("conflict", "too-large"))

GrantId = Annotated[UUID, Path(description="yours, made at random: sent again it is the same act")]
Key = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Code = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_CONTROL)]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1")]
Resolution = Literal["exact", "minute", "quarter", "hour", "day"]


class Body(BaseModel):
    """A request's body: a field that we do not know is refused, for it may be a condition."""

    model_config = ConfigDict(extra="forbid")


Degrees = Annotated[float, Field(strict=True)]
Ring = Annotated[
    list[
        tuple[Annotated[Degrees, Field(ge=-180, le=180)], Annotated[Degrees, Field(ge=-90, le=90)]]
    ],
    Field(min_length=4, max_length=areas.CORNERS_MAX, description="longitude, latitude; closed"),
]
Rings = Annotated[list[Ring], Field(min_length=1, max_length=areas.CORNERS_MAX)]


class Polygon(Body):
    """A part of the map, with its holes (RFC 7946)."""

    type: Literal["Polygon"]
    coordinates: Rings


class MultiPolygon(Body):
    """Several parts of the map (RFC 7946)."""

    type: Literal["MultiPolygon"]
    coordinates: list[Rings] = Field(min_length=1, max_length=areas.CORNERS_MAX)


Area = Annotated[Polygon | MultiPolygon, Field(discriminator="type")]


class GrantBody(Body):
    """What is granted. A time left out: from now on; `event_to` left out: without an end."""

    recipient: Key
    purpose: Code
    category: Code
    operation: Operation = Operation.READ
    event_from: Moment | None = Field(None, description="of the data, inclusive")
    event_to: Moment | None = Field(None, description="of the data, exclusive")
    valid_from: Moment | None = Field(None, description="of the reading, inclusive")
    valid_to: Moment = Field(description="of the reading, exclusive")
    resolution: Resolution = Field("exact", description="the most exact that may be shown")
    countries: list[Country] = Field(["JP"], min_length=1, max_length=COUNTRIES_MAX)
    area: Area | None = Field(None, description="of data from there alone; null: from anywhere")
    notice: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of what the person read")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "recipient": "yui-mobility",
                    "purpose": "dpv:AcademicResearch",
                    "category": "chimata:HeartRate",
                    "valid_to": "2030-01-01T00:00:00+09:00",
                    "resolution": "minute",
                    "notice": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ]
        },
    )

    def terms(self) -> Terms:
        """What it says."""
        said = self.model_dump(exclude={"countries", "operation", "area"})
        area = None if self.area is None else areas.canonical(self.area.model_dump())
        countries = tuple(self.countries)
        return Terms(**said, countries=countries, operation=self.operation, area=area)


class ObjectionBody(Body):
    """To whom and to what; left out: to everyone, to everything."""

    recipient: Key | None = None
    purpose: Code | None = None


class BindingBody(Body):
    """Whom a Thing's observations of a span of time describe."""

    persons: list[Annotated[str, Field(min_length=1, max_length=256, pattern=NO_CONTROL)]] = Field(
        min_length=1, max_length=PERSONS_MAX, description="the `sub` of their tokens"
    )
    event_from: Moment
    event_to: Moment | None = None


class Done(BaseModel):
    """An act as it stands in the log; what it takes back is read by nobody any more."""

    sigma: int = Field(description="its number; 0 where nothing had to change")
    at: datetime


class Grant(BaseModel):
    """One grant as it is now."""

    id: UUID
    recipient: str
    title: dict[str, str]
    purpose: str
    purpose_title: dict[str, str]
    category: str
    category_title: dict[str, str]
    operation: Operation
    event_from: datetime
    event_to: datetime | None
    valid_from: datetime
    valid_to: datetime
    resolution: Resolution
    countries: list[str]
    area: Area | None
    notice: str
    live: bool
    sigma: int
    guardianship: UUID | None = Field(description="by which it was given; null: by the person")


class Grants(BaseModel):
    """A person's grants, the newest first; those that have ended too."""

    grants: list[Grant]


@router.get("/v1/consent/grants", response_model=Grants)
def read_grants(request: Request) -> Response:
    """The caller's own grants: scope `read:own`."""
    with door.own(request) as connection:
        rows = grants.select_grants(connection, door.principal_of(request))
    return door.current({"grants": [_shown(row) for row in rows]})


@router.put("/v1/consent/grants/{grant}", response_model=Done)
def put_grant(request: Request, grant: GrantId, body: GrantBody) -> Response:
    """Grant, or narrow the grant of this id: scope `write:own`."""
    terms = body.terms()
    return done(
        door.act(request, "write:own", lambda c, who: grants.put_grant(c, who, grant, terms))
    )


@router.delete("/v1/consent/grants/{grant}", response_model=Done)
def revoke_grant(request: Request, grant: GrantId) -> Response:
    """Take a grant back; once this answers, nothing of it is delivered on any channel."""
    return done(door.act(request, "write:own", lambda c, who: grants.revoke(c, who, grant)))


@router.put("/v1/consent/objections/{objection}", response_model=Done)
def put_objection(request: Request, objection: GrantId, body: ObjectionBody) -> Response:
    """Object: it shuts every grant given before it. A later grant is the person's new word."""
    return done(
        door.act(
            request,
            "write:own",
            lambda c, who: grants.put_objection(c, who, objection, body.recipient, body.purpose),
        )
    )


@router.put("/v1/consent/bindings/{sector}/{thing}/{binding}", response_model=Done)
def put_binding(
    request: Request, sector: KnownSector, thing: ThingId, binding: GrantId, body: BindingBody
) -> Response:
    """Say whom a Thing describes, once for each moment: scope `write:bindings`."""
    return done(
        door.act(
            request,
            "write:bindings",
            lambda c, who: grants.put_binding(
                c, who, binding, sector.name, thing, body.persons, body.event_from, body.event_to
            ),
        )
    )


@router.delete("/v1/consent/bindings/{sector}/{thing}/{binding}", response_model=Done)
def end_binding(
    request: Request, sector: KnownSector, thing: ThingId, binding: GrantId
) -> Response:
    """End a binding now; what was observed until now keeps its persons."""
    del sector, thing
    return done(
        door.act(request, "write:bindings", lambda c, who: grants.end_binding(c, who, binding))
    )


class Term(BaseModel):
    """One term of a vocabulary."""

    code: str
    iri: str
    parent: str
    title: dict[str, str]
    explicit: bool = Field(description="needs a grant of its own: none from above reaches it")
    special: bool = Field(description="personal information that requires care, or below it")


class Vocabulary(BaseModel):
    """What a grant or a statement may name."""

    purposes: list[Term]
    categories: list[Term]
    kinds: list[Term] = Field(description="of recipient")
    operations: list[Operation]
    resolutions: list[Resolution]


@router.get("/v1/consent/vocabulary", response_model=Vocabulary)
def read_vocabulary(request: Request) -> Response:
    """Purposes, categories of personal data and kinds of recipient (W3C DPV 2.3), and the rest."""
    body = {
        "purposes": _terms(PURPOSES),
        "categories": _terms(CATEGORIES),
        "kinds": _terms(KINDS),
        "operations": [each.value for each in Operation],
        "resolutions": [level.name for level in LEVELS],
    }
    return door.cacheable(request, body)


def _terms(tree: Tree) -> list[dict[str, Any]]:
    return [
        {
            "code": term.code,
            "iri": term.iri,
            "parent": term.parent,
            "title": {"ja": term.ja, "en": term.en},
            "explicit": term.explicit,
            "special": tree.is_special(term.code),
        }
        for term in tree.terms.values()
    ]


def done(written: Written) -> Response:
    """The answer to an act."""
    return door.current({"sigma": written.sigma, "at": written.at.astimezone(UTC)})


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["grant_id"],
        "title": {"ja": row["title_ja"], "en": row["title_en"]},
        "purpose_title": titled(PURPOSES, row["purpose"]),
        "category_title": titled(CATEGORIES, row["category"]),
        "resolution": LEVELS[row["level"]].name,
        "area": row["area"] and orjson.loads(row["area"]),
        **{
            name: row[name]
            for name in (
                "recipient", "purpose", "category", "operation", "event_from", "event_to",
                "valid_from", "valid_to", "countries", "notice", "live", "sigma", "guardianship",
            )
        },
    }  # fmt: skip


def titled(tree: Tree, code: str) -> dict[str, str]:
    """What a term is called in both languages."""
    term = tree.terms[code]
    return {"ja": term.ja, "en": term.en}
