"""Gateways for operators: what each sent, which sequences never came, what its clock says."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response
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
from consent import door, operations
from consent.operations import BEGINNING, ClockState, Gateway, Place
from core.errors import CityError, invalid

GATEWAYS_DEFAULT = 100
GAPS_DEFAULT = 1_000
SEQ_MAX = 2**53

router = APIRouter()

GatewayId = Annotated[
    str,
    Path(
        description="of /v1/gateways",
        examples=["pole-17"],
        min_length=1,
        max_length=64,
        pattern=NO_CONTROL,
    ),
]


class ClockSummary(BaseModel):
    """A gateway's clock against the platform's, by the shortest delay of ten minutes."""

    state: ClockState
    skew_seconds: float | None = Field(description="above 0: ahead; null: the delays do not say")
    uncertainty_seconds: float | None = Field(description="the median delay less the shortest")
    delay_seconds: float | None = Field(description="the shortest, from observation to receipt")
    samples: int
    measured_at: datetime | None


class GatewaySummary(BaseModel):
    """One gateway; counts are since ever, of messages in clock hours of UTC."""

    id: str
    data_class: str | None = Field(description="of its streams, where an operator declared it")
    first_seen: datetime | None
    last_seen: datetime | None
    sectors: list[str]
    boots: int
    missing: int = Field(description="sequences of its boots that never came")
    received: int
    rejected: int
    messages_this_hour: int
    messages_last_hour: int
    clock: ClockSummary


class Gateways(BaseModel):
    """A page of gateways."""

    gateways: list[GatewaySummary]
    next: str | None = Field(description="the next page, null on the last one")


class GapRow(BaseModel):
    """Sequences of a boot that never came, `first` and `last` included."""

    boot: str
    first: int
    last: int
    count: int


class Gaps(BaseModel):
    """A page of one gateway's gaps, newest boots first; it may be short while more follow."""

    gateway: str
    gaps: list[GapRow]
    next: str | None = Field(description="the next page, null on the last one")


@router.get("/v1/gateways", tags=["platform"], response_model=Gateways)
def read_gateways(request: Request, limit: Limit = None, after: After = None) -> Response:
    """Every gateway that was declared or heard: scope `read:account`."""
    size = page_size(limit, GATEWAYS_DEFAULT, request)
    gate, principal = door.gate_of(request), door.principal_of(request)
    found = operations.gateways(gate, principal, open_cursor(after), size + 1)
    more = found[size - 1].id if len(found) > size else None
    page = [_summary(gateway) for gateway in found[:size]]
    return door.current({"gateways": page, "next": next_url(request, more)})


@router.get("/v1/gateways/{gateway}/gaps", tags=["platform"], response_model=Gaps)
def read_gaps(
    request: Request, gateway: GatewayId, limit: Limit = None, after: After = None
) -> Response:
    """Sequences of a gateway that never came: scope `read:account`."""
    size = page_size(limit, GAPS_DEFAULT, request)
    gate, principal = door.gate_of(request), door.principal_of(request)
    found = operations.gaps(gate, principal, gateway, _open_place(after), size)
    if found is None:
        raise CityError("not-found", f"there is no gateway {gateway!r}")
    gaps, place = found
    more = None if place is None else orjson.dumps(place).decode()
    rows = [{**asdict(gap), "count": gap.count} for gap in gaps]
    return door.current({"gateway": gateway, "gaps": rows, "next": next_url(request, more)})


def _summary(gateway: Gateway) -> dict[str, Any]:
    return asdict(gateway)


def _open_place(after: str | None) -> Place:
    """The place inside a cursor; CityError `invalid` for what `next` never was."""
    if after is None:
        return BEGINNING
    wrong = invalid("after", "take it from `next` as it is")
    try:
        moment, boot, seq = orjson.loads(open_cursor(after))
        seen = parse_moment("after", moment, "infinity")
        if not (isinstance(boot, str) and boot.isprintable() and 0 <= seq <= SEQ_MAX):
            raise wrong
        return (seen if isinstance(seen, str) else seen.isoformat(), boot, int(seq))
    except (ValueError, TypeError) as error:
        raise wrong from error
