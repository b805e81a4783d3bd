"""Keeps the rollups true: what an append touched, and the worker that computes it anew.

An append notes, in its own transaction, the minutes that it touched; the worker moves its cursor,
the spans to do and the rows of a tier in one transaction. So at any moment, over any crash, what is
noted and not yet done says where a tier may not be believed; readers take raw rows there.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection

from core.clock import now_us, to_datetime
from core.spans import Span, minus, outward, union
from core.storage.columns import NUMBER, Rows
from core.storage.pool import is_native
from core.storage.tiers import MINUTE, SECOND_US, TIERS, Tier, recompute

Session = Connection[tuple[Any, ...]]

log = logging.getLogger("chimata.ingest")

GRACE_SECONDS = 5
"""A minute is computed this long after it has ended: what comes later is late."""
DENSITY_MIN = 8
"""Late rows are noted by Datastream unless they are more than one in so many of all Datastreams."""
GAP_MINUTES_MAX = 15
"""A longer silence ends a late span: what lies between would be read for nothing."""
LOCK = 0x524F4C4C  # one worker at a time on one database ("ROLL")
APPENDS_MAX = 20_000
LATE_MAX = 500
"""Spans of single Datastreams in one transaction."""
STEP_SECONDS = (1.0, 3.0)
"""A range that took less than the first of these is doubled, one above the last is halved."""
RANGE_US_MAX = 32 * 86400 * SECOND_US
MONTH_US_MIN = 28 * 86400 * SECOND_US

INSERT_LATE = """
INSERT INTO rollup_late (datastream_id, lower, upper)
SELECT * FROM unnest(%(datastreams)s::integer[], %(lowers)s::timestamptz[],
                     %(uppers)s::timestamptz[])
"""
TAKE_LOCK = "SELECT pg_try_advisory_xact_lock(%s)"
# The appends need the cores more, and a hash of all Datastreams needs the memory.
PREPARE = """
SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL work_mem = '128MB'; SET LOCAL jit = off
"""
# Of a table that was never analysed the planner expects two rows: a join of loops then takes 20 s.
FOR_ALL = "SET LOCAL enable_nestloop = off"
SELECT_LATE = "SELECT EXISTS (SELECT FROM rollup_late)"
SELECT_TODO = """
SELECT t.tier, (date_part('epoch', lower(s)) * 1000000)::bigint,
       (date_part('epoch', upper(s)) * 1000000)::bigint
FROM rollup_todo t CROSS JOIN unnest(t.spans) AS s ORDER BY 1, 2
"""
UPDATE_TODO = "UPDATE rollup_todo SET spans = %(spans)s::tstzmultirange WHERE tier = %(tier)s"
# Every append up to the cursor is in the spans of its tier, and the cursor never passes one by:
# the appends of a sector are committed in the order of their numbers.
COLLECT = """
WITH news AS MATERIALIZED (
  SELECT a.sector, a.id, CASE WHEN a.time_min IS NULL THEN '{}' ELSE
           coalesce(a.minutes, tstzmultirange(tstzrange(
             date_bin('1 minute', a.time_min, timestamptz 'epoch'),
             date_bin('1 minute', a.time_max, timestamptz 'epoch') + interval '1 minute'))) END
         AS minutes
  FROM sector_log l LEFT JOIN rollup_cursor c USING (sector)
  CROSS JOIN LATERAL (
    SELECT * FROM append a WHERE a.sector = l.sector AND a.id > coalesce(c.append_id, 0)
    ORDER BY a.id LIMIT %(limit)s) AS a
), moved AS (
  INSERT INTO rollup_cursor (sector, append_id) SELECT sector, max(id) FROM news GROUP BY sector
  ON CONFLICT (sector) DO UPDATE SET append_id = excluded.append_id
)
UPDATE rollup_todo SET spans = spans + news.minutes
FROM (SELECT range_agg(m) AS minutes, count(*) AS appends
      FROM news CROSS JOIN LATERAL unnest(news.minutes) AS m) AS news
WHERE tier = 'minute' AND news.minutes IS NOT NULL
"""
TAKE_LATE = """
WITH chosen AS (SELECT ctid FROM rollup_late ORDER BY datastream_id, lower LIMIT %(limit)s)
DELETE FROM rollup_late l USING chosen WHERE l.ctid = chosen.ctid
RETURNING l.datastream_id, (date_part('epoch', l.lower) * 1000000)::bigint,
          (date_part('epoch', l.upper) * 1000000)::bigint
