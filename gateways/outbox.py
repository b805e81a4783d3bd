"""The outbox: batches wait on disk until the platform's receipt; nothing else deletes them.

SQLite in WAL mode with synchronous=FULL: when `append` returns, its batches survive kill -9 and a
power cut. Many batches share one commit, so that the disk's fsync is not what limits the gateway.
"""

import fcntl
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import CityError
from gateways.batches import Batch
from gateways.receipts import BatchResult, Receipt

BYTES_MAX = 1 << 30
REFUSED_ROWS_MAX = 10_000
PAGE_BYTES = 16_384  # batches are tens of KiB: fewer, larger pages a payload

SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sector TEXT NOT NULL, format TEXT NOT NULL, boot TEXT NOT NULL, seq INTEGER NOT NULL,
  messages INTEGER NOT NULL, time_us INTEGER, bytes INTEGER NOT NULL, payload BLOB NOT NULL,
  UNIQUE (boot, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS refused (
  id INTEGER PRIMARY KEY, sector TEXT NOT NULL, format TEXT NOT NULL,
  boot TEXT NOT NULL, seq INTEGER NOT NULL, messages INTEGER NOT NULL,
  reason TEXT, detail TEXT, payload BLOB NOT NULL
) STRICT;
"""
INSERT_BATCH = """
INSERT OR IGNORE INTO batches (sector, format, boot, seq, messages, time_us, bytes, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
SELECT_AFTER = """
SELECT id, sector, format, boot, seq, messages, time_us, payload FROM batches
WHERE id > ? ORDER BY id LIMIT ?
"""
SELECT_BY_ID = """
SELECT id, sector, format, boot, seq, messages, time_us, payload FROM batches WHERE id = ?
"""
DELETE_RANGE = """
DELETE FROM batches WHERE boot = ? AND seq BETWEEN ? AND ? RETURNING id, seq, messages, bytes
"""
INSERT_REFUSED = """
INSERT INTO refused (sector, format, boot, seq, messages, reason, detail, payload)
SELECT sector, format, boot, seq, messages, ?, ?, payload FROM batches WHERE boot = ? AND seq = ?
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch in the outbox; `id` grows in the order of appending."""

    id: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch that has its receipt, and has left the outbox."""

    id: int
    boot: str
    messages: int
    result: BatchResult


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch that the platform will not take, and why."""

    batch: Batch
    reason: str | None
    detail: str | None


class Outbox:
    """Store-and-forward of one gateway; one process at a time (a lock file sees to it).

    `path` None keeps it in memory: for live senders whose data is worthless after a restart.
    """

    def __init__(self, path: Path | None, *, bytes_max: int = BYTES_MAX) -> None:
        self.path = path
        self.bytes_max = bytes_max
        self._lock = _lock(path) if path else None
        self._database = sqlite3.connect(
            str(path) if path else ":memory:", isolation_level=None, check_same_thread=False
        )
        for pragma in (f"page_size={PAGE_BYTES}", "journal_mode=WAL", "synchronous=FULL"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.executescript(SCHEMA)
        self.batches: int
        self.bytes: int
        self.batches, self.bytes = self._database.execute(
            "SELECT count(*), coalesce(sum(bytes), 0) FROM batches"
        ).fetchone()

    def close(self) -> None:
        """Release the file for another process."""
        self._database.close()
        if self._lock:
            self._lock.close()

    def has_room(self, batches: Sequence[Batch]) -> bool:
        """Whether these fit; a batch over the bound itself fits an empty outbox."""
        size = sum(len(batch.payload) for batch in batches)
        return self.bytes + size <= self.bytes_max or self.batches == 0

    def append(self, batches: Sequence[Batch]) -> int:
        """Store batches in one commit; how many are new (the same boot and seq is kept once).

        Durable when it returns. CityError `unavailable` when it or its disk is full: the oldest
        are never dropped, so the caller has to wait.
        """
        if not self.has_room(batches):
            raise CityError(
                "unavailable", f"the outbox holds {self.bytes} of {self.bytes_max} bytes: full"
            )
        added = added_bytes = 0
        with _Transaction(self._database):
            for batch in batches:
                size = len(batch.payload)
                row = (batch.sector, batch.format, batch.boot, batch.seq, batch.messages)
                cursor = self._database.execute(
                    INSERT_BATCH, (*row, batch.time_us, size, batch.payload)
                )
                added += cursor.rowcount
                added_bytes += size * cursor.rowcount
        self.batches += added
        self.bytes += added_bytes
        return added

    def after(self, batch_id: int, limit: int) -> list[Waiting]:
        """Waiting batches appended after `batch_id` (0: all), oldest first."""
        return [_waiting(row) for row in self._database.execute(SELECT_AFTER, (batch_id, limit))]

    def get(self, batch_id: int) -> Waiting | None:
        """One waiting batch; None when it has its receipt."""
        row = self._database.execute(SELECT_BY_ID, (batch_id,)).fetchone()
        return _waiting(row) if row else None

    def settle(self, receipts: Iterable[Receipt]) -> list[Settled]:
        """Delete what the receipts say is committed, set aside what they refuse; one commit.

        CityError `unavailable` when the disk is full: nothing is done, try again.
        """
        settled: list[Settled] = []
        freed = 0
        with _Transaction(self._database):
            for receipt in receipts:
                for result in receipt.batches:
                    if result.refused:
                        row = (result.reason, result.detail, receipt.boot, result.seq)
                        self._database.execute(INSERT_REFUSED, row)
                    freed += self._delete(receipt.boot, result.seq, result.seq, result, settled)
                for first, last in receipt.stored:
                    freed += self._delete(receipt.boot, first, last, None, settled)
            self._database.execute(
                "DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?",
                (REFUSED_ROWS_MAX,),
            )
        self.batches -= len(settled)
        self.bytes -= freed
        return settled

    def _delete(
        self, boot: str, first: int, last: int, result: BatchResult | None, out: list[Settled]
    ) -> int:
        freed = 0
        deleted = self._database.execute(DELETE_RANGE, (boot, first, last)).fetchall()
        for batch_id, seq, messages, size in deleted:
            out.append(Settled(batch_id, boot, messages, result or BatchResult(seq, "stored")))
            freed += size
        return freed

    def refused(self) -> list[Refused]:
        """The refused batches that are kept (the newest REFUSED_ROWS_MAX), oldest first."""
        rows = self._database.execute(
            "SELECT sector, format, boot, seq, payload, messages, reason, detail"
            " FROM refused ORDER BY id"
        )
        return [Refused(Batch(*row[:6]), row[6], row[7]) for row in rows]


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK; CityError `unavailable` when the disk is full."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: object, _trace: object) -> None:
        if kind is None:
            self._run("COMMIT")
            return
        self._roll_back()
        if isinstance(error, sqlite3.OperationalError):
            raise _cannot_write(error) from error

    def _run(self, statement: str) -> None:
        try:
            self._database.execute(statement)
        except sqlite3.OperationalError as error:
            self._roll_back()
            raise _cannot_write(error) from error

    def _roll_back(self) -> None:
        if self._database.in_transaction:  # SQLite may have rolled back by itself
            self._database.execute("ROLLBACK")


def _cannot_write(error: sqlite3.OperationalError) -> CityError:
    return CityError("unavailable", f"the outbox cannot be written: {error}")


def _waiting(row: tuple[int, str, str, str, int, int, int | None, bytes]) -> Waiting:
    batch_id, sector, name, boot, seq, messages, time_us, payload = row
    return Waiting(batch_id, Batch(sector, name, boot, seq, payload, messages, time_us))


def _lock(path: Path) -> IO[bytes]:
    """The lock file beside the outbox, held; CityError `conflict` when another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = path.with_name(path.name + ".lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise CityError("conflict", f"another process uses the outbox {path}") from error
    return file
