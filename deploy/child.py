"""Child processes that end with their parent, and the processes a killed parent left behind."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

# What a child gets of our environment; secrets in other variables stay here.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that a child runs as, when we are root."""

    uid: int
    gid: int


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """A small environment for a child process."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, **(extra or {})}


def _end_with_parent(death_signal: int, parent: int) -> Callable[[], None] | None:
    """A hook for the forked child: Linux signals it when our thread dies, kill -9 included.

    The kernel watches the forking *thread*, so the hook is set only where that is the main one.
    """
    libc = _LIBC
    if libc is None or threading.current_thread() is not threading.main_thread():
        return None

    def hook() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return hook


def spawn(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    account: Account | None = None,
    death_signal: int = signal.SIGTERM,
) -> "subprocess.Popen[bytes]":
    """Start a child in a process group of its own, so that a terminal's Ctrl-C reaches only us.

    `cwd` is entered before the privileges are dropped: the child may stand in a folder whose
    parents its user cannot enter.
    """
    return subprocess.Popen(  # noqa: S603 - commands are ours, never a shell
        [os.fspath(part) for part in command],
        env=dict(env),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        process_group=0,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        preexec_fn=_end_with_parent(death_signal, os.getpid()),  # noqa: PLW1509 - main thread only
    )


def stop(process: "subprocess.Popen[bytes]", steps: Iterable[tuple[int, float]]) -> int:
    """Send each signal in turn, waiting its seconds, then SIGKILL; return the exit code."""
    for number, seconds in steps:
        if process.poll() is not None:
            break
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    if process.poll() is None:
        process.kill()
    return process.wait()


def standing_in(folder: Path, name: str = "") -> list[psutil.Process]:
    """Processes called `name` whose working folder is `folder`: what a killed parent left."""
    wanted = os.path.realpath(folder)
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if (process.info["name"] or "").startswith(name) and process.cwd() == wanted:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(
    find: Callable[[], list[psutil.Process]],
    steps: Iterable[tuple[int, float]],
    report: Callable[[str], None],
) -> None:
    """End the processes that `find` names: each signal in turn with its seconds, then SIGKILL."""
    for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + seconds
        left = find()
        if not left:
            return
        report(f"ending {len(left)} process(es) of an earlier start")
        for process in left:
            try:
                process.send_signal(number)
            except psutil.Error:
                continue
        while time.monotonic() < deadline:
            if not find():
                return
            time.sleep(0.05)


def memory_bytes(pid: int) -> int:
    """Proportional memory (PSS) of a process and its children, bytes."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in family:
        with contextlib.suppress(psutil.Error):
            total += int(process.memory_full_info().pss)
    return total
