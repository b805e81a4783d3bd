"""Migrations: applied once, in order, whole or not at all, and never edited afterwards."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.errors import CityError
from core.storage.account import account
from core.storage.gateways import gaps, gateways
from core.storage.migrate import ROOT, found, migrate
from deploy import postgres
from tests.databases import fresh_name


@pytest.fixture
def empty_url(database_server: postgres.Server) -> Iterator[str]:
    """A database in which nothing was made yet."""
    name = fresh_name()
    url = database_server.create_database(name)
    yield url
    database_server.drop_database(name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree of migrations: core, consent, two sectors."""
    write(tmp_path, "core", "0001_first.sql", "CREATE TABLE a (n integer);")
    write(tmp_path, "core", "0002_kind.native.sql", "CREATE TABLE native (n integer);")
    write(tmp_path, "core", "0002_kind.timescale.sql", "CREATE TABLE timescale (n integer);")
    write(tmp_path, "consent", "0001_view.sql", "CREATE VIEW v AS SELECT n FROM a;")
    write(tmp_path, "domains/water", "0001_view.sql", "CREATE VIEW water AS SELECT n FROM v;")
    (tmp_path / "domains" / "bare").mkdir()
    return tmp_path


def write(root: Path, group: str, name: str, text: str) -> None:
    folder = root / group / "migrations"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, "utf-8")


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'v')"
        ).fetchall()
    return {row[0] for row in rows}


def test_each_is_applied_once_core_first(empty_url: str, tree: Path) -> None:
    assert migrate(empty_url, tree) == [
        "core/0001_first.sql",
        "core/0002_kind.native.sql",
        "consent/0001_view.sql",
        "domains.water/0001_view.sql",
    ]
    assert migrate(empty_url, tree) == []
    assert tables(empty_url) == {"migration", "a", "native", "v", "water"}


def test_a_later_one_is_added(empty_url: str, tree: Path) -> None:
    migrate(empty_url, tree)
    write(tree, "core", "0003_more.sql", "CREATE TABLE b (n integer);")
    write(tree, "domains/land", "0001_view.sql", "CREATE VIEW land AS SELECT n FROM b;")
    assert migrate(empty_url, tree) == ["core/0003_more.sql", "domains.land/0001_view.sql"]


def test_an_edited_file_is_refused_and_nothing_else_is_applied(empty_url: str, tree: Path) -> None:
    migrate(empty_url, tree)
    write(tree, "core", "0003_more.sql", "CREATE TABLE b (n integer);")
    write(tree, "domains/water", "0001_view.sql", "CREATE VIEW water AS SELECT n + 1 AS n FROM v;")
    with pytest.raises(CityError, match=r"domains\.water/0001_view\.sql was edited") as caught:
        migrate(empty_url, tree)
    assert caught.value.slug == "conflict"
    assert "b" not in tables(empty_url)


def test_a_failure_leaves_nothing_of_its_file_and_can_be_mended(empty_url: str, tree: Path) -> None:
    write(tree, "core", "0003_bad.sql", "CREATE TABLE half (n integer); SELECT 1/0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url, tree)
    assert "half" not in tables(empty_url)
    assert "native" in tables(empty_url)
    write(tree, "core", "0003_bad.sql", "CREATE TABLE half (n integer);")
    assert migrate(empty_url, tree)[0] == "core/0003_bad.sql"


def test_one_outside_a_transaction_is_taken_up_after_a_failure(empty_url: str, tree: Path) -> None:
    text = (
        "-- transaction: none\nCREATE TABLE IF NOT EXISTS one (n integer);\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS one_n ON one (n);\n"
    )
    write(tree, "core", "0003_apart.sql", text + "SELECT 1/0;\n")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url, tree)
    assert "one" in tables(empty_url)
    write(tree, "core", "0003_apart.sql", text)
    assert migrate(empty_url, tree)[0] == "core/0003_apart.sql"


MIGRATE = """
import sys
from core.storage.account import account
from core.storage.gateways import gaps, gateways
from core.storage.migrate import migrate
print(len(migrate(sys.argv[1])))
"""


def test_processes_that_start_together_migrate_once(empty_url: str, root: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    expected = len(list(found(ROOT, timescale=False)))
    assert sorted(int(out) for out, _ in answers) == [0, 0, expected]


def test_databases_of_one_server_migrate_at_the_same_time(
    database_server: postgres.Server, root: Path
) -> None:
    """Roles belong to the server: the databases race for them."""
    names = [fresh_name() for _ in range(3)]
    urls = [database_server.create_database(name) for name in names]
    try:
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", MIGRATE, url],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            for url in urls
        ]
        answers = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], answers
    finally:
        for name in names:
            database_server.drop_database(name)


def test_every_shipped_file_is_found_and_named_in_order() -> None:
    for timescale in (False, True):
        shipped = list(found(ROOT, timescale=timescale))
        other = ".native.sql" if timescale else ".timescale.sql"
        assert not any(each.name.endswith(other) for each in shipped)
        for group in {each.group for each in shipped}:
            names = [each.name for each in shipped if each.group == group]
            assert names == sorted(names)


def test_what_the_account_had_is_converted(empty_url: str, tmp_path: Path) -> None:
    """0009 finds totals, boots, reasons and gateways in what was stored before it."""
    for migration in found(ROOT, timescale=False):
        if migration.group == "core" and migration.name < "0007":
            write(tmp_path, "core", migration.name, migration.text)
    migrate(empty_url, tmp_path)
    with psycopg.connect(empty_url) as connection:
        for hour in ("2026-01-01T00:00Z", "2026-01-01T01:00Z"):
            connection.execute(
                "INSERT INTO account VALUES ('g', 'farms', 'json', %s, 5, 1, 4, 2, 1, 1)", (hour,)
            )
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO batch VALUES ('g', %s, %s, %s, 'json', 'x', 1, %s, 1, 1, 0, 0)",
                [
                    ("b", 0, "farms", "2026-01-01T00:10Z"),
                    ("b", 4, "farms", "2026-01-01T01:10Z"),
                    ("b", 2, "ports", "2026-01-01T00:20Z"),
                    ("c", 1, "farms", "2026-01-01T00:30Z"),
                ],
            )
        connection.execute(
            "INSERT INTO rejection (sector, gateway, format, channel, item, reason, detail, sha256,"
            " payload, count, first_seen, last_seen) VALUES ('farms', 'g', 'json', 'http', 0,"
            " 'bad-time', '', 'x', 'x', 7, now(), now())"
        )
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("SET timezone = 'UTC'")
        (total,) = account(connection)
        assert (total.messages, total.received, total.missing) == (10, 8, 2 + 1)
        assert [gap.count for gap in gaps(connection, "g")[0]] == [1, 1, 1]
        assert connection.execute("SELECT * FROM rejected_total").fetchall() == [
            ("farms", "bad-time", 7)
        ]
        (gateway,) = gateways(connection)
        assert gateway.first_seen is not None and gateway.last_seen is not None
        assert (gateway.id, gateway.first_seen.hour, gateway.last_seen.hour) == ("g", 0, 1)
        oldest = connection.execute(
            "SELECT boot, sector, oldest FROM boot ORDER BY 1, 2"
        ).fetchall()
        assert [(boot, sector, at.minute) for boot, sector, at in oldest] == [
            ("b", "farms", 10), ("b", "ports", 20), ("c", "farms", 30),
        ]  # fmt: skip
