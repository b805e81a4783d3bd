"""A whole running platform for tests: the real `chimata up`, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kafka_server import free_port

CHIMATA = Path(sys.executable).parent / "chimata"
READY_SECONDS_MAX = 120.0
END_SECONDS_MAX = 60.0


@dataclass
class Platform:
    """One `chimata up`: `url` of its API, `mqtt` of its broker, `data` its folder."""

    url: str
    mqtt: str
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    def chimata(self, *arguments: str) -> str:
        """Run another `chimata` command against the same data folder; its standard output."""
        command = [str(CHIMATA), *arguments, "--data", str(self.data)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def token(self, role: str, *arguments: str) -> str:
        """A bearer token as `chimata token issue` prints it."""
        return self.chimata("token", "issue", "--role", role, *arguments).strip()

    def end(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=END_SECONDS_MAX)


@contextmanager
def running(
    data: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Platform]:
    """`chimata up` on free ports until the block ends; fails with its output if it never serves.

    `environment` is added to the tests' own.
    """
    http, mqtt = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [str(CHIMATA), "up", "--data", str(data), "--http", http, "--mqtt", mqtt, *arguments]
    data.parent.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, "TERM": "dumb", "COLUMNS": "200", **(environment or {})},
        )  # fmt: skip
    platform = Platform(f"http://{http}", f"mqtt://{mqtt}", data, process, log)
    try:
        _wait_until_ready(platform)
        yield platform
    finally:
        if process.poll() is None:
            try:
                platform.end()
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=END_SECONDS_MAX)


def _wait_until_ready(platform: Platform) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not re.search(r"^ready http", platform.log.read_text("utf-8", "replace"), re.M):
        if platform.process.poll() is not None or time.monotonic() > deadline:
            code = platform.process.poll()
            raise AssertionError(f"chimata up: code {code}\n{platform.log.read_text()[-3000:]}")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The demo city, once a session: read it, do not disturb it."""
    with running(tmp_path_factory.mktemp("demo") / "data", "--demo") as platform:
        yield platform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """An empty platform for the tests of one module."""
    with running(tmp_path_factory.mktemp("platform") / "data") as started:
        yield started
