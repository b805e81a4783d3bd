"""The catalogue of mobility's feeds: as pages of JSON, and as DCAT."""

from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response

from consent import door
from consent.gate import PermittedConnection
from core.errors import CityError
from domains.mobility.catalogue import describe, queries
from domains.mobility.catalogue.schemas import Feed, Feeds, Kind, Streets
from domains.mobility.network import street_load
from domains.mobility.sector import SECTOR

router = APIRouter()

FEEDS_MAX = 1_000
DATASETS_MAX = 2_000
TITLE = {"ja": "移動のデータカタログ", "en": "Catalogue of mobility data"}
FEED_ID = Path(max_length=64, pattern="^[a-z0-9][a-z0-9_-]*$", examples=["demo-bus"])


@router.get("/feeds", response_model=Feeds, summary="Every feed: licence, freshness, quality")
def read_feeds(
    request: Request,
    kind: Annotated[Kind | None, Query(description="Only feeds of this kind")] = None,
    limit: Annotated[int, Query(ge=1, le=FEEDS_MAX)] = 100,
    after: Annotated[str, Query(max_length=64, description="id of the last feed seen")] = "",
) -> Response:
    """Competitive feeds are listed for who has a contract."""
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_feeds(connection, after=after, kind=kind, limit=limit)
        streets = _streets(connection)
    base, now = base_of(request), datetime.now(UTC)
    feeds = [describe.feed_of(row, base, now) for row in rows]
    following = None
    if len(feeds) == limit:
        asked = {"limit": limit, "after": feeds[-1].id, **({"kind": kind} if kind else {})}
        following = f"{request.url.path}?{urlencode(asked)}"
    return door.current(Feeds(feeds=feeds, next=following, streets=streets).model_dump())


@router.get("/feeds/{feed}", response_model=Feed, summary="One feed")
def read_feed(request: Request, feed: Annotated[str, FEED_ID]) -> Response:
    """What the catalogue knows of one feed."""
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_feeds(connection, feed=feed, limit=1)
    if not rows:
        raise CityError("not-found", f"there is no feed {feed!r}; see /v1/mobility/feeds")
    return door.current(describe.feed_of(rows[0], base_of(request), datetime.now(UTC)).model_dump())


@router.get(
    "/catalogue.jsonld",
    summary="The catalogue as DCAT",
    response_class=Response,
    responses={200: {"content": {"application/ld+json": {}}, "description": "DCAT 3, JSON-LD"}},
)
def read_catalogue(request: Request) -> Response:
    """At most 2,000 feeds: an open-data portal harvests them from here."""
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_feeds(connection, limit=DATASETS_MAX)
        streets = _streets(connection)
    base, now = base_of(request), datetime.now(UTC)
    feeds = [describe.feed_of(row, base, now) for row in rows]
    return door.current(describe.catalogue(feeds, base, TITLE, streets), "application/ld+json")


def _streets(connection: PermittedConnection) -> Streets | None:
    told = street_load.told(connection)
    return None if told is None else Streets(**told)


def base_of(request: Request) -> str:
    """The sector's own address, as the caller knows this server."""
    return str(request.base_url).rstrip("/") + f"/v1/{SECTOR.name}"
