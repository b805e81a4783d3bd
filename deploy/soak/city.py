"""The platform that a soak shakes: `chimata up` as a user starts it, and how to find its parts.

A test database elsewhere (`--database`) takes the embedded one's place; it is reached through a
proxy of ours, and is itself never killed.
"""

import contextlib
import mmap
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from core.errors import CityError
from core.tokens import Role, issue, load_keys
from deploy import broker, child, postgres
from deploy.soak.proxy import Proxy

READY_SECONDS_MAX = 180.0
END_SECONDS_MAX = 90.0
AGAIN_SECONDS = 1.0
"""A service manager's pause before it starts again what ended."""

CLOCK = '''"""A clock that a soak may set: the offset, nanoseconds, is the file beside this one."""
import mmap, os, time
with open(os.path.join(os.path.dirname(__file__), "offset"), "rb") as _file:
    _offset = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)
_time_ns = time.time_ns
time.time_ns = lambda: _time_ns() + int.from_bytes(_offset[:8], "little", signed=True)
time.time = lambda: time.time_ns() / 1e9
'''


@dataclass
class Clock:
    """The wall clock of the platform's Python processes, by a `sitecustomize` on their path.

    PostgreSQL and the broker keep the machine's own; so does everything that measures durations.
    """

    folder: Path
    _offset: mmap.mmap = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(CLOCK, "utf-8")
        (self.folder / "offset").write_bytes(bytes(8))
        with (self.folder / "offset").open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)

    def set(self, seconds: float) -> None:
        """How far the clock is ahead from now on; 0: it is right again."""
        self._offset[:8] = round(seconds * 1e9).to_bytes(8, "little", signed=True)


