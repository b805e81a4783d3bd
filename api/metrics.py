"""Metrics for Prometheus: the account, gateways, ingestors and requests, in bounded numbers.

Names follow Prometheus' conventions: base units, `_total` for what only grows. An operator's token
opens it, as it does the account that most of it comes from.
"""

import time
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consent import door, operations
from consent.operations import SECONDS_BUCKETS, ClockState, Figures, ProcessFigures

CLOCKS_MAX = 100
"""Gateways whose skew is told one by one: those that are off most."""
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

router = APIRouter()


class RequestTimes:
    """Seconds until an answer begins, by method, route template and status class."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "chimata_http_request_duration_seconds",
            "Until the answer begins: a live stream has no end.",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=SECONDS_BUCKETS,
        )

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answer; what has no route of ours is one series, whatever was asked for."""
        route = getattr(scope.get("route"), "path", UNMATCHED)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._seconds.labels(method, route, f"{status // 100}xx").observe(seconds)


class Timed:
    """Measures every request."""

    def __init__(self, app: ASGIApp, times: RequestTimes) -> None:
        self.app = app
        self.times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start" and not begun:
                begun = True
                self.times.observe(scope, message["status"], time.perf_counter() - started)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except BaseException:
            if not begun:  # it becomes a 500 further out
                self.times.observe(scope, 500, time.perf_counter() - started)
            raise


