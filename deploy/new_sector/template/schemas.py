"""Response models of the newsector sector's own words."""

from datetime import datetime

from pydantic import BaseModel, Field


class StationState(BaseModel):
    """The newest state of one station."""

    station: str = Field(examples=["station-1"])
    state: str = Field(examples=["normal"])
    since: datetime = Field(examples=["2026-01-01T00:00:00Z"])


class StationStates(BaseModel):
    """One page of stations; ask again with `after` = the last one's key for the next."""

    stations: list[StationState]
