"""Personal observations as they come, as server-sent events: what live grants permit alone.

A stream looks on a beat of its own, never because somebody's row came: when an event arrives tells
as little of others as what is in it. Each event is a chunk of its own, with its record and lease.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from api.fields import KnownSector
from api.live import KEEP_ALIVE, RETRY_MS, SSE, Hub, Subscriber, expired
from api.personal import Asked, Code, Person, RowOperation, asked
from api.personal_handover import Part, Streamed, leased
from consent import door
from consent.channels import Position, new_rows
from consent.personal import Chunk, span_of
from consent.vocabulary import Operation
from core.errors import CityError

BEAT_SECONDS = 1.0
REST_BEATS = 15
"""So often a stream looks although nothing was appended, for steps that have ended since, and sends
a comment that keeps it open."""
RESUMED_SECONDS_MAX = 3600
"""How old the last event may be from which a stream goes on."""
STREAMS_MAX = 8
"""Open streams and exports of one recipient, a process."""
CHUNK_ROWS = 1_000

router = APIRouter(tags=["personal data"])


@router.get(
    "/v1/{sector}/personal/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "events `observations`, and `reset` (read /personal/observations again)",
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "example": 'id: 5J2n...\nevent: observations\ndata: {"disclosure":'
                    '"0b0e7a52-6f0e-4f0e-8d53-0f8a4e3c1a01","observations":[{"persons":'
                    '["k4wq2lyd5n3nnqzr7q2a4c6h"],"thing":"b6xv4f2m7a3zqd5tj2w8r9ye",'
                    '"property":"heart-rate","unit":"/min","phenomenon_time":'
                    '"2026-01-01T00:00:00Z","result":61.0,"quality":0,"resolution":"exact"}]}\n\n',
                }
            },
        },
    },
)
def follow_personal(
    request: Request,
    sector: KnownSector,
    purpose: Code,
    category: Code,
    operation: RowOperation = Operation.READ,
    person: Person = None,
    last_event_id: Annotated[str | None, Header(max_length=4096)] = None,
) -> Response:
    """What is stored from now on of what persons granted to the caller, once a second.

    With `Last-Event-ID` (from this same address) it goes on there, up to an hour later. What is
    granted or bound only after it was stored is read at `/personal/observations`.
    """
    whole = span_of("", "")
    question = asked(
        request, sector, purpose, category, whole, person, operation, CHUNK_ROWS
    )  # fmt: skip
    question = replace(question, text=f"stream {question.text}")
    return Streamed(_followed(request.app.state.hub, question, last_event_id), SSE)


async def _followed(
    hub: Hub, asked: Asked, last_event_id: str | None
) -> AsyncGenerator[Part, None]:
    with hub.hosting(asked.principal, STREAMS_MAX) as subscriber:
        sector = asked.question.sector.name
        now = await to_thread.run_sync(asked.gate.position, sector)
        since = _opened(asked, last_event_id, now) if last_event_id else now
        parts = _between(asked, now if since is None else since, now)
        # The first look comes before the first byte: who may not read is answered so.
        part = await anext(parts, Part(b""))
        head = f"retry: {RETRY_MS}\n\n"
        if since is None:
            head += f"id: {_sealed(asked, now)}\nevent: reset\ndata: {{}}\n\n"
        elif not last_event_id:
            head += f"id: {_sealed(asked, now)}\n\n"
        yield Part(head.encode() + part.body, part.lease)
        async for part in parts:
            yield part
        since = now
        async for beat in _beats(subscriber):
            if beat % REST_BEATS == 0:
                yield Part(KEEP_ALIVE)
            elif hub.newest(sector) <= since.append:
                continue
            try:
                now = await to_thread.run_sync(asked.gate.position, sector)
                async for part in _between(asked, since, now):
                    yield part
            except CityError:
                return  # suspended, or the database is away: to be resumed from the last event
            since = now


async def _beats(subscriber: Subscriber) -> AsyncGenerator[int, None]:
    """Their numbers from 1 on, each at its time; a late one falls out."""
    clock = asyncio.get_running_loop().time
    began, beat = clock(), 0
    while not subscriber.ended and not expired(subscriber.principal):
        beat = max(beat, int((clock() - began) / BEAT_SECONDS)) + 1
        with suppress(TimeoutError):
            await asyncio.wait_for(subscriber.ready.wait(), began + beat * BEAT_SECONDS - clock())
            return
        yield beat


async def _between(asked: Asked, since: Position, until: Position) -> AsyncGenerator[Part, None]:
    """The events of what came between two positions; the last one alone has an id.

    A client that is cut off before it gets all again.
    """
    question, query = asked.question, new_rows(since, until)

    def event(chunk: Chunk) -> bytes:
        if not chunk.rows:
            return b""
        rows = asked.named(chunk.rows)
        data = door.encode({"disclosure": str(chunk.decision), "observations": rows})
        head = b"" if chunk.more else f"id: {_sealed(asked, until)}\n".encode()
        return head + b"event: observations\ndata: " + data + b"\n\n"

    while True:
        body, chunk, lease = await to_thread.run_sync(
            leased, asked.gate, asked.principal, question, event, query
        )
        part = Part(body, lease)
        if not chunk.rows:
            await part.release()
            return
        yield part
        if chunk.more is None:
            return
        question = replace(question, after=chunk.more)


def _sealed(asked: Asked, position: Position) -> str:
    return asked.mask.seal((position.append, 0, 0, position.at), asked.text)


def _opened(asked: Asked, event_id: str, now: Position) -> Position | None:
    """Where the stream stopped; None for what is no id of this very stream, and for too old a one.

    Its age alone decides, never how much was stored since.
    """
    try:
        append, _, _, at = asked.mask.open(event_id, asked.text)
    except CityError:
        return None
    if append > now.append or now.at - at > timedelta(seconds=RESUMED_SECONDS_MAX):
        return None
    return Position(append, at)
