"""Latest values as a plain join says them: what the fast way must answer, word for word."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from consent.gate import PermittedConnection
from consent.queries import CATEGORY, Area
from consent.results import result_of

VISIBLE = """(
  EXISTS (SELECT FROM datastream d WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s))
  OR (%(default_class)s = ANY(%(classes)s)
      AND NOT EXISTS (SELECT FROM datastream d WHERE d.thing_id = t.id)))"""
SELECT = f"""
SELECT t.key, t.name, t.sector, p.longitude, p.latitude,
       least(h.heard_at, h.heard_time) AS last_seen,
       d.property, d.kind, d.unit, l.phenomenon_time, l.quality,
       served(l.result, d.decimals) AS result, c.text, l.document,
       l.longitude AS result_longitude, l.latitude AS result_latitude, l.speed, l.course
FROM thing t
LEFT JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = t.id
LEFT JOIN (datastream d JOIN latest l ON l.datastream_id = d.id)
  ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
{CATEGORY.format("l")}
WHERE t.sector = %(sector)s AND t.key > %(after)s AND {VISIBLE}
ORDER BY t.key, d.property
"""


def features(
    connection: PermittedConnection, limit: int, after: str = "", area: Area | None = None
) -> list[dict[str, Any]]:
    """What `select_latest` answers, without bounds on what is read."""
    rows = connection.fetch(SELECT, {"after": after})
    grouped = (list(group) for _, group in groupby(rows, key=lambda row: row["key"]))
    made = (_feature(group) for group in grouped if area is None or _inside(group[0], area))
    return list(made)[:limit]


def _inside(row: Mapping[str, Any], area: Area) -> bool:
    x, y = row["longitude"], row["latitude"]
    return x is not None and any(w <= x <= e and s <= y <= n for w, s, e, n in area.boxes)


def _feature(rows: list[dict[str, Any]]) -> dict[str, Any]:
    thing = rows[0]
    point = None
    if thing["longitude"] is not None:
        point = {"type": "Point", "coordinates": [thing["longitude"], thing["latitude"]]}
    return {
        "type": "Feature",
        "id": thing["key"],
        "geometry": point,
        "properties": {
            "name": thing["name"],
            "sector": thing["sector"],
            "last_seen": thing["last_seen"],
            "latest": {
                row["property"]: {
                    "result": result_of(row["kind"], row, "result_"),
                    "unit": row["unit"],
                    "phenomenon_time": row["phenomenon_time"],
                    "quality": row["quality"],
                }
                for row in rows
                if row["property"] is not None
            },
        },
    }
