"""SQL of the signals sector: the newest results of one intersection, and when it was heard."""

from dataclasses import dataclass
from datetime import datetime

from consent.gate import PermittedConnection
from domains.signals.rules import LatestRow

# At most 256 signal groups with three Datastreams each; undeclared ones may come on top.
SELECT_INTERSECTION = """
SELECT h.heard_at, h.heard_time, d.property, l.phenomenon_time, l.received_at,
       coalesce(to_jsonb(c.text), to_jsonb(served(l.result, d.decimals))) AS result
FROM thing t
LEFT JOIN datastream d ON d.thing_id = t.id AND d.data_class = ANY(%(classes)s)
LEFT JOIN thing_heard h ON h.thing_id = t.id
LEFT JOIN latest l ON l.datastream_id = d.id
LEFT JOIN category c ON c.code = CASE WHEN d.kind = 'category' THEN l.result::int END
WHERE t.sector = %(sector)s AND t.key = %(intersection)s
  AND (d.id IS NOT NULL
       OR (%(default_class)s = ANY(%(classes)s)
           AND NOT EXISTS (SELECT FROM datastream o WHERE o.thing_id = t.id)))
ORDER BY d.property LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Intersection:
    """What is stored of an intersection's signals; the clocks as in rules.current_state."""

    heard_at: datetime | None
    heard_time: datetime | None
    rows: tuple[LatestRow, ...]


def select_intersection(connection: PermittedConnection, intersection: str) -> Intersection | None:
    """The newest results of an intersection by its key; None where there is no such one."""
    found = connection.fetch(SELECT_INTERSECTION, {"intersection": intersection})
    if not found:
        return None
    return Intersection(
        found[0]["heard_at"],
        found[0]["heard_time"],
        tuple(
            LatestRow(row["property"], row["phenomenon_time"], row["received_at"], row["result"])
            for row in found
            if row["result"] is not None
        ),
    )
