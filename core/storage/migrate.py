"""Plain SQL migrations, forward only: a ledger of (group, name, sha256) says what is applied."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from core.errors import CityError

ROOT = Path(__file__).parents[2]
LOCK = 0x43484D54  # one migration at a time on one database ("CHMT")
ATTEMPTS = 5
OUTSIDE_TRANSACTION = "-- transaction: none"

CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS migration (
  "group" text NOT NULL, name text NOT NULL, sha256 text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY ("group", name))
"""
SELECT_APPLIED = 'SELECT "group", name, sha256 FROM migration'
INSERT_APPLIED = 'INSERT INTO migration ("group", name, sha256) VALUES (%s, %s, %s)'
SELECT_TIMESCALE = "SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'timescaledb'"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: NAME.sql for every server, NAME.native.sql or NAME.timescale.sql for a kind."""

    group: str
    name: str
    text: str

    @property
    def label(self) -> str:
        """How it is named to people."""
        return f"{self.group}/{self.name}"

    @property
    def sha256(self) -> str:
        """What the ledger keeps: an applied file must never change."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def found(root: Path, *, timescale: bool) -> Iterator[Migration]:
    """Every migration for this kind of server: core first, then consent, then the sectors."""
    other = ".native.sql" if timescale else ".timescale.sql"
    folders = [("core", root / "core"), ("consent", root / "consent")]
    folders += [(f"domains.{p.name}", p) for p in sorted((root / "domains").glob("*/"))]
    for group, folder in folders:
        for path in sorted((folder / "migrations").glob("[0-9][0-9][0-9][0-9]_*.sql")):
            if not path.name.endswith(other):
                yield Migration(group, path.name, path.read_text("utf-8"))


def migrate(database_url: str, root: Path = ROOT) -> list[str]:
    """Apply what is missing, return its names; CityError `conflict` if an applied file changed."""
    applied_now = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute(CREATE_LEDGER)
        applied = {(g, n): digest for g, n, digest in connection.execute(SELECT_APPLIED)}
        migrations = list(found(root, timescale=has_timescale(connection)))
        for migration in migrations:  # all are looked at before any is applied
            known = applied.get((migration.group, migration.name))
            if known not in (None, migration.sha256):
                raise CityError("conflict", f"{migration.label} was edited after it was applied")
        for migration in migrations:
            if (migration.group, migration.name) not in applied:
                _apply(connection, migration)
                applied_now.append(migration.label)
    return applied_now


def has_timescale(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether this server offers TimescaleDB."""
    row = connection.execute(SELECT_TIMESCALE).fetchone()
    return bool(row and row[0])


def _apply(connection: psycopg.Connection[tuple[object, ...]], migration: Migration) -> None:
    entry = (migration.group, migration.name, migration.sha256)
    if migration.text.startswith(OUTSIDE_TRANSACTION):
        # Such a file must be idempotent: a crash between its statements runs it again.
        for statement in migration.text.split(";\n"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute(INSERT_APPLIED, entry)
        return
    for left in reversed(range(ATTEMPTS)):
        try:
            with connection.transaction():
                connection.execute(migration.text.encode())
                connection.execute(INSERT_APPLIED, entry)
        except psycopg.errors.InternalError_:
            # TimescaleDB's scheduler writes the very catalogue rows that go with what we drop.
            if not left:
                raise
        else:
            return
