"""What KPIs mean beyond their numbers: whether a node is up, by its heartbeats."""

from datetime import datetime, timedelta
from typing import Literal

from core.errors import invalid
from core.formats.checks import position_fault
from core.sensorthings import Decoded

HEARTBEAT_SECONDS = 10
MISSED_MAX = 3
SILENT_SECONDS = HEARTBEAT_SECONDS * MISSED_MAX

Status = Literal["up", "down"]


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived from KPIs."""
    return decoded


def status(last_sign: datetime | None, now: datetime) -> Status:
    """`down` once three heartbeats of ten seconds are missing, or where there never was one."""
    if last_sign is None:
        return "down"
    return "up" if now - last_sign <= timedelta(seconds=SILENT_SECONDS) else "down"


def point(text: str) -> tuple[float, float]:
    """(longitude, latitude) in degrees of `near=139.767,35.681`; CityError `invalid` otherwise."""
    try:
        longitude, latitude = (float(each) for each in text.split(","))
    except ValueError:
        raise invalid("near", "longitude,latitude in degrees") from None
    fault = position_fault(longitude, latitude)
    if fault is not None:
        raise invalid("near", fault)
    return longitude, latitude
