"""Memory of everything that an idle `chimata up` runs, shared pages counted once (PSS)."""

import time

import psutil

from benchmarks import stack
from benchmarks.result import Goal, Result, of_runs
from deploy import child

SETTLE_SECONDS = 20.0
SAMPLES = 5
BYTES_MB = 1_000_000


def parts(pid: int) -> str:
    """The same by program, largest first: where to look when it grows."""
    by_name: dict[str, float] = {}
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        words = process.cmdline()
        name = process.name()
        if name.startswith(("python", "chimata")):
            said = [word for word in words[1:] if word[0].isalpha()]
            name = " ".join(said[said.index("deploy.cli") + 1 :] if "deploy.cli" in said else said)
        by_name[name] = by_name.get(name, 0.0) + process.memory_full_info().pss / BYTES_MB
    ordered = sorted(by_name.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {size:.0f}" for name, size in ordered)


def run(scale: float = 1.0) -> Result:
    """Start, leave it alone, and look several times."""
    with stack.platform() as city:
        time.sleep(SETTLE_SECONDS * scale)
        samples = []
        for _ in range(max(1, round(SAMPLES * scale))):
            samples.append(child.memory_bytes(city.process.pid) / BYTES_MB)
            time.sleep(1.0)
        note = parts(city.process.pid)
    goal = Goal("value", maximum=500)
    return of_runs("idle_memory", "MB", samples, goal=goal, note=note)
