"""Response models of the generic endpoints: for OpenAPI; the bytes are encoded directly."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOMENT = "2026-01-01T00:00:00Z"


def example(**values: Any) -> ConfigDict:
    """A model's configuration with one example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Titles(BaseModel):
    """A title in both languages."""

    ja: str
    en: str


class DeclaredProperty(BaseModel):
    """One observed property of a sector; unit in UCUM."""

    name: str
    title: Titles
    unit: str
    kind: Literal["number", "category", "position", "document"]
    minimum: float | None
    maximum: float | None
    vocabulary: list[str]


class SectorSummary(BaseModel):
    """What a sector declares, and how many of its Things this caller sees."""

    name: str
    title: Titles
    thing_title: Titles
    colour: str
    data_class: str
    formats: list[str]
    things: int
    properties: list[DeclaredProperty]


class Sectors(BaseModel):
    """Every installed sector."""

    sectors: list[SectorSummary]


class Point(BaseModel):
    """Degrees, WGS 84."""

    longitude: float
    latitude: float


class ThingSummary(BaseModel):
    """One Thing."""

    id: str
    sector: str
    name: str | None
    location: Point | None
    geometry: dict[str, Any] | None = Field(description="GeoJSON geometry, where it is more")
    properties: dict[str, Any]
    last_seen: datetime | None

    model_config = example(
        id="431000001",
        sector="ports",
        name="CHIMATA MARU",
        location={"longitude": 139.65, "latitude": 35.44},
        geometry=None,
        properties={},
        last_seen=MOMENT,
    )


class Things(BaseModel):
    """A page of Things."""

    things: list[ThingSummary]
    next: str | None = Field(description="the next page, null on the last one")


class Value(BaseModel):
    """One observation; quality: 0 good, +1 out of range, +2 undeclared, +4 suspect."""

    phenomenon_time: datetime
    result: Any = Field(description="number, text of a vocabulary, position, or JSON")
    quality: int

    model_config = example(phenomenon_time=MOMENT, result=12.5, quality=0)


class DatastreamSummary(BaseModel):
    """One series of a Thing, with its latest value."""

    property: str
    title: Titles | None
    unit: str
    kind: str
    data_class: str
    undeclared: bool
    latest: Value | None


class Thing(ThingSummary):
    """One Thing with its series."""

    datastreams: list[DatastreamSummary]


class LatestValue(Value):
    """A latest value with its UCUM unit."""

    unit: str


class LatestProperties(BaseModel):
    """Properties of a feature."""

    name: str | None
    sector: str
    last_seen: datetime | None
    latest: dict[str, LatestValue]


class PointGeometry(BaseModel):
    """GeoJSON Point."""

    type: Literal["Point"]
    coordinates: list[float]


class LatestFeature(BaseModel):
    """One Thing as a GeoJSON Feature."""

    type: Literal["Feature"]
    id: str
    geometry: PointGeometry | None
    properties: LatestProperties


class LatestCollection(BaseModel):
    """Latest values as GeoJSON (RFC 7946)."""

    type: Literal["FeatureCollection"]
    features: list[LatestFeature]
    next: str | None

    model_config = example(
        type="FeatureCollection",
        features=[
            {
                "type": "Feature",
                "id": "431000001",
                "geometry": {"type": "Point", "coordinates": [139.65, 35.44]},
                "properties": {
                    "name": "CHIMATA MARU",
                    "sector": "ports",
                    "last_seen": MOMENT,
                    "latest": {
                        "heading": {
                            "result": 91.0,
                            "unit": "deg",
                            "phenomenon_time": MOMENT,
                            "quality": 0,
                        }
                    },
                },
            }
        ],
        next=None,
    )


class Bucket(BaseModel):
    """The numbers of one interval, labelled by its start."""

    phenomenon_time: datetime
    count: int
    mean: float | None
    minimum: float | None
    maximum: float | None
    last: float | None


class StateBucket(BaseModel):
    """The states of one interval: how long each was held."""

    phenomenon_time: datetime
    count: int
    last: str | None
    seconds: dict[str, float]


class History(BaseModel):
    """Observations of one series, oldest first; with `interval` one entry an interval."""

    thing: str
    property: str
    unit: str
    kind: str
    interval: str | None
    observations: list[Value] | list[Bucket] | list[StateBucket]
    next: str | None

    model_config = example(
        thing="431000001",
        property="heading",
        unit="deg",
        kind="number",
        interval=None,
        observations=[{"phenomenon_time": MOMENT, "result": 91.0, "quality": 0}],
        next=None,
    )


class Change(BaseModel):
    """A series that changed, and the span [from, to) to read again; `count` rows are new in it."""

    thing: str
    property: str
    from_: datetime = Field(alias="from")
    to: datetime
    count: int


class Changes(BaseModel):
    """What changed after a cursor; `next` is where to go on, `complete`: nothing waits there."""

    sector: str
    changes: list[Change]
    next: str
    complete: bool

    model_config = example(
        sector="ports",
        changes=[
            {"thing": "431000001", "property": "heading", "from": MOMENT, "to": MOMENT, "count": 1}
        ],
        next="/v1/ports/changes?after=MTIuMC4w",
        complete=True,
    )


class Health(BaseModel):
    """The database answers."""

    status: Literal["ok"]
