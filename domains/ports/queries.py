"""The sector's own read: one vessel with the latest of what it says."""

from typing import Any

from consent.gate import PermittedConnection

# Without a visible Datastream there are no rows, so that denied and unknown look the same.
SELECT_VESSEL = """
SELECT t.key, t.name, t.properties, least(h.heard_at, h.heard_time) AS last_seen,
       d.property, l.phenomenon_time, l.quality,
       served(l.result, d.decimals) AS result, c.text, l.document,
       l.longitude, l.latitude, l.speed, l.course
FROM thing t
JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = t.id
LEFT JOIN latest l ON l.datastream_id = d.id
LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN l.result::int END
WHERE t.sector = %(sector)s AND t.key = %(mmsi)s
ORDER BY d.property
"""


def select_vessel(connection: PermittedConnection, mmsi: str) -> list[dict[str, Any]]:
    """One row a visible Datastream of the vessel, with its latest value; none: no such vessel."""
    return connection.fetch(SELECT_VESSEL, {"mmsi": mmsi})
