"""Response models of the network: stops, departures, routes, fares, and what is near."""

from typing import Any, Literal

from pydantic import BaseModel, Field

TOKYO = "2026-11-23T08:05:00+09:00"
STOP: dict[str, Any] = {
    "id": "town:A", "feed": "town", "name": "駅前", "code": None, "platform": "1",
    "zone": "z1", "longitude": 139.7, "latitude": 35.6, "location_type": 0, "parent": None,
    "wheelchair": True, "metres": None,
}  # fmt: skip
ROUTE: dict[str, Any] = {
    "id": "town:r1", "feed": "town", "agency": "a", "short_name": "1", "long_name": None,
    "type": 3, "colour": "7c3aed",
}  # fmt: skip
DEPARTURE: dict[str, Any] = {
    "stop": "town:A", "platform": "1", "trip": "town:t1", "route": ROUTE, "headsign": "港",
    "direction": 0, "service_day": "2026-11-23", "holiday": "勤労感謝の日",
    "scheduled": TOKYO, "expected": "2026-11-23T08:07:00+09:00", "realtime": True,
    "cancelled": False, "skipped": False, "wheelchair": True, "vehicle": "town:bus 7",
}  # fmt: skip


class Stop(BaseModel):
    """A stop, platform or station (stops.txt)."""

    id: str = Field(description="`feed:stop_id`")
    feed: str
    name: str
    code: str | None
    platform: str | None = Field(description="platform_code")
    zone: str | None = Field(description="zone_id, by which fares go")
    longitude: float | None
    latitude: float | None
    location_type: int = Field(description="0 stop or platform, 1 station, 2 entrance, 3, 4")
    parent: str | None = Field(description="its station")
    wheelchair: bool | None = Field(description="null: not known; a station's holds for platforms")
    metres: int | None = Field(description="straight line from `near`, where that was asked")


class Stops(BaseModel):
    """A page of stops: by distance where `near` is given."""

    stops: list[Stop]
    next: str | None = Field(description="the next page, or null")

    model_config = {"json_schema_extra": {"examples": [{"stops": [STOP], "next": None}]}}


class Route(BaseModel):
    """A line (routes.txt)."""

    id: str = Field(description="`feed:route_id`")
    feed: str
    agency: str | None
    short_name: str | None
    long_name: str | None
    type: int = Field(description="route_type: 0 tram, 1 metro, 2 rail, 3 bus, 4 ferry, ...")
    colour: str | None = Field(description="RRGGBB")


class Routes(BaseModel):
    """A page of routes."""

    routes: list[Route]
    next: str | None = Field(description="the next page, or null")

    model_config = {"json_schema_extra": {"examples": [{"routes": [ROUTE], "next": None}]}}


class Line(BaseModel):
    """A way on the map (RFC 7946, 3.1.4)."""

    type: Literal["LineString"] = "LineString"
    coordinates: list[tuple[float, float]]


class Pattern(BaseModel):
    """One order of stops that trips of a route have."""

    headsign: str | None
    direction: int | None
    trips: int = Field(description="how many of the version's trips have it")
    stops: list[str]
    shape: Line | None = Field(description="the feed's, else straight from stop to stop")


class RouteDetail(Route):
    """A route with the stops that it has."""

    patterns: list[Pattern] = Field(description="the most frequent first")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    **ROUTE,
                    "patterns": [
                        {
                            "headsign": "港", "direction": 0, "trips": 12,
                            "stops": ["town:A", "town:B"],
                            "shape": {
                                "type": "LineString",
                                "coordinates": [[139.7, 35.6], [139.71, 35.6]],
                            },
                        }
                    ],
                }
            ]
        }
    }  # fmt: skip


class StopDetail(Stop):
    """A stop with what belongs to it."""

    timezone: str = Field(description="IANA")
    platforms: list[Stop] = Field(description="of a station")
    routes: list[Route] = Field(description="that anybody can board here")

    model_config = {
        "json_schema_extra": {
            "examples": [{**STOP, "timezone": "Asia/Tokyo", "platforms": [], "routes": [ROUTE]}]
        }
    }


