"""Which Datastreams changed since a cursor, and over which times: what derived tables follow."""

from fastapi import APIRouter, Request, Response

from api.fields import (
    After,
    KnownSector,
    Limit,
    next_url,
    open_cursor,
    page_size,
)
from api.schemas import Changes
from consent import changes, door

CHANGES_DEFAULT = 1000
NOW = "now"

router = APIRouter()


@router.get("/v1/{sector}/changes", response_model=Changes, tags=["every sector"])
def read_changes(
    request: Request, sector: KnownSector, limit: Limit = None, after: After = None
) -> Response:
    """A page of what changed after a cursor: late and corrected results, too.

    Read each span again, then follow `next`, for ever; `after=now` begins with what comes next.
    """
    size = page_size(limit, CHANGES_DEFAULT, request)
    with door.reading(request, sector) as connection:
        end = changes.last(connection)
        cursor = end if after == NOW else changes.Cursor.parse(open_cursor(after))
        found, following = changes.select_changes(connection, cursor, size)
    body = {
        "sector": sector.name,
        "changes": [
            {
                "thing": row["thing"],
                "property": row["property"],
                "from": row["first"],
                "to": row["upper"],
                "count": row["count"],
            }
            for row in found
        ],
        "next": next_url(request, str(following)),
        "complete": following.after >= end.after,
    }
    return door.current(body)
