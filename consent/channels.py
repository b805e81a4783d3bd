"""What recipients get besides pages: rows as they come, and rollups; one statement each.

Both are of SELECT_CHUNK's form (consent.personal), joined to live grants in the same snapshot and
on record like a page. Nothing of either is stored: what is taken back is missing from the next one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from consent.levels import LEVELS
from consent.personal import (
    NONE,
    PERMITS,
    PERMITTED,
    TOLD,
    Permit,
    Query,
    Rows,
    provision,
    shown,
)
from consent.results import Row
from core.sensorthings import ResultKind

# ruff: noqa: S608 - the parts are constants of this package


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream is: the last append that it has seen, and until when."""

    append: int
    at: datetime


SELECT_POSITION = """
SELECT coalesce((SELECT append_id FROM sector_log WHERE sector = %(sector)s), 0), clock_timestamp()
"""

_NEW = """
    (SELECT * FROM (
       SELECT DISTINCT ON (time) consent.down(o.phenomenon_time, p.step) AS time,
              o.phenomenon_time AS event, o.append_id, o.quality, {columns}
       FROM personal.{table} o {joins}
       WHERE {condition} AND o.datastream_id = p.datastream_id
         AND o.phenomenon_time >= greatest(p.start, lower(t.span))
         AND o.phenomenon_time < least(p.upper, upper(t.span))
       ORDER BY time, event DESC) AS last
     WHERE (append_id > %(since)s AND append_id <= %(until)s)
       OR (p.level > 0 AND time >= consent.down(%(since_at)s, p.step))
     ORDER BY time LIMIT %(limit)s)"""
_CELL = "CASE WHEN p.level = 0 THEN o.{0} ELSE (floor(o.{0} / p.{0}) + 0.5) * p.{0} END"
_BRANCHES = (
    (
        "observation",
        "LEFT JOIN category c ON c.code = CASE p.kind WHEN 'category' THEN o.result::integer END",
        "p.kind IN ('number', 'category')",
        {
            "result": "CASE p.kind WHEN 'number' THEN served(o.result, p.decimals) END",
            "text": "c.text",
        },
    ),
    (
        "observation_position",
        "",
        "p.kind = 'position'",
        {name: _CELL.format(name) for name in ("longitude", "latitude")}
        | {name: f"CASE p.level WHEN 0 THEN o.{name} END" for name in ("speed", "course")},
    ),
    (
        "observation_document",
        "",
        "p.kind = 'document' AND p.level = 0",
        {"document": "o.result"},
    ),
)


def _branch(table: str, joins: str, condition: str, columns: dict[str, str]) -> str:
    named = ", ".join(f"{value} AS {name}" for name, value in {**NONE, **columns}.items())
    return _NEW.format(table=table, joins=joins, condition=condition, columns=named)


_WANTED = PERMITTED.format(
    step="l.step",
    permits=PERMITS.format(span="(SELECT range_merge(range_agg(w.times)) FROM wanted w)"),
)
# Exact, what was appended since; reduced, the last row of each step that ended since, or that was
# over and got a later one. `wanted` are the times to look at, by level: what others sent makes them
# longer, never an answer different.
SELECT_NEW = f"""
WITH wanted AS MATERIALIZED (
  SELECT l.number AS level, coalesce((
    SELECT range_agg(s.span) FROM (
      SELECT tstzrange(consent.down(a.time_min, l.step),
                       consent.up(a.time_max + interval '1 us', l.step)) AS span
      FROM append a
      WHERE a.sector = %(sector)s AND a.id > %(since)s AND a.id <= %(until)s
        AND a.time_min IS NOT NULL
      UNION ALL
      SELECT tstzrange(consent.down(%(since_at)s, l.step), consent.down(%(until_at)s, l.step))
      WHERE l.number > 0) AS s), '{{}}')
    * tstzmultirange(tstzrange(
        NULL, CASE WHEN l.number > 0 THEN consent.down(%(until_at)s, l.step) END)) AS times
  FROM consent.level l
), permit AS MATERIALIZED ({_WANTED}
)
SELECT number, NULL AS event, NULL AS time, NULL AS quality,
       {", ".join(list(NONE.values())[:-1])}, {TOLD} AS document
FROM permit WHERE start < upper
UNION ALL (
  SELECT p.number, r.event, r.time, r.quality, {", ".join(f"r.{name}" for name in NONE)}
  FROM (SELECT * FROM permit WHERE start < upper ORDER BY number) AS p
  CROSS JOIN LATERAL (SELECT span FROM wanted w CROSS JOIN unnest(w.times) AS span
                      WHERE w.level = p.level ORDER BY span) AS t
  CROSS JOIN LATERAL ({" UNION ALL ".join(_branch(*each) for each in _BRANCHES)}) AS r
  LIMIT %(limit)s)
"""


