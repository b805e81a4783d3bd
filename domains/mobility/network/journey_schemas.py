"""Response models of journeys and isochrones."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Spot(BaseModel):
    """Where a leg begins or ends; `id` is that of a stop or station, where it is one."""

    id: str | None
    name: str | None
    platform: str | None = None
    longitude: float | None
    latitude: float | None


class Moment(BaseModel):
    """`expected` is `scheduled` unless something else was heard."""

    scheduled: datetime
    expected: datetime


class Call(BaseModel):
    """A stop on the way; `skipped`: not served today."""

    stop: Spot
    arrival: Moment | None
    departure: Moment | None
    skipped: bool


class LegRoute(BaseModel):
    """The route of a ride."""

    id: str
    short_name: str | None
    long_name: str | None
    type: int
    colour: str | None


class Line(BaseModel):
    """GeoJSON."""

    type: Literal["LineString"] = "LineString"
    coordinates: list[tuple[float, float]]


class Leg(BaseModel):
    """A walk, a ride on a shared bike, or a ride; what is of rides alone is null for the others.

    `estimated`: of a straight line, not of streets. `metres` are those of walks and bikes.
    """

    mode: str
    origin: Spot
    destination: Spot
    departure: Moment
    arrival: Moment
    duration_seconds: int
    metres: float | None = None
    estimated: bool = False
    realtime: bool = False
    trip: str | None = None
    service_day: date | None = None
    route: LegRoute | None = None
    headsign: str | None = None
    wheelchair_accessible: bool | None = None
    stops: list[Call] = []
    geometry: Line | None = None
    alerts: list[str] = []


class JourneyFare(BaseModel):
    """What all rides cost together, with the cheapest tickets, in one currency (ISO 4217)."""

    price: float
    currency: str


class Journey(BaseModel):
    """Legs that follow each other; no `fares` where one of its rides has none."""

    departure: datetime
    arrival: datetime
    duration_seconds: int
    transfers: int
    walking_metres: float
    realtime: bool
    estimated: bool
    fares: list[JourneyFare]
    alerts: list[str]
    legs: list[Leg]


class Journeys(BaseModel):
    """Best first."""

    origin: Spot
    destination: Spot
    journeys: list[Journey]
    attribution: str | None = Field(
        default=None, description="whose the streets are, where one walks along them"
    )


class Polygons(BaseModel):
    """GeoJSON; `properties` are minutes and seconds."""

    type: Literal["Feature"] = "Feature"
    geometry: dict[str, Any]
    properties: dict[str, Any]


class Isochrones(BaseModel):
    """GeoJSON (RFC 7946), the furthest first, so that nearer ones are drawn over it."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Polygons]
    attribution: str | None = Field(
        default=None, description="whose the streets are, where one walks along them"
    )
