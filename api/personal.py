"""Personal observations for a recipient: what live grants permit, chunk by chunk."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from api.fields import NO_CONTROL, After, KnownSector, Limit, next_path, page_size, parse_moment
from api.observations import From, To
from api.schemas import MOMENT, example
from consent import door
from consent.gate import Lease
from consent.masks import Mask
from consent.personal import Chunk, Question, span_of
from consent.vocabulary import Operation
from core.errors import CityError

CHUNK_DEFAULT = 1000
ATTEMPTS = 5
"""How often a chunk is read anew where a grant in it was taken back meanwhile."""

router = APIRouter(tags=["personal data"])

Code = Annotated[str, Query(min_length=1, max_length=128, pattern=NO_CONTROL)]

Person = Annotated[
    str | None,
    Query(
        description="of one person alone, by the name that you know from `persons`",
        min_length=1,
        max_length=64,
        pattern=r"^[a-z2-7]*$",
    ),
]


class PersonalObservation(BaseModel):
    """One observation, as exact as every person in it permits."""

    persons: list[str] = Field(description="whom it describes, by names made for you alone")
    thing: str = Field(description="by a name made for you alone")
    property: str
    unit: str
    phenomenon_time: datetime = Field(description="the beginning of its step of `resolution`")
    result: Any
    quality: int
    resolution: str

    model_config = example(
        persons=["k4wq2lyd5n3nnqzr7q2a4c6h"],
        thing="b6xv4f2m7a3zqd5tj2w8r9ye",
        property="heart-rate",
        unit="/min",
        phenomenon_time=MOMENT,
        result=61.0,
        quality=0,
        resolution="minute",
    )


class Disclosure(BaseModel):
    """One chunk: what was delivered stands in the log under `disclosure`."""

    disclosure: str
    observations: list[PersonalObservation]
    next: str | None = Field(description="the next chunk, null where no more is permitted now")


@router.get("/v1/{sector}/personal/observations", response_model=Disclosure)
def read_personal(
    request: Request,
    sector: KnownSector,
    purpose: Code,
    category: Code,
    lower: From = None,
    upper: To = None,
    operation: Operation = Operation.READ,
    person: Person = None,
    limit: Limit = None,
    after: After = None,
) -> Response:
    """What persons granted to the caller: scope `read:personal`, a recipient's token.

    Ordered by person, series, then time. An observation that is not permitted does not exist here.
    """
    principal = door.principal_of(request)
    span = span_of(parse_moment("from", lower, ""), parse_moment("to", upper, ""))
    mask = Mask(door.secret_of(request), principal.name)
    asked = f"{sector.name} {purpose} {category} {operation.value} {span} {person}"
    question = Question(
        sector,
        purpose,
        category,
        operation,
        span,
        page_size(limit, CHUNK_DEFAULT, request),
        mask.open(after, asked) if after is not None else None,
        mask.person_of(person) if person is not None else None,
    )
    gate = door.gate_of(request)

    def read() -> tuple[bytes, Lease]:
        for _ in range(ATTEMPTS):
            chunk = gate.disclose(principal, question)
            body = door.encode(_body(request, chunk, mask, asked))
            lease = gate.lease(chunk)
            if lease is not None:
                return body, lease
        raise CityError("unavailable", "grants change faster than this can be read: try again")

    return HandedOver(read)


def _body(request: Request, chunk: Chunk, mask: Mask, asked: str) -> dict[str, Any]:
    cursor = mask.seal(chunk.more, asked) if chunk.more else None
    return {
        "disclosure": str(chunk.decision),
        "observations": [
            {
                **row,
                "persons": [mask.person(person) for person in row["persons"]],
                "thing": mask.thing(row["thing"]),
            }
            for row in chunk.rows
        ],
        "next": next_path(request, cursor),
    }


class HandedOver(Response):
    """A chunk that is read, and handed to the socket under its lease, or not at all."""

    def __init__(self, read: Callable[[], tuple[bytes, Lease]]) -> None:
        super().__init__()
        self._read = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a connection that does not take it in time is cut."""
        body, lease = await to_thread.run_sync(self._read)
        try:
            left = lease.seconds_left()
            if left <= 0:
                raise CityError("unavailable", "this took too long to be still permitted")
            async with asyncio.timeout(left):
                await door.current_parts((body,))(scope, receive, send)
        finally:
            await to_thread.run_sync(lease.release)
