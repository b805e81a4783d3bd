"""Ledger of appends and batches; account: received = stored + duplicate + rejected + held."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from operator import add
from typing import Any

import orjson
from psycopg import Connection

from core.clock import to_datetime

Session = Connection[tuple[Any, ...]]
Identity = tuple[str, str, int]
"""gateway, boot, sequence."""

NEXT_APPEND = """
INSERT INTO sector_log (sector, append_id) VALUES (%(sector)s, 1)
ON CONFLICT (sector) DO UPDATE SET append_id = sector_log.append_id + 1 RETURNING append_id
"""
INSERT_APPEND = """
INSERT INTO append (sector, id, rows, time_min, time_max)
VALUES (%(sector)s, %(append_id)s, %(rows)s, %(time_min)s, %(time_max)s)
"""
SELECT_BATCHES = """
SELECT b.gateway, b.boot, b.seq, b.sector, b.format, b.sha256
FROM unnest(%(gateways)s::text[], %(boots)s::text[], %(seqs)s::bigint[]) AS n (gateway, boot, seq)
JOIN batch b USING (gateway, boot, seq)
"""
INSERT_BATCH = """
INSERT INTO batch (gateway, boot, seq, sector, format, sha256, append_id, received_at,
                   received, stored, duplicate, rejected)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
ADD_TO_ACCOUNT = """
INSERT INTO account AS a (gateway, sector, format, hour, messages, unchanged, received, stored,
                          duplicate, rejected)
VALUES (%s, %s, %s, date_trunc('hour', %s::timestamptz), %s, %s, %s, %s, %s, %s)
ON CONFLICT (gateway, sector, format, hour) DO UPDATE SET
  messages = a.messages + excluded.messages, unchanged = a.unchanged + excluded.unchanged,
  received = a.received + excluded.received, stored = a.stored + excluded.stored,
  duplicate = a.duplicate + excluded.duplicate, rejected = a.rejected + excluded.rejected
"""
SELECT_ACCOUNT = """
WITH alive AS (
  SELECT p.pending FROM ingest_process p
  JOIN pg_locks l ON l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = p.id
),
counted AS (
  SELECT gateway, sector, format, messages, unchanged, received, stored, duplicate, rejected,
         0 AS held
  FROM account
  UNION ALL
  SELECT h.gateway, h.sector, h.format, 0, 0, h.received, 0, 0, 0, h.held
  FROM alive, jsonb_to_recordset(alive.pending)
    AS h (gateway text, sector text, format text, received bigint, held bigint)
),
missing AS (
  SELECT gateway, sector, format, sum(gap)::bigint AS missing, count(*) AS boots FROM (
    SELECT gateway, boot, min(sector) AS sector, min(format) AS format,
           max(seq) - min(seq) + 1 - count(*) AS gap
    FROM batch GROUP BY gateway, boot) AS runs
  GROUP BY gateway, sector, format
)
SELECT c.gateway, c.sector, c.format, sum(messages)::bigint, sum(unchanged)::bigint,
       sum(received)::bigint, sum(stored)::bigint, sum(duplicate)::bigint, sum(rejected)::bigint,
       sum(held)::bigint, coalesce(max(m.missing), 0)::bigint
FROM counted c LEFT JOIN missing m USING (gateway, sector, format)
GROUP BY c.gateway, c.sector, c.format ORDER BY 2, 1, 3
"""
TAKE_PROCESS_LOCK = "SELECT pg_try_advisory_lock(%s)"
# By the append itself: the version goes up, and what is pending is what the append leaves behind.
REPLACE_PENDING = """
INSERT INTO ingest_process (id, sector, version, pending)
VALUES (%(id)s, %(sector)s, %(version)s, %(pending)s::jsonb)
ON CONFLICT (id, sector) DO UPDATE SET
  version = excluded.version, pending = excluded.pending, seen_at = clock_timestamp()
"""
# Between appends: void if one was committed since the pending was counted.
UPDATE_PENDING = """
INSERT INTO ingest_process AS p (id, sector, version, pending)
VALUES (%(id)s, %(sector)s, %(version)s, %(pending)s::jsonb)
ON CONFLICT (id, sector) DO UPDATE SET pending = excluded.pending, seen_at = clock_timestamp()
WHERE p.version = excluded.version
"""
DELETE_DEAD_PROCESSES = "DELETE FROM ingest_process WHERE seen_at < now() - interval '1 day'"


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of one message: native messages first, then observations."""

    messages: int = 0
    unchanged: int = 0
    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One source's account; an undecodable message counts as one observation."""

    gateway: str
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

    @property
    def adds_up(self) -> bool:
        """received is counted at decode, the right side where rows were written: do they agree?"""
        return self.received == self.stored + self.duplicate + self.rejected + self.held


def account(connection: Session) -> list[AccountRow]:
    """Every source's account, committed and held together, as of one snapshot."""
    return [AccountRow(*row) for row in connection.execute(SELECT_ACCOUNT)]


def known_batches(
    connection: Session, identities: Sequence[Identity]
) -> dict[Identity, tuple[str, str, bytes]]:
    """Of these identities those already taken: -> (sector, format, SHA-256 of the payload)."""
    if not identities:
        return {}
    gateways, boots, seqs = (list(column) for column in zip(*identities, strict=True))
    found = connection.execute(SELECT_BATCHES, {"gateways": gateways, "boots": boots, "seqs": seqs})
    return {(g, b, s): (sector, form, bytes(digest)) for g, b, s, sector, form, digest in found}


def add_to_account(
    connection: Session, received_at: int, totals: Iterable[tuple[tuple[str, str, str], Counts]]
) -> None:
    """Add counts by (gateway, sector, format); sorted, so that two appends never deadlock."""
    moment = to_datetime(received_at)
    rows = [
        (*source, moment, c.messages, c.unchanged, c.received, c.stored, c.duplicate, c.rejected)
        for source, c in sorted(totals, key=lambda item: item[0])
    ]
    with connection.cursor() as cursor:
        cursor.executemany(ADD_TO_ACCOUNT, rows)


@dataclass(frozen=True, slots=True)
class Pending:
    """One process's line in a sector's account: what it has decoded and not yet committed.

    `version` counts the process's appends in the sector; `rows` are {gateway, sector, format,
    received, held}. The line counts only while the advisory lock `process` is held, so that a
    killed process's line is void at once.
    """

    process: int
    sector: str
    version: int
    rows: Sequence[dict[str, Any]]

    def _parameters(self) -> dict[str, Any]:
        return {
            "id": self.process,
            "sector": self.sector,
            "version": self.version,
            "pending": orjson.dumps(self.rows).decode(),
        }

    def replace(self, connection: Session) -> None:
        """Write it in the transaction of the append that it follows."""
        connection.execute(REPLACE_PENDING, self._parameters())

    def update(self, connection: Session) -> None:
        """Write it between appends; nothing happens if another append was committed meanwhile."""
        connection.execute(UPDATE_PENDING, self._parameters())


def new_process() -> int:
    """A process's number, which is also the key of its advisory lock."""
    return secrets.randbits(62)


def hold_process_lock(connection: Session, process: int) -> bool:
    """Take the lock for as long as this session lives, and forget processes long dead.

    False while a connection that we lost still has it in the server, which may take hours to
    notice: the line counts all the same, and the caller tries again.
    """
    row = connection.execute(TAKE_PROCESS_LOCK, (process,)).fetchone()
    connection.execute(DELETE_DEAD_PROCESSES)
    connection.commit()
    return bool(row and row[0])
