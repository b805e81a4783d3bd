"""What is known of stations and free vehicles now, by the permission of whoever asks.

    stations = state.bikes(connection)

Arrays of a nation's stations are read once a second a permission and process.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from consent.gate import PermittedConnection

REFRESH_SECONDS = 1.0
FRESH_FOR = timedelta(minutes=15)
"""Of what was heard longer ago nobody knows whether it is still so."""
STATIONS_MAX = 200_000
VEHICLES_MAX = 200_000

# ruff: noqa: S608 - the parts are constants of this file

# A feed's class counts beside that of its series: what was open once may be competitive now.
ALLOWED = """NOT EXISTS (SELECT FROM mobility.feed f
  WHERE f.id = split_part(t.key, ':', 1) AND f.data_class <> ALL(%(classes)s))"""
# A station that the newest station_information no longer has is not heard any more.
PRESENT = """
LEFT JOIN thing_heard h ON h.thing_id = t.id
LEFT JOIN (
  SELECT ft.key AS feed, l.phenomenon_time FROM thing ft
  JOIN datastream d ON d.thing_id = ft.id AND d.property = 'stations'
  JOIN latest l ON l.datastream_id = d.id WHERE ft.sector = %(sector)s
) AS listed ON listed.feed = split_part(t.key, ':', 1)
"""
IS_PRESENT = "coalesce(h.heard_time > listed.phenomenon_time - interval '15 minutes', true)"
_LATEST = "coalesce(max(l.result) FILTER (WHERE d.property = '{}'), 'NaN') AS {}"
_COUNTS = {
    "vehicles": "vehicles-available", "docks": "docks-available",
    "installed": "station-installed", "renting": "station-renting",
    "takes": "station-returning",
}  # fmt: skip

SELECT_STATIONS = f"""
SELECT array_agg(key) AS key, array_agg(name) AS name, array_agg(longitude) AS longitude,
  array_agg(latitude) AS latitude, array_agg(capacity) AS capacity, array_agg(time) AS time,
  array_agg(heard) AS heard, {", ".join(f"array_agg({each}) AS {each}" for each in _COUNTS)}
FROM (
  SELECT t.key, coalesce(t.name, '') AS name, t.longitude, t.latitude,
    coalesce((t.properties->'gbfs'->>'capacity')::float8, 'NaN') AS capacity,
    max(l.phenomenon_time) AS time, coalesce(max(h.heard_time), 'epoch') AS heard,
    {", ".join(_LATEST.format(name, column) for column, name in _COUNTS.items())}
  FROM thing t
  JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
    AND d.property = ANY(%(properties)s)
  JOIN latest l ON l.datastream_id = d.id
  {PRESENT}
  WHERE t.sector = %(sector)s AND t.key LIKE '%%:station:%%' AND t.longitude IS NOT NULL
    AND {ALLOWED} AND {IS_PRESENT}
  GROUP BY t.id ORDER BY t.key LIMIT {STATIONS_MAX}
) AS station
"""
SELECT_VEHICLES = f"""
SELECT split_part(t.key, ':', 1) AS feed, t.told_at AS time, t.properties->'vehicles' AS vehicles
FROM thing t
WHERE t.sector = %(sector)s AND t.key LIKE '%%:vehicles' AND t.told_at IS NOT NULL AND {ALLOWED}
  AND EXISTS (SELECT FROM thing feed JOIN datastream d ON d.thing_id = feed.id
    WHERE feed.sector = t.sector AND feed.key = split_part(t.key, ':', 1)
      AND d.property = 'free-vehicles' AND d.data_class = ANY(%(classes)s))
ORDER BY 1 LIMIT 10000
"""
SELECT_TYPES = """
SELECT t.key AS feed, l.document FROM thing t
JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
  AND d.property = 'feed-document/vehicle_types'
