"""Supervision of real child processes: started again, given up on, ended with their parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.errors import CityError
from deploy import child, supervise

# A package with commands, as `python -m` runs them.
WORKER = """
import sys, time, signal
print("a word", flush=True)
if sys.argv[1] == "fail":
    sys.exit("no luck")
if sys.argv[1] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
from deploy import supervise
supervise.end_with_parent()
print("ready", flush=True)
while True:
    time.sleep(60)
"""

PARENT = """
import sys, time
from pathlib import Path
from deploy import supervise
run = Path(sys.argv[1])
env = {"PYTHONPATH": sys.argv[2]}
part = supervise.PythonPart("worker", "worker_for_tests", ["run"], env, run)
part.launch()
while not part.is_ready():
    time.sleep(0.02)
print(part.pid, flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def path(tmp_path: Path, root: Path) -> str:
    (tmp_path / "worker_for_tests.py").write_text(WORKER)
    (tmp_path / "run").mkdir()
    return os.pathsep.join((str(tmp_path), str(root)))


def part(tmp_path: Path, path: str, word: str) -> supervise.PythonPart:
    env = child.environment({"PYTHONPATH": path})
    return supervise.PythonPart("worker", "worker_for_tests", [word], env, tmp_path / "run")


def test_it_hears_ready_and_keeps_the_words(tmp_path: Path, path: str) -> None:
    worker = part(tmp_path, path, "run")
    worker.launch()
    try:
        assert wait_for(worker.is_ready)
        assert worker.log.read_text() == "a word\n"
    finally:
        worker.stop()
    assert not worker.is_alive()


def test_what_dies_is_started_again(tmp_path: Path, path: str) -> None:
    worker = part(tmp_path, path, "run")
    worker.launch()
    said: list[str] = []
    supervisor = supervise.Supervisor(said.append)
    supervisor.watch(worker)
    try:
        for _ in range(2):
            assert wait_for(worker.is_ready)
            first = worker.pid
            os.kill(first, signal.SIGKILL)
            assert wait_for(lambda: not worker.is_alive())

            def again(before: int = first) -> bool:
                supervisor.tick()
                return worker.pid != before and worker.is_alive()

            assert wait_for(again)
        assert any("starting it again" in line for line in said)
    finally:
        worker.stop()


def test_what_never_stays_up_is_given_up_on(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(supervise, "FAILURES_MAX", 3)
    worker = part(tmp_path, path, "fail")
    worker.launch()
    supervisor = supervise.Supervisor(lambda _line: None)
    supervisor.watch(worker)

    def tick() -> bool:
        supervisor.tick()
        return False

    with pytest.raises(CityError, match="worker does not stay up"):
        wait_for(tick, 30.0)
    assert wait_for(lambda: worker.why() == "no luck")


def test_a_deaf_child_is_killed(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "STOP_SECONDS_MAX", 0.3)
    worker = part(tmp_path, path, "deaf")
    worker.launch()
    assert wait_for(worker.is_ready)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 5.0
    assert has_ended(worker.pid)


def test_children_end_with_a_killed_parent(tmp_path: Path, path: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "run"), path],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert [p.pid for p in child.standing_in(tmp_path / "run")] == [pid]
    parent.kill()
    parent.wait()
    assert wait_for(lambda: has_ended(pid))


def test_leftovers_are_ended_even_when_they_are_deaf(tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    left = child.spawn(
        [sys.executable, "-c", "import signal,time; signal.signal(15, signal.SIG_IGN);"
         "print('up', flush=True); time.sleep(600)"],
        env={}, cwd=run, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert left.stdout is not None
    left.stdout.readline()
    child.end_all(lambda: child.standing_in(run), ((signal.SIGTERM, 0.3),), lambda _line: None)
    assert left.wait(5) == -signal.SIGKILL


def test_a_child_gets_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hidden")
    assert "SOME_API_KEY" not in child.environment({"A": "b"})
    assert child.environment({"A": "b"})["A"] == "b"


def test_a_log_stays_bounded(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "LOG_BYTES_MAX", 10)
    worker = part(tmp_path, path, "run")
    for _ in range(4):
        worker.launch()
        assert wait_for(worker.is_ready)
        worker.stop()
    assert worker.log.stat().st_size <= 20
    assert worker.log.with_suffix(".log.1").stat().st_size <= 20


def test_a_full_disk_is_waited_for(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing stays up on one, and giving up would not make room."""
    monkeypatch.setattr(supervise, "BACKOFF_SECONDS", (0.0,))
    full = True
    supervisor = supervise.Supervisor(lambda _line: None, lambda: full)
    failing = part(tmp_path, path, "fail")
    failing.launch()
    supervisor.watch(failing)
    starts = {failing.pid}
    while len(starts) <= supervise.FAILURES_MAX + 3:
        supervisor.tick()
        starts.add(failing.pid)
    full = False
    with pytest.raises(CityError, match="does not stay up"):
        while True:
            supervisor.tick()
