"""Pools and sessions: each acts as one role alone, in UTC, and recovers from a cut connection."""

from enum import StrEnum

import psycopg
import pytest

from core.errors import CityError
from core.storage.pool import DatabaseRole, open_session, role_pool


class Nobody(StrEnum):
    """A role that the server does not have."""

    NOBODY = "chimata_nobody"


@pytest.mark.parametrize("role", list(DatabaseRole))
def test_a_session_acts_as_its_role_in_utc(database_url: str, role: DatabaseRole) -> None:
    with open_session(database_url, role) as session:
        assert session.execute("SELECT current_user, current_setting('timezone')").fetchone() == (
            role.value,
            "UTC",
        )


def test_a_session_leaves_no_transaction_open(database_url: str) -> None:
    with open_session(database_url, DatabaseRole.READ) as session:
        assert session.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


def test_a_reader_may_write_nothing_and_see_nothing_personal(database_url: str) -> None:
    with open_session(database_url, DatabaseRole.READ) as session:
        for statement in (
            "INSERT INTO category (text) VALUES ('x')",
            "DELETE FROM observation",
            "SELECT * FROM personal.observation",
            "SELECT * FROM rejection",
            "SELECT maintain_partitions('1 day')",
            "SELECT ensure_partition(now())",
            "CREATE TABLE mine (n integer)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement.encode())
            session.rollback()


def test_the_ingestor_may_not_delete_what_it_stored(database_url: str) -> None:
    with open_session(database_url, DatabaseRole.INGEST) as session:
        for statement in (
            "DELETE FROM observation",
            "DELETE FROM batch",
            "DELETE FROM rejection",
            "DELETE FROM account",
            "DROP TABLE observation",
            "SELECT * FROM personal.observation",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement.encode())
            session.rollback()


def test_a_pool_replaces_a_cut_connection_with_one_of_the_same_role(database_url: str) -> None:
    with role_pool(database_url, DatabaseRole.READ, 1) as pool:
        with pool.connection() as session:
            (before,) = session.execute("SELECT pg_backend_pid()").fetchone() or (None,)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (before,))
        with pool.connection() as session:
            found = session.execute("SELECT pg_backend_pid() <> %s, current_user", (before,))
            assert found.fetchone() == (True, "chimata_read")


def test_a_failed_start_leaks_no_connection(database_url: str) -> None:
    """A server that is not migrated has no such role: each try would leave a session behind."""
    with psycopg.connect(database_url, autocommit=True) as watcher:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        before = watcher.execute(count).fetchone()
        kept = []
        for _ in range(3):
            with pytest.raises(psycopg.Error) as caught:
                open_session(database_url, Nobody.NOBODY)  # type: ignore[arg-type]
            kept.append(caught.value)  # as a logged error does
        assert watcher.execute(count).fetchone() == before


def test_no_url_is_one_clear_error() -> None:
    for make in (role_pool, open_session):
        with pytest.raises(CityError, match="CHIMATA_DATABASE_URL"):
            make("", DatabaseRole.READ)
