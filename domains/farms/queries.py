"""The sector's own reads: fields, and the sensors that may stand in them."""

from typing import Any

from consent.gate import PermittedConnection

# A field has no Datastream, so its class is that of its place: the importing gateway's.
SELECT_FIELDS = """
SELECT t.key, t.name, t.properties, t.geometry
FROM thing t JOIN thing_place p ON p.thing_id = t.id AND p.data_class = ANY(%(classes)s)
WHERE t.sector = %(sector)s AND t.geometry IS NOT NULL AND t.key > %(after)s
ORDER BY t.key LIMIT %(limit)s
"""

# Sensors inside a rectangle, by the gist index on their place; the caller tests the polygons.
SELECT_SENSORS = """
SELECT t.key, t.name, p.longitude, p.latitude, d.property, d.kind, d.unit,
       l.phenomenon_time, l.quality,
       served(l.result, d.decimals) AS result, l.document, c.text
FROM thing_place p
JOIN thing t ON t.id = p.thing_id AND t.sector = %(sector)s AND t.geometry IS NULL
JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s) AND d.kind <> 'position'
JOIN latest l ON l.datastream_id = d.id
LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN l.result::int END
WHERE p.sector = %(sector)s AND p.data_class = ANY(%(classes)s)
  AND point(p.longitude, p.latitude) <@ box(point(%(west)s, %(south)s), point(%(east)s, %(north)s))
ORDER BY t.key, d.property LIMIT %(rows_max)s
"""

SENSOR_ROWS_MAX = 50_000


def select_fields(connection: PermittedConnection, after: str, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` fields whose id follows `after`, with their GeoJSON geometry."""
    return connection.fetch(SELECT_FIELDS, {"after": after, "limit": limit})


def select_sensors(
    connection: PermittedConnection, bounds: tuple[float, float, float, float]
) -> list[dict[str, Any]]:
    """One row a Datastream of the sensors within (west, south, east, north), with its latest."""
    west, south, east, north = bounds
    return connection.fetch(
        SELECT_SENSORS,
        {
            "west": west,
            "south": south,
            "east": east,
            "north": north,
            "rows_max": SENSOR_ROWS_MAX,
        },
    )
