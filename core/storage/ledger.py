"""Ledger of appends and batches, and what is written of the account (core.storage.account)."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from operator import add
from typing import Any

import orjson
from psycopg import Connection

from core.clock import to_datetime, to_iso

Session = Connection[tuple[Any, ...]]
Identity = tuple[str, str, int]
"""gateway, boot, sequence."""
Source = tuple[str, str, str, int]
"""gateway, sector, format, and the hour in which it was received (its first µs since 1970)."""
Entry = tuple[str, str, int, str, bytes, int, int, int, int, int]
"""One identified message; its values are named by ENTRY_COLUMNS."""
ENTRY_COLUMNS = (
    "gateway", "boot", "seq", "format", "sha256", "received_at",
    "received", "stored", "duplicate", "rejected",
)  # fmt: skip
ACCOUNT_COLUMNS = (
    "gateway", "sector", "format", "hour",
    "messages", "unchanged", "received", "stored", "duplicate", "rejected",
)  # fmt: skip
HOUR_US = 3_600_000_000
PRUNED_A_STEP_MAX = 5_000

NEXT_APPEND = """
INSERT INTO sector_log (sector, append_id) VALUES (%(sector)s, 1)
ON CONFLICT (sector) DO UPDATE SET append_id = sector_log.append_id + 1 RETURNING append_id
"""
INSERT_APPEND = """
INSERT INTO append (sector, id, rows, time_min, time_max, minutes)
VALUES (%(sector)s, %(append_id)s, %(rows)s, %(time_min)s, %(time_max)s,
        %(minutes)s::tstzmultirange)
"""
SELECT_BATCHES = """
SELECT b.gateway, b.boot, b.seq, b.sector, b.format, b.sha256
FROM unnest(%(gateways)s::text[], %(boots)s::text[], %(seqs)s::bigint[]) AS n (gateway, boot, seq)
JOIN batch b USING (gateway, boot, seq)
"""
# A sequence that was pruned and comes again is entered again, but has been counted before.
ENTER_BATCHES = """
WITH n AS (
  SELECT * FROM unnest(
    %(gateway)b::text[], %(boot)b::text[], %(seq)b::bigint[], %(format)b::text[],
    %(sha256)b::bytea[], %(received_at)b::timestamptz[], %(received)b::bigint[],
    %(stored)b::bigint[], %(duplicate)b::bigint[], %(rejected)b::bigint[])
  AS n (gateway, boot, seq, format, sha256, received_at, received, stored, duplicate, rejected)
),
entered AS (
  INSERT INTO batch (gateway, boot, seq, sector, format, sha256, append_id, received_at,
                     received, stored, duplicate, rejected)
  SELECT gateway, boot, seq, %(sector)s, format, sha256, %(append_id)s, received_at,
         received, stored, duplicate, rejected
  FROM n ORDER BY gateway, boot, seq
)
INSERT INTO boot AS b (gateway, boot, sector, format, seq_max, batches, first_seen, last_seen,
                       oldest)
SELECT n.gateway, n.boot, %(sector)s, n.format, max(n.seq),
       count(*) FILTER (WHERE NOT coalesce(n.seq <@ p.seqs, false)),
       min(n.received_at), max(n.received_at), min(n.received_at)
FROM n LEFT JOIN boot_pruned p USING (gateway, boot)
GROUP BY n.gateway, n.boot, n.format ORDER BY n.gateway, n.boot, n.format
ON CONFLICT (gateway, boot, sector, format) DO UPDATE SET
  seq_max = greatest(b.seq_max, excluded.seq_max), batches = b.batches + excluded.batches,
  first_seen = least(b.first_seen, excluded.first_seen),
  last_seen = greatest(b.last_seen, excluded.last_seen), oldest = least(b.oldest, excluded.oldest)
"""
ADD_TO_ACCOUNT = """
WITH n AS (
  SELECT * FROM unnest(
    %(gateway)b::text[], %(sector)b::text[], %(format)b::text[], %(hour)b::timestamptz[],
    %(messages)b::bigint[], %(unchanged)b::bigint[], %(received)b::bigint[], %(stored)b::bigint[],
    %(duplicate)b::bigint[], %(rejected)b::bigint[])
  AS n (gateway, sector, format, hour, messages, unchanged, received, stored, duplicate, rejected)
),
hours AS (
  INSERT INTO account AS a (gateway, sector, format, hour, messages, unchanged, received, stored,
                            duplicate, rejected)
  SELECT * FROM n ORDER BY sector, gateway, format, hour
  ON CONFLICT (gateway, sector, format, hour) DO UPDATE SET
    messages = a.messages + excluded.messages, unchanged = a.unchanged + excluded.unchanged,
    received = a.received + excluded.received, stored = a.stored + excluded.stored,
    duplicate = a.duplicate + excluded.duplicate, rejected = a.rejected + excluded.rejected
)
INSERT INTO account_total AS a (sector, gateway, format, messages, unchanged, received, stored,
                                duplicate, rejected)
