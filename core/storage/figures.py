"""Figures for monitoring, in a bounded number of sums; and what each ingestor process counts.

An ingestor has no port of its own: it writes its figures where it writes everything else, so one
scrape with one token sees all processes, however many come and go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import Connection

from core.storage.account import HELD
from core.storage.clocks import Clock
from core.storage.gateways import clocks

Session = Connection[tuple[Any, ...]]

GATEWAYS_MAX = 100
"""Gateways that are told one by one, the first that came; all others are summed as one."""
OTHER = "_other"
"""Their name: no gateway's id begins so."""
REASONS_MAX = 100
SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram of seconds; one more bucket takes all above."""

# ruff: noqa: S608 - the parts are constants of this package
SELECT_SOURCES = f"""
WITH run AS (
  SELECT max(seq_max) + 1 - sum(batches) AS missing,
         (array_agg(sector ORDER BY batches DESC, sector, format))[1] AS sector,
         (array_agg(format ORDER BY batches DESC, sector, format))[1] AS format
  FROM boot GROUP BY gateway, boot
)
SELECT sector, format, sum(messages)::bigint, sum(unchanged)::bigint, sum(received)::bigint,
       sum(stored)::bigint, sum(duplicate)::bigint, sum(rejected)::bigint, sum(held)::bigint,
       sum(missing)::bigint, sum(recovered)::bigint
FROM (
  SELECT sector, format, messages, unchanged, received, stored, duplicate, rejected,
         0 AS held, 0 AS missing, 0 AS recovered FROM account_total
  UNION ALL
  SELECT sector, format, 0, 0, received, 0, 0, 0, held, 0, 0 FROM ({HELD}) AS h
  UNION ALL
  SELECT sector, format, 0, 0, 0, 0, 0, 0, 0, missing, 0 FROM run
  UNION ALL
  SELECT sector, format, 0, 0, 0, 0, 0, 0, 0, 0, items FROM recovered
) AS counted
GROUP BY sector, format ORDER BY sector, format
"""
SELECT_REJECTED = """
SELECT sector, reason, items FROM rejected_total ORDER BY sector, items DESC, reason
"""
SELECT_AGES = """
SELECT s.sector, extract(epoch FROM clock_timestamp() - a.committed_at)::float8
FROM sector_log s JOIN append a ON a.sector = s.sector AND a.id = s.append_id ORDER BY s.sector
"""
SELECT_GATEWAYS = """
WITH told AS (SELECT gateway FROM gateway_heard ORDER BY first_seen, gateway LIMIT %(limit)s),
counted AS (
  SELECT gateway, messages, received, rejected, 0 AS missing FROM account_total
  UNION ALL
  SELECT gateway, 0, 0, 0, max(seq_max) + 1 - sum(batches) FROM boot GROUP BY gateway, boot
)
SELECT coalesce(t.gateway, %(other)s), sum(messages)::bigint, sum(received)::bigint,
       sum(rejected)::bigint, sum(missing)::bigint
FROM counted c LEFT JOIN told t USING (gateway) GROUP BY 1 ORDER BY 1
"""
SELECT_PROCESSES = """
SELECT f.figures FROM ingest_figures f
JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = f.id
ORDER BY f.id
"""
SELECT_SIZE = "SELECT pg_database_size(current_database())"
UPSERT_PROCESS = """
INSERT INTO ingest_figures (id, figures) VALUES (%(id)s, %(figures)s::jsonb)
ON CONFLICT (id) DO UPDATE SET figures = excluded.figures, seen_at = clock_timestamp()
"""
DELETE_DEAD = "DELETE FROM ingest_figures WHERE seen_at < now() - interval '1 day'"


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """One sector's account in one format, all gateways together."""

    sector: str
    format: str
    messages: int
    unchanged: int
    received: int
    stored: int
    duplicate: int
    rejected: int
    held: int
    missing: int
    recovered: int


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """One gateway's sums, or those of all that are not told one by one (OTHER)."""

    gateway: str
    messages: int
    received: int
    rejected: int
    missing: int


@dataclass(slots=True)
class Histogram:
    """Durations in seconds, counted up to each bound of SECONDS_BUCKETS and beyond."""

    sum: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS_BUCKETS) + 1))

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.sum += seconds
        index = next((i for i, top in enumerate(SECONDS_BUCKETS) if seconds <= top), -1)
        self.counts[index] += 1

    def add(self, other: "Histogram") -> None:
        """Count all of another."""
        self.sum += other.sum
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]


@dataclass(slots=True)
class ProcessFigures:
    """What one ingestor process counts since its start; `name` is host:pid."""

    name: str
    queue_bytes: int = 0
    decoded: int = 0
    decode_seconds: float = 0.0
    refusals: int = 0
    storage_failures: int = 0
    reconnects: int = 0
    append_seconds: Histogram = field(default_factory=Histogram)

    def add(self, other: "ProcessFigures") -> None:
        """Count what one of its lines counted."""
        self.decoded += other.decoded
        self.decode_seconds += other.decode_seconds
        self.refusals += other.refusals
        self.storage_failures += other.storage_failures
        self.append_seconds.add(other.append_seconds)

    def write(self, session: Session, process: int) -> None:
        """Keep it in the database under the process's number; the caller commits."""
        figures = orjson.dumps(self).decode()
        session.execute(UPSERT_PROCESS, {"id": process, "figures": figures})
        session.execute(DELETE_DEAD)


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that the database knows for monitoring, as of one snapshot."""

    sources: Sequence[SourceFigures]
    rejected: Sequence[tuple[str, str, int]]
    ages_seconds: Sequence[tuple[str, float]]
    gateways: Sequence[GatewayFigures]
    clocks: dict[str, Clock]
    processes: Sequence[ProcessFigures]
    database_bytes: int


def figures(connection: Session) -> Figures:
    """Read them all."""
    told = {"limit": GATEWAYS_MAX, "other": OTHER}
    size = connection.execute(SELECT_SIZE).fetchone()
    return Figures(
        [SourceFigures(*row) for row in connection.execute(SELECT_SOURCES)],
        _bounded(connection.execute(SELECT_REJECTED).fetchall()),
        connection.execute(SELECT_AGES).fetchall(),
        [GatewayFigures(*row) for row in connection.execute(SELECT_GATEWAYS, told)],
        clocks(connection),
        [_process(row[0]) for row in connection.execute(SELECT_PROCESSES)],
        int(size[0]) if size else 0,
    )


def _bounded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, str, int]]:
    """A sector's most frequent reasons, and the rest as one."""
    found: dict[tuple[str, str], int] = {}
    told: dict[str, int] = {}
    for sector, reason, items in rows:
        told[sector] = told.get(sector, 0) + 1
        key = (sector, reason if told[sector] <= REASONS_MAX else OTHER)
        found[key] = found.get(key, 0) + items
    return [(sector, reason, items) for (sector, reason), items in found.items()]


def _process(kept: dict[str, Any]) -> ProcessFigures:
    return ProcessFigures(**{**kept, "append_seconds": Histogram(**kept["append_seconds"])})
