"""What changed since a cursor: Datastreams and the spans of time that appends touched in them.

A cursor is the number of an append: those of a sector are committed in the order of their numbers,
and a corrected row carries the number of the append that corrected it. So whoever follows the pages
and reads each span again has read everything, late rows and corrections as well.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consent.gate import PermittedConnection
from consent.results import Row
from core.errors import invalid

CURSOR = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}\.[0-9]{1,9}")
APPENDS_MAX = 1_000
ROWS_MAX = 500_000
"""Rows that one page looks through; an append that has more is a page's only one."""

# ruff: noqa: S608 - the parts are constants of this file

SELECT_LAST = """
SELECT coalesce(max(l.append_id), 0) AS last FROM sector_log l
WHERE l.sector = %(sector)s AND %(classes)s::text[] IS NOT NULL
"""
SELECT_RUN = """
SELECT max(id) AS last, min(time_min) AS time_min, max(time_max) AS time_max FROM (
  SELECT a.*, sum(a.rows) OVER (ORDER BY a.id) AS total, row_number() OVER (ORDER BY a.id) AS number
  FROM append a WHERE a.sector = %(sector)s AND a.id > %(after)s AND a.id <= %(until)s
    AND %(classes)s::text[] IS NOT NULL
  ORDER BY a.id LIMIT %(appends_max)s) AS run
WHERE total <= %(rows_max)s OR number = 1
"""
_CHANGED = """
  SELECT o.datastream_id, o.phenomenon_time FROM {table} o
  WHERE o.append_id > %(after)s AND o.append_id <= %(last)s
    AND o.phenomenon_time BETWEEN %(time_min)s AND %(time_max)s"""
_TABLES = ("observation", "observation_position", "observation_document")
# append_id counts by sector, so the join to the sector's own Things is what makes it unique.
SELECT_CHANGED = f"""
SELECT d.id, t.key AS thing, d.property, min(o.phenomenon_time) AS first,
       max(o.phenomenon_time) + interval '1 microsecond' AS upper, count(*) AS count
FROM ({" UNION ALL ".join(_CHANGED.format(table=table) for table in _TABLES)}) AS o
JOIN datastream d ON d.id = o.datastream_id AND d.data_class = ANY(%(classes)s)
JOIN thing t ON t.id = d.thing_id AND t.sector = %(sector)s
WHERE d.id > %(datastream)s GROUP BY d.id, t.key, d.property ORDER BY d.id LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to append `after` is read; of those up to `until`, Datastreams up to an id."""

    after: int = 0
    until: int = 0
    datastream: int = 0

    def __str__(self) -> str:
        return f"{self.after}.{self.until}.{self.datastream}"

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """The cursor of such a text, "" being the beginning; CityError `invalid` for another."""
        if not text:
            return cls()
        if not CURSOR.fullmatch(text):
            raise invalid("after", "take it from `next` as it is")
        return cls(*map(int, text.split(".")))


def last(connection: PermittedConnection) -> Cursor:
    """Where everything stored until now is read."""
    return Cursor(int(connection.fetch(SELECT_LAST)[0]["last"]))


def select_changes(
    connection: PermittedConnection, cursor: Cursor, limit: int
) -> tuple[list[Row], Cursor]:
    """Up to `limit` Datastreams that changed after the cursor, and the cursor after them.

    A page may be empty and still move the cursor: what changed was not for this caller's eyes.
    """
    scope: dict[str, Any] = {"after": cursor.after, "appends_max": APPENDS_MAX}
    scope |= {"until": cursor.until or 2**62, "rows_max": 2**62 if cursor.until else ROWS_MAX}
    run: Mapping[str, Any] = connection.fetch(SELECT_RUN, scope)[0]
    if run["last"] is None:
        return [], cursor
    found = connection.fetch(
        SELECT_CHANGED,
        {
            "after": cursor.after,
            "last": run["last"],
            "time_min": run["time_min"],
            "time_max": run["time_max"],
            "datastream": cursor.datastream,
            "limit": limit + 1,
        },
    )
    if len(found) <= limit:
        return found, Cursor(run["last"])
    return found[:limit], Cursor(cursor.after, run["last"], found[limit - 1]["id"])
