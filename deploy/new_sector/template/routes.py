"""The newsector sector's own words; things, latest, history and live come with every one."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from consent import door
from deploy.new_sector.template import queries, schemas
from deploy.new_sector.template.sector import SECTOR

router = APIRouter()


@router.get("/states", response_model=schemas.StationStates)
def read_states(
    request: Request,
    after: Annotated[str, Query(max_length=255)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The newest state of every station, in the order of their keys."""
    with door.reading(request, SECTOR) as connection:
        stations = queries.select_states(connection, after=after, limit=limit)
    return door.current({"stations": stations})
