"""Which cells are up, and the live streams of all of them as one."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping

import orjson
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api import spanning
from consent.gate import Gate
from core.errors import CityError

OK = 200
QUEUE_EVENTS_MAX = 256
LOOK_SECONDS_MAX = 3.0
RETRY_SECONDS = 1.0
KEEP_ALIVE = b": keep-alive\n\n"
SSE = "text/event-stream"
EVENT_END = b"\n\n"
_ID = re.compile(rb"^id: (.*)$", re.M)


class Health:
    """Which cells do not answer, as of a moment ago."""

    def __init__(self, cells: Mapping[str, FastAPI]) -> None:
        self._cells = cells
        self.down: list[str] = []
        self.changed = asyncio.Condition()

    async def look(self) -> None:
        """Ask each cell's database."""
        answers = await asyncio.gather(*(self._is_up(app) for app in self._cells.values()))
        down = [name for name, up in zip(self._cells, answers, strict=True) if not up]
        async with self.changed:
            if down != self.down:
                self.down = down
                self.changed.notify_all()

    async def _is_up(self, app: FastAPI) -> bool:
        gate: Gate = app.state.gate
        try:
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                await asyncio.to_thread(gate.check_health)
        except (CityError, TimeoutError):
            return False
        return True


class Merger:
    """One client's stream: a pump a cell, and a bounded queue of events to send."""

    def __init__(
        self, cells: Mapping[str, FastAPI], health: Health, scope: Scope, last_event_id: str | None
    ) -> None:
        self._cells = cells
        self._health = health
        self._scope = scope
        self._positions = spanning.parse_event_id(last_event_id, cells)
        self._queue: asyncio.Queue[tuple[str | None, bytes]] = asyncio.Queue(QUEUE_EVENTS_MAX)
        self._left = len(cells)

    async def events(self) -> AsyncIterator[bytes]:
        """The cells' events with ids that name every cell's position; ends when all have ended."""
        tasks = [asyncio.create_task(self._pump(cell)) for cell in self._cells]
        tasks.append(asyncio.create_task(self._tell_incomplete()))
        retry_told = False
        try:
            while self._left:
                cell, event = await self._queue.get()
                if event.startswith(b"retry:") and retry_told:
                    continue
                retry_told = retry_told or event.startswith(b"retry:")
                if event:
                    yield self._with_position(cell, event)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _with_position(self, cell: str | None, event: bytes) -> bytes:
        own = _ID.search(event)
        if cell is None or own is None:
            return event
        self._positions[cell] = own[1].decode()
        every = b"id: " + spanning.format_event_id(self._positions).encode()
        return event[: own.start()] + every + event[own.end() :]

    async def _pump(self, cell: str) -> None:
        """Follow one cell's stream; a cell that was away is resumed where it was."""
        try:
            while True:
                async with self._health.changed:
                    await self._health.changed.wait_for(lambda: cell not in self._health.down)
                status = await self._follow(cell)
                if status != OK and cell not in self._health.down:
                    await asyncio.sleep(RETRY_SECONDS)
                    if cell not in self._health.down:
                        return  # it takes nobody, or not this one
        finally:
            self._left -= 1
            with contextlib.suppress(asyncio.QueueFull):
                self._queue.put_nowait((None, b""))

    async def _follow(self, cell: str) -> int:
        """One connection to a cell's /v1/live; the status that it began with."""
        status, rest = 0, b""

        async def send(message: Message) -> None:
            nonlocal status, rest
            if message["type"] == "http.response.start":
                status = int(message["status"])
                return
            *events, rest = (rest + message.get("body", b"")).split(EVENT_END)
            for event in events if status == OK else ():
                await self._queue.put((cell, event + EVENT_END))

        headers = [pair for pair in self._scope["headers"] if pair[0] != b"last-event-id"]
        if cell in self._positions:
            headers.append((b"last-event-id", self._positions[cell].encode()))
        await self._cells[cell]({**self._scope, "headers": headers}, _never, send)
        return status

    async def _tell_incomplete(self) -> None:
        """Say at once, and whenever it changes, which cells are missing."""
        changed, told = self._health.changed, list[str]()
        while True:
            async with changed:
                while self._health.down == told:
                    await changed.wait()
                told = list(self._health.down)
            data = orjson.dumps({"cells": told})
            await self._queue.put((None, b"event: incomplete\ndata: " + data + EVENT_END))


async def stream(
    cells: Mapping[str, FastAPI], health: Health, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer a request for /v1/live with the streams of all cells, or with what refuses it."""
    up = [app for name, app in cells.items() if name not in health.down]
    if not up:
        raise CityError("unavailable", "no cell answers now")
    refusals = [await _refusal(app, scope) for app in up]
    if None not in refusals:
        for message in refusals[0] or ():
            await send(message)
        return
    held = Headers(scope=scope).get("last-event-id")
    merger = Merger(cells, health, scope, held)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    await StreamingResponse(merger.events(), OK, headers, SSE)(scope, receive, send)


async def _refusal(app: FastAPI, scope: Scope) -> list[Message] | None:
    """The answer of a cell that does not let this client in, or None once its stream begins."""
    sent: list[Message] = []
    begun = asyncio.Event()

    async def take(message: Message) -> None:
        sent.append(message)
        if message.get("status") == OK:
            begun.set()

    asking = asyncio.create_task(app(scope, _never, take))
    waiting = asyncio.create_task(begun.wait())
    await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in (asking, waiting):
        task.cancel()
    await asyncio.gather(asking, waiting, return_exceptions=True)
    return None if begun.is_set() else sent


async def _never() -> Message:
    """A client that stays: who asked in its name is cancelled when it goes."""
    await asyncio.Event().wait()
    raise AssertionError
