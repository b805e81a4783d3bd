"""What persons ask of the platform, and what operators answer: corrections, stops, complaints."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

import domains
from api import problems
from api.consent import Body, Key
from api.fields import NO_CONTROL, After, Limit, Moment, open_place, page_of, page_size
from consent import claims, corrections, door
from consent.claims import Claim
from consent.results import Row
from core.errors import invalid

PAGE_DEFAULT = 100
WORDS_MAX = 4_000
VALUE_BYTES_MAX = 16_384
OPEN = ("received", "under-review")

router = APIRouter(tags=["claims of persons"], responses=problems.documented("conflict"))


def _unicode(text: str) -> str:
    """The text, unless it holds half a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds a character that no stored text has") from error
    return text


ClaimId = Annotated[UUID, Path(description="yours, made at random: sent again it is the same one")]
Words = Annotated[str, Field(min_length=1, max_length=WORDS_MAX), AfterValidator(_unicode)]
Name = Annotated[
    str, Field(min_length=1, max_length=256, pattern=NO_CONTROL), AfterValidator(_unicode)
]


class CorrectionBody(Body):
    """Which observation is wrong, and what it should say."""

    sector: Name
    thing: Name
    property: Name
    phenomenon_time: Moment
    result: Any = Field(description="of the kind of the one that it replaces")
    reason: Words

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "sector": "health",
                    "thing": "band-1",
                    "property": "heart-rate",
                    "phenomenon_time": "2026-01-01T09:06:40+09:00",
                    "result": 71,
                    "reason": "The strap was loose.",
                }
            ]
        },
    )


class RequestBody(Body):
    """To stop a use (Art. 35), a complaint (Art. 40), or a question."""

    kind: Literal["stop-of-use", "complaint", "consultation"]
    text: Words
    recipient: Key | None = Field(None, description="whom it is about")
    disclosure: UUID | None = Field(None, description="which delivery it is about")

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"kind": "stop-of-use", "text": "Please stop.", "recipient": "clinic"}]
        },
    )


class StepBody(Body):
    """What becomes of a request, and why."""

    state: Literal["under-review", "answered", "accepted", "refused"]
    text: Words

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"state": "under-review", "text": "We ask the clinic."}]},
    )


class Step(BaseModel):
    """One state of a request."""

    state: str
    at: datetime
    text: str | None = Field(description="what the operator said; null where it was received")


class Asked(BaseModel):
    """One request and all that has become of it."""

    id: UUID
    kind: str
    at: datetime
    recipient: str | None
    disclosure: UUID | None
    content: dict[str, Any]
    state: str
    history: list[Step]


class AllAsked(BaseModel):
    """Every request of the caller, the newest first."""

    claims: list[Asked]


class AskedPage(BaseModel):
    """Requests of persons, who has waited longest first."""

    claims: list[Asked]
    next: str | None


@router.put("/v1/me/corrections/{claim}", response_model=Asked)
def put_correction(request: Request, claim: ClaimId, body: CorrectionBody) -> Response:
    """Ask that an observation of one's own be corrected: scope `write:own`. (Art. 34)"""
    content = body.model_dump()
    content["phenomenon_time"] = body.phenomenon_time.astimezone(UTC).isoformat()
    try:
        size = len(orjson.dumps(content["result"]))
    except TypeError as error:
        raise invalid("result", "is no JSON that can be stored") from error
    if size > VALUE_BYTES_MAX:
        raise invalid("result", f"has more than {VALUE_BYTES_MAX} bytes")
    asked = Claim(claim, "correction", content)
    return _put(request, asked)


@router.put("/v1/me/claims/{claim}", response_model=Asked)
def put_request(request: Request, claim: ClaimId, body: RequestBody) -> Response:
    """Ask to stop a use, complain, or consult: scope `write:own`."""
    asked = Claim(claim, body.kind, {"text": body.text}, body.recipient, body.disclosure)
    return _put(request, asked)


@router.get("/v1/me/claims", response_model=AllAsked)
def read_own(request: Request) -> Response:
    """What the caller asked, and what became of it: scope `read:own`."""
    keys = door.subject_keys_of(request)
    with door.own(request) as connection:
        found = claims.select_own(connection, door.principal_of(request), keys)
    return door.current({"claims": [_shown(row) for row in found]})


@router.get("/v1/claims", response_model=AskedPage)
def read_page(
    request: Request,
    state: Annotated[
        Literal["open", "under-review", "answered", "accepted", "refused"], Query()
    ] = "open",
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What persons ask: scope `write:claims`, an operator's."""
    size = page_size(limit, PAGE_DEFAULT, request)
    states: list[str] = list(OPEN) if state == "open" else [state]
    keys, place = door.subject_keys_of(request), open_place(after)
    with door.having(request, "write:claims", "what persons ask") as connection:
        found = claims.select_page(connection, keys, states, place, size + 1)
    page, more = page_of(request, found, size)
    return door.current({"claims": [_shown(row) for row in page], "next": more})


@router.put("/v1/claims/{claim}/state", response_model=Asked)
def put_state(request: Request, claim: ClaimId, body: StepBody) -> Response:
    """Take a request up, or end it: scope `write:claims`. A correction is stored first."""
    keys, what = door.subject_keys_of(request), "what persons ask"
    if body.state == claims.ACCEPTED:
        with door.having(request, "write:claims", what) as connection:
            before = claims.open_claim(connection, keys, claim, body.state)
        if before["kind"] == "correction":
            sector = domains.sector(before["content"]["sector"])
            url = request.app.state.settings.database_url
            corrections.apply(url, sector, before["content"])
    with door.having(request, "write:claims", what, writes=True) as connection:
        principal = door.principal_of(request)
        found = claims.step(connection, principal, keys, claim, body.state, body.text)
    return door.current(_shown(found))


def _put(request: Request, asked: Claim) -> Response:
    keys, principal = door.subject_keys_of(request), door.act_for(request)
    with door.having(request, "write:own", "a person's requests", writes=True) as connection:
        if asked.kind == "correction" and claims.select(connection, keys, asked.id) is None:
            corrections.check(connection, principal.subject, asked.content)
        found = claims.put(connection, principal, keys, asked)
    return door.current(_shown(found))


def _shown(found: Row) -> dict[str, Any]:
    return {name: found[name] for name in Asked.model_fields}
