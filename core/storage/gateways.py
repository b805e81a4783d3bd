"""Gateways as operators see them: what each sent, which sequences never came, how its clock is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from core.storage.clocks import Clock, Slot, clock_of

Session = Connection[tuple[Any, ...]]

SCANNED_MAX = 500_000
"""Identities that one page of gaps looks through; the next page goes on from there."""
BOOTS_MAX = 100
"""Boots that one page of gaps looks through."""

# Ids of those that were declared, and of those that were heard.
SELECT_GATEWAYS = """
WITH page AS (
  (SELECT id FROM gateway WHERE id > %(after)s ORDER BY id LIMIT %(limit)s)
  UNION
  (SELECT gateway FROM gateway_heard WHERE gateway > %(after)s ORDER BY gateway LIMIT %(limit)s)
  ORDER BY 1 LIMIT %(limit)s
)
SELECT page.id, g.data_class, least(g.first_seen, h.first_seen), h.last_seen,
       coalesce(sources.sectors, '{}'), runs.boots, runs.missing::bigint,
       coalesce(sources.received, 0), coalesce(sources.rejected, 0),
       coalesce(sources.this_hour, 0), coalesce(sources.last_hour, 0),
       clock.minutes, clock.delays_min, clock.delays_median, clock.samples
FROM page
LEFT JOIN gateway g USING (id)
LEFT JOIN gateway_heard h ON h.gateway = page.id
CROSS JOIN LATERAL (
  SELECT count(*) AS boots, coalesce(sum(missing), 0) AS missing FROM (
    SELECT max(seq_max) + 1 - sum(batches) AS missing
    FROM boot WHERE gateway = page.id GROUP BY boot) AS run
) AS runs
CROSS JOIN LATERAL (
  SELECT array_agg(DISTINCT t.sector) AS sectors, sum(t.received)::bigint AS received,
         sum(t.rejected)::bigint AS rejected, sum(now_.messages)::bigint AS this_hour,
         sum(before.messages)::bigint AS last_hour
  FROM sector_log s
  JOIN account_total t ON t.sector = s.sector AND t.gateway = page.id
  LEFT JOIN account now_ ON (now_.gateway, now_.sector, now_.format)
    = (t.gateway, t.sector, t.format) AND now_.hour = date_trunc('hour', now(), 'UTC')
  LEFT JOIN account before ON (before.gateway, before.sector, before.format)
    = (t.gateway, t.sector, t.format)
    AND before.hour = date_trunc('hour', now(), 'UTC') - interval '1 hour'
) AS sources
CROSS JOIN LATERAL (
  SELECT array_agg(minute) AS minutes, array_agg(delay_min) AS delays_min,
         array_agg(delay_median) AS delays_median, array_agg(c.samples) AS samples
  FROM gateway_clock c WHERE c.gateway = page.id
) AS clock
ORDER BY page.id
"""
SELECT_KNOWN = """
SELECT EXISTS (SELECT FROM gateway WHERE id = %(gateway)s)
    OR EXISTS (SELECT FROM gateway_heard WHERE gateway = %(gateway)s)
    OR EXISTS (SELECT FROM boot WHERE gateway = %(gateway)s)
"""
SELECT_CLOCKS = """
SELECT gateway, array_agg(minute), array_agg(delay_min), array_agg(delay_median), array_agg(samples)
FROM gateway_clock WHERE minute > now() - %(age)s::interval GROUP BY gateway
"""
# Newest boots first, from one on.
SELECT_BOOTS = """
SELECT boot, min(first_seen) AS first_seen
FROM boot WHERE gateway = %(gateway)s
GROUP BY boot
HAVING max(seq_max) + 1 > sum(batches)
   AND (min(first_seen), boot) <= (%(first_seen)s::timestamptz, %(boot)s)
