"""Response models of real time."""

from datetime import date, datetime

from pydantic import BaseModel, ConfigDict, Field, JsonValue

STATES = "as in GTFS-Realtime; null: not told"
TRIP: dict[str, JsonValue] = {
    "id": "caltrain:124", "service_day": "2023-11-07", "headsign": "San Francisco",
}  # fmt: skip
ROUTE: dict[str, JsonValue] = {"id": "caltrain:L1", "short_name": "L1", "long_name": None}
STOP: dict[str, JsonValue] = {
    "id": "caltrain:70242", "name": "Lawrence", "sequence": 21,
    "scheduled": "2023-11-07T17:05:00-08:00", "expected": "2023-11-07T17:10:01-08:00",
}  # fmt: skip
VEHICLES: dict[str, JsonValue] = {
    "as_of": "2023-11-08T01:05:59Z",
    "vehicles": [
        {
            "id": "caltrain:124", "feed": "caltrain", "label": None, "mode": "rail",
            "route": ROUTE, "trip": TRIP, "longitude": -121.99604, "latitude": 37.37046,
            "speed": None, "course": None, "time": "2023-11-08T01:05:49Z", "age_seconds": 10,
            "delay_seconds": 301, "next_stop": STOP, "status": "IN_TRANSIT_TO",
            "occupancy": "FEW_SEATS_AVAILABLE",
        }
    ],
    "next": None,
}  # fmt: skip
ALERTS: dict[str, JsonValue] = {
    "as_of": "2026-01-01T08:00:00Z",
    "alerts": [
        {
            "id": "muroran:a1", "feed": "muroran", "cause": "MAINTENANCE", "effect": "NO_SERVICE",
            "severity": "UNKNOWN_SEVERITY", "header": "この停留所は休止中です", "description": None,
            "url": None, "periods": [{"start": "2026-01-01T00:00:00Z", "end": None}],
            "stops": ["muroran:8_1"], "routes": [], "trips": [], "agencies": [],
        }
    ],
}  # fmt: skip


class Route(BaseModel):
    """The route of a vehicle."""

    id: str = Field(description="`feed:route_id`")
    short_name: str | None
    long_name: str | None


class Trip(BaseModel):
    """A trip on one service day."""

    id: str = Field(description="`feed:trip_id`; a run of frequencies.txt ends in `@HH:MM:SS`")
    service_day: date = Field(description="the day that the timetable counts it to")
    headsign: str | None


class NextStop(BaseModel):
    """The stop that a vehicle has not left; times have the agency's offset."""

    id: str = Field(description="`feed:stop_id`")
    name: str
    sequence: int = Field(description="stop_sequence")
    scheduled: datetime | None = Field(description="arrival by the timetable")
    expected: datetime | None = Field(description="arrival as it is predicted")


class Vehicle(BaseModel):
    """A vehicle that was heard within 90 s."""

    id: str = Field(description="`feed:vehicle id`")
    feed: str = Field(description="the static feed whose timetable it runs by")
    label: str | None
    mode: str | None = Field(description="null: its route is not known")
    route: Route | None
    trip: Trip | None = Field(description="matched by its id, or by what the vehicle does")
    longitude: float
    latitude: float
    speed: float | None = Field(description="m/s")
    course: float | None = Field(description="degrees, clockwise from north")
    time: datetime = Field(description="when it was there")
    age_seconds: int
    delay_seconds: int | None = Field(description="at the next stop; below 0: early")
    next_stop: NextStop | None
    status: str | None = Field(description=f"VehicleStopStatus {STATES}")
    occupancy: str | None = Field(description=f"OccupancyStatus {STATES}")


class Vehicles(BaseModel):
    """A page of vehicles, by id."""

    model_config = ConfigDict(json_schema_extra={"example": VEHICLES})

    as_of: datetime
    vehicles: list[Vehicle]
    next: str | None = Field(description="path of the next page")


class Period(BaseModel):
    """From start until before end; null: without limit."""

    start: datetime | None
    end: datetime | None


class Alert(BaseModel):
    """A service alert; what it names is closed where its effect is NO_SERVICE."""

    id: str = Field(description="`feed:alert id`")
    feed: str
    cause: str
    effect: str
    severity: str
    header: str | None
    description: str | None
    url: str | None
    periods: list[Period] = Field(description="when it holds; none: always")
    stops: list[str]
    routes: list[str]
    trips: list[str]
    agencies: list[str] = Field(description="agency_id as in the feed")


class Alerts(BaseModel):
    """Alerts that hold."""

    model_config = ConfigDict(json_schema_extra={"example": ALERTS})

    as_of: datetime
    alerts: list[Alert]
