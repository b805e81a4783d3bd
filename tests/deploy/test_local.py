"""`chimata up` as people run it: real processes, every way of ending, every way of dying."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
import psutil
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from core import tokens
from deploy import broker, child, postgres

ROOT = Path(__file__).parents[2]
START_SECONDS = 90.0
MEMORY_BYTES_MAX = 500 * 10**6


class Up:
    """One running `chimata up`."""

    def __init__(
        self, data: Path, *extra: str, python: str = sys.executable, uid: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.data = data
        self.mqtt = ("127.0.0.1", broker.free_port())
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CHIMATA_")}
        self.process = subprocess.Popen(
            [python, "-m", "deploy.cli", "up", "--data", str(data), "--http", "127.0.0.1:0",
             "--mqtt", f"127.0.0.1:{self.mqtt[1]}", *extra],
            cwd=ROOT, env={**clean, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, user=uid, group=uid, extra_groups=[] if uid else None,
        )  # fmt: skip
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.url = ""
        self.host, self.port = "", 0

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)

    def wait(self) -> "Up":
        """Until `ready URL`, the only line on standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.fullmatch(r"ready (http://\S+)\n", line)
        assert match, (line, self.said)
        self.url = match[1]
        parts = urlsplit(self.url)
        self.host, self.port = str(parts.hostname), int(parts.port or 0)
        return self

    def family(self) -> list[psutil.Process]:
        return [self_ := psutil.Process(self.process.pid), *self_.children(recursive=True)]

    def end(self, number: int = signal.SIGTERM) -> int:
        os.killpg(self.process.pid, number)
        return self.process.wait(60)

    def get(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if body[:1] == b"{" else body
        finally:
            connection.close()

    def child_called(self, *words: str) -> psutil.Process:
        """The child of `up` whose command line holds the words."""
        for process in psutil.Process(self.process.pid).children():
            try:
                named = {process.name(), *process.cmdline()}
            except psutil.Error:
                continue
            if named >= set(words):
                return process
        raise AssertionError(words)

    def account(self) -> dict[str, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "account", "--json", "--data", str(self.data)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return {row["gateway"]: row for row in json.loads(done.stdout)["sources"]}


class Sender:
    """A gateway without an outbox: publishes on MQTT 3.1.1 and takes its receipts."""

    def __init__(self, up: Up, gateway: str) -> None:
        keys = tokens.load_keys(up.data / "keys")
        self.gateway = gateway
        self.receipts: dict[int, str] = {}
        self.mqtt = paho.Client(
            CallbackAPIVersion.VERSION2, gateway, clean_session=False, protocol=paho.MQTTv311
        )
        self.mqtt.username_pw_set(gateway, tokens.issue(keys, tokens.Role.GATEWAY, gateway=gateway))
        self.mqtt.reconnect_delay_set(1, 1)
        self.mqtt.on_connect = lambda c, _u, _f, _r, _p: c.subscribe(
            f"chimata/v1/receipts/{gateway}", 1
        )
        subscribed = threading.Event()
        self.mqtt.on_subscribe = lambda *_: subscribed.set()
        self.mqtt.on_message = self._received
        self.mqtt.connect(*up.mqtt)
        self.mqtt.loop_start()
        assert subscribed.wait(10)

    def _received(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        for batch in json.loads(message.payload)["batches"]:
            self.receipts[batch["seq"]] = batch["result"]

    def send(self, seq: int) -> None:
        """One observation; sent again until its receipt comes, as an outbox would."""
        document = {
            "observations": [
                {"thing": f"mast-{self.gateway}", "property": "wind-speed", "result": float(seq),
                 "phenomenon_time": f"2026-01-01T00:{seq // 60:02d}:{seq % 60:02d}Z"}
            ]
        }  # fmt: skip
        topic = f"chimata/v1/ports/{self.gateway}/json/boot-1/{seq}"
        deadline = time.monotonic() + 60
        while seq not in self.receipts and time.monotonic() < deadline:
            self.mqtt.publish(topic, json.dumps(document), 1)
            wait_for(lambda: seq in self.receipts, 3.0)
        assert self.receipts.get(seq) in ("stored", "duplicate"), self.receipts

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie has ended, its parent only does not look."""
    left = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.NoSuchProcess:
            continue
    return left


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("local") / "千歳 港" / "データ"


@pytest.fixture(scope="module")
def city(data: Path) -> Iterator[Up]:
    running = Up(data).wait()
    yield running
    family = running.family()
    assert running.end() == 0, running.said
    assert alive(family) == []


def test_it_serves_on_loopback_only(city: Up) -> None:
    assert city.get("/healthz") == (200, {"status": "ok"})
    listening = set()
    for process in alive(city.family()):
        with suppress(psutil.NoSuchProcess):  # the server's workers come and go
            found = process.net_connections("inet")
            listening |= {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_an_observation_gets_its_receipt_and_is_accounted_for(city: Up) -> None:
    sender = Sender(city, "pier-1")
    sender.send(1)
    sender.close()
    row = city.account()["pier-1"]
    assert (row["received"], row["stored"], row["adds_up"]) == (1, 1, True)
    status, found = city.get("/v1/ports/things/mast-pier-1/observations?property=wind-speed")
    assert status == 200
    assert [o["result"] for o in found["observations"]] == [1.0]


def test_every_part_that_is_killed_comes_back(city: Up) -> None:
    sender = Sender(city, "pier-2")
    sender.send(0)
    victims: list[tuple[str, ...]] = [
        ("ingest", "mqtt"), ("nats-server",), ("postgres",), ("serve",),
    ]  # fmt: skip
    for seq, words in enumerate(victims, start=1):
        victim = city.child_called(*words)
        victim.kill()
        assert wait_for(lambda v=victim: alive([v]) == [])  # type: ignore[misc]
        sender.send(seq)
    # All at once.
    for words in victims:
        if wait_for(lambda w=words: has_child(city, *w)):  # type: ignore[misc]
            city.child_called(*words).kill()
    sender.send(len(victims) + 1)
    sender.close()
    assert wait_for(lambda: answers(city), 30.0)
    row = city.account()["pier-2"]
    assert row["adds_up"]
    assert row["stored"] == len(victims) + 2
    assert row["missing"] == 0


def test_a_part_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    starting = Up(tmp_path / "d")
    for words in (("ingest", "mqtt"), ("serve",)):
        assert wait_for(lambda w=words: has_child(starting, *w), START_SECONDS)  # type: ignore[misc]
        starting.child_called(*words).kill()  # it needs a second to be ready
    try:
        assert starting.wait().get("/healthz")[0] == 200
        assert any("starting it again" in line for line in starting.said)
    finally:
        assert starting.end() == 0


def has_child(up: Up, *words: str) -> bool:
    try:
        return bool(up.child_called(*words))
    except AssertionError:
        return False


def answers(up: Up) -> bool:
    try:
        return up.get("/healthz")[0] == 200
    except OSError:
        return False


def test_the_idle_stack_is_small(city: Up) -> None:
    time.sleep(2.0)
    used = child.memory_bytes(city.process.pid)
    told = {p.pid: (p.name(), p.memory_full_info().pss // 10**6) for p in alive(city.family())}
    assert 0 < used <= MEMORY_BYTES_MAX, told


def test_a_second_up_on_the_same_folder_is_refused(city: Up) -> None:
    second = Up(city.data)
    assert second.process.wait(30) == 1
    wait_for(lambda: bool(second.said))
    assert "is running on" in second.said[-1]
    assert answers(city)


@pytest.mark.parametrize("option", ["--http", "--mqtt"])
def test_a_port_in_use_is_one_clear_line(option: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = Up(tmp_path / "d", option, address)
        assert refused.process.wait(30) == 1
    assert refused.process.stdout is not None
    assert refused.process.stdout.read() == ""
    wait_for(lambda: bool(refused.said))
    assert refused.said[-1].startswith(f"chimata: {address}: ")
    assert f"{option} HOST:PORT" in refused.said[-1]
    assert child.standing_in(tmp_path / "d" / "run") == []


def test_killed_and_started_again_everything_is_still_there(tmp_path: Path) -> None:
    data = tmp_path / "d"
    first = Up(data).wait()
    sender = Sender(first, "pier-9")
    for seq in range(5):
        sender.send(seq)
    sender.close()
    family = first.family()
    first.process.kill()
    first.process.wait()
    second = Up(data).wait()  # at once: it has to take over from what may still be ending
    try:
        assert alive(family) == []
        sender = Sender(second, "pier-9")
        sender.send(4)
        assert sender.receipts == {4: "duplicate"}
        sender.send(5)
        sender.close()
        row = second.account()["pier-9"]
        assert row["adds_up"]
        assert row["stored"] == 6
    finally:
        family = second.family()
        code = second.end(signal.SIGINT)  # as a terminal sends it: to the whole group
    assert code == 0
    assert alive(family) == []


def test_ended_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for seconds in (0.3, 1.0, 1.8):
        starting = Up(data)
        time.sleep(seconds)
        family = starting.family()
        code = starting.end(signal.SIGINT)
        assert code in (0, 130, -signal.SIGINT)  # before Python is up, the signal itself
        assert alive(family) == []
        assert child.standing_in(data / "postgres" / "cluster", "postgres") == []
    assert Up(data).wait().end() == 0


def test_the_demo_city_shows_every_sector_within_the_memory(tmp_path: Path) -> None:
    running = Up(tmp_path / "d", "--demo").wait()
    family = running.family()
    wanted = {"signals": 300, "ports": 60, "edge": 40, "farms": 200}
    try:
        for sector, things in wanted.items():
            assert wait_for(lambda s=sector, n=things: shown(running, s) >= n, 60.0)  # type: ignore[misc]
        # The demo's gateways would be elsewhere in a city: what they take is not the platform's.
        simulated = [each.pid for each in running.family() if each.cmdline()[-1:] == ["demo"]]
        used = child.memory_bytes(running.process.pid) - sum(map(child.memory_bytes, simulated))
        account = running.account().values()
    finally:
        code = running.end()
    assert all(row["adds_up"] and row["rejected"] == 0 for row in account)
    assert used <= MEMORY_BYTES_MAX
    assert (code, alive(family)) == (0, [])


def shown(up: Up, sector: str) -> int:
    """How many Things of a sector the map can show without a token."""
    status, found = up.get(f"/v1/{sector}/latest?limit=1000")
    return len(found["features"]) if status == 200 else 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_run_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    import pwd

    user = pwd.getpwnam("nobody")
    python = python_for(user.pw_uid)
    if python is None:
        pytest.skip("no Python here that another user may run")
    home = Path("/tmp") / f"chimata-user-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    site = Path(psycopg.__file__).parents[1]
    environment = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{site}",
        "PATH": f"{broker.binary().parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        running = Up(home / "港", python=python, uid=user.pw_uid, environment=environment).wait()
        uids = {process.uids().effective for process in alive(running.family())}
        assert running.get("/healthz")[0] == 200
        assert running.end() == 0
        assert uids == {user.pw_uid}
    finally:
        shutil.rmtree(home)


def python_for(uid: int) -> str | None:
    """A Python of our own version that this user may run: not one under /root."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            subprocess.run(
                [python, "-c", ""], user=uid, group=uid, extra_groups=[], check=True, cwd="/"
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_local_user_reads_none_of_it(city: Up) -> None:
    """Nothing in the data folder that holds a secret may be read by anyone else."""
    open_to_others = [
        path
        for path in city.data.rglob("*")
        if not path.is_symlink()
        and path.suffix in (".secret", ".jwk", ".conf", ".log")
        and path.stat().st_mode & 0o077
        and all(parent.stat().st_mode & 0o007 for parent in (path.parent, city.data))
    ]
    assert open_to_others == []
    assert city.data.stat().st_mode & 0o777 == 0o700
    url = postgres.running_url(city.data / "postgres")
    assert url is not None
    attempt = subprocess.run(
        [sys.executable, "-c", "import os, sys, psycopg\nos.setgroups([]); os.setgid(65534);"
         " os.setuid(65534)\ntry: psycopg.connect(sys.argv[1])\n"
         "except psycopg.OperationalError: sys.exit(7)", url],
        check=False, capture_output=True,
    )  # fmt: skip
    assert attempt.returncode == 7
