"""The tiers of the rollups, and the SQL that computes each from the finer one.

A number's row is a plain sum. A category's row is local to its bucket: the first event, the last
state, and the time in each state from the first event to the bucket's end. What lies before the
first event is in the last state of the row before, carried over by whoever composes rows: so an
event touches its own bucket only.
"""

from dataclasses import dataclass

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Tier:
    """One width of bucket, counted from 1970; `name` ends its tables' names."""

    name: str
    seconds: int

    @property
    def width_us(self) -> int:
        """The bucket's width."""
        return self.seconds * SECOND_US

    @property
    def numbers(self) -> str:
        """The table of numbers."""
        return f"rollup_{self.name}"

    @property
    def states(self) -> str:
        """The table of time in state."""
        return f"state_{self.name}"


MINUTE = Tier("minute", 60)
TIERS = (MINUTE, Tier("quarter", 900), Tier("hour", 3600), Tier("day", 86400))
"""From the finest to the coarsest; each width is a multiple of the one before."""

SUMMABLE = "CASE WHEN abs({0}) < 1e290 THEN {0} ELSE 'NaN' END"
"""A result as it goes into sums: beyond it one might overflow, which is an error of the query."""
LAST = {
    True: "(max(ARRAY[date_part('epoch', s.phenomenon_time), s.result]))[2]",
    False: "last(s.result, s.phenomenon_time)",
}
"""The newest result of a group, by whether the server is plain PostgreSQL; keys are unique."""

_SCOPE = """
  s.{time} >= %(lower)s::timestamptz AND s.{time} < %(upper)s::timestamptz
  AND (%(datastreams)s::integer[] IS NULL OR s.datastream_id = ANY(%(datastreams)s::integer[]))"""
# Retention let the rows go: what came since is not all there was, so the tiers keep what they have.
_KEPT = """
  AND NOT EXISTS (
    SELECT FROM datastream rd JOIN thing rt ON rt.id = rd.thing_id JOIN retired r
      ON r.sector = rt.sector AND r.data_class = rd.data_class AND r.source = '{source}'
    WHERE rd.id = s.datastream_id AND s.{time} < r.until)"""
_BUCKET = "date_bin('{seconds} seconds', s.{time}, timestamptz 'epoch')"

_NUMBERS = """
INSERT INTO {table} AS r (datastream_id, bucket, count, sum, minimum, maximum, last)
SELECT s.datastream_id, {bucket}, {columns}
FROM {source}
GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (datastream_id, bucket) DO UPDATE SET count = excluded.count, sum = excluded.sum,
  minimum = excluded.minimum, maximum = excluded.maximum, last = excluded.last
"""
# As it is served, worked out once a row: without OFFSET the planner repeats it in every column.
_ROWS = """(
  SELECT s.datastream_id, s.phenomenon_time, served(s.result, d.decimals) AS result
  FROM observation s JOIN datastream d ON d.id = s.datastream_id AND d.kind = 'number'
  WHERE {scope} OFFSET 0) AS s"""
_OF_ROWS = f"""count(*), sum({SUMMABLE.format("s.result")}), min(s.result), max(s.result),
  {{last}}"""
_OF_SUMS = """sum(s.count), sum(s.sum), min(s.minimum), max(s.maximum),
  (array_agg(s.last ORDER BY s.bucket DESC))[1]"""

_STATES = """
INSERT INTO {table} AS r (datastream_id, bucket, count, first_time, last, codes, micros)
WITH part AS (
  SELECT s.datastream_id, {bucket} AS bucket, {columns}
  FROM {source} s {kind} WHERE {scope}
), held AS (
  SELECT *, lead(first_time, 1, bucket + interval '{seconds} seconds')
              OVER (PARTITION BY datastream_id, bucket ORDER BY first_time) AS gone
  FROM part
), piece AS (
  SELECT datastream_id, bucket, last AS code,
         round(date_part('epoch', gone - ended) * 1000000)::bigint AS micros
  FROM held WHERE gone > ended
  {inner_pieces}
), summed AS (
  SELECT datastream_id, bucket, code, sum(micros)::bigint AS micros FROM piece GROUP BY 1, 2, 3
), spent AS (
  SELECT datastream_id, bucket, array_agg(code ORDER BY code) AS codes,
         array_agg(micros ORDER BY code) AS micros
  FROM summed GROUP BY 1, 2
), whole AS (
  SELECT datastream_id, bucket, sum(count) AS count, min(first_time) AS first_time,
         (array_agg(last ORDER BY first_time DESC))[1] AS last
  FROM held GROUP BY 1, 2
)
SELECT datastream_id, bucket, count, first_time, last, codes, micros
FROM whole JOIN spent USING (datastream_id, bucket) ORDER BY 1, 2
ON CONFLICT (datastream_id, bucket) DO UPDATE SET count = excluded.count,
  first_time = excluded.first_time, last = excluded.last, codes = excluded.codes,
  micros = excluded.micros
"""
_OF_EVENTS = """s.phenomenon_time AS first_time, s.phenomenon_time AS ended, 1 AS count,
    s.result::integer AS last"""
_OF_STATES = """s.first_time, s.bucket + interval '{finer} seconds' AS ended, s.count, s.last,
    s.codes, s.micros"""
_INNER = """UNION ALL
  SELECT h.datastream_id, h.bucket, u.code, u.micros
  FROM held h CROSS JOIN LATERAL unnest(h.codes, h.micros) AS u (code, micros)"""
_CATEGORIES = "JOIN datastream d ON d.id = s.datastream_id AND d.kind = 'category'"


def recompute(tier: Tier, *, native: bool, retired: bool) -> tuple[str, str]:
    """Statements that compute a tier's numbers and states over [lower, upper) from the finer one.

    Parameters: lower, upper (multiples of the tier's width), datastreams (ids, or null for all). A
    bucket without a finer row keeps what it has: rollups may outlive what they were made of. With
    `retired` the statement looks where that is so; without, nothing of [lower, upper) was let go.
    """
    finer = TIERS[TIERS.index(tier) - 1] if tier is not MINUTE else None
    time = "bucket" if finer else "phenomenon_time"
    bucket, scope = _BUCKET.format(seconds=tier.seconds, time=time), _SCOPE.format(time=time)
    if retired:
        scope += _KEPT.format(source=finer.name if finer else "observation", time=time)
    numbers = _NUMBERS.format(
        table=tier.numbers,
        source=f"{finer.numbers} s WHERE {scope}" if finer else _ROWS.format(scope=scope),
        columns=_OF_SUMS if finer else _OF_ROWS.format(last=LAST[native]),
        bucket=bucket,
    )
    states = _STATES.format(
        table=tier.states,
        source=finer.states if finer else "observation",
        columns=_OF_STATES.format(finer=finer.seconds) if finer else _OF_EVENTS,
        kind="" if finer else _CATEGORIES,
        inner_pieces=_INNER if finer else "",
        seconds=tier.seconds,
        bucket=bucket,
        scope=scope,
    )
    return numbers, states
