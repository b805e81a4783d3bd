"""The rejection store for operators: what could not be taken, why, and what was done about it."""

import codecs
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api.fields import (
    NO_CONTROL,
    After,
    Limit,
    next_url,
    open_cursor,
    page_size,
    parse_moment,
)
from api.schemas import MOMENT, example
from consent import door, rejections
from consent.rejections import Row
from core.errors import CityError, invalid

PAGE_DEFAULT = 100
SUMMARY_MAX = 1000
ACTS_MAX = 100
SHOWN_BYTES_MAX = 4096
ID_MAX = 2**63 - 1

router = APIRouter(tags=["rejections"])

Word = Query(max_length=128, pattern=NO_CONTROL)
RejectionId = Annotated[int, Path(ge=1, le=ID_MAX, description="its id in /v1/rejections")]
State = Literal["open", "replayed", "fixed", "discarded"]


class RejectionSummary(BaseModel):
    """One rejection, or with `folded` a count of many of one hour.

    Of a personal sector only what is no secret: the other fields are null.
    """

    id: int
    sector: str
    gateway: str | None
    format: str
    channel: str | None
    boot: str | None
    seq: int | None
    item: int | None = Field(description="where it stood in its message")
    reason: str
    detail: str | None
    state: State
    count: int = Field(description="how often it came")
    bytes: int = Field(description="of its payload, as it came")
    hour: datetime = Field(description="of the account that counts it")
    first_seen: datetime
    last_seen: datetime
    sha256: str | None = Field(description="of the payload; a chain of them where folded")
    item_format: str | None = Field(description="what a replay takes it for; null: nothing")
    folded: bool
    sealed: bool
    kept: bool = Field(description="whether its payload is kept")

    model_config = example(
        id=7,
        sector="ports",
        gateway="pier-7",
        format="nmea",
        channel="mqtt",
        boot="a1",
        seq=12,
        item=3,
        reason="bad-checksum",
        detail="checksum: is 5C, should be 5D",
        state="open",
        count=1,
        bytes=47,
        hour=MOMENT,
        first_seen=MOMENT,
        last_seen=MOMENT,
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        item_format="nmea",
        folded=False,
        sealed=False,
        kept=True,
    )


class Rejections(BaseModel):
    """A page of rejections, newest first."""

    rejections: list[RejectionSummary]
    next: str | None = Field(description="the next page, null on the last one")


class Shown(BaseModel):
    """The beginning of a payload, for people."""

    encoding: Literal["text", "hex"]
    text: str
    bytes: int = Field(description="of the whole payload")
    truncated: bool


class Act(BaseModel):
    """Something that was done to a rejection, or tried in vain."""

    at: datetime
    who: str
    act: Literal["replay", "fix", "discard", "unseal"]
    done: bool
    reason: str
    sha256: str | None
    corrected_sha256: str | None
    stored: int
    duplicate: int
    rejected: int


class Rejection(RejectionSummary):
    """One rejection with its payload and its history."""

    payload: Shown | None
    corrected: Shown | None
    history: list[Act]


class ReasonCount(BaseModel):
    """How many items one reason rejected."""

    sector: str
    reason: str
    state: State
    count: int
    rows: int
    first_seen: datetime
    last_seen: datetime


class ReasonCounts(BaseModel):
    """Counts by sector, reason and state, the largest first."""

    reasons: list[ReasonCount]


async def _wanted(
    sector: Annotated[str | None, Word] = None,
    gateway: Annotated[str | None, Word] = None,
    form: Annotated[str | None, Query(alias="format", max_length=128, pattern=NO_CONTROL)] = None,
    reason: Annotated[str | None, Word] = None,
    state: State | None = None,
    lower: Annotated[
        str | None, Query(alias="from", description="inclusive; ISO 8601", max_length=64)
    ] = None,
    upper: Annotated[
        str | None, Query(alias="to", description="exclusive; ISO 8601", max_length=64)
    ] = None,
) -> dict[str, Any]:
    """The filters, None for any."""
    return {
        "of_sector": sector,
        "gateway": gateway,
        "format": form,
        "reason": reason,
        "state": state,
        "lower": parse_moment("from", lower, "-infinity"),
        "upper": parse_moment("to", upper, "infinity"),
    }


