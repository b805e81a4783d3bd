"""Chunks of personal data on their way out: each is read, put on record, and leaves under a lease.

One chunk is one answer (HandedOver), or a part of one (Streamed): a part that begins after a person
took something back has nothing of it, whatever the parts before it had.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from anyio import CancelScope, create_task_group, fail_after, to_thread
from fastapi import Response
from starlette.types import Receive, Scope, Send

from consent import door
from consent.gate import Gate, Lease
from consent.personal import PAGE, Chunk, Query, Question
from core.errors import CityError
from core.tokens import Principal

ATTEMPTS = 5
"""How often a chunk is read anew where a grant in it was taken back meanwhile."""
TAKEN_SECONDS_MAX = 60.0
"""A client that has not taken a part by then is cut off."""

Prepared = TypeVar("Prepared")


def leased(
    gate: Gate,
    principal: Principal,
    question: Question,
    prepare: Callable[[Chunk], Prepared],
    query: Query = PAGE,
) -> tuple[Prepared, Chunk, Lease]:
    """A chunk, what is made of it, and the lease under which that may leave."""
    for _ in range(ATTEMPTS):
        chunk = gate.disclose(principal, question, query)
        prepared = prepare(chunk)
        lease = gate.lease(chunk)
        if lease is not None:
            return prepared, chunk, lease
    raise CityError("unavailable", "grants change faster than this can be read: try again")


class HandedOver(Response):
    """A chunk that is read, and handed to the socket under its lease, or not at all."""

    def __init__(
        self, read: Callable[[], tuple[bytes, Lease]], media_type: str = door.JSON
    ) -> None:
        super().__init__()
        self._read = read
        self._sent_as = media_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a connection that does not take it in time is cut."""
        body, lease = await to_thread.run_sync(self._read)
        try:
            left = lease.seconds_left()
            if left <= 0:
                raise CityError("unavailable", "this took too long to be still permitted")
            async with asyncio.timeout(left):
                await door.current_parts((body,), self._sent_as)(scope, receive, send)
        finally:
            await to_thread.run_sync(lease.release)


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of an answer; without a lease they hold nothing personal."""

    body: bytes
    lease: Lease | None = None

    async def release(self) -> None:
        """Give the lease back, even where the stream was cut."""
        if self.lease is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(self.lease.release)


class Streamed(Response):
    """Part after part; the next is read only once the client has taken the one before.

    What fails before the first part is an answer of its own; later the connection is cut, so that
    nobody takes a broken answer for a whole one.
    """

    def __init__(
        self,
        parts: AsyncGenerator[Part, None],
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        sent = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})}
        super().__init__(media_type=media_type, headers=sent)
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what there is until it ends, or the client has gone."""
        async with aclosing(self._parts) as parts:
            first = await anext(parts)
            try:
                start = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **start})
            except BaseException:
                await first.release()
                raise
            async with create_task_group() as group:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                if await _send_all(first, parts, send):
                    await send({"type": "http.response.body"})
                group.cancel_scope.cancel()


async def _send_all(first: Part, rest: AsyncGenerator[Part, None], send: Send) -> bool:
    """Whether all of it was sent."""
    part: Part | None = first
    try:
        while part is not None:
            await _send(part, send)
            with fail_after(TAKEN_SECONDS_MAX):  # an empty part waits until there is room again
                await send({"type": "http.response.body", "more_body": True})
            part = await anext(rest, None)
    except (CityError, TimeoutError):
        return False
    return True


async def _send(part: Part, send: Send) -> None:
    message = {"type": "http.response.body", "body": part.body, "more_body": True}
    try:
        if part.lease is None:
            await send(message)
            return
        left = part.lease.seconds_left()
        if left <= 0:
            raise TimeoutError
        with fail_after(left):
            await send(message)
    finally:
        await part.release()
