"""Stops, departures, routes, fares, and what is near: GET /v1/mobility/..."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray

from consent import door
from consent.gate import PermittedConnection
from core.errors import CityError
from domains.mobility.gbfs.nearby import around as shared_vehicles
from domains.mobility.network import asked, load, near, schemas, street_load
from domains.mobility.network import fares as priced
from domains.mobility.network.asked import AnId, Lang, RouteId, StopId
from domains.mobility.network.departures import Departure, below, departures
from domains.mobility.network.load import Network
from domains.mobility.network.names import languages_of
from domains.mobility.network.paging import Page, chosen_routes, chosen_stops
from domains.mobility.network.riding import rides_between
from domains.mobility.network.show import Show, Shown, line, moment
from domains.mobility.network.timetable import NONE, Ids
from domains.mobility.realtime import state
from domains.mobility.realtime.overlay import Overlay
from domains.mobility.sector import SECTOR

router = APIRouter()

ROWS_MAX = 1_000
NEAR_RADIUS_MAX = 2_000
NEAR_DEPARTURES = 3
SOURCES: tuple[near.Source, ...] = (shared_vehicles,)
"""What each mode besides public transport has around a point."""

Limit = Annotated[int, Query(ge=1, le=ROWS_MAX, description="how many at most")]


@dataclass(frozen=True, slots=True)
class Read:
    """What one request reads from."""

    connection: PermittedConnection
    network: Network
    show: Show
    now: datetime

    def overlay(self) -> Overlay:
        """What real time changes now."""
        return state.overlay(self.connection, self.network.timetable, self.now)


@contextmanager
def _reading(request: Request, lang: str | None) -> Iterator[Read]:
    languages = languages_of(lang, request.headers.get("accept-language", ""))
    with door.reading(request, SECTOR) as connection:
        network = load.network(connection)
        yield Read(connection, network, Show(network, languages), datetime.now(UTC))


def _known(ids: Ids, text: str, what: str) -> tuple[int, ...]:
    """Every number of an id; CityError `not-found`."""
    numbers = ids.all_of(text)
    if not numbers:
        raise CityError("not-found", f"there is no such {what}")
    return numbers


def _newest(read: Read, numbers: Sequence[int], versions: NDArray[Any]) -> int:
    """That of the version in force, else of the newest."""
    shown = read.network.shown(read.now)
    return next((each for each in reversed(numbers) if shown[versions[each]]), numbers[-1])


@router.get("/stops", response_model=schemas.Stops, summary="Stops by place or name")
def read_stops(
    request: Request,
    near: Annotated[
        str | None,
        Query(description="longitude,latitude", examples=["139.7,35.6"], max_length=200),
    ] = None,
    radius: Annotated[
        float, Query(gt=0, le=asked.RADIUS_METRES_MAX, description="metres around `near`")
    ] = 500,
    bbox: Annotated[
        str | None,
        Query(
            description="west,south,east,north; west > east crosses the antimeridian",
            examples=["139.6,35.5,139.8,35.7"],
            max_length=200,
        ),
    ] = None,
    q: Annotated[
        str | None,
        Query(
            description="a part of the name, in any language, or of the code",
            min_length=1,
            max_length=100,
            pattern=asked.NO_CONTROL,
        ),
    ] = None,
    feed: Annotated[str | None, AnId] = None,
    lang: Lang = None,
    limit: Limit = 100,
    after: asked.After = None,
) -> Response:
    """Stops of the versions in force that are in all of what is asked for.

    By distance where `near` is given, else in the order of their feeds.
    """
    circle = asked.circle(near, radius) if near is not None else None
    box = asked.box(bbox) if bbox is not None else None
    with _reading(request, lang) as read:
        found, metres = chosen_stops(read.network, read.now, circle, box, q, feed)
        page = Page.of(read.network.timetable.stops.ids, found, after, limit)
        stops = [
            read.show.stop(each, None if metres is None else float(metres[each]))
            for each in page.numbers
        ]
    return door.cacheable(request, {"stops": stops, "next": page.next_path(request)})


@router.get(
    "/stops/{stop:path}/departures",
    response_model=schemas.Departures,
    summary="What leaves a stop next",
)
def read_departures(
    request: Request,
    stop: StopId,
    from_: Annotated[
        str | None,
        Query(
            alias="from",
            description="ISO 8601 with a zone; now where none is given",
            examples=["2026-11-23T08:00:00+09:00"],
            max_length=64,
        ),
    ] = None,
    limit: Limit = 20,
    route: Annotated[str | None, AnId] = None,
    lang: Lang = None,
) -> Response:
    """Departures by expected time, scheduled and by real time, of all platforms of a station.

    Trips after midnight belong to the service day before; what is cancelled is told, not hidden.
    """
    at = asked.moment("from", from_)
    with _reading(request, lang) as read:
        timetable = read.network.timetable
        stops = _known(timetable.stops.ids, stop, "stop")
        routes = None
        if route is not None:
            routes = frozenset(_known(timetable.routes.ids, route, "route"))
        found = departures(timetable, read.network.index, read.overlay(), stops, at, limit, routes)
        body = {
            "stop": read.show.stop(_newest(read, stops, timetable.stops.version)),
            "departures": read.show.departures(found),
        }
    return door.current(body)


@router.get("/stops/{stop:path}", response_model=schemas.StopDetail, summary="One stop")
def read_stop(request: Request, stop: StopId, lang: Lang = None) -> Response:
    """A stop with its platforms, and the routes that can be boarded there."""
    with _reading(request, lang) as read:
        timetable, index = read.network.timetable, read.network.index
        stops = timetable.stops
        number = _newest(read, _known(stops.ids, stop, "stop"), stops.version)
        every = list(below(index, number))
        times = [index.times[index.offsets[n] : index.offsets[n + 1]] for n in every]
        routes = np.unique(timetable.trips.route[index.trip[np.concatenate(times)]])
        body = read.show.stop(number) | {
            "timezone": timetable.versions[int(stops.version[number])].timezone,
            "platforms": [read.show.stop(each) for each in every[1:][:ROWS_MAX]],
            "routes": [read.show.route(each) for each in routes.tolist()[:ROWS_MAX]],
        }
    return door.cacheable(request, body)


@router.get("/routes", response_model=schemas.Routes, summary="Routes")
def read_routes(
    request: Request,
    feed: Annotated[str | None, AnId] = None,
    q: Annotated[
        str | None,
        Query(
            description="a part of one of its names",
            min_length=1,
            max_length=100,
            pattern=asked.NO_CONTROL,
        ),
    ] = None,
    lang: Lang = None,
    limit: Limit = 100,
    after: asked.After = None,
) -> Response:
    """Routes of the versions in force, in the order of their feeds."""
    with _reading(request, lang) as read:
        found = chosen_routes(read.network, read.now, q, feed)
        page = Page.of(read.network.timetable.routes.ids, found, after, limit)
        routes = [read.show.route(each) for each in page.numbers]
    return door.cacheable(request, {"routes": routes, "next": page.next_path(request)})


@router.get("/routes/{route:path}", response_model=schemas.RouteDetail, summary="One route")
def read_route(request: Request, route: RouteId, lang: Lang = None) -> Response:
    """A route with the orders of stops that its trips have, and their ways on the map."""
    with _reading(request, lang) as read:
        timetable = read.network.timetable
        routes = timetable.routes
        number = _newest(read, _known(routes.ids, route, "route"), routes.version)
        version = timetable.versions[int(routes.version[number])]
        shapes: dict[int, Shown | None] = {NONE: None}

        def shape(which: int) -> Shown | None:
            if which not in shapes:
                places = load.shape(read.connection, version, which)
                shapes[which] = line(places) if places else None
            return shapes[which]

        body = read.show.route(number) | {"patterns": read.show.patterns(number, shape)}
    return door.cacheable(request, body)


@router.get("/near", response_model=schemas.Near, summary="Everything usable around a point")
def read_near(
    request: Request,
    at: Annotated[
        str, Query(description="longitude,latitude", examples=["139.7,35.6"], max_length=200)
    ],
    radius: Annotated[float, Query(gt=0, le=NEAR_RADIUS_MAX, description="metres")] = 300,
    lang: Lang = None,
    limit: Annotated[int, Query(ge=1, le=200, description="of each kind, at most")] = 50,
) -> Response:
    """Stops with what leaves them next, shared vehicles and their stations.

    `walking_seconds` is along the streets where they are known, else `estimated` by a straight
    line × 1.3, at 1.25 m/s; null where no way is shorter than three times the radius and a km.
    """
    longitude, latitude = asked.point("at", at)
    with _reading(request, lang) as read:
        around = near.Around(longitude, latitude, radius, read.now, read.show.languages, limit)
        stops = _near_stops(read, around)
        places = [each for source in SOURCES for each in source(read.connection, around)]
        port = street_load.walking(read.connection)
    shown = sorted((_place(each, around) for each in places), key=lambda each: each["metres"])
    inside = [each for each in shown if each["metres"] <= radius]
    body: Shown = {
        "longitude": longitude,
        "latitude": latitude,
        "radius_metres": radius,
        "stops": stops,
        "stations": [each for each in inside if each["kind"] == "station"][:limit],
        "vehicles": [each for each in inside if each["kind"] == "vehicle"][:limit],
    }
    listed = [each for kind in ("stops", "stations", "vehicles") for each in body[kind]]
    near.walk(port, around, listed)
    guessed = [each["estimated"] for each in listed]
    body["estimated"] = any(guessed) or not listed
    body["attribution"] = None if all(guessed) else port.attribution
    return door.current(body)


def _near_stops(read: Read, around: near.Around) -> list[Shown]:
    """Stops where something can be boarded, by distance."""
    network = read.network
    circle = (around.longitude, around.latitude, around.radius_metres)
    found, metres = chosen_stops(network, read.now, circle, None, None, None)
    offsets = network.index.offsets
    boarded = found[offsets[found + 1] > offsets[found]][: around.limit].tolist()
    overlay = read.overlay() if boarded else None
    shown = []
    for number in boarded:
        distance = float(metres[number]) if metres is not None else 0.0
        # A stop of another version of the feed has tomorrow's departures.
        stops = network.timetable.stops.ids.all_of(network.timetable.stops.ids.texts[number])
        found_next: list[Departure] = []
        if overlay is not None:
            found_next = departures(
                network.timetable, network.index, overlay, stops, around.at, NEAR_DEPARTURES
            )
        shown.append(
            read.show.stop(number, distance) | {"departures": read.show.departures(found_next)}
        )
    return shown


def _place(found: near.Found, around: near.Around) -> Shown:
    (distance,) = near.metres(
        np.array([found.longitude]), np.array([found.latitude]), around.longitude, around.latitude
    ).tolist()
    return {
        "id": found.id,
        "mode": found.mode,
        "kind": found.kind,
        "name": found.name,
        "longitude": found.longitude,
        "latitude": found.latitude,
        "available": found.available,
        "time": moment("UTC", round(found.time.timestamp())),
        "metres": round(distance),
    }


@router.get("/fares", response_model=schemas.Fares, summary="What a direct ride costs")
def read_fares(
    request: Request,
    from_: Annotated[
        str,
        Query(
            alias="from", description="stop where to board", examples=["town:A"],
            min_length=1, max_length=asked.ID_MAX, pattern=asked.NO_CONTROL,
        ),
    ],
    to: Annotated[
        str,
        Query(
            description="stop where to alight", examples=["town:B"],
            min_length=1, max_length=asked.ID_MAX, pattern=asked.NO_CONTROL,
        ),
    ],
    route: Annotated[str | None, AnId] = None,
) -> Response:  # fmt: skip
    """Each route that goes there without a change, with what it costs; the cheapest first."""
    with _reading(request, None) as read:
        timetable = read.network.timetable
        begin, end = (_known(timetable.stops.ids, text, "stop") for text in (from_, to))
        routes = None
        if route is not None:
            routes = frozenset(_known(timetable.routes.ids, route, "route"))
        shown: dict[str, Shown] = {}
        for ride in rides_between(read.network, read.now, begin, end, routes):
            for each in read.show.prices(ride.route, priced.of(timetable, [ride]) or ()):
                known = shown.get(each["route"])
                if known is None or each["price"] < known["price"]:
                    shown[each["route"]] = each
    by_price = sorted(shown.values(), key=lambda each: (each["currency"], each["price"]))
    return door.cacheable(request, {"fares": by_price})