class Departure(BaseModel):
    """One trip that leaves a stop."""

    stop: str
    platform: str | None
    trip: str
    route: Route
    headsign: str | None
    direction: int | None
    service_day: str = Field(description="the day that the timetable counts it to")
    holiday: str | None = Field(description="name of that day, where it is a Japanese holiday")
    scheduled: str = Field(description="ISO 8601 in the feed's zone")
    expected: str | None = Field(description="null where it does not leave from here")
    realtime: bool = Field(description="whether `expected` was heard from the trip")
    cancelled: bool
    skipped: bool = Field(description="it runs, but does not stop here")
    wheelchair: bool | None = Field(description="of trip and stop together; null: not known")
    vehicle: str | None


class Departures(BaseModel):
    """What leaves a stop next, by expected time."""

    stop: Stop
    departures: list[Departure]

    model_config = {"json_schema_extra": {"examples": [{"stop": STOP, "departures": [DEPARTURE]}]}}


class NearStop(Stop):
    """A stop that can be walked to."""

    walking_seconds: int | None = Field(description="null: no way is near")
    estimated: bool = Field(description="a straight line × 1.3 at 1.25 m/s, not by streets")
    departures: list[Departure]


class NearPlace(BaseModel):
    """A station of shared vehicles, or a free vehicle."""

    id: str
    mode: str
    kind: Literal["station", "vehicle"]
    name: str | None
    longitude: float
    latitude: float
    available: dict[str, Any]
    time: str = Field(description="when this was so")
    metres: int
    walking_seconds: int | None = Field(description="null: no way is near")
    estimated: bool = Field(description="a straight line × 1.3 at 1.25 m/s, not by streets")


class Near(BaseModel):
    """Everything that can be used around a point, each kind by distance."""

    longitude: float
    latitude: float
    radius_metres: float
    estimated: bool = Field(description="of some; false where all walks are by streets")
    attribution: str | None = Field(description="whose the streets are, where one walks on them")
    stops: list[NearStop]
    stations: list[NearPlace]
    vehicles: list[NearPlace]

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "longitude": 139.7, "latitude": 35.6, "radius_metres": 300, "estimated": True,
                    "attribution": None,
                    "stops": [
                        {
                            **STOP, "metres": 80, "walking_seconds": 83, "estimated": True,
                            "departures": [DEPARTURE],
                        }
                    ],
                    "stations": [
                        {
                            "id": "bikes:station:7", "mode": "bicycle", "kind": "station",
                            "name": "港", "longitude": 139.7, "latitude": 35.6,
                            "available": {"vehicles": 4, "docks": 6}, "time": TOKYO,
                            "metres": 120, "walking_seconds": 125, "estimated": True,
                        }
                    ],
                    "vehicles": [],
                }
            ]
        }
    }  # fmt: skip


class Ticket(BaseModel):
    """One fare, and how many rides it covers."""

    fare: str = Field(description="`feed:fare_id`")
    price: float
    currency: str
    rides: int
    on_board: bool = Field(description="paid on board, else before")
    transfers: int | None = Field(description="null: without limit")
    transfer_seconds: int | None


class Fare(BaseModel):
    """What a ride on one route costs."""

    route: str
    price: float
    currency: str = Field(description="ISO 4217")
    tickets: list[Ticket]


class Fares(BaseModel):
    """What direct rides cost, the cheapest first; empty where none has a fare."""

    fares: list[Fare]

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "fares": [
                        {
                            "route": "town:r1", "price": 230, "currency": "JPY",
                            "tickets": [
                                {
                                    "fare": "town:f230", "price": 230, "currency": "JPY",
                                    "rides": 1, "on_board": True, "transfers": 0,
                                    "transfer_seconds": None,
                                }
                            ],
                        }
                    ]
                }
            ]
        }
    }  # fmt: skip