"""
SELECT_RETIRED = "SELECT EXISTS (SELECT FROM retired WHERE until > %(lower)s)"
ENSURE = "SELECT ensure_rollups(%s)"


def touched(
    parts: Sequence[Rows], now: int, datastreams: int
) -> tuple[list[Span], tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]]:
    """What an append makes untrue: minutes of all Datastreams, (id, lower, upper) of single ones.

    `parts` are its rows by shape; `now` is its clock in µs, `datastreams` about how many exist.
    Minutes that are not over yet will be computed for all anyway, and so will old ones that the
    append fills for most Datastreams; elsewhere only the Datastreams that changed are done anew.
    """
    numbers = [rows for rows in parts if rows.shape is NUMBER and len(rows)]
    whole: list[Span] = []
    ids: list[NDArray[np.int32]] = []
    lowers: list[NDArray[np.int64]] = []
    uppers: list[NDArray[np.int64]] = []
    open_from = (now - GRACE_SECONDS * SECOND_US) // MINUTE.width_us * MINUTE.width_us
    for rows in numbers:
        if int(rows.time.min()) >= open_from:
            whole.append((int(rows.time.min()), int(rows.time.max()) + 1))
            continue
        late = rows.time < open_from
        if not late.all():
            current = rows.time[~late]
            whole.append((int(current.min()), int(current.max()) + 1))
        stream, minute = rows.datastream[late], rows.time[late] // MINUTE.width_us
        new = np.append(True, (np.diff(stream) != 0) | (np.diff(minute) != 0))
        minutes = np.unique(minute[new])
        if np.count_nonzero(new) * DENSITY_MIN >= len(minutes) * datastreams:
            breaks = np.flatnonzero(np.diff(minutes) > 1)
            firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(minutes) - 1)
            pairs = zip(minutes[firsts].tolist(), minutes[lasts].tolist(), strict=True)
            whole += [(a * MINUTE.width_us, (b + 1) * MINUTE.width_us) for a, b in pairs]
            continue
        apart = np.flatnonzero((np.diff(stream) != 0) | (np.diff(minute) > GAP_MINUTES_MAX))
        ids.append(stream[np.append(0, apart + 1)])
        lowers.append(minute[np.append(0, apart + 1)] * MINUTE.width_us)
        uppers.append((minute[np.append(apart, len(minute) - 1)] + 1) * MINUTE.width_us)
    none = np.zeros(0, np.int64)
    late_spans = (
        np.concatenate([none.astype(np.int32), *ids]),
        np.concatenate([none, *lowers]),
        np.concatenate([none, *uppers]),
    )
    return outward(whole, MINUTE.width_us), late_spans


def mark(connection: Session, parts: Sequence[Rows], now: int, datastreams: int) -> str:
    """Note the single Datastreams that an append touched; its `minutes` as a tstzmultirange."""
    minutes, (ids, lowers, uppers) = touched(parts, now, datastreams)
    if len(ids):
        connection.execute(
            INSERT_LATE,
            {
                "datastreams": ids.tolist(),
                "lowers": [to_datetime(moment) for moment in lowers.tolist()],
                "uppers": [to_datetime(moment) for moment in uppers.tolist()],
            },
        )
    return multirange(minutes)


def multirange(spans: Sequence[Span]) -> str:
    """Spans of µs as the text of a tstzmultirange."""
    ranges = (f"[{to_datetime(a).isoformat()},{to_datetime(b).isoformat()})" for a, b in spans)
    return "{" + ",".join(ranges) + "}"


class Worker:
    """Computes what is noted; any number of processes may try, one at a time does.

    Connections given to it act as chimata_ingest and are not in autocommit mode. Every method is
    one transaction or a few, each bounded; none holds a lock that an append or a reader waits for.
    """

    def __init__(self) -> None:
        self._range_us = {tier: tier.width_us for tier in TIERS}
        self._native: bool | None = None

    def run(self, connection: Session, now: int | None = None, seconds_max: float = 10.0) -> bool:
        """Work for about so long; whether something is left that could be done now."""
        until = time.monotonic() + seconds_max
        moment = now_us() if now is None else now
        while time.monotonic() < until:
            if not self._begin(connection):
                return False  # another process is at it
            connection.execute(COLLECT, {"limit": APPENDS_MAX})
            todo = _todo(connection)
            late = connection.execute(SELECT_LATE).fetchone()
            connection.commit()
            if late and late[0]:
                self._late(connection)
            elif not any(_ready(tier, todo, moment) for tier in TIERS):
                return False
            for tier in TIERS:
                self._advance(connection, tier, moment)
        return True

    def _begin(self, connection: Session) -> bool:
        """A transaction in which no other worker works; False where one does."""
        row = connection.execute(TAKE_LOCK, (LOCK,)).fetchone()
        if not row or not row[0]:
            connection.rollback()
            return False
        connection.execute(PREPARE)
        if self._native is None:
            self._native = is_native(connection)
        return True

    def _advance(self, connection: Session, tier: Tier, now: int) -> None:
        """Compute some of a tier's buckets that are over, and have the coarser tier follow."""
        if not self._begin(connection):
            return
        todo = _todo(connection)
        ready = _ready(tier, todo, now)
        if not ready:
            connection.rollback()
            return
        span = (ready[0][0], min(ready[0][1], ready[0][0] + self._range_us[tier]))
        began = time.monotonic()
        connection.execute(FOR_ALL)
        self._compute(connection, tier, span, None)
        self._write(connection, tier, minus(todo[tier.name], [span]))
        above = TIERS.index(tier) + 1
        if above < len(TIERS):
            coarser = TIERS[above]
            self._write(
                connection, coarser, union(todo[coarser.name], outward([span], coarser.width_us))
            )
        connection.commit()
        self._adapt(tier, span[1] - span[0], time.monotonic() - began)

    def _late(self, connection: Session) -> None:
        """Compute every tier over some late spans of single Datastreams."""
        if not self._begin(connection):
            return
        taken = connection.execute(TAKE_LATE, {"limit": LATE_MAX}).fetchall()
        by_span: dict[Span, list[int]] = {}
        for stream, spans in _by_stream(taken).items():
            for span in spans:
                by_span.setdefault(span, []).append(stream)
        for tier in TIERS:
            widened: dict[Span, set[int]] = {}
            for span, streams in by_span.items():
                for bucket in outward([span], tier.width_us):
                    widened.setdefault(bucket, set()).update(streams)
            for bucket, ids in widened.items():
                self._compute(connection, tier, bucket, sorted(ids))
        connection.commit()

    def _compute(
        self, connection: Session, tier: Tier, span: Span, streams: Sequence[int] | None
    ) -> None:
        for moment in {*range(span[0], span[1], MONTH_US_MIN), span[1] - 1}:
            connection.execute(ENSURE, (to_datetime(moment),))
        scope = {
            "lower": to_datetime(span[0]),
            "upper": to_datetime(span[1]),
            "datastreams": None if streams is None else list(streams),
        }
        retired = connection.execute(SELECT_RETIRED, scope).fetchone()
        for statement in recompute(
            tier, native=bool(self._native), retired=bool(retired and retired[0])
        ):
            connection.execute(statement.encode(), scope)

    def _write(self, connection: Session, tier: Tier, spans: Sequence[Span]) -> None:
        connection.execute(UPDATE_TODO, {"tier": tier.name, "spans": multirange(spans)})

    def _adapt(self, tier: Tier, width: int, seconds: float) -> None:
        """Learn from a span of so many µs; a quick one shorter than the range says nothing."""
        if seconds > STEP_SECONDS[1]:
            self._range_us[tier] = max(width // 2 // tier.width_us, 1) * tier.width_us
        elif seconds < STEP_SECONDS[0] and width >= self._range_us[tier]:
            self._range_us[tier] = min(width * 2, RANGE_US_MAX)


def _todo(connection: Session) -> dict[str, list[Span]]:
    """The spans of each tier that are to be computed, µs."""
    todo: dict[str, list[Span]] = {tier.name: [] for tier in TIERS}
    for tier, lower, upper in connection.execute(SELECT_TODO):
        todo[tier].append((lower, upper))
    return todo


def _ready(tier: Tier, todo: dict[str, list[Span]], now: int) -> list[Span]:
    """The tier's buckets that wait, are over, and have nothing finer that waits in them."""
    finer = union(*(todo[other.name] for other in TIERS[: TIERS.index(tier)]))
    over = (now - GRACE_SECONDS * SECOND_US) // tier.width_us * tier.width_us
    waiting = minus(outward(todo[tier.name], tier.width_us), outward(finer, tier.width_us))
    return [(lower, min(upper, over)) for lower, upper in waiting if lower < over]


def _by_stream(taken: Sequence[tuple[Any, ...]]) -> dict[int, list[Span]]:
    """Late spans of each Datastream, joined where they touch."""
    found: dict[int, list[Span]] = {}
    for stream, lower, upper in taken:
        found.setdefault(stream, []).append((lower, upper))
    return {stream: union(spans) for stream, spans in found.items()}
