"""History of one Datastream: observations as they are, or summed up by interval."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from consent.gate import PermittedConnection
from consent.queries import DOCUMENT, POSITION, SCALAR, Row, result_of
from core.sensorthings import ResultKind

# ruff: noqa: S608 - the parts are constants of this package

SELECT_DATASTREAM = """
SELECT d.id, d.kind, d.unit, least(h.heard_at, h.heard_time) AS last_seen
FROM datastream d JOIN thing t ON t.id = d.thing_id
LEFT JOIN thing_heard h ON h.thing_id = t.id
WHERE t.sector = %(sector)s AND t.key = %(thing)s AND d.property = %(property)s
  AND d.data_class = ANY(%(classes)s)
"""

_PAGE = """
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.phenomenon_time >= %(from)s::timestamptz AND o.phenomenon_time < %(to)s::timestamptz
  AND o.phenomenon_time > %(after)s::timestamptz
ORDER BY o.phenomenon_time LIMIT %(limit)s
"""

SELECT_OBSERVATIONS = {
    ResultKind.NUMBER: f"""
SELECT o.phenomenon_time, o.quality, served(o.result, d.decimals) AS result {SCALAR} {_PAGE}""",
    ResultKind.CATEGORY: f"SELECT o.phenomenon_time, o.quality, c.text {SCALAR} {_PAGE}",
    ResultKind.POSITION: f"""
SELECT o.phenomenon_time, o.quality, o.longitude, o.latitude, o.speed, o.course
{POSITION} {_PAGE}""",
    ResultKind.DOCUMENT: f"""
SELECT o.phenomenon_time, o.quality, o.result AS document {DOCUMENT} {_PAGE}""",
}

SELECT_FIRST_TIME = """
SELECT o.phenomenon_time
FROM observation o JOIN datastream d ON d.id = o.datastream_id
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.phenomenon_time >= %(from)s::timestamptz AND o.phenomenon_time < %(to)s::timestamptz
ORDER BY o.phenomenon_time LIMIT 1
"""

SELECT_BUCKETS = """
SELECT date_bin(%(interval)s, o.phenomenon_time, 'epoch') AS phenomenon_time, count(*) AS count,
       avg(served(o.result, d.decimals)) AS mean, min(served(o.result, d.decimals)) AS minimum,
       max(served(o.result, d.decimals)) AS maximum,
       (array_agg(served(o.result, d.decimals) ORDER BY o.phenomenon_time DESC))[1] AS last
FROM observation o JOIN datastream d ON d.id = o.datastream_id
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.phenomenon_time >= %(from)s AND o.phenomenon_time < %(to)s
GROUP BY 1 ORDER BY 1
"""

SELECT_BUCKETS_OF_HOURS = """
SELECT date_bin(%(interval)s, o.bucket, 'epoch') AS phenomenon_time, sum(o.count)::bigint AS count,
       sum(o.sum) / sum(o.count) AS mean, min(o.minimum) AS minimum, max(o.maximum) AS maximum,
       (array_agg(o.last ORDER BY o.bucket DESC))[1] AS last
FROM observation_hour o JOIN datastream d ON d.id = o.datastream_id
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.bucket >= %(from)s AND o.bucket < %(to)s
GROUP BY 1 ORDER BY 1
"""

# A state holds until the next one; the state before the page is carried in, and the last one holds
# until `until`, when the Thing was last heard.
SELECT_STATES = f"""
WITH event AS (
  (SELECT o.phenomenon_time, c.text {SCALAR}
   WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
     AND o.phenomenon_time < %(from)s
   ORDER BY o.phenomenon_time DESC LIMIT 1)
  UNION ALL
  SELECT o.phenomenon_time, c.text {SCALAR}
  WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
    AND o.phenomenon_time >= %(from)s AND o.phenomenon_time < %(to)s
), segment AS (
  SELECT text, phenomenon_time AS began, greatest(phenomenon_time, least(%(to)s, lead(
           phenomenon_time, 1, %(until)s::timestamptz) OVER (ORDER BY phenomenon_time))) AS ended
  FROM event
), piece AS (
  SELECT s.text, s.began, b.bucket,
         greatest(s.began, %(from)s, b.bucket) AS lower,
         least(s.ended, b.bucket + %(interval)s::interval) AS upper
  FROM segment s CROSS JOIN LATERAL generate_series(
    date_bin(%(interval)s, greatest(s.began, %(from)s), 'epoch'), s.ended, %(interval)s::interval
  ) AS b (bucket)
  WHERE b.bucket < s.ended OR b.bucket <= s.began
)
SELECT bucket AS phenomenon_time, text, max(began) AS began,
       count(*) FILTER (WHERE began >= bucket AND began >= %(from)s) AS count,
       sum(greatest(0, extract(epoch FROM upper - lower)))::float8 AS seconds
