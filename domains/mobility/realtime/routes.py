"""Real time over HTTP: GTFS-Realtime as others read it, vehicles, alerts, and the live stream."""

import heapq
from datetime import UTC
from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from consent import door
from consent.gate import PermittedConnection
from core.errors import CityError, invalid
from domains.mobility.network.asked import NO_CONTROL, After, AnId, Lang, box, moment
from domains.mobility.network.modes import MODES
from domains.mobility.network.names import languages_of
from domains.mobility.realtime import alerts, board, geohash, live, vehicles
from domains.mobility.realtime.board import Now
from domains.mobility.realtime.publish import Kind
from domains.mobility.realtime.schemas import Alerts, Vehicles
from domains.mobility.realtime.vehicles import Topics
from domains.mobility.sector import SECTOR

PROTOBUF = "application/x-protobuf"
SSE = "text/event-stream"
VEHICLES_DEFAULT = 1000
ALERTS_MAX = 10_000

router = APIRouter()

FeedId = Annotated[
    str,
    Path(
        description="id of a static feed",
        examples=["caltrain"],
        min_length=1,
        max_length=64,
        pattern=NO_CONTROL,
    ),
]
AFeed = Annotated[
    str | None,
    Query(description="id of a static feed", min_length=1, max_length=64, pattern=NO_CONTROL),
]
ARoute = Annotated[str | None, AnId]
AStop = Annotated[str | None, AnId]
Mode = Annotated[
    Literal[MODES] | None,  # type: ignore[valid-type]  # the names of a frozen table
    Query(description="family of GTFS route_type"),
]
Geohash = Annotated[
    str | None,
    Query(
        description="prefix of a geohash: the cell that vehicles are in",
        examples=["xn76"],
        pattern=rf"^[{geohash.ALPHABET}]{{1,{geohash.CHARACTERS_MAX}}}$",
    ),
]
ABox = Annotated[
    str | None,
    Query(
        description="west,south,east,north in degrees; west > east crosses the antimeridian",
        examples=["140.9,42.2,141.2,42.5"],
        max_length=200,
    ),
]


def _looked(request: Request) -> Now:
    with door.reading(request, SECTOR) as connection:
        return board.now(connection)


@router.get(
    "/feeds/{feed}/{kind}.pb",
    response_class=Response,
    summary="GTFS-Realtime of one feed",
    responses={200: {"content": {PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}}},
)
def read_protobuf(request: Request, feed: FeedId, kind: Kind) -> Response:
    """GTFS-Realtime 2.0, FULL_DATASET, about the timetable at `/v1/mobility/feeds/{feed}/gtfs.zip`.

    Positions are at most 90 s old, alerts 10 min. With If-None-Match: 304 until it changes.
    """
    return _message(request, feed, kind, as_json=False)


@router.get(
    "/feeds/{feed}/{kind}.json",
    response_class=Response,
    summary="GTFS-Realtime of one feed, as JSON",
    responses={200: {"content": {door.JSON: {"schema": {"type": "object"}}}}},
)
def read_json(request: Request, feed: FeedId, kind: Kind) -> Response:
    """The same message in protobuf's JSON form."""
    return _message(request, feed, kind, as_json=True)


def _message(request: Request, feed: str, kind: Kind, *, as_json: bool) -> Response:
    with door.reading(request, SECTOR) as connection:
        seen = board.now(connection)
        found = board.desk(connection, seen, feed, kind)
    if found is None:
        raise CityError("not-found", f"there is no timetable {feed!r}")
    desk, static = found
    # Made without a connection in hand: who waits for whoever makes it holds up nobody else.
    told = desk.message(seen, static, as_json=as_json)
    return door.cacheable_bytes(request, told.content, door.JSON if as_json else PROTOBUF, told.tag)


@router.get("/vehicles", response_model=Vehicles, summary="Vehicles on their way")
def read_vehicles(
    request: Request,
    route: ARoute = None,
    mode: Mode = None,
    geohash: Geohash = None,
    bbox: ABox = None,
    feed: AFeed = None,
    limit: Annotated[int | None, Query(ge=1, description="how many at most")] = None,
    after: After = None,
) -> Response:
    """What was heard within 90 s, by id: with its trip, how late it is and where it goes next."""
    topics = _topics(feed, route, mode, geohash, bbox)
    size = _page_size(limit, request)
    seen = _looked(request)
    wanted = (
        each
        for each in vehicles.current(seen)
        if (after is None or each.id > after) and topics.take(seen, each)
    )
    page = heapq.nsmallest(size + 1, wanted, key=lambda each: each.id)
    rows = [vehicles.vehicle_row(seen, each) for each in page[:size]]
    following = None
    if len(page) > size:
        url = request.url.include_query_params(after=page[size - 1].id)
        following = f"{url.path}?{url.query}"
    return door.current({"as_of": seen.overlay.at, "vehicles": rows, "next": following})