ORDER BY 2 DESC, 1 DESC LIMIT %(limit)s
"""
# What is there is one run a sequence and one a pruned range; a gap is where none has reached.
SELECT_GAPS = """
WITH looked AS (
  SELECT seq FROM batch WHERE gateway = %(gateway)s AND boot = %(boot)s AND seq >= %(start)s
  ORDER BY seq LIMIT %(scanned)s
),
reach AS (SELECT CASE WHEN count(*) = %(scanned)s THEN max(seq) + 1 END AS ends FROM looked),
run AS (
  SELECT seq AS lower, seq + 1 AS upper FROM looked
  UNION ALL
  SELECT lower(r), upper(r) FROM boot_pruned p, unnest(p.seqs) AS r, reach
  WHERE p.gateway = %(gateway)s AND p.boot = %(boot)s AND upper(r) > %(start)s
    AND (ends IS NULL OR lower(r) < ends)
),
edge AS (
  SELECT lower, greatest(%(start)s, max(upper) OVER (
           ORDER BY lower, upper ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached
  FROM run
),
gap AS (SELECT reached, lower FROM edge WHERE lower > reached ORDER BY lower LIMIT %(limit)s)
SELECT (SELECT ends FROM reach), (SELECT count(*) FROM looked),
       coalesce((SELECT array_agg(reached ORDER BY lower) FROM gap), '{}'),
       coalesce((SELECT array_agg(lower ORDER BY lower) FROM gap), '{}')
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway; counts of observations since ever, messages by clock hour in UTC.

    `missing` are sequences of its boots, from 0 to the highest seen, that never came.
    """

    id: str
    data_class: str | None
    first_seen: datetime | None
    last_seen: datetime | None
    sectors: Sequence[str]
    boots: int
    missing: int
    received: int
    rejected: int
    messages_this_hour: int
    messages_last_hour: int
    clock: Clock


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences `first` to `last` of a boot, both included, that never came."""

    boot: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


Place = tuple[str, str, int]
"""Where a list of gaps goes on: a boot's first_seen and name, and a sequence."""
BEGINNING: Place = ("infinity", "", 0)


def gateways(connection: Session, after: str = "", limit: int | None = None) -> list[Gateway]:
    """Every gateway that was declared or heard, by id, after one."""
    rows = connection.execute(SELECT_GATEWAYS, {"after": after, "limit": limit})
    return [Gateway(*[*row[:11], _clock(row[11:])]) for row in rows]


def is_known(connection: Session, gateway: str) -> bool:
    """Whether the gateway was ever declared or heard, or has a boot."""
    row = connection.execute(SELECT_KNOWN, {"gateway": gateway}).fetchone()
    return bool(row and row[0])


def clocks(connection: Session, age: str = "15 minutes") -> dict[str, Clock]:
    """The clocks of gateways heard within an age, by gateway."""
    rows = connection.execute(SELECT_CLOCKS, {"age": age})
    return {gateway: _clock(columns) for gateway, *columns in rows}


def _clock(columns: Sequence[Any]) -> Clock:
    if columns[0] is None:
        return Clock()
    return clock_of(Slot(*values) for values in zip(*columns, strict=True))


def gaps(
    connection: Session, gateway: str, start: Place = BEGINNING, limit: int = 1_000
) -> tuple[list[Gap], Place | None]:
    """A gateway's gaps, newest boots first, and where the list goes on; None at its end.

    A page looks through a bounded part of the ledger, and may be short while more follow.
    """
    first_seen, name, seq = start
    scope = {"gateway": gateway, "first_seen": first_seen, "boot": name, "limit": BOOTS_MAX + 1}
    found: list[Gap] = []
    left = SCANNED_MAX
    boots = connection.execute(SELECT_BOOTS, scope).fetchall()
    for index, (boot, seen) in enumerate(boots):
        lower = seq if boot == name else 0
        if index == BOOTS_MAX or left <= 0:
            return found, (seen.isoformat(), boot, lower)
        query = {
            "gateway": gateway, "boot": boot, "start": lower, "scanned": left,
            "limit": limit - len(found),
        }  # fmt: skip
        ends, looked, opens, closes = connection.execute(SELECT_GAPS, query).fetchall()[0]
        found += [Gap(boot, first, upper - 1) for first, upper in zip(opens, closes, strict=True)]
        left -= looked
        if len(found) >= limit:
            return found, (seen.isoformat(), boot, found[-1].last + 1)
        if ends is not None:
            return found, (seen.isoformat(), boot, ends)
    return found, None
