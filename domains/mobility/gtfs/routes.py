"""Timetables over HTTP: the zip that others route with, and what is wrong with it."""

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from consent import door
from consent.gate import PermittedConnection
from core.errors import CityError
from core.remembered import Remembered
from domains.mobility.gtfs import publish, queries
from domains.mobility.gtfs.schemas import Quality
from domains.mobility.sector import SECTOR

router = APIRouter(prefix="/feeds/{feed}")

Feed = Annotated[str, Path(max_length=64, description="Id of the feed, as `caltrain`")]
Version = Annotated[
    int | None,
    Query(ge=1, le=2**31 - 1, description="Default: the version in force today, else the newest"),
]

KEPT_BYTES_MAX = 64 << 20
_KEPT = "gtfs.zip"
_PACKING = threading.Lock()
"""One feed is packed at a time: each takes the memory of its zip."""


@router.get("/quality", response_model=Quality, summary="What is wrong with a timetable")
def read_quality(feed: Feed, request: Request, version: Version = None) -> Response:
    """Problems that the import found, gravest first; `not-found` for an unknown feed."""
    with door.reading(request, SECTOR) as connection:
        row = _version(connection, feed, version)
    body = {**row, **row["quality"]}
    shown = {name: body[name] for name in Quality.model_fields}
    return door.cacheable(request, Quality.model_validate(shown).model_dump())


@router.get(
    "/gtfs.zip",
    response_class=Response,
    responses={200: {"content": {publish.MEDIA_TYPE: {}}}},
    summary="A timetable as GTFS",
)
def read_gtfs(feed: Feed, request: Request, version: Version = None) -> Response:
    """The feed as it is stored, with modern translations; the same bytes until it changes."""
    with door.reading(request, SECTOR) as connection:
        row = _version(connection, feed, version)
        packed = _kept(connection).get(row["version"])
    if packed is None:
        # The lock is never waited for with a connection in hand.
        with _PACKING, door.reading(request, SECTOR) as connection:
            kept = _kept(connection)
            packed = kept.get(row["version"])
            if packed is None:
                _version(connection, feed, row["version"])
                packed = publish.zip_of(connection, row["version"])
                kept.put(row["version"], packed, len(packed))
    answer = door.cacheable_bytes(request, packed, publish.MEDIA_TYPE)
    answer.headers["Content-Disposition"] = f'attachment; filename="{row["feed"]}.zip"'
    return answer


def _version(connection: PermittedConnection, feed: str, version: int | None) -> dict[str, Any]:
    row = queries.select_version(connection, feed, version)
    if row is None:
        raise CityError("not-found", f"there is no timetable {feed}")
    return row


def _kept(connection: PermittedConnection) -> Remembered[int, bytes]:
    """Zips that callers of the same permission had already."""
    kept: Remembered[int, bytes] = connection.kept.setdefault(_KEPT, Remembered(KEPT_BYTES_MAX))
    return kept
