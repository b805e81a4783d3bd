"""The sector's own read: nodes with the latest of every KPI."""

from typing import Any

from consent.gate import PermittedConnection

# The page is cut over Things that have a visible Datastream, before their KPIs are joined.
SELECT_NODES = """
WITH page AS (
  SELECT t.id, t.key, t.name, t.longitude, t.latitude FROM thing t
  WHERE t.sector = %(sector)s AND t.key > %(after)s
    AND EXISTS (SELECT FROM datastream d
                WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s))
  ORDER BY t.key LIMIT %(limit)s
)
SELECT p.key, p.name, p.longitude AS fixed_longitude, p.latitude AS fixed_latitude,
       least(h.heard_at, h.heard_time) AS last_seen,
       d.property, d.kind, d.unit, l.phenomenon_time, l.quality,
       served(l.result, d.decimals) AS result, c.text, l.document,
       l.longitude, l.latitude
FROM page p
JOIN datastream d ON d.thing_id = p.id AND d.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = p.id
LEFT JOIN latest l ON l.datastream_id = d.id
LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN l.result::int END
ORDER BY p.key, d.property
"""


def select_nodes(connection: PermittedConnection, after: str, limit: int) -> list[dict[str, Any]]:
    """One row a visible Datastream of up to `limit` nodes whose id follows `after`."""
    return connection.fetch(SELECT_NODES, {"after": after, "limit": limit})
