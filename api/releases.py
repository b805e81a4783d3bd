"""Anonymised releases: operators prepare, evidence and publish them; everyone reads the tables."""

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

import domains
from api import problems
from api.consent import Body, Code, Done, Key
from api.fields import (
    NO_CONTROL,
    After,
    Limit,
    Moment,
    next_url,
    open_cursor,
    open_place,
    page_of,
    page_size,
)
from api.schemas import MOMENT, Titles, example
from consent import door, releases
from consent.anonymity import K
from consent.budget import EPSILON_MAX
from consent.counting import LEAVES_MAX, Plan
from consent.drafts import plan_of
from consent.releases import SCOPE, WHAT, Published
from consent.results import Row
from core.errors import CityError, invalid

PAGE_DEFAULT = 100
K_MAX = 1_000
BANDS_MAX = 100
SQUARES_MAX = 1_000
DATA_CLASS = {"Chimata-Data-Class": "anonymised"}
"""Who is given anonymised information is told so (Art. 43(4)), and may not match it (Art. 45)."""

router = APIRouter(tags=["anonymised releases"], responses=problems.documented("conflict"))

ReleaseId = Annotated[UUID, Path(description="the preparer's, made at random")]
Step = Annotated[
    Literal["identifying", "codes", "linking", "singular", "nature"],
    Path(description="the items 1 to 5 of Rule 34 of the enforcement rules"),
]
YEARS = datetime(1970, 1, 2, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
Time = Annotated[Moment, Field(ge=YEARS[0], lt=YEARS[1])]
Text = Annotated[str, Field(min_length=1, max_length=2_000, pattern=NO_CONTROL)]


class Texts(Body):
    """A text in both languages."""

    ja: Text
    en: Text


class Terms(BaseModel):
    """What is counted, and how finely it is told."""

    title: Texts
    sector: Annotated[str, Field(max_length=64, pattern=NO_CONTROL)]
    property: Code
    recipient: Key = Field(description="to whom persons granted the operation `anonymise`")
    purpose: Code
    event_from: Time = Field(description="of the data, inclusive: midnight, or an hour")
    event_to: Time = Field(description="of the data, exclusive")
    resolution: Literal["hour", "day"] = Field(
        description="an hour and squares of 1 km, or a day and squares of 10 km (JIS X 0410)"
    )
    k: int = Field(K, ge=K, le=K_MAX, description="no cell tells of fewer persons")
    mean: bool = Field(False, description="tell the mean of numbers, too")
    bands: list[Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]] = Field(
        [], max_length=BANDS_MAX, description="edges between bands of numbers, ascending"
    )
    clip: tuple[float, float] | None = Field(
        None, description="values outside count as these in a mean; left out: the declared range"
    )
    squares: list[Annotated[str, Field(pattern=r"^[0-9]{6}([0-9]{2})?$")]] = Field(
        [], max_length=SQUARES_MAX, description="of positions: these alone; with epsilon: all told"
    )
    epsilon: Annotated[Decimal, Field(gt=0, le=EPSILON_MAX, decimal_places=3)] | None = Field(
        None, description="add noise: what this takes of the data set's budget, for ever"
    )
    steps_max: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="with epsilon: of how many steps of time one person counts at most"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "title": {"ja": "1時間ごとの心拍数", "en": "Heart rate by hour"},
                    "sector": "health",
                    "property": "heart-rate",
                    "recipient": "open-data-office",
                    "purpose": "dpv:AcademicResearch",
                    "event_from": "2026-03-01T00:00:00+09:00",
                    "event_to": "2026-03-08T00:00:00+09:00",
                    "resolution": "hour",
                    "mean": True,
                    "bands": [60, 80, 100],
                }
            ]
        },
    )


class EvidenceBody(Body):
    """How a step was done: columns, method, parameters, before and after."""

    method: Text

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"method": "Names and accounts are in no column."}]},
    )


class PublicationBody(Body):
    """What Art. 43(3) and (4) ask to be public: the items of information, how it is provided."""

    items: Texts
    method: Texts

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": {"ja": "時間帯、心拍数の区分、人数", "en": "Hour, band, persons"},
                    "method": {"ja": "インターネットで公開", "en": "Open on the Internet"},
                }
            ]
        },
    )


class Release(BaseModel):
    """A release as it stands."""

    id: UUID
    state: Literal["draft", "evidence-complete", "published"]
    title: Titles
    terms: dict[str, Any] = Field(description="as they were put")
    published_at: datetime | None
    items: Titles | None = Field(description="which information about individuals it holds")
    method: Titles | None = Field(description="how it is provided")


class Releases(BaseModel):
    """A page of published releases, the newest first."""

    releases: list[Release]
    next: str | None


class ReleaseCell(BaseModel):
    """Persons of one time and one cell; what is not listed is empty, or of too few to tell."""

    time: datetime = Field(description="the beginning of its step")
    cell: str | None = Field(description="a band, a category or a square; null: everyone")
    persons: int
    mean: float | None

    model_config = example(time=MOMENT, cell="60/80", persons=41, mean=71.3)


class ReleaseCells(BaseModel):
    """A page of a table, by time."""

    data_class: Literal["anonymised"]
    cells: list[ReleaseCell]
    next: str | None


class Evidence(BaseModel):
    """What is on record of one step: said by a person, or checked by the platform."""

    step: str
    checked: bool = Field(description="by the platform, on the table that came out")
    at: datetime
    principal: str
    method: str


