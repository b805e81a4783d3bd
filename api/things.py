"""Things of any sector, and their latest values as GeoJSON."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.fields import (
    NO_CONTROL,
    After,
    Bbox,
    KnownSector,
    Limit,
    Near,
    ThingId,
    Unit,
    next_url,
    open_cursor,
    page_size,
    parse_area,
)
from api.schemas import LatestCollection, Thing, Things
from consent import door, queries
from consent.latest import select_latest
from consent.results import Row
from core.errors import CityError
from core.sector import Sector
from core.units import check_ucum

GEOJSON = "application/geo+json"
SEARCH_CHARACTERS_MAX = 100
THINGS_DEFAULT = 100
LATEST_DEFAULT = 1000

router = APIRouter()

Search = Annotated[
    str | None,
    Query(
        description="text in the id or the name",
        max_length=SEARCH_CHARACTERS_MAX,
        pattern=NO_CONTROL,
    ),
]


@router.get("/v1/{sector}/things", response_model=Things, tags=["every sector"])
def read_things(
    request: Request,
    sector: KnownSector,
    limit: Limit = None,
    after: After = None,
    q: Search = None,
) -> Response:
    """A page of the sector's Things, by id."""
    size = page_size(limit, THINGS_DEFAULT, request)
    with door.reading(request, sector) as connection:
        rows = queries.select_things(connection, size + 1, open_cursor(after), q)
    more = rows[size - 1]["key"] if len(rows) > size else None
    page = [_thing(row) for row in rows[:size]]
    return door.cacheable(request, {"things": page, "next": next_url(request, more)})


@router.get("/v1/{sector}/things/{thing}", response_model=Thing, tags=["every sector"])
def read_thing(
    request: Request, sector: KnownSector, thing: ThingId, unit: Unit = None
) -> Response:
    """One Thing with its Datastreams and their latest values."""
    if unit:
        check_ucum(unit)
    with door.reading(request, sector) as connection:
        row = queries.select_thing(connection, thing)
        if row is None:
            raise CityError("not-found", f"{sector.name} has no Thing {thing!r}")
        streams = queries.select_datastreams(connection, row["id"])
    body = {**_thing(row), "datastreams": [_datastream(sector, each, unit) for each in streams]}
    return door.cacheable(request, body)


@router.get(
    "/v1/{sector}/latest",
    response_model=LatestCollection,
    tags=["every sector"],
    responses={200: {"content": {GEOJSON: {}}}},
)
def read_latest(
    request: Request,
    sector: KnownSector,
    bbox: Bbox = None,
    near: Near = None,
    limit: Limit = None,
    after: After = None,
    unit: Unit = None,
) -> Response:
    """Current state as GeoJSON, in a box or within a distance: never cached."""
    size = page_size(limit, LATEST_DEFAULT, request)
    area = parse_area(bbox, near)
    if unit:
        check_ucum(unit)
    with door.reading(request, sector) as connection:
        page = select_latest(connection, size, open_cursor(after), area, unit)
    begin = b'{"type":"FeatureCollection","features":['
    end = b'],"next":%b}' % door.encode(next_url(request, page.more))
    return door.current_parts((begin, *page.features, end), GEOJSON)


def _thing(row: Row) -> dict[str, Any]:
    located = row["longitude"] is not None
    return {
        "id": row["key"],
        "sector": row["sector"],
        "name": row["name"],
        "location": (
            {"longitude": row["longitude"], "latitude": row["latitude"]} if located else None
        ),
        "geometry": row["geometry"],
        "properties": row["properties"],
        "last_seen": row["last_seen"],
    }


def _datastream(sector: Sector, row: Row, unit: str | None) -> dict[str, Any]:
    declared = sector.by_name.get(row["property"].partition("/")[0])
    result, result_unit = queries.result_in(unit, row)
    latest = None
    if row["phenomenon_time"] is not None:
        latest = {
            "phenomenon_time": row["phenomenon_time"],
            "result": result,
            "quality": row["quality"],
        }
    return {
        "property": row["property"],
        "title": {"ja": declared.title_ja, "en": declared.title_en} if declared else None,
        "unit": result_unit,
        "kind": row["kind"],
        "data_class": row["data_class"],
        "undeclared": row["undeclared"],
        "latest": latest,
    }
