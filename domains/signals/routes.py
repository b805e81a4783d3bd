"""The signals sector's own words: the current state of an intersection."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from consent import door
from core.errors import CityError
from domains.signals import queries, rules, schemas
from domains.signals.sector import SECTOR

router = APIRouter()


@router.get(
    "/intersections/{intersection}/spat",
    response_model=schemas.Spat,
    summary="Current state of every signal group",
)
def read_spat(
    request: Request,
    intersection: Annotated[
        str, Path(max_length=200, examples=["8804", "12-8804"], description="id, or region-id")
    ],
) -> Response:
    """What every signal group shows now, and how long that may be relied on.

    `unknown` after 2 s of silence by the receiver's clock, and for what is history. Not for caches.
    """
    with door.reading(request, SECTOR) as connection:
        found = queries.select_intersection(connection, intersection)
        now = datetime.now(UTC)
    if found is None:
        raise CityError("not-found", f"there is no intersection {intersection!r}")
    state = rules.current_state(found.rows, found.heard_at, found.heard_time, now)
    return door.current({"intersection": intersection, **asdict(state)})
