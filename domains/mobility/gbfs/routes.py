"""Shared vehicles: feeds as GBFS 2.3 and 3.0, stations near a point, the next hour of a station."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from consent import door
from core.errors import CityError
from domains.mobility.gbfs import forecast, load, publish, state
from domains.mobility.gbfs.decode import station_thing
from domains.mobility.gbfs.documents import FILES
from domains.mobility.gbfs.schemas import GbfsDocument, StationForecast, StationList
from domains.mobility.gbfs.schemas import Station as StationModel
from domains.mobility.network import asked
from domains.mobility.network.near import metres as distances
from domains.mobility.sector import SECTOR

router = APIRouter()

PAGE_MAX, PAGE_DEFAULT = 1_000, 100
NAMES = tuple(sorted({"gbfs", "gbfs_versions", *(f.name for f in FILES), *(f.v2 for f in FILES)}))

FeedId = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Version = Annotated[Literal["2.3", "3.0"], Path(description="of GBFS")]
FileName = Annotated[str, Path(pattern=f"^({'|'.join(NAMES)})$", examples=["station_status"])]
Lang = Annotated[
    str | None, Query(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$", description="of the texts of 2.3")
]
StationId = Annotated[str, Path(pattern=r"^[a-z0-9_-]+:[^\x00-\x1f\x7f]+$", max_length=300)]


@router.get(
    "/feeds/{feed}/gbfs/{version}/{file}.json",
    response_model=GbfsDocument,
    summary="A feed of shared vehicles as GBFS",
)
def read_gbfs(
    request: Request, feed: FeedId, version: Version, file: FileName, lang: Lang = None
) -> Response:
    """gbfs.json and every file that it lists; ids of vehicles change after each trip."""
    named = file in ("vehicle_status", "free_bike_status")
    secret = door.secret_of(request) if named else b""
    with door.reading(request, SECTOR) as connection:
        known = load.feed(connection, feed, secret)
    if known is None:
        raise CityError("not-found", f"there is no feed of shared vehicles {feed!r}")
    time = known.time("system_information")
    if time is None:
        raise CityError("not-found", f"{feed!r} has no documents yet")

    def url(version: str, name: str, language: str) -> str:
        path = f"/v1/mobility/feeds/{feed}/gbfs/{version}/{name}.json"
        query = urlencode({"lang": language}) if language else ""
        return str(request.url.replace(path=path, query=query, fragment=""))

    if file == "gbfs":
        body: Any = publish.index(known, version, url, time)
    elif file == "gbfs_versions":
        body = publish.versions(version, url, time)
    else:
        body = publish.document(known, file, version, lang)
    if body is None:
        raise CityError("not-found", f"{feed!r} has no {file}.json in GBFS {version}")
    return door.cacheable(request, body)


@router.get("/stations", response_model=StationList, summary="Stations of shared vehicles")
def read_stations(
    request: Request,
    near: Annotated[str | None, Query(description="longitude,latitude", max_length=200)] = None,
    radius: Annotated[float, Query(gt=0, le=asked.RADIUS_METRES_MAX, description="metres")] = 500,
    bbox: Annotated[str | None, Query(description="west,south,east,north", max_length=200)] = None,
    feed: Annotated[str | None, Query(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT,
    after: asked.After = None,
) -> Response:
    """What each station has now: within `radius` of `near`, the nearest first; or by id."""
    circle = None if near is None else asked.circle(near, radius)
    box = None if bbox is None else asked.box(bbox)
    with door.reading(request, SECTOR) as connection:
        known = state.stations(connection)
    chosen = np.ones(len(known), bool)
    if feed is not None:
        chosen &= np.array([each.startswith(feed + ":") for each in known.ids], bool)
    if box is not None:
        chosen &= _within(known, box)
    order = np.flatnonzero(chosen)
    distance = None
    if circle is not None:
        metres = distances(known.longitude, known.latitude, circle[0], circle[1])
        order = order[metres[order] <= circle[2]]
        order = order[np.argsort(metres[order], kind="stable")][:limit]
        distance, following = metres, None
    else:
        order = order[[known.ids[each] > after for each in order.tolist()]] if after else order
        following = known.ids[order[limit - 1]] if len(order) > limit else None
        order = order[:limit]
    now = datetime.now(UTC)
    fresh = state.is_fresh(known, now)
    found = [_station(known, each, fresh, distance) for each in order.tolist()]
    link = None
    if following is not None:
        query = {"feed": feed, "bbox": bbox, "limit": limit, "after": following}
        link = f"{request.url.path}?{urlencode({k: v for k, v in query.items() if v})}"
    return door.current(StationList(stations=found, next=link).model_dump())


@router.get("/stations/{station}", response_model=StationModel, summary="One station")
def read_station(request: Request, station: StationId) -> Response:
    """What one station has now. Its history: the observations of its Thing, `FEED:station:ID`."""
    with door.reading(request, SECTOR) as connection:
        known = state.stations(connection)
    index = _index(known, station)
    fresh = state.is_fresh(known, datetime.now(UTC))
    return door.current(_station(known, index, fresh, None).model_dump())


@router.get(
    "/stations/{station}/forecast",
    response_model=StationForecast,
    summary="The next hour of a station",
)
def read_forecast(
    request: Request,
    station: StationId,
    at: Annotated[str | None, Query(description="as it was forecast then", max_length=64)] = None,
) -> Response:
    """Vehicles in steps of ten minutes, each with its error so far and that of persistence."""
    then = None if at is None else asked.moment("at", at)
    with door.reading(request, SECTOR) as connection:
        known = state.stations(connection)
        index = _index(known, station)
        feed, _, own = station.partition(":")
        # From its last count on: a feed that fell silent has no other now.
        until = then or known.time[index].astype("M8[us]").item().replace(tzinfo=UTC)
        times, counts = load.history(connection, station_thing(feed, own), until)
    if not len(times):
        raise CityError("not-found", f"{station!r} had no counts in the days before")
    capacity = float(known.capacity[index])
    made = forecast.forecast(
        times, counts, int(times[-1]), _zone_seconds(known.longitude[index]),
        capacity if capacity >= counts.max() else np.inf,
    )  # fmt: skip
    return door.current(_forecast(station, int(times[-1]), float(counts[-1]), made))


def _zone_seconds(longitude: float) -> int:
    """Mean solar time in whole hours: the profile wants the day's phase, not the law's."""
    return round(longitude / 15) * 3600


def _forecast(station: str, last_time: int, last: float, made: forecast.Forecast) -> dict[str, Any]:
    made_at = datetime.fromtimestamp(last_time, UTC)
    steps = [
        {
            "time": made_at + timedelta(seconds=(number + 1) * forecast.STEP_SECONDS),
            "vehicles_available": float(made.counts[number]),
            "mae": _told(made.mae[number]),
            "mae_persistence": _told(made.mae_persistence[number]),
            "model": "profile" if made.model[number] else "persistence",
        }
        for number in range(forecast.HORIZONS)
    ]
    return {
        "id": station, "made_at": made_at, "last": round(last), "judged": made.judged,
        "steps": steps,
    }  # fmt: skip


def _told(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _index(known: state.Stations, station: str) -> int:
    try:
        return known.ids.index(station)
    except ValueError:
        raise CityError("not-found", f"there is no station {quote(station)!r}") from None


def _station(
    known: state.Stations, index: int, fresh: np.ndarray[Any, Any], distance: Any
) -> StationModel:
    capacity = known.capacity[index]
    return StationModel(
        id=known.ids[index],
        feed=known.ids[index].partition(":")[0],
        name=known.names[index] or None,
        longitude=float(known.longitude[index]),
        latitude=float(known.latitude[index]),
        capacity=int(capacity) if np.isfinite(capacity) else None,
        vehicles_available=int(known.bikes[index]),
        docks_available=int(known.docks[index]),
        is_installed=bool(known.installed[index]),
        is_renting=bool(known.renting[index]),
        is_returning=bool(known.returning[index]),
        time=known.time[index].astype("M8[us]").item().replace(tzinfo=UTC),
        fresh=bool(fresh[index]),
        distance_metres=None if distance is None else round(float(distance[index]), 1),
    )


def _within(known: state.Stations, box: asked.Box) -> Any:
    west, south, east, north = box
    x, y = known.longitude, known.latitude
    # A box whose west is east of its east lies over the antimeridian.
    across = (x >= west) & (x <= east) if west <= east else (x >= west) | (x <= east)
    return across & (y >= south) & (y <= north)
