"""What was delivered: who got what of whom and why; receipts that hold offline."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api.fields import After, Limit, open_place, page_of, page_size
from consent import disclosures, door
from consent.decide import READ_PERSONAL
from consent.masks import Mask
from consent.receipts import ORIGIN, published
from consent.results import Row
from core.errors import CityError

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
    override: UUID | None = Field(description="by which emergency override, without a grant")


class Deliveries(BaseModel):
    """A page of records, the newest first."""

    deliveries: list[Delivery]
    next: str | None


class Received(BaseModel):
    """One record, as its recipient keeps it: the person and the Thing by the names it was told."""

    disclosure: UUID
    at: datetime
    purpose: str
    category: str
    sector: str
    persons: list[str]
    thing: str
    property: str
    rows: int
    time_min: datetime
    time_max: datetime
    grants: list[UUID] = Field(description="the consent of each person (Art. 30, Rule 24)")


class ReceivedPage(BaseModel):
    """A page of records, the newest first."""

    received: list[Received]
    next: str | None


class Receipt(BaseModel):
    """A record, and the proof that it stands in the tree that was signed: `chimata verify`."""

    record: str | None = Field(description="JSON, to be kept word by word; null once erased")
    salt: str | None
    leaf: str | None = Field(description="of an erased record: what it left in the tree")
    index: int
    proof: list[str]
    checkpoint: str
    timestamp: str | None = Field(
        description="of a timestamping authority on the checkpoint (RFC 3161), base64"
    )


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
    with door.own(request) as connection:
        rows = disclosures.select_of_person(
            connection, door.principal_of(request), open_place(after), size + 1
        )
    page, more = page_of(request, rows, size)
    return door.current({"deliveries": [_shown(row) for row in page], "next": more})


@router.get("/v1/disclosures", response_model=ReceivedPage)
def read_received(request: Request, limit: Limit = None, after: After = None) -> Response:
    """The records that a recipient has to keep of what it got: scope `read:personal`."""
    size = page_size(limit, PAGE_DEFAULT, request)
    principal = door.principal_of(request)
    mask = Mask(door.secret_of(request), principal.name)
    with door.having(request, READ_PERSONAL, "a recipient's records") as connection:
        rows = disclosures.select_of_recipient(connection, principal, open_place(after), size + 1)
    page, more = page_of(request, rows, size)
    return door.current({"received": [_masked(row, mask) for row in page], "next": more})


@router.get("/v1/disclosures/checkpoint", response_model=Checkpoint)
def read_checkpoint(request: Request) -> Response:
    """The newest checkpoint: keep it, and nothing that was delivered before can be denied."""
    key = published(door.signing_key_of(request).public_key())
    body = {"name": ORIGIN, "key": key, "checkpoint": door.gate_of(request).checkpoint()}
    return door.current(body)


class Consistency(BaseModel):
    """Two checkpoints, and the proof that the second tree only adds to the first."""

    old: str
    new: str
    proof: list[str]


@router.get("/v1/disclosures/consistency", response_model=Consistency)
def read_consistency(
    request: Request,
    lower: Annotated[
        int | None,
        Query(alias="from", ge=1, lt=2**63, description="its size; left out: the first"),
    ] = None,
    upper: Annotated[
        int | None,
        Query(alias="to", ge=1, lt=2**63, description="a later one's; left out: the newest"),
    ] = None,
) -> Response:
    """That nothing under one checkpoint was changed or left out under a later one."""
    found = door.gate_of(request).consistency(lower, upper)
    if found is None:
        raise CityError("not-found", "there are no two such checkpoints, in this order")
    return door.current(found)


@router.get("/v1/disclosures/{disclosure}/receipts", response_model=Receipts)
def read_receipts(request: Request, disclosure: DisclosureId) -> Response:
    """The receipts of a disclosure, for its recipient and for the persons in it."""
    principal, keys = door.principal_of(request), door.subject_keys_of(request)
    found = door.gate_of(request).receipts(principal, disclosure, keys)
    if found is None:
        raise CityError("not-found", f"there is no disclosure {disclosure} of yours with records")
    return door.current({"receipts": found})


def _shown(row: Row) -> dict[str, Any]:
    names = set(Delivery.model_fields) - {"title"}
    title = {"ja": row["title_ja"], "en": row["title_en"]}
    return {"title": title, **{name: row[name] for name in names}}


def _masked(row: Row, mask: Mask) -> dict[str, Any]:
    told = {name: row[name] for name in Received.model_fields if name in row}
    persons = [mask.person(person) for person in row["subjects"]]
    return {**told, "persons": persons, "thing": mask.thing(row["thing"])}
