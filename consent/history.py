"""History of one Datastream: observations as they are, or summed up by interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from consent.gate import PermittedConnection
from consent.queries import DOCUMENT, POSITION, SCALAR
from consent.results import Row, result_of
from core.clock import from_datetime, to_datetime
from core.sensorthings import ResultKind
from core.spans import inward, minus, outward, union, within
from core.storage.tiers import SUMMABLE, TIERS, Tier

FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
NEAR = timedelta(days=32)
"""Where a neighbouring row is looked for first: a look at every partition of years costs 0.3 s."""
PIECES_MAX = 32
"""Spans of a page that one tier leaves to a finer one; beyond, everything between them is."""

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
  AND o.phenomenon_time > %(after)s::timestamptz AND (o.quality = 0 OR NOT %(good)s)
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

# Where the tiers may not be believed yet: spans that wait to be computed, appends that the worker
# has not seen, and late rows of this very Datastream. It is empty while nothing arrives. Where the
# rows themselves were let go, the tiers are what there is.
SELECT_UNROLLED = """
SELECT u.tier, (date_part('epoch', upper(u.span)) * 1000000)::bigint AS upper,
       (date_part('epoch', greatest(lower(u.span), r.until)) * 1000000)::bigint AS lower
FROM datastream d LEFT JOIN retired r
  ON r.sector = %(sector)s AND r.data_class = d.data_class AND r.source = 'observation'
CROSS JOIN LATERAL (
  SELECT t.tier, s.span
  FROM rollup_todo t CROSS JOIN LATERAL unnest(t.spans * tstzmultirange(
    tstzrange(%(from)s::timestamptz, %(to)s::timestamptz))) AS s (span)
  UNION ALL
  SELECT 'minute', m.span
  FROM append a CROSS JOIN LATERAL unnest(coalesce(a.minutes, tstzmultirange(
    tstzrange(a.time_min, a.time_max + interval '1 microsecond')))) AS m (span)
  WHERE a.sector = %(sector)s AND a.id > coalesce(
      (SELECT c.append_id FROM rollup_cursor c WHERE c.sector = %(sector)s), 0)
    AND a.time_min < %(to)s::timestamptz AND a.time_max >= %(from)s::timestamptz
    AND m.span && tstzrange(%(from)s::timestamptz, %(to)s::timestamptz)
  UNION ALL
  SELECT 'minute', tstzrange(l.lower, l.upper) FROM rollup_late l
  WHERE l.datastream_id = d.id AND l.lower < %(to)s::timestamptz AND l.upper > %(from)s::timestamptz
) AS u
WHERE d.id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND upper(u.span) > coalesce(r.until, '-infinity')
"""

# One part a piece of the page that one tier (or the rows themselves) answers: its bounds are
# constants, so that the planner leaves out every partition that does not matter.
_NUMBERS_OF_ROWS = f"""
  SELECT n.bucket, 1, {SUMMABLE.format("n.result")}, n.result, n.result, n.result
  FROM (SELECT o.phenomenon_time AS bucket, served(o.result, d.decimals) AS result
        FROM observation o JOIN datastream d ON d.id = o.datastream_id
        WHERE o.datastream_id = %(datastream)s
          AND o.phenomenon_time >= %({{lower}})s AND o.phenomenon_time < %({{upper}})s) AS n"""
_NUMBERS_OF_TIER = """
  SELECT bucket, count, sum, minimum, maximum, last FROM {tier.numbers}
  WHERE datastream_id = %(datastream)s AND bucket >= %({lower})s AND bucket < %({upper})s"""
_SELECT_BUCKETS = """
SELECT date_bin(%(interval)s, o.bucket, 'epoch') AS phenomenon_time, sum(o.count)::bigint AS count,
       sum(o.sum) / sum(o.count) AS mean, min(o.minimum) AS minimum, max(o.maximum) AS maximum,
       (array_agg(o.last ORDER BY o.bucket DESC))[1] AS last
