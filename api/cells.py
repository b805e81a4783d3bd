"""A read API over several cells: the whole API of each in one process, and this in front of them.

Every row leaves through the gate of its own cell, which decides and audits there. What a cell that
is down would have said is missing from the answer, and the answer says so (docs/decisions/0008).
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import domains
from api import cells_live, spanning
from api.app import create_app
from api.limits import SecurityHeaders
from api.problems import of_anything, of_city_error
from core.errors import KINDS, CityError, FieldError, invalid
from core.settings import Settings
from core.tokens import check_name

VARIABLE = "CHIMATA_CELLS"
HEADER = "Chimata-Incomplete"
ANSWER_SECONDS_MAX = 10.0
HEALTH_SECONDS = 1.0
"""Between two looks at each cell: what is down is known, and no request waits to find out."""
PER_CELL = ("/metrics", "/v1/rejections")
"""How the addresses begin whose answers are one cell's: its ids mean another thing elsewhere."""
SEEN_NOTHING = frozenset({401, 403, 404})
"""Another cell may have what this one does not show."""
OK, NOT_MODIFIED, UNAVAILABLE = 200, 304, KINDS["unavailable"].status


@dataclass(frozen=True, slots=True)
class Answer:
    """What one cell answered."""

    status: int
    headers: Headers
    body: bytes

    def response(self) -> Response:
        """As it came."""
        kept = {k: v for k, v in self.headers.items() if k != "content-length"}
        return Response(self.body, self.status, kept)


