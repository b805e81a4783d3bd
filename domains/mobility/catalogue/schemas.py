"""Response models of the catalogue."""

from datetime import date, datetime
from typing import Literal

from pydantic import BaseModel, Field

Kind = Literal["gtfs", "gtfs-rt", "gbfs"]
State = Literal["fresh", "stale", "expired", "failing", "empty"]


class Link(BaseModel):
    """Where a feed can be had from here, in one format."""

    title: str
    href: str
    media_type: str
    conforms_to: str = Field(description="The standard's own address")


class Coverage(BaseModel):
    """Where and when."""

    box: list[float] | None = Field(
        description="[west, south, east, north] of its stops or stations, degrees WGS 84"
    )
    valid_from: date | None
    valid_to: date | None = Field(description="Inclusive; null: nothing runs")


class Feed(BaseModel):
    """One feed: what it is, whose terms hold, how fresh and how good it is."""

    id: str
    kind: Kind
    title: str
    licence: str | None = Field(description="An SPDX id, or the address of the terms")
    attribution: str | None
    sharing: Literal["collaborative", "competitive"] = Field(
        description="collaborative: open to all; competitive: by contract alone"
    )
    state: State = Field(
        description="fresh; stale: older than its kind should be; expired: its timetable is over; "
        "failing: the last poll failed; empty: nothing came yet"
    )
    heard_at: datetime | None = Field(description="Last poll or push")
    changed_at: datetime | None = Field(description="Last time that there was something new")
    age_seconds: float | None = Field(description="Since it was heard")
    error: str | None = Field(description="Of the last poll")
    poll_seconds: int | None
    timetable: str | None = Field(description="The static feed that a gtfs-rt feed tells news of")
    coverage: Coverage
    version: int | None = Field(description="The newest imported version of a static feed")
    version_name: str | None = Field(description="What the feed itself calls it")
    versions: int
    language: str | None
    timezone: str | None
    counts: dict[str, int] = Field(description="Rows stored of the newest version, by file")
    refused: dict[str, int]
    quality_score: float | None = Field(description="0 to 100; its report tells what was found")
    links: list[Link]


class Streets(BaseModel):
    """The network that walks are along, of OpenStreetMap."""

    licence: str = Field(description="An SPDX id")
    attribution: str = Field(description="To be shown wherever an answer that uses it is")
    imported_at: datetime
    counts: dict[str, int]
    refused: dict[str, int]


class Feeds(BaseModel):
    """A page of feeds, by id."""

    feeds: list[Feed]
    next: str | None
    streets: Streets | None = Field(description="null: walks are guessed along a straight line")