JOIN latest l ON l.datastream_id = d.id WHERE t.sector = %(sector)s LIMIT 10000
"""

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stations:
    """n stations: `ids` are `feed:id`; `bikes` can be rented, `docks` returned to, now.

    Where a station says nothing of docks but takes returns, there is one. `capacity` is NaN where
    nobody knows; `time` is when it was so, `heard` when the feed last said so (datetime64, UTC).
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    longitude: Float64
    latitude: Float64
    bikes: NDArray[np.int32]
    docks: NDArray[np.int32]
    capacity: Float64
    installed: NDArray[np.bool_]
    renting: NDArray[np.bool_]
    returning: NDArray[np.bool_]
    time: NDArray[np.datetime64]
    heard: NDArray[np.datetime64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, chosen: NDArray[Any]) -> "Stations":
        """The stations at a mask or at indices."""
        positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return Stations(
            tuple(self.ids[each] for each in positions.tolist()),
            tuple(self.names[each] for each in positions.tolist()),
            self.longitude[positions],
            self.latitude[positions],
            self.bikes[positions],
            self.docks[positions],
            self.capacity[positions],
            self.installed[positions],
            self.renting[positions],
            self.returning[positions],
            self.time[positions],
            self.heard[positions],
        )


@dataclass(frozen=True, slots=True)
class FreeVehicles:
    """The vehicles outside of stations in a feed's newest document, and when they stood there."""

    feed: str
    time: datetime
    vehicles: list[dict[str, Any]]


def stations(connection: PermittedConnection) -> Stations:
    """Every station that may be seen, installed or not, whenever it was heard; by id."""
    kept = connection.kept.get("gbfs-stations")
    if kept is None or time.monotonic() - kept[0] > REFRESH_SECONDS:
        kept = (time.monotonic(), _read(connection))
        connection.kept["gbfs-stations"] = kept
    found: Stations = kept[1]
    return found


def bikes(connection: PermittedConnection, now: datetime | None = None) -> Stations:
    """The stations that are in use and were heard in the last FRESH_FOR, for journeys."""
    known = stations(connection)
    return known.take(known.installed & is_fresh(known, now or datetime.now(UTC)))


def is_fresh(known: Stations, now: datetime) -> NDArray[np.bool_]:
    """Which stations their feed spoke of lately."""
    since = np.datetime64(now.astimezone(UTC).replace(tzinfo=None) - FRESH_FOR, "us")
    fresh: NDArray[np.bool_] = known.heard > since
    return fresh


def vehicles(connection: PermittedConnection) -> list[FreeVehicles]:
    """The free vehicles of every feed that may be seen; kept as long as `stations`."""
    kept = connection.kept.get("gbfs-vehicles")
    if kept is None or time.monotonic() - kept[0] > REFRESH_SECONDS:
        rows = connection.fetch(SELECT_VEHICLES)
        found = [FreeVehicles(**{**row, "vehicles": row["vehicles"] or []}) for row in rows]
        kept = (time.monotonic(), found)
        connection.kept["gbfs-vehicles"] = kept
    answer: list[FreeVehicles] = kept[1]
    return answer


def form_factors(connection: PermittedConnection) -> dict[tuple[str, str], str]:
    """What each type of vehicle is (`bicycle`, `car`, ...), by feed and type."""
    return {
        (row["feed"], item["vehicle_type_id"]): item.get("form_factor", "other")
        for row in connection.fetch(SELECT_TYPES)
        for item in _items(row["document"])
        if "vehicle_type_id" in item
    }


def _items(document: Any) -> list[dict[str, Any]]:
    items = document.get("items") if isinstance(document, Mapping) else None
    return items if isinstance(items, list) else []


def outside_id(thing: str) -> str:
    """`feed:id` of a station's Thing; a slash in the id is `%2F` there too."""
    feed, _, station = thing.partition(":station:")
    return f"{feed}:{station}"


def _read(connection: PermittedConnection) -> Stations:
    columns = connection.fetch_columns(SELECT_STATIONS, {"properties": list(_COUNTS.values())})
    flags = {"installed": "installed", "renting": "renting", "returning": "takes"}
    said = {name: columns[column] != 0 for name, column in flags.items()}  # NaN: yes
    docks = np.where(np.isnan(columns["docks"]), 1, columns["docks"])
    usable = said["installed"]
    rents, returns = usable & said["renting"], usable & said["returning"]
    return Stations(
        tuple(outside_id(each.decode()) for each in columns["key"]),
        tuple(each.decode() for each in columns["name"]),
        columns["longitude"],
        columns["latitude"],
        np.where(rents, np.nan_to_num(columns["vehicles"]), 0).astype(np.int32),
        np.where(returns, docks, 0).astype(np.int32),
        columns["capacity"],
        **said,
        time=columns["time"],
        heard=columns["heard"],
    )
