"""Shared bikes of the demo city: stations on corners, in GBFS 3.0; they empty and fill by the hour.

In the morning bikes go from the hills to the shore, in the evening back.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from core.clock import MICROSECONDS
from gateways.simulators.city import COLUMNS, Crossing, crossings, day_wave, noise

FEED = "demo-cycle"
"""Id of the feed, and of the gateway."""
STATIONS = 36
STATUS_SECONDS, INFORMATION_SECONDS = 15, 3600
PEAK_HOUR = 13.0
"""At which hour most bikes stand by the shore."""


@dataclass(frozen=True, slots=True)
class Station:
    """One station, at a crossing."""

    index: int
    id: str
    crossing: Crossing
    capacity: int


@cache
def stations() -> tuple[Station, ...]:
    """The stations, spread evenly over the crossings."""
    every = len(crossings()) / STATIONS
    return tuple(
        Station(index, f"cycle-{index + 1:02d}", crossings()[int((index + 0.3) * every)],
                10 + index * 7 % 4 * 4)
        for index in range(STATIONS)
    )  # fmt: skip


def bikes_at(station: Station, time_us: int) -> int:
    """How many bikes can be taken: more by the shore at noon, more on the hills at night."""
    slot = time_us // (120 * MICROSECONDS)
    shore = 1 - 2 * station.crossing.column / (COLUMNS - 1)
    share = 0.5 + 0.35 * shore * day_wave(time_us, PEAK_HOUR) + 0.15 * noise(station.index, slot)
    return min(station.capacity, max(0, round(share * station.capacity)))


def information(time_us: int) -> bytes:
    """station_information.json."""
    return _document(time_us, INFORMATION_SECONDS, {"stations": [
        {
            "station_id": s.id,
            "name": [{"text": f"{s.crossing.row + 1}条{s.crossing.column + 1}丁目ポート",
                      "language": "ja"},
                     {"text": f"Port {s.crossing.name}", "language": "en"}],
            "lat": s.crossing.latitude, "lon": s.crossing.longitude, "capacity": s.capacity,
        }
        for s in stations()
    ]})  # fmt: skip


def system(time_us: int) -> bytes:
    """system_information.json."""
    return _document(time_us, INFORMATION_SECONDS, {
        "system_id": FEED, "languages": ["ja", "en"], "timezone": "Asia/Tokyo",
        "name": [{"text": "巷サイクル", "language": "ja"},
                 {"text": "Chimata Cycle", "language": "en"}],
        "opening_hours": "24/7", "feed_contact_email": "cycle@example.com",
        "license_id": "CC0-1.0",
    })  # fmt: skip


def status(time_us: int) -> bytes:
    """station_status.json."""
    now = _text(time_us)
    found = []
    for station in stations():
        bikes = bikes_at(station, time_us)
        found.append({
            "station_id": station.id, "num_vehicles_available": bikes,
            "num_docks_available": station.capacity - bikes, "is_installed": True,
            "is_renting": True, "is_returning": True, "last_reported": now,
        })  # fmt: skip
    return _document(time_us, STATUS_SECONDS, {"stations": found})


def _document(time_us: int, ttl: int, data: dict[str, Any]) -> bytes:
    envelope = {"last_updated": _text(time_us), "ttl": ttl, "version": "3.0", "data": data}
    return json.dumps(envelope, ensure_ascii=False).encode()


def _text(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // MICROSECONDS, UTC).isoformat()
