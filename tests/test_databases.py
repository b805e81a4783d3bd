"""The test databases are migrated, and no test sees another's rows."""

import psycopg

COUNT_MIGRATIONS = "SELECT count(*) FROM migration"


def count_migrations(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(COUNT_MIGRATIONS).fetchone()
    assert row is not None
    return int(row[0])


def test_fresh_and_migrated(database_url: str, module_database_url: str) -> None:
    """Two copies of one template: a row in one is not in the other."""
    before = count_migrations(module_database_url)
    assert before > 0
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM migration")
    assert count_migrations(database_url) == 0
    assert count_migrations(module_database_url) == before


def test_storage_url(storage_url: str) -> None:
    """Each kind of server gives a migrated database."""
    assert count_migrations(storage_url) > 0
