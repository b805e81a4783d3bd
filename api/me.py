"""A person's own: what is held about them, and its erasure."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from api import problems
from api.consent import Done, done
from consent import door
from consent import erasure as erasing
from core.errors import CityError

router = APIRouter(tags=["own data"], responses=problems.documented("conflict", "too-large"))

ErasureId = Annotated[
    UUID, Path(description="yours, made at random; keep it: nothing else finds it")
]


class Erasure(BaseModel):
    """How far an erasure has come. From `at` on nobody reads anything of the person."""

    id: UUID
    at: datetime
    sigma: int
    rows_at: datetime | None = Field(description="when the last row was deleted")
    done_at: datetime | None = Field(description="when no file of the database held any more")


@router.put("/v1/me/erasure/{erasure}", response_model=Done)
def put_erasure(request: Request, erasure: ErasureId) -> Response:
    """Erase all that is held about the caller, for ever: scope `write:own`.

    Once this answers nobody reads anything of it. Rows that describe others too go with it.
    """
    keys = door.subject_keys_of(request)
    written = door.act(request, "write:own", lambda c, who: erasing.erase(c, who, erasure))
    with door.gate_of(request).working() as connection:
        erasing.destroy_key(connection, keys, erasure)
    return done(written)


@router.get("/v1/me/erasure/{erasure}", response_model=Erasure)
def read_erasure(request: Request, erasure: ErasureId) -> Response:
    """How far an erasure has come, for whoever has its id: scope `read:own`."""
    with door.own(request) as connection:
        found = erasing.select(connection, erasure)
    if found is None:
        raise CityError("not-found", f"there is no erasure {erasure}")
    return door.current(found)