FROM ({parts}) AS o (bucket, count, sum, minimum, maximum, last)
JOIN datastream d ON d.id = %(datastream)s AND d.data_class = ANY(%(classes)s)
GROUP BY 1 ORDER BY 1
"""

_STATES_OF_ROWS = """
  SELECT o.phenomenon_time AS first_time, o.phenomenon_time AS ended, 1 AS count,
         o.result::integer AS last, NULL::integer[] AS codes, NULL::bigint[] AS micros
  FROM observation o WHERE o.datastream_id = %(datastream)s
    AND o.phenomenon_time >= %({lower})s AND o.phenomenon_time < %({upper})s"""
_STATES_OF_TIER = """
  SELECT first_time, bucket + interval '{tier.seconds} seconds', count, last, codes, micros
  FROM {tier.states}
  WHERE datastream_id = %(datastream)s AND bucket >= %({lower})s AND bucket < %({upper})s"""
# A state holds until the next one; the state before the page is carried in, and the last one holds
# until `until`, when the Thing was last heard. A part begins with an event and knows its states up
# to `ended`; from there the last of them holds until the next part. `began` orders the states of an
# interval, so that the one that began last is found.
_SELECT_STATES = """
WITH part AS (
  SELECT o.phenomenon_time AS first_time, o.phenomenon_time AS ended, 1 AS count,
         o.result::integer AS last, NULL::integer[] AS codes, NULL::bigint[] AS micros
  FROM observation o JOIN datastream d ON d.id = o.datastream_id AND d.kind = 'category'
  WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
    AND o.phenomenon_time = %(carried)s::timestamptz
  UNION ALL
  SELECT o.* FROM ({parts}) AS o
  JOIN datastream d ON d.id = %(datastream)s AND d.data_class = ANY(%(classes)s)
), held AS (
  SELECT *, greatest(first_time, ended - interval '1 microsecond') AS began,
         greatest(ended, least(%(to)s, lead(first_time, 1, %(until)s::timestamptz)
           OVER (ORDER BY first_time))) AS gone
  FROM part
), piece AS (
  SELECT date_bin(%(interval)s, first_time, 'epoch') AS bucket, last AS code, began, count,
         0::float8 AS micros
  FROM held WHERE first_time >= %(from)s
  UNION ALL
  SELECT date_bin(%(interval)s, h.first_time, 'epoch'), u.code, h.first_time, 0, u.micros
  FROM held h CROSS JOIN LATERAL unnest(h.codes, h.micros) AS u (code, micros)
  UNION ALL
  SELECT b.bucket, h.last, h.began, 0, 1000000 * date_part('epoch',
    least(h.gone, b.bucket + %(interval)s::interval) - greatest(h.ended, %(from)s, b.bucket))
  FROM held h CROSS JOIN LATERAL generate_series(
    date_bin(%(interval)s, greatest(h.ended, %(from)s), 'epoch'), h.gone, %(interval)s::interval
  ) AS b (bucket)
  WHERE b.bucket < h.gone AND h.gone > %(from)s
)
SELECT p.bucket AS phenomenon_time, c.text, max(p.began) AS began, sum(p.count)::bigint AS count,
       round(sum(p.micros)) / 1000000 AS seconds
FROM piece p JOIN category c ON c.code = p.code WHERE p.bucket < %(to)s
GROUP BY 1, 2 ORDER BY 1, 3
"""

SELECT_STATE_BEFORE = """
SELECT o.phenomenon_time
FROM observation o JOIN datastream d ON d.id = o.datastream_id
WHERE o.datastream_id = %(datastream)s AND d.data_class = ANY(%(classes)s)
  AND o.phenomenon_time >= %(since)s::timestamptz AND o.phenomenon_time < %(from)s::timestamptz
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
    """A half-open time range [lower, upper); "-infinity" and "infinity" where it has no end."""

    lower: datetime | str
    upper: datetime | str

    def parameters(self) -> dict[str, Any]:
        """As the queries' parameters."""
        return {"from": self.lower, "to": self.upper}


@dataclass(frozen=True, slots=True)
class Page(Span):
    """A span that begins and ends: what is summed up by interval."""

    lower: datetime
    upper: datetime


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
    *,
    good: bool = False,
) -> list[Row]:
    """Up to `limit` observations of the span after a time, oldest first, each with its result.

    `good`: only those without a quality flag.
    """
    scope = {**span.parameters(), "datastream": datastream.id, "limit": limit, "after": after}
    scope["good"] = good
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
    ends = [span.upper]
    if isinstance(span.lower, datetime) and span.lower < LAST - NEAR:
        near = span.lower + NEAR
        ends = (
            [near, span.upper] if span.upper == "infinity" else [min(near, span.upper), span.upper]
        )
    for end in ends:
        scope = {"from": span.lower, "to": end, "datastream": datastream.id}
        if found := connection.fetch(SELECT_FIRST_TIME, scope):
            moment: datetime = found[0]["phenomenon_time"]
            return moment
    return None