@router.get(
    "/metrics",
    tags=["platform"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def read_metrics(request: Request) -> Response:
    """For Prometheus, in its text format: scope `read:account`."""
    figures = operations.figures(door.gate_of(request), door.principal_of(request))
    families = [
        *_sources(figures),
        *_gateways(figures),
        *_processes(figures.processes),
        *_api(request),
        _gauge("chimata_database_size_bytes", "On disk.", (), [((), figures.database_bytes)]),
    ]
    registry = CollectorRegistry()
    registry.register(_Families(families))
    body = generate_latest(registry) + generate_latest(request.app.state.request_times.registry)
    return Response(
        body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    )


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values of the labels, and the value."""


def _counter(name: str, told: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _gauge(name: str, told: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, told, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


SOURCE = ("sector", "format")
OUTCOMES = ("stored", "duplicate", "rejected")


def _sources(figures: Figures) -> Iterable[Metric]:
    """The account by sector and format, and what hangs on a sector."""

    def of(name: str) -> Rows:
        return [((s.sector, s.format), getattr(s, name)) for s in figures.sources]

    yield _counter("chimata_messages", "Native messages received.", SOURCE, of("messages"))
    yield _counter(
        "chimata_messages_unchanged", "Messages repeating a state.", SOURCE, of("unchanged")
    )
    yield _counter("chimata_observations_received", "Counted when decoded.", SOURCE, of("received"))
    yield _counter(
        "chimata_observations",
        "What became of them, counted where rows are written.",
        (*SOURCE, "outcome"),
        [((*key, name), value) for name in OUTCOMES for key, value in of(name)],
    )
    yield _counter(
        "chimata_observations_recovered",
        "Of the rejected: taken in after all, and received again.",
        SOURCE,
        of("recovered"),
    )
    yield _gauge("chimata_observations_held", "Received, not yet committed.", SOURCE, of("held"))
    yield _gauge(
        "chimata_account_difference_observations",
        "Received less stored, duplicate, rejected and held: not 0 is a fault.",
        SOURCE,
        [
            ((s.sector, s.format), s.received - s.stored - s.duplicate - s.rejected - s.held)
            for s in figures.sources
        ],
    )
    yield _gauge("chimata_sequences_missing", "Batches that never came.", SOURCE, of("missing"))
    yield _counter(
        "chimata_rejections",
        "Items rejected.",
        ("sector", "reason"),
        [((sector, reason), items) for sector, reason, items in figures.rejected],
    )
    yield _gauge(
        "chimata_newest_append_age_seconds",
        "Since something was last stored.",
        ("sector",),
        [((sector,), age) for sector, age in figures.ages_seconds],
    )


def _gateways(figures: Figures) -> Iterable[Metric]:
    """The first gateways one by one, the others as one; the clocks that are off most."""

    def of(name: str) -> Rows:
        return [((g.gateway,), getattr(g, name)) for g in figures.gateways]

    named = ("gateway",)
    yield _counter("chimata_gateway_messages", "Messages received.", named, of("messages"))
    yield _counter("chimata_gateway_received", "Observations received.", named, of("received"))
    yield _counter("chimata_gateway_rejected", "Observations rejected.", named, of("rejected"))
    yield _gauge("chimata_gateway_missing", "Batches that never came.", named, of("missing"))
    clocks = figures.clocks
    yield _gauge(
        "chimata_gateway_clocks",
        "Gateways heard of late, by what their delays say of their clocks.",
        ("state",),
        [((s.value,), sum(c.state is s for c in clocks.values())) for s in ClockState],
    )
    known = [(g, c.skew_seconds) for g, c in clocks.items() if c.skew_seconds is not None]
    known.sort(key=lambda item: (-abs(item[1]), item[0]))
    yield _gauge(
        "chimata_gateway_clock_skew_seconds",
        f"Of the {CLOCKS_MAX} clocks that are off most; above 0 is ahead.",
        named,
        [((gateway,), skew) for gateway, skew in known[:CLOCKS_MAX]],
    )


def _processes(processes: Iterable[ProcessFigures]) -> Iterable[Metric]:
    """What each ingestor told of itself in the last ten seconds."""
    labels = ("process",)
    told = list(processes)

    def of(name: str) -> Rows:
        return [((p.name,), getattr(p, name)) for p in told]

    yield _gauge("chimata_ingest_queue_bytes", "Payload bytes held.", labels, of("queue_bytes"))
    yield _counter(
        "chimata_ingest_refusals", "Messages that storage refused.", labels, of("refusals")
    )
    yield _counter(
        "chimata_ingest_storage_failures",
        "Times that storage was away.",
        labels,
        of("storage_failures"),
    )
    yield _counter(
        "chimata_ingest_reconnects", "Times that the broker was lost.", labels, of("reconnects")
    )
    decode = SummaryMetricFamily(
        "chimata_ingest_decode_seconds", "Decoding and checking a message.", labels=labels
    )
    append = HistogramMetricFamily(
        "chimata_ingest_append_seconds", "One storage transaction.", labels=labels
    )
    for process in told:
        decode.add_metric((process.name,), process.decoded, process.decode_seconds)
        append.add_metric((process.name,), _cumulative(process), process.append_seconds.sum)
    yield decode
    yield append


def _cumulative(process: ProcessFigures) -> list[tuple[str, float]]:
    """Prometheus' buckets hold all that is up to their bound."""
    bounds = [*map(str, SECONDS_BUCKETS), "+Inf"]
    counts = process.append_seconds.counts
    return [(bound, sum(counts[: i + 1])) for i, bound in enumerate(bounds)]


def _api(request: Request) -> Iterable[Metric]:
    """This process's live clients and database connections."""
    hub: Any = request.app.state.hub
    yield _gauge("chimata_live_clients", "Open live streams.", (), [((), hub.clients)])
    pools = door.gate_of(request).pools()
    yield _gauge(
        "chimata_pool_connections",
        "Connections to the database.",
        ("pool", "state"),
        [
            ((pool, state), value)
            for pool, stats in pools.items()
            for state, value in (
                ("idle", stats.get("pool_available", 0)),
                ("used", stats.get("pool_size", 0) - stats.get("pool_available", 0)),
            )
        ],
    )
    yield _gauge(
        "chimata_pool_requests_waiting",
        "Requests that wait for a connection.",
        ("pool",),
        [((pool,), stats.get("requests_waiting", 0)) for pool, stats in pools.items()],
    )
