"""Response models of the ports sector's own words."""

from datetime import datetime

from pydantic import BaseModel, Field

from domains.ports.rules import Station


class VesselPosition(BaseModel):
    """Where a vessel was at `phenomenon_time`: degrees WGS 84; null: not available."""

    longitude: float
    latitude: float
    speed: float | None = Field(description="Speed over ground, m/s")
    course: float | None = Field(description="Course over ground, degrees true")
    phenomenon_time: datetime


class Movement(BaseModel):
    """How it moves, each value as last told; null: never told."""

    heading: float | None = Field(default=None, description="True heading, degrees")
    rate_of_turn: float | None = Field(default=None, description="deg/min, starboard positive")
    navigation_status: str | None = Field(default=None, description="ITU-R M.1371-5, table 45")


class Voyage(BaseModel):
    """What the crew entered for this voyage, as last told."""

    destination: str | None = None
    origin_unlocode: str | None = Field(default=None, description="If written as SN.1/Circ.244")
    destination_unlocode: str | None = None
    eta: datetime | None = Field(default=None, description="The year is inferred")
    draught: float | None = Field(default=None, description="Metres")
    phenomenon_time: datetime | None = None


class Vessel(BaseModel):
    """One AIS station: who it is, where it is, where it goes."""

    mmsi: str = Field(description="Nine digits")
    station: Station
    name: str | None = None
    callsign: str | None = None
    imo: int | None = None
    ship_type: int | None = None
    ship_type_text: str | None = None
    length: float | None = Field(default=None, description="Metres")
    beam: float | None = Field(default=None, description="Metres")
    last_seen: datetime | None = None
    position: VesselPosition | None = None
    movement: Movement
    voyage: Voyage

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "mmsi": "431000001",
                    "station": "vessel",
                    "name": "CHIMATA MARU",
                    "callsign": "JD1234",
                    "imo": 9123456,
                    "ship_type": 70,
                    "ship_type_text": "Cargo",
                    "length": 120,
                    "beam": 17,
                    "last_seen": "2026-01-01T00:00:00Z",
                    "position": {
                        "longitude": 139.77,
                        "latitude": 35.62,
                        "speed": 6.33,
                        "course": 231.4,
                        "phenomenon_time": "2026-01-01T00:00:00Z",
                    },
                    "movement": {
                        "heading": 230,
                        "rate_of_turn": None,
                        "navigation_status": "under-way-using-engine",
                    },
                    "voyage": {
                        "destination": "JP TYO",
                        "origin_unlocode": None,
                        "destination_unlocode": "JPTYO",
                        "eta": "2026-01-02T03:04:00Z",
                        "draught": 6.5,
                        "phenomenon_time": "2026-01-01T00:00:00Z",
                    },
                }
            ]
        }
    }
