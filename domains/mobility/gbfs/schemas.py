"""What the routes of shared vehicles answer."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class GbfsDocument(BaseModel):
    """One document of GBFS; its data is as gbfs.md of its version says."""

    last_updated: int | str = Field(description="POSIX time in 2.3, RFC 3339 in 3.0")
    ttl: int = Field(description="seconds for which a copy is good")
    version: Literal["2.3", "3.0"]
    data: dict[str, Any]


class Station(BaseModel):
    """A station of shared vehicles, and what it has now."""

    id: str = Field(examples=["docomo-cycle-tokyo:00010882"], description="feed:id")
    feed: str
    name: str | None
    longitude: float
    latitude: float
    capacity: int | None
    vehicles_available: int = Field(description="that can be rented now; 0 where it is not renting")
    docks_available: int = Field(description="1 where it takes returns without counting docks")
    is_installed: bool
    is_renting: bool
    is_returning: bool
    time: datetime = Field(description="when it was so")
    fresh: bool = Field(description="heard in the last 15 minutes")
    distance_metres: float | None = Field(description="from `near`")


class StationList(BaseModel):
    """Stations, by id or, with `near`, by distance."""

    stations: list[Station]
    next: str | None = Field(description="the next page")


class Step(BaseModel):
    """One step of a forecast."""

    time: datetime
    vehicles_available: float
    mae: float | None = Field(description="mean absolute error so far at this horizon, vehicles")
    mae_persistence: float | None = Field(description="that of the last count, told unchanged")
    model: Literal["profile", "persistence"]


class StationForecast(BaseModel):
    """The next hour of a station."""

    id: str
    made_at: datetime = Field(description="of the last count")
    last: int = Field(description="the last count")
    judged: int = Field(description="earlier forecasts that the errors are of")
    steps: list[Step]
