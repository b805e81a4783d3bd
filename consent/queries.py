"""The generic reads of every sector: Things, latest values, what an append brought.

Every query filters by data class. A Thing is visible if it has a visible Datastream, or if it has
none at all and the sector's default class is visible; its place goes by the place's own class.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consent.gate import Append, PermittedConnection
from consent.results import Row, result_of
from core.sensorthings import ResultKind
from core.units import conversion_if_any

RECOUNT_SECONDS = 1.0
"""Every page load asks how many Things a sector has, and counting a nation's takes 30 ms."""

VISIBLE = """(t.data_classes && %(classes)s::text[]
    OR t.data_classes = '{}' AND %(default_class)s = ANY(%(classes)s))"""

# The Thing's own clock where it runs behind ours: one that runs ahead was not seen in the future.
THING = """t.id, t.key, t.sector, t.name, t.properties, p.longitude, p.latitude,
    CASE WHEN p.thing_id IS NOT NULL OR %(default_class)s = ANY(%(classes)s)
         THEN t.geometry END AS geometry,
    least(h.heard_at, h.heard_time) AS last_seen"""

# The cast stands inside CASE: a number may be no integer, and a join may try it on every row.
CATEGORY = "LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN {0}.result::int END"

# ruff: noqa: S608 - the parts are constants of this file

SELECT_THINGS = f"""
SELECT {THING}
FROM thing t
LEFT JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = t.id
WHERE t.sector = %(sector)s AND t.key > %(after)s
  AND (%(like)s::text IS NULL OR t.key ILIKE %(like)s OR t.name ILIKE %(like)s)
  AND {VISIBLE}
ORDER BY t.key LIMIT %(limit)s
"""

SELECT_THING = f"""
SELECT {THING}
FROM thing t
LEFT JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = t.id
WHERE t.sector = %(sector)s AND t.key = %(thing)s AND {VISIBLE}
"""

COUNT_THINGS = f"""
SELECT count(*) AS things FROM thing t WHERE t.sector = %(sector)s AND {VISIBLE}
"""

SELECT_DATASTREAMS = f"""
SELECT d.property, d.kind, d.unit, d.data_class, d.undeclared,
       l.phenomenon_time, l.quality, served(l.result, d.decimals) AS result, c.text, l.document,
       l.longitude, l.latitude, l.speed, l.course
FROM datastream d
LEFT JOIN latest l ON l.datastream_id = d.id
{CATEGORY.format("l")}
WHERE d.thing_id = %(thing_id)s AND d.data_class = ANY(%(classes)s)
ORDER BY d.property
"""

SCALAR = f"""
FROM observation o JOIN datastream d ON d.id = o.datastream_id
{CATEGORY.format("o")}
"""
POSITION = "FROM observation_position o JOIN datastream d ON d.id = o.datastream_id"
DOCUMENT = "FROM observation_document o JOIN datastream d ON d.id = o.datastream_id"
_APPENDED_PLACE = """
LEFT JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)"""
_APPENDED = """
WHERE t.sector = %(sector)s AND d.data_class = ANY(%(classes)s)
  AND o.append_id BETWEEN %(first)s AND %(last)s
  AND o.phenomenon_time BETWEEN %(time_min)s AND %(time_max)s"""

# append_id counts by sector, so the join to the sector's own Things is what makes it unique.
SELECT_APPENDED = f"""
SELECT o.append_id, t.key AS thing, d.property, d.kind, d.unit, o.phenomenon_time, o.quality,
       served(o.result, d.decimals) AS result, c.text, NULL::jsonb AS document,
       NULL::float8 AS longitude, NULL::float8 AS latitude, NULL::float8 AS speed,
       NULL::float8 AS course, p.longitude AS place_longitude, p.latitude AS place_latitude
{SCALAR} JOIN thing t ON t.id = d.thing_id {_APPENDED_PLACE} {_APPENDED}
UNION ALL
SELECT o.append_id, t.key, d.property, d.kind, d.unit, o.phenomenon_time, o.quality,
       NULL, NULL, NULL, o.longitude, o.latitude, o.speed, o.course, o.longitude, o.latitude
{POSITION} JOIN thing t ON t.id = d.thing_id {_APPENDED}
UNION ALL
SELECT o.append_id, t.key, d.property, d.kind, d.unit, o.phenomenon_time, o.quality,
       NULL, NULL, o.result, NULL, NULL, NULL, NULL, p.longitude, p.latitude
{DOCUMENT} JOIN thing t ON t.id = d.thing_id {_APPENDED_PLACE} {_APPENDED}
ORDER BY 1, 6 LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Area:
    """Where to look: one or two boxes (w, s, e, n), and a circle (longitude, latitude, metres)."""

    boxes: tuple[tuple[float, float, float, float], ...]
    near: tuple[float, float, float] | None = None

    def parameters(self) -> Mapping[str, Any]:
        """As the query's parameters; a single box stands twice."""
        boxes = [f"(({w!r},{s!r}),({e!r},{n!r}))" for w, s, e, n in self.boxes]
        longitude, latitude, radius = self.near or (None, None, None)
        return {
            "box_1": boxes[0],
            "box_2": boxes[-1],
            "near_longitude": longitude,
            "near_latitude": latitude,
            "radius": radius,
        }


def result_in(unit: str | None, row: Mapping[str, Any]) -> tuple[Any, str]:
    """The result and its unit: `unit` for a number of that dimension, else as it is stored.

    CityError `invalid` for a unit that is not UCUM.
    """
    result = result_of(row["kind"], row)
    if unit is not None and row["kind"] == ResultKind.NUMBER:
        line = conversion_if_any(row["unit"], unit)
        if line is not None:
            return None if result is None else result * line[0] + line[1], unit
    return result, row["unit"]


def select_things(
    connection: PermittedConnection, limit: int, after: str = "", search: str | None = None
) -> list[Row]:
    """Up to `limit` visible Things after a key, in key order; `search` is in key or name."""
    like = None
    if search:
        escaped = search.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
        like = f"%{escaped}%"
    return connection.fetch(SELECT_THINGS, {"limit": limit, "after": after, "like": like})


def select_thing(connection: PermittedConnection, thing: str) -> Row | None:
    """One visible Thing by its natural key."""
    found = connection.fetch(SELECT_THING, {"thing": thing})
    return found[0] if found else None


def count_things(connection: PermittedConnection) -> int:
    """How many Things of the sector are visible, or were a second ago."""
    counted_at, things = connection.kept.get("count", (float("-inf"), 0))
    if time.monotonic() - counted_at > RECOUNT_SECONDS:
        things = int(connection.fetch(COUNT_THINGS)[0]["things"])
        connection.kept["count"] = (time.monotonic(), things)
    return int(things)


def select_datastreams(connection: PermittedConnection, thing_id: int) -> list[Row]:
    """The Thing's visible Datastreams with their latest values."""
    return connection.fetch(SELECT_DATASTREAMS, {"thing_id": thing_id})


def select_appended(
    connection: PermittedConnection, appends: Sequence[Append], limit: int
) -> list[Row]:
    """What these consecutive appends brought, as visible rows with the place of their Things."""
    times = [(a.time_min, a.time_max) for a in appends if a.time_min and a.time_max]
    if not times:
        return []
    return connection.fetch(
        SELECT_APPENDED,
        {
            "first": appends[0].id,
            "last": appends[-1].id,
            "time_min": min(lower for lower, _ in times),
            "time_max": max(upper for _, upper in times),
            "limit": limit,
        },
    )
