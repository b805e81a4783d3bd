"""Keeps the parts of the platform running: starts them, and starts again what dies."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.errors import CityError
from deploy import child

BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FAILURES_MAX = 15
STEADY_SECONDS = 10.0
LOG_BYTES_MAX = 10 * 1024 * 1024
STOP_SECONDS_MAX = 20.0

Report = Callable[[str], None]


class Part(Protocol):
    """One part of the platform: a server or a process that has to run."""

    name: str

    def launch(self) -> None:
        """Start it, or start it again; CityError when that is impossible now."""

    def is_alive(self) -> bool:
        """Whether it runs."""


class PythonPart:
    """A `chimata` command as a child; its words go to a log, and the line `ready` is heard.

    The child reads its standard input: that ends when we die, on every system and however we die.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], env: Mapping[str, str], run: Path
    ) -> None:
        """`run` is the folder that the child stands in and its log is in."""
        self.name = name
        self.log = run / f"{name}.log"
        self._command = [sys.executable, "-m", module, *arguments]
        self._env = dict(env)
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._last_words: deque[str] = deque(maxlen=20)

    @property
    def pid(self) -> int:
        """Process id of the child; 0 before the first start."""
        return self._process.pid if self._process else 0

    def launch(self) -> None:
        """Start the child."""
        self._ready.clear()
        self._last_words.clear()
        self._process = child.spawn(
            self._command,
            env=self._env,
            cwd=self._run,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(
            target=self._listen, args=(self._process,), name=f"{self.name}-log", daemon=True
        ).start()

    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process is not None and self._process.poll() is None

    def was_killed(self) -> bool:
        """Whether a signal ended it: nothing is wrong with it, and it may be started again."""
        return self._process is not None and (self._process.poll() or 0) < 0

    def is_ready(self) -> bool:
        """Whether this start has said `ready`."""
        return self._ready.is_set()

    def why(self) -> str:
        """The last thing that the child said."""
        words = [line for line in self._last_words if line]
        return words[-1] if words else "it left no message"

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""
        if self.is_alive() and self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """End the child: SIGTERM, then SIGKILL after STOP_SECONDS_MAX."""
        if self._process is not None:
            child.stop(self._process, ((signal.SIGTERM, STOP_SECONDS_MAX),))
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        if process.stdout is None:
            return
        with process.stdout as words:
            for line in words:
                text = line.decode("utf-8", "replace").rstrip()
                self._last_words.append(text)
                if text == "ready":
                    self._ready.set()
                else:
                    self._write(line)

    def _write(self, line: bytes) -> None:
        """Append to the log; it is cut in two generations, so that it stays bounded."""
        with contextlib.suppress(OSError):  # a full disk must not stop the child's words
            if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
                shutil.move(self.log, self.log.with_suffix(".log.1"))
            with self.log.open("ab") as file:
                file.write(line)


@dataclass(slots=True)
class _Watched:
    part: Part
    failures: int = 0
    launched_at: float = 0.0
    due_at: float | None = None


@dataclass(slots=True)
class Supervisor:
    """Starts again what dies, later and later, and gives up after FAILURES_MAX in a row.

    Call `tick` from the main thread: children end with the thread that started them.
    """

    report: Report
    disk_is_full: Callable[[], bool] = lambda: False
    """Then nothing can be kept running, and giving up would not make room."""
    _watched: list[_Watched] = field(default_factory=list)

    def watch(self, part: Part) -> None:
        """Take a part that runs under watch."""
        self._watched.append(_Watched(part, launched_at=time.monotonic()))

    def tick(self) -> None:
        """Look once; CityError `unavailable` when a part cannot be kept running."""
        for watched in self._watched:
            self._look(watched, time.monotonic())

    def _look(self, watched: _Watched, now: float) -> None:
        if watched.due_at is None:
            if watched.part.is_alive():
                if now - watched.launched_at > STEADY_SECONDS:
                    watched.failures = 0
                return
            self._failed(watched, now, "ended")
        if watched.due_at is not None and watched.due_at <= now:
            watched.due_at, watched.launched_at = None, now
            try:
                watched.part.launch()
            except (CityError, OSError) as error:
                self._failed(watched, now, str(error))

    def _failed(self, watched: _Watched, now: float, reason: str) -> None:
        watched.failures += 1
        name = watched.part.name
        if watched.failures > FAILURES_MAX and self.disk_is_full():
            watched.failures = FAILURES_MAX
        if watched.failures > FAILURES_MAX:
            raise CityError("unavailable", f"{name} does not stay up ({reason}): see the logs")
        wait = BACKOFF_SECONDS[min(watched.failures, len(BACKOFF_SECONDS)) - 1]
        self.report(f"{name}: {reason}; starting it again in {wait:g} s")
        watched.due_at = now + wait


def end_with_parent() -> None:
    """In a child: ask ourselves to end when standard input ends, that is when the parent died."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_SECONDS_MAX)
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
