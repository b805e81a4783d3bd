"""The sector's one write: what an operator says hangs on a node, replaced whole, with history."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from consent.door import WriteConnection

LOCK_NODE = "SELECT pg_advisory_xact_lock(hashtextextended('edge.link ' || %(node)s, 0))"
# The clock is read under the lock: a link never ends before it began.
SELECT_NOW = "SELECT clock_timestamp()"
CLOSE_LINKS = """
UPDATE edge.link SET valid_to = %(now)s
WHERE node = %(node)s AND valid_to IS NULL AND (kind, key) NOT IN
  (SELECT * FROM unnest(%(kinds)s::text[], %(keys)s::text[]))
"""
OPEN_LINKS = """
INSERT INTO edge.link (node, kind, key, valid_from)
SELECT DISTINCT %(node)s, told.kind, told.key, %(now)s::timestamptz
FROM unnest(%(kinds)s::text[], %(keys)s::text[]) AS told (kind, key)
ON CONFLICT (node, kind, key) WHERE valid_to IS NULL DO NOTHING
"""


def replace_links(
    connection: WriteConnection, node: str, links: Mapping[str, Sequence[str]]
) -> datetime:
    """Let exactly these keys, by kind, hang on a node from the time answered on.

    What ended stays as history.
    """
    pairs = [(kind, key) for kind, keys in links.items() for key in keys]
    asked: dict[str, Any] = {
        "node": node,
        "kinds": [kind for kind, _ in pairs],
        "keys": [key for _, key in pairs],
    }
    connection.execute(LOCK_NODE, asked)
    ((now,),) = connection.execute(SELECT_NOW)
    asked["now"] = now
    connection.execute(CLOSE_LINKS, asked)
    connection.execute(OPEN_LINKS, asked)
    connection.commit()
    told: datetime = now
    return told
