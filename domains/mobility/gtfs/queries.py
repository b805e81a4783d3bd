"""Which versions of timetables there are, and what their import found."""

from typing import Any

from consent.gate import PermittedConnection

# Without a number: what is in force today, else what came last.
SELECT_VERSION = """
SELECT v.id AS version, v.feed, v.imported_at, v.valid_from, v.valid_to, v.name, v.timezone,
       v.language, v.counts, v.refused, v.quality
FROM mobility.feed_version v JOIN mobility.feed f ON f.id = v.feed
WHERE f.data_class = ANY(%(classes)s) AND v.feed = %(feed)s
  AND (%(version)s::integer IS NULL OR v.id = %(version)s)
ORDER BY coalesce((now() AT TIME ZONE v.timezone)::date BETWEEN v.valid_from AND v.valid_to,
                  false) DESC, v.id DESC
LIMIT 1
"""


def select_version(
    connection: PermittedConnection, feed: str, version: int | None
) -> dict[str, Any] | None:
    """A version of a feed, the one in force without a number; None where there is none to see."""
    rows = connection.fetch(SELECT_VERSION, {"feed": feed, "version": version})
    return rows[0] if rows else None