def parse(text: str) -> dict[str, str]:
    """NAME=URL;NAME=URL as a dict; CityError `invalid` names what is wrong."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(";"))):
        name, equals, url = part.partition("=")
        check_name(VARIABLE, name)
        if not equals or not url.startswith(("postgresql://", "postgres://")):
            raise invalid(VARIABLE, f"{name} needs a URL: {name}=postgresql://...")
        if name in found:
            raise invalid(VARIABLE, f"{name} stands twice")
        found[name] = url
    return found


def create(settings: Settings) -> ASGIApp:
    """The application over every cell of the settings."""
    cells = {
        name: create_app(replace(settings, database_url=url, cells=""))
        for name, url in parse(settings.cells).items()
    }
    return SecurityHeaders(Cells(cells))


class Cells:
    """The front: one ASGI application over one a cell."""

    def __init__(self, cells: Mapping[str, FastAPI]) -> None:
        self._cells = dict(cells)
        self.health = cells_live.Health(self._cells)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except CityError as error:
                await of_city_error(Request(scope), error)(scope, receive, send)
            except Exception as error:  # noqa: BLE001 - a fault of ours has a trace id, as ever
                await of_anything(Request(scope), error)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with contextlib.AsyncExitStack() as stack:
            try:
                for app in self._cells.values():
                    await stack.enter_async_context(app.router.lifespan_context(app))
                await self.health.look()
                watching = asyncio.create_task(self._watch())
                stack.callback(watching.cancel)
            except Exception as error:  # noqa: BLE001 - the server asks to be told, not to fall over
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            await self.health.look()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        cell = query.pop("cell", None)
        if cell is not None:
            if cell not in self._cells:
                raise invalid("cell", f"{cell!r} is none of {', '.join(self._cells)}")
            inner = {**scope, "query_string": urlencode(query).encode()}
            await self._cells[cell](inner, receive, send)
            return
        parts = path.strip("/").split("/")
        if path == "/v1/live":
            await cells_live.stream(self._cells, self.health, scope, receive, send)
        elif path == "/healthz":
            await self._say_health()(scope, receive, send)
        elif parts[0] == "v1" or path.startswith(PER_CELL):
            if scope["method"] not in {"GET", "HEAD"} or path.startswith(PER_CELL):
                raise invalid("cell", f"names the cell that is meant: {', '.join(self._cells)}")
            response = await self._read(scope, path, parts[1:], query)
            await response(scope, receive, send)
        else:
            await next(iter(self._cells.values()))(scope, receive, send)  # pages, documents

    def _say_health(self) -> Response:
        down = self.health.down
        if len(down) == len(self._cells):
            raise CityError("unavailable", "no cell answers now")
        return _encoded({"status": "ok"}, Headers({"cache-control": "no-store"}), down)

    async def _read(
        self, scope: Scope, path: str, parts: Sequence[str], query: Mapping[str, str]
    ) -> Response:
        """The answer over all cells, by how deep the path is: a list, a page, one thing."""
        of_sector = parts[0] in domains.names()
        if of_sector and len(parts) > 2:  # noqa: PLR2004 - /v1/ports/things/431000001
            return await self._one(scope, path, parts, query)
        if of_sector and len(parts) > 1:
            return await self._page(scope, path, query, label=False)
        if len(parts) > 1:
            raise invalid("cell", f"names the cell that is meant: {', '.join(self._cells)}")
        if parts[0] == "sectors":
            found, down = await self._ask_all(scope, path, dict.fromkeys(self._cells, query))
            merged = spanning.merge_sectors(_bodies(found, down))
            return _encoded(merged, _first(found).headers, down, scope)
        return await self._page(scope, path, query, label=True)

    async def _page(
        self, scope: Scope, path: str, query: Mapping[str, str], *, label: bool
    ) -> Response:
        """A part of every cell's page; operators' lists name the cell of each entry."""
        asked = spanning.decode_cursors(query.get("after"), self._cells)
        active = [name for name, cursor in asked.items() if cursor is not None]
        queries = {name: dict(query) for name in active}
        if not active:
            raise invalid("after", "is the cursor of no page that could follow")
        limit = query.get("limit", "")
        if re.fullmatch(r"[1-9][0-9]{0,8}", limit):
            given = spanning.shares(int(limit), len(active))
            queries = {
                n: {**query, "limit": str(k)} for n, k in zip(active, given, strict=True) if k
            }
        for name, wanted in queries.items():
            wanted.pop("after", None)
            if asked[name]:
                wanted["after"] = str(asked[name])
        found, down = await self._ask_all(scope, path, queries)
        down = sorted({*down, *(name for name, cursor in asked.items() if cursor is None)})
        bodies = _bodies(found, down)
        if label:
            bodies = spanning.labelled(bodies)
        merged = spanning.merge_pages(path, query, asked, bodies, down)
        return _encoded(merged, _first(found).headers, down, scope)

    async def _one(
        self, scope: Scope, path: str, parts: Sequence[str], query: Mapping[str, str]
    ) -> Response:
        """The answer of the cell that heard the thing last."""
        deeper = parts[1] == "things" and len(parts) > 3  # noqa: PLR2004 - its observations
        where = "/".join(("/v1", *parts[:3])) if deeper else path
        every = dict.fromkeys(self._cells, {} if deeper else query)
        found, down = await self._ask_all(scope, where, every)
        chosen = spanning.newest(_bodies(found, down))
        answer = found[chosen]
        if deeper:
            answer = await self._ask(chosen, scope, path, query)
            if answer.status != OK:
                return answer.response()
        return _encoded(orjson.loads(answer.body), answer.headers, down, scope)

    # -- asking --------------------------------------------------------------------------------

    async def _ask_all(
        self, scope: Scope, path: str, queries: Mapping[str, Mapping[str, str]]
    ) -> tuple[dict[str, Answer], list[str]]:
        """(answers by cell, cells that are down), at once."""
        up = [name for name in queries if name not in self.health.down]
        answers = await asyncio.gather(
            *(self._ask(name, scope, path, queries[name]) for name in up)
        )
        found = {
            name: answer
            for name, answer in zip(up, answers, strict=True)
            if answer.status != UNAVAILABLE
        }
        return found, [name for name in queries if name not in found]

    async def _ask(self, name: str, scope: Scope, path: str, query: Mapping[str, str]) -> Answer:
        """What one cell answers; 503 for one that takes too long."""
        dropped = (b"if-none-match", b"content-length")
        inner = {
            **scope,
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": urlencode(query).encode(),
            "headers": [pair for pair in scope["headers"] if pair[0] not in dropped],
        }
        started: list[Message] = []
        body: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
            else:
                body.append(message.get("body", b""))

        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._cells[name](inner, receive, send)
        except TimeoutError:
            return Answer(UNAVAILABLE, Headers(), b"{}")
        return Answer(started[0]["status"], Headers(raw=started[0]["headers"]), b"".join(body))


def _first(found: Mapping[str, Answer]) -> Answer:
    return next(answer for answer in found.values() if answer.status == OK)


def _bodies(found: Mapping[str, Answer], down: Sequence[str]) -> dict[str, spanning.Body]:
    """The decoded bodies of those who have something.

    CityError where none has: `unavailable` if a cell that is down may have, else what they say.
    """
    good = {n: orjson.loads(a.body) for n, a in found.items() if a.status == OK}
    bad = [a for a in found.values() if a.status != OK and a.status not in SEEN_NOTHING]
    if good and not bad:
        return good
    if not bad and down:
        raise CityError("unavailable", f"only cells that are down could say: {', '.join(down)}")
    raise _refusal((bad or list(found.values()))[0])


def _refusal(answer: Answer) -> CityError:
    """A cell's problem as the error that it was made of."""
    told = orjson.loads(answer.body)
    slug = str(told["type"]).rpartition("/")[2]
    fields = tuple(FieldError(each["name"], each["reason"]) for each in told.get("errors", ()))
    return CityError(slug if slug in KINDS else "unavailable", str(told["detail"]), fields)


def _encoded(body: Any, told: Headers, down: Sequence[str], scope: Scope | None = None) -> Response:
    """The merged body, with what is missing, under the caching rules of the cells' answers."""
    if down:
        body = {**body, "incomplete": sorted(down)}
    encoded = orjson.dumps(body)
    media_type = told.get("content-type", "application/json")
    headers = {"Cache-Control": told.get("cache-control", "no-store")}
    if down:
        headers[HEADER] = ", ".join(sorted(down))
    if "etag" in told and scope is not None:
        headers["Vary"] = told.get("vary", "Authorization")
        headers["ETag"] = f'"{hashlib.blake2b(encoded, digest_size=16).hexdigest()}"'
        held = Headers(scope=scope).get("if-none-match", "").split(",")
        if headers["ETag"] in (each.strip().removeprefix("W/") for each in held):
            return Response(status_code=NOT_MODIFIED, headers=headers)
    return Response(encoded, headers=headers, media_type=media_type)
