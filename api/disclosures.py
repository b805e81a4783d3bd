"""What was delivered: to a person who got what of them and why; receipts that hold offline."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from api.fields import After, Limit, next_url, open_cursor, page_size
from consent import disclosures, door
from consent.receipts import ORIGIN, published
from consent.results import Row
from core.errors import CityError, invalid

PAGE_DEFAULT = 100

router = APIRouter(tags=["disclosures"])

DisclosureId = Annotated[UUID, Path(description="`disclosure` of an answer or of a list")]


class Delivery(BaseModel):
    """One record: a series of observations that one recipient got at one time."""

    disclosure: UUID
    at: datetime
    recipient: str
    title: dict[str, str]
    purpose: str
    category: str
    sector: str
    thing: str
    property: str
    rows: int
    time_min: datetime
    time_max: datetime
    grants: list[UUID] = Field(description="by which of your grants")


class Deliveries(BaseModel):
    """A page of records, the newest first."""

    deliveries: list[Delivery]
    next: str | None


class Receipt(BaseModel):
    """A record, and the proof that it stands in the tree that was signed: `chimata verify`."""

    record: str = Field(description="JSON, to be kept word by word")
    salt: str
    index: int
    proof: list[str]
    checkpoint: str


class Receipts(BaseModel):
    """The receipts of one disclosure."""

    receipts: list[Receipt]


class Checkpoint(BaseModel):
    """The newest signed checkpoint of the tree, and the key that signs it."""

    name: str
    key: str = Field(description="Ed25519, base64")
    checkpoint: str | None = Field(description="null before the first disclosure")


@router.get("/v1/me/disclosures", response_model=Deliveries)
def read_own(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Who received what of the caller, when and why: scope `read:own`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    before = _place(open_cursor(after))
    with door.own(request) as connection:
        person = door.principal_of(request)
        rows = disclosures.select_of_person(connection, person, before, size + 1)
    last = rows[size - 1] if len(rows) > size else None
    more = f"{last['at'].isoformat()} {last['id']}" if last else None
    page = [_shown(row) for row in rows[:size]]
    return door.current({"deliveries": page, "next": next_url(request, more)})


@router.get("/v1/disclosures/checkpoint", response_model=Checkpoint)
def read_checkpoint(request: Request) -> Response:
    """The newest checkpoint: keep it, and nothing that was delivered before can be denied."""
    key = published(door.signing_key_of(request).public_key())
    body = {"name": ORIGIN, "key": key, "checkpoint": door.gate_of(request).checkpoint()}
    return door.current(body)


@router.get("/v1/disclosures/{disclosure}/receipts", response_model=Receipts)
def read_receipts(request: Request, disclosure: DisclosureId) -> Response:
    """The receipts of a disclosure, for its recipient and for the persons in it."""
    found = door.gate_of(request).receipts(door.principal_of(request), disclosure)
    if found is None:
        raise CityError("not-found", f"there is no disclosure {disclosure} of yours with records")
    return door.current({"receipts": found})


def _place(cursor: str) -> disclosures.Place | None:
    if not cursor:
        return None
    at, _, number = cursor.partition(" ")
    try:
        return datetime.fromisoformat(at), UUID(number)
    except ValueError as error:
        raise invalid("after", "take it from `next` as it is") from error


def _shown(row: Row) -> dict[str, Any]:
    names = set(Delivery.model_fields) - {"title"}
    title = {"ja": row["title_ja"], "en": row["title_en"]}
    return {"title": title, **{name: row[name] for name in names}}