SELECT sector, gateway, format, sum(messages), sum(unchanged), sum(received), sum(stored),
       sum(duplicate), sum(rejected)
FROM n GROUP BY sector, gateway, format ORDER BY sector, gateway, format
ON CONFLICT (sector, gateway, format) DO UPDATE SET
  messages = a.messages + excluded.messages, unchanged = a.unchanged + excluded.unchanged,
  received = a.received + excluded.received, stored = a.stored + excluded.stored,
  duplicate = a.duplicate + excluded.duplicate, rejected = a.rejected + excluded.rejected
"""
ADD_TO_REJECTED = """
INSERT INTO rejected_total AS r (sector, reason, items)
SELECT %(sector)s, * FROM unnest(%(reasons)s::text[], %(items)s::bigint[]) ORDER BY 2
ON CONFLICT (sector, reason) DO UPDATE SET items = r.items + excluded.items
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
PRUNE = "SELECT prune_ledger(%s::interval, %s)"
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


def known_batches(
    connection: Session, identities: Sequence[Identity]
) -> dict[Identity, tuple[str, str, bytes]]:
    """Of these identities those already taken: -> (sector, format, SHA-256 of the payload)."""
    if not identities:
        return {}
    gateways, boots, seqs = (list(column) for column in zip(*identities, strict=True))
    found = connection.execute(SELECT_BATCHES, {"gateways": gateways, "boots": boots, "seqs": seqs})
    return {(g, b, s): (sector, form, bytes(digest)) for g, b, s, sector, form, digest in found}


def enter_batches(
    connection: Session, sector: str, append_id: int, entries: Sequence[Entry]
) -> None:
    """Note identified messages as taken, and count them in their boots."""
    if not entries:
        return
    columns = dict(zip(ENTRY_COLUMNS, map(list, zip(*entries, strict=True)), strict=True))
    columns["received_at"] = list(map(to_datetime, columns["received_at"]))
    connection.execute(ENTER_BATCHES, {"sector": sector, "append_id": append_id, **columns})


def add_to_account(connection: Session, totals: Iterable[tuple[Source, Counts]]) -> None:
    """Add counts by source and hour, to the hours and to the sources' totals."""
    rows = [(*source, *astuple(counts)) for source, counts in totals]
    if not rows:
        return
    columns = dict(zip(ACCOUNT_COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    columns["hour"] = list(map(to_datetime, columns["hour"]))
    connection.execute(ADD_TO_ACCOUNT, columns)


def prune(connection: Session, days: int) -> int:
    """Forget identities received longer ago, a bounded step of them; returns how many.

    A repeat of a forgotten batch is entered again, and its rows are recognised one by one as
    duplicates for as long as they are kept themselves. The counts of its boot do not change.
    """
    row = connection.execute(PRUNE, (f"{days} days", PRUNED_A_STEP_MAX)).fetchone()
    return int(row[0]) if row else 0


def add_to_rejected(connection: Session, sector: str, reasons: Mapping[str, int]) -> None:
    """Count rejected items by reason: these counts only grow, whatever becomes of the items."""
    if reasons:
        items = {"reasons": list(reasons), "items": list(reasons.values())}
        connection.execute(ADD_TO_REJECTED, {"sector": sector, **items})


def pending_row(source: Source, received: int, held: int) -> dict[str, Any]:
    """One source's part of a line: what was counted at decode, and what is held."""
    gateway, sector, form, hour = source
    return {
        "gateway": gateway, "sector": sector, "format": form, "hour": to_iso(hour),
        "received": received, "held": held,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pending:
    """One process's line in a sector's account: what it has decoded and not yet committed.

    `version` counts the process's appends in the sector; `rows` are made by `pending_row`. The line
    counts only while the advisory lock `process` is held, so that a killed process's is void at
    once.
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
