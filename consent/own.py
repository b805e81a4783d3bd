"""What is held about a person, for that person: summed up, and row by row.

They see the observations of every party that they are in; who else is in it stays unnamed. A party
with someone who was erased is nobody's any more.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consent.log import Session, row, rows
from consent.personal import EXACT_BRANCHES, NONE
from consent.results import Row, result_of

HELD_MAX = 10_000
ROWS_A_PAGE = 5_000

# ruff: noqa: S608 - the parts are constants of this package

_OWN = """
FROM consent.subject s JOIN consent.party_member m ON m.subject = s.id
JOIN consent.party p ON p.id = m.party JOIN consent.binding b ON b.party = m.party
JOIN thing t ON t.sector = b.sector AND t.key = b.thing JOIN datastream d ON d.thing_id = t.id
WHERE s.key = %(person)s AND NOT EXISTS (
  SELECT FROM consent.party_member o JOIN consent.erasure e USING (subject)
  WHERE o.party = m.party)
"""
_COUNT = """
SELECT count(*) AS rows, min(phenomenon_time) AS first, max(phenomenon_time) AS last
FROM personal.{table} WHERE d.kind IN ({kinds}) AND datastream_id = d.id
  AND phenomenon_time >= coalesce(lower(b.event), '-infinity')
  AND phenomenon_time < coalesce(upper(b.event), 'infinity')
"""
_COUNTS = " UNION ALL ".join(
    _COUNT.format(table=table, kinds=kinds)
    for table, kinds in (
        ("observation", "'number', 'category'"),
        ("observation_position", "'position'"),
        ("observation_document", "'document'"),
    )
)
SELECT_HELD = f"""
SELECT h.sector, h.thing, h.property, h.kind, h.unit, sum(h.rows)::bigint AS rows,
       min(h.first) AS time_min, max(h.last) AS time_max, bool_or(h.shared) AS shared
FROM (SELECT b.sector, b.thing, d.property, d.kind, d.unit, cardinality(p.subjects) > 1 AS shared,
             c.*
      {_OWN.replace("WHERE", f"CROSS JOIN LATERAL ({_COUNTS}) AS c WHERE", 1)}) AS h
WHERE h.rows > 0 GROUP BY h.sector, h.thing, h.property, h.kind, h.unit
ORDER BY h.sector, h.thing, h.property LIMIT %(limit)s
"""
SELECT_COUNTS = """
SELECT (SELECT count(DISTINCT grant_id) FROM consent.granted g WHERE g.subject = s.id) AS grants,
       (SELECT count(*) FROM audit.provision v WHERE v.subjects @> ARRAY[s.id]) AS disclosures,
       (SELECT count(*) FROM consent.claim c WHERE c.subject = s.id) AS claims
FROM consent.subject s WHERE s.key = %(person)s
"""
# Datastream by Datastream, each in the order of time: a page ends where the loop stops.
SELECT_ROWS = f"""
WITH stream AS (
  SELECT d.id AS datastream_id, d.kind, d.decimals, b.sector, b.thing, d.property, d.unit,
         cardinality(p.subjects) > 1 AS shared, 0 AS level,
         greatest(lower(b.event), %(from)s::timestamptz, CASE WHEN d.id = %(datastream)s
           THEN %(event)s::timestamptz + interval '1 us' END, '-infinity') AS start,
         least(upper(b.event), %(to)s::timestamptz, 'infinity') AS upper
  {_OWN} AND d.id >= %(datastream)s
    AND (%(sector)s::text IS NULL OR b.sector = %(sector)s)
    AND (%(thing)s::text IS NULL OR (b.thing, d.property) = (%(thing)s, %(property)s))
), page AS MATERIALIZED (
  SELECT p.datastream_id, r.event, p.sector, p.thing, p.property, p.kind, p.unit, p.shared,
         r.quality, {", ".join(f"r.{name}" for name in NONE)}
  FROM (SELECT * FROM stream WHERE start < upper ORDER BY datastream_id, start) AS p
  CROSS JOIN LATERAL ({EXACT_BRANCHES}) AS r
  LIMIT %(limit)s
)
SELECT * FROM page ORDER BY datastream_id, event
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows: of one sector or all, of one series or all, between two times."""

    sector: str | None = None
    lower: datetime | None = None
    upper: datetime | None = None
    thing: str | None = None
    property: str | None = None


Place = tuple[int, datetime]
"""Where a page ended: its last row's Datastream and time."""
START: Place = (0, datetime.min.replace(tzinfo=UTC))


def select_held(connection: Session, person: str | None) -> list[Row]:
    """One line for each series that holds something of the person."""
    return rows(connection, SELECT_HELD, person=person, limit=HELD_MAX)


def select_counts(connection: Session, person: str | None) -> Row:
    """How many grants, disclosures and claims there are of a person."""
    found = row(connection, SELECT_COUNTS, person=person)
    return found or {"grants": 0, "disclosures": 0, "claims": 0}


def select_rows(
    connection: Session, person: str | None, wanted: Wanted, after: Place | None, limit: int
) -> list[Row]:
    """Up to `limit` observations of a person after a place; `place` in each says where it is."""
    datastream, event = after or START
    scope = {
        "person": person,
        "sector": wanted.sector,
        "thing": wanted.thing,
        "property": wanted.property,
        "from": wanted.lower,
        "to": wanted.upper,
        "datastream": datastream,
        "event": event if after else None,
        "limit": limit,
    }
    return [_shown(found) for found in rows(connection, SELECT_ROWS, **scope)]


def _shown(found: Row) -> Row:
    values: dict[str, Any] = {name: found[name] for name in NONE}
    told = ("sector", "thing", "property", "kind", "unit", "shared", "quality")
    return {
        **{name: found[name] for name in told},
        "phenomenon_time": found["event"],
        "result": result_of(found["kind"], values),
        "place": (found["datastream_id"], found["event"]),
    }
