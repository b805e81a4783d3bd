"""The sector's own reads: nodes, what hangs on them, and what is cut off."""

from datetime import datetime
from typing import Any

from consent.gate import PermittedConnection

# When a node last gave a sign of life, by the receiver's clock; by its own where that is over ten
# minutes behind: what a buffer or an import brings late says nothing of now.
LAST_SEEN = """
CASE WHEN h.heard_at - h.heard_time > interval '10 minutes' THEN h.heard_time ELSE h.heard_at END
"""
# The page is cut over Things that have a visible Datastream, before their KPIs are joined.
SELECT_NODES = f"""
WITH page AS (
  SELECT t.id, t.key, t.name, t.longitude, t.latitude FROM thing t
  WHERE t.sector = %(sector)s AND t.key > %(after)s
    AND EXISTS (SELECT FROM datastream d
                WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s))
  ORDER BY t.key LIMIT %(limit)s
)
SELECT p.key, p.name, p.longitude AS fixed_longitude, p.latitude AS fixed_latitude,
       {LAST_SEEN} AS last_seen,
       d.property, d.kind, d.unit, l.phenomenon_time, l.quality,
       served(l.result, d.decimals) AS result, c.text, l.document,
       l.longitude, l.latitude
FROM page p
JOIN datastream d ON d.thing_id = p.id AND d.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = p.id
LEFT JOIN latest l ON l.datastream_id = d.id
LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN l.result::int END
ORDER BY p.key, d.property
"""  # noqa: S608 - a constant of ours
# Haversine on the mean sphere (IUGG: 6371008.8 m), good to 0.5 percent.
SELECT_NEAREST = f"""
WITH healthy AS (
  SELECT t.key, t.name, p.longitude, p.latitude, {LAST_SEEN} AS last_seen
  FROM thing_place p
  JOIN thing t ON t.id = p.thing_id
  JOIN thing_heard h ON h.thing_id = t.id
  WHERE p.sector = %(sector)s AND p.data_class = ANY(%(classes)s)
    AND h.heard_at >= %(since)s
    AND EXISTS (SELECT FROM datastream d
                WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s))
)
SELECT key, name, longitude, latitude, last_seen,
       2 * 6371008.8 * asin(least(1, sqrt(
         sin(radians(latitude - %(latitude)s) / 2) ^ 2
         + cos(radians(latitude)) * cos(radians(%(latitude)s))
           * sin(radians(longitude - %(longitude)s) / 2) ^ 2))) AS distance
FROM healthy WHERE last_seen >= %(since)s
ORDER BY distance, key LIMIT %(limit)s
"""  # noqa: S608 - a constant of ours
# Links are of the sector's own class, whatever the class of what a node sends.
SELECT_LINKS = """
WITH held AS (
  SELECT l.* FROM edge.link l, (SELECT coalesce(%(at)s::timestamptz, now()) AS at) asked
  WHERE l.valid_from <= asked.at AND (l.valid_to IS NULL OR l.valid_to > asked.at)
    AND %(default_class)s = ANY(%(classes)s)
)
SELECT l.kind, l.key, l.valid_from, l.valid_to,
       ARRAY(SELECT o.node FROM held o
             WHERE l.kind = 'pole' AND o.kind = 'pole' AND o.key = l.key AND o.node <> l.node
             ORDER BY o.node LIMIT 100) AS others
FROM held l WHERE l.node = %(node)s ORDER BY l.kind, l.key
"""
SELECT_REGISTERED = """
SELECT EXISTS (SELECT FROM edge.link WHERE node = %(node)s) AS registered
WHERE %(default_class)s = ANY(%(classes)s)
"""
# What hangs on several nodes is cut off when all of them are silent, since the last of them was.
SELECT_CUT_OFF = f"""
WITH node AS (
  SELECT n.node, {LAST_SEEN} AS last_seen
  FROM (SELECT DISTINCT node FROM edge.link WHERE valid_to IS NULL) n
  LEFT JOIN thing t ON t.sector = %(sector)s AND t.key = n.node
    AND EXISTS (SELECT FROM datastream d
                WHERE d.thing_id = t.id AND d.data_class = ANY(%(classes)s))
  LEFT JOIN thing_heard h ON h.thing_id = t.id
), cut AS (
  SELECT 'node' AS kind, node AS key, last_seen, ARRAY[node] AS nodes FROM node
  WHERE last_seen IS NULL OR last_seen < %(since)s
  UNION ALL
  SELECT l.kind, l.key, max(n.last_seen), array_agg(l.node ORDER BY l.node)
  FROM edge.link l JOIN node n USING (node)
  WHERE l.valid_to IS NULL AND l.kind <> 'pole' AND %(default_class)s = ANY(%(classes)s)
  GROUP BY l.kind, l.key
  HAVING bool_and(n.last_seen IS NULL OR n.last_seen < %(since)s)
)
SELECT kind, key, last_seen, nodes, number, total FROM (
  SELECT *, row_number() OVER (PARTITION BY kind ORDER BY key) AS number,
         count(*) OVER (PARTITION BY kind) AS total FROM cut
) numbered WHERE number <= %(limit)s ORDER BY kind, key
"""  # noqa: S608 - a constant of ours


def select_nodes(connection: PermittedConnection, after: str, limit: int) -> list[dict[str, Any]]:
    """One row a visible Datastream of up to `limit` nodes whose id follows `after`."""
    return connection.fetch(SELECT_NODES, {"after": after, "limit": limit})


def select_nearest(
    connection: PermittedConnection, point: tuple[float, float], since: datetime, limit: int
) -> list[dict[str, Any]]:
    """Nodes heard since then, nearest to (longitude, latitude) first; `distance` in m."""
    longitude, latitude = point
    asked = {"longitude": longitude, "latitude": latitude, "since": since, "limit": limit}
    return connection.fetch(SELECT_NEAREST, asked)


def select_links(
    connection: PermittedConnection, node: str, at: datetime | None
) -> list[dict[str, Any]] | None:
    """What hung on a node at that time, or now; None for a node that was never registered."""
    (known,) = connection.fetch(SELECT_REGISTERED, {"node": node}) or [{"registered": False}]
    if not known["registered"]:
        return None
    return connection.fetch(SELECT_LINKS, {"node": node, "at": at})


def select_cut_off(
    connection: PermittedConnection, since: datetime, limit: int
) -> list[dict[str, Any]]:
    """Registered nodes not heard since then and what hangs on them alone; `limit` of each kind."""
    return connection.fetch(SELECT_CUT_OFF, {"since": since, "limit": limit})
