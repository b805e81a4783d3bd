"""History of one Datastream: observations as they are, or summed up by interval."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api.fields import (
    NO_CONTROL,
    After,
    KnownSector,
    Limit,
    ThingId,
    Unit,
    format_interval,
    next_url,
    open_cursor,
    page_size,
    parse_interval,
    parse_moment,
)
from api.schemas import History
from consent import door, history
from consent.gate import PermittedConnection
from consent.history import Datastream, Span
from consent.results import Row
from core.errors import CityError, invalid
from core.sensorthings import ResultKind
from core.units import conversion

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, tzinfo=UTC)
OBSERVATIONS_DEFAULT = 1000
EARLIEST, NEVER = "-infinity", "infinity"
RESULTS = frozenset({"result", "mean", "minimum", "maximum", "last"})
Page = tuple[list[Row], str | None]
Line = tuple[float, float] | None

router = APIRouter()

PropertyName = Annotated[
    str,
    Query(
        alias="property",
        description="with its instance, where a Thing has several: `signal-state/2`",
        examples=["heading"],
        min_length=1,
        max_length=256,
        pattern=NO_CONTROL,
    ),
]
Interval = Annotated[
    str | None,
    Query(description="PT5M or 5m, 1h, 1d: one entry an interval", max_length=32),
]
From = Annotated[
    str | None,
    Query(
        alias="from",
        description="first time, inclusive; ISO 8601 with a zone",
        examples=["2026-01-01T00:00:00Z"],
        max_length=64,
    ),
]
To = Annotated[
    str | None,
    Query(
        alias="to",
        description="last time, exclusive; ISO 8601 with a zone",
        examples=["2026-01-02T00:00:00Z"],
        max_length=64,
    ),
]
Quality = Annotated[
    Literal["good"] | None, Query(description="`good`: only observations without a quality flag")
]


@router.get(
    "/v1/{sector}/things/{thing}/observations", response_model=History, tags=["every sector"]
)
def read_observations(
    request: Request,
    sector: KnownSector,
    thing: ThingId,
    observed_property: PropertyName,
    lower: From = None,
    upper: To = None,
    limit: Limit = None,
    interval: Interval = None,
    after: After = None,
    unit: Unit = None,
    quality: Quality = None,
) -> Response:
    """A page of one property's history in [from, to), oldest first."""
    size = page_size(limit, OBSERVATIONS_DEFAULT, request)
    span = Span(parse_moment("from", lower, EARLIEST), parse_moment("to", upper, NEVER))
    step = parse_interval(interval) if interval else None
    if step and quality:
        raise invalid("quality", "only without `interval`: sums are made of all that is stored")
    since = parse_moment("after", open_cursor(after), EARLIEST)
    with door.reading(request, sector) as connection:
        stream = history.select_datastream(connection, thing, observed_property)
        if stream is None:
            detail = f"{sector.name} has no {observed_property!r} of a Thing {thing!r}"
            raise CityError("not-found", detail)
        line = conversion_of(stream, unit)
        if step is None:
            rows, more = _plain(connection, stream, span, size, since, good=quality == "good")
        else:
            rows, more = _by_interval(connection, stream, span, size, since, step)
    body = {
        "thing": thing,
        "property": observed_property,
        "unit": unit or stream.unit,
        "kind": stream.kind.value,
        "interval": format_interval(step) if step else None,
        "observations": converted(rows, line),
        "next": next_url(request, more),
    }
    return door.cacheable(request, body)


def conversion_of(stream: Datastream, unit: str | None) -> Line:
    """How results become results in `unit`; CityError `invalid` where they cannot."""
    if unit is None:
        return None
    if stream.kind is not ResultKind.NUMBER:
        raise invalid("unit", f"only numbers have a unit, and this is a {stream.kind}")
    return conversion(stream.unit, unit)


def converted(rows: list[Row], line: Line) -> list[Row]:
    """The rows with their results in another unit; counts are left as they are."""
    if line is None:
        return rows
    factor, offset = line
    return [
        {
            name: value * factor + offset if name in RESULTS and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]


def _plain(
    connection: PermittedConnection,
    stream: Datastream,
    span: Span,
    size: int,
    since: datetime | str,
    *,
    good: bool,
) -> Page:
    rows = history.select_observations(connection, stream, span, size + 1, since, good=good)
    more = rows[size - 1]["phenomenon_time"].isoformat() if len(rows) > size else None
    return rows[:size], more


def _by_interval(
    connection: PermittedConnection,
    stream: Datastream,
    span: Span,
    size: int,
    since: datetime | str,
    step: timedelta,
) -> Page:
    """At most `size` intervals, from the first that has something: what one page reads is bounded.

    The cursor of the next page is where its first interval begins.
    """
    if stream.kind not in {ResultKind.NUMBER, ResultKind.CATEGORY}:
        raise invalid("interval", f"only for numbers and categories, and this is {stream.kind}")
    lower = since if isinstance(since, datetime) else span.lower
    start = _start(connection, stream, Span(lower, span.upper), step, size)
    if start is None:
        return [], None
    first = _floor(start, step)
    end = first + min(step * size, LAST - first)
    upper = span.upper if isinstance(span.upper, datetime) else LAST
    ends_here = upper <= end
    page = history.Page(start, min(upper, end))
    rows = _READ[stream.kind](connection, stream, page, step)
    # A state goes on by itself: more of it may follow where no more events do.
    goes_on = not ends_here and (
        (stream.kind is ResultKind.CATEGORY and _until(stream, start) > end)
        or history.first_time(connection, stream, Span(end, span.upper)) is not None
    )
    return rows, end.isoformat() if goes_on else None


def _start(
    connection: PermittedConnection, stream: Datastream, span: Span, step: timedelta, size: int
) -> datetime | None:
    """Where the first interval with something in it begins (not before the span), or None.

    Where one page holds the whole span, nobody has to look for the first: it begins there.
    """
    lower = span.lower if isinstance(span.lower, datetime) else None
    if (
        lower
        and isinstance(span.upper, datetime)
        and span.upper - _floor(lower, step) <= step * size
    ):
        return lower
    if (
        lower is not None
        and stream.kind is ResultKind.CATEGORY
        and _until(stream, lower) > lower
        and history.state_before(connection, stream, lower) is not None
    ):
        return lower
    found = history.first_time(connection, stream, span)
    if found is None:
        return None
    return max(_floor(found, step), lower) if lower else _floor(found, step)


def _floor(moment: datetime, step: timedelta) -> datetime:
    """Where the interval that holds the moment begins; intervals are counted from 1970."""
    return moment - (moment - EPOCH) % step


def _until(stream: Datastream, start: datetime) -> datetime:
    """How long the last state is known to hold: until its Thing was last heard."""
    return max(stream.last_seen or start, start)


def _numbers(
    connection: PermittedConnection, stream: Datastream, page: history.Page, step: timedelta
) -> list[Row]:
    return history.select_buckets(connection, stream, page, step)


def _states(
    connection: PermittedConnection, stream: Datastream, page: history.Page, step: timedelta
) -> list[Row]:
    return history.select_states(connection, stream, page, step, _until(stream, page.lower))


_READ = {ResultKind.NUMBER: _numbers, ResultKind.CATEGORY: _states}