FROM piece WHERE bucket < %(to)s
GROUP BY 1, 2 ORDER BY 1, 3
"""

SELECT_STATE_BEFORE = """
SELECT o.phenomenon_time
FROM observation o JOIN datastream d ON d.id = o.datastream_id
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.phenomenon_time < %(from)s::timestamptz
ORDER BY o.phenomenon_time DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Datastream:
    """One visible Datastream; `last_seen` is when its Thing last spoke."""

    id: int
    kind: ResultKind
    unit: str
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open time range [lower, upper)."""

    lower: datetime | str
    upper: datetime | str

    def parameters(self) -> dict[str, Any]:
        """As the queries' parameters."""
        return {"from": self.lower, "to": self.upper}


def select_datastream(
    connection: PermittedConnection, thing: str, observed_property: str
) -> Datastream | None:
    """The Thing's Datastream of a property (with its instance), if it is visible."""
    found = connection.fetch(SELECT_DATASTREAM, {"thing": thing, "property": observed_property})
    if not found:
        return None
    row = found[0]
    return Datastream(row["id"], ResultKind(row["kind"]), row["unit"], row["last_seen"])


def select_observations(
    connection: PermittedConnection,
    datastream: Datastream,
    span: Span,
    limit: int,
    after: datetime | str = "-infinity",
) -> list[Row]:
    """Up to `limit` observations of the span after a time, oldest first, each with its result."""
    scope = {**span.parameters(), "datastream": datastream.id, "limit": limit, "after": after}
    return [
        {
            "phenomenon_time": row["phenomenon_time"],
            "result": result_of(datastream.kind, row),
            "quality": row["quality"],
        }
        for row in connection.fetch(SELECT_OBSERVATIONS[datastream.kind], scope)
    ]


def first_time(
    connection: PermittedConnection, datastream: Datastream, span: Span
) -> datetime | None:
    """The first phenomenon time in the span of a number or category, or None."""
    found = connection.fetch(SELECT_FIRST_TIME, {**span.parameters(), "datastream": datastream.id})
    return found[0]["phenomenon_time"] if found else None


def has_state_before(
    connection: PermittedConnection, datastream: Datastream, moment: datetime | str
) -> bool:
    """Whether some state was already known at `moment`."""
    scope = {"datastream": datastream.id, "from": moment}
    return bool(connection.fetch(SELECT_STATE_BEFORE, scope))


def select_buckets(
    connection: PermittedConnection,
    datastream: Datastream,
    span: Span,
    interval: timedelta,
    *,
    of_hours: bool,
) -> list[Row]:
    """Count, mean, minimum, maximum and last by interval; `of_hours` reads the hourly rollup."""
    scope = {**span.parameters(), "datastream": datastream.id, "interval": interval}
    return connection.fetch(SELECT_BUCKETS_OF_HOURS if of_hours else SELECT_BUCKETS, scope)


def select_states(
    connection: PermittedConnection,
    datastream: Datastream,
    span: Span,
    interval: timedelta,
    until: datetime,
) -> list[Row]:
    """Count, last state and seconds in each state, by interval."""
    scope = {**span.parameters(), "datastream": datastream.id, "interval": interval, "until": until}
    buckets: dict[datetime, Row] = {}
    for row in connection.fetch(SELECT_STATES, scope):
        if not row["count"] and not row["seconds"]:
            continue  # carried in, and ended where the span begins
        moment = row["phenomenon_time"]
        bucket = buckets.setdefault(
            moment, {"phenomenon_time": moment, "count": 0, "last": None, "seconds": {}}
        )
        bucket["count"] += row["count"]
        bucket["last"] = row["text"]  # rows of a bucket come by the time their state last began
        bucket["seconds"][row["text"]] = row["seconds"]
    return list(buckets.values())
