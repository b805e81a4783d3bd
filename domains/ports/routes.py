"""The ports sector's own words: one vessel as one object."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from consent import door
from core.errors import CityError
from domains.ports import queries, rules
from domains.ports.schemas import Movement, Vessel, VesselPosition, Voyage
from domains.ports.sector import SECTOR

router = APIRouter()

Mmsi = Annotated[
    str, Path(pattern=r"^[0-9]{1,10}$", description="MMSI; leading zeros may be left out")
]
Row = Mapping[str, Any]

# Keys of the Thing's properties that are the vessel's own fields.
_STATIC = ("callsign", "imo", "ship_type", "ship_type_text", "length", "beam")
_VOYAGE = ("destination", "eta", "draught")


@router.get(
    "/vessels/{mmsi}", response_model=Vessel, summary="One vessel: static, voyage, position"
)
def read_vessel(mmsi: Mmsi, request: Request) -> Response:
    """Static data, voyage and latest position of one station; `not-found` for an unknown one."""
    with door.reading(request, SECTOR) as connection:
        rows = queries.select_vessel(connection, mmsi.zfill(9))
    if not rows:
        raise CityError("not-found", f"there is no vessel {mmsi}")
    return door.current(vessel_of(rows).model_dump())


def vessel_of(rows: list[dict[str, Any]]) -> Vessel:
    """The vessel that these rows (at least one, of one Thing) describe."""
    first = rows[0]
    latest = {row["property"]: row for row in rows if row["phenomenon_time"] is not None}
    static = {key: first["properties"].get(key) for key in _STATIC}
    return Vessel(
        mmsi=first["key"],
        station=rules.station_kind(first["key"]),
        name=first["name"],
        last_seen=first["last_seen"],
        position=_position(latest.get("position")),
        movement=Movement(
            heading=_value(latest, "heading", "result"),
            rate_of_turn=_value(latest, "rate-of-turn", "result"),
            navigation_status=_value(latest, "navigation-status", "text"),
        ),
        voyage=_voyage(latest),
        **static,
    )


def _value(latest: Mapping[str, Row], observed_property: str, column: str) -> Any:
    row = latest.get(observed_property)
    return None if row is None else row[column]


def _position(row: Row | None) -> VesselPosition | None:
    if row is None:
        return None
    return VesselPosition(
        longitude=row["longitude"],
        latitude=row["latitude"],
        speed=_finite(row["speed"]),
        course=_finite(row["course"]),
        phenomenon_time=row["phenomenon_time"],
    )


def _finite(value: float | None) -> float | None:
    """NaN is how storage says "not available"."""
    return None if value is None or math.isnan(value) else value


def _voyage(latest: Mapping[str, Row]) -> Voyage:
    destination = _value(latest, "destination", "document") or {}
    eta = (_value(latest, "eta", "document") or {}).get("time")
    told = [
        latest[name]["phenomenon_time"]
        for name in ("destination", "eta", "draught")
        if name in latest
    ]
    return Voyage(
        destination=destination.get("text"),
        origin_unlocode=destination.get("from"),
        destination_unlocode=destination.get("to"),
        eta=datetime.fromisoformat(eta) if eta else None,
        draught=_value(latest, "draught", "result"),
        phenomenon_time=max(told, default=None),
    )
