"""SQL of the catalogue: feeds that the caller may read, with their newest version and last word."""

from typing import Any

from consent.gate import PermittedConnection

# A feed that is pushed is as fresh as its gateway was heard; a box tells where its stops are, or,
# without a timetable, its Things.
SELECT_FEEDS = """
SELECT f.id, f.kind, f.title, f.url, f.licence, f.attribution, f.sharing, f.static_feed,
       f.poll_seconds, f.created_at, f.changed_at, f.error,
       greatest(f.checked_at, h.last_seen) AS heard_at,
       v.id AS version, v.name, v.imported_at, v.valid_from, v.valid_to, v.timezone, v.language,
       v.counts, v.refused, v.quality, n.versions, b.box
FROM mobility.feed f
LEFT JOIN gateway_heard h ON h.gateway = f.id
LEFT JOIN LATERAL (
  SELECT * FROM mobility.feed_version v WHERE v.feed = f.id ORDER BY v.imported_at DESC, v.id DESC
  LIMIT 1) v ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS versions FROM mobility.feed_version v WHERE v.feed = f.id) n ON true
LEFT JOIN LATERAL (
  SELECT ARRAY[min(longitude), min(latitude), max(longitude), max(latitude)] AS box
  FROM (SELECT s.longitude, s.latitude FROM mobility.stop s WHERE s.version = v.id
        UNION ALL
        SELECT t.longitude, t.latitude FROM thing t
        WHERE v.id IS NULL AND t.sector = %(sector)s
          AND t.key > f.id || ':station:' AND t.key < f.id || ':station;') place
  WHERE longitude IS NOT NULL) b ON true
WHERE f.data_class = ANY(%(classes)s) AND f.id > %(after)s
  AND (%(kind)s::text IS NULL OR f.kind = %(kind)s::text)
  AND (%(feed)s::text IS NULL OR f.id = %(feed)s::text)
ORDER BY f.id LIMIT %(limit)s
"""


def select_feeds(
    connection: PermittedConnection,
    *,
    after: str = "",
    kind: str | None = None,
    feed: str | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Feeds by id that follow `after`."""
    given = {"after": after, "kind": kind, "feed": feed, "limit": limit}
    return connection.fetch(SELECT_FEEDS, given)
