"""Shared vehicles around a point: what near.py asks of each mode."""

from collections.abc import Iterator

import numpy as np

from consent.gate import PermittedConnection
from core.clock import from_datetime, to_datetime
from domains.mobility.gbfs import publish, state
from domains.mobility.network.near import Around, Found, metres

UNKNOWN_FORM = "bicycle"
"""What a feed without types of vehicles is about."""


def around(connection: PermittedConnection, asked: Around) -> list[Found]:
    """Stations and free vehicles in a circle that were heard in the last 15 minutes."""
    return [*_stations(connection, asked), *_vehicles(connection, asked)]


def _stations(connection: PermittedConnection, asked: Around) -> Iterator[Found]:
    known = state.stations(connection)
    distance = metres(known.longitude, known.latitude, asked.longitude, asked.latitude)
    usable = known.installed & state.is_fresh(known, asked.at) & (distance <= asked.radius_metres)
    chosen = np.flatnonzero(usable)
    for index in chosen[np.argsort(distance[chosen], kind="stable")][: asked.limit].tolist():
        available = {"vehicles": int(known.bikes[index]), "docks": int(known.docks[index])}
        yield Found(
            known.ids[index], UNKNOWN_FORM, "station", known.names[index] or None,
            float(known.longitude[index]), float(known.latitude[index]), available,
            to_datetime(int(known.time[index].astype("M8[us]").astype(np.int64))),
        )  # fmt: skip


def _vehicles(connection: PermittedConnection, asked: Around) -> Iterator[Found]:
    """Those that can be rented; without an id: it leads nowhere from here (publish.py has them)."""
    forms = state.form_factors(connection)
    for free in state.vehicles(connection):
        age = from_datetime(asked.at) - from_datetime(free.time)
        if age > state.FRESH_FOR.total_seconds() * 1_000_000:
            continue
        placed = [v for v in free.vehicles if "lon" in v and not publish.is_taken(v)]
        if not placed:
            continue
        longitudes = np.array([each["lon"] for each in placed], np.float64)
        latitudes = np.array([each["lat"] for each in placed], np.float64)
        distance = metres(longitudes, latitudes, asked.longitude, asked.latitude)
        chosen = np.flatnonzero(distance <= asked.radius_metres)
        for index in chosen[np.argsort(distance[chosen], kind="stable")][: asked.limit].tolist():
            vehicle = placed[index]
            form = forms.get((free.feed, vehicle.get("vehicle_type_id", "")), UNKNOWN_FORM)
            reach = vehicle.get("current_range_meters")
            available = {"vehicles": 1} | ({"range_metres": reach} if reach is not None else {})
            yield Found(
                f"{free.feed}:vehicle", form, "vehicle", None, vehicle["lon"], vehicle["lat"],
                available, free.time,
            )  # fmt: skip
