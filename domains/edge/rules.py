"""What KPIs mean beyond their numbers: whether a node is up, by its heartbeats."""

from datetime import datetime, timedelta
from typing import Literal

from core.sensorthings import Decoded

HEARTBEAT_SECONDS = 10
MISSED_MAX = 3

Status = Literal["up", "down"]


def derive(decoded: Decoded) -> Decoded:
    """Nothing is derived from KPIs."""
    return decoded


def status(last_sign: datetime | None, now: datetime) -> Status:
    """`down` once three heartbeats of ten seconds are missing, or where there never was one."""
    if last_sign is None:
        return "down"
    return "up" if now - last_sign <= timedelta(seconds=HEARTBEAT_SECONDS * MISSED_MAX) else "down"
