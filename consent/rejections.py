"""Reads of the rejection store: by class, and of what is personal no more than operators may see.

A rejection of a sector whose class the caller does not read is not there. One of a personal sector
is there with its sector, hour, format, reason, state, count and size, and with nothing else;
filters see no more of it than the caller does.
"""

from collections.abc import Mapping
from typing import Any

from consent.gate import PermittedConnection

Row = dict[str, Any]

# ruff: noqa: S608 - the parts are constants of this file

# A gateway may be declared of another class than its sector: the caller must read both.
VISIBLE = """
  SELECT r.*, r.data_class NOT IN ('open', 'shared') AS hidden
  FROM rejection r LEFT JOIN gateway g ON g.id = r.gateway
  WHERE r.data_class NOT IN ('open', 'shared')
     OR (r.data_class = ANY(%(classes)s) AND coalesce(g.data_class, 'open') = ANY(%(classes)s))
"""
SEEN = f"""
  SELECT id, sector, hour, format, reason, state, count, bytes, folded, sealed, hidden,
         CASE WHEN NOT hidden THEN gateway END AS gateway,
         CASE WHEN NOT hidden THEN channel END AS channel,
         CASE WHEN NOT hidden THEN boot END AS boot,
         CASE WHEN NOT hidden THEN seq END AS seq,
         CASE WHEN NOT hidden AND NOT folded THEN item END AS item,
         CASE WHEN NOT hidden THEN detail END AS detail,
         CASE WHEN NOT hidden THEN encode(sha256, 'hex') END AS sha256,
         CASE WHEN NOT hidden THEN first_seen ELSE hour END AS first_seen,
         CASE WHEN NOT hidden THEN last_seen ELSE date_trunc('hour', last_seen) END AS last_seen,
         CASE WHEN NOT hidden THEN item_format END AS item_format,
         payload IS NOT NULL AND bytes > 0 AS kept
  FROM ({VISIBLE}) AS visible
"""
WANTED = """
  (%(of_sector)s::text IS NULL OR sector = %(of_sector)s)
  AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
  AND (%(format)s::text IS NULL OR format = %(format)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND first_seen >= %(lower)s AND first_seen < %(upper)s
"""
SELECT_PAGE = f"""
SELECT * FROM ({SEEN}) AS seen WHERE {WANTED} AND id < %(before)s ORDER BY id DESC LIMIT %(limit)s
"""
SELECT_ONE = f"SELECT * FROM ({SEEN}) AS seen WHERE id = %(id)s"
SELECT_PAYLOAD = f"""
SELECT payload, corrected, hidden FROM ({VISIBLE}) AS visible WHERE id = %(id)s
"""
SELECT_SUMMARY = f"""
SELECT sector, reason, state, sum(count)::bigint AS count, count(*) AS rows,
       min(first_seen) AS first_seen, max(last_seen) AS last_seen
FROM ({SEEN}) AS seen WHERE {WANTED} GROUP BY sector, reason, state
ORDER BY sum(count) DESC, sector, reason, state LIMIT %(limit)s
"""
SELECT_ACTS = f"""
SELECT a.at, a.who, a.act, a.done, CASE WHEN v.hidden THEN '' ELSE a.reason END AS reason,
       CASE WHEN NOT v.hidden THEN encode(a.sha256, 'hex') END AS sha256,
       CASE WHEN NOT v.hidden THEN encode(a.corrected_sha256, 'hex') END AS corrected_sha256,
       a.stored, a.duplicate, a.rejected
FROM ({VISIBLE}) AS v JOIN rejection_act a ON a.rejection_id = v.id
WHERE v.id = %(id)s ORDER BY a.id DESC LIMIT %(limit)s
"""


def select_page(
    connection: PermittedConnection, wanted: Mapping[str, Any], before: int, limit: int
) -> list[Row]:
    """Rejections before an id, newest first; `wanted` has each filter of WANTED, None for any."""
    return connection.fetch(SELECT_PAGE, {**wanted, "before": before, "limit": limit})


def select_one(connection: PermittedConnection, rejection: int) -> Row | None:
    """One rejection as the caller may see it, or None."""
    rows = connection.fetch(SELECT_ONE, {"id": rejection})
    return rows[0] if rows else None


def select_payload(connection: PermittedConnection, rejection: int) -> Row | None:
    """`payload`, `corrected` (bytes or None) and `hidden` of one rejection, or None."""
    rows = connection.fetch(SELECT_PAYLOAD, {"id": rejection})
    return rows[0] if rows else None


def select_summary(
    connection: PermittedConnection, wanted: Mapping[str, Any], limit: int
) -> list[Row]:
    """Counts by sector, reason and state, the largest first."""
    return connection.fetch(SELECT_SUMMARY, {**wanted, "limit": limit})


def select_acts(connection: PermittedConnection, rejection: int, limit: int) -> list[Row]:
    """What was done to one rejection and by whom, newest first."""
    return connection.fetch(SELECT_ACTS, {"id": rejection, "limit": limit})
