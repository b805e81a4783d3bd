"""Response models of the farms sector's own words: fields as GeoJSON, with their sensors."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field


class Latest(BaseModel):
    """The latest value of one Datastream."""

    result: Any
    unit: str = Field(description="UCUM")
    phenomenon_time: datetime
    quality: int = Field(description="Flags: 0 good, 1 out of range, 2 undeclared, 4 suspect")


class FieldSensor(BaseModel):
    """A sensor that stands in a field: degrees WGS 84, and the latest of all it measures."""

    id: str
    name: str | None
    longitude: float
    latitude: float
    latest: dict[str, Latest]


class FieldProperties(BaseModel):
    """What is known of a field."""

    name: str | None
    area_ha: float | None = Field(description="On an equal-area projection")
    attributes: dict[str, Any] = Field(description="As in the file that it came from")
    sensors: list[FieldSensor]


class FieldFeature(BaseModel):
    """One field (RFC 7946, 3.2)."""

    type: Literal["Feature"] = "Feature"
    id: str
    geometry: dict[str, Any]
    properties: FieldProperties


class Fields(BaseModel):
    """A page of fields (RFC 7946, 3.3), by id."""

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[FieldFeature]
    next: str | None = Field(description="The next page, or null")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "type": "FeatureCollection",
                    "features": [
                        {
                            "type": "Feature",
                            "id": "1309-000001-000001",
                            "geometry": {
                                "type": "Polygon",
                                "coordinates": [
                                    [
                                        [139.5, 35.6],
                                        [139.501, 35.6],
                                        [139.501, 35.601],
                                        [139.5, 35.6],
                                    ]
                                ],
                            },
                            "properties": {
                                "name": None,
                                "area_ha": 0.5032,
                                "attributes": {"landuse": "farmland"},
                                "sensors": [
                                    {
                                        "id": "70b3d50000000001",
                                        "name": None,
                                        "longitude": 139.5008,
                                        "latitude": 35.6003,
                                        "latest": {
                                            "soil-moisture": {
                                                "result": 31.2,
                                                "unit": "%",
                                                "phenomenon_time": "2026-01-01T00:00:00Z",
                                                "quality": 0,
                                            }
                                        },
                                    }
                                ],
                            },
                        }
                    ],
                    "next": None,
                }
            ]
        }
    }
