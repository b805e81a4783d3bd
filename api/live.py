"""Live observations as server-sent events: each append is read once a process and fanned out.

Rows are read through the gate, once for each set of data classes that some subscriber may read.
Event ids are cursors of append ids by sector (`ports:55,signals:123`), from which a client resumes.
"""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

import domains
from api.fields import Bbox, Box, Unit, parse_bbox
from consent import door, queries
from consent.decide import classes_of, read_by_class
from consent.gate import Append, Gate
from consent.results import Row
from core.clock import now_us
from core.errors import CityError, FieldError
from core.live import listen
from core.sector import Sector
from core.tokens import Principal
from core.units import check_ucum

APPEND_ROWS_MAX = 20_000
RESUME_ROWS_MAX = 10_000
APPENDS_MAX = 1_000
EVENT_ROWS_MAX = 1_000
QUEUE_EVENTS_MAX = 256
QUEUE_BYTES_MAX = 8 * 1024 * 1024
KEEP_ALIVE_SECONDS = 15.0
REFRESH_SECONDS_MIN = 1.0
RETRY_MS = 2_000
KEEP_ALIVE = b": keep-alive\n\n"
SSE = "text/event-stream"

Classes = tuple[str, ...]
Cursor = dict[str, int]
_CURSOR_PART = re.compile(r"([a-z0-9][a-z0-9_-]{0,63}):(\d{1,18})")

router = APIRouter()
log = logging.getLogger("chimata.live")


def format_cursor(cursor: Mapping[str, int]) -> str:
    """ports:55,signals:123"""
    return ",".join(f"{sector}:{append_id}" for sector, append_id in sorted(cursor.items()))


def parse_cursor(text: str) -> Cursor | None:
    """The cursor, or None for what is none: the client then starts afresh."""
    parts = [_CURSOR_PART.fullmatch(part) for part in text.split(",")]
    if not all(parts):
        return None
    return {part[1]: int(part[2]) for part in parts if part}


def event_data(sector: str, rows: Iterable[Row], unit: str | None = None) -> bytes:
    """The `data` of one event, with numbers of the dimension of `unit` converted to it."""
    observations = [
        {
            "thing": row["thing"],
            "property": row["property"],
            "phenomenon_time": row["phenomenon_time"],
            "result": result,
            "unit": result_unit,
            "quality": row["quality"],
        }
        for row in rows
        for result, result_unit in [queries.result_in(unit, row)]
    ]
    return door.encode({"sector": sector, "observations": observations})


def inside(row: Row, boxes: Sequence[Box] | None) -> bool:
    """Whether the row's Thing is in one of the boxes; one without a place is in none."""
    if boxes is None:
        return True
    x, y = row["place_longitude"], row["place_latitude"]
    return x is not None and any(w <= x <= e and s <= y <= n for w, s, e, n in boxes)


@dataclass(eq=False, slots=True)
class Subscriber:
    """One client: what it asked for, where it is, and a bounded queue of events not yet sent."""

    principal: Principal
    sectors: tuple[str, ...]
    boxes: tuple[Box, ...] | None
    cursor: Cursor
    unit: str | None = None
    waiting: deque[tuple[Cursor, str, bytes | None]] = field(default_factory=deque)
    waiting_bytes: int = 0
    ended: bool = False
    reset_at: float = float("-inf")
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def view(self) -> tuple[Classes, tuple[Box, ...] | None, str | None]:
        """Subscribers of the same view get the same bytes."""
        return classes_of(self.principal), self.boxes, self.unit

    @property
    def over(self) -> bool:
        """Whether its stream is to end: it was told so, or its token is no longer valid."""
        return self.ended or expired(self.principal)

    def push(self, cursor: Cursor, data: bytes | None, name: str = "observations") -> None:
        """Queue an event (None: reset); a client too slow for its queue starts afresh."""
        full = len(self.waiting) >= QUEUE_EVENTS_MAX
        if data is None or full or self.waiting_bytes + len(data) > QUEUE_BYTES_MAX:
            # Nothing before a reset matters: it says to read everything again.
            for passed, _, _ in self.waiting:
                cursor = {**passed, **cursor}
            self.waiting.clear()
            self.waiting_bytes, data = 0, None
        self.waiting.append((cursor, name, data))
        self.waiting_bytes += len(data or b"")
        self.ready.set()

    def end(self) -> None:
        """Let its stream end."""
        self.ended = True
        self.ready.set()

    def take(self) -> bytes:
        """The queued events as they go over the wire; the cursor moves with them."""
        parts = []
        while self.waiting:
            cursor, event, data = self.waiting.popleft()
            self.cursor.update(cursor)
            name, body = ("reset", b"{}") if data is None else (event, data)
            head = b"" if not cursor else b"id: " + format_cursor(self.cursor).encode() + b"\n"
            parts.append(head + b"event: " + name.encode() + b"\ndata: " + body + b"\n\n")
        self.waiting_bytes = 0
        self.ready.clear()
        return b"".join(parts)