def state_before(
    connection: PermittedConnection, datastream: Datastream, moment: datetime
) -> datetime | None:
    """When the state began that was known at `moment`, or None."""
    for lower in (max(moment, FIRST + NEAR) - NEAR, "-infinity"):
        scope = {"datastream": datastream.id, "from": moment, "since": lower}
        if found := connection.fetch(SELECT_STATE_BEFORE, scope):
            began: datetime = found[0]["phenomenon_time"]
            return began
    return None


def select_buckets(
    connection: PermittedConnection, datastream: Datastream, span: Page, interval: timedelta
) -> list[Row]:
    """Count, mean, minimum, maximum and last by interval, from the coarsest tier that answers."""
    pieces = _pieces(connection, datastream, span, interval, span.upper)
    parts, scope = _assemble(pieces, _NUMBERS_OF_ROWS, _NUMBERS_OF_TIER)
    scope |= {**span.parameters(), "datastream": datastream.id, "interval": interval}
    return connection.fetch(_SELECT_BUCKETS.format(parts=parts), scope)


def select_states(
    connection: PermittedConnection,
    datastream: Datastream,
    span: Page,
    interval: timedelta,
    until: datetime,
) -> list[Row]:
    """Count, last state and seconds in each state, by interval."""
    # A tier's row reaches to its bucket's end: the bucket in which the last state ends is no use.
    pieces = _pieces(connection, datastream, span, interval, until)
    parts, scope = _assemble(pieces, _STATES_OF_ROWS, _STATES_OF_TIER)
    scope |= {**span.parameters(), "datastream": datastream.id}
    carried = state_before(connection, datastream, span.lower)
    scope |= {"interval": interval, "until": until, "carried": carried}
    buckets: dict[datetime, Row] = {}
    for row in connection.fetch(_SELECT_STATES.format(parts=parts), scope):
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


Piece = tuple[Tier | None, int, int]
"""A tier, or None for the observations themselves, and the span in µs that it answers."""


def _pieces(
    connection: PermittedConnection,
    datastream: Datastream,
    span: Page,
    interval: timedelta,
    until: datetime,
) -> list[Piece]:
    """Who answers where: the coarsest tier that divides the interval and is true there.

    No tier answers after `until`. The gate's transaction is one snapshot, so what is found here
    holds for the query that follows.
    """
    lower, upper = from_datetime(span.lower), from_datetime(span.upper)
    step = interval // timedelta(microseconds=1)
    fitting = [tier for tier in TIERS if step % tier.width_us == 0]
    left = within([(lower, upper)], lower, min(upper, from_datetime(until)))
    if not fitting or not inward(left, fitting[0].width_us):
        return [(None, lower, upper)]
    scope = {**span.parameters(), "datastream": datastream.id}
    waiting: dict[str, list[tuple[int, int]]] = {tier.name: [] for tier in TIERS}
    for row in connection.fetch(SELECT_UNROLLED, scope):
        waiting[row["tier"]].append((row["lower"], row["upper"]))
    pieces: list[Piece] = []
    for tier in reversed(fitting):
        finer = (waiting[other.name] for other in TIERS[: TIERS.index(tier) + 1])
        untrue = outward(_bounded(union(*finer)), tier.width_us)
        true = minus(inward(left, tier.width_us), untrue)
        pieces += [(tier, *each) for each in true]
        left = minus(left, true)
    rest = union(left, [(max(lower, min(upper, from_datetime(until))), upper)])
    return [*pieces, *((None, *each) for each in rest)]


def _bounded(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """At most PIECES_MAX spans: the last ones become one."""
    if len(spans) <= PIECES_MAX:
        return spans
    return [*spans[: PIECES_MAX - 1], (spans[PIECES_MAX - 1][0], spans[-1][1])]


def _assemble(pieces: Sequence[Piece], of_rows: str, of_tier: str) -> tuple[str, dict[str, Any]]:
    """The parts of a query, one a piece, and the parameters that bound them."""
    parts: list[str] = []
    bounds: dict[str, Any] = {}
    for number, (tier, lower, upper) in enumerate(pieces):
        names = {"lower": f"lower_{number}", "upper": f"upper_{number}"}
        parts.append((of_tier if tier else of_rows).format(tier=tier, **names))
        bounds[names["lower"]], bounds[names["upper"]] = to_datetime(lower), to_datetime(upper)
    return "\n  UNION ALL".join(parts), bounds
