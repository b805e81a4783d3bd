"""SQL of the newsector sector's own words: UPPER_CASE constants and one function each."""

from typing import Any

from consent.gate import PermittedConnection

SELECT_STATES = """
SELECT t.key AS station, c.text AS state, l.phenomenon_time AS since
FROM datastream d
JOIN thing t ON t.id = d.thing_id
JOIN latest l ON l.datastream_id = d.id
JOIN category c ON c.code = l.result::int
WHERE t.sector = %(sector)s AND d.property = 'state' AND d.kind = 'category'
  AND d.data_class = ANY(%(classes)s) AND t.key > %(after)s
ORDER BY t.key LIMIT %(limit)s
"""


def select_states(
    connection: PermittedConnection, *, after: str, limit: int
) -> list[dict[str, Any]]:
    """The newest state of every station after `after` in the order of their keys."""
    return connection.fetch(SELECT_STATES, {"after": after, "limit": limit})