class Hub:
    """One a process: listens, reads what was appended, and gives it to the subscribers."""

    def __init__(self, gate: Gate, database_url: str, clients_max: int) -> None:
        self._gate = gate
        self._url = database_url
        self._clients_max = clients_max
        self._subscribers: set[Subscriber] = set()
        self._position: Cursor = {}
        self._target: Cursor = {}
        self._wake = asyncio.Event()
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.listening = asyncio.Event()

    @property
    def clients(self) -> int:
        """Open streams."""
        return len(self._subscribers)

    def start(self) -> None:
        """Begin to listen, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._tasks = (asyncio.create_task(self._listen()), asyncio.create_task(self._deliver()))

    def end_streams(self) -> None:
        """Let every open stream end, and take no more; from any thread.

        A server that waits for its connections to close can then shut down.
        """
        self._clients_max = 0
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_streams)

    def _end_streams(self) -> None:
        for subscriber in self._subscribers:
            subscriber.end()

    async def close(self) -> None:
        """End the streams and stop listening."""
        self.end_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check_room(self) -> None:
        """CityError `unavailable` when no more subscribers are taken."""
        if len(self._subscribers) >= self._clients_max:
            raise CityError("unavailable", "too many live subscribers now: read /latest")

    def newest(self, sector: str) -> int:
        """The newest append of a sector that this process has heard of."""
        return self._target.get(sector, 0)

    @contextlib.contextmanager
    def hosting(self, principal: Principal, streams_max: int) -> Iterator[Subscriber]:
        """A stream that reads for itself and is given nothing here, but ends with the others.

        CityError `unavailable` for more than so many of one principal.
        """
        self.check_room()
        own = [s for s in self._subscribers if not s.sectors and s.principal.name == principal.name]
        if len(own) >= streams_max:
            raise CityError("unavailable", f"at most {streams_max} streams and exports at a time")
        subscriber = Subscriber(principal, (), None, {})
        self.join(subscriber)
        try:
            yield subscriber
        finally:
            self.leave(subscriber)

    def join(self, subscriber: Subscriber) -> None:
        """Add a subscriber at the hub's position."""
        subscriber.cursor = {s: self._position.get(s, 0) for s in subscriber.sectors}
        self._subscribers.add(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber."""
        self._subscribers.discard(subscriber)

    async def missed(self, subscriber: Subscriber, since: Cursor | None) -> list[bytes] | None:
        """Data of the events between `since` and where it joined; None when that is too much."""
        if since is None:
            return None
        found: list[bytes] = []
        rows_left = RESUME_ROWS_MAX
        for name in subscriber.sectors:
            after, until = since.get(name, subscriber.cursor[name]), subscriber.cursor[name]
            if after > until:
                return None  # a cursor from the future: of another database
            appends = await to_thread.run_sync(
                self._gate.appends, name, after, until, APPENDS_MAX + 1
            )
            rows_left -= sum(append.rows for append in appends)
            if rows_left < 0 or len(appends) > APPENDS_MAX:
                return None
            rows = await self._read(subscriber.principal, name, appends)
            rows = [row for row in rows if inside(row, subscriber.boxes)]
            found += [event_data(name, part, subscriber.unit) for part in _parts(rows)]
        return found

    async def _listen(self) -> None:
        async for notice in listen(self._url):
            if notice is None:
                await self._locate()
                self.listening.set()
            else:
                known = self._target.get(notice.sector, 0)
                self._target[notice.sector] = max(known, notice.append_id)
            self._wake.set()

    async def _locate(self) -> None:
        """Find where every sector is: at the first connection a start, later what was missed."""
        first = not self.listening.is_set()
        with contextlib.suppress(CityError):  # the next notices tell, too
            positions = await to_thread.run_sync(self._gate.positions)
            self._target.update(positions)
            if first:
                self._position.update(positions)

    async def _deliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for name in domains.names():
                while self._position.get(name, 0) < self._target.get(name, 0):
                    await self._advance(name)

    async def _advance(self, name: str) -> None:
        """Give out the next appends of a sector."""
        after, until = self._position.get(name, 0), self._target[name]
        appends: list[Append] | None = []
        if any(name in s.sectors for s in self._subscribers):
            appends = await self._appends(name, after, until)
        taken = _within(appends or (), APPEND_ROWS_MAX)
        last = taken[-1].id if taken else until
        # In one step with the position: who joins from here on starts after `last`.
        subscribers = [s for s in self._subscribers if name in s.sectors]
        self._position[name] = last
        try:
            if appends is None or sum(append.rows for append in taken) > APPEND_ROWS_MAX:
                self._refresh(subscribers, {name: last})
            else:
                await self._give(name, taken, last, subscribers)
        except Exception:  # one bad append must not end every stream
            log.exception("live %s up to %d was not read", name, last)
            self._refresh(subscribers, {name: last})

    async def _appends(self, name: str, after: int, until: int) -> list[Append] | None:
        """The next appends, or None while the database is away: the streams then start afresh."""
        try:
            return await to_thread.run_sync(self._gate.appends, name, after, until, APPENDS_MAX)
        except CityError:
            return None

    async def _give(
        self, name: str, appends: Sequence[Append], last: int, subscribers: Sequence[Subscriber]
    ) -> None:
        rows: dict[Classes, list[Row]] = {}
        encoded: dict[Any, list[bytes]] = {}
        for subscriber in subscribers:
            classes, boxes, unit = subscriber.view
            if classes not in rows:
                rows[classes] = await self._read(subscriber.principal, name, appends)
            if subscriber.view not in encoded:
                seen = [row for row in rows[classes] if inside(row, boxes)]
                encoded[subscriber.view] = [event_data(name, part, unit) for part in _parts(seen)]
            events = encoded[subscriber.view]
            for number, data in enumerate(events, 1):
                # Only the last part has the id: a client cut off between them gets all again.
                subscriber.push({name: last} if number == len(events) else {}, data)

    async def _read(self, principal: Principal, name: str, appends: Sequence[Append]) -> list[Row]:
        if not appends:
            return []
        return await to_thread.run_sync(_select, self._gate, principal, name, appends)

    def _refresh(self, subscribers: Iterable[Subscriber], cursor: Cursor) -> None:
        """Tell them to read /latest again, at most once a second each."""
        now = asyncio.get_running_loop().time()
        for subscriber in subscribers:
            pause = subscriber.reset_at + REFRESH_SECONDS_MIN - now
            if pause <= 0:
                subscriber.reset_at = now
                subscriber.push(cursor, None)
            elif pause <= REFRESH_SECONDS_MIN:
                subscriber.reset_at = now + pause  # one is on its way: it covers this one, too
                loop = asyncio.get_running_loop()
                loop.call_later(pause, subscriber.push, cursor, None)


def _select(gate: Gate, principal: Principal, name: str, appends: Sequence[Append]) -> list[Row]:
    try:
        with gate.reading(principal, domains.sector(name)) as connection:
            return queries.select_appended(connection, appends, APPEND_ROWS_MAX)
    except CityError as error:
        if error.slug in {"unauthenticated", "forbidden"}:
            return []  # nothing there that these may see (not any more)
        raise


def _within(appends: Sequence[Append], rows_max: int) -> list[Append]:
    """The first appends that are together no longer than `rows_max`; at least one."""
    taken: list[Append] = []
    rows = 0
    for append in appends:
        rows += append.rows
        if taken and rows > rows_max:
            break
        taken.append(append)
    return taken


def _parts(rows: Sequence[Row]) -> Iterable[Sequence[Row]]:
    return (rows[at : at + EVENT_ROWS_MAX] for at in range(0, len(rows), EVENT_ROWS_MAX))


@router.get(
    "/v1/live",
    tags=["every sector"],
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "events `observations` and `reset` (read /latest again)",
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "example": 'id: ports:55\nevent: observations\ndata: {"sector":"ports",'
                    '"observations":[{"thing":"431000001","property":"heading",'
                    '"phenomenon_time":"2026-01-01T00:00:00Z","result":91.0,"unit":"deg",'
                    '"quality":0}]}\n\n',
                }
            },
        },
    },
)
async def read_live(
    request: Request,
    sector: Annotated[
        str | None,
        Query(
            description="sectors, separated by commas; all that you may read when absent",
            examples=["ports,signals"],
            max_length=512,
        ),
    ] = None,
    bbox: Bbox = None,
    unit: Unit = None,
    last_event_id: Annotated[str | None, Header(max_length=4096)] = None,
) -> StreamingResponse:
    """New observations as they are stored, as server-sent events (WHATWG HTML, 9.2)."""
    hub: Hub = request.app.state.hub
    principal = door.principal_of(request)
    boxes = parse_bbox(bbox) if bbox else None
    if unit:
        await to_thread.run_sync(check_ucum, unit)
    sectors = await to_thread.run_sync(_permitted_sectors, request, sector)
    hub.check_room()
    subscriber = Subscriber(principal, sectors, boxes, {}, unit)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(hub, subscriber, last_event_id), 200, headers, SSE)


def _permitted_sectors(request: Request, wanted: str | None) -> tuple[str, ...]:
    """The sectors asked for, each checked at the gate; or every one that is read by class.

    Of the latter each append is checked when it is read: a sector's first open stream may be yet
    to come.
    """
    if not wanted:
        declared = map(domains.sector, domains.names())
        return tuple(s.name for s in declared if read_by_class(s))
    names = tuple(dict.fromkeys(part.strip() for part in wanted.split(",")))
    for sector in map(_named, names):
        with door.reading(request, sector):
            pass
    return names


def _named(name: str) -> Sector:
    try:
        return domains.sector(name)
    except CityError as error:
        fields = (FieldError("sector", f"there is no sector {name!r}"),)
        raise CityError(error.slug, error.detail, fields) from error


async def _stream(
    hub: Hub, subscriber: Subscriber, last_event_id: str | None
) -> AsyncIterator[bytes]:
    hub.join(subscriber)  # here, where leaving is certain: a stream that never starts never joins
    try:
        yield f"retry: {RETRY_MS}\n\n".encode()
        if last_event_id:
            for part in await _resumed(hub, subscriber, last_event_id):
                yield part
        else:
            # An id at once: a client that is cut off before its first event resumes from here.
            yield f"id: {format_cursor(subscriber.cursor)}\n\n".encode()
        while not subscriber.over:
            try:
                await asyncio.wait_for(subscriber.ready.wait(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if subscriber.waiting:
                yield subscriber.take()
    finally:
        hub.leave(subscriber)


async def _resumed(hub: Hub, subscriber: Subscriber, last_event_id: str) -> list[bytes]:
    """What came between the client's last event and its joining, or a reset."""
    head = f"id: {format_cursor(subscriber.cursor)}\n".encode()
    try:
        missed = await hub.missed(subscriber, parse_cursor(last_event_id))
    except CityError:
        missed = None
    if missed is None:
        return [head + b"event: reset\ndata: {}\n\n"]
    events = [b"event: observations\ndata: " + data + b"\n\n" for data in missed]
    return [*events[:-1], head + (events[-1] if events else b"\n")]


def expired(principal: Principal) -> bool:
    """Whether the token that opened the stream is no longer valid."""
    return principal.role is not None and now_us() // 1_000_000 >= principal.expires_at
