"""How one comes from a place to a place, and how far one comes: journeys and isochrones."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Annotated, Literal

import shapely
from fastapi import APIRouter, Query, Request, Response

from consent import door
from consent.gate import PermittedConnection
from core.errors import invalid
from domains.mobility.gbfs import state as stations
from domains.mobility.network import asked, isochrones, load, street_load, walking
from domains.mobility.network import journey_schemas as schemas
from domains.mobility.network.asked import NO_CONTROL, Lang
from domains.mobility.network.bikes import Bikes, merged
from domains.mobility.network.journey_answer import Answer
from domains.mobility.network.journeys import Place, Wish, by_street, place_of_stops, plan
from domains.mobility.network.modes import MODES
from domains.mobility.network.names import languages_of
from domains.mobility.network.raptor import Raptor
from domains.mobility.network.show import Show
from domains.mobility.network.timetable import Timetable
from domains.mobility.network.walking import Walking
from domains.mobility.realtime import state
from domains.mobility.realtime.overlay import Overlay
from domains.mobility.sector import SECTOR

router = APIRouter()

GEOJSON = "application/geo+json"

WALK_METRES_MAX = 5_000
TRANSFERS_MAX = 8
JOURNEYS_MAX = 5
MINUTES_MAX, ISOCHRONES_MAX = 120, 6
CHOICES = frozenset({"transit", "bike", "walk", *MODES})
NUMBERS = re.compile(r"\s*-?\d{1,3}(\.\d{0,20})?\s*,\s*-?\d{1,3}(\.\d{0,20})?\s*", re.ASCII)

Where = Annotated[
    str,
    Query(
        description="longitude,latitude, or a stop's id (`feed:id`)",
        examples=["139.767,35.681"], min_length=1, max_length=300, pattern=NO_CONTROL,
    ),
]  # fmt: skip
When = Annotated[
    str | None, Query(description="ISO 8601 with an offset; now if absent", max_length=40)
]
Metres = Annotated[float, Query(ge=0, le=WALK_METRES_MAX, description="of each walk")]


@router.get(
    "/journeys", response_model=schemas.Journeys, summary="From a place to a place by every mode"
)
def read_journeys(
    request: Request,
    origin: Annotated[Where, Query(alias="from")],
    destination: Annotated[Where, Query(alias="to")],
    depart: When = None,
    arrive: Annotated[
        str | None, Query(description="be there by; not together with depart", max_length=40)
    ] = None,
    walk_max: Metres = 1_000.0,
    transfers_max: Annotated[int, Query(ge=0, le=TRANSFERS_MAX)] = 4,
    wheelchair: Annotated[
        Literal["false", "true", "prefer"],
        Query(description="true: known to be accessible; prefer: not known to be inaccessible"),
    ] = "false",
    modes: Annotated[
        str,
        Query(
            description=f"some of {', '.join(sorted(CHOICES))}; one always walks to a stop",
            examples=["transit,walk"], max_length=200, pattern=NO_CONTROL,
        ),
    ] = "transit,bike,walk",
    lang: Lang = None,
    geometry: Annotated[bool, Query(description="with a line for each leg")] = False,
    limit: Annotated[int, Query(ge=1, le=JOURNEYS_MAX)] = 3,
) -> Response:  # fmt: skip
    """Journeys of which none leaves earlier, comes later and changes more often than another.

    Real time is considered: nobody is sent to a cancelled trip, to a closed stop, or to a trip that
    has left by then. A walk, 1.25 m/s, is by the streets, without steps for wheelchairs; where none
    are known it is the straight line × 1.3, and so `estimated`. A journey ends within a day of when
    it is asked to begin.
    """
    if depart is not None and arrive is not None:
        raise invalid("arrive", "not together with depart")
    chosen = frozenset(each.strip() for each in modes.split(",") if each.strip())
    if not chosen or chosen - CHOICES:
        raise invalid("modes", f"a list of {', '.join(sorted(CHOICES))}")
    when = asked.moment("depart", depart) if arrive is None else asked.moment("arrive", arrive)
    languages = languages_of(lang, request.headers.get("accept-language", ""))
    with door.reading(request, SECTOR) as connection:
        seen = Seen.by(connection)
    wish = Wish(
        origin=seen.place("from", origin), destination=seen.place("to", destination),
        time=math.floor(when.timestamp()), arrive_by=arrive is not None, walk_metres_max=walk_max,
        transfers_max=transfers_max, wheelchair=wheelchair, modes=chosen, limit=limit,
    )  # fmt: skip
    found = plan(seen.raptor, seen.overlay, wish, seen.bikes)
    answer = Answer(Show(seen.network, languages), seen.overlay, geometry=geometry)
    body = schemas.Journeys(
        origin=answer.spot(wish.origin),
        destination=answer.spot(wish.destination),
        journeys=[answer.journey(each) for each in found],
        attribution=seen.attribution(any(map(by_street, found))),
    )
    return door.current(body.model_dump())


@router.get(
    "/isochrones",
    response_model=schemas.Isochrones,
    summary="How far one comes within minutes",
    responses={200: {"content": {GEOJSON: {}}}},
)
def read_isochrones(
    request: Request,
    at: Where,
    depart: When = None,
    minutes: Annotated[
        str,
        Query(
            description=f"up to {ISOCHRONES_MAX} numbers from 1 to {MINUTES_MAX}, with commas",
            max_length=60, pattern=r"^\s*\d{1,3}\s*(,\s*\d{1,3}\s*)*$", examples=["15,30,45"],
        ),
    ] = "15,30,45",
    walk_max: Metres = 1_000.0,
    transfers_max: Annotated[int, Query(ge=0, le=TRANSFERS_MAX)] = 4,
) -> Response:  # fmt: skip
    """Polygons (GeoJSON) about all that is reached on foot and by public transport, as it runs now.

    What is left of the time at a stop is walked from there, up to `walk_max`.
    """
    limits = sorted({int(each) for each in minutes.split(",")}, reverse=True)
    if len(limits) > ISOCHRONES_MAX or not all(1 <= each <= MINUTES_MAX for each in limits):
        raise invalid("minutes", f"up to {ISOCHRONES_MAX} numbers from 1 to {MINUTES_MAX}")
    time = math.floor(asked.moment("depart", depart).timestamp())
    with door.reading(request, SECTOR) as connection:
        seen = Seen.by(connection)
    place = seen.place("at", at)
    if not (math.isfinite(place.longitude) and math.isfinite(place.latitude)):
        raise invalid("at", "the feed does not say where that stop is")
    raptor = seen.raptor
    on_foot = walking.reach(raptor.timetable, *place.at, walk_max, raptor.walking, raptor.placed())
    reach = merged(place.own, on_foot)
    shapes = isochrones.polygons(
        seen.raptor, seen.overlay, place, reach, time, limits, walk_max, transfers_max + 1
    )
    features = [
        schemas.Polygons(
            geometry=shapely.geometry.mapping(polygon.shape),
            properties={"minutes": limit, "seconds": limit * 60, "estimated": polygon.estimated},
        )
        for limit, polygon in zip(limits, shapes, strict=True)
    ]
    body = schemas.Isochrones(
        features=features, attribution=seen.attribution(any(each.streets for each in shapes))
    )
    return door.current(body.model_dump(), GEOJSON)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one caller may see: the timetable laid out for searches, and its real time."""

    network: load.Network
    raptor: Raptor
    overlay: Overlay
    bikes: Bikes

    @classmethod
    def by(cls, connection: PermittedConnection) -> "Seen":
        """Laid out once a permission, until the timetable is another."""
        network = load.network(connection)
        now = datetime.now(UTC)
        overlay = state.overlay(connection, network.timetable, now)
        shared = stations.bikes(connection, now)
        port = street_load.walking(connection)
        kept: _Kept = connection.kept.setdefault("journeys", _Kept())
        bikes = Bikes(
            shared.ids, tuple(name or "" for name in shared.names), shared.longitude,
            shared.latitude, shared.bikes, shared.docks,
        )  # fmt: skip
        return cls(network, kept.of(network.timetable, port), overlay, bikes)

    def attribution(self, used: bool) -> str | None:
        """Whose the streets are, where an answer has used them."""
        return self.raptor.walking.attribution if used else None

    def place(self, field: str, text: str) -> Place:
        """Coordinates, or a stop; CityError `invalid` for neither."""
        if NUMBERS.fullmatch(text):
            return Place(*asked.point(field, text))
        timetable = self.raptor.timetable
        found = timetable.stops.ids.all_of(text)
        if not found:
            raise invalid(field, "neither longitude,latitude nor a stop's id")
        return place_of_stops(timetable, found)


class _Kept:
    """The newest Raptor of a permission."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._raptor: Raptor | None = None

    def of(self, timetable: Timetable, port: Walking) -> Raptor:
        """That of this timetable and these streets; who asks first lays it out for all."""
        with self._lock:
            held = self._raptor
            if held is None or held.timetable is not timetable or held.walking is not port:
                self._raptor = held = Raptor(timetable, walking=port)
            return held
