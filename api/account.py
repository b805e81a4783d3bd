"""The operators' account: received = stored + duplicate + rejected + held, by source or hour."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
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
from api.observations import From, To
from consent import door, operations
from consent.operations import NO_KEY, AccountRow, Wanted, key_of
from core.errors import invalid

ROWS_DEFAULT = 1_000
HOURS_DEFAULT = 24

router = APIRouter()

Key = tuple[str, str, str, str]


class Line(BaseModel):
    """One source's account, since ever or of one hour; `adds_up` compares its two sides."""

    sector: str
    gateway: str
    format: str
    messages: int = Field(description="native messages; the other counts are of observations")
    unchanged: int = Field(description="messages that repeated a state")
    received: int = Field(description="counted when it was decoded")
    stored: int
    duplicate: int
    rejected: int
    held: int = Field(description="in an ingestor that runs, not yet committed")
    recovered: int = Field(description="of the rejected: taken in after all, and received again")
    missing: int | None = Field(description="sequences that never came; null in hours")
    hour: datetime | None = Field(description="in which it was received; null in totals")
    adds_up: bool


class Account(BaseModel):
    """A page of the account."""

    account: list[Line]
    next: str | None = Field(description="the next page, null on the last one")


Named = Annotated[str | None, Query(max_length=100, pattern=NO_CONTROL)]


@router.get("/v1/account", tags=["platform"], response_model=Account)
def read_account(
    request: Request,
    by: Annotated[Literal["hour"] | None, Query(description="a line a source and hour")] = None,
    lower: From = None,
    upper: To = None,
    gateway: Named = None,
    sector: Named = None,
    form: Annotated[str | None, Query(alias="format", max_length=100, pattern=NO_CONTROL)] = None,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What was received, by source; by hour in [from, to), the last 24 hours without `from`."""
    size = page_size(limit, ROWS_DEFAULT, request)
    for name, given in (("from", lower), ("to", upper)):
        if given and by is None:
            raise invalid(name, "only with by=hour")
    recent = (datetime.now(UTC) - timedelta(hours=HOURS_DEFAULT)).isoformat()
    wanted = Wanted(
        by is not None,
        parse_moment("from", lower or recent, "-infinity"),
        parse_moment("to", upper, "infinity"),
        gateway,
        sector,
        form,
    )
    gate, principal = door.gate_of(request), door.principal_of(request)
    rows = operations.account(gate, principal, wanted, _open_key(after), size + 1)
    more = orjson.dumps(key_of(rows[size - 1])).decode() if len(rows) > size else None
    lines = [_line(row) for row in rows[:size]]
    return door.current({"account": lines, "next": next_url(request, more)})


def _line(row: AccountRow) -> dict[str, object]:
    return {**asdict(row), "adds_up": row.adds_up}


def _open_key(after: str | None) -> Key:
    """The key inside a cursor; CityError `invalid` for what `next` never was."""
    if after is None:
        return NO_KEY
    wrong = invalid("after", "take it from `next` as it is")
    try:
        hour, sector, gateway, form = orjson.loads(open_cursor(after))
        if hour != NO_KEY[0]:
            hour = datetime.fromisoformat(hour).isoformat()
    except (ValueError, TypeError) as error:
        raise wrong from error
    if not all(isinstance(part, str) and part.isprintable() for part in (sector, gateway, form)):
        raise wrong
    return hour, sector, gateway, form
