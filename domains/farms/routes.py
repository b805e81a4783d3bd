"""The farms sector's own words: fields, and the sensors that stand in them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from consent import door
from domains.farms import queries, rules
from domains.farms.schemas import FieldFeature, FieldProperties, Fields, FieldSensor, Latest
from domains.farms.sector import SECTOR

router = APIRouter()

FIELDS_MAX = 2_000
GEOJSON = "application/geo+json"
Row = Mapping[str, Any]


@router.get(
    "/fields",
    response_model=Fields,
    summary="Fields with the sensors inside them",
    responses={200: {"content": {GEOJSON: {}}}},
)
def read_fields(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=FIELDS_MAX)] = 500,
    after: Annotated[str, Query(max_length=200, description="id of the last field seen")] = "",
) -> Response:
    """Fields as GeoJSON: area, attributes, and the latest values of every sensor inside."""
    with door.reading(request, SECTOR) as connection:
        fields = queries.select_fields(connection, after, limit)
        sensors = queries.select_sensors(connection, bounds_of(fields)) if fields else []
    following = None
    if len(fields) == limit:
        following = f"{request.url.path}?{urlencode({'limit': limit, 'after': fields[-1]['key']})}"
    page = Fields(features=features_of(fields, sensors), next=following)
    return door.current(page.model_dump(), GEOJSON)


def features_of(fields: Sequence[Row], sensors: Sequence[Row]) -> list[FieldFeature]:
    """Features from rows of fields and (sorted by sensor) of their Datastreams."""
    stations = [list(group) for _, group in groupby(sensors, itemgetter("key"))]
    points = [(rows[0]["longitude"], rows[0]["latitude"]) for rows in stations]
    homes = rules.fields_of([field["geometry"] for field in fields], points)
    inside: dict[int, list[FieldSensor]] = {}
    for rows, home in zip(stations, homes, strict=True):
        if home is not None:
            inside.setdefault(home, []).append(_sensor(rows))
    return [_feature(field, inside.get(number, [])) for number, field in enumerate(fields)]


def bounds_of(fields: Sequence[Row]) -> tuple[float, float, float, float]:
    """(west, south, east, north) of the fields' corners."""
    corners = [corner for field in fields for corner in _corners(field["geometry"]["coordinates"])]
    longitudes, latitudes = zip(*corners, strict=True)
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def _corners(coordinates: Sequence[Any]) -> Iterator[tuple[float, float]]:
    if coordinates and isinstance(coordinates[0], int | float):
        yield float(coordinates[0]), float(coordinates[1])
        return
    for inner in coordinates:
        yield from _corners(inner)


def _feature(field: Row, sensors: list[FieldSensor]) -> FieldFeature:
    attributes = dict(field["properties"])
    area = attributes.pop("area_ha", None)
    attributes.pop("kind", None)
    properties = FieldProperties(
        name=field["name"], area_ha=area, attributes=attributes, sensors=sensors
    )
    return FieldFeature(id=field["key"], geometry=field["geometry"], properties=properties)


def _sensor(rows: Sequence[Row]) -> FieldSensor:
    first = rows[0]
    return FieldSensor(
        id=first["key"],
        name=first["name"],
        longitude=first["longitude"],
        latitude=first["latitude"],
        latest={row["property"]: _latest(row) for row in rows},
    )


_RESULTS = {"number": "result", "category": "text", "document": "document"}


def _latest(row: Row) -> Latest:
    return Latest(
        result=row[_RESULTS[row["kind"]]],
        unit=row["unit"],
        phenomenon_time=row["phenomenon_time"],
        quality=row["quality"],
    )