def _topics(
    feed: str | None, route: str | None, mode: str | None, prefix: str | None, bbox: str | None
) -> Topics:
    cell = None if prefix is None else geohash.box_of(prefix)
    return Topics(feed, route, mode, cell, None if bbox is None else box(bbox))


def _page_size(limit: int | None, request: Request) -> int:
    rows_max: int = request.app.state.settings.page_rows_max
    if limit is not None and limit > rows_max:
        raise invalid("limit", f"at most {rows_max}")
    return min(VEHICLES_DEFAULT, rows_max) if limit is None else limit


@router.get("/alerts", response_model=Alerts, summary="What does not run as it should")
def read_alerts(
    request: Request,
    stop: AStop = None,
    route: ARoute = None,
    feed: AFeed = None,
    active_at: Annotated[
        str | None,
        Query(
            description="a time, ISO 8601 with a zone; now when absent",
            examples=["2026-01-01T08:00:00+09:00"],
            max_length=64,
        ),
    ] = None,
    lang: Lang = None,
) -> Response:
    """Alerts that hold at a time, told by their feeds in the last 10 min.

    `stop` finds those that name it, its station or a platform of it.
    """
    at = moment("active_at", active_at).astimezone(UTC).timestamp()
    spoken = _languages(request, lang)
    seen = _looked(request)
    stops = None if stop is None else alerts.family(seen.timetable, stop)
    rows = [
        alerts.alert_row(told, spoken)
        for told in live.scene_of(seen).alerts.values()
        if told.is_active(at)
        and (feed is None or told.feed == feed)
        and (stops is None or stops & told.stops)
        and (route is None or route in told.routes)
    ]
    return door.current({"as_of": seen.overlay.at, "alerts": rows[:ALERTS_MAX]})


def _languages(request: Request, lang: str | None) -> tuple[str, ...]:
    return languages_of(lang, request.headers.get("accept-language", ""))


@router.get(
    "/vehicles/stream",
    response_class=StreamingResponse,
    summary="Vehicles, trips and alerts as they change",
    responses={
        200: {
            "description": "events `vehicles`, `trip-updates`, `alerts`, `gone`, and `reset` "
            "(it cannot go on from there: forget what you hold; what there is follows)",
            "content": {
                SSE: {
                    "schema": {"type": "string"},
                    "example": 'id: v1c0ffee00c0f:7\nevent: gone\ndata: {"vehicles":'
                    '["caltrain:124"],"trip_updates":[],"alerts":[]}\n\n',
                }
            },
        },
    },
)
async def follow_vehicles(
    request: Request,
    route: ARoute = None,
    mode: Mode = None,
    geohash: Geohash = None,
    bbox: ABox = None,
    feed: AFeed = None,
    events: Annotated[
        str | None,
        Query(
            description="which of vehicles, trip-updates, alerts; with commas between",
            examples=["vehicles,alerts"],
            max_length=64,
        ),
    ] = None,
    lang: Lang = None,
    last_event_id: Annotated[str | None, Header(max_length=128)] = None,
) -> StreamingResponse:
    """Server-sent events (WHATWG HTML, 9.2) about a topic: a route, a mode, a geohash, a box.

    First what is there, then what changes. With `Last-Event-ID` it goes on where it was cut off.
    """
    topics = _topics(feed, route, mode, geohash, bbox)
    names = _names(events)
    asked = live.Asked(names, topics, _languages(request, lang))
    hub: Any = request.app.state.hub
    hub.check_room()
    fan = await to_thread.run_sync(_fan, request)
    told = live.stream(
        fan, hub, door.principal_of(request), partial(_looked, request), SECTOR.name, asked,
        last_event_id,
    )  # fmt: skip
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(told, 200, headers, SSE)


def _fan(request: Request) -> live.Fan:
    with door.reading(request, SECTOR) as connection:
        return _kept_fan(connection)


def _kept_fan(connection: PermittedConnection) -> live.Fan:
    fan: live.Fan = connection.kept.setdefault("mobility-live", live.Fan())
    return fan


def _names(text: str | None) -> tuple[str, ...]:
    if text is None:
        return live.NAMES
    names = tuple(dict.fromkeys(text.split(",")))
    if not set(names) <= set(live.NAMES):
        raise invalid("events", f"is of {', '.join(live.NAMES)}")
    return names