Wanted = Annotated[dict[str, Any], Depends(_wanted)]


@router.get("/v1/rejections", response_model=Rejections)
def read_rejections(
    request: Request, wanted: Wanted, limit: Limit = None, after: After = None
) -> Response:
    """A page of what could not be taken, newest first: scope `read:rejections`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = _cursor(after)
    with door.rejections(request) as connection:
        rows = rejections.select_page(connection, wanted, before, size + 1)
    more = str(rows[size - 1]["id"]) if len(rows) > size else None
    page = [_summary(row) for row in rows[:size]]
    return door.current({"rejections": page, "next": next_url(request, more)})


@router.get("/v1/rejections/summary", response_model=ReasonCounts)
def read_summary(request: Request, wanted: Wanted) -> Response:
    """How much was rejected, by sector, reason and state."""
    with door.rejections(request) as connection:
        rows = rejections.select_summary(connection, wanted, SUMMARY_MAX)
    return door.current({"reasons": rows})


@router.get("/v1/rejections/{rejection}", response_model=Rejection)
def read_rejection(request: Request, rejection: RejectionId) -> Response:
    """One rejection with the beginning of its payload, and what was done about it."""
    with door.rejections(request) as connection:
        row = rejections.select_one(connection, rejection)
        held = rejections.select_payload(connection, rejection)
        acts = rejections.select_acts(connection, rejection, ACTS_MAX)
    if row is None or held is None:
        raise CityError("not-found", f"there is no rejection {rejection}")
    hidden = held["hidden"]
    body = {
        **_summary(row),
        "payload": None if hidden else shown(held["payload"]),
        "corrected": None if hidden else shown(held["corrected"]),
        "history": acts,
    }
    return door.current(body)


@router.get(
    "/v1/rejections/{rejection}/payload",
    responses={200: {"content": {"application/octet-stream": {}}}},
    response_class=Response,
)
def read_payload(request: Request, rejection: RejectionId) -> Response:
    """The payload's very bytes, as a file."""
    with door.rejections(request) as connection:
        held = rejections.select_payload(connection, rejection)
    if held is None:
        raise CityError("not-found", f"there is no rejection {rejection}")
    if held["hidden"]:
        raise CityError("forbidden", "this rejection is sealed: only the key's holder opens it")
    if held["payload"] is None:
        raise CityError("not-found", f"the payload of rejection {rejection} was let go")
    headers = {
        "Content-Disposition": f'attachment; filename="rejection-{rejection}.bin"',
        "Cache-Control": "no-store",
    }
    return Response(bytes(held["payload"]), headers=headers, media_type="application/octet-stream")


def shown(payload: bytes | None) -> dict[str, Any] | None:
    """The first bytes as text where they are text, else as hex."""
    if payload is None:
        return None
    head = bytes(payload[:SHOWN_BYTES_MAX])
    cut = len(payload) > len(head)
    try:  # a character that the end of the head cuts through is left out
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=not cut)
    except UnicodeDecodeError:
        text = "\0"
    readable = all(each.isprintable() or each in "\t\r\n" for each in text)
    return {
        "encoding": "text" if readable else "hex",
        "text": text if readable else head.hex(),
        "bytes": len(payload),
        "truncated": cut,
    }


def _summary(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in RejectionSummary.model_fields}


def _cursor(after: str | None) -> int:
    text = open_cursor(after)
    if not text:
        return ID_MAX
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:  # noqa: PLR2004 - below 2**63
        raise invalid("after", "take it from `next` as it is")
    return int(text)
