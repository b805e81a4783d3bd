"""One pool a database role, so that a query can only do what its role may."""

from enum import StrEnum
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg_pool import ConnectionPool

from core.errors import CityError

ACQUIRE_SECONDS_MAX = 10.0
CONNECT_SECONDS_MAX = 5
# A server that vanished without a word is noticed in half a minute, not after hours.
CONNECT: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS_MAX,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}

Session = Connection[tuple[Any, ...]]

SELECT_NATIVE = "SELECT to_regclass('partition_range') IS NOT NULL"


class DatabaseRole(StrEnum):
    """The three doors into the database; chimata_gate is opened by consent.gate alone."""

    INGEST = "chimata_ingest"
    READ = "chimata_read"
    GATE = "chimata_gate"


def role_pool(
    database_url: str, role: DatabaseRole, connections_max: int = 8
) -> ConnectionPool[Session]:
    """An open pool whose connections act as `role`; times are UTC whatever the server's zone is."""
    if not database_url:
        raise CityError("unavailable", "CHIMATA_DATABASE_URL is not set")

    def configure(session: Session) -> None:
        _assume(session, role)

    return ConnectionPool(
        database_url,
        kwargs=CONNECT,
        min_size=0,
        max_size=connections_max,
        max_idle=60,
        timeout=ACQUIRE_SECONDS_MAX,
        configure=configure,
        check=ConnectionPool.check_connection,
        open=True,
        name=role.value,
    )


def open_session(database_url: str, role: DatabaseRole) -> Session:
    """One connection of one role, for the threads that keep theirs."""
    if not database_url:
        raise CityError("unavailable", "CHIMATA_DATABASE_URL is not set")
    session: Session = psycopg.connect(database_url, **CONNECT)
    try:
        _assume(session, role)
    except BaseException:
        session.close()
        raise
    return session


def is_native(session: Session) -> bool:
    """Whether this database was migrated for plain PostgreSQL, not for TimescaleDB."""
    row = session.execute(SELECT_NATIVE).fetchone()
    return bool(row and row[0])


def _assume(session: Session, role: DatabaseRole) -> None:
    session.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role.value)))
    session.execute("SET timezone = 'UTC'")
    session.commit()
