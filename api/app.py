"""The API's application: the gate, the live hub, every sector's routes, the dashboard."""

import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi

import domains
from api import (
    account,
    auth,
    bank,
    changes,
    claims,
    consent,
    disclosures,
    docs,
    fhir,
    gateways,
    guardians,
    ledgers,
    live,
    mandates,
    me,
    metrics,
    observations,
    overrides,
    personal,
    personal_export,
    personal_rollups,
    personal_stream,
    preferences,
    problems,
    recipients,
    records,
    rejections,
    releases,
    requests,
    reviews,
    sectors,
    static,
    stops,
    things,
    transfers,
)
from api.fields import given_once
from api.limits import BodyLimit, SecurityHeaders
from consent import erasure, matcher, proofs
from consent.gate import Gate
from consent.receipts import Signer
from consent.subject_keys import SubjectKeys
from consent.timestamper import timestamper
from consent.timestamps import Authority, load_certificates
from consent.webhooks import Notifier, networks_of
from consent.worker import Worker
from core.errors import CityError
from core.settings import Settings
from core.tokens import load_secret, signing_key

log = logging.getLogger("chimata.api")

Running = Worker | Notifier

ONLY_SIGNED_IN = (
    "/v1/account", "/v1/gateways", "/v1/rejections", "/metrics", "/v1/recipients",
    "/v1/consent/grants", "/v1/consent/objections", "/v1/consent/bindings",
    "/v1/consent/guardianships", "/v1/consent/overrides", "/v1/consent/countries",
    "/v1/consent/notices", "/v1/{sector}/personal",
    "/v1/me", "/v1/claims", "/v1/disclosures/{disclosure}",
    "/v1/stops", "/v1/requests", "/v1/delegate",
    "/v1/releases/{release}/evidence", "/v1/releases/{release}/publication", "/v1/bank",
    "/v1/health/fhir/Observation", "/v1/health/fhir/Consent",
)  # fmt: skip
"""How the addresses begin that nobody reads without a token."""
PUBLIC_READS = ("/v1/recipients", "/v1/recipients/{recipient}", "/v1/bank")
"""Those among them that everyone may read."""
OWN = ("/v1/me", "/v1/consent/grants", "/v1/consent/objections")
"""How the addresses begin at which a guardian may act for another person (consent.standing)."""
SUBJECT = {
    "name": "subject",
    "in": "query",
    "required": False,
    "description": "whom you act for as a guardian, by the `sub` of its token; left out: yourself",
    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
}
SIGNED_IN_PROBLEMS = ("unauthenticated", "forbidden", "not-found", "invalid", "unavailable")
DESCRIPTION = (
    "Observations of a city: traffic signals, ports, 5G edge nodes, farms. Times are ISO 8601 in "
    "UTC, units are UCUM, positions are WGS 84. Open data need no token; shared data need an "
    "operator's. Errors are RFC 9457 problems that name the bad fields."
)


