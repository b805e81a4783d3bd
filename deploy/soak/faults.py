"""What strikes a platform under soak, and when: a frozen table of faults, a plan from a seed."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from core.errors import CityError, invalid
from deploy.soak.city import City

COPY_SECONDS_MAX = 3.0
"""How long a strike waits for a backend to be inside a COPY."""
ROOM_BYTES = 64 * 1024
"""What is left on a full disk: less than anything of use takes."""
FILL_TRIES = 20
OTHERS_A_KILL = 4
"""Of every other group one strike for so many kills."""
QUIET = (0.04, 0.92)
"""Strikes fall within this part of the time: a load before the first, and time to see the last."""

TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND (NOT %(in_copy)s OR (state = 'active' AND query LIKE 'COPY%%'))
"""


@dataclass
class Ground:
    """What a fault may touch."""

    city: City
    gateways: list["subprocess.Popen[bytes]"]
    disks: dict[str, "Disk"]
    random: random.Random


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system of its own, made full and given room again."""

    folder: Path
    bytes_max: int

    def mount(self) -> None:
        """As a tmpfs; needs root."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mount(f"size={self.bytes_max},mode=0700")

    def fill(self) -> None:
        """No more room than a few pages from now on."""
        for left in reversed(range(FILL_TRIES)):
            state = os.statvfs(self.folder)
            used = (state.f_blocks - state.f_bfree) * state.f_frsize
            try:
                self._mount(f"remount,size={used + ROOM_BYTES}")
            except CityError:
                if not left:  # it is written to meanwhile: what is used may be more by now
                    raise
            else:
                return

    def free(self) -> None:
        """Room again."""
        self._mount(f"remount,size={self.bytes_max}")

    def unmount(self) -> None:
        """Gone, with all that is on it."""
        subprocess.run(["umount", "-l", self.folder], check=False, capture_output=True)  # noqa: S603, S607

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise invalid("--faults", f"disk needs root, to mount a tmpfs: {done.stderr.strip()}")


Undo = Callable[[], Any]
Strike = Callable[[Ground], Undo | None]
"""Does it; what it returns undoes it after the fault's seconds. None: there was nothing to hit."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to go wrong; `seconds` is how long it lasts at least and at most."""

    group: str
    strike: Strike
    seconds: tuple[float, float] = (0.0, 0.0)


def _done() -> None:
    """What is over at once has nothing to undo."""


def _send(processes: Iterable[psutil.Process], number: int) -> int:
    sent = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
            sent += 1
    return sent


def _signal(part: str, number: int, ground: Ground) -> Undo | None:
    found = ground.city.find(part)
    if part == "backend" and found:
        found = [ground.random.choice(found)]
    return _done if _send(found, number) else None


def _kill_up(ground: Ground) -> Undo | None:
    if not ground.city.ready:  # its parts are killed while it starts; itself once it has
        return None
    ground.city.expected_end = True
    return _signal("up", signal.SIGKILL, ground)


def _kill_gateway(ground: Ground) -> Undo | None:
    running = [each for each in ground.gateways if each.poll() is None]
    if not running:
        return None
    ground.random.choice(running).kill()
    return _done


def _end_sessions(in_copy: bool, ground: Ground) -> Undo | None:
    """Database sessions end, where it is asked for while they are inside a COPY."""
    if ground.city.database_network is not None:
        return _terminate(ground.city.database_url, in_copy=in_copy)
    deadline = time.monotonic() + COPY_SECONDS_MAX
    while time.monotonic() < deadline:
        for backend in ground.city.find("backend"):
            with contextlib.suppress(psutil.Error):
                if not in_copy or " ".join(backend.cmdline()).endswith(" COPY"):
                    backend.send_signal(signal.SIGTERM)
                    return _done
    return None


def _terminate(url: str, *, in_copy: bool) -> Undo | None:
    import psycopg

    deadline = time.monotonic() + COPY_SECONDS_MAX
    with (
        contextlib.suppress(psycopg.OperationalError),
        psycopg.connect(url, autocommit=True) as connection,
    ):
        while time.monotonic() < deadline:
            if connection.execute(TERMINATE, {"in_copy": in_copy}).rowcount > 0:
                return _done
    return None


def _hang(part: str, ground: Ground) -> Undo | None:
    """SIGSTOP: it is there and does not move."""
    found = ground.city.find(part)
    return partial(_send, found, signal.SIGCONT) if _send(found, signal.SIGSTOP) else None


def _hang_gateway(ground: Ground) -> Undo | None:
    running = [each for each in ground.gateways if each.poll() is None]
    if not running:
        return None
    chosen = ground.random.choice(running)
    chosen.send_signal(signal.SIGSTOP)

    def go_on() -> None:
        if chosen.poll() is None:
            chosen.send_signal(signal.SIGCONT)

    return go_on


