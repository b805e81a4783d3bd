"""Ingest over HTTP: `POST /v1/ingest/{sector}/{format}` answers after the database commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import orjson
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Header, Path, Request, Response
from pydantic import BaseModel, Field

import domains
from core.errors import CityError, invalid
from core.sector import all_formats
from core.settings import Settings
from core.storage.message import Outcome
from core.tokens import NAME, Principal, Role, Verifier
from ingest import fhir
from ingest.decoding import SEQ_MAX
from ingest.pipeline import Pipeline, Raw, Settled
from ingest.receipts import as_json, ranges

COMMIT_SECONDS_MAX = 30.0
ROOM_SECONDS_MAX = 5.0
WAITING_MAX = 8
REJECTIONS_SHOWN_MAX = 100
TOKEN_BYTES_MAX = 8192


class BatchResult(BaseModel):
    """What became of one batch, in observations; an undecodable message counts as one."""

    seq: int | None = Field(examples=[0])
    result: str = Field(examples=["stored"])
    received: int = Field(examples=[2])
    stored: int = Field(examples=[2])
    duplicate: int = Field(examples=[0])
    rejected: int = Field(examples=[0])
    reason: str | None = None
    detail: str | None = None


class ItemRejection(BaseModel):
    """One item that was not taken; its payload is in the rejection store."""

    item: int
    reason: str
    detail: str


class Receipt(BaseModel):
    """Sent after the commit; the same JSON goes over MQTT and Kafka."""

    gateway: str
    boot: str | None
    stored: list[tuple[int, int]]
    batches: list[BatchResult]
    rejections: list[ItemRejection]


def router(settings: Settings) -> APIRouter:
    """The route and its pipeline, which runs from the first message to the application's end."""
    pipeline = Pipeline(settings, _answer)
    # Threads of our own, or senders that wait for room would leave none for the API's readers.
    waiting = CapacityLimiter(WAITING_MAX)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        pipeline.start()
        try:
            yield
        finally:
            await to_thread.run_sync(pipeline.stop)

    async def take(
        request: Request, sector: str, form: str, chimata_batch: str | None
    ) -> tuple[Raw, Outcome]:
        principal = await signed_in(request, Role.GATEWAY, "publish", "send observations")
        if form not in all_formats(domains.sector(sector)):
            raise CityError("not-found", f"format: {sector} takes no {form!r}; see /v1/sectors")
        boot, seq = _identity(chimata_batch)
        payload = await request.body()
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        raw = Raw("http", sector, str(principal.gateway), form, payload, boot, seq, answered)
        if not await to_thread.run_sync(pipeline.submit, raw, ROOM_SECONDS_MAX, limiter=waiting):
            raise CityError("unavailable", "the server is full or stopping: send this batch again")
        try:
            return raw, await asyncio.wait_for(answered, COMMIT_SECONDS_MAX)
        except TimeoutError as error:
            raise CityError("unavailable", "storage is away: send this batch again") from error

    routes = APIRouter(lifespan=lifespan, tags=["ingest"])
    routes.include_router(fhir.router(take, whoever))

    @routes.post(
        "/v1/ingest/{sector}/{form}",
        response_model=Receipt,
        summary="Send one message or batch as a gateway",
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": {}}, "required": True},
            "security": [{"HTTPBearer": []}],
        },
    )
    async def ingest(
        request: Request,
        sector: Annotated[str, Path(examples=["farms"])],
        form: Annotated[str, Path(examples=["json"])],
        chimata_batch: Annotated[
            str | None, Header(description="boot/seq: makes a repeat a no-op", examples=["a1/0"])
        ] = None,
    ) -> Response:
        raw, outcome = await take(request, sector, form, chimata_batch)
        return Response(orjson.dumps(_receipt(raw, outcome)), media_type="application/json")

    return routes


async def signed_in(request: Request, role: Role, scope: str, what: str) -> Principal:
    """Who signs in, if it is of this role and has the scope; CityError otherwise."""
    principal = await whoever(request, f"to {what} needs the bearer token of a {role.value}")
    if principal.role is not role or scope not in principal.scopes:
        raise CityError("forbidden", f"only the token of a {role.value} may {what}")
    return principal


async def whoever(request: Request, missing: str) -> Principal:
    """Who signs in; CityError `unauthenticated` for nobody."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_BYTES_MAX:
        raise CityError("unauthenticated", missing)
    verifier: Verifier = request.app.state.verifier
    return await to_thread.run_sync(verifier.verify, token.strip())


def _identity(header: str | None) -> tuple[str | None, str | None]:
    if header is None:
        return None, None
    boot, _, seq = header.partition("/")
    if not NAME.fullmatch(boot) or not (seq.isascii() and seq.isdecimal()) or len(seq) > 16:  # noqa: PLR2004
        raise invalid("Chimata-Batch", f"must be boot/seq: {NAME.pattern}, then a decimal integer")
    if int(seq) >= SEQ_MAX:
        raise invalid("Chimata-Batch", f"seq must be below {SEQ_MAX}")
    return boot, seq


def _answer(settled: Settled) -> None:
    """Called by the pipeline's threads after the commit."""
    for raw, outcome in settled:
        future: asyncio.Future[Outcome] = raw.tag
        future.get_loop().call_soon_threadsafe(_resolve, future, outcome)


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _receipt(raw: Raw, outcome: Outcome) -> dict[str, Any]:
    seq = None if raw.seq is None else int(raw.seq)
    kept = seq is not None and outcome.result != "refused"
    shown = outcome.rejected[:REJECTIONS_SHOWN_MAX]
    return {
        "gateway": raw.gateway,
        "boot": raw.boot,
        "stored": ranges([seq]) if kept and seq is not None else [],
        "batches": [{"seq": seq, **as_json(outcome)}],
        "rejections": [{"item": r.item, "reason": r.reason, "detail": r.detail} for r in shown],
    }