def create_app(settings: Settings, extra_routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application; `extra_routers` (such as ingest.http's) sign in by themselves.

    `app.state.hub.end_streams()` lets open live streams end: call it when the server shall stop, if
    that is not told by a signal to the main thread.
    """
    app = FastAPI(
        title="Chimata",
        version=_version(),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.verifier = auth.verifier(settings)
    app.add_middleware(BodyLimit, bytes_max=settings.body_bytes_max)
    app.add_middleware(SecurityHeaders)
    app.state.request_times = metrics.RequestTimes()
    app.add_middleware(metrics.Timed, times=app.state.request_times)
    problems.install(app)
    signed_in = [Depends(auth.identify), Depends(given_once)]
    app.include_router(sectors.health)
    for router in extra_routers:
        app.include_router(router)
    app.include_router(live.router, dependencies=signed_in)
    operators = (account.router, gateways.router, metrics.router, rejections.router)
    for router in (sectors.router, *operators):
        app.include_router(router, dependencies=signed_in)
    rows_of_persons = (personal, personal_stream, personal_export, personal_rollups)
    of_persons = (
        consent, disclosures, me, claims, records, stops, preferences, requests, mandates, releases,
        guardians, overrides, transfers,
    )  # fmt: skip
    of_bank = (recipients, bank, reviews, ledgers)
    for part in (*rows_of_persons, *of_persons, *of_bank):
        app.include_router(part.router, dependencies=signed_in)
    # A parameter that stands twice is a word of FHIR: both count.
    app.include_router(fhir.router, dependencies=[Depends(auth.identify)])
    for name, router in _sector_routers():
        app.include_router(router, prefix=f"/v1/{name}", tags=[name], dependencies=signed_in)
    app.include_router(things.router, dependencies=signed_in)
    app.include_router(observations.router, dependencies=signed_in)
    app.include_router(changes.router, dependencies=signed_in)
    app.include_router(docs.router)
    app.include_router(static.router())
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's own way to extend
    return app


def _version() -> str:
    try:
        return version("chimata")
    except PackageNotFoundError:
        return "0"


def _sector_routers() -> Iterator[tuple[str, APIRouter]]:
    """Each sector's own words; a sector without routes.py has the generic ones only."""
    for name in domains.names():
        if (domains.HERE / name / "routes.py").is_file():
            yield name, domains.load(name, "routes").router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    gate = app.state.gate = Gate(settings)
    workers = app.state.workers = _workers(gate, settings)
    hub = app.state.hub = live.Hub(gate, settings.database_url, settings.sse_clients_max)
    hub.start()
    for worker in workers:
        worker.start()
    try:
        with _ending_streams_on_signal(hub.end_streams):
            yield
    finally:
        await hub.close()
        for worker in workers:
            await to_thread.run_sync(worker.stop)
        gate.close()


def _workers(gate: Gate, settings: Settings) -> list[Running]:
    """Match requests; with the keys of this machine, prove disclosures, tell who is to stop, erase.

    Whoever was erased and is back, in a copy that was restored, is erased again before we serve.
    """
    workers: list[Running] = [matcher.matcher(gate.match_requests)]
    try:
        signer, secret = Signer(signing_key(settings)), load_secret(settings)
    except CityError as error:
        log.info("no proofs are made here, no stop notices sent and nobody erased: %s", error)
        return workers
    keys = SubjectKeys.of(settings)
    again = erasure.replay(gate, keys)
    if again:
        log.warning("erased again: %d persons whom the database had not forgotten", again)
    networks = networks_of(settings.notice_networks)
    notice_seconds_max = timedelta(seconds=settings.notice_seconds_max)
    workers += [
        proofs.sequencer(partial(gate.sequence, signer, secret, keys)),
        erasure.eraser(gate, keys),
        Notifier(gate, secret, networks, notice_seconds_max),
    ]
    if settings.tsa_url:
        authority = Authority(settings.tsa_url, load_certificates(settings.tsa_certificates))
        workers.append(timestamper(gate, authority, settings.tsa_seconds))
    return workers


@contextmanager
def _ending_streams_on_signal(end_streams: Callable[[], None]) -> Iterator[None]:
    """End the live streams at SIGINT and SIGTERM, before the server waits for its connections.

    uvicorn shuts the application down only once every connection has closed, and a live stream
    would never close by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        end_streams()
        before[number](number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        standing = signal.getsignal(number)
        if callable(standing):
            before[number] = standing
            signal.signal(number, handle)
    try:
        yield
    finally:
        for installed, standing in before.items():
            if signal.getsignal(installed) is handle:
                signal.signal(installed, standing)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what only the settings know and the shape of every error."""
    if app.openapi_schema:
        return app.openapi_schema
    described = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = described.setdefault("components", {}).setdefault("schemas", {})
    problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"), Problem=problem)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            is_public = method == "get" and path in PUBLIC_READS
            is_optional = is_public or not path.startswith(ONLY_SIGNED_IN)
            _complete(operation, app.state.settings.page_rows_max, is_optional)
            if path.startswith(OWN):
                operation.setdefault("parameters", []).append(SUBJECT)
    app.openapi_schema = described
    return described


def _complete(operation: dict[str, Any], page_rows_max: int, is_optional: bool) -> None:
    """One operation: its problems, that a token is optional, and how long a page may be."""
    if "security" in operation:
        answers = problems.documented(*SIGNED_IN_PROBLEMS)
        # FHIR has errors of its own, which its routes document.
        if fhir.MEDIA_TYPE not in operation["responses"].get("200", {}).get("content", {}):
            operation["responses"] |= {str(status): each for status, each in answers.items()}
        if is_optional:
            operation["security"] = [{}, *operation["security"]]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "limit" and "maximum" not in parameter["schema"]:
            parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": page_rows_max}