class City:
    """One `chimata up`, started again whenever it ends, and its processes by what they do."""

    def __init__(self, folder: Path, data: Path, *, database: str = "", kafka: str = "") -> None:
        """`folder` is for our own files; `data` the platform's."""
        self.folder, self.data = folder, data
        self._given = database
        self._kafka = kafka
        self._http = f"127.0.0.1:{broker.free_port()}"
        self._mqtt = f"127.0.0.1:{broker.free_port()}"
        self.clock = Clock(folder / "clock")
        self.network = {
            "mqtt": Proxy(_address(self._mqtt)), "http": Proxy(_address(self._http)),
        }  # fmt: skip
        self.database_network: Proxy | None = None
        if database:
            url = urlsplit(database)
            self.database_network = Proxy((url.hostname or "127.0.0.1", url.port or 5432))
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self.words: deque[str] = deque(maxlen=200)
        self.expected_end = False
        self._due = 0.0
        self.surprises: list[str] = []
        self.starts = 0
        self.failed_starts = 0
        """Ends before it served: what it was starting was killed, and it said so."""

    @property
    def mqtt_url(self) -> str:
        """Of the broker, through the proxy."""
        return f"mqtt://127.0.0.1:{self.network['mqtt'].port}?version=4"

    @property
    def http_url(self) -> str:
        """Of the API, through the proxy."""
        return f"http://127.0.0.1:{self.network['http'].port}"

    @property
    def kafka_url(self) -> str:
        """Of the Kafka that was named."""
        return f"kafka://{self._kafka}"

    @property
    def database_url(self) -> str:
        """What the platform stores in, not through a proxy; '' while the embedded one is down."""
        return self._given or postgres.running_url(self.data / "postgres") or ""

    @property
    def pid(self) -> int:
        """Of `chimata up`; 0 while it is not running."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process else 0

    @property
    def ready(self) -> bool:
        """Whether this start of it has said that it serves."""
        return self.pid != 0 and self._ready.is_set()

    # -- running ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start `chimata up` without waiting."""
        self._ready.clear()
        self.expected_end = False
        self.starts += 1
        command = [sys.executable, "-m", "deploy.cli", "up", "--data", str(self.data),
                   "--http", self._http, "--mqtt", self._mqtt]  # fmt: skip
        if self.database_network is not None:
            command += ["--database", _through(self._given, self.database_network.port)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.clock.folder), str(Path(__file__).parents[2])]),
            "TERM": "dumb",
        }
        if self._kafka:
            environment["CHIMATA_KAFKA_BOOTSTRAP"] = self._kafka
        self._process = child.spawn(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def wait_until_ready(self) -> None:
        """Wait for `ready`; CityError `unavailable` with its last words otherwise."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not self._ready.is_set():
            if not self.pid or time.monotonic() > deadline:
                raise CityError("unavailable", f"the platform did not start: {self._last_words()}")
            time.sleep(0.05)

    def keep(self) -> None:
        """Start it again when it ended; an end that nobody caused is a surprise."""
        if self.pid:
            return
        if self._due == 0.0:
            if not self.expected_end and not self._ready.is_set():
                self.failed_starts += 1
            elif not self.expected_end:
                self.surprises.append(f"`chimata up` ended by itself: {self._last_words()}")
            self._due = time.monotonic() + AGAIN_SECONDS
        elif time.monotonic() >= self._due:
            self._due = 0.0
            self.start()

    def stop(self) -> None:
        """Ctrl-C, and whatever is left after it is a surprise."""
        if self._process is not None and self.pid:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.surprises.append("`chimata up` did not end when asked")
                self._process.kill()
                self._process.wait()
        for proxy in (*self.network.values(), self.database_network):
            if proxy is not None:
                proxy.close()

    def token(self, gateway: str) -> str:
        """A gateway's token of the platform's own issuer."""
        keys = load_keys(self.data / "keys")
        return issue(keys, Role.GATEWAY, gateway=gateway)

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            return
        with process.stdout as words, (self.folder / "up.log").open("ab") as log:
            for line in words:
                text = line.decode("utf-8", "replace").rstrip()
                self.words.append(text)
                if text.startswith("ready http"):
                    self._ready.set()
                with contextlib.suppress(OSError):
                    log.write(line)
                    log.flush()

    def _last_words(self) -> str:
        return " | ".join(list(self.words)[-3:]) or "it said nothing"

    # -- its processes ----------------------------------------------------------------------------

    def find(self, part: str) -> list[psutil.Process]:
        """The processes of a row of PARTS that run now."""
        if not self.pid:
            return []
        with contextlib.suppress(psutil.Error):
            up = psutil.Process(self.pid)
            return PARTS[part](up)
        return []

    def memory_bytes(self, part: str) -> int:
        """Resident memory of a part now."""
        total = 0
        for process in self.find(part):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total


def _named(up: psutil.Process, *words: str) -> list[psutil.Process]:
    found = []
    for each in up.children():
        with contextlib.suppress(psutil.Error):
            line = each.cmdline()
            if line and all(word in line or Path(line[0]).name == word for word in words):
                found.append(each)
    return found


def _backends(up: psutil.Process) -> list[psutil.Process]:
    """Sessions of the platform; the server's own processes have other titles."""
    found = []
    for postmaster in _named(up, "postgres"):
        for each in postmaster.children():
            with contextlib.suppress(psutil.Error):
                if " ".join(each.cmdline()).startswith(f"postgres: {postgres.OWNER} "):
                    found.append(each)
    return found


PARTS: dict[str, Callable[[psutil.Process], list[psutil.Process]]] = {
    "up": lambda up: [up],
    "ingestor": lambda up: [*_named(up, "ingest", "mqtt"), *_named(up, "ingest", "kafka")],
    "api": lambda up: _named(up, "serve"),
    "broker": lambda up: _named(up, "nats-server"),
    "postmaster": lambda up: _named(up, "postgres"),
    "database": lambda up: [
        each for master in _named(up, "postgres") for each in (master, *master.children())
    ],
    "backend": _backends,
}


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _through(url: str, port: int) -> str:
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{port}").geturl()