def new_rows(since: Position, until: Position) -> Query:
    """What came between two positions of a stream."""
    window = {
        "since": since.append, "since_at": since.at, "until": until.append, "until_at": until.at
    }  # fmt: skip
    return Query(SELECT_NEW, shown, provision, window, quiet=True)


class Step(StrEnum):
    """The length of a rollup's steps: two of the levels, counted from midnight in Japan."""

    HOUR = "hour"
    DAY = "day"


SECONDS = {level.name: level.seconds for level in LEVELS}
STEPS_MAX = 1_000
"""So many steps of one series are summed up in one statement at most."""

_OF_WHOLE_STEPS = PERMITS.format(
    span="CASE WHEN isempty(%(span)s::tstzrange) THEN %(span)s::tstzrange ELSE tstzrange("
    "consent.up(lower(%(span)s::tstzrange), %(step)s),"
    " consent.up(upper(%(span)s::tstzrange), %(step)s)) END"
)
# Of each step that is over and lies wholly in one span of times permitted exactly: of a step that
# is permitted in part, the sums with and without that part would tell the part itself.
SELECT_ROLLUPS = f"""
WITH permit AS MATERIALIZED ({PERMITTED.format(step="%(step)s::interval", permits=_OF_WHOLE_STEPS)}
), whole AS MATERIALIZED (
  SELECT p.*, consent.up(p.start, %(step)s) AS first,
         consent.down(least(p.upper, clock_timestamp()), %(step)s) AS last
  FROM permit p WHERE p.level = 0 AND p.kind = '{ResultKind.NUMBER.value}' AND p.start < p.upper
)
SELECT number, NULL AS step, NULL::bigint AS count, NULL::float8 AS mean, NULL::float8 AS minimum,
       NULL::float8 AS maximum, NULL::timestamptz AS time_min, NULL::timestamptz AS time_max,
       {TOLD} AS told
FROM whole WHERE first < last
UNION ALL (
  SELECT p.number, r.*, NULL
  FROM (SELECT * FROM whole WHERE first < last ORDER BY number) AS p
  CROSS JOIN LATERAL (
    SELECT consent.down(time, %(step)s) AS step, count(*), avg(result), min(result), max(result),
           min(time), max(time)
    FROM (SELECT o.phenomenon_time AS time, served(o.result, p.decimals) AS result
          FROM personal.observation o
          WHERE o.datastream_id = p.datastream_id
            AND o.phenomenon_time >= p.first AND o.phenomenon_time < p.last) AS o
    GROUP BY 1 ORDER BY 1 LIMIT %(limit)s) AS r
  LIMIT %(limit)s)
"""


def rollups(step: Step) -> Query:
    """Count, mean, minimum and maximum of each series by step."""
    seconds = SECONDS[step.value]

    def told(permit: Permit, rows: Rows) -> Iterator[Row]:
        shared = {
            "persons": permit.subjects,
            "thing": permit.thing,
            "property": permit.property,
            "unit": permit.unit,
            "step": step.value,
        }
        for _, begin, count, mean, minimum, maximum, *_ in rows:
            result = {"count": count, "mean": mean, "minimum": minimum, "maximum": maximum}
            yield {**shared, "phenomenon_time": begin, **result}

    return Query(SELECT_ROLLUPS, told, _summed, {"step": f"{seconds} seconds"})


def _summed(permit: Permit, rows: Rows) -> dict[str, Any]:
    """What is on record of a piece: the observations of which its steps were made."""
    *_, first, _, _ = rows[0]
    *_, last, _ = rows[-1]
    return {
        **provision(permit, rows[:1]),
        "rows": sum(row[2] for row in rows),
        "time_min": first.isoformat(),
        "time_max": last.isoformat(),
    }