def _cut_network(ground: Ground) -> Undo | None:
    for proxy in ground.city.network.values():
        proxy.cut()
    return _done


def _stall_network(ground: Ground) -> Undo | None:
    proxies = list(ground.city.network.values())
    for proxy in proxies:
        proxy.stall()

    def flow() -> None:
        for proxy in proxies:
            proxy.flow()

    return flow


def _cut_database(ground: Ground) -> Undo | None:
    proxy = ground.city.database_network
    if proxy is None:
        return _end_sessions(False, ground)
    proxy.cut()
    return _done


def _stall_database(ground: Ground) -> Undo | None:
    proxy = ground.city.database_network
    if proxy is None:
        return _hang("backend", ground)
    proxy.stall()
    return proxy.flow


def _fill(disk: str, ground: Ground) -> Undo | None:
    if disk not in ground.disks:
        return None
    ground.disks[disk].fill()
    return ground.disks[disk].free


def _set_clock(seconds: float, ground: Ground) -> Undo | None:
    ground.city.clock.set(seconds)
    return lambda: ground.city.clock.set(0.0)


FAULTS: dict[str, Fault] = {
    "kill-ingestor": Fault("kill", partial(_signal, "ingestor", signal.SIGKILL)),
    "kill-broker": Fault("kill", partial(_signal, "broker", signal.SIGKILL)),
    "kill-postmaster": Fault("kill", partial(_signal, "postmaster", signal.SIGKILL)),
    "kill-backend": Fault("kill", partial(_signal, "backend", signal.SIGKILL)),
    "kill-api": Fault("kill", partial(_signal, "api", signal.SIGKILL)),
    "kill-up": Fault("kill", _kill_up),
    "kill-gateway": Fault("kill", _kill_gateway),
    "restart-broker": Fault("kill", partial(_signal, "broker", signal.SIGTERM)),
    "cut-copy": Fault("cut", partial(_end_sessions, True)),
    "cut-database": Fault("cut", _cut_database),
    "cut-network": Fault("cut", _cut_network),
    "stall-network": Fault("hang", _stall_network, (1.0, 8.0)),
    "stall-database": Fault("hang", _stall_database, (1.0, 8.0)),
    "hang-ingestor": Fault("hang", partial(_hang, "ingestor"), (1.0, 8.0)),
    "hang-broker": Fault("hang", partial(_hang, "broker"), (1.0, 8.0)),
    "hang-database": Fault("hang", partial(_hang, "database"), (1.0, 8.0)),
    "hang-gateway": Fault("hang", _hang_gateway, (1.0, 8.0)),
    "disk-database": Fault("disk", partial(_fill, "postgres"), (3.0, 10.0)),
    "disk-broker": Fault("disk", partial(_fill, "broker"), (3.0, 10.0)),
    "disk-outbox": Fault("disk", partial(_fill, "outbox"), (3.0, 10.0)),
    "clock-ahead": Fault("clock", partial(_set_clock, 3_600.0), (2.0, 8.0)),
    "clock-behind": Fault("clock", partial(_set_clock, -3_600.0), (2.0, 8.0)),
    "clock-leap": Fault("clock", partial(_set_clock, -1.0), (2.0, 8.0)),
}
"""The groups are what `--faults` names."""
GROUPS = tuple(dict.fromkeys(fault.group for fault in FAULTS.values()))
EMBEDDED_ONLY = frozenset({"kill-postmaster", "kill-backend", "hang-database", "disk-database"})
"""A database that others use as well is not ours to kill or to fill."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One strike of a plan: when (seconds from the start), what, and for how long."""

    at: float
    fault: str
    seconds: float


def plan(
    seed: int, seconds: float, kills: int, groups: Sequence[str], *, without: Iterable[str] = ()
) -> list[Planned]:
    """`kills` strikes of the group kill, and of each other group some; the same for a seed."""
    chooser = random.Random(seed)  # noqa: S311 - a plan, not a secret
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise invalid("--faults", f"{', '.join(unknown)}: not among {', '.join(GROUPS)}")
    left_out = set(without)
    strikes = []
    for group in GROUPS:
        names = [name for name, fault in FAULTS.items() if fault.group == group]
        names = [name for name in names if name not in left_out]
        count = kills if group == "kill" else max(len(names), kills // OTHERS_A_KILL)
        if group not in groups or not names:
            continue
        chooser.shuffle(names)
        for number in range(count):
            # Each kind in turn, at any time: no run goes by without some kind.
            name = names[number % len(names)]
            at = chooser.uniform(QUIET[0] * seconds, QUIET[1] * seconds)
            strikes.append(Planned(at, name, chooser.uniform(*FAULTS[name].seconds)))
    return sorted(strikes, key=lambda each: each.at)
