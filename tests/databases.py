"""Databases for tests: one embedded PostgreSQL a session, a fresh migrated database a test."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from core.storage.migrate import migrate
from deploy import postgres
from tests.require import timescale_url

FAST = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
    "max_wal_size": "256MB",
}  # fmt: skip
IN_MEMORY, FREE_BYTES_MIN = Path("/dev/shm"), 4 << 30
"""A copy of the template is some 800 files: 15 ms in memory, half a second on some disks."""
TEMPLATE = "chimata_test_template"

CREATE_DATABASE = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
DROP_DATABASE = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")

_numbers = itertools.count(1)


def fresh_name() -> str:
    """A database name that no other test and no other run on the same server has."""
    return f"chimata_test_{os.getpid()}_{next(_numbers)}"


@pytest.fixture(scope="session")
def database_server() -> Iterator[postgres.Server]:
    """The session's embedded PostgreSQL, without fsync: tests of crashes start their own."""
    has_room = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= FREE_BYTES_MIN
    with TemporaryDirectory(prefix="chimata-", dir=IN_MEMORY if has_room else None) as folder:
        server = postgres.start(Path(folder) / "postgres", options=FAST)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def database_template(database_server: postgres.Server) -> postgres.Server:
    """The same server with a migrated template, copied for each test in place of migrating."""
    migrate(database_server.create_database(TEMPLATE))
    return database_server


@contextmanager
def copied(server: postgres.Server) -> Iterator[str]:
    """A fresh migrated database for the length of a block; its libpq URL."""
    name = fresh_name()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(CREATE_DATABASE.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
    try:
        yield server.url_of(name)
    finally:
        server.drop_database(name)


@contextmanager
def migrated_timescale(admin_url: str) -> Iterator[str]:
    """The same on a TimescaleDB server: its workers hold templates open, so each one migrates."""
    name = fresh_name()
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = urlunsplit(urlsplit(admin_url)._replace(path=f"/{name}"))
    try:
        migrate(url)
        yield url
    finally:
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute(DROP_DATABASE.format(sql.Identifier(name)))


@pytest.fixture
def database_url(database_template: postgres.Server) -> Iterator[str]:
    """A fresh migrated database for one test."""
    with copied(database_template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(database_template: postgres.Server) -> Iterator[str]:
    """A fresh migrated database for the tests of one module."""
    with copied(database_template) as url:
        yield url


@pytest.fixture(params=["native", pytest.param("timescale", marks=pytest.mark.timescale)])
def storage_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh migrated database on either kind of server: the storage contract holds on both."""
    if request.param == "timescale":
        with migrated_timescale(timescale_url()) as url:
            yield url
    else:
        with copied(request.getfixturevalue("database_template")) as url:
            yield url
