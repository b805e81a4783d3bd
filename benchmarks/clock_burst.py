"""The clock burst: every field server of the country reports at the full hour, within a second.

69,000 loose readings, each of a Thing of its own, go through Mosquitto as fast as a socket takes
them, once to make the Things known and then again, measured. The ingestor's memory is its largest
ever, as the kernel has it.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import stack
from benchmarks.mqtt_load import load
from benchmarks.mqtt_messages import over_mosquitto, until_committed
from benchmarks.result import Goal, Result, of_runs

NEEDS = ("mosquitto",)
READINGS = 69_000
GATEWAYS = 47
RUNS = 3
SECONDS = Goal("value", maximum=5)
MEMORY = Goal("value", maximum=300)
BYTES_MB = 1_000_000


def memory_largest_mb() -> float:
    """The largest resident set that the ingestor, a child of ours, ever had."""
    found = [
        line
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE  # one that ended, and was not waited for yet
        and process.cmdline()[-2:] == ["ingest", "mqtt"]
        for line in Path(f"/proc/{process.pid}/status").read_text("utf-8").splitlines()
        if line.startswith("VmHWM:")
    ]
    return max(int(line.split()[1]) * 1024 / BYTES_MB for line in found)


def bursts(label: str, database: stack.Database, scale: float) -> Iterator[Result]:
    """One burst that makes 69,000 Things, then those that are measured."""
    readings, runs = max(GATEWAYS, round(READINGS * scale)), max(1, round(RUNS * scale))
    readings -= readings % GATEWAYS
    seconds, offered = [], []
    with tempfile.TemporaryDirectory(prefix="chimata-bench-") as text:
        folder = Path(text)
        with database(folder) as url, over_mosquitto(url, folder) as to:
            for number in range(runs + 1):
                with load(
                    to, messages=readings, links=GATEWAYS, things=readings, window=readings,
                    sector="farms", property="soil-moisture",
                ) as burst:  # fmt: skip
                    began = burst.begin()
                    ended = until_committed(url, (number + 1) * readings)
                    seconds.append(ended - began)
                    offered.append(burst.seconds())
            memory = memory_largest_mb()
    note = (
        f"{runs} bursts of {readings} readings of as many Things by {GATEWAYS} gateways, each "
        f"taken by the broker within {min(offered[1:]):.2f} to {max(offered[1:]):.2f} s; the "
        f"burst before them, which made the Things and Datastreams, took {seconds[0]:.2f} s"
    )
    yield of_runs(f"clock_burst_{label}", "s", seconds[1:], goal=SECONDS, note=note)
    yield Result(f"clock_burst_memory_{label}", memory, "MB", goal=MEMORY, note="largest ever")


def run(scale: float = 1.0) -> Iterator[Result]:
    """Each database; the time is from the first reading sent to the last one committed."""
    for label, database in stack.databases().items():
        yield from bursts(label, database, scale)