class Prepared(Release):
    """A release for those who prepare it."""

    evidence: list[Evidence]
    epsilon_spent: str = Field(description="in its data set, over all releases")
    epsilon_max: str


class Crowd(Body):
    """The smallest crowd in which a person is counted."""

    k: int = Field(ge=K, le=1_000_000, description="of every cell of a release; else not counted")

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"k": 50}]})


@router.put("/v1/releases/{release}", response_model=Prepared)
def put_release(request: Request, release: ReleaseId, body: Terms) -> Response:
    """Keep a draft, for good: scope `write:releases`. Another one has another id."""
    terms = body.model_dump(mode="json")
    for name in ("event_from", "event_to"):
        terms[name] = getattr(body, name).astimezone(UTC).isoformat()
    _plan(terms)
    with door.having(request, SCOPE, WHAT, writes=True) as connection:
        releases.put_draft(connection, door.principal_of(request), release, terms)
    return _prepared(request, release)


@router.put("/v1/releases/{release}/evidence/{step}", response_model=Prepared)
def put_evidence(request: Request, release: ReleaseId, step: Step, body: EvidenceBody) -> Response:
    """Say how one step of Rule 34 was done; who and when is kept with it."""
    with door.having(request, SCOPE, WHAT, writes=True) as connection:
        who = door.principal_of(request)
        releases.put_evidence(connection, who, release, step, body.method)
    return _prepared(request, release)


@router.put("/v1/releases/{release}/publication", response_model=Prepared)
def publish_release(request: Request, release: ReleaseId, body: PublicationBody) -> Response:
    """Count under the grants of this moment, check and publish, for good."""
    said = Published(body.items.model_dump(), body.method.model_dump())
    releases.publish(door.gate_of(request), door.principal_of(request), release, said, _plan)
    return _prepared(request, release)


@router.get("/v1/releases/{release}/evidence", response_model=Prepared)
def read_prepared(request: Request, release: ReleaseId) -> Response:
    """A release in any state, with its evidence and budget: scope `write:releases`."""
    return _prepared(request, release)


@router.get("/v1/releases", response_model=Releases)
def read_releases(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Published releases: open data."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = open_place(after)
    with door.gate_of(request).published() as connection:
        found = releases.published_page(connection, before, size + 1)
    page, more = page_of(request, found, size, "published_at")
    return door.cacheable(request, {"releases": [_shown(row) for row in page], "next": more})


@router.get("/v1/releases/{release}", response_model=Release)
def read_release(request: Request, release: ReleaseId) -> Response:
    """A published release, and what it holds."""
    with door.gate_of(request).published() as connection:
        found = releases.published(connection, release)
    return door.cacheable(request, _shown(found))


@router.get(
    "/v1/releases/{release}/cells",
    response_model=ReleaseCells,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def read_cells(
    request: Request,
    release: ReleaseId,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
    limit: Limit = None,
    after: After = None,
) -> Response:
    """The table of a published release: page by page as JSON, or whole as CSV."""
    size = LEAVES_MAX if form == "csv" else page_size(limit, PAGE_DEFAULT, request)
    number = _number(open_cursor(after))
    with door.gate_of(request).published() as connection:
        found = releases.cells(connection, release, number, size + 1)
    if form == "csv":
        answer = door.cacheable_bytes(request, _csv(found), "text/csv; charset=utf-8")
    else:
        more = str(found[size - 1]["number"]) if len(found) > size else None
        page = [{name: row[name] for name in ReleaseCell.model_fields} for row in found[:size]]
        body = {"data_class": "anonymised", "cells": page, "next": next_url(request, more)}
        answer = door.cacheable(request, body)
    answer.headers.update(DATA_CLASS)
    return answer


@router.put("/v1/me/crowd", response_model=Done)
def put_crowd(request: Request, body: Crowd) -> Response:
    """Ask to be counted in large crowds alone: scope `write:own`. It holds for later releases."""
    done = door.act(request, "write:own", lambda c, who: releases.put_crowd(c, who, body.k))
    return door.current({"sigma": done.sigma, "at": done.at.astimezone(UTC)})


@router.get("/v1/me/crowd", response_model=Crowd)
def read_crowd(request: Request) -> Response:
    """The smallest crowd in which the caller is counted: scope `read:own`."""
    with door.own(request) as connection:
        k = releases.crowd(connection, door.principal_of(request))
    return door.current({"k": k})


def _plan(terms: Mapping[str, Any]) -> Plan:
    try:
        sector = domains.sector(terms["sector"])
    except CityError as error:
        raise invalid("sector", error.detail) from error
    return plan_of(sector, dict(terms))


def _prepared(request: Request, release: UUID) -> Response:
    with door.having(request, SCOPE, WHAT) as connection:
        found = releases.draft_of(connection, release)
        shown = {
            **_shown(found),
            "evidence": releases.evidence(connection, release),
            **releases.budget_of(connection, found["terms"]),
        }
    return door.current(shown)


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "state": row.get("state", "published"),
        "title": row["terms"]["title"],
        "terms": row["terms"],
        "published_at": row["published_at"],
        "items": row["items"],
        "method": row["method"],
    }


def _csv(rows: list[Row]) -> bytes:
    names = tuple(ReleaseCell.model_fields)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        time = row["time"].isoformat().replace("+00:00", "Z")
        writer.writerow([time, *(row[name] for name in names[1:])])
    return text.getvalue().encode()


def _number(cursor: str) -> int:
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < len(str(2**31))):
        raise invalid("after", "take it from `next` as it is")
    return int(cursor)
