"""Stop notices: recipients are told here or at their endpoint; persons and operators see whom."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.fields import After, Limit, next_url, open_cursor, page_size
from api.schemas import MOMENT, example
from consent import door, stops, webhooks
from consent.decide import READ_PERSONAL
from consent.masks import Mask
from consent.operations import SCOPE
from consent.results import Row
from core.errors import invalid

PAGE_DEFAULT = 100
OWN = "stop notices"

router = APIRouter(tags=["stop notices"])

StopId = Annotated[UUID, Path(description="`stop` of a notice")]


class EndpointBody(BaseModel):
    """Where notices are to be sent."""

    url: str = Field(
        min_length=1, max_length=webhooks.URL_CHARACTERS_MAX, description="https, of a public host"
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://yui-mobility.example/chimata/stops"}]},
    )


class EndpointSet(BaseModel):
    """The endpoint as it is now."""

    url: str
    secret: str | None = Field(
        description="signs notices (Standard Webhooks); told once, null where the URL is the same"
    )


class Endpoint(BaseModel):
    """The endpoint, and how it does."""

    url: str
    set_at: datetime
    failures: int = Field(description="since it last took a notice")
    error: str | None = Field(description="of the last failure")


class StopData(BaseModel):
    """What has to stop."""

    stop: UUID
    person: str = Field(description="whose data, by the name that you know from `persons`")
    grants: list[UUID] = Field(description="by which of this person's grants you had them")
    purpose: str | None = Field(description="with all below it; null: every one")
    since: datetime

    model_config = example(
        stop="5d0c6b4e-6a43-4b69-9e5d-0d6f3cf0b0f1",
        person="k4wq2lyd5n3nnqzr7q2a4c6h",
        grants=["7c1c8f0e-7a51-4f0b-9d59-0a4c2d5b6a11"],
        purpose=None,
        since=MOMENT,
    )


class Stop(BaseModel):
    """A stop notice, word by word as an endpoint is sent it."""

    type: str = Field(examples=["consent.revoked"])
    timestamp: datetime
    data: StopData


class Stops(BaseModel):
    """A page of notices in their order."""

    stops: list[Stop]
    next: str | None


class Acknowledged(BaseModel):
    """Since when the recipient says that it knows."""

    acknowledged_at: datetime


class Told(BaseModel):
    """One recipient who was, or is, to be told."""

    stop: UUID
    type: str
    at: datetime
    recipient: str
    attempts: int = Field(description="to reach its endpoint")
    tried_at: datetime | None
    acknowledged_at: datetime | None
    escalated_at: datetime | None = Field(description="it said nothing for too long since")


class ToldOfMe(Told):
    """The same for the person whose data it is."""

    title: dict[str, str | None]
    grants: list[UUID]
    purpose: str | None


class OwnStops(BaseModel):
    """A page of notices, the newest first."""

    stops: list[ToldOfMe]
    next: str | None


class ToldTooLate(Told):
    """The same for operators: not of whom it is."""

    url: str | None
    error: str | None


class EscalatedStops(BaseModel):
    """A page of notices that nobody has acknowledged, the last escalated first."""

    stops: list[ToldTooLate]
    next: str | None


@router.put(
    "/v1/recipients/me/endpoint",
    response_model=EndpointSet,
    responses=problems.documented("too-large"),
)
def put_endpoint(request: Request, body: EndpointBody) -> Response:
    """Where the caller is told at once what it must stop: a recipient's token.

    Each notice is a POST signed as Standard Webhooks says; any 2xx acknowledges it. To have a new
    secret, delete the endpoint and set it again.
    """
    webhooks.check_url(body.url, webhooks.networks_of(request.app.state.settings.notice_networks))
    secret, principal = door.secret_of(request), door.principal_of(request)
    with door.having(request, READ_PERSONAL, OWN, writes=True) as connection:
        version = stops.put_endpoint(connection, principal, body.url)
    made = stops.secret_of(secret, principal.name, version) if version else None
    return door.current({"url": body.url, "secret": stops.shown_secret(made) if made else None})


@router.get("/v1/recipients/me/endpoint", response_model=Endpoint)
def read_endpoint(request: Request) -> Response:
    """The caller's endpoint, and why it last failed."""
    with door.having(request, READ_PERSONAL, OWN) as connection:
        found = stops.endpoint(connection, door.principal_of(request))
    return door.current(found)


@router.delete("/v1/recipients/me/endpoint", status_code=204)
def delete_endpoint(request: Request) -> Response:
    """From now on the caller reads /v1/stops."""
    with door.having(request, READ_PERSONAL, OWN, writes=True) as connection:
        stops.delete_endpoint(connection, door.principal_of(request))
    return Response(status_code=204)


@router.get("/v1/stops", response_model=Stops)
def read_stops(
    request: Request,
    acknowledged: Annotated[bool, Query(description="those that are; else those to do")] = False,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What the caller has to stop: scope `read:personal`, a recipient's token."""
    size, place = page_size(limit, PAGE_DEFAULT, request), _place(after)
    principal = door.principal_of(request)
    mask = Mask(door.secret_of(request), principal.name)
    with door.having(request, READ_PERSONAL, OWN) as connection:
        rows = stops.of_recipient(
            connection, principal, acknowledged=acknowledged, after=place, limit=size + 1
        )
    shown = [stops.notice_of(row, mask) for row in rows[:size]]
    return door.current({"stops": shown, "next": _next(request, rows, size)})


@router.put("/v1/stops/{stop}/acknowledged", response_model=Acknowledged)
def acknowledge(request: Request, stop: StopId) -> Response:
    """Say that the caller knows, and has stopped."""
    with door.having(request, READ_PERSONAL, OWN, writes=True) as connection:
        at = stops.acknowledge(connection, door.principal_of(request), stop)
    return door.current({"acknowledged_at": at.astimezone(UTC)})


@router.get("/v1/me/stops", response_model=OwnStops)
def read_own_stops(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Who was told to stop by the caller's acts, and since when it knows: scope `read:own`."""
    size, place = page_size(limit, PAGE_DEFAULT, request), _place(after)
    with door.own(request) as connection:
        rows = stops.of_person(connection, door.principal_of(request), place, size + 1)
    shown = [
        {
            **_told(row, ToldOfMe),
            "title": {"ja": row["title_ja"], "en": row["title_en"]},
        }
        for row in rows[:size]
    ]
    return door.current({"stops": shown, "next": _next(request, rows, size)})


@router.get("/v1/stops/escalated", response_model=EscalatedStops)
def read_escalated(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Recipients whom nobody could tell in time: scope `read:account`."""
    size, place = page_size(limit, PAGE_DEFAULT, request), _place(after)
    gate = door.gate_of(request)
    with gate.operating(door.principal_of(request), SCOPE) as connection:
        rows = stops.escalated(connection, place, size + 1)
    shown = [_told(row, ToldTooLate) for row in rows[:size]]
    return door.current({"stops": shown, "next": _next(request, rows, size)})


def _told(row: Row, model: type[Told]) -> dict[str, Any]:
    named = {"stop": row["id"], "type": stops.type_of(row["act"])}
    return {**named, **{name: row[name] for name in model.model_fields if name in row}}


def _place(after: str | None) -> UUID | None:
    cursor = open_cursor(after)
    try:
        return UUID(cursor) if cursor else None
    except ValueError as error:
        raise invalid("after", "take it from `next` as it is") from error


def _next(request: Request, rows: list[Row], size: int) -> str | None:
    return next_url(request, str(rows[size - 1]["id"]) if len(rows) > size else None)
