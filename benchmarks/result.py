"""What a benchmark returns, and how it is kept: benchmarks/results/NAME.json is the baseline."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil

RESULTS = Path(__file__).parent / "results"
BYTES_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on `value` or on `ratio`; at least one of minimum and maximum."""

    of: Literal["value", "ratio"]
    minimum: float | None = None
    maximum: float | None = None

    def __str__(self) -> str:
        low = [] if self.minimum is None else [f">= {self.minimum:g}"]
        high = [] if self.maximum is None else [f"<= {self.maximum:g}"]
        return f"{self.of} {' and '.join((*low, *high))}"


@dataclass(frozen=True, slots=True)
class Result:
    """One number. `spread` is (lowest, highest) of the runs whose median `value` is.

    Wall times on a shared machine vary up to twofold, so a throughput carries a `ratio` to
    something measured in the same run: `ratio_to` says what.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    ratio: float | None = None
    ratio_to: str | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        number = self.value if self.goal.of == "value" else self.ratio
        if number is None:
            return False
        low, high = self.goal.minimum, self.goal.maximum
        return (low is None or number >= low) and (high is None or number <= high)


def of_runs(name: str, unit: str, values: Sequence[float], **rest: Any) -> Result:
    """The median of several runs with their spread."""
    return Result(name, median(values), unit, spread=(min(values), max(values)), **rest)


def machine() -> dict[str, Any]:
    """What this ran on; without the host's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / BYTES_GIB, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def before(name: str) -> dict[str, Any] | None:
    """The recorded result, if there is one."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    recorded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return recorded


def write(result: Result, on: dict[str, Any]) -> Path:
    """Record a result in place of the one before."""
    RESULTS.mkdir(exist_ok=True)
    body = asdict(result) | {
        "goal": str(result.goal) if result.goal else None,
        "met": result.met,
        "machine": on,
        "commit": _commit(),
        "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    path = RESULTS / f"{result.name}.json"
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(path)
    return path


def _commit() -> str | None:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or None
